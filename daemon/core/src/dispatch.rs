//! The leader's desk: takes what clients and workers say, makes log entries of it, and tells workers what was granted.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use swarm_proto::{
    LogIndex, NodeId, Problem, TaskId, Term, UnixMillis,
    api::{Explain, Health},
    ledger::{Applied, Batch, Command},
    peer::{FromWorker, Load, NodeMeta, Report, ToWorker},
};

use crate::ledger::Ledger;

/// Times that the desk lives by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DispatchSettings {
    /// How long a node may go on after it asked for a lease that was granted.
    pub lease: Duration,
    /// Added to a lease before the leader takes it for over: covers clocks that run at different speeds.
    pub margin: Duration,
    /// How long a node may be Down before its tasks are replaced, for jobs that do not say.
    pub patience: Duration,
}

/// What the desk wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// What became of a client's command. `index` is 0 where it never got into an entry.
    Answer { ticket: u64, index: LogIndex, applied: Result<Applied, Problem> },
    /// Send this to a connected worker, in this order.
    ToWorker { node: NodeId, message: ToWorker },
    /// Try to reach the node by a connection of the leader's own; answer by `handle_probe`, always.
    Probe { node: NodeId },
    /// Have a majority confirm this leader by a round begun now; answer by `handle_leadership_confirmed(asked, ..)`.
    ConfirmLeadership { asked: Instant },
}

/// What the leader knows of a node beyond the ledger.
#[derive(Clone, Debug, Default)]
pub struct NodeFigures {
    pub meta: Option<Arc<NodeMeta>>,
    pub load: Option<Load>,
    /// Attempts granted to it, and those of them known to run.
    pub assigned: u64,
    pub running: u64,
    pub health: Health,
    /// Whether its worker has a stream to this leader.
    pub is_connected: bool,
}

/// The leader's desk for one term.
pub struct Dispatch {}

impl Dispatch {
    pub fn new(_me: NodeId, _term: Term, _settings: DispatchSettings, _ledger: &Ledger, _now: Instant) -> Self {
        Self {}
    }
    /// A worker's stream opened, or what it offers changed. Answered by Welcome once this term's first entry is applied.
    pub fn handle_worker(&mut self, _report: Report, _ledger: &Ledger, _now: Instant) {}
    /// The node's present stream ended (not one that a newer stream has replaced).
    pub fn handle_worker_gone(&mut self, _node: NodeId, _now: Instant) {}
    pub fn handle_from_worker(&mut self, _node: NodeId, _message: FromWorker, _ledger: &Ledger, _now: Instant) {}
    pub fn handle_health(&mut self, _node: NodeId, _health: Health, _now: Instant) {}
    pub fn handle_probe(&mut self, _node: NodeId, _reached: bool, _now: Instant) {}
    pub fn handle_leadership_confirmed(&mut self, _asked: Instant, _now: Instant) {}
    /// A client's command; answered by [`Output::Answer`] with the same ticket, exactly once.
    pub fn handle_command(&mut self, _ticket: u64, _command: Command) {}
    /// Voters changed by an entry that is not a batch: workers are told.
    pub fn handle_view_changed(&mut self, _ledger: &Ledger) {}
    pub fn poll_batch(&mut self, _ledger: &Ledger, _at: UnixMillis, _now: Instant) -> Option<Batch> {
        None
    }
    pub fn handle_applied(&mut self, _index: LogIndex, _applied: Vec<Applied>, _ledger: &Ledger, _now: Instant) {}
    /// The batch in flight did not commit as far as known. Its tickets are answered with `problem`, and the desk is closed: drop it, and
    /// make a new one if this node still leads.
    pub fn handle_failed(&mut self, _problem: Problem) {}
    /// Whether `handle_failed` closed it.
    pub fn is_closed(&self) -> bool {
        false
    }
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }
    pub fn handle_timeout(&mut self, _ledger: &Ledger, _now: Instant) {}
    pub fn explain(&self, _task: TaskId, _ledger: &Ledger, _now: Instant) -> Option<Explain> {
        None
    }
    pub fn is_running(&self, _task: TaskId) -> bool {
        false
    }
    pub fn node_figures(&self, _node: NodeId) -> NodeFigures {
        NodeFigures::default()
    }
    /// Attempts known to run.
    pub fn running(&self) -> u64 {
        0
    }
}
