//! The API on the mesh: TLS 1.3 over TCP, and a port that is there only while somebody may come in by it.
//!
//! ```text
//! no token lives, no user exists   nothing listens
//! otherwise                        handshake -> certificate of a user?  yes: that user, judged by the ledger's view
//!                                                                       no:  may enrol, or show a token with a request
//! ```
//! The daemon decides when the port is open and whose certificate counts; here are only the socket and the bounds. A handshake
//! has a place among few and a short time, since whoever makes one is nobody yet.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use swarm_proto::{access::Caller, identity::Petition, limits};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

use crate::{
    mesh,
    server::{Accept, Visitor},
};

/// Between two tries to take the port.
const AGAIN: Duration = Duration::from_secs(1);

/// Who the owner of a certificate (DER) is, or why it is nobody. The certificate's authority was checked.
pub type Judge = Arc<dyn Fn(&[u8]) -> Result<Caller, String> + Send + Sync>;

/// While this holds a configuration, the port is open with it.
pub type Doorway = watch::Receiver<Option<Arc<ServerConfig>>>;

type Guest = (TlsStream<TcpStream>, Visitor);

/// The API's port on the mesh.
pub struct TlsSocket {
    addr: watch::Receiver<SocketAddr>,
    doorway: Doorway,
    judge: Judge,
    listener: Option<TcpListener>,
    is_told: bool,
    handshakes: JoinSet<Option<Guest>>,
}

impl TlsSocket {
    /// Nothing is bound before `doorway` says so. Where the host goes, `addr` goes.
    pub fn new(addr: watch::Receiver<SocketAddr>, doorway: Doorway, judge: Judge) -> Self {
        Self { addr, doorway, judge, listener: None, is_told: false, handshakes: JoinSet::new() }
    }

    /// Opens or closes the port as the daemon wants it now.
    async fn settle(&mut self) -> Option<Arc<ServerConfig>> {
        let config = self.doorway.borrow_and_update().clone();
        let addr = *self.addr.borrow_and_update();
        if self.listener.as_ref().is_some_and(|listener| listener.local_addr().is_ok_and(|bound| bound != addr && addr.port() != 0)) {
            self.listener = None;
        }
        if config.is_none() {
            self.listener = None;
        } else if self.listener.is_none() {
            match TcpListener::bind(addr).await {
                Ok(listener) => (self.listener, self.is_told) = (Some(listener), false),
                Err(error) => {
                    if !std::mem::replace(&mut self.is_told, true) {
                        tracing::warn!(%addr, %error, "the API's port on the mesh cannot be opened; it is tried again");
                    }
                }
            }
        }
        config
    }
}

impl Accept for TlsSocket {
    type Stream = TlsStream<TcpStream>;

    async fn accept(&mut self) -> io::Result<Guest> {
        loop {
            let config = self.settle().await;
            let has_room = self.handshakes.len() < limits::API_HANDSHAKES;
            tokio::select! {
                biased;
                Some(done) = self.handshakes.join_next(), if !self.handshakes.is_empty() => {
                    if let Ok(Some(guest)) = done {
                        return Ok(guest);
                    }
                }
                changed = self.doorway.changed() => if changed.is_err() {
                    self.listener = None;
                    std::future::pending().await
                },
                Ok(()) = self.addr.changed() => {}
                accepted = async { self.listener.as_ref().expect("guarded").accept().await }, if self.listener.is_some() && has_room => {
                    if let Some(config) = config {
                        let (stream, from) = accepted?;
                        self.handshakes.spawn(greet(stream, from.ip(), config, Arc::clone(&self.judge)));
                    }
                }
                () = sleep(AGAIN), if config.is_some() && self.listener.is_none() => {}
            }
        }
    }
}

async fn greet(stream: TcpStream, from: IpAddr, config: Arc<ServerConfig>, judge: Judge) -> Option<Guest> {
    let _ = stream.set_nodelay(true);
    let stream = match timeout(limits::HANDSHAKE_TIME, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake of the API failed");
            return None;
        }
        Err(_) => return None,
    };
    let session = stream.get_ref().1;
    let visitor = match session.peer_certificates().and_then(<[_]>::first) {
        Some(certificate) => {
            let certificate = certificate.to_vec();
            Visitor::Certified(Arc::new(move || judge(&certificate).map_err(mesh::nobody)))
        }
        None => match session.export_keying_material([0; 32], Petition::EXPORTER, None) {
            Ok(exporter) => Visitor::Unnamed { exporter, from },
            Err(error) => Visitor::Stranger(format!("the session cannot be named: {error}")),
        },
    };
    Some((stream, visitor))
}
