//! An authority: one key that says which keys belong to the swarm, as nodes or as people. A swarm has one for each kind, so that
//! a person's certificate is none for a node.

use std::{path::Path, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use swarm_proto::{
    ClusterId, PeerKey, UnixMillis,
    identity::{Authority, Kind, Secret},
};

use super::{CA_CERTIFICATE, CA_KEY, Identity, IdentityError, Leaf, SecretKey, files, leaf::SPKI_HEAD};
use crate::tls::SERVER_NAME;

/// How long a certificate is good for. The beginning is for people: nobody judges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Since when.
    pub from: UnixMillis,
    /// From then on it is over.
    pub until: UnixMillis,
}

impl Validity {
    /// 2026 to 2126: an authority's, and that of worlds in which nothing is renewed.
    pub const CENTURY: Self = Self { from: UnixMillis(1_767_225_600_000), until: UnixMillis(4_922_899_200_000) };

    /// From now on, for `life`. Whole seconds, as certificates have them.
    pub fn of(now: UnixMillis, life: Duration) -> Self {
        let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        Self { from: now, until: UnixMillis(now.0.saturating_add(millis)) }
    }
}

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
        Self::create_for(Kind::Node, cluster, key)
    }

    /// A CA of one kind. Its name holds a part of its key, so that a certificate says which of two CAs issued it.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`].
    pub fn create_for(kind: Kind, cluster: ClusterId, key: SecretKey) -> Result<Self, IdentityError> {
        let mut params = params(&key.peer_key(), Validity::CENTURY)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let part = &key.peer_key().to_string()[..16];
        params.distinguished_name.push(DnType::CommonName, format!("swarm {} CA {cluster} {part}", kind.word()));
        let root = params.self_signed(&key.pair)?.der().clone();
        Ok(Self { key, root })
    }

    /// The same as the ledger keeps it.
    pub fn authority(&self) -> Authority {
        let key = Secret(self.key.pair.serialized_der().to_vec().into());
        Authority { certificate: self.root.to_vec().into(), key }
    }

    /// From the ledger.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`], [`IdentityError::Mismatch`].
    pub fn from_authority(authority: &Authority) -> Result<Self, IdentityError> {
        let key = SecretKey::from_pkcs8(&authority.key.0)?;
        let root = CertificateDer::from(authority.certificate.to_vec());
        match Leaf::parse(&root) {
            Ok(leaf) if leaf.key == key.peer_key() => Ok(Self { key, root }),
            Ok(_) => Err(IdentityError::Mismatch("the authority's certificate is not for its key".to_owned())),
            Err(e) => Err(IdentityError::Mismatch(format!("the authority's certificate: {e}"))),
        }
    }

    /// A node's certificate, for both ends of a connection. The same key and time get the same certificate. That the asker has
    /// the private key is not checked here: only its owner can use the certificate.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`].
    pub fn issue(&self, key: &PeerKey, validity: Validity) -> Result<CertificateDer<'static>, IdentityError> {
        let mut params = params(key, validity)?;
        params.subject_alt_names = CertificateParams::new([SERVER_NAME.to_owned()])?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, "swarm node");
        self.sign(params, key)
    }

    /// A person's certificate. It carries the name for people to read; what counts is the key.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`].
    pub fn issue_to_user(&self, name: &str, key: &PeerKey, validity: Validity) -> Result<CertificateDer<'static>, IdentityError> {
        let mut params = params(key, validity)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, name);
        self.sign(params, key)
    }

    fn sign(&self, mut params: CertificateParams, key: &PeerKey) -> Result<CertificateDer<'static>, IdentityError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let subject = SubjectPublicKeyInfo::from_der(&[&SPKI_HEAD[..], &key.0].concat())?;
        let issuer = Issuer::from_ca_cert_der(&self.root, &self.key.pair)?;
        Ok(params.signed_by(&subject, &issuer)?.der().clone())
    }

    /// The identity of a node with this key.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn identity(&self, key: SecretKey, validity: Validity) -> Result<Identity, IdentityError> {
        let certificate = self.issue(&key.peer_key(), validity)?;
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
        let root = files::read_certificates(&path)?.swap_remove(0);
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
        files::write_certificates(&dir.join(CA_CERTIFICATE), std::slice::from_ref(&self.root))
    }
}

fn params(key: &PeerKey, validity: Validity) -> Result<CertificateParams, IdentityError> {
    let date = |at: UnixMillis| {
        let seconds = i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX);
        // beyond the year 9999 there is no date to write
        time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(rcgen::date_time_ymd(9999, 12, 31))
    };
    let mut params = CertificateParams::new(Vec::new())?;
    params.not_before = date(validity.from);
    params.not_after = date(validity.until);
    params.serial_number = Some(serial(key, validity));
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params)
}

/// Positive and of one length (RFC 5280 section 4.1.2.2), derived, so that the same key and time give the same bytes.
fn serial(key: &PeerKey, validity: Validity) -> SerialNumber {
    let mut bytes = blake3::derive_key("swarm certificate serial 2", &[&key.0[..], &validity.until.0.to_le_bytes()].concat());
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes[..16])
}
