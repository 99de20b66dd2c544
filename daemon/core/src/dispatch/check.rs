//! For `tests/fuzz` and the tests here: whether the desk is sound.

use swarm_proto::spec::Resources;

use super::{Dispatch, batch::Sent, worker::Worker};
use crate::placement;

impl Dispatch {
    /// Counts everything anew, and holds the entry in flight against the rule that nothing waits at a node while another could run it.
    ///
    /// # Panics
    /// When something is wrong.
    pub fn sanity_check(&self) {
        self.queue.sanity_check();
        let sent = self.in_flight.iter().flat_map(|entry| &entry.sent);
        for (node, worker) in &self.workers {
            let mut reserved = (0, 0, Resources::default());
            for sent in sent.clone() {
                let Sent::Assign { group, node: to, count, waits, .. } = sent else { continue };
                if to != node {
                    continue;
                }
                reserved.0 += count;
                if *waits {
                    reserved.1 += count;
                } else {
                    placement::occupy(&mut reserved.2, self.queue.needs(*group), *count);
                }
            }
            Worker::sanity_check(worker, &self.queue, reserved);
        }
    }

    /// To be asked right after an entry is made.
    ///
    /// # Panics
    /// When work is kept back.
    pub fn check_hoarding(&self) {
        for sent in self.in_flight.iter().flat_map(|entry| &entry.sent) {
            if let Sent::Assign { group, waits: true, .. } = sent {
                let idle = self.rooms(*group).into_iter().find(|room| room.free > 0);
                assert_eq!(idle, None, "work waits elsewhere while this node could run it");
            }
        }
    }
}
