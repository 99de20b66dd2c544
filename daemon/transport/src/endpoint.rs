//! An endpoint: one socket, the planes served on it, and the tasks that do so.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quinn::{AsyncUdpSocket, Runtime};
use rustls::crypto::CryptoProvider;
use swarm_proto::{
    Code, NodeId, PeerKey, Problem, UnixMillis, limits,
    peer::{Hello, Open},
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::yield_now,
    time::timeout,
};

use crate::{
    close::{self, CloseCode, Ended},
    connection::{Connection, Greeted, Peer},
    frames::{FrameRx, FrameTx, StreamError},
    handshake,
    identity::{Identity, IdentityError},
    noise::Noise,
    plane::{Plane, Realm},
    pool::{Links, Pool},
    serve::{self, Registered},
    settings,
    socket::{BindError, Watched},
    tls::{Clock, Tongue, WallClock},
};

/// Handshakes in flight beyond which a peer must first show that it receives at its address.
const TRUSTING: usize = limits::HANDSHAKES / 4;
/// How long a peer may take to collect the reason why it was refused, and how long a close waits for peers to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);
/// Looks at the socket before a drain gives up on a flood.
const LOOKS: usize = 64;

/// What this node says of itself at each new connection.
pub type HelloSource = Arc<dyn Fn() -> Hello + Send + Sync>;

/// Who decides what peers may do and what their messages mean. Called on the endpoint's runtime; must not block.
///
/// The endpoint keeps it alive, and the pool the endpoint: whoever implements this and holds a [`Pool`] makes a cycle that
/// [`Endpoint::close`] does not undo; hold one of them weakly.
pub trait Doorkeeper: Send + Sync {
    /// Whether a peer may stay: its id, or `None` for one that is not a member yet and may only ask to join. Asked at each new
    /// connection, on both sides, at all that a peer without an id sends, and at every [`Pool::review`].
    ///
    /// # Errors
    /// The reason for a refusal; the peer is told.
    fn admit(&self, key: &PeerKey, hello: &Hello, plane: Plane) -> Result<Option<NodeId>, Problem>;

    /// A stream that said what it is for. Called in a task of its own; long work must be spawned.
    fn stream(&self, peer: Peer, open: Open, tx: FrameTx, rx: FrameRx);

    /// A datagram of an admitted peer.
    fn datagram(&self, peer: &Peer, data: Bytes);
}

/// What an endpoint is made of.
pub struct BindSpec {
    /// From [`crate::udp_socket`], or the simulator's.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// `quinn::TokioRuntime`, also in the simulator.
    pub runtime: Arc<dyn Runtime>,
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// Which swarm.
    pub realm: Realm,
    /// Versions of the peer protocol that are spoken, `OLDEST_PROTOCOL..=PROTOCOL` but in tests.
    pub protocols: RangeInclusive<u16>,
    /// [`crate::crypto`], or the simulator's, whose chance comes from its seed.
    pub crypto: Arc<CryptoProvider>,
    /// Of this life of the daemon: everything random here that shapes behaviour comes from it. Must not be guessable.
    pub seed: [u8; 32],
    /// What is served and dialled.
    pub planes: Vec<Plane>,
    /// Judges the end of certificates.
    pub wall: WallClock,
}

/// Why an endpoint serves no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointEnd {
    /// [`Endpoint::close`] was called.
    Closed,
    /// Its driver ended by itself: the socket failed, or a bug. The node is deaf; the process must end.
    Failed,
}

pub(crate) struct Shared {
    pub(crate) quinn: quinn::Endpoint,
    pub(crate) me: PeerKey,
    pub(crate) tongue: Tongue,
    clients: Mutex<BTreeMap<Plane, quinn::ClientConfig>>,
    planes: Vec<Plane>,
    seed: [u8; 32],
    clock: Clock,
    /// Identities adopted so far.
    adopted: AtomicU64,
    pub(crate) hello: HelloSource,
    pub(crate) doorkeeper: Arc<dyn Doorkeeper>,
    /// The runtime of the endpoint: connections are driven where the socket is, whoever asks for them.
    pub(crate) tasks: Handle,
    links: Mutex<Links>,
    noise: Noise,
    /// The socket, and where it listens.
    bound: Mutex<(Arc<Watched>, SocketAddr)>,
}

