//! Bounds of encoded sizes are bounds, and not far off.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::btree_map, option, prelude::*};
use swarm_proto::{
    AttemptNo, Digest, Fence, JobId, LogIndex, Millis, NodeId, PeerKey, TaskId, UnixMillis,
    ledger::{Command, End, Finish, Outcome, Output, Recorded, RecordedTask, Submit, TaskState},
    manifest::Tree,
    signed::Signed,
    spec::{Array, Cause, Exec, ItemList, JobSpec, OnPartition, Resources, Retries, Work},
};

use crate::dispatch::size;

fn words() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(".{0,20}", ".{0,40}", 0..5)
}

prop_compose! {
    fn work()(argv in prop::collection::vec(".{0,30}", 0..6), env in words(), stdin: Vec<u8>, cwd in option::of(".{0,9}"), noop: bool) -> Work {
        if noop { Work::Noop } else { Work::Exec(Exec { argv, env, stdin: stdin.into(), cwd }) }
    }
}

prop_compose! {
    fn tree()(manifest: [u8; 32], files: u32, bytes: u64) -> Tree {
        Tree { manifest: Digest(manifest), files, bytes }
    }
}

prop_compose! {
    fn spec()(
        name in option::of(".{0,40}"),
        work in work(),
        amounts: (u64, u64, u64, u32),
        named in btree_map(".{0,9}", any::<u64>(), 0..4),
        labels in words(),
        times in (option::of(any::<u64>()), option::of(any::<u64>())),
        retries: [u16; Cause::ALL.len()],
        trees in (option::of(tree()), option::of(tree()), option::of(any::<([u8; 32], u64)>())),
        outputs in prop::collection::vec(".{0,20}", 0..4),
        signed in option::of((any::<[u8; 32]>(), ".{1,9}", prop::collection::vec(".{0,9}", 0..4), any::<u64>())),
    ) -> JobSpec {
        let (milli_cores, memory, disk, gpus) = amounts;
        JobSpec {
            name, work, labels,
            needs: Resources { milli_cores, memory, disk, gpus, named },
            timeout: times.0.map(Millis), patience: times.1.map(Millis),
            retries: Retries(retries), on_partition: OnPartition::Wait, at_most_once: true,
            durability: swarm_proto::spec::Durability::Async,
            inputs: trees.0, each: trees.1, items: trees.2.map(|(digest, size)| ItemList { digest: Digest(digest), size }), outputs,
            signed: signed.map(|(by, key, items, ends)| Box::new(Signed {
                by: PeerKey(by), key, array: Array { items, ..Array::single() }, not_after: UnixMillis(ends), signature: vec![7; 64].into(),
            })),
        }
    }
}

fn holds(command: &Command) -> Result<(), TestCaseError> {
    let is = postcard::experimental::serialized_size(command).expect("plain data");
    let bound = size::command(command);
    prop_assert!(is <= bound, "{is} > {bound}: {command:?}");
    prop_assert!(bound <= is * 5 + 256, "{bound} for {is}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn submissions(spec in spec(), key in option::of(".{0,128}"), items in prop::collection::vec(".{0,20}", 0..20), max: bool) {
        let numbers = if max { (u32::MAX, u32::MAX, JobId(u64::MAX)) } else { (0, 1, JobId(1)) };
        let array = Array { first: numbers.0, count: numbers.1, is_array: true, items };
        prop_assert!(postcard::experimental::serialized_size(&spec).expect("plain data") <= size::spec(&spec));
        holds(&Command::Submit(Submit { submitter: "somebody".into(), key, spec: Arc::new(spec), array, retry_of: Some(numbers.2) }))?;
    }

    #[test]
    fn ends(text in option::of(".{0,300}"), output in option::of(any::<(Vec<u8>, Vec<u8>)>()), files in option::of(tree()), max: bool) {
        let word = if max { u64::MAX } else { 0 };
        let short = if max { u32::MAX } else { 0 };
        let end = text.map_or(End::Exit(i32::MIN), End::Spawn);
        let output = output.map(|(out, err)| {
            let stdout_blob = max.then_some(Digest([9; 32]));
            Box::new(Output { stdout: out.into(), stderr: err.into(), stdout_len: word, stderr_len: word, stdout_blob, files })
        });
        let task = TaskId { job: JobId(word), index: short };
        let fence = Fence { index: LogIndex(word), attempt: AttemptNo(short) };
        let outcome = Outcome { end, started: UnixMillis(word), ended: UnixMillis(word), output };
        let recorded = RecordedTask { state: TaskState::Failed, fence, node: NodeId(word), is_reported: max, outcome: Some(outcome.clone()) };
        let submit = Submit {
            submitter: "somebody".into(), key: None, spec: Arc::new(super::samples::noop()), array: Array::single(), retry_of: None,
        };
        let tasks = vec![recorded.clone(), RecordedTask { outcome: None, ..recorded }];
        holds(&Command::Record(Box::new(Recorded {
            job: JobId(word), submit, submitted: UnixMillis(word), ended: UnixMillis(word), tasks,
        })))?;
        holds(&Command::Reserve { count: short })?;
        holds(&Command::Finish(Finish { task, fence, outcome }))?;
        holds(&Command::Lose { task, fence, cause: swarm_proto::spec::Cause::Refused })?;
        holds(&Command::CancelTask { task })?;
    }
}

#[test]
fn an_admission() {
    let mut admit = super::samples::admit(200);
    admit.addrs.control = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().expect("an address");
    admit.addrs.bulk = admit.addrs.control;
    admit.name = "n".repeat(128);
    holds(&Command::Admit(admit)).expect("the bound holds");
}
