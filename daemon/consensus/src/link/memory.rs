//! Streams between nodes of one test, without a network.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use swarm_proto::{NodeId, frame, peer::Open};
use tokio::sync::mpsc;

/// Takes a stream that somebody opened.
type Accept = Arc<dyn Fn(Open, super::Tx, super::Rx) + Send + Sync>;

/// Who listens.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<BTreeMap<NodeId, Accept>>>);

impl Net {
    pub(crate) fn listen(&self, node: NodeId, accept: Accept) {
        self.0.lock().unwrap().insert(node, accept);
    }

    pub(crate) fn cut(&self, node: NodeId) {
        self.0.lock().unwrap().remove(&node);
    }

    pub(crate) fn open(&self, node: NodeId, open: &Open) -> io::Result<(super::Tx, super::Rx)> {
        let accept = self.0.lock().unwrap().get(&node).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
        let (there, here) = (pair(), pair());
        accept(open.clone(), super::Tx::Memory(here.0), super::Rx::Memory(there.1));
        Ok((super::Tx::Memory(there.0), super::Rx::Memory(here.1)))
    }
}

fn pair() -> (Tx, Rx) {
    let (tx, rx) = mpsc::channel(64);
    (Tx { out: Some(tx), fed: Vec::new() }, Rx(rx))
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

pub(crate) struct Rx(mpsc::Receiver<Bytes>);

impl Rx {
    pub(super) async fn recv<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(bytes) = self.0.recv().await else { return Ok(None) };
        frame::decode(&bytes).map(Some).map_err(io::Error::other)
    }
}