impl Shared {
    pub(crate) fn pool(&self) -> MutexGuard<'_, Links> {
        self.links.lock().expect("nothing panics with this lock held")
    }

    pub(crate) fn datagrams_a_call(&self) -> usize {
        self.bound().0.max_transmit_segments()
    }

    fn bound(&self) -> MutexGuard<'_, (Arc<Watched>, SocketAddr)> {
        self.bound.lock().expect("nothing panics with this lock held")
    }

    /// What the next dial of a plane is made with; `None` if it is not served here.
    pub(crate) fn client(&self, plane: Plane) -> Option<quinn::ClientConfig> {
        self.clients.lock().expect("nothing panics with this lock held").get(&plane).cloned()
    }

    /// The clock that judges the ends of certificates.
    pub(crate) fn now(&self) -> UnixMillis {
        (self.clock.0)()
    }

    pub(crate) fn adopt(&self, identity: &Identity) -> Result<(), IdentityError> {
        let generation = self.adopted.fetch_add(1, Ordering::Relaxed) + 1;
        let (server, clients) = configs(identity, &self.tongue, &self.planes, &self.clock, &self.seed, generation)?;
        self.quinn.set_server_config(Some(server));
        *self.clients.lock().expect("nothing panics with this lock held") = clients;
        Ok(())
    }

    /// Closes a connection whose peer was told who this node was then, which is not who it is now: there it would stay a stranger's.
    pub(crate) fn close_misnamed(&self, connection: &Connection) {
        if connection.said() != (self.hello)().node {
            connection.close(CloseCode::Replaced, "this node has an id of its own now");
        }
    }

    /// Asks the doorkeeper about a live connection again. Answers whether it may stay.
    pub(crate) fn judge(&self, connection: &Connection) -> bool {
        match self.doorkeeper.admit(&connection.key(), connection.hello(), connection.plane()) {
            Ok(Some(node)) if connection.node().is_none() => self.pool().name_node(connection, node),
            Ok(_) => {}
            Err(problem) => {
                tracing::info!(?connection, why = %problem.why, "closed out");
                connection.close(CloseCode::ClosedOut, &problem.why);
                return false;
            }
        }
        true
    }
}

/// Whether nothing that is served there is in a hurry.
fn is_bulk(planes: &[Plane]) -> bool {
    planes.iter().all(|plane| *plane == Plane::Bulk)
}

type Configs = (quinn::ServerConfig, BTreeMap<Plane, quinn::ClientConfig>);

/// Each generation has its own seed: ids of dials do not come again.
fn configs(
    identity: &Identity,
    tongue: &Tongue,
    planes: &[Plane],
    clock: &Clock,
    seed: &[u8; 32],
    generation: u64,
) -> Result<Configs, IdentityError> {
    let derive = |purpose: &str| blake3::derive_key(purpose, &[&seed[..], &generation.to_le_bytes()].concat());
    let server = settings::server(identity, tongue, planes, clock, derive("swarm retry tokens 2"))?;
    let client = |plane: &Plane| Ok((*plane, settings::client(identity, tongue, *plane, clock, derive("swarm dials 2"))?));
    Ok((server, planes.iter().map(client).collect::<Result<_, IdentityError>>()?))
}

/// One socket and what is served on it; clones share it.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
    end: watch::Receiver<Option<EndpointEnd>>,
}

