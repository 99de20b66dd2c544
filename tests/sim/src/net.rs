//! The simulated network: what an endpoint needs to run inside turmoil and to do the same thing again for the same seed.
//!
//! [`socket`] is the one thing that differs from a real host. It sends one datagram a call (no segmentation offload, which
//! turmoil would deliver as one oversize packet) and is always writable; what the network cannot take is lost, as on a real
//! one. The rest are inputs that a real daemon takes from its disk and its operating system, derived here from the world's
//! seed: [`identity`], [`life_seed`], [`wall_clock`], [`crypto`]. What the network does wrong is [`Weather`].

mod chance;
mod weather;

use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use swarm_proto::{
    ClusterId, UnixMillis,
    identity::{Found, Kind},
};
use swarm_transport::{BindError, Ca, Identity, SecretKey, Validity, WallClock};
use turmoil::net::UdpSocket;

pub use chance::crypto;
pub use weather::{LATE, Rates, Weather};

/// When simulations begin: 2026-11-21, in milliseconds since 1970.
const EPOCH: UnixMillis = UnixMillis(1_795_219_200_000);
/// Datagrams that wait in a socket; turmoil's 64 would lose every larger burst.
const QUEUE: usize = 4_096;

/// A network of steps of 1 ms whose chance comes from `seed`, as does that of [`crypto`] on this thread from here on. Latency and loss are
/// the caller's to set.
pub fn builder(seed: u64) -> turmoil::Builder {
    chance::begin(seed);
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(1))
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_millis(EPOCH.0))
        .udp_capacity(QUEUE);
    builder
}

/// The same clock for every host; it moves with the simulation.
pub fn wall_clock() -> WallClock {
    Arc::new(|| UnixMillis(EPOCH.0 + u64::try_from(turmoil::sim_elapsed().unwrap_or_default().as_millis()).unwrap_or(u64::MAX)))
}

/// What [`wall_clock`] shows when the simulation begins.
pub const fn epoch() -> UnixMillis {
    EPOCH
}

/// The world's CA.
///
/// # Panics
/// When the cryptographic library refuses, which it has no reason to.
pub fn ca(seed: u64, cluster: ClusterId) -> Ca {
    Ca::create(cluster, key(seed, "ca", 0)).expect("an Ed25519 key signs itself")
}

/// The authorities that the world's founder enters into the ledger.
///
/// # Panics
/// As [`ca`].
pub fn found(seed: u64, cluster: ClusterId, nodes: u64) -> Found {
    let users = Ca::create_for(Kind::User, cluster, key(seed, "users", 0)).expect("an Ed25519 key signs itself");
    let first = (1..=nodes).map(|node| key(seed, "node", node).peer_key()).collect();
    Found { cluster, nodes: ca(seed, cluster).authority(), users: users.authority(), first }
}

/// Who a node is, in all its lives.
///
/// # Panics
/// As [`ca`].
pub fn identity(seed: u64, cluster: ClusterId, node: u64) -> Arc<Identity> {
    identity_for(seed, cluster, node, Validity::CENTURY)
}

/// The same with a certificate that ends.
///
/// # Panics
/// As [`ca`].
pub fn identity_for(seed: u64, cluster: ClusterId, node: u64, validity: Validity) -> Arc<Identity> {
    Arc::new(ca(seed, cluster).identity(key(seed, "node", node), validity).expect("the CA signs any key"))
}

fn key(seed: u64, what: &str, node: u64) -> SecretKey {
    SecretKey::from_seed(&derive(seed, what, node, 0)).expect("any 32 bytes are an Ed25519 seed")
}

/// What a real daemon takes from the operating system's randomness at each start.
pub fn life_seed(seed: u64, node: u64, life: u64) -> [u8; 32] {
    derive(seed, "life", node, life)
}

fn derive(seed: u64, what: &str, node: u64, life: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(what);
    for word in [seed, node, life] {
        hasher.update(&word.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// One datagram leaving a host.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// Since the simulation began.
    pub at: Duration,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub contents: &'a [u8],
}

/// Sees every datagram that leaves a socket, lost ones too: the trace by which two runs are compared.
pub type Tap = Arc<dyn Fn(Sent<'_>) + Send + Sync>;

/// Binds a socket on the current host, whose address `addr` is.
///
/// # Errors
/// [`BindError::InUse`].
///
/// # Panics
/// Outside a simulation.
pub fn socket(addr: SocketAddr, tap: Option<Tap>) -> Result<Arc<dyn AsyncUdpSocket>, BindError> {
    socket_in(addr, tap, None)
}

/// The same, in some weather.
///
/// # Errors
/// [`BindError::InUse`].
///
/// # Panics
/// Outside a simulation.
pub fn socket_in(addr: SocketAddr, tap: Option<Tap>, weather: Option<Weather>) -> Result<Arc<dyn AsyncUdpSocket>, BindError> {
    // turmoil knows a host by its one address, and binds "any" to it
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), addr.port());
    let bound = UdpSocket::bind(any).now_or_never().expect("turmoil binds without waiting");
    let io = bound.map_err(|error| match error.kind() == io::ErrorKind::AddrInUse {
        true => BindError::InUse(addr),
        false => BindError::Io { addr, error },
    })?;
    Ok(Arc::new(SimSocket { io: Arc::new(io), readable: Mutex::new(None), local: addr, tap, weather }))
}

type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

struct SimSocket {
    io: Arc<UdpSocket>,
    /// Keeps the endpoint's driver woken for the next datagram.
    readable: Mutex<Option<Readable>>,
    local: SocketAddr,
    tap: Option<Tap>,
    weather: Option<Weather>,
}

impl SimSocket {
    /// One copy of a datagram, after a while.
    fn send(&self, contents: &[u8], to: SocketAddr, wait: Duration) {
        if wait.is_zero() {
            // what cannot be sent is lost: no such host, a full queue
            let _ = self.io.try_send_to(contents, to);
            return;
        }
        let (io, contents) = (self.io.clone(), contents.to_vec());
        // of the host's own runtime: what waits is gone with the host
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = io.try_send_to(&contents, to);
        });
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimSocket({})", self.local)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        debug_assert!(transmit.segment_size.is_none_or(|size| size >= transmit.contents.len()), "one datagram a call");
        let at = turmoil::sim_elapsed().unwrap_or_default();
        if let Some(tap) = &self.tap {
            tap(Sent { at, from: self.local, to: transmit.destination, contents: transmit.contents });
        }
        match &self.weather {
            None => self.send(transmit.contents, transmit.destination, Duration::ZERO),
            Some(weather) => {
                for wait in weather.fate(self.local.ip(), transmit.destination.ip(), at) {
                    self.send(transmit.contents, transmit.destination, wait);
                }
            }
        }
        Ok(())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let mut readable = self.readable.lock().expect("nothing panics with this lock held");
        loop {
            let waiting = readable.get_or_insert_with(|| {
                let io = self.io.clone();
                Box::pin(async move { io.readable().await })
            });
            let ready = waiting.as_mut().poll(cx);
            if ready.is_pending() {
                return Poll::Pending;
            }
            // it holds the socket's lock, which the next call takes
            *readable = None;
            match self.io.try_recv_from(&mut bufs[0]) {
                Ok((len, addr)) => {
                    meta[0] = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                    return Poll::Ready(Ok(1));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
