//! Mutual TLS 1.3 between nodes, and nothing else: no older version, no ticket, no early data.
//!
//! Resumption would skip the check of the client's certificate, and early data can be replayed; both are off at both ends.
//! The one server name is fixed, because an address proves nothing and the key is the identity. TLS judges no time: "not before"
//! never counts (a machine without a clock starts in 1970 and must get in), and whether a certificate has ended is judged once the
//! plane is known, since a node that slept too long may still ask for a new one. `handshake.rs` does that.

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ClientHello, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    time_provider::TimeProvider,
    version::TLS13,
};
use swarm_proto::UnixMillis;

use crate::{
    identity::{Identity, IdentityError, Leaf, Paper},
    noise::Noise,
    plane::{Plane, Realm},
};

/// The name in every node's certificate.
pub const SERVER_NAME: &str = "swarm";

/// Where wall time comes from; judges the end of certificates and nothing else. It may be corrected by what the swarm says.
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

/// What connections are secured with: aws-lc, AES-128 first: half the rounds, and every path here has a fresh key a connection. Its key
/// exchange begins with the post-quantum hybrid X25519MLKEM768.
pub fn crypto() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    Arc::new(provider)
}

/// Which swarm, in which versions of its protocol, and secured with what.
#[derive(Clone, Debug)]
pub(crate) struct Tongue {
    pub(crate) realm: Realm,
    pub(crate) protocols: RangeInclusive<u16>,
    pub(crate) crypto: Arc<CryptoProvider>,
}

impl Tongue {
    fn alpns(&self, plane: Plane) -> Vec<Vec<u8>> {
        plane.alpns(&self.protocols, self.realm)
    }
}

pub(crate) fn server(identity: &Identity, tongue: &Tongue, planes: &[Plane], clock: &Clock) -> Result<ServerConfig, IdentityError> {
    let alpn: Vec<_> = planes.iter().flat_map(|plane| tongue.alpns(*plane)).collect();
    let resolver = Arc::new(Certificates { shown: Shown::new(identity)?, alpn: alpn.clone(), noise: Noise::default() });
    let mut config = ServerConfig::builder_with_details(tongue.crypto.clone(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&TLS13])
        .map_err(mismatch)?
        .with_client_cert_verifier(Arc::new(Judge::new(identity.roots())?))
        .with_cert_resolver(resolver);
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = alpn;
    Ok(config)
}

pub(crate) fn client(identity: &Identity, tongue: &Tongue, plane: Plane, clock: &Clock) -> Result<ClientConfig, IdentityError> {
    let mut config = ClientConfig::builder_with_details(tongue.crypto.clone(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&TLS13])
        .map_err(mismatch)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Judge::new(identity.roots())?))
        .with_client_cert_resolver(Arc::new(Shown::new(identity)?));
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config.alpn_protocols = tongue.alpns(plane);
    Ok(config)
}

/// What the API on the mesh is served with: this node's certificate with its authority, so that whoever holds a token can compare
/// the pin; and a certificate of `users`' authorities if the other side has one.
///
/// # Errors
/// [`IdentityError::Mismatch`].
pub fn api_server(identity: &Identity, users: &[impl AsRef<[u8]>]) -> Result<Arc<ServerConfig>, IdentityError> {
    let builder = ServerConfig::builder_with_provider(crypto()).with_protocol_versions(&[&TLS13]).map_err(mismatch)?;
    let users: Vec<_> = users.iter().map(|root| CertificateDer::from(root.as_ref().to_vec())).collect();
    let builder = if users.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_verifier(Arc::new(Guests(Judge::new(&users)?)))
    };
    let key = aws_lc_rs::sign::any_eddsa_type(&identity.key().pkcs8()).map_err(mismatch)?;
    let certified = Arc::new(CertifiedKey::new(identity.chain(), key));
    let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Whether `certificate` is signed by `root`, whatever the time.