impl Endpoint {
    /// Starts serving, on the tokio runtime in which it is called.
    ///
    /// # Errors
    /// [`BindError::Identity`], [`BindError::Endpoint`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(spec: BindSpec, hello: HelloSource, doorkeeper: Arc<dyn Doorkeeper>) -> Result<Self, BindError> {
        let BindSpec { socket, runtime, identity, realm, protocols, crypto, seed, planes, wall } = spec;
        let tongue = Tongue { realm, protocols, crypto };
        let clock = Clock(wall);
        let words = planes.iter().map(|plane| plane.word()).collect::<String>();
        let derive = |purpose: &str| blake3::derive_key(purpose, &[&seed, words.as_bytes()].concat());
        let seed = derive("swarm configs 1");
        let (server, clients) = configs(&identity, &tongue, &planes, &clock, &seed, 0)?;
        let socket = Arc::new(Watched::new(socket, is_bulk(&planes)));
        let config = settings::endpoint(&identity, is_bulk(&planes), derive("swarm endpoint 1"));
        let quinn =
            quinn::Endpoint::new_with_abstract_socket(config, Some(server), socket.clone(), runtime).map_err(BindError::Endpoint)?;
        let local = quinn.local_addr().map_err(BindError::Endpoint)?;
        let me = identity.peer_key();
        let links = Mutex::new(Links::new(me, derive("swarm dial backoff 1")));
        let tasks = Handle::current();
        let (clients, adopted, noise) = (Mutex::new(clients), AtomicU64::new(0), Noise::default());
        let bound = Mutex::new((socket, local));
        let shared =
            Arc::new(Shared { quinn, me, tongue, clients, planes, seed, clock, adopted, hello, doorkeeper, tasks, links, noise, bound });
        let end = spawn_accepting(&shared);
        Ok(Self { shared, end })
    }

    /// Its connections.
    pub fn pool(&self) -> Pool {
        Pool(self.shared.clone())
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.bound().1
    }

    /// Goes on with another socket, as when the host has got another address. Every connection is closed: peers hold fast to the
    /// address that a connection began with (migration is off), so nothing of these would arrive any more. Must be called on the
    /// endpoint's own runtime, where the socket was made.
    ///
    /// # Errors
    /// The socket cannot be used; the endpoint goes on with the old one.
    pub fn rebind(&self, socket: Arc<dyn AsyncUdpSocket>) -> io::Result<()> {
        let local = socket.local_addr()?;
        let watched = Arc::new(Watched::new(socket, is_bulk(&self.shared.planes)));
        self.shared.quinn.rebind_abstract(watched.clone())?;
        *self.shared.bound() = (watched, local);
        for connection in self.pool().connections() {
            connection.close(CloseCode::Replaced, "this node goes on at another address");
        }
        Ok(())
    }

    /// Lets what has arrived be heard: yields until the socket was found empty, and until its connections had their turn.
    /// Before due timers are run, on the endpoint's own single-threaded runtime. Under a flood it gives up after a while.
    pub async fn drain(&self) {
        for _ in 0..LOOKS {
            // one yield lets the runtime look for I/O and the endpoint's driver read
            yield_now().await;
            if self.shared.bound().0.is_drained() {
                break;
            }
        }
        // the driver has sorted packets to connections; these decrypt, then their tasks hand datagrams over
        yield_now().await;
        yield_now().await;
    }

    /// Closes every connection, tells the peers, and stops.
    pub async fn close(&self) {
        self.shared.pool().close();
        self.shared.quinn.close(CloseCode::Stopping.into(), b"the node is stopping");
        // peers that do not hear it find out by their idle time
        let _ = timeout(FAREWELL, self.shared.quinn.wait_idle()).await;
    }

    /// Waits until it serves no more, and says why.
    pub async fn closed(&self) -> EndpointEnd {
        let mut end = self.end.clone();
        let end = end.wait_for(Option::is_some).await.map(|end| *end);
        end.ok().flatten().unwrap_or(EndpointEnd::Failed)
    }
}

