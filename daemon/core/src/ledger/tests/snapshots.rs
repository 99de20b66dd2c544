//! Snapshots: what is not one is refused, and nothing in the bytes makes the reader fall over.

use proptest::prelude::*;
use swarm_proto::{
    Millis, PROTOCOL, TokenId,
    access::Role,
    identity::{Applicant, Change, Enroll, Invite, NewToken, NodeRole, Secret, Step, Warrant},
    ledger::Output,
    spec::Cause,
};

use super::*;
use crate::ledger::LedgerError;

const TRAILER: usize = 16;
const HEADER: usize = 6;

/// A ledger with something of everything.
fn rich() -> Ledger {
    let mut desk = Desk::new();
    let named = Arc::new(JobSpec { name: Some("n".into()), ..noop() });
    desk.one(Command::Lead { node: NodeId(1), term: swarm_proto::Term(3) });
    desk.one(Command::Admit(admit(2, 2, "pi")));
    let change = |change| Command::Identity(Box::new(change));
    desk.one(change(Change::Found(founding())));
    desk.one(change(Change::SetUser { name: "ann".into(), role: Role::Admin }));
    for (id, invite) in
        [Invite::Node { role: NodeRole::Worker, name: None, labels: Default::default() }, Invite::User { name: "ann".into() }]
            .into_iter()
            .enumerate()
    {
        let (id, key) = (TokenId([id as u8; 8]), Secret(vec![7; 32].into()));
        let new = NewToken { id, key, invite, uses: 2, life: Millis(60_000), by: "ann".into() };
        assert_eq!(desk.one(change(Change::CreateToken(new))), Applied::Done);
    }
    let who = Applicant::Node { admit: admit(3, 3, "gone"), labels: Default::default() };
    assert_eq!(desk.one(change(Change::Enroll(Enroll { by: Warrant::Token(TokenId([0; 8])), who }))), Applied::Admitted(NodeId(3)));
    desk.one(change(Change::Step { node: NodeId(2), step: Step::Welcomed }));
    desk.one(change(Change::Revoke { node: NodeId(3) }));
    desk.one(keyed("k", &named));
    desk.one(submit(&named, array(5, 700)));
    desk.one(submit(&Arc::new(noop()), Array { items: vec!["a".into(), "b".into()], ..array(0, 2) }));
    desk.one(assign(1, 0, 1));
    desk.one(assign(2, 10, 300));
    for index in 10..200 {
        let end = [End::Succeeded, End::Exit(2), End::Spawn("no".into())][index as usize % 3].clone();
        desk.end(task(2, index), end);
    }
    let fence = desk.fence(task(2, 250));
    desk.one(Command::Lose { task: task(2, 250), fence, cause: Cause::NodeLost });
    desk.one(Command::CancelTask { task: task(2, 600) });
    let output =
        Output { stdout: vec![1; 30].into(), stderr: Default::default(), stdout_len: 30, stderr_len: 0, stdout_blob: None, files: None };
    let outcome = Outcome { end: End::Succeeded, started: UnixMillis(1), ended: UnixMillis(2), output: Some(Box::new(output)) };
    let fence = desk.fence(task(1, 0));
    desk.one(Command::Finish(Finish { task: task(1, 0), fence, outcome }));
    desk.ledger.apply_voters(LogIndex(desk.ledger.applied().0 + 1), vec![NodeId(1)]);
    desk.ledger
}

#[test]
fn a_snapshot_is_the_ledger() {
    let ledger = rich();
    let bytes = ledger.encode();
    let again = Ledger::decode(&bytes).unwrap();
    assert_eq!(again.hash(), ledger.hash());
    assert!(again.encode() == bytes);
    assert_eq!(again.view(LogIndex(0)), ledger.view(LogIndex(0)));
    assert_eq!(again.held_bytes, ledger.held_bytes);
    let specs: Vec<_> = again.jobs().map(|job| Arc::as_ptr(job.spec())).collect();
    assert!(specs[0] == specs[1] && specs[1] != specs[2], "sharing comes back");
    assert_eq!(Ledger::decode(&Ledger::new().encode()).unwrap().applied(), LogIndex(0));
}

#[test]
fn another_format_is_refused_with_both_names() {
    let mut bytes = rich().encode();
    bytes[4] = 9;
    let error = Ledger::decode(&bytes).unwrap_err();
    assert_eq!(error, LedgerError::Newer { found: 9, known: PROTOCOL });
    assert_eq!(error.to_string(), format!("the snapshot is of protocol 9; this version knows those up to {PROTOCOL}"));
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let bytes = rich().encode();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(Ledger::decode(&flipped).is_err(), "byte {at}");
        assert!(matches!(Ledger::decode(&bytes[..at]), Err(LedgerError::Damaged(_))), "cut at {at}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(Ledger::decode(&longer).is_err());
}

proptest! {
    /// Behind the checksum: the body alone, damaged in a few places. What is read all the same is sound.
    #[test]
    fn a_damaged_body_never_panics(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in prop::option::weighted(0.2, any::<prop::sample::Index>())) {
        let bytes = rich().encode();
        let mut body = bytes[HEADER..bytes.len() - TRAILER].to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        if let Ok(ledger) = Ledger::decode_body(&body) {
            ledger.sanity_check().map_err(TestCaseError::fail)?;
            prop_assert!(Ledger::decode(&ledger.encode()).is_ok());
        }
    }

    #[test]
    fn random_bytes_are_no_snapshot(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Ledger::decode(&bytes).is_err());
        let _ = Ledger::decode_body(&bytes);
    }
}
