//! Ours: a blob in one store, fetched into another, each in a directory of its own.

use std::{net::SocketAddr, path::Path, sync::Arc, thread};

use bytes::Bytes;
use swarm_blobstore::{Fetcher, KeyAt, Lanes, Outliner, Progress, Reach, Routes, SourceAt, Store, serve};
use swarm_proto::{
    ClusterId, Digest, NodeId, PROTOCOL, PeerKey, Problem, UnixMillis,
    blob::Claim,
    ledger::Addrs,
    limits,
    peer::{Hello, Open},
};
use swarm_transport::{BindSpec, Ca, Dial, Doorkeeper, Endpoint, FrameRx, FrameTx, Peer, Plane, Realm, SecretKey, Validity, udp_socket};
use tokio::sync::{oneshot, watch};

use crate::{Run, usage::Meter};

const CLUSTER: ClusterId = ClusterId([7; 16]);
/// Bytes that are verified again and again.
const VERIFIED: u64 = 16 << 20;

/// `disk`: what a profile calls the threads that do what blocks.
fn runtime(disk: &str) -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().thread_name(disk).enable_all().build()?)
}

fn key_of(id: u8) -> anyhow::Result<SecretKey> {
    Ok(SecretKey::from_seed(&[id; 32])?)
}

struct Keeper {
    store: Store,
    routes: Routes,
    members: Vec<PeerKey>,
}

impl Doorkeeper for Keeper {
    fn admit(&self, key: &PeerKey, _: &Hello, _: Plane) -> Result<Option<NodeId>, Problem> {
        let at = self.members.iter().position(|member| member == key);
        Ok(at.map(|at| NodeId(at as u64 + 1)))
    }

    fn stream(&self, peer: Peer, open: Open, tx: FrameTx, _: FrameRx) {
        if let (Open::Blob(request), Some(peer)) = (open, peer.node) {
            let (store, route) = (self.store.clone(), self.routes.to(peer));
            tokio::spawn(async move { drop(serve(store, Lanes::Threads, request, route, tx).await) });
        }
    }

    fn datagram(&self, _: &Peer, _: Bytes) {}
}

fn endpoint(id: u8, store: Store) -> anyhow::Result<Endpoint> {
    let identity = Ca::create(CLUSTER, key_of(200)?)?.identity(key_of(id)?, Validity::CENTURY)?;
    let spec = BindSpec {
        socket: udp_socket(([127, 0, 0, 1], 0).into())?,
        runtime: Arc::new(quinn::TokioRuntime),
        identity: Arc::new(identity),
        realm: Realm { cluster: CLUSTER, epoch: 0 },
        protocols: PROTOCOL..=PROTOCOL,
        crypto: swarm_transport::crypto(),
        seed: [id; 32],
        planes: vec![Plane::Bulk],
        // 2026-11-21
        wall: Arc::new(|| UnixMillis(1_795_219_200_000)),
    };
    let at = ([127, 0, 0, 1], 1).into();
    let hello = Hello {
        protocol: PROTOCOL,
        cluster: CLUSTER,
        node: Some(NodeId(id.into())),
        name: format!("h{id}"),
        addrs: Addrs { control: at, bulk: at },
        life: u64::from(id),
    };
    let members = vec![key_of(1)?.peer_key(), key_of(2)?.peer_key()];
    Ok(Endpoint::bind(spec, Arc::new(move || hello.clone()), Arc::new(Keeper { store, routes: Routes::default(), members }))?)
}

fn put(store: &Store, size: u64) -> anyhow::Result<Digest> {
    let mut draft = store.draft()?;
    crate::generate(size, |piece| draft.write(piece))?;
    Ok(draft.finish()?.digest())
}

/// A thread that a profile calls by its name.
fn thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<thread::JoinHandle<anyhow::Result<T>>> {
    Ok(thread::Builder::new().name(name.to_owned()).spawn(work)?)
}

/// Checks so many bytes as whoever gets them does, segment by segment, and nothing else.
pub(crate) fn verify(size: u64) -> anyhow::Result<Run> {
    // more than a core's own cache, as what comes from a network is
    let (mut data, mut outliner) = (Vec::new(), Outliner::default());
    crate::generate(VERIFIED, |piece| {
        outliner.update(piece);
        data.extend_from_slice(piece);
        anyhow::Ok(())
    })?;
    let outline = outliner.finish();
    let meter = Meter::start();
    let segments = (0..outline.segments()).zip(data.chunks(limits::SEGMENT as usize)).cycle();
    for (index, segment) in segments.take(usize::try_from(size / u64::from(limits::SEGMENT))?) {
        anyhow::ensure!(outline.fits(index, segment), "segment {index} is not what it was");
    }
    Ok(meter.stop())
}

pub(crate) fn run(size: u64) -> anyhow::Result<Run> {
    let dir = tempfile::tempdir()?;
    let source = Store::open(dir.path().join("from"), u64::MAX / 2, KeyAt::Own(dir.path().join("from.key")))?;
    let store = source.clone();
    let digest = thread("put", move || put(&store, size))?.join().map_err(|_| anyhow::anyhow!("putting panicked"))??;
    let (tx, bound) = std::sync::mpsc::channel::<SocketAddr>();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = thread("sender", move || {
        runtime("sender-disk")?.block_on(async {
            let endpoint = endpoint(1, source)?;
            tx.send(endpoint.local_addr())?;
            let _ = stopped.await;
            endpoint.close().await;
            Ok(())
        })
    })?;
    let (addr, to) = (bound.recv()?, dir.path().join("to"));
    let run = thread("receiver", move || receive(addr, &to, digest))?.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?;
    let _ = stop.send(());
    server.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    run
}

fn receive(addr: SocketAddr, dir: &Path, digest: Digest) -> anyhow::Result<Run> {
    runtime("receiver-disk")?.block_on(async {
        let store = Store::open(dir, u64::MAX / 2, KeyAt::Own(dir.join("key")))?;
        let endpoint = endpoint(2, store.clone())?;
        let pool = endpoint.pool();
        let dial = Dial { node: Some(NodeId(1)), key: None, addr };
        pool.get(Plane::Bulk, &dial).await?;
        let reach: Reach = Arc::new(move |_| {
            let pool = pool.clone();
            Box::pin(async move { pool.get(Plane::Bulk, &dial).await.map_err(|e| e.to_string()) })
        });
        let fetcher = Fetcher { store, lanes: Lanes::Threads, reach, claim: Claim::local() };
        let progress = watch::Sender::new(Progress::default());
        let meter = Meter::start();
        fetcher.fetch(digest, None, &[SourceAt { node: NodeId(1), is_spare: false }], &progress).await?;
        let run = meter.stop();
        endpoint.close().await;
        Ok(run)
    })
}