fn spawn_accepting(shared: &Arc<Shared>) -> watch::Receiver<Option<EndpointEnd>> {
    let (tx, rx) = watch::channel(None);
    let accepting = shared.tasks.spawn(accept(shared.clone()));
    let shared = shared.clone();
    let watching = shared.clone();
    shared.tasks.spawn(async move {
        // however the accepting ended, by a panic too
        let _ = accepting.await;
        let mut links = watching.pool();
        let end = if links.is_closed() { EndpointEnd::Closed } else { EndpointEnd::Failed };
        links.close();
        drop(links);
        let _ = tx.send(Some(end));
    });
    rx
}

/// Takes incoming handshakes until the driver is gone, a bounded number at a time.
async fn accept(shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(limits::HANDSHAKES));
    while let Some(incoming) = shared.quinn.accept().await {
        let is_busy = slots.available_permits() <= limits::HANDSHAKES - TRUSTING;
        if is_busy && incoming.may_retry() {
            // an error means that it may not be retried, which was just asked
            let _ = incoming.retry();
        } else if let Ok(slot) = slots.clone().try_acquire_owned() {
            shared.tasks.spawn(take(shared.clone(), incoming, slot));
        } else {
            incoming.refuse();
        }
    }
}

/// One incoming connection, from its first packet to its end.
async fn take(shared: Arc<Shared>, incoming: quinn::Incoming, slot: OwnedSemaphorePermit) {
    let addr = incoming.remote_address();
    let greeted = timeout(limits::HANDSHAKE_TIME, welcome(&shared, incoming)).await;
    let refusal = match greeted {
        Ok(Ok(registered)) => {
            drop(slot);
            tracing::debug!(connection = ?registered.connection, "connected");
            return serve::run(registered).await;
        }
        Ok(Err(refusal)) => refusal,
        Err(_) => "the handshake or the Hello took too long".to_owned(),
    };
    if let Some(unsaid) = shared.noise.may_speak() {
        tracing::warn!(%addr, why = refusal, unsaid, "an incoming connection is refused");
    }
}

async fn welcome(shared: &Arc<Shared>, incoming: quinn::Incoming) -> Result<Registered, String> {
    let explained = |e: quinn::ConnectionError| close::explain(&e).to_string();
    let quinn = incoming.accept().map_err(explained)?.await.map_err(explained)?;
    let (key, ends, plane, protocol) = handshake::identify(&quinn, &shared.tongue)?;
    let ours = Hello { protocol, ..(shared.hello)() };
    let (heard, mut tx) = match handshake::hear(&quinn, &ours).await {
        Ok(heard) => heard,
        Err(error) => {
            quinn.close(CloseCode::NoHello.into(), error.to_string().as_bytes());
            return Err(no_hello(&error));
        }
    };
    let admitted = heard.and_then(|hello| {
        if key == shared.me {
            return Err(Problem::new(Code::Conflict, "the connection is refused", "it comes from this node's own key"));
        }
        handshake::check_end(ends, plane, shared.now())?;
        let node = shared.doorkeeper.admit(&key, &hello, plane)?;
        let greeted = Greeted { quinn: quinn.clone(), plane, key, hello, node, said: ours.node, is_dialled_here: false };
        Registered::new(shared, greeted)
    });
    match admitted {
        Ok(registered) => handshake::answer(&mut tx, &Ok(ours)).await.map(|()| registered).map_err(|e| e.to_string()),
        Err(problem) => Err(farewell(&quinn, tx, problem).await),
    }
}

/// Tells a peer why it may not stay, and closes once it has heard, or has had the time to.
async fn farewell(quinn: &quinn::Connection, mut tx: FrameTx, problem: Problem) -> String {
    let why = problem.why.clone();
    let code = if problem.code == Code::Version { CloseCode::Version } else { CloseCode::Refused };
    if handshake::answer(&mut tx, &Err(problem)).await.is_ok() {
        let _ = timeout(FAREWELL, tx.delivered()).await;
    }
    quinn.close(code.into(), why.as_bytes());
    why
}

fn no_hello(error: &StreamError) -> String {
    if let StreamError::Lost(Ended::There(_, why)) = error {
        return format!("the peer left before its Hello: {why}");
    }
    format!("no Hello: {error}")
}
