//! A host that has a store and gives of it over real QUIC, rightly or wrongly.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use swarm_blobstore::*;
use swarm_proto::{
    ClusterId, Digest, NodeId, PROTOCOL, PeerKey, Problem, UnixMillis,
    blob::{BlobAnswer, BlobPart, BlobRequest, Claim, SegmentHeader, SegmentRange},
    ledger::Addrs,
    peer::{Hello, Open},
};
use swarm_transport::*;
use tokio::{
    net::UdpSocket,
    runtime::Handle,
    sync::{mpsc, watch},
};

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
    /// The same, and in that which comes with the outline of a blob of one segment.
    Forged,
    /// Breaks each stream off after one segment.
    Broken,
    /// Segments of zeros as frames that are wrong in one way.
    Framed(Trick),
    /// Says that it has it and then nothing, whatever it is asked for.
    Mute,
    /// Says another size than the outline's.
    OtherSize,
    /// Gives the segment after each that it was asked for.
    Unasked,
    /// Says to have all of it, and has nothing.
    Boasts,
    /// Says so many times, every 0.2 s, that it is about to get it, before it gives an outline.
    Soon(u32),
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trick {
    /// Nothing.
    None,
    /// It opens to twice as much.
    Beyond,
    /// It opens to half as much.
    Short,
    /// It is none.
    Garbage,
    /// It needs 32 MiB to be opened.
    Window,
    /// It is said to be longer than its segment.
    Unbounded,
}

impl Trick {
    fn frame(self) -> (u32, Vec<u8>) {
        let segment = u32::try_from(SEGMENT).unwrap();
        let (window, size) = match self {
            Self::None | Self::Garbage | Self::Unbounded => (20, segment),
            Self::Beyond => (20, 2 * segment),
            Self::Short => (20, segment / 2),
            Self::Window => (25, segment),
        };
        let mut frame = zeros(window, size);
        match self {
            Self::None | Self::Beyond | Self::Short | Self::Window => {}
            Self::Garbage => frame.fill(7),
            Self::Unbounded => return (segment + 1, vec![0; SEGMENT + 1]),
        }
        (u32::try_from(frame.len()).unwrap(), frame)
    }
}

