//! One daemon, on whatever its [`Env`] stands on.
//!
//! Every part is one task that owns its state; the others reach it through a bounded channel or read a snapshot it publishes.
//! All of them run on the control thread, but for the bulk endpoint and the API, which have their own ([`Domains`]).

mod blobs;
mod calls;
mod clock;
mod desk;
mod door;
mod doorway;
mod enroll;
mod env;
mod events;
mod files;
mod followers;
mod gateway;
mod gossip;
pub(crate) mod join;
mod journal;
mod keeping;
mod lead;
mod links;
mod moves;
mod output;
mod papers;
mod peers;
mod reach;
mod relay;
mod rivals;
mod roster;
mod settings;
pub(crate) mod signed;
mod split;
mod start;
mod status;
mod throughput;
mod voters;
mod whereabouts;
mod work;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use swarm_consensus::Consensus;
use swarm_proto::{ClusterId, NodeId, Problem, api::Phase, ledger::Addrs, peer::NodeMeta};
use swarm_transport::Pool;
use tokio::{sync::watch, time::Instant};

use self::{clock::SwarmClock, desk::DeskWatch, papers::Papers, peers::Peers, roster::Roster};
pub use self::{
    env::{AskTailnet, Clocks, Domains, Env, Holdings, Left, OpenSocket, Outputs, SetLogLevel, Settings, Workshop},
    gateway::{Gateway, HostOrder},
    join::{remember, remembered},
    journal::Journal,
    papers::KeepIdentity,
    start::{Running, start},
    whereabouts::Whereabouts,
};

/// How long what others said against this node is worth showing.
const OUTCAST: Duration = Duration::from_secs(30);

/// What the parts of one daemon share: handles and snapshots, no state of their own.
pub(crate) struct Node {
    pub(crate) me: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) epoch: u32,
    pub(crate) settings: Settings,
    pub(crate) clocks: Clocks,
    /// Wall time as the swarm has it; judges certificates.
    pub(crate) clock: SwarmClock,
    pub(crate) papers: Papers,
    /// What this node says of itself now; its addresses may have changed since it started.
    pub(crate) meta: Arc<watch::Sender<Arc<NodeMeta>>>,
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
    pub(crate) blobs: blobs::Blobs,
    pub(crate) files: files::Files,
    pub(crate) journal: Journal,
    pub(crate) phase: watch::Sender<Phase>,
    /// Whether the farewell to the other members is said.
    pub(crate) has_left: watch::Sender<bool>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) started: Instant,
    /// What others say against this node, and when they last said so.
    outcast: Mutex<Option<(Instant, String)>>,
    /// Whether no attempt is held here.
    is_quiet: AtomicBool,
    streams: AtomicU64,
}

impl Node {
    /// What the worker says after each of its turns.
    pub(crate) fn set_quiet(&self, is_quiet: bool) {
        self.is_quiet.store(is_quiet, Ordering::Relaxed);
    }

    /// Where it listens.
    pub(crate) fn addrs(&self) -> Addrs {
        self.meta.borrow().addrs
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::Relaxed)
    }

    /// Others do not want this node, for a reason that its operator should know.
    pub(crate) fn set_outcast(&self, why: String) {
        let mut outcast = self.outcast.lock().unwrap_or_else(PoisonError::into_inner);
        if outcast.as_ref().is_none_or(|(_, known)| *known != why) {
            self.journal.warn(why.clone());
        }
        *outcast = Some((Instant::now(), why));
    }

    /// What others said against this node lately; empty when nothing was.
    pub(crate) fn outcast(&self) -> String {
        let outcast = self.outcast.lock().unwrap_or_else(PoisonError::into_inner);
        outcast.as_ref().filter(|(when, _)| when.elapsed() < OUTCAST).map(|(_, why)| why.clone()).unwrap_or_default()
    }

    /// No leader was found for some time; says so, or what others have against this node.
    pub(crate) fn no_leader(&self, what: &str) -> Problem {
        let (outcast, problem) = (self.outcast(), desk::no_leader(what));
        if outcast.is_empty() { problem } else { Problem { why: format!("others shut this node out: {outcast}"), ..problem } }
    }

    /// The leader's clock, from a welcome.
    pub(crate) fn hear_clock(&self, theirs: swarm_proto::UnixMillis) {
        if let Some(news) = self.clock.handle(theirs) {
            self.journal.warn(news);
        }
    }

    /// A number for a stream or session of this run; later ones are larger.
    pub(crate) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed) + 1
    }
}
