//! One daemon, on whatever its [`Env`] stands on.
//!
//! Every part is one task that owns its state; the others reach it through a bounded channel or read a snapshot it publishes.
//! All of them run on the control thread, but for the bulk endpoint and the API, which have their own ([`Domains`]).

mod calls;
mod desk;
mod door;
mod env;
mod events;
mod followers;
mod gateway;
mod gossip;
mod join;
mod journal;
mod lead;
mod links;
mod output;
mod peers;
mod relay;
mod roster;
mod split;
mod start;
mod status;
mod throughput;
mod voters;
mod work;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use swarm_consensus::Consensus;
use swarm_proto::{ClusterId, NodeId, api::Phase};
use swarm_transport::Pool;
use tokio::{sync::watch, time::Instant};

use self::{desk::DeskWatch, peers::Peers, roster::Roster};
pub use self::{
    env::{Clocks, Domains, Env, Holdings, OpenSocket, Outputs, Settings, Workshop},
    gateway::Gateway,
    journal::Journal,
    start::{Running, start},
};

/// What the parts of one daemon share: handles and snapshots, no state of their own.
pub(crate) struct Node {
    pub(crate) me: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) settings: Settings,
    pub(crate) clocks: Clocks,
    pub(crate) seed: u64,
    pub(crate) roster: Roster,
    pub(crate) peers: Peers,
    pub(crate) desk: DeskWatch,
    /// `None` on a node whose log is damaged: it works, but does not vote.
    pub(crate) consensus: Option<Consensus>,
    /// What is wrong with the log; empty when nothing is.
    pub(crate) damage: String,
    pub(crate) control: Pool,
    pub(crate) bulk: Pool,
    pub(crate) gossip: gossip::Inbox,
    pub(crate) outputs: Arc<dyn Outputs>,
    pub(crate) journal: Journal,
    pub(crate) phase: watch::Sender<Phase>,
    /// Whether the farewell to the other members is said.
    pub(crate) has_left: watch::Sender<bool>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) started: Instant,
    /// Whether no attempt is held here.
    is_quiet: AtomicBool,
    streams: AtomicU64,
}

impl Node {
    /// What the worker says after each of its turns.
    pub(crate) fn set_quiet(&self, is_quiet: bool) {
        self.is_quiet.store(is_quiet, Ordering::Relaxed);
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::Relaxed)
    }

    /// A number for a stream or session of this run; later ones are larger.
    pub(crate) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed) + 1
    }
}
