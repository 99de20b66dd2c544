//! Worlds in which something is that must never be, each named; and one in which all is well.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use swarm_core::ledger::fuzzing;
use swarm_proto::{
    Fence, LogIndex, PeerKey, RaftDir, Term, UnixMillis,
    ledger::{Addrs, Admit, Applied, Assign, Batch, Command, Finish, Grant, JobRef, Outcome, Output, Submit},
    spec::{Array, Exec, JobSpec, OnPartition},
};

use super::{
    super::{Show, written},
    *,
};
use crate::history::{Op, Submitted};

const KEY: &str = "c0-1";
const JOB: JobId = JobId(1);
const TASK: TaskId = TaskId { job: JOB, index: 0 };
/// Of the second host.
const WORKER: NodeId = NodeId(2);

/// Three hosts, of which each has its number as an id.
fn world() -> World {
    let world = World::new(1, 3, 0, 1, Show::Nothing);
    (1..=3).for_each(|host| world.is(host, NodeId(host)));
    world
}

fn role(term: u64, is_leader: bool) -> Role {
    Role { term: Term(term), is_leader, voters: [1, 2, 3].map(NodeId).into(), ..Role::default() }
}

/// A ledger, entry by entry.
#[derive(Default)]
struct Desk {
    ledger: Ledger,
}

impl Desk {
    /// Three nodes, led by the first in this term.
    fn led_in(term: u64) -> Self {
        let mut desk = Self::default();
        for node in 1..=3 {
            let addr = |port| SocketAddr::from((Ipv4Addr::new(10, 0, 0, node), port));
            let addrs = Addrs { control: addr(4747), bulk: addr(4748) };
            let admit = Admit { key: PeerKey([node; 32]), raft: RaftDir([node; 16]), name: format!("h{node}"), addrs, may_vote: true };
            assert_eq!(desk.apply(Command::Admit(admit)), Applied::Admitted(NodeId(node.into())));
        }
        desk.lead(term);
        desk
    }

    fn apply(&mut self, command: Command) -> Applied {
        let index = LogIndex(self.ledger.applied().0 + 1);
        let batch = Batch { at: UnixMillis(1_000), commands: vec![command] };
        self.ledger.apply(index, &batch).remove(0)
    }

    fn lead(&mut self, term: u64) {
        assert_eq!(self.apply(Command::Lead { node: NodeId(1), term: Term(term) }), Applied::Done);
    }

    fn submit(&mut self, key: &str) -> JobId {
        let submit = Submit { submitter: "sim".into(), key: Some(key.into()), spec: exec(|_| ()), array: Array::single(), retry_of: None };
        let applied = self.apply(Command::Submit(submit));
        let Applied::Accepted { job, .. } = applied else { panic!("{applied:?}") };
        job
    }

    fn assign(&mut self) -> Fence {
        let assign = Assign { job: JobRef::Known(JOB), first: 0, count: 1, node: WORKER };
        let applied = self.apply(Command::Assign(assign));
        let Applied::Granted(grants) = applied else { panic!("{applied:?}") };
        let [Grant { fence, .. }] = grants[..] else { panic!("{grants:?}") };
        fence
    }

    fn finish(&mut self, fence: Fence, end: End) {
        let output = Output { stdout: written((TASK, fence)).into(), ..Output::default() };
        let outcome = Outcome { end, started: UnixMillis(5), ended: UnixMillis(6), output: Some(Box::new(output)) };
        self.apply(Command::Finish(Finish { task: TASK, fence, outcome }));
    }
}

fn exec(change: impl FnOnce(&mut JobSpec)) -> Arc<JobSpec> {
    let argv = vec!["sim".into(), "1".into(), "works".into()];
    let mut spec = JobSpec::new(Work::Exec(Exec { argv, env: Default::default(), stdin: Default::default(), cwd: None }));
    change(&mut spec);
    spec.into()
}

fn fence(attempt: u32) -> Fence {
    Fence { index: LogIndex(u64::from(attempt)), attempt: AttemptNo(attempt) }
}

fn hear(world: &World, host: u64, seen: Seen) {
    let mut inner = world.lock();
    inner.host(host).keeper.seen.push(seen);
    inner.hear(host);
}

/// Nothing was wrong before, and now this is.
fn found(world: &World, words: &str) {
    let violations = world.violations();
    assert!(violations.len() == 1 && violations[0].contains(words), "'{words}' is not what is wrong: {violations:?}");
}

/// A job was accepted, ran on the second host and succeeded, and all of that was seen.
fn done() -> (World, Desk) {
    let (world, mut desk) = (world(), Desk::led_in(1));
    assert_eq!(desk.submit(KEY), JOB);
    world.look(1, &role(1, true), &desk.ledger, true);
    let accepted = Submitted::Accepted { job: JOB, is_new: true };
    world.record(KEY, world.moment(), Op::Submit { content: 1, answer: Some(accepted) });
    world.acknowledge(KEY, JOB);
    let fence = desk.assign();
    hear(&world, 2, Seen::Started((TASK, fence), exec(|_| ())));
    hear(&world, 2, Seen::Ended((TASK, fence), End::Succeeded));
    desk.finish(fence, End::Succeeded);
    world.look(1, &role(1, true), &desk.ledger, true);
    (world, desk)
}

