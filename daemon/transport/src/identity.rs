//! Who a node is: an Ed25519 key that never leaves it, a certificate that the swarm's own CA gave for that key, and the CA's
//! certificate, by which it judges others.
//!
//! The key is the identity ([`PeerKey`]); the certificate only says "the CA has seen this key", so it carries no node id, no
//! address and no role: those are in the ledger. Ed25519 because its signatures have one length, which keeps a simulated
//! handshake the same from run to run; serial numbers are derived from the key for the same reason.
//!
//! On disk, in PEM: `node.key` (PKCS#8, mode 0600), `node.crt`, `ca.crt`, the last two with one certificate for each authority
//! that is believed; and in a file of its own the key of a CA that a throw-away swarm is made with.

mod ca;
pub(crate) mod files;
mod leaf;
mod papers;

use std::{fmt, path::Path, path::PathBuf, sync::Arc};

use rcgen::{KeyPair, PKCS_ED25519};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use swarm_proto::{PeerKey, RootId};

pub use ca::{Ca, Validity};
pub(crate) use leaf::Leaf;
pub use leaf::{LeafError, certificate_end, peer_key};
pub(crate) use papers::Paper;

/// The files of an identity.
pub const NODE_KEY: &str = "node.key";
/// See [`NODE_KEY`].
pub const NODE_CERTIFICATE: &str = "node.crt";
/// See [`NODE_KEY`].
pub const CA_CERTIFICATE: &str = "ca.crt";
/// See [`NODE_KEY`].
pub const CA_KEY: &str = "ca.key";

/// What is wrong with an identity. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Others than its owner may read a private key.
    #[error("{}: others may read this private key (mode {mode:04o}, should be 0600)", path.display())]
    Readable {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Key and certificates do not belong together.
    #[error("key and certificates do not belong together: {0}")]
    Mismatch(String),
    /// The cryptographic library refused.
    #[error("cannot make a key or certificate: {0}")]
    Crypto(#[from] rcgen::Error),
}

/// An Ed25519 key pair.
pub struct SecretKey {
    pair: KeyPair,
    public: PeerKey,
}

impl SecretKey {
    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`] when there is none.
    pub fn generate() -> Result<Self, IdentityError> {
        Self::from_pair(KeyPair::generate_for(&PKCS_ED25519)?)
    }

    /// The key of a seed (RFC 8032 section 5.1.5): the same seed, the same key. The simulator's way.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`].
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, IdentityError> {
        // RFC 8410 section 7, version 1: the seed is all that varies
        const HEAD: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        let der = [&HEAD[..], seed].concat();
        Self::from_pair(KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)?)
    }

    /// From PKCS#8, DER.
    ///
    /// # Errors
    /// [`IdentityError::Crypto`], [`IdentityError::Mismatch`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, IdentityError> {
        Self::from_pair(KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)?)
    }

    fn from_pair(pair: KeyPair) -> Result<Self, IdentityError> {
        let raw = pair.public_key_raw().try_into().map_err(|_| IdentityError::Mismatch("the key is not Ed25519".to_owned()))?;
        Ok(Self { pair, public: PeerKey(raw) })
    }

    /// Its public half: who its owner is.
    pub const fn peer_key(&self) -> PeerKey {
        self.public
    }

    /// Writes it as PEM with mode 0600, replacing what was there only once the whole is on disk.
    ///
    /// # Errors
    /// [`IdentityError::File`].
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        files::write(path, &self.pem(), 0o600)
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`IdentityError::File`], [`IdentityError::Content`], [`IdentityError::Readable`].
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        Self::in_text(&files::read_secret(path)?).map_err(|why| IdentityError::Content { path: path.to_owned(), why })
    }

    /// The key in the text of a file.
    pub(crate) fn in_text(text: &str) -> Result<Self, String> {
        crate::check(text)?;
        let pair = KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_ED25519).map_err(|e| format!("not an Ed25519 private key: {e}"))?;
        Self::from_pair(pair).map_err(|e| e.to_string())
    }

    /// PKCS#8, PEM.
    pub(crate) fn pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// Signs (RFC 8032).
    ///
    /// # Errors
    /// [`IdentityError::Mismatch`] when the library does not take the key.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let pair = aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8(self.pair.serialized_der())
            .map_err(|e| IdentityError::Mismatch(e.to_string()))?;
        Ok(pair.sign(message).as_ref().to_vec())
    }

    /// PKCS#8, DER.
    pub fn pkcs8(&self) -> PrivatePkcs8KeyDer<'_> {
        PrivatePkcs8KeyDer::from(self.pair.serialized_der())
    }

    /// A key for `purpose` that belongs to this identity and outlives restarts.
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, self.pair.serialized_der())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public)
    }
}

