//! Streams between nodes of one test, without a network.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use swarm_proto::{NodeId, frame, peer::Open};
use tokio::sync::{mpsc, watch};

/// Takes a stream that somebody opened.
type Accept = Arc<dyn Fn(Open, super::Tx, super::Rx) + Send + Sync>;

/// Somebody who listens, and what breaks the streams to it when it is dropped.
type Listener = (Accept, watch::Sender<()>);

/// Who listens.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<BTreeMap<NodeId, Listener>>>);

impl Net {
    pub(crate) fn listen(&self, node: NodeId, accept: Accept) {
        self.0.lock().unwrap().insert(node, (accept, watch::Sender::new(())));
    }

    /// Breaks every stream to a node, and lets nobody open another.
    pub(crate) fn cut(&self, node: NodeId) {
        self.0.lock().unwrap().remove(&node);
    }

    pub(crate) fn open(&self, node: NodeId, open: &Open) -> io::Result<(super::Tx, super::Rx)> {
        let net = self.0.lock().unwrap();
        let (accept, whole) = net.get(&node).ok_or(io::ErrorKind::ConnectionRefused)?;
        let (there, here) = (pair(whole), pair(whole));
        accept(open.clone(), super::Tx::Memory(here.0), super::Rx::Memory(there.1));
        Ok((super::Tx::Memory(there.0), super::Rx::Memory(here.1)))
    }
}

fn pair(whole: &watch::Sender<()>) -> (Tx, Rx) {
    let (tx, rx) = mpsc::channel(64);
    (Tx { out: Some(tx), fed: Vec::new() }, Rx { frames: rx, whole: whole.subscribe() })
}

pub(crate) struct Tx {
    out: Option<mpsc::Sender<Bytes>>,
    fed: Vec<Bytes>,
}

impl Tx {
    pub(super) fn feed<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        self.fed.push(postcard::to_stdvec(message).map_err(io::Error::other)?.into());
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        !self.fed.is_empty()
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let out = self.out.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        while !self.fed.is_empty() {
            let permit = out.reserve().await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            permit.send(self.fed.remove(0));
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.out.take().map(drop).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

pub(crate) struct Rx {
    frames: mpsc::Receiver<Bytes>,
    /// Closed when the stream is broken.
    whole: watch::Receiver<()>,
}

impl Rx {
    pub(super) async fn recv<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let frame = tokio::select! {
            biased;
            _ = self.whole.changed() => return Err(io::ErrorKind::ConnectionReset.into()),
            frame = self.frames.recv() => frame,
        };
        frame.map(|bytes| frame::decode(&bytes).map_err(io::Error::other)).transpose()
    }
}
