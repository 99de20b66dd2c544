//! The node CA: one key that says which keys belong to the swarm.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use swarm_proto::{ClusterId, PeerKey};

use super::{CA_CERTIFICATE, CA_KEY, Identity, IdentityError, Leaf, SecretKey, files, leaf::SPKI_HEAD};
use crate::tls::SERVER_NAME;

/// Certificates are good from the start of this year ...
const FIRST_YEAR: i32 = 2026;
/// ... to the start of this one: revocation is the ledger's, not the calendar's.
const LAST_YEAR: i32 = 2126;

/// A certificate authority with its private key.
#[derive(Debug)]
pub struct Ca {
    key: SecretKey,
    root: CertificateDer<'static>,
}

impl Ca {
    /// A CA for a swarm, self-signed.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`].
    pub fn create(cluster: ClusterId, key: SecretKey) -> Result<Self, IdentityError> {
        let mut params = params(&key.peer_key())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, format!("swarm node CA {cluster}"));
        let root = params.self_signed(&key.pair)?.der().clone();
        Ok(Self { key, root })
    }

    /// A certificate for a key, for both ends of a connection. The same key gets the same certificate. That the asker has the
    /// private key is not checked here: only its owner can use the certificate.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`].
    pub fn issue(&self, key: &PeerKey) -> Result<CertificateDer<'static>, IdentityError> {
        let mut params = params(key)?;
        params.subject_alt_names = CertificateParams::new([SERVER_NAME.to_owned()])?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, "swarm node");
        let subject = SubjectPublicKeyInfo::from_der(&[&SPKI_HEAD[..], &key.0].concat())?;
        let issuer = Issuer::from_ca_cert_der(&self.root, &self.key.pair)?;
        Ok(params.signed_by(&subject, &issuer)?.der().clone())
    }

    /// The identity of a node with this key.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn identity(&self, key: SecretKey) -> Result<Identity, IdentityError> {
        let certificate = self.issue(&key.peer_key())?;
        Identity::new(key, certificate, self.root.clone())
    }

    /// Its certificate.
    pub const fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Reads `ca.key` and `ca.crt`.
    ///
    /// # Errors
    /// Each names the file.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let key = SecretKey::load(&dir.join(CA_KEY))?;
        let path = dir.join(CA_CERTIFICATE);
        let root = files::read_certificate(&path)?;
        match Leaf::parse(&root) {
            Ok(leaf) if leaf.key == key.peer_key() => Ok(Self { key, root }),
            Ok(leaf) => Err(IdentityError::Content { path, why: format!("it is for key {}, {CA_KEY} is {}", leaf.key, key.peer_key()) }),
            Err(e) => Err(IdentityError::Content { path, why: e.to_string() }),
        }
    }

    /// Writes them.
    ///
    /// # Errors
    /// [`IdentityError::File`] names the file.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        self.key.save(&dir.join(CA_KEY))?;
        files::write_certificate(&dir.join(CA_CERTIFICATE), &self.root)
    }
}

fn params(key: &PeerKey) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.not_before = rcgen::date_time_ymd(FIRST_YEAR, 1, 1);
    params.not_after = rcgen::date_time_ymd(LAST_YEAR, 1, 1);
    params.serial_number = Some(serial(key));
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params)
}

/// Positive and of one length (RFC 5280 section 4.1.2.2), derived, so that the same key gives the same bytes.
fn serial(key: &PeerKey) -> SerialNumber {
    let mut bytes = blake3::derive_key("swarm certificate serial 1", &key.0);
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes[..16])
}
