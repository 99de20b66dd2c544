//! The API of a daemon elsewhere: TCP and TLS 1.3, and who must be at the other end.
//!
//! **Before a byte of a request is sent** the other side has shown a certificate that leads to an authority that we know: by the
//! pin of a token, or by the authorities that a login left here. Time is not judged, a host without a clock must get in; an
//! address proves nothing, so the one name in every node's certificate is the same.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    version::TLS13,
};
use swarm_proto::{Code, Problem, identity::Petition, token::pin};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long a connection may take to be there.
const CONNECT: Duration = Duration::from_secs(5);
/// The name in every node's certificate.
const NAME: &str = "swarm";

/// Whom the other side must be vouched for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The authority whose certificate has this hash.
    Pin([u8; 32]),
    /// One of these authorities. DER.
    Roots(Vec<Vec<u8>>),
    /// Any authority: the mesh vouches for whoever has the address, and there for this one, which is our own.
    Address { own: IpAddr },
}

/// A certificate of ours, and its key. DER.
#[derive(Clone)]
pub struct OwnCertificate {
    pub certificate: Vec<u8>,
    /// PKCS#8.
    pub key: Vec<u8>,
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnCertificate")
    }
}

/// A session: the stream, and what names it on both sides and nowhere else.
pub struct Session {
    pub stream: TlsStream<TcpStream>,
    pub exporter: [u8; 32],
}

/// Connects to `host:port`.
///
/// # Errors
/// [`Code::NoDaemon`] when nobody answers, [`Code::Denied`] when it is somebody else than it should be.
pub async fn connect(address: &str, trust: &Trust, own: Option<&OwnCertificate>) -> Result<Session, Problem> {
    let what = || format!("swarmd cannot be reached at {address}");
    let silent =
        |why: String| Problem::new(Code::NoDaemon, what(), why).hint("is the mesh up on both hosts, and does the port pass the firewall?");
    let config = config(trust, own).map_err(|e| Problem::new(Code::Internal, what(), e.to_string()))?;
    let stream = match timeout(CONNECT, dial(address, trust)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(silent(error.to_string())),
        Err(_) => return Err(silent(format!("nothing within {} s", CONNECT.as_secs()))),
    };
    let _ = stream.set_nodelay(true);
    let name = ServerName::try_from(NAME).expect("a word is a name");
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = match timeout(CONNECT, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err(Problem::new(Code::Denied, format!("at {address} is not the swarm that was meant"), error.to_string())
                .hint("if the swarm's authority was replaced (ca rotate), ask an admin for a new line"));
        }
        Err(_) => return Err(silent("it does not finish the handshake".into())),
    };
    let exported = stream.get_ref().1.export_keying_material([0; 32], Petition::EXPORTER, None);
    let exporter = exported.map_err(|e| Problem::new(Code::Internal, what(), e.to_string()))?;
    Ok(Session { stream, exporter })
}

async fn dial(address: &str, trust: &Trust) -> io::Result<TcpStream> {
    let Trust::Address { own } = trust else { return TcpStream::connect(address).await };
    let to = address.parse().map_err(io::Error::other)?;
    let socket = if own.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(SocketAddr::new(*own, 0))?;
    socket.connect(to).await
}

fn config(trust: &Trust, own: Option<&OwnCertificate>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Judge { trust: trust.clone(), provider }));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::try_from(own.key.clone()).map_err(|e| rustls::Error::General(e.to_owned()))?;
            builder.with_client_auth_cert(vec![own.certificate.clone().into()], key)?
        }
    };
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Finds the authority that vouches for the other side.
#[derive(Debug)]
struct Judge {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Judge {
    fn authorities(&self, above: &[CertificateDer<'_>]) -> Vec<CertificateDer<'static>> {
        match &self.trust {
            Trust::Pin(wanted) => above.iter().filter(|one| pin(one) == *wanted).map(|one| one.clone().into_owned()).collect(),
            Trust::Address { .. } => above.iter().map(|one| one.clone().into_owned()).collect(),
            Trust::Roots(roots) => roots.iter().map(|root| root.clone().into()).collect(),
        }
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
        let mut roots = RootCertStore::empty();
        for authority in self.authorities(above) {
            roots.add(authority)?;
        }
        if roots.is_empty() {
            return Err(rustls::Error::General("it shows another authority than the one that is trusted".into()));
        }
        let parsed = X509Certificate::from_der(leaf).map_err(|e| rustls::Error::General(e.to_string()))?.1;
        let began = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0);
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        judge.verify_server_cert(leaf, &[], name, ocsp, UnixTime::since_unix_epoch(Duration::from_secs(began)))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
