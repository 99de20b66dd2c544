//! When an attempt whose node cannot be reached is given up.
//!
//! | `on_partition` | node Down | stream gone, node not Down | node left for good |
//! |---|---|---|---|
//! | `replace` | after the job's patience, if the leader's own probe fails | - | at once |
//! | `stop`, and every at-most-once attempt | after lease and margin, if the probe fails | the same, for `stop` | after lease and margin |
//! | `wait` | - | - | at once |
//!
//! The worker kills `stop` and at-most-once attempts when its lease ends. A lease counts from its asking, so it has ended when lease and
//! margin have passed since the latest ask that may have been granted: in this term the arrival of one that was, before it any that came
//! up to the beginning of the term (an older leader's confirmation cannot have begun later). After that nobody runs the attempt, so
//! `stop` needs no verdict of membership; the probe is only to spare a node whose stream is about to come back.
//!
//! A node is Down for the desk when membership says so *and* its worker has said nothing since: while its stream is open, the silence
//! must last longer than the pause between two asks for a lease (a third of it). A node of which nothing was ever heard
//! in this term counts as Down after a full lease: membership of a swarm that was restarted as a whole may have no opinion of it.
//! `at-most-once` with `wait` waits like any `wait`: the returning worker tells that its lease ended.

use std::time::{Duration, Instant};

use swarm_proto::{
    api::Health,
    spec::{JobSpec, OnPartition},
};

use super::{DispatchSettings, worker::Worker};

/// How a node's absence looks from the desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// It is here, or may be back any moment.
    None,
    /// No stream, but membership does not call it Down.
    Lapsed(Instant),
    /// Down since.
    Down(Instant),
    /// It said farewell, or was made to go.
    Left(Instant),
}

/// When an attempt may be given up, and whether the node must have failed a probe begun no earlier than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Instant,
    pub(super) needs_probe: bool,
}

/// What the node's absence is; `began` is the beginning of the term.
pub(super) fn absence(worker: &Worker, settings: &DispatchSettings, began: Instant) -> Absence {
    let is_connected = worker.stream.is_some();
    let silent_since = if is_connected { worker.heard + settings.lease * 2 / 5 } else { worker.heard };
    if worker.is_gone {
        return Absence::Left(worker.health_since.min(worker.heard));
    }
    match worker.health {
        Health::Left if !is_connected => Absence::Left(worker.health_since),
        Health::Down => Absence::Down(worker.health_since.max(silent_since)),
        Health::Unknown if !is_connected => Absence::Down(worker.heard.max(began + settings.lease + settings.margin)),
        Health::Alive | Health::Suspect if !is_connected => Absence::Lapsed(worker.heard),
        Health::Left | Health::Unknown | Health::Alive | Health::Suspect => Absence::None,
    }
}

/// When the last lease that the worker may have is over for sure.
pub(super) fn lease_over(worker: &Worker, settings: &DispatchSettings, began: Instant) -> Instant {
    worker.leased.map_or(began, |leased| leased.max(began)) + settings.lease + settings.margin
}

/// When an attempt of this job may be given up; `None`: not while things are as they are.
pub(super) fn due(spec: &JobSpec, absence: Absence, lease_over: Instant, patience: Duration) -> Option<Due> {
    let patience = spec.patience.map_or(patience, swarm_proto::Millis::duration);
    let probed = |at: Instant| Some(Due { at, needs_probe: true });
    let surely = |at: Instant| Some(Due { at, needs_probe: false });
    let is_bound = spec.at_most_once || spec.on_partition == OnPartition::Stop;
    match (spec.on_partition, absence) {
        (_, Absence::None) | (OnPartition::Wait, Absence::Lapsed(_) | Absence::Down(_)) => None,
        (OnPartition::Replace | OnPartition::Stop, Absence::Left(since)) if is_bound => surely(since.max(lease_over)),
        (_, Absence::Left(since)) => surely(since),
        (OnPartition::Replace | OnPartition::Stop, Absence::Down(since)) if is_bound => probed(since.max(lease_over)),
        (OnPartition::Replace | OnPartition::Stop, Absence::Down(since)) => probed(since + patience),
        (OnPartition::Stop, Absence::Lapsed(since)) => probed(since.max(lease_over)),
        (OnPartition::Replace, Absence::Lapsed(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use swarm_proto::{Millis, spec::Work};

    use super::*;

    fn job(on_partition: OnPartition, at_most_once: bool) -> Arc<JobSpec> {
        Arc::new(JobSpec { on_partition, at_most_once, patience: Some(Millis(500)), ..JobSpec::new(Work::Noop) })
    }

    #[test]
    fn every_line_of_the_table_holds() {
        let t = Instant::now();
        let at = |ms: u64| t + Duration::from_millis(ms);
        let over = at(3000);
        let of = |on, once, absence| due(&job(on, once), absence, over, Duration::ZERO).map(|due| (due.at, due.needs_probe));
        let (down, lapsed, left) = (Absence::Down(at(100)), Absence::Lapsed(at(100)), Absence::Left(at(100)));
        for once in [false, true] {
            assert_eq!(of(OnPartition::Stop, once, down), Some((over, true)));
            assert_eq!(of(OnPartition::Stop, once, lapsed), Some((over, true)));
            assert_eq!(of(OnPartition::Stop, once, left), Some((over, false)));
            assert_eq!(of(OnPartition::Wait, once, down), None);
            assert_eq!(of(OnPartition::Wait, once, left), Some((at(100), false)));
            assert_eq!(of(OnPartition::Replace, once, lapsed), None);
        }
        assert_eq!(of(OnPartition::Replace, false, down), Some((at(600), true)));
        assert_eq!(of(OnPartition::Replace, false, left), Some((at(100), false)));
        assert_eq!(of(OnPartition::Replace, true, down), Some((over, true)));
        assert_eq!(of(OnPartition::Replace, true, left), Some((over, false)));
        assert_eq!(of(OnPartition::Replace, false, Absence::None), None);
    }
}
