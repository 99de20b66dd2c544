//! Events as no ledger may tell them, and as one does.

use swarm_proto::{LogIndex, UnixMillis, ledger::Schedule};

use super::*;

const JOB: JobId = JobId(17);
const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

fn task(index: u32) -> TaskId {
    TaskId { job: JOB, index }
}

fn submitted(tasks: u32) -> What {
    What::JobSubmitted { job: JOB, tasks }
}

fn granted(first: u32, count: u32, attempt: u32, node: NodeId) -> What {
    What::TasksAssigned { job: JOB, first, count, attempt: AttemptNo(attempt), node }
}

fn ended(index: u32, state: TaskState, attempt: u32, node: NodeId) -> What {
    What::TaskEnded { task: task(index), state, attempt: AttemptNo(attempt), node: Some(node) }
}

fn retried(index: u32, attempt: u32) -> What {
    What::TaskRetried { task: task(index), attempt: AttemptNo(attempt), cause: swarm_proto::spec::Cause::NodeLost }
}

fn over(succeeded: u64, cancelled: u64) -> What {
    What::JobEnded { job: JOB, counts: Counts { succeeded, cancelled, ..Counts::default() } }
}

fn elected(node: NodeId, term: u64) -> What {
    What::LeaderElected { node, term: Term(term) }
}

fn event(index: u64, what: &What) -> Event {
    Event { cursor: Cursor { index: LogIndex(index), sub: 0 }, at: UnixMillis(index), what: what.clone() }
}

/// What is wrong with these events, each an entry's, of which only the last may be.
fn wrong(events: &[What]) -> String {
    let mut model = Model::default();
    let (last, before) = events.split_last().unwrap();
    for (index, what) in (1..).zip(before) {
        assert_eq!(model.take(&event(index, what)), Ok(true), "{what:?}");
    }
    model.take(&event(events.len() as u64, last)).expect_err("the last event is wrong")
}

use TaskState::{Cancelled, Failed, Succeeded};

#[test]
fn a_right_history_is_taken_whoever_tells_it() {
    let events = [
        elected(ONE, 1),
        submitted(4),
        granted(0, 2, 1, TWO),
        ended(1, Succeeded, 1, TWO),
        retried(0, 1),
        elected(TWO, 3),
        granted(0, 1, 2, ONE),
        What::NodeScheduled { node: TWO, to: Schedule::Cordoned },
        ended(0, Succeeded, 2, ONE),
        granted(2, 1, 1, ONE),
        What::NodeLeft { node: TWO },
        ended(2, Cancelled, 1, ONE),
        over(2, 2),
    ];
    let mut model = Model::default();
    for is_new in [true, false] {
        for (index, what) in (1..).zip(&events) {
            assert_eq!(model.take(&event(index, what)), Ok(is_new), "{what:?}");
        }
    }
    assert_eq!(model.reruns(), 1);
    assert_eq!(model.last(), event(13, &events[12]).cursor);
    assert_eq!(model.ended().collect::<Vec<_>>(), [(task(0), Succeeded), (task(1), Succeeded), (task(2), Cancelled)]);
    assert!(model.is_newest(Term(3), LogIndex(6)) && model.is_newest(Term(3), LogIndex(9)));
    assert!(!model.is_newest(Term(3), LogIndex(5)) && !model.is_newest(Term(1), LogIndex(9)));
}

#[test]
fn nodes_tell_one_history() {
    let mut model = Model::default();
    model.take(&event(3, &submitted(1))).unwrap();
    model.take(&event(5, &granted(0, 1, 1, ONE))).unwrap();
    let why = model.take(&event(5, &granted(0, 1, 1, TWO))).unwrap_err();
    assert!(why.contains("was Event"), "{why}");
    let why = model.take(&event(4, &elected(ONE, 1))).unwrap_err();
    assert!(why.contains("appears in the past"), "{why}");
}

#[test]
fn terms_only_grow() {
    assert!(wrong(&[elected(ONE, 4), elected(TWO, 4)]).starts_with("Term(4) after Term(4)"));
    assert!(wrong(&[elected(ONE, 4), elected(ONE, 3)]).starts_with("Term(3) after Term(4)"));
}

