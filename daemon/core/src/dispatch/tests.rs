//! The desk against a real ledger: schedules by seed, and the single decisions one by one.

mod desk;
mod fake;
mod samples;
mod sizes;
mod world;

use proptest::prelude::*;
use swarm_proto::{ledger::Batch, spec::Array};

use self::{
    samples::{exec, noop},
    world::{Fates, World},
};
pub(super) fn encoded(batch: &Batch) -> usize {
    postcard::experimental::serialized_size(batch).expect("plain data")
}

const FAULTS: Fates = Fates { chances: 150, has_faults: true, only_long: false };

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_task_ends_once(seed: u64, nodes in 1u64..6, window in 1u32..40) {
        World::new(seed, nodes, window, FAULTS).run();
    }

    #[test]
    fn without_faults_too(seed: u64, nodes in 1u64..6, window in 1u32..200) {
        World::new(seed, nodes, window, Fates { has_faults: false, ..FAULTS }).run();
    }

    #[test]
    fn long_tasks_never_wait_at_a_node(seed: u64, nodes in 1u64..6) {
        let mut world = World::new(seed, nodes, 100, Fates { chances: 60, has_faults: false, only_long: true });
        world.run();
        prop_assert_eq!(world.longest_wait, 0);
    }
}

#[test]
fn equal_nodes_get_equal_shares_of_noops() {
    for burst in [1, 7, 300] {
        let mut world = World::new(7, 3, 400, Fates { chances: 0, has_faults: false, only_long: false });
        for _ in 0..100 {
            world.step();
        }
        for _ in 0..(1_200 / burst) {
            for _ in 0..burst {
                world.submit_job(noop(), Array::single(), None);
            }
            world.run();
        }
        let got = world.granted_per_node();
        assert_eq!(got.len(), 3);
        assert!(got.values().all(|count| *count >= 300), "{burst}: {got:?}");
    }
}

#[test]
fn short_tasks_are_kept_ahead_and_long_ones_are_not() {
    let mut world = World::new(3, 2, 100, Fates { chances: 0, has_faults: false, only_long: false });
    for (millis, waits) in [(2, true), (1500, false)] {
        // the first ones are how the desk learns
        for _ in 0..2 {
            let array = Array { count: 300, is_array: true, ..Array::single() };
            world.longest_wait = 0;
            world.submit_job(exec(millis, 1000), array, None);
            world.run();
        }
        assert_eq!(world.longest_wait > 0, waits, "{millis} ms: {} waited", world.longest_wait);
        assert!(world.longest_wait <= swarm_proto::limits::PREFETCH as usize);
    }
}
