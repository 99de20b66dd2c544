//! The timings, as two presets with one formula.
//!
//! With probe interval `T`, ring count `K` and one round (direct, then indirect) of `R = direct + indirect`:
//! ```text
//! first failed probe is sent   p99: K T (1 - 0.01^(1/K)) = 3.5 T        (K observers, each asks one of K targets every T)
//! suspicion                    + R
//! confirmations                + R      (the suspicion makes the other observers probe at once)
//! Down                         max(suspicion + suspicion_min, confirmations)
//! ```
//! `lan` gives 0.44 + 0.2 + 0.4 = 1.04 s at p99. Traffic is `2/T` packets a second whatever the size of the swarm.

use std::time::Duration;

/// How fast membership goes. Make one with [`Settings::lan`] or [`Settings::wan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `T`: one target is probed this often.
    pub probe_interval: Duration,
    /// How long a target may take to answer. Costs detection time; too short, and a busy host is accused.
    pub direct_timeout: Duration,
    /// How long the helpers may take after that.
    pub indirect_timeout: Duration,
    /// When a helper says that it has no answer yet. Less than `indirect_timeout` by at least two path delays.
    pub nack_after: Duration,
    /// A suspicion with all its confirmations lasts this long (up to 32 members; with the logarithm of their number above): the
    /// time an innocent has to refute it.
    pub suspicion_min: Duration,
    /// A suspicion without any confirmation lasts this long.
    pub suspicion_max: Duration,
    /// News is sent on at most this often, to [`FANOUT`](super::FANOUT) peers.
    pub gossip_interval: Duration,
    /// How often one of the nodes that are down is tried again, by somebody.
    pub heal_interval: Duration,
    /// A digest that differs for so long is news that gossip missed.
    pub sync_patience: Duration,
    /// States are pulled at most this often.
    pub sync_gap: Duration,
    /// Probes that found no live connection count as unanswered after this long: the time of a dial.
    pub dial_grace: Duration,
    /// A node that hears nobody at all believes that the fault is its own for this long.
    pub deaf_hold: Duration,
    /// A timer that fires later than this says something about us, not about the peer.
    pub late_limit: Duration,
}

impl Settings {
    /// One switch or a quiet mesh: round trips of a few milliseconds. `T` = 125 ms.
    pub const fn lan() -> Self {
        Self::of(Duration::from_millis(125), Duration::from_millis(100), Duration::from_millis(400))
    }

    /// The internet, or Tailscale, whose paths go dark for 5 to 13 seconds while the host is well. `T` = 1 s.
    pub const fn wan() -> Self {
        Self::of(Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(15))
    }

    /// All of them from three: the probe interval, the time one probe may take, and how long an innocent has to object.
    pub const fn of(probe_interval: Duration, answer: Duration, suspicion_min: Duration) -> Self {
        Self {
            probe_interval,
            direct_timeout: answer,
            indirect_timeout: answer,
            nack_after: Duration::from_micros(answer.as_micros() as u64 * 6 / 10),
            suspicion_min,
            suspicion_max: suspicion_min.saturating_mul(4),
            gossip_interval: Duration::from_micros(answer.as_micros() as u64 / 4),
            heal_interval: probe_interval.saturating_mul(4),
            sync_patience: answer.saturating_mul(3),
            sync_gap: answer.saturating_mul(4),
            dial_grace: answer.saturating_mul(10),
            deaf_hold: suspicion_min.saturating_mul(20),
            late_limit: Duration::from_micros(answer.as_micros() as u64 / 2),
        }
    }
}