#[test]
fn a_task_ends_once() {
    let begin = [submitted(2), granted(0, 2, 1, ONE), ended(0, Succeeded, 1, ONE)];
    for again in [ended(0, Succeeded, 1, ONE), ended(0, Failed, 1, ONE), ended(0, Cancelled, 1, ONE), ended(0, TaskState::Lost, 1, ONE)] {
        assert!(wrong(&[&begin[..], &[again]].concat()).starts_with("ends again"));
    }
    assert!(wrong(&[&begin[..], &[ended(1, TaskState::Pending, 1, ONE)]].concat()).starts_with("ends again"), "an end that is none");
    assert!(wrong(&[&begin[..], &[retried(0, 1)]].concat()).starts_with("retried"));
    assert!(wrong(&[&begin[..], &[granted(0, 1, 2, ONE)]].concat()).contains("is granted as attempt"));
}

#[test]
fn only_the_current_attempt_counts() {
    let begin = [submitted(1), granted(0, 1, 1, ONE), retried(0, 1), granted(0, 1, 2, TWO)];
    for stale in [ended(0, Succeeded, 1, ONE), ended(0, Failed, 1, TWO), ended(0, Succeeded, 2, ONE), ended(0, Succeeded, 3, TWO)] {
        assert!(wrong(&[&begin[..], &[stale]].concat()).starts_with("the result is not the current attempt's"));
    }
    assert!(wrong(&[&begin[..3], &[ended(0, Succeeded, 1, ONE)]].concat()).starts_with("the result is not"), "nobody runs it");
    assert!(wrong(&[&begin[..], &[retried(0, 1)]].concat()).starts_with("retried"));
}

#[test]
fn attempts_are_granted_one_after_the_other() {
    let begin = [submitted(2), granted(0, 1, 1, ONE)];
    for grant in [granted(0, 1, 2, TWO), granted(0, 2, 1, ONE), granted(1, 1, 2, ONE)] {
        assert!(wrong(&[&begin[..], &[grant]].concat()).contains("is granted as attempt"));
    }
    assert!(wrong(&[granted(0, 1, 1, ONE)]).contains("is of no open job"));
}

#[test]
fn nothing_is_granted_once_a_job_is_cancelled() {
    let end = [submitted(2), granted(0, 1, 1, ONE), ended(0, Cancelled, 1, ONE), over(0, 2)];
    assert!(wrong(&[&end[..], &[granted(1, 1, 1, ONE)]].concat()).contains("is of no open job"));
    assert!(wrong(&[&end[..], &[ended(1, Succeeded, 1, ONE)]].concat()).starts_with("its job has ended"));
}

#[test]
fn a_job_begins_and_ends_once_as_its_tasks_did() {
    let all = [submitted(1), granted(0, 1, 1, ONE), ended(0, Succeeded, 1, ONE), over(1, 0)];
    assert!(wrong(&[&all[..], &[over(1, 0)]].concat()).starts_with("ends, but"));
    assert!(wrong(&[&all[..], &[submitted(1)]].concat()).starts_with("a job is submitted twice"));
    assert!(wrong(&[&all[..3], &[over(0, 1)]].concat()).starts_with("ends, but"), "as another end");
    assert!(wrong(&[&all[..2], &[over(1, 0)]].concat()).starts_with("ends, but"), "while a task runs");
    assert!(wrong(&[over(1, 0)]).starts_with("a job that was never submitted"));
}

#[test]
fn whoever_is_gone_stays_so_and_is_given_nothing() {
    for gone in [What::NodeLeft { node: TWO }, What::NodeRevoked { node: TWO }] {
        let name = || "two".to_owned();
        let begin = [submitted(1), What::NodeAdmitted { node: TWO, name: name() }, gone];
        assert!(wrong(&[&begin[..], &[granted(0, 1, 1, TWO)]].concat()).contains("which is gone"));
        for back in [What::NodeAdmitted { node: TWO, name: name() }, What::NodeRegistered { node: TWO, name: name() }] {
            assert!(wrong(&[&begin[..], &[back]].concat()).starts_with("a node that is gone is let in"));
        }
    }
}
