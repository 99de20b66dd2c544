//! For `tests/fuzz`: what a peer shows and says, given as bytes.

use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::danger::ClientCertVerifier as _,
};
use swarm_proto::{Problem, frame::FrameError, peer::Hello};

use crate::{IdentityError, frames::Deframer, handshake, tls::Judge};

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
