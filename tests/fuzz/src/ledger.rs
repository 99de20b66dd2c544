//! The state machine: commands as anybody could bring them into the log, and snapshots as they could be on a disk.

pub(crate) mod commands;

use swarm_core::ledger::{Ledger, fuzzing};
use swarm_proto::{
    Cursor, JobId, LogIndex, NodeId, TaskId, UnixMillis,
    ledger::{Applied, Batch, Command},
};

use crate::input::Input;

/// Two voters apply the same entries, and one of them comes back from its snapshot now and then: both stay the same, and both sound.
pub(crate) fn apply(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (mut ledger, mut again) = (fuzzing::small(), fuzzing::small());
    let (mut index, mut at) = (0, 1_000_000_000);
    if input.chance(2) {
        index += 1;
        let batch = Batch { at: UnixMillis(at), commands: commands::beginning() };
        assert_eq!(ledger.apply(LogIndex(index), &batch), again.apply(LogIndex(index), &batch));
    }
    for entry in 1..=48 {
        if input.is_empty() {
            break;
        }
        index += 1 + u64::from(input.chance(16));
        match input.below(16) {
            0 => {
                let voters: Vec<_> = (0..input.below(6)).map(|_| NodeId(input.below(8) as u64)).collect();
                ledger.apply_voters(LogIndex(index), voters.clone());
                again.apply_voters(LogIndex(index), voters);
            }
            1 => {
                ledger.skip(LogIndex(index));
                again.skip(LogIndex(index));
            }
            _ => {
                at = commands::clock(at, &mut input);
                let list: Vec<Command> = (0..=input.below(6)).map(|_| commands::command(&mut input, &ledger)).collect();
                let batch = Batch { at: UnixMillis(at), commands: list };
                let answers = ledger.apply(LogIndex(index), &batch);
                assert_eq!(answers.len(), batch.commands.len(), "one answer a command");
                check(&answers, &ledger);
                assert_eq!(again.apply(LogIndex(index), &batch), answers, "two voters answer differently");
            }
        }
        assert_eq!(ledger.hash(), again.hash(), "two voters differ");
        // a walk over everything
        if entry % 4 == 0 || input.is_empty() {
            ledger.sanity_check().unwrap_or_else(|why| panic!("after entry {index}: {why}"));
        }
        if input.chance(12) {
            again = fuzzing::reread(&again);
        }
    }
    read_everything(&ledger);
    assert!(ledger.encode() == again.encode(), "two voters write different snapshots");
}

/// What was granted is granted.
fn check(answers: &[Applied], ledger: &Ledger) {
    for answer in answers {
        if let Applied::Accepted { job, .. } = answer {
            assert!(job.0 > 0 && ledger.job(JobId(u64::MAX)).is_none());
        }
        if let Applied::Granted(grants) = answer {
            assert!(grants.iter().all(|grant| grant.count > 0 && ledger.node(grant.node).is_some()), "a grant of nothing, or to nobody");
        }
    }
}

/// All that is asked of a ledger.
fn read_everything(ledger: &Ledger) {
    for job in ledger.jobs() {
        let id = job.id();
        let _ = (ledger.job_view(id), ledger.job_outcome(id), ledger.pending_ranges(id, 7));
        for index in ledger.task_indices(id, None, None, 50) {
            let task = TaskId { job: id, index };
            let _ = (ledger.task_view(task), ledger.task_state(task), ledger.current_fence(task), ledger.output(task));
        }
    }
    for node in ledger.nodes() {
        let _ = (ledger.assigned_to(node.id).count(), ledger.node_named(&node.name));
    }
    let view = ledger.view(LogIndex(0));
    let _ = (view.canonical(), ledger.view(LogIndex(u64::MAX)), ledger.events_after(Cursor::default(), usize::MAX).count());
}

/// A snapshot with a good checksum, whatever is in it. What is taken is sound, and is written as it was read.
pub(crate) fn snapshot(bytes: &[u8]) {
    let sealed = sealed(bytes);
    if let Ok(ledger) = Ledger::decode(&sealed) {
        let written = ledger.encode();
        let again = Ledger::decode(&written).unwrap_or_else(|e| panic!("a ledger does not read its own snapshot: {e}"));
        assert!(again.encode() == written, "a snapshot that changes");
        assert_eq!(again.hash(), ledger.hash());
        read_everything(&ledger);
    }
    assert!(Ledger::decode(bytes).is_err(), "a checksum of 16 bytes was guessed");
}

/// Bytes between a snapshot's head and its checksum, with both.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = [b"SWLG\x01\0", body].concat();
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(&digest.as_bytes()[..16]);
    bytes
}

/// What [`snapshot`] is given of the ledger that [`apply`] makes of the same bytes.
pub(crate) fn body_after(bytes: &[u8]) -> Vec<u8> {
    let mut input = Input(bytes);
    let mut ledger = Ledger::new();
    let mut at = 1_000_000_000;
    ledger.apply(LogIndex(1), &Batch { at: UnixMillis(at), commands: commands::beginning() });
    let mut index = 1;
    while !input.is_empty() {
        index += 1;
        at = commands::clock(at, &mut input);
        let commands = (0..3).map(|_| commands::command(&mut input, &ledger)).collect();
        ledger.apply(LogIndex(index), &Batch { at: UnixMillis(at), commands });
    }
    let written = ledger.encode();
    written[6..written.len() - 16].to_vec()
}
