//! Stock quinn: its own settings, one stream of zeros from memory, thrown away where it comes.

use std::{net::SocketAddr, sync::Arc, thread};

use anyhow::Context as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{Run, usage::Meter};

const PIECE: usize = 1 << 20;

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Both speak TLS 1.3 with AES-GCM, as ours do.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub(crate) fn run(size: u64) -> anyhow::Result<Run> {
    let made = rcgen::generate_simple_self_signed(vec!["bench".into()])?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let (tx, bound) = std::sync::mpsc::channel::<SocketAddr>();
    let served = certificate.clone();
    let server = thread::spawn(move || -> anyhow::Result<()> {
        runtime()?.block_on(async {
            let tls = rustls::ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_no_client_auth()
                .with_single_cert(vec![served], key)?;
            let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
            let endpoint = quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into())?;
            tx.send(endpoint.local_addr()?)?;
            let connection = endpoint.accept().await.context("nobody came")?.await?;
            let mut stream = connection.open_uni().await?;
            let zeros = bytes::Bytes::from(vec![0; PIECE]);
            let mut left = size;
            while left > 0 {
                let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                stream.write_chunk(zeros.slice(..piece)).await?;
                left -= piece as u64;
            }
            stream.finish()?;
            connection.closed().await;
            Ok(())
        })
    });
    let addr = bound.recv()?;
    let run = receive(addr, certificate, size)?;
    server.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(run)
}

fn receive(addr: SocketAddr, certificate: CertificateDer<'static>, size: u64) -> anyhow::Result<Run> {
    runtime()?.block_on(async {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate)?;
        let tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into())?;
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let connection = endpoint.connect_with(config, addr, "bench")?.await?;
        let meter = Meter::start();
        let mut stream = connection.accept_uni().await?;
        let mut got = 0;
        while let Some(chunk) = stream.read_chunk(PIECE, true).await? {
            got += chunk.bytes.len() as u64;
        }
        anyhow::ensure!(got == size, "{got} of {size} bytes came");
        let run = meter.stop();
        connection.close(0u32.into(), b"");
        endpoint.wait_idle().await;
        Ok(run)
    })
}