/// All a node needs to prove who it is and to judge others. It does not change: a renewed one replaces it.
#[derive(Clone, Debug)]
pub struct Identity {
    key: Arc<SecretKey>,
    /// One of each authority, the newest first; never empty.
    papers: Vec<Paper>,
    /// The authorities that are believed, the one that issues first; never empty.
    roots: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// Puts the parts together, and checks that they belong together.
    ///
    /// # Errors
    /// [`IdentityError::Mismatch`] when the certificate is for another key or from another CA.
    pub fn new(key: SecretKey, certificate: CertificateDer<'static>, root: CertificateDer<'static>) -> Result<Self, IdentityError> {
        let roots = vec![root];
        let papers = vec![Paper::new(certificate, key.peer_key(), &roots)?];
        Ok(Self { key: Arc::new(key), papers, roots })
    }

    /// The same node with a new certificate, or with other authorities to believe, or both. Certificates of authorities that are
    /// believed no more are left out.
    ///
    /// # Errors
    /// [`IdentityError::Mismatch`] when the certificate does not fit, or when nothing would be left to show.
    pub fn renewed(&self, certificate: Option<CertificateDer<'static>>, roots: &[impl AsRef<[u8]>]) -> Result<Self, IdentityError> {
        let roots: Vec<_> = roots.iter().map(|root| CertificateDer::from(root.as_ref().to_vec())).collect();
        let new = certificate.map(|certificate| Paper::new(certificate, self.peer_key(), &roots)).transpose()?;
        let is_believed = |paper: &&Paper| roots.iter().any(|root| swarm_proto::token::root_id(root) == paper.root);
        let is_replaced = |paper: &&Paper| new.as_ref().is_some_and(|new| new.root == paper.root);
        let kept: Vec<Paper> = self.papers.iter().filter(is_believed).filter(|paper| !is_replaced(paper)).cloned().collect();
        let papers: Vec<Paper> = new.iter().cloned().chain(kept).collect();
        if papers.is_empty() {
            return Err(IdentityError::Mismatch("no certificate of this node comes from an authority that is believed".to_owned()));
        }
        Ok(Self { key: self.key.clone(), papers, roots })
    }

    /// Who this is.
    pub fn peer_key(&self) -> PeerKey {
        self.key.peer_key()
    }

    /// Its private key.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// When the newest certificate began, and when it ends.
    pub fn validity(&self) -> Validity {
        Validity { from: self.papers[0].began, until: self.papers[0].ends }
    }

    /// The authority of the newest certificate.
    pub fn root(&self) -> RootId {
        self.papers[0].root
    }

    /// Whether these are the authorities that it believes.
    pub fn believes(&self, roots: &[impl AsRef<[u8]>]) -> bool {
        self.roots.len() == roots.len() && self.roots.iter().zip(roots).all(|(ours, given)| ours[..] == *given.as_ref())
    }

    /// The newest certificate and the authority that issued it.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let newest = &self.papers[0];
        let root = self.roots.iter().find(|root| swarm_proto::token::root_id(root) == newest.root);
        std::iter::once(&newest.certificate).chain(root).cloned().collect()
    }

    /// Reads `node.key`, `node.crt` and `ca.crt` of a directory.
    ///
    /// # Errors
    /// Each names the file.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let key = SecretKey::load(&dir.join(NODE_KEY))?;
        let path = dir.join(NODE_CERTIFICATE);
        let certificates = files::read_certificates(&path)?;
        let roots = files::read_certificates(&dir.join(CA_CERTIFICATE))?;
        let named = |e| match e {
            IdentityError::Mismatch(why) => IdentityError::Content { path: path.clone(), why },
            other @ (IdentityError::File { .. }
            | IdentityError::Content { .. }
            | IdentityError::Readable { .. }
            | IdentityError::Crypto(_)) => other,
        };
        Self::of(key, certificates, roots).map_err(named)
    }

    /// Puts the parts of the files together.
    pub(crate) fn of(
        key: SecretKey,
        certificates: Vec<CertificateDer<'static>>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, IdentityError> {
        let papers: Result<Vec<Paper>, _> =
            certificates.into_iter().map(|certificate| Paper::new(certificate, key.peer_key(), &roots)).collect();
        Ok(Self { key: Arc::new(key), papers: papers?, roots })
    }

    /// Writes them.
    ///
    /// # Errors
    /// [`IdentityError::File`] names the file.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        self.key.save(&dir.join(NODE_KEY))?;
        self.save_certificates(dir)
    }

    /// Writes what a renewal changes. The authorities go first: a crash in between leaves certificates of one that is believed.
    ///
    /// # Errors
    /// [`IdentityError::File`] names the file.
    pub fn save_certificates(&self, dir: &Path) -> Result<(), IdentityError> {
        files::write_certificates(&dir.join(CA_CERTIFICATE), &self.roots)?;
        files::write_certificates(&dir.join(NODE_CERTIFICATE), &self.certificates())
    }

    /// All of its own, the newest first.
    pub(crate) fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.papers.iter().map(|paper| paper.certificate.clone()).collect()
    }

    pub(crate) fn papers(&self) -> &[Paper] {
        &self.papers
    }

    pub(crate) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }
}

#[cfg(test)]
mod tests {
    use swarm_proto::{ClusterId, UnixMillis};

    use super::*;

