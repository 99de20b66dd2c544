//! A host that has a store and gives of it over real QUIC, rightly or wrongly.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use swarm_blobstore::*;
use swarm_proto::{
    ClusterId, Digest, NodeId, PROTOCOL, PeerKey, Problem, UnixMillis,
    blob::{BlobPart, BlobRequest},
    ledger::Addrs,
    peer::{Hello, Open},
};
use swarm_transport::*;
use tokio::{runtime::Handle, sync::watch};

pub(crate) const SEGMENT: usize = swarm_proto::limits::SEGMENT as usize;
const CLUSTER: ClusterId = ClusterId([7; 16]);
const PLENTY: u64 = 1 << 32;

static LIVES: AtomicU64 = AtomicU64::new(0);

/// How a host gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gives {
    Rightly,
    /// Says nothing after this many segments in all.
    Silent(u64),
    /// A changed bit in every segment but those that come with an outline.
    Changed,
    /// Breaks each stream off after one segment.
    Broken,
}

struct Keeper {
    store: Store,
    gives: Mutex<Gives>,
    given: Arc<AtomicU64>,
    handle: Handle,
}

impl Doorkeeper for Keeper {
    fn admit(&self, key: &PeerKey, _: &Hello, _: Plane) -> Result<Option<NodeId>, Problem> {
        Ok((1..=20).find(|id| key_of(*id).peer_key() == *key).map(|id| NodeId(id.into())))
    }

    fn stream(&self, _: Peer, open: Open, tx: FrameTx, _: FrameRx) {
        let Open::Blob(request) = open else { panic!("only blobs are asked for here: {open:?}") };
        let (store, gives, given) = (self.store.clone(), *self.gives.lock().unwrap(), self.given.clone());
        self.handle.spawn(async move {
            if gives == Gives::Rightly || !matches!(request.part, BlobPart::Segments(_)) {
                let _ = serve(store, Lanes::Threads, request, Vec::new(), tx).await;
            } else {
                wrongly(&store, gives, &given, request, tx).await;
            }
        });
    }

    fn datagram(&self, _: &Peer, _: Bytes) {}
}

async fn wrongly(store: &Store, gives: Gives, given: &AtomicU64, request: BlobRequest, mut tx: FrameTx) {
    use swarm_proto::blob::{BlobAnswer, SegmentHeader};
    let reader = store.reader(request.digest).unwrap().unwrap();
    let BlobPart::Segments(ranges) = request.part else { panic!("checked before") };
    tx.send(&BlobAnswer::Here { size: reader.outline().size(), whole: true }).await.unwrap();
    for index in ranges.into_iter().flat_map(|range| range.first..range.first + range.count) {
        let mut data = reader.unchecked(index).unwrap().unwrap();
        match gives {
            Gives::Rightly => {}
            Gives::Silent(after) if given.load(Ordering::Relaxed) < after => {}
            Gives::Silent(_) => std::future::pending().await,
            Gives::Changed => data[0] ^= 1,
            Gives::Broken if given.load(Ordering::Relaxed) % 2 == 1 => {
                given.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Gives::Broken => {}
        }
        given.fetch_add(1, Ordering::Relaxed);
        let header = SegmentHeader { index, len: u32::try_from(data.len()).unwrap() }.encode();
        if tx.send_bytes(Bytes::copy_from_slice(&header)).await.is_err() || tx.send_bytes(data.into()).await.is_err() {
            return;
        }
    }
    let _ = tx.finish();
}

fn key_of(id: u8) -> SecretKey {
    SecretKey::from_seed(&[id; 32]).unwrap()
}

pub(crate) struct Host {
    pub(crate) node: NodeId,
    pub(crate) store: Store,
    pub(crate) dir: tempfile::TempDir,
    endpoint: Endpoint,
    keeper: Arc<Keeper>,
    known: Arc<Mutex<BTreeMap<NodeId, Dial>>>,
}

impl Host {
    pub(crate) fn start(id: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), PLENTY).unwrap();
        let ca = Ca::create(CLUSTER, key_of(200)).unwrap();
        let keeper =
            Arc::new(Keeper { store: store.clone(), gives: Mutex::new(Gives::Rightly), given: Arc::default(), handle: Handle::current() });
        let spec = BindSpec {
            socket: udp_socket(([127, 0, 0, 1], 0).into()).unwrap(),
            runtime: Arc::new(quinn::TokioRuntime),
            identity: Arc::new(ca.identity(key_of(id), Validity::CENTURY).unwrap()),
            realm: Realm { cluster: CLUSTER, epoch: 0 },
            protocols: PROTOCOL..=PROTOCOL,
            seed: *blake3::hash(&LIVES.fetch_add(1, Ordering::Relaxed).to_le_bytes()).as_bytes(),
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
        let endpoint = Endpoint::bind(spec, Arc::new(move || hello.clone()), keeper.clone()).unwrap();
        Self { node: NodeId(id.into()), store, dir, endpoint, keeper, known: Arc::default() }
    }

    pub(crate) fn knows(&self, others: &[&Self]) {
        let mut known = self.known.lock().unwrap();
        for other in others {
            let dial = Dial { node: Some(other.node), key: None, addr: other.endpoint.local_addr() };
            known.insert(other.node, dial);
        }
    }

    pub(crate) fn gives(&self, gives: Gives) {
        *self.keeper.gives.lock().unwrap() = gives;
    }

    /// Bytes of all its connections, sent.
    pub(crate) fn sent(&self) -> u64 {
        self.endpoint.pool().connections().iter().map(|connection| connection.bytes().0).sum()
    }

    pub(crate) fn fetcher(&self) -> Fetcher {
        let (pool, known) = (self.endpoint.pool(), self.known.clone());
        let reach: Reach = Arc::new(move |node| {
            let (pool, dial) = (pool.clone(), known.lock().unwrap().get(&node).copied());
            Box::pin(async move {
                let dial = dial.ok_or("it is not known")?;
                pool.get(Plane::Bulk, &dial).await.map_err(|e| e.to_string())
            })
        });
        Fetcher { store: self.store.clone(), lanes: Lanes::Threads, reach }
    }

    /// Gets it, and says who gave how much.
    pub(crate) async fn fetch(&self, digest: Digest, from: &[&Self]) -> Result<Progress, FetchError> {
        let sources: Vec<SourceAt> = from.iter().map(|host| SourceAt { node: host.node, is_spare: false }).collect();
        let progress = watch::Sender::new(Progress::default());
        let fetcher = self.fetcher();
        let fetching = fetcher.fetch(digest, None, &sources, &progress);
        tokio::time::timeout(Duration::from_secs(60), fetching).await.expect("it ends")?;
        Ok(progress.borrow().clone())
    }

    pub(crate) fn put(&self, data: &[u8]) -> Digest {
        let mut draft = self.store.draft().unwrap();
        data.chunks(SEGMENT).for_each(|piece| draft.write(piece).unwrap());
        draft.finish().unwrap().digest()
    }

    pub(crate) fn has(&self, digest: Digest, data: &[u8]) -> bool {
        let Some(reader) = self.store.reader(digest).unwrap() else { return false };
        data.chunks(SEGMENT).zip(0..).all(|(piece, index)| reader.checked(index).unwrap().as_deref() == Some(piece))
    }

    pub(crate) fn whole_path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.dir.path().join("whole").join(&name[..2]).join(name)
    }
}

pub(crate) fn bytes(seed: u32, len: usize) -> Vec<u8> {
    (0u32..).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}
