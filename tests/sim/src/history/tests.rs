//! Histories known to be right, and known to be wrong.

use super::*;

const JOB: JobId = JobId(17);

fn submit(job: u64, is_new: bool) -> Op {
    Op::Submit { content: 1, answer: Some(Submitted::Accepted { job: JobId(job), is_new }) }
}

fn refused(content: u64) -> Op {
    Op::Submit { content, answer: Some(Submitted::KeyConflict) }
}

const LOST: Op = Op::Submit { content: 1, answer: None };
const CANCEL: Op = Op::Cancel { answer: Some(Cancelled::Done) };
const TOO_LATE: Op = Op::Cancel { answer: Some(Cancelled::TooLate) };
const CANCEL_LOST: Op = Op::Cancel { answer: None };
const NONE: Op = Op::Get { seen: None };

/// Open, succeeded, cancelled.
fn get(open: u64, succeeded: u64, cancelled: u64) -> Op {
    let counts = Counts { pending: open, succeeded, cancelled, ..Counts::default() };
    Op::Get { seen: Some(Seen { job: JOB, counts, reruns: 0 }) }
}

/// One call after the other.
fn row(ops: &[Op]) -> bool {
    let at = |n: usize| 10 * (n as u64 + 1);
    judge_all(&ops.iter().enumerate().map(|(n, op)| (at(n), at(n) + 5, op.clone())).collect::<Vec<_>>())
}

fn judge_all(calls: &[(u64, u64, Op)]) -> bool {
    let heard = |op: &Op| !matches!(op, Op::Submit { answer: None, .. } | Op::Cancel { answer: None });
    let call = |(began, ended, op): &(u64, u64, Op)| Call { began: *began, ended: heard(op).then_some(*ended), op: op.clone() };
    judge(&calls.iter().map(call).collect::<Vec<_>>()).is_ok()
}

#[test]
fn right_histories_are_taken() {
    assert!(row(&[NONE, submit(17, true), get(3, 0, 0), get(2, 1, 0), get(0, 3, 0), get(0, 3, 0)]));
    assert!(row(&[submit(17, true), submit(17, false), refused(2), submit(17, false)]));
    assert!(row(&[LOST, NONE, get(3, 0, 0)]), "it was accepted later than somebody looked");
    assert!(row(&[LOST, submit(17, true)]), "the first never came");
    assert!(row(&[LOST, submit(17, false)]), "the first came");
    assert!(row(&[submit(17, true), get(2, 1, 0), CANCEL, get(0, 1, 2), CANCEL]));
    assert!(row(&[submit(17, true), get(1, 2, 0), CANCEL, get(0, 2, 1)]));
    assert!(row(&[submit(17, true), TOO_LATE, get(0, 3, 0)]));
    assert!(row(&[submit(17, true), CANCEL_LOST, get(2, 1, 0), get(0, 1, 2)]), "it was cancelled late");
    assert!(row(&[submit(17, true), get(0, 3, 0), CANCEL_LOST, get(0, 3, 0)]), "what has ended is not cancelled");
    assert!(judge_all(&[(1, 9, submit(17, true)), (2, 3, NONE), (4, 5, get(3, 0, 0))]), "between its begin and its end");
    assert!(judge_all(&[(1, 2, submit(17, true)), (3, 9, CANCEL), (4, 5, get(3, 0, 0)), (6, 7, get(0, 0, 3))]));
}

#[test]
fn an_acknowledged_job_is_not_lost() {
    assert!(!row(&[submit(17, true), NONE]));
    assert!(!row(&[LOST, get(3, 0, 0), NONE]));
    assert!(!row(&[NONE, submit(17, true), get(2, 1, 0), NONE]));
}

#[test]
fn a_key_names_one_job_of_one_content() {
    assert!(!row(&[submit(17, true), submit(18, false)]));
    assert!(!row(&[submit(17, true), submit(17, true)]), "new twice");
    assert!(!row(&[submit(17, true), refused(1)]), "of the same content");
    assert!(!row(&[refused(2), submit(17, true)]), "with nothing");
    let other = Op::Submit { content: 2, answer: Some(Submitted::Accepted { job: JOB, is_new: false }) };
    assert!(!row(&[submit(17, true), other]), "of other content");
    let of_another = Op::Get { seen: Some(Seen { job: JobId(18), counts: Counts::default(), reruns: 0 }) };
    assert!(!row(&[submit(17, true), of_another]));
}

#[test]
fn nobody_is_shown_the_past() {
    assert!(!row(&[submit(17, true), get(1, 2, 0), get(2, 1, 0)]), "a stale read");
    assert!(!row(&[submit(17, true), get(0, 3, 0), get(1, 2, 0)]), "open again");
    assert!(!judge_all(&[(1, 9, submit(17, true)), (2, 3, get(3, 0, 0)), (4, 5, NONE)]));
}

#[test]
fn an_end_is_kept() {
    assert!(!row(&[submit(17, true), get(0, 3, 0), get(0, 2, 1)]), "another end");
    assert!(!row(&[submit(17, true), CANCEL, get(1, 2, 0)]), "cancelled and open");
    assert!(!row(&[submit(17, true), CANCEL, get(0, 3, 0)]), "cancelled and all of it succeeded");
    assert!(!row(&[submit(17, true), get(0, 3, 0), CANCEL]), "ended and cancelled after that");
    assert!(!row(&[submit(17, true), TOO_LATE, get(0, 2, 1)]), "too late to cancel, and cancelled");
    assert!(!row(&[submit(17, true), TOO_LATE, get(1, 2, 0)]), "too late, and open");
    assert!(!row(&[submit(17, true), CANCEL, TOO_LATE]));
    assert!(!row(&[CANCEL, submit(17, true)]), "cancelled before it was there");
}
