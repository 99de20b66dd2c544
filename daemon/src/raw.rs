//! Stock quinn: its own settings, one stream of zeros from memory, thrown away where it comes.
//!
//! What `swarmctl bench blob` and `swarm-bench` measure a transfer beside, in the same run: no disk, no hash, and no more than quinn's
//! own ten packets a call to the kernel. Each side has a thread and a runtime of its own, as in a daemon. It is here because this
//! program has quinn in it anyway, and swarmctl has not.

use std::{
    error::Error,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use swarm_proto::{Code, Problem};

/// Sent and taken at a time.
const PIECE: usize = 1 << 20;

/// Options of `swarmd stock-quic`.
#[derive(clap::Args)]
pub struct Args {
    /// Bytes.
    #[arg(long, value_name = "SIZE", value_parser = mesh_config::parse_bytes)]
    size: u64,
}

/// Why it did not get there.
pub type Fault = Box<dyn Error + Send + Sync>;

/// Where a sender waits, and how it is known.
pub struct Place {
    addr: SocketAddr,
    certificate: CertificateDer<'static>,
}

/// Prints how many seconds [`run`] took.
///
/// # Errors
/// As [`run`], or nobody reads.
pub fn main(args: &Args) -> Result<(), Problem> {
    let told = run(args.size).and_then(|took| Ok(writeln!(std::io::stdout().lock(), "{}", took.as_secs_f64())?));
    told.map_err(|fault| Problem::new(Code::Internal, "stock QUIC is not measured", fault.to_string()))
}

/// Sends so many bytes from this process to itself over loopback; how long that took, without the handshake.
///
/// # Errors
/// No socket, or a connection that broke.
pub fn run(size: u64) -> Result<Duration, Fault> {
    let at = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (tx, bound) = mpsc::channel();
    let sender = thread::spawn(move || {
        send(at, size, |place| {
            // nobody waits for it any more when this fails
            let _ = tx.send(place);
        })
    });
    let took = bound.recv().map(|place| receive(at, &place, size));
    match took {
        // it waits for nobody then, so it is not waited for
        Ok(Err(fault)) => Err(fault),
        took => {
            sender.join().map_err(|_| "the sender panicked")??;
            took?
        }
    }
}

/// Waits for one receiver at an address of this host, sends it so many zeros and returns when it has closed the connection.
///
/// # Errors
/// No socket, or a connection that broke.
pub fn send(at: IpAddr, size: u64, ready: impl FnOnce(Place)) -> Result<(), Fault> {
    let made = rcgen::generate_simple_self_signed(vec!["bench".into()])?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    runtime()?.block_on(async {
        let endpoint = quinn::Endpoint::server(config, (at, 0).into())?;
        ready(Place { addr: endpoint.local_addr()?, certificate });
        let connection = endpoint.accept().await.ok_or("nobody came")?.await?;
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
}

/// Takes what a sender sends, from an address of this host; how long that took, without the handshake.
///
/// # Errors
/// No socket, a connection that broke, or another number of bytes.
pub fn receive(at: IpAddr, from: &Place, size: u64) -> Result<Duration, Fault> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(from.certificate.clone())?;
    let tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    runtime()?.block_on(async {
        let endpoint = quinn::Endpoint::client((at, 0).into())?;
        let connection = endpoint.connect_with(config, from.addr, "bench")?.await?;
        let began = Instant::now();
        let mut stream = connection.accept_uni().await?;
        let mut got = 0;
        while let Some(chunk) = stream.read_chunk(PIECE, true).await? {
            got += chunk.bytes.len() as u64;
        }
        let took = began.elapsed();
        if got != size {
            return Err(format!("{got} of {size} bytes came").into());
        }
        connection.close(0u32.into(), b"");
        endpoint.wait_idle().await;
        Ok(took)
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// TLS 1.3 with AES-GCM, as the daemons speak it.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_zeros_come() {
        assert!(run(3 << 20).expect("they get through") > Duration::ZERO);
    }
}
