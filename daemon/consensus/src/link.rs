//! Streams to other voters. Connections are made and kept elsewhere ([`Peers`]); here they carry frames.

use std::{future::Future, io, pin::Pin, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use swarm_proto::{NodeId, limits, peer::Open};
use swarm_transport::{Connection, FrameRx, FrameTx, Plane};

#[cfg(test)]
pub(crate) mod memory;

/// A future that can be stored.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Who knows where the other voters are.
pub trait Peers: Send + Sync + 'static {
    /// A live connection to a node.
    fn connection(&self, node: NodeId, plane: Plane) -> BoxFuture<io::Result<Connection>>;
}

/// The largest frame between voters: entries of [`limits::LOG_ENTRY`] bytes and what is around them.
pub(crate) const FRAME: usize = limits::LOG_ENTRY + (64 << 10);

/// The sending half of a stream.
pub(crate) enum Tx {
    Peer(FrameTx),
    #[cfg(test)]
    Memory(memory::Tx),
}

/// The receiving half.
pub(crate) enum Rx {
    Peer(FrameRx),
    #[cfg(test)]
    Memory(memory::Rx),
}

/// Sets the bounds of consensus on a stream.
pub(crate) fn stream(mut tx: FrameTx, mut rx: FrameRx) -> (Tx, Rx) {
    tx.set_limit(FRAME);
    rx.set_limit(FRAME);
    (Tx::Peer(tx), Rx::Peer(rx))
}

impl Tx {
    /// Queues a message; [`Tx::flush`] sends it.
    pub(crate) fn feed<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        match self {
            Self::Peer(tx) => Ok(tx.feed(message)?),
            #[cfg(test)]
            Self::Memory(tx) => tx.feed(message),
        }
    }

    /// Whether something is queued.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Peer(tx) => tx.fed_len() > 0,
            #[cfg(test)]
            Self::Memory(tx) => tx.is_full(),
        }
    }

    /// Sends what is queued. Dropping it half way loses nothing.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Peer(tx) => Ok(tx.flush().await?),
            #[cfg(test)]
            Self::Memory(tx) => tx.flush().await,
        }
    }

    pub(crate) async fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        self.feed(message)?;
        self.flush().await
    }

    /// Ends the stream; what was sent arrives.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Peer(tx) => Ok(tx.finish()?),
            #[cfg(test)]
            Self::Memory(tx) => tx.finish(),
        }
    }
}

impl Rx {
    /// The next message; `None` when the peer finished. Dropping it half way loses nothing.
    pub(crate) async fn recv<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        match self {
            Self::Peer(rx) => Ok(rx.recv().await?),
            #[cfg(test)]
            Self::Memory(rx) => rx.recv().await,
        }
    }

    /// The answer that must come.
    pub(crate) async fn answer<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        self.recv().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Opens streams to other voters; clones are the same.
#[derive(Clone)]
pub(crate) enum Links {
    Peers(Arc<dyn Peers>),
    #[cfg(test)]
    Memory(memory::Net),
}

impl Links {
    pub(crate) async fn open(&self, node: NodeId, plane: Plane, open: &Open) -> io::Result<(Tx, Rx)> {
        match self {
            Self::Peers(peers) => {
                let (tx, rx) = peers.connection(node, plane).await?.open(open).await?;
                Ok(stream(tx, rx))
            }
            #[cfg(test)]
            Self::Memory(net) => net.open(node, open),
        }
    }
}
