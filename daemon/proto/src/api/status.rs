//! What a daemon says of itself and of those it sees.

use serde::{Deserialize, Serialize};

use super::Health;
use crate::{ClusterId, LogIndex, NodeId, Term, UnixMillis, ledger::Addrs};

/// This one node and what it sees; answered without a leader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: Option<NodeId>,
    pub name: String,
    pub software: String,
    pub cluster: ClusterId,
    pub phase: Phase,
    /// What keeps it from being ready; empty when nothing does.
    pub trouble: String,
    pub addrs: Addrs,
    pub leader: Option<NodeId>,
    pub term: Term,
    pub is_voter: bool,
    pub log_index: LogIndex,
    /// Bytes this daemon has written to its log since it started.
    pub log_written: u64,
    /// Bytes of blobs that this daemon has given to other nodes since it started, and taken from them.
    #[serde(default)]
    pub blobs_given: u64,
    #[serde(default)]
    pub blobs_taken: u64,
    /// How many datagrams of blobs the system takes in one call; 1: it has no UDP segmentation offload. 0 before the daemon is a node.
    #[serde(default)]
    pub datagrams_a_call: u32,
    pub peers: Vec<PeerStatus>,
    pub up_ms: u64,
    /// When this node's certificate ends; it is renewed long before.
    pub certificate_ends: Option<UnixMillis>,
    /// How far the swarm's clock is ahead of this host's; 0 while they agree to within a minute.
    pub clock_ahead_ms: i64,
    /// How patient it is: `lan` or `wan`; empty before it is a node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub preset: String,
    #[serde(default)]
    pub mesh: MeshStatus,
}

impl Status {
    /// Of a daemon that has just started and is no node yet.
    pub fn new(name: String, software: String, cluster: ClusterId, addrs: Addrs) -> Self {
        Self {
            node: None,
            name,
            software,
            cluster,
            phase: Phase::Starting,
            trouble: String::new(),
            addrs,
            leader: None,
            term: Term(0),
            is_voter: false,
            log_index: LogIndex(0),
            log_written: 0,
            blobs_given: 0,
            blobs_taken: 0,
            datagrams_a_call: 0,
            peers: Vec::new(),
            up_ms: 0,
            certificate_ends: None,
            clock_ahead_ms: 0,
            preset: String::new(),
            mesh: MeshStatus::default(),
        }
    }
}

/// Where a daemon is on its mesh, and where it has looked for members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshStatus {
    /// `tailscale`, `wireguard`, `interface` or `address`; empty until one is found.
    pub kind: String,
    /// The interface that carries it, where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The daemon's address there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::IpAddr>,
    /// What of the mesh is waited for; empty when nothing is.
    pub waits: String,
    /// Where members may be, by the last look. While members enough are reached, nobody looks.
    pub candidates: Vec<Candidate>,
    /// What the last look did not find, and why.
    pub missed: Vec<Missed>,
}

/// A control endpoint where a member may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub addr: std::net::SocketAddr,
    pub origin: Origin,
    /// What led there: the name that was resolved, or what the mesh calls the host; empty for a bare address.
    pub name: String,
    /// How often a node that is not let in yet has knocked there.
    #[serde(default)]
    pub knocks: u32,
    /// What came of the last time; empty while there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What led to an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The swarm's own record of the member.
    #[default]
    Remembered,
    /// An address that the operator wrote down.
    Seed,
    /// A name that the operator wrote down.
    Dns,
    /// The tailnet's list of hosts.
    Tailscale,
    /// The peers of a WireGuard interface.
    Wireguard,
}

impl Origin {
    /// Its word, as in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Remembered => "remembered",
            Self::Seed => "seed",
            Self::Dns => "dns",
            Self::Tailscale => "tailscale",
            Self::Wireguard => "wireguard",
        }
    }
}

/// Where a look found nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    pub origin: Origin,
    /// What was looked for.
    pub what: String,
    /// Why it was not found.
    pub why: String,
}

/// How far a daemon has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Starting,
    /// Asks to be admitted.
    Joining,
    Ready,
    /// Up as a worker, but its log is damaged: it does not vote.
    Damaged,
    Stopping,
    /// Belongs to no swarm yet: waits for `mesh init` or `mesh join`.
    Unjoined,
}

/// A peer as this node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub node: NodeId,
    pub name: String,
    pub health: Health,
    pub addr: std::net::SocketAddr,
    pub connected: bool,
    pub rtt_us: Option<u64>,
    /// Largest packet that its path was found to take.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Version of its software, once it has said so.
    #[serde(default)]
    pub software: String,
    /// What led to its address at the last look.
    #[serde(default)]
    pub found: Origin,
}
