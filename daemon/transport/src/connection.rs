//! A live connection to a peer whose Hello was answered.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use swarm_proto::{
    NodeId, PeerKey,
    ledger::Addrs,
    limits,
    peer::{Hello, Open},
};

use crate::{
    close::{self, CloseCode, Ended},
    frames::{FrameRx, FrameTx, StreamError},
    plane::Plane,
};

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its identity.
    pub key: PeerKey,
    /// Its id; `None`: it is not admitted and may only ask to join.
    pub node: Option<NodeId>,
    /// Where it speaks from.
    pub addr: SocketAddr,
    /// What it says of itself.
    pub hello: Arc<Hello>,
    /// Calls it back.
    pub connection: Connection,
    /// What the connection is for.
    pub plane: Plane,
}

/// A connection; clones share it. It stays open while the endpoint lives, used or not.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    quinn: quinn::Connection,
    plane: Plane,
    key: PeerKey,
    node: OnceLock<NodeId>,
    hello: Arc<Hello>,
    said: Option<NodeId>,
    is_dialled_here: bool,
    /// Grows with every connection of the endpoint.
    serial: u64,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.0.is_dialled_here { "to" } else { "from" };
        match self.node() {
            Some(node) => write!(f, "{} {way} {node} at {}", self.0.plane, self.addr()),
            None => write!(f, "{} {way} {} at {}", self.0.plane, self.0.key, self.addr()),
        }
    }
}

/// What the handshake and the Hello told.
pub(crate) struct Greeted {
    pub(crate) quinn: quinn::Connection,
    pub(crate) plane: Plane,
    pub(crate) key: PeerKey,
    pub(crate) hello: Hello,
    pub(crate) node: Option<NodeId>,
    /// Who this side said that it is.
    pub(crate) said: Option<NodeId>,
    pub(crate) is_dialled_here: bool,
}

impl Connection {
    pub(crate) fn new(greeted: Greeted, serial: u64) -> Self {
        let Greeted { quinn, plane, key, hello, node, said, is_dialled_here } = greeted;
        let node = node.map_or_else(OnceLock::new, OnceLock::from);
        Self(Arc::new(Inner { quinn, plane, key, node, hello: Arc::new(hello), said, is_dialled_here, serial }))
    }

    /// Opens a stream and says what it is for. Waits while [`limits::STREAMS`] of ours are open; QUIC
    /// announces freed ones by eighths of that.
    ///
    /// # Errors
    /// [`StreamError::Lost`] when the connection is gone, [`StreamError::Frame`] when `open` is over the frame's bound.
    pub async fn open(&self, open: &Open) -> Result<(FrameTx, FrameRx), StreamError> {
        let (tx, rx) = self.0.quinn.open_bi().await.map_err(|e| StreamError::Lost(close::explain(&e)))?;
        let (mut tx, rx) = (FrameTx::new(tx), FrameRx::new(rx));
        tx.send(open).await?;
        Ok((tx, rx))
    }

    /// One question, one answer. It has no time limit of its own.
    ///
    /// # Errors
    /// As [`Self::open`] and [`FrameRx::recv`]; [`StreamError::NoAnswer`].
    pub async fn call<T: DeserializeOwned>(&self, open: &Open) -> Result<T, StreamError> {
        let (mut tx, mut rx) = self.open(open).await?;
        tx.finish()?;
        rx.recv().await?.ok_or(StreamError::NoAnswer)
    }

    /// Sends a datagram, or drops it: when it is over [`limits::GOSSIP_PACKET`] or the path's size, on any other plane than
    /// [`Plane::Control`], or when the connection is gone. Never waits; a full buffer loses its oldest. Answers whether it
    /// was taken, so that a probe that never left is not counted against the peer.
    pub fn send_datagram(&self, data: Bytes) -> bool {
        self.0.plane == Plane::Control && data.len() <= limits::GOSSIP_PACKET && self.0.quinn.send_datagram(data).is_ok()
    }

    /// The smoothed round trip.
    pub fn rtt(&self) -> Duration {
        self.0.quinn.rtt()
    }

    /// The largest packet that the path was found to take.
    pub fn mtu(&self) -> u16 {
        self.0.quinn.stats().path.current_mtu
    }

    /// Whether it is not known to have ended.
    pub fn is_open(&self) -> bool {
        self.0.quinn.close_reason().is_none()
    }

    /// Waits for its end.
    pub async fn closed(&self) -> Ended {
        close::explain(&self.0.quinn.closed().await)
    }

    /// Ends it; `why` is told to the peer.
    pub fn close(&self, code: CloseCode, why: &str) {
        self.0.quinn.close(code.into(), why.as_bytes());
    }

    /// Who is at the other end, as known now.
    pub fn peer(&self) -> Peer {
        Peer {
            key: self.0.key,
            node: self.node(),
            addr: self.addr(),
            hello: self.0.hello.clone(),
            connection: self.clone(),
            plane: self.0.plane,
        }
    }

    /// The peer's identity.
    pub fn key(&self) -> PeerKey {
        self.0.key
    }

    /// The peer's id, once it is admitted.
    pub fn node(&self) -> Option<NodeId> {
        self.0.node.get().copied()
    }

    /// Where the peer speaks from.
    pub fn addr(&self) -> SocketAddr {
        self.0.quinn.remote_address()
    }

    /// What it is for.
    pub fn plane(&self) -> Plane {
        self.0.plane
    }

    /// Whether this side dialled.
    pub fn is_dialled_here(&self) -> bool {
        self.0.is_dialled_here
    }

    /// Bytes on the wire so far, sent and received.
    pub fn bytes(&self) -> (u64, u64) {
        let stats = self.0.quinn.stats();
        (stats.udp_tx.bytes, stats.udp_rx.bytes)
    }

    pub(crate) fn name_node(&self, node: NodeId) {
        // a node keeps its id, so a second naming is the same one
        let _ = self.0.node.set(node);
    }

    /// Where the peer listens, as it said when this began.
    pub fn addrs(&self) -> Addrs {
        self.0.hello.addrs
    }

    pub(crate) fn hello(&self) -> &Hello {
        &self.0.hello
    }

    /// Who this side said that it is, when this began.
    pub(crate) fn said(&self) -> Option<NodeId> {
        self.0.said
    }

    pub(crate) fn serial(&self) -> u64 {
        self.0.serial
    }

    pub(crate) fn quinn(&self) -> &quinn::Connection {
        &self.0.quinn
    }
}
