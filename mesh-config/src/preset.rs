//! How patient a swarm is: two named sets of timings in place of a dozen knobs.
//!
//! A host that dies is Down for the others after some 3.5 probe intervals, one probe with its helpers (twice `probe_timeout`) and
//! `suspicion`: 1.0 s on `lan`, 21 s on `wan`. A leader that dies is replaced after `election_max` and two fsyncs. `wan` exists
//! because Tailscale paths go dark for 5 to 13 s on a healthy host: a host is suspected meanwhile, so that new work goes elsewhere,
//! and has that long to object; `patience` lies beyond it, so what runs is not run twice.

use std::time::Duration;

/// A named set of timings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// One building: round trips below about 10 ms.
    #[default]
    Lan,
    /// Paths that relay, stall or cross an ocean.
    Wan,
}

/// Every timing that a preset sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// One probe of a ring neighbour begins this often (SWIM's protocol period).
    pub probe_interval: Duration,
    /// A direct probe unanswered this long is tried through helpers, who have as long again.
    pub probe_timeout: Duration,
    /// How long a suspected node has to refute, once enough observers agree.
    pub suspicion: Duration,
    /// The leader's heartbeat to voters.
    pub heartbeat: Duration,
    /// A voter stands for election after a silence drawn between these.
    pub election_min: Duration,
    /// Upper end of the draw.
    pub election_max: Duration,
    /// How long a node may go on without hearing from a leader.
    pub lease: Duration,
    /// What the leader waits beyond a lease: clocks that run apart, and the time a kill takes.
    pub margin: Duration,
    /// How long a node may be Down before its tasks are replaced, unless the job says otherwise.
    pub patience: Duration,
}

impl Preset {
    /// Its name in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
        }
    }

    /// Its timings.
    pub const fn timing(self) -> Timing {
        const fn ms(n: u64) -> Duration {
            Duration::from_millis(n)
        }
        match self {
            Self::Lan => Timing {
                probe_interval: ms(125),
                probe_timeout: ms(100),
                suspicion: ms(400),
                heartbeat: ms(50),
                election_min: ms(150),
                election_max: ms(200),
                lease: ms(3_000),
                margin: ms(500),
                patience: ms(0),
            },
            Self::Wan => Timing {
                probe_interval: ms(1_000),
                probe_timeout: ms(1_000),
                suspicion: ms(15_000),
                heartbeat: ms(200),
                election_min: ms(600),
                election_max: ms(1_200),
                lease: ms(15_000),
                margin: ms(2_000),
                patience: ms(30_000),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_fit_each_other() {
        for preset in [Preset::Lan, Preset::Wan] {
            let t = preset.timing();
            assert!(t.heartbeat * 3 <= t.election_min, "{preset:?}: two lost heartbeats elect nobody");
            assert!(t.election_min < t.election_max && t.election_max < t.lease, "{preset:?}");
        }
        let lan = Preset::Lan.timing();
        assert!(lan.probe_interval * 7 / 2 + lan.probe_timeout * 2 + lan.suspicion <= Duration::from_millis(1_200), "Down within 1.2 s");
    }
}
