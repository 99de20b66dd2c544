//! A node made of one endpoint and a doorkeeper that the test scripts.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use swarm_proto::{
    ClusterId, Code, LogIndex, NodeId, PROTOCOL, PeerKey, Problem, UnixMillis,
    ledger::{Addrs, Admit},
    peer::{Hello, Open},
};
use swarm_transport::*;
use tokio::sync::mpsc;

pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);
pub(crate) const REALM: Realm = Realm { cluster: CLUSTER, epoch: 0 };
/// 2026-11-21: within every certificate's life.
pub(crate) const TODAY: UnixMillis = UnixMillis(1_795_219_200_000);

/// Each start of a node is a life of its own, with its own seed.
static LIVES: AtomicU64 = AtomicU64::new(0);

/// A stream as the doorkeeper got it.
pub(crate) type Arrived = (Peer, Open, FrameTx, FrameRx);

/// Admits whom the test lists, and gives everything else to the test.
pub(crate) struct Keeper {
    pub(crate) members: Mutex<BTreeMap<PeerKey, Option<NodeId>>>,
    pub(crate) streams: mpsc::UnboundedSender<Arrived>,
    pub(crate) datagrams: mpsc::UnboundedSender<(Peer, Bytes)>,
}

impl Doorkeeper for Keeper {
    fn admit(&self, key: &PeerKey, _: &Hello, _: Plane) -> Result<Option<NodeId>, Problem> {
        let known = self.members.lock().unwrap().get(key).copied();
        known.ok_or_else(|| Problem::new(Code::Denied, "the node is refused", format!("key {key} is revoked")))
    }

    fn stream(&self, peer: Peer, open: Open, tx: FrameTx, rx: FrameRx) {
        // a test that does not look at streams has dropped its end
        let _ = self.streams.send((peer, open, tx, rx));
    }

    fn datagram(&self, peer: &Peer, data: Bytes) {
        let _ = self.datagrams.send((peer.clone(), data));
    }
}

pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) streams: mpsc::UnboundedReceiver<Arrived>,
    pub(crate) datagrams: mpsc::UnboundedReceiver<(Peer, Bytes)>,
    pub(crate) key: PeerKey,
    pub(crate) id: NodeId,
    /// What it says of itself from now on.
    pub(crate) hello: Arc<Mutex<Hello>>,
}

/// How a node differs from an ordinary one.
pub(crate) struct How {
    pub(crate) ca: u8,
    pub(crate) realm: Realm,
    pub(crate) validity: Validity,
    pub(crate) hello: Hello,
    pub(crate) wall: UnixMillis,
    pub(crate) planes: Vec<Plane>,
    pub(crate) addr: SocketAddr,
    pub(crate) protocols: RangeInclusive<u16>,
}

impl Default for How {
    fn default() -> Self {
        let at = |port| ([127, 0, 0, 1], port).into();
        let hello = Hello {
            protocol: PROTOCOL,
            cluster: CLUSTER,
            node: None,
            name: "test".to_owned(),
            addrs: Addrs { control: at(1), bulk: at(2) },
            life: 1,
        };
        Self {
            ca: 1,
            realm: REALM,
            validity: Validity::CENTURY,
            hello,
            wall: TODAY,
            planes: vec![Plane::Control, Plane::Raft],
            addr: at(0),
            protocols: PROTOCOL..=PROTOCOL,
        }
    }
}

pub(crate) fn key_of(id: u8) -> SecretKey {
    SecretKey::from_seed(&[id; 32]).unwrap()
}

pub(crate) fn ca(seed: u8) -> Ca {
    Ca::create(CLUSTER, key_of(100 + seed)).unwrap()
}

impl Node {
    pub(crate) fn start(id: u8) -> Self {
        Self::start_as(id, How::default())
    }

    pub(crate) fn start_as(id: u8, how: How) -> Self {
        let socket = udp_socket(how.addr).unwrap();
        Self::start_on(id, how, socket)
    }

    pub(crate) fn start_on(id: u8, how: How, socket: Arc<dyn quinn::AsyncUdpSocket>) -> Self {
        let identity = Arc::new(ca(how.ca).identity(key_of(id), how.validity).unwrap());
        let key = identity.peer_key();
        let (streams_tx, streams) = mpsc::unbounded_channel();
        let (datagrams_tx, datagrams) = mpsc::unbounded_channel();
        let members = (1..=9).map(|n| (key_of(n).peer_key(), Some(NodeId(n.into())))).collect();
        let keeper = Arc::new(Keeper { members: Mutex::new(members), streams: streams_tx, datagrams: datagrams_tx });
        let spec = BindSpec {
            socket,
            runtime: Arc::new(quinn::TokioRuntime),
            identity,
            realm: how.realm,
            protocols: how.protocols,
            crypto: crypto(),
            seed: *blake3::hash(&LIVES.fetch_add(1, Ordering::Relaxed).to_le_bytes()).as_bytes(),
            planes: how.planes,
            wall: Arc::new(move || how.wall),
        };
        let hello = Arc::new(Mutex::new(how.hello));
        let said = hello.clone();
        let endpoint = Endpoint::bind(spec, Arc::new(move || said.lock().unwrap().clone()), keeper.clone()).unwrap();
        Self { endpoint, keeper, streams, datagrams, key, id: NodeId(id.into()), hello }
    }

    /// How to reach it, all known.
    pub(crate) fn dial(&self) -> Dial {
        Dial { node: Some(self.id), key: Some(self.key), addr: self.endpoint.local_addr() }
    }

    pub(crate) async fn connect(&self, to: &Self) -> Result<Connection, DialError> {
        self.endpoint.pool().get(Plane::Control, &to.dial()).await
    }

    pub(crate) fn set_member(&self, key: PeerKey, node: Option<Option<NodeId>>) {
        let mut members = self.keeper.members.lock().unwrap();
        match node {
            Some(node) => members.insert(key, node),
            None => members.remove(&key),
        };
    }

    /// Answers the next `count` streams by sending back each frame as text.
    pub(crate) async fn echo(&mut self, count: usize) {
        for _ in 0..count {
            let (_, _, mut tx, mut rx) = self.streams.recv().await.unwrap();
            tokio::spawn(async move {
                while let Ok(Some(word)) = rx.recv::<String>().await {
                    tx.send(&word).await.unwrap();
                }
                let _ = tx.finish();
            });
        }
    }
}

/// An opening message that a member may use.
pub(crate) fn work() -> Open {
    Open::View { after: LogIndex(0) }
}

pub(crate) fn join() -> Open {
    let at = ([127, 0, 0, 1], 1).into();
    let admit = Admit {
        key: PeerKey([0; 32]),
        raft: Default::default(),
        name: "x".to_owned(),
        addrs: Addrs { control: at, bulk: at },
        may_vote: true,
    };
    Open::Join(admit)
}

/// Waits for something to become true; fails loudly instead of for ever.
pub(crate) async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let waiting = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what} did not come true"));
}
