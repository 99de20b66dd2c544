//! Somebody who is no daemon: ends of connections with whatever papers a test gives them.
//!
//! [`Intruder`] speaks as a node does, with the house's own transport. [`Raw`] goes below it: it believes every server, shows a
//! certificate whether it has the key or not, and keeps every session ticket that it is given.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::{
    DigitallySignedStruct, DistinguishedName, NamedGroup, SignatureScheme,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, ResolvesClientCert, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use swarm_proto::{
    ClusterId, NodeId, PROTOCOL, PeerKey, Problem, frame,
    ledger::Addrs,
    peer::{Hello, Open},
};
use swarm_transport::{
    BindSpec, Dial, DialError, Doorkeeper, Endpoint, FrameRx, FrameTx, Identity, Peer, Plane, Realm, SERVER_NAME, SecretKey, machine_clock,
    udp_socket,
};

use crate::Host;

/// A swarm that was never recovered.
pub const fn realm(cluster: ClusterId) -> Realm {
    Realm { cluster, epoch: 0 }
}

/// The control and the bulk endpoint of a daemon with the usual ports.
pub fn addrs(ip: IpAddr) -> Addrs {
    Addrs { control: SocketAddr::new(ip, 4747), bulk: SocketAddr::new(ip, 4748) }
}

/// Where a plane of a daemon is served.
pub fn place(host: &Host, plane: Plane) -> SocketAddr {
    let Addrs { control, bulk } = addrs(host.ip);
    if plane == Plane::Bulk { bulk } else { control }
}

/// What somebody says who claims to be `node`, and to listen at `ip`.
pub fn hello(cluster: ClusterId, node: Option<NodeId>, ip: IpAddr) -> Hello {
    Hello { protocol: PROTOCOL, cluster, node, name: "intruder".into(), addrs: addrs(ip), life: 1 }
}

/// Says yes to everybody, and hears nobody.
struct Nobody;

impl Doorkeeper for Nobody {
    fn admit(&self, _: &PeerKey, hello: &Hello, _: Plane) -> Result<Option<NodeId>, Problem> {
        Ok(hello.node)
    }

    fn stream(&self, _: Peer, _: Open, _: FrameTx, _: FrameRx) {}

    fn datagram(&self, _: &Peer, _: Bytes) {}
}

/// An end of the house's own transport that is no daemon.
pub struct Intruder {
    pub endpoint: Endpoint,
}

impl Intruder {
    /// Speaks with this identity from `hello`'s address, at a port of its own.
    ///
    /// # Panics
    /// It cannot be bound.
    pub fn bind(identity: Identity, hello: Hello) -> Self {
        let socket = udp_socket(SocketAddr::new(hello.addrs.control.ip(), 0)).expect("a socket");
        let spec = BindSpec {
            socket,
            runtime: Arc::new(quinn::TokioRuntime),
            identity: Arc::new(identity),
            realm: realm(hello.cluster),
            protocols: PROTOCOL..=PROTOCOL,
            crypto: swarm_transport::crypto(),
            seed: SecretKey::generate().expect("a key").peer_key().0,
            planes: Plane::ALL.to_vec(),
            wall: machine_clock(),
        };
        let endpoint = Endpoint::bind(spec, Arc::new(move || hello.clone()), Arc::new(Nobody)).expect("an endpoint");
        Self { endpoint }
    }

    /// With what lies in a node's state directory.
    ///
    /// # Panics
    /// Nothing usable lies there.
    pub fn with_papers_of(state: &Path, hello: Hello) -> Self {
        Self::bind(Identity::load(state).expect("an identity"), hello)
    }

    /// Dials, waiting out the pool's own patience with a target that has refused before: the answer is the target's.
    ///
    /// # Errors
    /// What the target says.
    pub async fn dial(&self, host: &Host, plane: Plane) -> Result<swarm_transport::Connection, DialError> {
        self.dial_at(place(host, plane), plane).await
    }

    /// The same, where somebody passes on what is sent to a daemon.
    ///
    /// # Errors
    /// What the target says.
    pub async fn dial_at(&self, addr: SocketAddr, plane: Plane) -> Result<swarm_transport::Connection, DialError> {
        loop {
            match self.endpoint.pool().get(plane, &Dial::seed(addr)).await {
                Err(DialError::BackingOff { next, .. }) => tokio::time::sleep_until(next).await,
                answer => return answer,
            }
        }
    }
}