pub(crate) fn check_issued(certificate: &CertificateDer<'_>, root: &CertificateDer<'static>) -> Result<(), String> {
    let judge = Judge::new(std::slice::from_ref(root)).map_err(|e| e.to_string())?;
    let start = UnixTime::since_unix_epoch(Duration::ZERO);
    judge.verify_client_cert(certificate, &[], start).map(|_| ()).map_err(|e| e.to_string())
}

fn mismatch(error: impl fmt::Display) -> IdentityError {
    IdentityError::Mismatch(error.to_string())
}

fn certified(identity: &Identity, paper: &Paper) -> Result<CertifiedKey, IdentityError> {
    let key = aws_lc_rs::sign::any_eddsa_type(&identity.key().pkcs8()).map_err(mismatch)?;
    Ok(CertifiedKey::new(vec![paper.certificate.clone()], key))
}

/// Our certificates by who issued them, the newest first. There are two while an authority is being replaced.
#[derive(Debug)]
struct Shown(Vec<(Vec<u8>, Arc<CertifiedKey>)>);

impl Shown {
    fn new(identity: &Identity) -> Result<Self, IdentityError> {
        let shown = identity.papers().iter().map(|paper| Ok((paper.issuer.clone(), Arc::new(certified(identity, paper)?))));
        shown.collect::<Result<_, IdentityError>>().map(Self)
    }

    /// The newest that the other side says it can judge; the newest of all if it does not say, or none fits.
    fn choose<'a>(&self, believed: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Arc<CertifiedKey>> {
        let fits = |issuer: &[u8]| believed.clone().any(|name| name == issuer);
        self.0.iter().find(|(issuer, _)| fits(issuer)).or(self.0.first()).map(|(_, certified)| certified.clone())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, believed: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.choose(believed.iter().copied())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Shows a certificate, and names in the log what a client wanted that we do not serve: TLS itself only tells both sides that
/// they have no protocol in common.
#[derive(Debug)]
struct Certificates {
    shown: Shown,
    alpn: Vec<Vec<u8>>,
    noise: Noise,
}

impl ResolvesServerCert for Certificates {
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
        self.shown.choose(hello.certificate_authorities().unwrap_or_default().iter().map(AsRef::as_ref))
    }
}

/// Judges peers, on both sides, by the authorities that are believed, and by nothing else.
#[derive(Debug)]
pub(crate) struct Judge {
    of_clients: Arc<dyn ClientCertVerifier>,
    of_servers: Arc<WebPkiServerVerifier>,
    names: Vec<DistinguishedName>,
}

impl Judge {
    pub(crate) fn new(believed: &[CertificateDer<'static>]) -> Result<Self, IdentityError> {
        let mut roots = RootCertStore::empty();
        for root in believed {
            roots.add(root.clone()).map_err(mismatch)?;
        }
        let names = roots.subjects();
        let roots = Arc::new(roots);
        Ok(Self {
            names,
            of_clients: WebPkiClientVerifier::builder_with_provider(roots.clone(), crypto()).build().map_err(mismatch)?,
            of_servers: WebPkiServerVerifier::builder_with_provider(roots, crypto()).build().map_err(mismatch)?,
        })
    }

    /// Bounds what is parsed, and answers a time at which the certificate is good.
    fn admit(leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<UnixTime, rustls::Error> {
        if !above.is_empty() {
            return Err(rustls::Error::General("a node's certificate comes from the CA itself".to_owned()));
        }
        match Leaf::parse(leaf) {
            Ok(leaf) => Ok(leaf.not_before),
            Err(e) => Err(rustls::Error::General(e.to_string())),
        }
    }
}

fn only_tls13() -> rustls::Error {
    rustls::Error::General("only TLS 1.3 is spoken here".to_owned())
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.names
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.of_clients.verify_client_cert(leaf, &[], Self::admit(leaf, above)?)
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
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.of_servers.verify_server_cert(leaf, &[], name, ocsp, Self::admit(leaf, above)?)
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

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.names)
    }
}

/// A judge of people, who may as well be nobody.
#[derive(Debug)]
struct Guests(Judge);

impl ClientCertVerifier for Guests {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.0.names
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.verify_client_cert(leaf, above, now)
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
        ClientCertVerifier::verify_tls13_signature(&self.0, message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
