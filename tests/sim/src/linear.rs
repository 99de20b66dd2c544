//! Whether a history of calls on one object is linearizable: whether each call can be thought to happen at one moment between its
//! begin and its end, so that all of them in that order are what the object allows (Herlihy and Wing, 1990).
//!
//! ```text
//! a  |----submit: j1----|                          a, c, b: fine
//! b              |------get: ended------|          a, b, c: not what an object does that stays ended
//! c         |--get: open--|
//! ```
//! The search is Wing and Gong's (1993) with Lowe's memory (2017) of where it has been: the next call is one that began before any
//! other open one ended, and a set of calls with the state that it led to is tried once. A call that nobody heard the end of may
//! happen at any time after its begin, or never. Objects are checked each for itself, which is enough (locality).

use std::collections::BTreeSet;

/// What an object does.
pub trait Object {
    type State: Clone + Ord;
    type Op: PartialEq;

    /// Every state that an operation with this answer can lead to from `state`; none: it cannot answer so.
    fn step(state: &Self::State, op: &Self::Op) -> Vec<Self::State>;
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<Op> {
    /// Moments of one clock that all clients share; no two are equal.
    pub began: u64,
    /// `None`: nobody knows whether it happened.
    pub ended: Option<u64>,
    pub op: Op,
}

/// Why a history is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No order does; the most calls that one could explain.
    NotLinearizable { explained: usize },
    /// Nothing was found out within [`STEPS`].
    TooLong,
}

/// The most states that are looked at for one object.
pub const STEPS: usize = 1 << 20;

/// Finds an order that explains all calls that ended.
///
/// # Errors
/// [`Refusal`].
pub fn check<O: Object>(initial: O::State, calls: &[Call<O::Op>]) -> Result<(), Refusal> {
    let mut search = Search::<O> { calls, seen: BTreeSet::new(), explained: 0 };
    let open = calls.iter().filter(|call| call.ended.is_some()).count();
    let mut branches = vec![(Set::new(calls.len()), initial, open)];
    while let Some((done, state, open)) = branches.pop() {
        if open == 0 {
            return Ok(());
        }
        if search.seen.len() >= STEPS {
            return Err(Refusal::TooLong);
        }
        search.explained = search.explained.max(calls.len() - open);
        search.follow(&done, &state, open, &mut branches);
    }
    Err(Refusal::NotLinearizable { explained: search.explained })
}

struct Search<'a, O: Object> {
    calls: &'a [Call<O::Op>],
    seen: BTreeSet<(Set, O::State)>,
    explained: usize,
}

impl<O: Object> Search<'_, O> {
    /// Every way in which one more call can come next.
    fn follow(&mut self, done: &Set, state: &O::State, open: usize, branches: &mut Vec<(Set, O::State, usize)>) {
        let left = || self.calls.iter().enumerate().filter(|(at, _)| !done.has(*at));
        let first_end = left().filter_map(|(_, call)| call.ended).min().unwrap_or(u64::MAX);
        let next: Vec<usize> = left().filter(|(_, call)| call.began < first_end).map(|(at, _)| at).collect();
        let (heard, unheard): (Vec<usize>, Vec<usize>) = next.into_iter().partition(|at| self.calls[*at].ended.is_some());
        // what changes nothing can come at once: whatever order there is, it is one with this call moved here
        if let Some(at) = heard.iter().copied().find(|at| O::step(state, &self.calls[*at].op)[..] == [state.clone()]) {
            return self.branch(done.with(at), state.clone(), open - 1, branches);
        }
        // of equal calls that nobody heard of the first will do, and none that changes nothing; tried last, for they are needed least
        let is_first = |at: &usize| !unheard.iter().any(|other| other < at && self.calls[*other].op == self.calls[*at].op);
        let chosen: Vec<usize> = unheard.iter().filter(|at| is_first(at)).chain(&heard).copied().collect();
        for at in chosen {
            let is_heard = self.calls[at].ended.is_some();
            for after in O::step(state, &self.calls[at].op) {
                if is_heard || after != *state {
                    self.branch(done.with(at), after, open - usize::from(is_heard), branches);
                }
            }
        }
    }

    fn branch(&mut self, done: Set, state: O::State, open: usize, branches: &mut Vec<(Set, O::State, usize)>) {
        if self.seen.insert((done.clone(), state.clone())) {
            branches.push((done, state, open));
        }
    }
}

/// Which calls have been placed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Set(Vec<u64>);

impl Set {
    fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn with(&self, at: usize) -> Self {
        let mut with = self.clone();
        with.0[at / 64] |= 1 << (at % 64);
        with
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register, as in every paper.
    struct Register;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Op {
        Write(u8),
        Read(u8),
    }
    use Op::{Read, Write};

    impl Object for Register {
        type State = u8;
        type Op = Op;

        fn step(state: &u8, op: &Op) -> Vec<u8> {
            match op {
                Write(value) => vec![*value],
                Read(value) if value == state => vec![*state],
                Read(_) => Vec::new(),
            }
        }
    }

    fn judge(calls: &[(u64, u64, Op)]) -> bool {
        // an end of 0: nobody heard of it
        let calls: Vec<Call<Op>> =
            calls.iter().map(|(began, ended, op)| Call { began: *began, ended: (*ended > 0).then_some(*ended), op: *op }).collect();
        check::<Register>(0, &calls).is_ok()
    }

    #[test]
    fn right_histories_are_taken() {
        assert!(judge(&[]));
        assert!(judge(&[(1, 2, Write(1)), (3, 4, Read(1)), (5, 6, Read(1))]));
        assert!(judge(&[(1, 9, Write(1)), (2, 3, Read(0)), (4, 5, Read(1))]), "it happens between the reads");
        assert!(judge(&[(1, 9, Write(1)), (2, 8, Write(2)), (10, 11, Read(1))]), "either order of two at once");
        assert!(judge(&[(1, 0, Write(1)), (2, 3, Read(0)), (4, 5, Read(1))]), "nobody heard of it, and it happened late");
        assert!(judge(&[(1, 0, Write(1)), (2, 3, Read(0)), (4, 5, Read(0))]), "or never");
    }

    #[test]
    fn wrong_histories_are_refused() {
        assert!(!judge(&[(1, 2, Write(1)), (3, 4, Read(0))]), "a stale read");
        assert!(!judge(&[(1, 2, Write(1)), (3, 4, Read(2))]), "out of nowhere");
        assert!(!judge(&[(1, 9, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))]), "a read that goes back");
        assert!(!judge(&[(1, 2, Write(1)), (3, 4, Write(2)), (5, 6, Read(1))]), "an order that was not");
        assert!(!judge(&[(1, 2, Read(1)), (3, 0, Write(1))]), "before it began");
        assert!(!judge(&[(1, 0, Write(1)), (2, 3, Read(1)), (4, 5, Read(0))]), "what happened has happened");
    }

    #[test]
    fn many_at_once_are_no_trouble() {
        let mut calls: Vec<(u64, u64, Op)> = (0..70).map(|n| (n + 1, 0, Write(7))).collect();
        calls.extend((0..30).map(|n| (100 + n, 200 + n, Read(0))));
        assert!(judge(&calls));
        calls.push((300, 301, Read(9)));
        assert!(!judge(&calls));
    }
}
