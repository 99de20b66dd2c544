//! What is read out of a peer's certificate: its key, and since when it is good. The bytes come from outside.

use rustls::pki_types::{CertificateDer, UnixTime};
use swarm_proto::{PeerKey, UnixMillis, limits};
use x509_parser::{certificate::X509Certificate, oid_registry::OID_SIG_ED25519, prelude::FromDer as _};

/// Start of the SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 section 4); the raw key follows.
pub(super) const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A certificate that names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Larger than any of ours.
    #[error("a certificate of {0} bytes is over the limit of {limit}", limit = limits::CERTIFICATE)]
    TooLong(usize),
    /// Not a certificate.
    #[error("not a certificate: {0}")]
    Malformed(String),
    /// The key is of another kind.
    #[error("its key is not Ed25519")]
    OtherKey,
}

/// The parts of a certificate that matter here.
pub(crate) struct Leaf {
    pub(crate) key: PeerKey,
    pub(crate) not_before: UnixTime,
    /// When it ends.
    pub(crate) ends: UnixMillis,
    pub(crate) began: UnixMillis,
    /// Distinguished name of who issued it, DER.
    pub(crate) issuer: Vec<u8>,
}

impl Leaf {
    pub(crate) fn parse(certificate: &CertificateDer<'_>) -> Result<Self, LeafError> {
        if certificate.len() > limits::CERTIFICATE {
            return Err(LeafError::TooLong(certificate.len()));
        }
        let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|e| LeafError::Malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(LeafError::Malformed(format!("{} bytes too many", rest.len())));
        }
        let spki = parsed.public_key();
        if spki.algorithm.algorithm != OID_SIG_ED25519 {
            return Err(LeafError::OtherKey);
        }
        let key = spki.subject_public_key.data.as_ref().try_into().map_err(|_| LeafError::OtherKey)?;
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        let (since, until) = (seconds(parsed.validity().not_before), seconds(parsed.validity().not_after));
        Ok(Self {
            key: PeerKey(key),
            not_before: UnixTime::since_unix_epoch(std::time::Duration::from_secs(since)),
            began: UnixMillis(since.saturating_mul(1_000)),
            ends: UnixMillis(until.saturating_mul(1_000)),
            issuer: parsed.issuer().as_raw().to_vec(),
        })
    }
}

/// The key a certificate is for.
///
/// # Errors
/// [`LeafError`].
pub fn peer_key(certificate: &CertificateDer<'_>) -> Result<PeerKey, LeafError> {
    Leaf::parse(certificate).map(|leaf| leaf.key)
}

/// When a certificate ends.
///
/// # Errors
/// [`LeafError`].
pub fn certificate_end(certificate: &CertificateDer<'_>) -> Result<UnixMillis, LeafError> {
    Leaf::parse(certificate).map(|leaf| leaf.ends)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use swarm_proto::ClusterId;

    use super::{
        super::{Ca, SecretKey},
        *,
    };

    fn certificate() -> CertificateDer<'static> {
        let ca = Ca::create(ClusterId([1; 16]), SecretKey::from_seed(&[1; 32]).unwrap()).unwrap();
        ca.issue(&PeerKey([7; 32]), crate::identity::Validity::CENTURY).unwrap()
    }

    #[test]
    fn the_key_is_read_back() {
        assert_eq!(peer_key(&certificate()), Ok(PeerKey([7; 32])));
    }

    #[test]
    fn other_keys_and_long_certificates_are_refused() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let other = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&pair).unwrap();
        assert_eq!(peer_key(other.der()), Err(LeafError::OtherKey));
        for (extra, is_long) in [(0, false), (1, true)] {
            let padded = CertificateDer::from(vec![0x30; limits::CERTIFICATE + extra]);
            assert_eq!(matches!(peer_key(&padded), Err(LeafError::TooLong(_))), is_long);
        }
        let mut trailing = certificate().to_vec();
        trailing.push(0);
        assert!(matches!(peer_key(&CertificateDer::from(trailing)), Err(LeafError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn damaged_certificates_do_not_panic(at in 0usize..4096, value in any::<u8>(), keep in 0usize..4096) {
            let mut bytes = certificate().to_vec();
            let len = bytes.len();
            bytes[at % len] = value;
            bytes.truncate(keep.min(len));
            let _ = peer_key(&CertificateDer::from(bytes));
        }
    }
}
