//! The UDP socket under an endpoint: the real one, and the watch on any of them that tells whether it is drained.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, Runtime as _, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};

mod batched;
mod plain;

use self::{batched::Batched, plain::Plain};
use crate::identity::IdentityError;

/// Why an endpoint cannot be had. Nothing was bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// 0.0.0.0 or `::`: only mesh addresses are bound.
    #[error("{0} means every interface of this host; name the address of the mesh")]
    Unspecified(SocketAddr),
    /// Somebody listens there already.
    #[error("{0} is in use, perhaps by another swarmd")]
    InUse(SocketAddr),
    /// The address is not (yet) one of this host's; on a mesh it may come later.
    #[error("{0} is not an address of this host; is the mesh interface up?")]
    NotHere(SocketAddr),
    /// This user may not bind the port.
    #[error("{0} may not be bound by this user")]
    Denied(SocketAddr),
    /// Anything else the system says.
    #[error("cannot bind {addr}: {error}")]
    Io {
        /// Where.
        addr: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The socket cannot be served.
    #[error("cannot start the endpoint: {0}")]
    Endpoint(io::Error),
}

/// Binds a UDP socket for an endpoint. Port 0 takes any free one. Needs a tokio runtime with I/O.
///
/// # Errors
/// All of [`BindError`] but the last two.
pub fn udp_socket(addr: SocketAddr) -> Result<Arc<dyn AsyncUdpSocket>, BindError> {
    if addr.ip().is_unspecified() {
        return Err(BindError::Unspecified(addr));
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "the list of kinds is the standard library's, and open")]
    let named = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(addr),
        io::ErrorKind::AddrNotAvailable => BindError::NotHere(addr),
        io::ErrorKind::PermissionDenied => BindError::Denied(addr),
        _ => BindError::Io { addr, error },
    };
    let socket = UdpSocket::bind(addr).map_err(named)?;
    widen(&socket);
    let spare = socket.try_clone().map_err(named)?;
    match TokioRuntime.wrap_udp_socket(socket) {
        Ok(socket) => Ok(socket),
        Err(error) => {
            tracing::warn!(%addr, %error, "the system refuses a fast UDP socket; a plain one is slower and carries the same");
            Plain::new(spare).map(|plain| Arc::new(plain) as Arc<dyn AsyncUdpSocket>).map_err(named)
        }
    }
}

/// What the kernel may hold of what arrives while this process waits for a core. What does not fit is lost, which a sender takes for
/// a path that is full.
const ARRIVING: usize = 4 << 20;

/// Asks for as much as the system gives: on Linux up to `net.core.rmem_max`. What leaves keeps the system's own small buffer: what
/// waits in a queue of this host delays each acknowledgement that goes the other way, and so whoever sends to this node.
fn widen(socket: &UdpSocket) {
    if let Err(error) = socket2::SockRef::from(socket).set_recv_buffer_size(ARRIVING) {
        tracing::debug!(%error, "the socket keeps its own buffer");
    }
}

/// Remembers whether the last look at a socket found it empty.
pub(crate) struct Watched {
    inner: Arc<dyn AsyncUdpSocket>,
    is_drained: AtomicBool,
}

impl Watched {
    /// `is_bulk`: what is sent may wait for company. Needs a tokio runtime.
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, is_bulk: bool) -> Self {
        let inner = if is_bulk { Batched::over(inner) } else { inner };
        Self { inner, is_drained: AtomicBool::new(false) }
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.is_drained.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl AsyncUdpSocket for Watched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> Poll<io::Result<usize>> {
        let got = self.inner.poll_recv(cx, bufs, meta);
        self.is_drained.store(got.is_pending(), Ordering::Release);
        got
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_wrong_address_has_its_own_words() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let first = udp_socket(any).unwrap();
        let taken = first.local_addr().unwrap();
        assert!(matches!(udp_socket(taken), Err(BindError::InUse(addr)) if addr == taken));
        assert!(matches!(udp_socket("192.0.2.1:0".parse().unwrap()), Err(BindError::NotHere(_))));
        assert!(matches!(udp_socket("0.0.0.0:0".parse().unwrap()), Err(BindError::Unspecified(_))));
        assert!(matches!(udp_socket("[::]:0".parse().unwrap()), Err(BindError::Unspecified(_))));
    }
}
