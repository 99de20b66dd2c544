//! One identity, one daemon: what is known of daemons that share an identity with another one.
//!
//! A copy of a state directory that is started elsewhere would vote a second time, so it is let in nowhere, and both are told. But a
//! daemon that was killed and started again at another address looks just the same at first: its old connections stay until they time
//! out. So whoever is connected is asked, and only an answer shows that there are two. One daemon that goes on at another address
//! never gets here, for its Hello names the same life.
//!
//! ```text
//! knock by another life -> ask the one that is connected -> it answers: for a while every knock is that of a double
//!                          (the knock waits meanwhile)   \-> it does not: its connection is closed, and the next knock gets in
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use swarm_proto::PeerKey;
use tokio::time::Instant;

/// How long an answer proves that somebody is there.
const FRESH: Duration = Duration::from_secs(5);

/// Identities that more than one daemon claims, each with the life that is connected here. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Rivals(Arc<Mutex<BTreeMap<PeerKey, Rival>>>);

struct Rival {
    life: u64,
    /// Whether it is being asked now.
    is_asked: bool,
    /// When it answered last.
    answered: Option<Instant>,
}

/// What a knock by another life meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meeting {
    /// Whether the caller is to ask the one that is connected, and to say what came of it to [`Rivals::handle_answer`].
    pub(crate) is_to_ask: bool,
    /// Whether the one that is connected has shown that it lives.
    pub(crate) is_double: bool,
}

impl Rivals {
    /// `key` knocks with another life than `connected`, which has a connection here.
    pub(crate) fn meet(&self, key: PeerKey, connected: u64, now: Instant) -> Meeting {
        let mut rivals = self.rivals();
        let fresh = || Rival { life: connected, is_asked: false, answered: None };
        let rival = rivals.entry(key).or_insert_with(fresh);
        if rival.life != connected {
            *rival = fresh();
        }
        let is_double = rival.answered.is_some_and(|when| now.duration_since(when) < FRESH);
        let is_to_ask = !is_double && !rival.is_asked;
        rival.is_asked |= is_to_ask;
        Meeting { is_to_ask, is_double }
    }

    /// Whether the one that was asked answered.
    pub(crate) fn handle_answer(&self, key: PeerKey, connected: u64, has_answered: bool, now: Instant) {
        let mut rivals = self.rivals();
        let Some(rival) = rivals.get_mut(&key).filter(|rival| rival.life == connected) else { return };
        if has_answered {
            (rival.is_asked, rival.answered) = (false, Some(now));
        } else {
            rivals.remove(&key);
        }
    }

    fn rivals(&self) -> MutexGuard<'_, BTreeMap<PeerKey, Rival>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PeerKey = PeerKey([1; 32]);
    const WAITS: Meeting = Meeting { is_to_ask: false, is_double: false };
    const ASK: Meeting = Meeting { is_to_ask: true, is_double: false };
    const DOUBLE: Meeting = Meeting { is_to_ask: false, is_double: true };

    #[test]
    fn two_are_a_double_once_the_first_has_answered() {
        let (rivals, start) = (Rivals::default(), Instant::now());
        assert_eq!(rivals.meet(KEY, 7, start), ASK);
        assert_eq!(rivals.meet(KEY, 7, start), WAITS, "it is asked once");
        rivals.handle_answer(KEY, 7, true, start);
        assert_eq!(rivals.meet(KEY, 7, start), DOUBLE);
        assert_eq!(rivals.meet(KEY, 7, start + FRESH), ASK, "an answer is not for ever");
        assert_eq!(rivals.meet(PeerKey([2; 32]), 7, start), ASK, "each identity for itself");
    }

    #[test]
    fn one_that_does_not_answer_was_no_double() {
        let (rivals, start) = (Rivals::default(), Instant::now());
        assert_eq!(rivals.meet(KEY, 7, start), ASK);
        rivals.handle_answer(KEY, 7, false, start);
        assert_eq!(rivals.meet(KEY, 7, start), ASK, "nothing is remembered of it");
        rivals.handle_answer(KEY, 8, true, start);
        assert_eq!(rivals.meet(KEY, 7, start), WAITS, "another life's answer is not its own");
        assert_eq!(rivals.meet(KEY, 8, start), ASK, "another life is asked anew");
    }
}
