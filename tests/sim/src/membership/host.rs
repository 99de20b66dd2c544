//! One simulated host.

use std::time::Duration;

use swarm_core::members::Members;
use swarm_proto::api::Health;

use super::Item;

/// Packets that a socket holds while its host is paused, as a kernel's buffer of 212 KB does.
const SOCKET: usize = 2_000;

/// A verdict that a host came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub at: Duration,
    pub about: usize,
    pub health: Health,
}

/// A host, over all its lives.
#[derive(Debug)]
pub struct Host<P = Members> {
    /// `None` while it does not run.
    pub members: Option<P>,
    /// Which life; a connection belongs to one.
    pub life: u32,
    /// Bytes sent, headers and acknowledgements included.
    pub bytes: u64,
    /// Datagrams sent.
    pub packets: u64,
    /// States pulled.
    pub syncs: u64,
    /// How often it held itself deaf, or ceased to.
    pub deafs: u64,
    /// How often it answered doubts.
    pub refutations: u64,
    /// Every verdict, in order.
    pub verdicts: Vec<Verdict>,
    /// The highest incarnation that it ever had.
    pub highest: u64,
    /// Whether it ever left.
    pub has_left: bool,
    /// Whether its farewell was said to the end.
    pub has_said_goodbye: bool,
    pub(super) awake_at: Duration,
    pub(super) inbox: Vec<Item>,
    pub(super) armed: Option<Duration>,
}

impl<P> Default for Host<P> {
    fn default() -> Self {
        Self {
            members: None,
            life: 0,
            bytes: 0,
            packets: 0,
            syncs: 0,
            deafs: 0,
            refutations: 0,
            verdicts: Vec::new(),
            highest: 0,
            has_left: false,
            has_said_goodbye: false,
            awake_at: Duration::ZERO,
            inbox: Vec::new(),
            armed: None,
        }
    }
}

impl<P> Host<P> {
    /// It is paused: the item waits in its socket, if there is room.
    pub(super) fn wait(&mut self, item: Item) {
        if self.inbox.len() < SOCKET {
            self.inbox.push(item);
        }
    }
}