    fn ca(seed: u8) -> Ca {
        Ca::create(ClusterId([9; 16]), SecretKey::from_seed(&[seed; 32]).unwrap()).unwrap()
    }

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32]).unwrap()
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, node) = (ca(1), key(2));
        ca.save(dir.path()).unwrap();
        let certificate = ca.issue(&node.peer_key(), Validity::CENTURY).unwrap();
        Identity::new(node, certificate, ca.root().clone()).unwrap().save(dir.path()).unwrap();
        let back = Identity::load(dir.path()).unwrap();
        assert_eq!(back.peer_key(), key(2).peer_key());
        let again = Ca::load(dir.path()).unwrap();
        assert_eq!(
            again.issue(&back.peer_key(), Validity::CENTURY).unwrap(),
            back.papers[0].certificate,
            "the same key gets the same certificate, from the loaded CA too"
        );
    }

    #[test]
    fn a_generated_key_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let made = SecretKey::generate().unwrap();
        made.save(&dir.path().join(NODE_KEY)).unwrap();
        assert_eq!(SecretKey::load(&dir.path().join(NODE_KEY)).unwrap().peer_key(), made.peer_key());
        assert_ne!(made.peer_key(), SecretKey::generate().unwrap().peer_key());
    }

    #[test]
    fn parts_of_two_identities_do_not_mix() {
        let (ca1, ca2) = (ca(1), ca(2));
        let foreign = Identity::new(key(5), ca1.issue(&key(5).peer_key(), Validity::CENTURY).unwrap(), ca2.root().clone()).unwrap_err();
        assert!(foreign.to_string().contains("not from this CA"), "{foreign}");
        let other = Identity::new(key(5), ca1.issue(&key(6).peer_key(), Validity::CENTURY).unwrap(), ca1.root().clone()).unwrap_err();
        assert!(other.to_string().contains("the certificate is for key"), "{other}");
    }

    #[test]
    fn every_complaint_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let complaint = |name: &str| {
            let text = Identity::load(dir.path()).unwrap_err().to_string();
            assert!(text.contains(&dir.path().join(name).display().to_string()), "{text}");
            text
        };
        complaint(NODE_KEY);
        let (ca, node) = (ca(1), key(2));
        node.save(&dir.path().join(NODE_KEY)).unwrap();
        complaint(NODE_CERTIFICATE);
        std::fs::write(dir.path().join(NODE_CERTIFICATE), "hello").unwrap();
        complaint(NODE_CERTIFICATE);
        files::write_certificates(&dir.path().join(NODE_CERTIFICATE), &[ca.issue(&key(3).peer_key(), Validity::CENTURY).unwrap()]).unwrap();
        complaint(CA_CERTIFICATE);
        files::write_certificates(&dir.path().join(CA_CERTIFICATE), &[ca.root().clone()]).unwrap();
        assert!(complaint(NODE_CERTIFICATE).contains("is for key"));
        std::fs::write(dir.path().join(NODE_KEY), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        complaint(NODE_KEY);
    }

    #[test]
    fn one_flipped_bit_is_refused_with_the_file_s_name_or_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let made = ca(1).identity(key(2), Validity::CENTURY).unwrap();
        made.save(dir.path()).unwrap();
        for name in [NODE_KEY, NODE_CERTIFICATE, CA_CERTIFICATE] {
            let path = dir.path().join(name);
            let bytes = std::fs::read(&path).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, bad).unwrap();
                match Identity::load(dir.path()) {
                    Ok(found) => assert_eq!((found.peer_key(), &found.papers, &found.roots), (made.peer_key(), &made.papers, &made.roots)),
                    Err(error) => assert!(error.to_string().contains(name), "bit {bit} of {name}: {error}"),
                }
            }
            std::fs::write(&path, bytes).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NODE_KEY);
        key(1).save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SecretKey::load(&path), Err(IdentityError::Readable { mode: 0o640, .. })));
    }

    #[test]
    fn a_renewal_keeps_what_others_can_still_judge() {
        let (old, new) = (ca(1), ca(2));
        let day = |n: u64| Validity { from: UnixMillis(n * 1_000), until: UnixMillis((n + 1) * 1_000) };
        let first = old.identity(key(3), day(1)).unwrap();
        let again = first.renewed(Some(old.issue(&first.peer_key(), day(2)).unwrap()), &[old.root()]).unwrap();
        assert_eq!((again.papers.len(), again.validity()), (1, day(2)));
        let both = again.renewed(Some(new.issue(&first.peer_key(), day(3)).unwrap()), &[new.root(), old.root()]).unwrap();
        assert_eq!((both.papers.len(), both.validity(), both.root()), (2, day(3), swarm_proto::token::root_id(new.root())));
        let dir = tempfile::tempdir().unwrap();
        both.save(dir.path()).unwrap();
        assert_eq!(Identity::load(dir.path()).unwrap().papers, both.papers);
        let after = both.renewed(None, &[new.root()]).unwrap();
        assert_eq!((after.papers.len(), after.chain()), (1, vec![new.issue(&first.peer_key(), day(3)).unwrap(), new.root().clone()]));
        assert!(again.renewed(None, &[new.root()]).is_err(), "nothing would be left to show");
        assert!(after.believes(&[new.root()]) && !both.believes(&[new.root()]));
    }
}