#[test]
fn a_job_that_runs_and_ends_is_right() {
    let (world, desk) = done();
    [2, 3].iter().for_each(|host| world.look(*host, &role(1, false), &desk.ledger, true));
    world.told(&desk.ledger.job_outcome(JOB).unwrap());
    world.told(&desk.ledger.job_outcome(JOB).unwrap());
    world.check_rest();
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[test]
fn a_term_has_one_leader() {
    let (world, desk) = (world(), Desk::led_in(4));
    world.look(1, &role(4, true), &desk.ledger, true);
    world.look(2, &role(5, true), &desk.ledger, true);
    assert!(world.violations().is_empty());
    world.look(3, &role(5, true), &desk.ledger, true);
    found(&world, "h2 and h3 both lead in term 5");
}

#[test]
fn whoever_holds_a_ledger_holds_the_same() {
    let (world, mut one, mut other) = (world(), Desk::led_in(1), Desk::led_in(1));
    one.submit("one");
    other.submit("other");
    world.look(1, &role(1, true), &one.ledger, true);
    world.look(2, &role(1, false), &other.ledger, true);
    found(&world, "h2 and h1 differ after entry 5");
}

#[test]
fn what_every_ledger_says_is_one_history() {
    let (world, mut one, mut other) = (world(), Desk::led_in(1), Desk::led_in(1));
    one.submit("one");
    other.lead(2);
    // the same entry, but looked at once one of them has gone on
    other.lead(3);
    world.look(1, &role(1, true), &one.ledger, true);
    world.look(2, &role(3, true), &other.ledger, true);
    found(&world, "h2: Event");
}

#[test]
fn nothing_is_forgotten_before_it_was_seen() {
    let (world, mut desk) = (world(), Desk { ledger: fuzzing::small() });
    desk.lead(1);
    world.look(1, &role(1, true), &desk.ledger, true);
    (2..200).for_each(|term| desk.lead(term));
    world.look(1, &role(199, true), &desk.ledger, true);
    found(&world, "h1 forgot events that nobody has seen");
}

#[test]
fn a_second_daemon_with_one_key_leads_nothing_and_learns_nothing() {
    for (more, is_leader) in [(0, true), (100, false)] {
        let (world, mut desk) = (world(), Desk::led_in(1));
        world.look(2, &role(1, false), &desk.ledger, true);
        assert!(world.make_second(2));
        world.look(4, &role(1, false), &desk.ledger, true);
        assert!(world.violations().is_empty());
        for n in 0..more {
            desk.submit(&n.to_string());
        }
        world.look(4, &role(1, is_leader), &desk.ledger, true);
        found(&world, "a second daemon with one key got to");
    }
}

#[test]
fn an_id_is_one_nodes() {
    let another = world();
    another.is(2, NodeId(7));
    found(&another, "the node on h2 was Some(NodeId(2)) and is n7");
    let two = World::new(1, 3, 0, 1, Show::Nothing);
    two.is(1, NodeId(1));
    two.wipe(1, Default::default());
    two.is(1, NodeId(4));
    assert!(two.violations().is_empty(), "it lost its disks, and is somebody else now");
    two.wipe(1, Default::default());
    two.is(1, NodeId(1));
    found(&two, "the node on h1 was Some(NodeId(4)) and is n1");
}

#[test]
fn what_succeeded_ran_there_and_then() {
    let ends = |seen: &[(u64, End)]| {
        let (world, mut desk) = (world(), Desk::led_in(1));
        desk.submit(KEY);
        let fence = desk.assign();
        for (host, end) in seen {
            hear(&world, *host, Seen::Started((TASK, fence), exec(|_| ())));
            hear(&world, *host, Seen::Ended((TASK, fence), end.clone()));
        }
        desk.finish(fence, End::Succeeded);
        world.look(1, &role(1, true), &desk.ledger, true);
        world
    };
    assert!(ends(&[(2, End::Succeeded)]).violations().is_empty());
    found(&ends(&[]), "TaskEnded");
    found(&ends(&[(2, End::Exit(1))]), "TaskEnded");
    found(&ends(&[(3, End::Succeeded)]), "TaskEnded");
}

#[test]
fn an_attempt_starts_once() {
    let world = world();
    hear(&world, 1, Seen::Started((TASK, fence(1)), exec(|_| ())));
    hear(&world, 2, Seen::Started((TASK, fence(2)), exec(|_| ())));
    assert!(world.violations().is_empty(), "two attempts may overlap");
    hear(&world, 3, Seen::Started((TASK, fence(2)), exec(|_| ())));
    found(&world, "is started a second time");
}

#[test]
fn never_two_at_once_where_that_is_promised() {
    let alone = || exec(|spec| spec.on_partition = OnPartition::Stop);
    for over in [Seen::Ended((TASK, fence(1)), End::Lost), Seen::Vanished((TASK, fence(1)))] {
        let world = world();
        hear(&world, 1, Seen::Started((TASK, fence(1)), alone()));
        hear(&world, 1, over);
        hear(&world, 2, Seen::Started((TASK, fence(2)), alone()));
        assert!(world.violations().is_empty());
        hear(&world, 3, Seen::Started((TASK, fence(3)), alone()));
        found(&world, "runs twice at once");
    }
}

#[test]
fn at_most_once_is_at_most_once() {
    let world = world();
    let once = || exec(|spec| spec.at_most_once = true);
    hear(&world, 1, Seen::Started((TASK, fence(1)), once()));
    hear(&world, 1, Seen::Ended((TASK, fence(1)), End::Lost));
    hear(&world, 2, Seen::Started((TASK, fence(2)), once()));
    found(&world, "is at-most-once and was started 2 times");
}

#[test]
fn a_leader_has_every_acknowledged_job() {
    let (world, mut desk) = (world(), Desk::led_in(1));
    world.acknowledge(KEY, JOB);
    world.look(2, &role(1, false), &desk.ledger, true);
    world.look(1, &role(2, true), &desk.ledger, true);
    assert!(world.violations().is_empty(), "a follower may not have it yet, nor a leader who has not begun");
    desk.lead(2);
    world.look(1, &role(2, true), &desk.ledger, true);
    world.look(1, &role(2, true), &desk.ledger, true);
    found(&world, "h1 does not have j1, which was acknowledged as c0-1");
}

#[test]
fn a_leader_of_the_past_need_not_have_it() {
    let (world, old, mut new) = (world(), Desk::led_in(1), Desk::led_in(1));
    new.lead(2);
    new.submit(KEY);
    world.look(2, &role(2, true), &new.ledger, true);
    world.acknowledge(KEY, JOB);
    world.look(1, &role(1, true), &old.ledger, true);
    assert!(world.violations().is_empty());
}

#[test]
fn an_acknowledged_job_is_never_passed_over_or_another() {
    for acknowledged in [("c1-1", JOB), (KEY, JobId(0))] {
        let (world, mut desk) = (world(), Desk::led_in(1));
        desk.submit(KEY);
        world.acknowledge(acknowledged.0, acknowledged.1);
        world.look(2, &role(1, false), &desk.ledger, true);
        found(&world, &format!("h2 does not have {}, which was acknowledged as {}", acknowledged.1, acknowledged.0));
    }
}

#[test]
fn a_key_names_one_job() {
    let world = world();
    world.acknowledge(KEY, JOB);
    world.acknowledge(KEY, JOB);
    assert!(world.violations().is_empty());
    world.acknowledge(KEY, JobId(2));
    found(&world, "c0-1 was Some(JobId(1)) and is j2");
}

#[test]
fn an_end_is_told_once_and_for_all() {
    let (world, desk) = done();
    let outcome = desk.ledger.job_outcome(JOB).unwrap();
    world.told(&outcome);
    world.told(&swarm_proto::api::JobOutcome { state: TaskState::Failed, ..outcome });
    found(&world, "j1 ended Some(Succeeded) and Failed");
}

#[test]
fn whose_end_was_never_told_is_named() {
    let (world, _) = done();
    world.check_rest();
    found(&world, "the ends of 1 jobs were never told");
}

#[test]
fn an_output_is_the_accepted_attempts() {
    let (world, desk) = done();
    let mut outcome = desk.ledger.job_outcome(JOB).unwrap();
    outcome.task.as_mut().unwrap().fence = Some(fence(2));
    world.told(&outcome);
    found(&world, "the output of another attempt");
}

#[test]
fn what_clients_are_shown_is_judged_at_the_end() {
    let (world, desk) = done();
    world.told(&desk.ledger.job_outcome(JOB).unwrap());
    world.record(KEY, world.moment(), Op::Get { seen: None });
    world.check_rest();
    found(&world, "c0-1 is not linearizable");
}

#[test]
fn an_end_is_kept_by_every_ledger() {
    let (world, _) = done();
    let mut other = Desk::led_in(1);
    other.submit(KEY);
    let fence = other.assign();
    // as many entries, so that only what became of the task is another thing
    other.finish(fence, End::Exit(3));
    world.look(2, &role(1, false), &other.ledger, true);
    let violations = world.violations();
    assert!(violations.iter().any(|why| why.starts_with("h2: j1") && why.ends_with("ended Succeeded and is Failed")), "{violations:?}");
}

#[test]
fn whoever_is_closed_out_is_out_wherever_its_id_was() {
    let world = world();
    world.lock().note_departure(&What::NodeRevoked { node: WORKER });
    assert_eq!([1, 2, 3].map(|host| world.is_out(host)), [false, true, false]);
}

#[test]
fn a_blob_is_what_was_put() {
    let (put, digest) = (b"three".as_slice(), swarm_proto::Digest(*blake3::hash(b"three").as_bytes()));
    let right = world();
    right.named(digest, put);
    right.gave(2, digest, put, put);
    assert!(right.violations().is_empty());
    right.gave(2, digest, b"thrae", put);
    found(&right, "h2 gave other bytes as");
    let misnamed = world();
    misnamed.named(digest, b"four");
    found(&misnamed, "is not the name of what was put");
}