/// Session tickets, counted as they come in.
#[derive(Debug)]
pub struct Tickets {
    cache: ClientSessionMemoryCache,
    given: AtomicUsize,
}

impl Tickets {
    /// How many a server gave.
    pub fn given(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }
}

impl Default for Tickets {
    fn default() -> Self {
        Self { cache: ClientSessionMemoryCache::new(256), given: AtomicUsize::new(0) }
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.cache.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.cache.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.cache.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.cache.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.cache.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.given.fetch_add(1, Ordering::SeqCst);
        self.cache.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.cache.take_tls13_ticket(server_name)
    }
}

/// A certificate and a key that need not belong together.
#[derive(Clone, Debug)]
pub struct Shown(Arc<CertifiedKey>);

impl Shown {
    /// Shows `certificate`, and signs with `key`.
    ///
    /// # Panics
    /// The key is none.
    pub fn new(certificate: CertificateDer<'static>, key: &PrivatePkcs8KeyDer<'_>) -> Self {
        let key = aws_lc_rs::sign::any_eddsa_type(key).expect("an Ed25519 key");
        Self(Arc::new(CertifiedKey::new(vec![certificate], key)))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Believes whoever answers.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

/// A QUIC client that keeps what it is given and knows no manners.
pub struct Raw {
    endpoint: quinn::Endpoint,
    pub tickets: Arc<Tickets>,
}

impl Raw {
    /// Shows what it is told to, on one plane of a swarm.
    ///
    /// # Panics
    /// No port is free.
    pub fn new(shown: Option<Shown>, alpn: Vec<u8>) -> Self {
        let tickets = Arc::new(Tickets::default());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Credulous));
        let mut config = match shown {
            Some(shown) => builder.with_client_cert_resolver(Arc::new(shown)),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::store(tickets.clone());
        config.enable_early_data = true;
        config.alpn_protocols = vec![alpn];
        let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port");
        let crypto = QuicClientConfig::try_from(config).expect("QUIC takes TLS 1.3");
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        Self { endpoint, tickets }
    }

    /// The handshake alone.
    ///
    /// # Errors
    /// Why there is none, in QUIC's words.
    pub async fn shake_hands(&self, addr: SocketAddr) -> Result<quinn::Connection, quinn::ConnectionError> {
        self.begin(addr).await
    }

    /// The handshake's beginning: it goes on by itself for as long as this is held.
    ///
    /// # Panics
    /// The address is none.
    pub fn begin(&self, addr: SocketAddr) -> quinn::Connecting {
        self.endpoint.connect(addr, SERVER_NAME).expect("an address")
    }

    /// Connections that were begun and have not ended.
    pub fn open(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// The handshake and the Hello: a connection only where it was answered.
    ///
    /// # Errors
    /// Why it was not, in the other side's words.
    pub async fn knock(&self, addr: SocketAddr, hello: &Hello) -> Result<quinn::Connection, String> {
        let connection = self.shake_hands(addr).await.map_err(|e| e.to_string())?;
        let answered = async {
            let (mut tx, mut rx) = connection.open_bi().await.map_err(|e| e.to_string())?;
            tx.write_all(&frame::encode_control(hello).expect("a Hello is short")).await.map_err(|e| e.to_string())?;
            tx.finish().map_err(|e| e.to_string())?;
            rx.read_to_end(64 << 10).await.map_err(|e| e.to_string())
        };
        match answered.await {
            // behind the length, the variant of a Result
            Ok(answer) if answer.get(4) == Some(&0) => Ok(connection),
            Ok(answer) => {
                let said = frame::decode::<Result<Hello, Problem>>(answer.get(4..).unwrap_or_default());
                Err(said.map_or_else(|e| e.to_string(), |said| said.expect_err("not a Hello").to_string()))
            }
            // what became of the connection says more than what became of the stream
            Err(error) => Err(connection.close_reason().map_or(error, |reason| reason.to_string())),
        }
    }
}

/// The certificate that the other side of a connection showed.
///
/// # Panics
/// It showed none.
pub fn certificate_of(connection: &quinn::Connection) -> CertificateDer<'static> {
    let shown = connection.peer_identity().expect("a server shows a certificate");
    shown.downcast::<Vec<CertificateDer<'static>>>().expect("rustls").swap_remove(0)
}
