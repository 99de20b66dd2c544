//! For `tests/fuzz`: what a peer shows and says, given as bytes.

use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier as _,
};
use swarm_proto::{Problem, frame::FrameError, peer::Hello};

use crate::{
    Identity, IdentityError, SecretKey,
    frames::Deframer,
    handshake,
    identity::files::{certificates_in, pem_of},
    tls::Judge,
    with_check,
};

/// Takes the frames of a stream that comes in pieces of that length, and how many bytes are left behind them.
///
/// # Errors
/// A frame is longer than `limit`.
pub fn frames(stream: &[u8], piece: usize, limit: usize, mut each: impl FnMut(&[u8])) -> Result<usize, FrameError> {
    let mut frames = Deframer::new(limit);
    for piece in stream.chunks(piece.max(1)) {
        frames.push(piece);
        while let Some(body) = frames.take()? {
            each(body);
        }
    }
    Ok(frames.len())
}

/// The body of a Hello.
///
/// # Errors
/// Why it is refused.
pub fn hello(body: &[u8], ours: &Hello) -> Result<Hello, Problem> {
    handshake::read_hello(body, ours)
}

/// What judges the peers of a node that believes this authority.
pub struct Verifier(Judge);

impl Verifier {
    /// # Errors
    /// It is no authority.
    pub fn new(root: CertificateDer<'static>) -> Result<Self, IdentityError> {
        Judge::new(&[root]).map(Self)
    }

    /// Whether a peer with that certificate is let in.
    pub fn takes(&self, leaf: &CertificateDer<'_>) -> bool {
        self.0.verify_client_cert(leaf, &[], UnixTime::since_unix_epoch(std::time::Duration::ZERO)).is_ok()
    }
}

/// Reads the key, the certificates and the authorities that a node keeps; answers the files that are written for them.
pub fn identity([key, certificates, roots]: [&str; 3]) -> Option<[String; 3]> {
    let key = SecretKey::in_text(key).ok()?;
    let identity = Identity::of(key, certificates_in(certificates).ok()?, certificates_in(roots).ok()?).ok()?;
    Some(files_of(&identity))
}

/// The three files of an identity.
pub fn files_of(identity: &Identity) -> [String; 3] {
    [identity.key().pem(), pem_of(&identity.certificates()), pem_of(identity.roots())].map(|text| with_check(&text))
}
