//! The files of attempts: brought before they begin, and once more where what is on the disk is no longer what came.

use swarm_core::attempts::Start;
use swarm_proto::ledger::End;

use super::{Done, Key, Worker};
use crate::node::files;

impl Worker {
    /// Has its files brought first.
    pub(super) fn gather(&mut self, start: Start) {
        let key = (start.task, start.fence);
        self.node.files.begin(key);
        let (node, done) = (self.node.clone(), self.done.0.clone());
        let gathering = self.node.blobs.runtime().spawn(async move {
            let gathered = files::gather(&node, start).await;
            let _ = done.send(Done::Gathered(key, gathered));
        });
        self.gathering.insert(key, gathering.abort_handle());
    }

    /// Its files were here and could not be used: what changed on the disk is brought again, and it begins once more.
    pub(super) fn heal(&mut self, start: Start, why: String) {
        let key = (start.task, start.fence);
        let (node, done) = (self.node.clone(), self.done.0.clone());
        let healing = self.node.blobs.runtime().spawn(async move {
            let healed = if files::recheck(&node, key).await { files::gather(&node, start).await } else { Err(why) };
            let _ = done.send(Done::Healed(key, healed));
        });
        self.gathering.insert(key, healing.abort_handle());
    }

    pub(super) fn handle_gathered(&mut self, key: Key, gathered: Result<Start, String>) {
        // one that was killed meanwhile has ended already
        if self.gathering.remove(&key).is_some() {
            match gathered {
                Ok(start) => self.execute(start),
                Err(why) => self.end_unrun(key, End::Input(why)),
            }
        }
    }
}
