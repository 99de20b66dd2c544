//! What changes in a node's life: its certificates, and which authorities it believes.
//!
//! While an authority is being replaced a node holds a certificate of each, and shows the one that the other side can judge: in
//! TLS 1.3 both sides say whom they believe (RFC 8446 section 4.2.4). So nobody has to change over at the same moment, and a
//! host that slept through the first half of it still gets in.

use rustls::pki_types::CertificateDer;
use swarm_proto::{PeerKey, RootId, UnixMillis, token::root_id};

use super::{IdentityError, Leaf};
use crate::tls;

/// One certificate of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Paper {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) root: RootId,
    pub(crate) began: UnixMillis,
    pub(crate) ends: UnixMillis,
}

impl Paper {
    /// A certificate for `key`, judged by the one of `roots` that issued it.
    pub(super) fn new(
        certificate: CertificateDer<'static>,
        key: PeerKey,
        roots: &[CertificateDer<'static>],
    ) -> Result<Self, IdentityError> {
        let leaf = Leaf::parse(&certificate).map_err(|e| IdentityError::Mismatch(format!("the node's certificate: {e}")))?;
        if leaf.key != key {
            return Err(IdentityError::Mismatch(format!("the certificate is for key {}, the private key is {key}", leaf.key)));
        }
        let mut last = "there is no CA's certificate".to_owned();
        for root in roots {
            match tls::check_issued(&certificate, root) {
                Ok(()) => {
                    let Leaf { began, ends, issuer, .. } = leaf;
                    return Ok(Self { certificate, issuer, root: root_id(root), began, ends });
                }
                Err(why) => last = why,
            }
        }
        Err(IdentityError::Mismatch(format!("the certificate is not from this CA: {last}")))
    }
}