/// A zstd frame of so many zeros (RFC 8878, 3.1.1), in blocks of one byte and how often it comes.
fn zeros(window_log: u8, size: u32) -> Vec<u8> {
    const BLOCK: u32 = 128 << 10;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x80, (window_log - 10) << 3];
    frame.extend(size.to_le_bytes());
    for left in (0..size / BLOCK).rev() {
        frame.extend(&(u32::from(left == 0) | 1 << 1 | BLOCK << 3).to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

struct Keeper {
    store: Store,
    routes: Routes,
    others_take_plain: AtomicBool,
    gives: Mutex<Gives>,
    given: Arc<AtomicU64>,
    asked: AtomicU64,
    handle: Handle,
}

impl Doorkeeper for Keeper {
    fn admit(&self, key: &PeerKey, _: &Hello, _: Plane) -> Result<Option<NodeId>, Problem> {
        Ok((1..=20).find(|id| key_of(*id).peer_key() == *key).map(|id| NodeId(id.into())))
    }

    fn stream(&self, peer: Peer, open: Open, mut tx: FrameTx, _: FrameRx) {
        let Open::Blob(mut request) = open else { panic!("only blobs are asked for here: {open:?}") };
        self.asked.fetch_add(1, Ordering::Relaxed);
        request.takes_zstd &= !self.others_take_plain.load(Ordering::Relaxed);
        let route = self.routes.to(peer.node.unwrap());
        let (store, gives, given) = (self.store.clone(), *self.gives.lock().unwrap(), self.given.clone());
        self.handle.spawn(async move {
            if let (Gives::Soon(times), BlobPart::Outline) = (gives, &request.part) {
                for _ in 0..times {
                    let _ = tx.send(&BlobAnswer::Coming).await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            let is_right = match request.part {
                BlobPart::Segments(_) => false,
                BlobPart::Outline => !matches!(gives, Gives::Mute | Gives::Forged),
                BlobPart::Follow | BlobPart::Doubt(_) => gives != Gives::Mute,
            };
            if matches!(gives, Gives::Rightly | Gives::Soon(_)) || is_right {
                let _ = serve(store, Lanes::Threads, request, route, tx).await;
            } else {
                wrongly(&store, gives, &given, request, tx).await;
            }
        });
    }

    fn datagram(&self, _: &Peer, _: Bytes) {}
}

async fn wrongly(store: &Store, gives: Gives, given: &AtomicU64, request: BlobRequest, mut tx: FrameTx) {
    let reader = store.reader(request.digest).unwrap().unwrap();
    let lie = u64::from(gives == Gives::OtherSize);
    tx.send(&BlobAnswer::Here { size: reader.outline().size() + lie, whole: true, sealed: reader.is_sealed() }).await.unwrap();
    if gives == Gives::Mute {
        return std::future::pending().await;
    }
    let ranges = match request.part {
        BlobPart::Segments(ranges) => ranges,
        BlobPart::Outline => vec![SegmentRange { first: 0, count: 1 }],
        part @ (BlobPart::Follow | BlobPart::Doubt(_)) => panic!("nothing is forged of {part:?}"),
    };
    for index in ranges.into_iter().flat_map(|range| range.first..range.first + range.count) {
        let mut wire = None;
        let mut data = reader.unchecked(index).unwrap().unwrap();
        match gives {
            Gives::Rightly | Gives::Mute | Gives::OtherSize | Gives::Unasked | Gives::Soon(_) => {}
            Gives::Boasts => break,
            Gives::Silent(after) if given.load(Ordering::Relaxed) < after => {}
            Gives::Silent(_) => std::future::pending().await,
            Gives::Changed | Gives::Forged => data[0] ^= 1,
            Gives::Broken if given.load(Ordering::Relaxed) % 2 == 1 => {
                given.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Gives::Broken => {}
            Gives::Framed(trick) => {
                let framed = trick.frame();
                (wire, data) = (Some(framed.0), framed.1);
            }
        }
        given.fetch_add(1, Ordering::Relaxed);
        let len = reader.outline().len_of(index).unwrap();
        let index = index + u32::from(gives == Gives::Unasked);
        let header = SegmentHeader { index, len, wire: wire.unwrap_or(len) }.encode();
        if tx.send_bytes(Bytes::copy_from_slice(&header)).await.is_err() || tx.send_bytes(data.into()).await.is_err() {
            return;
        }
    }
    let _ = tx.finish();
}

/// The near end of a wire to a socket. What comes from there comes at that rate, and is lost where too much of it waits.
async fn wire(to: SocketAddr, rate: u64) -> std::io::Result<SocketAddr> {
    /// Packets that wait.
    const DEPTH: usize = 2_000;
    let (near, far) = (Arc::new(UdpSocket::bind("127.0.0.1:0").await?), Arc::new(UdpSocket::bind("127.0.0.1:0").await?));
    far.connect(to).await?;
    let at = near.local_addr()?;
    let (queue, mut waiting) = mpsc::channel::<Vec<u8>>(DEPTH);
    let peer = Arc::new(Mutex::new(None));
    let (from, known) = (far.clone(), peer.clone());
    tokio::spawn({
        let near = near.clone();
        async move {
            let mut packet = [0; 2048];
            while let Ok((len, addr)) = near.recv_from(&mut packet).await {
                *known.lock().unwrap() = Some(addr);
                let _ = far.send(&packet[..len]).await;
            }
        }
    });
    tokio::spawn(async move {
        let mut packet = [0; 2048];
        while let Ok(len) = from.recv(&mut packet).await {
            let _ = queue.try_send(packet[..len].to_vec());
        }
    });
    tokio::spawn(async move {
        let mut free = tokio::time::Instant::now();
        while let Some(packet) = waiting.recv().await {
            free = free.max(tokio::time::Instant::now()) + Duration::from_secs_f64(packet.len() as f64 / rate as f64);
            tokio::time::sleep_until(free).await;
            let to: Option<SocketAddr> = *peer.lock().unwrap();
            if let Some(to) = to {
                let _ = near.send_to(&packet, to).await;
            }
        }
    });
    Ok(at)
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
        Self::start_with(id, Paces::default())
    }

    /// One that gives no faster than that.
    pub(crate) fn start_with(id: u8, paces: Paces) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), PLENTY, KeyAt::Own(dir.path().join("blobs.key"))).unwrap();
        let ca = Ca::create(CLUSTER, key_of(200)).unwrap();
        let keeper = Arc::new(Keeper {
            store: store.clone(),
            routes: Routes::new(paces),
            others_take_plain: AtomicBool::new(false),
            gives: Mutex::new(Gives::Rightly),
            given: Arc::default(),
            asked: AtomicU64::new(0),
            handle: Handle::current(),
        });
        let spec = BindSpec {
            socket: udp_socket(([127, 0, 0, 1], 0).into()).unwrap(),
            runtime: Arc::new(quinn::TokioRuntime),
            identity: Arc::new(ca.identity(key_of(id), Validity::CENTURY).unwrap()),
            realm: Realm { cluster: CLUSTER, epoch: 0 },
            protocols: PROTOCOL..=PROTOCOL,
            crypto: swarm_transport::crypto(),
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

    /// Knows it at the end of a wire that brings so many bytes a second from there.
    pub(crate) async fn knows_over_wire(&self, other: &Self, rate: u64) {
        let addr = wire(other.endpoint.local_addr(), rate).await.unwrap();
        self.known.lock().unwrap().insert(other.node, Dial { node: Some(other.node), key: None, addr });
    }

    pub(crate) fn gives(&self, gives: Gives) {
        *self.keeper.gives.lock().unwrap() = gives;
    }

    /// As if nobody who asks it took frames.
    pub(crate) fn gives_plain(&self, is_plain: bool) {
        self.keeper.others_take_plain.store(is_plain, Ordering::Relaxed);
    }

    /// Requests that came, so far.
    pub(crate) fn asked(&self) -> u64 {
        self.keeper.asked.load(Ordering::Relaxed)
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
        Fetcher { store: self.store.clone(), lanes: Lanes::Threads, reach, claim: Claim::local() }
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
        self.dir.path().join("whole").join(digest.shelf())
    }

    pub(crate) fn sealed_path(&self, digest: Digest) -> PathBuf {
        self.dir.path().join("sealed").join(digest.shelf())
    }
}

pub(crate) fn bytes(seed: u32, len: usize) -> Vec<u8> {
    (0u32..).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}

/// Words in some order, which zstd makes about a third of.
pub(crate) fn text(len: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "node", "blob", "leader", "segment", "task", "ledger", "worker", "term", "vote", "mesh", "lease", "fence", "job", "digest", "pin",
        "link",
    ];
    let mut seed = 1_u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let mut text = String::with_capacity(len + 32);
    while text.len() < len {
        let word = WORDS[next() as usize % WORDS.len()];
        text.push_str(&format!("{word}{}{}", next() % 1000, if next() % 9 == 0 { "\n" } else { " " }));
    }
    text.into_bytes()[..len].to_vec()
}
