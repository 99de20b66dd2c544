//! Mutual TLS 1.3 between nodes, and nothing else: no older version, no ticket, no early data.
//!
//! Resumption would skip the check of the client's certificate, and early data can be replayed; both are off at both ends.
//! The one server name is fixed, because an address proves nothing and the key is the identity. The clock that judges
//! certificates is handed in. "Not before" is not judged: a machine without a clock starts in 1970 and must get in, and
//! a certificate from the future of such a machine harms nobody.

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
    version::TLS13,
};
use swarm_proto::{ClusterId, UnixMillis};

use crate::{
    identity::{Identity, IdentityError, Leaf},
    noise::Noise,
    plane::Plane,
};

/// The name in every node's certificate.
pub const SERVER_NAME: &str = "swarm";

/// Where wall time comes from; judges the end of certificates and nothing else.
pub type WallClock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// The wall clock of the machine.
pub fn machine_clock() -> WallClock {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    })
}

#[derive(Clone)]
pub(crate) struct Clock(pub(crate) WallClock);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis((self.0)().0)))
    }
}

impl quinn::TimeSource for Clock {
    fn now(&self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + Duration::from_millis((self.0)().0)
    }
}

/// The default provider, AES-128 first: half the rounds, and every path here has a fresh key a connection. Its key exchange
/// begins with the post-quantum hybrid X25519MLKEM768.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    Arc::new(provider)
}

/// Which swarm, and in which versions of its protocol.
#[derive(Clone, Debug)]
pub(crate) struct Tongue {
    pub(crate) cluster: ClusterId,
    pub(crate) protocols: RangeInclusive<u16>,
}

impl Tongue {
    fn alpns(&self, plane: Plane) -> Vec<Vec<u8>> {
        plane.alpns(&self.protocols, self.cluster)
    }
}

pub(crate) fn server(identity: &Identity, tongue: &Tongue, planes: &[Plane], clock: &Clock) -> Result<ServerConfig, IdentityError> {
    let alpn: Vec<_> = planes.iter().flat_map(|plane| tongue.alpns(*plane)).collect();
    let resolver = Arc::new(OneCertificate { certified: Arc::new(certified(identity)?), alpn: alpn.clone(), noise: Noise::default() });
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&TLS13])
        .map_err(mismatch)?
        .with_client_cert_verifier(Arc::new(Judge::new(identity.root())?))
        .with_cert_resolver(resolver);
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = alpn;
    Ok(config)
}

pub(crate) fn client(identity: &Identity, tongue: &Tongue, plane: Plane, clock: &Clock) -> Result<ClientConfig, IdentityError> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&TLS13])
        .map_err(mismatch)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Judge::new(identity.root())?))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified(identity)?)));
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config.alpn_protocols = tongue.alpns(plane);
    Ok(config)
}

/// Whether `certificate` is signed by `root`, whatever the time.
pub(crate) fn check_issued(certificate: &CertificateDer<'_>, root: &CertificateDer<'static>) -> Result<(), String> {
    let judge = Judge::new(root).map_err(|e| e.to_string())?;
    let start = UnixTime::since_unix_epoch(Duration::ZERO);
    judge.verify_client_cert(certificate, &[], start).map(|_| ()).map_err(|e| e.to_string())
}

fn mismatch(error: impl fmt::Display) -> IdentityError {
    IdentityError::Mismatch(error.to_string())
}

fn certified(identity: &Identity) -> Result<CertifiedKey, IdentityError> {
    let key = aws_lc_rs::sign::any_eddsa_type(&identity.key().pkcs8()).map_err(mismatch)?;
    Ok(CertifiedKey::new(vec![identity.certificate().clone()], key))
}

/// Shows our one certificate, and names in the log what a client wanted that we do not serve: TLS itself only tells both
/// sides that they have no protocol in common.
#[derive(Debug)]
struct OneCertificate {
    certified: Arc<CertifiedKey>,
    alpn: Vec<Vec<u8>>,
    noise: Noise,
}

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered: Vec<&[u8]> = hello.alpn().into_iter().flatten().take(8).collect();
        if !offered.iter().any(|one| self.alpn.iter().any(|ours| ours == one))
            && let Some(unsaid) = self.noise.may_speak()
        {
            let words = |list: &[&[u8]]| list.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" ");
            let ours: Vec<&[u8]> = self.alpn.iter().map(Vec::as_slice).collect();
            tracing::warn!(
                offered = words(&offered),
                served = words(&ours),
                unsaid,
                "a client of another swarm, version or kind is refused"
            );
        }
        Some(self.certified.clone())
    }
}

/// Judges peers, on both sides, by the swarm's CA alone.
#[derive(Debug)]
struct Judge {
    of_clients: Arc<dyn ClientCertVerifier>,
    of_servers: Arc<WebPkiServerVerifier>,
}

impl Judge {
    fn new(root: &CertificateDer<'static>) -> Result<Self, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).map_err(mismatch)?;
        let roots = Arc::new(roots);
        Ok(Self {
            of_clients: WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build().map_err(mismatch)?,
            of_servers: WebPkiServerVerifier::builder_with_provider(roots, provider()).build().map_err(mismatch)?,
        })
    }

    /// Bounds what is parsed, and answers when the certificate is to be judged: never before it began.
    fn admit(leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>], now: UnixTime) -> Result<UnixTime, rustls::Error> {
        if !above.is_empty() {
            return Err(rustls::Error::General("a node's certificate comes from the CA itself".to_owned()));
        }
        match Leaf::parse(leaf) {
            Ok(leaf) => Ok(now.max(leaf.not_before)),
            Err(e) => Err(rustls::Error::General(e.to_string())),
        }
    }
}

fn only_tls13() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken here".to_owned())
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.of_clients.verify_client_cert(leaf, &[], Self::admit(leaf, above, now)?)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.of_clients.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.of_servers.verify_server_cert(leaf, &[], name, ocsp, Self::admit(leaf, above, now)?)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.of_servers.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
