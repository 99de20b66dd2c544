//! What a login leaves on a person's machine: a key that never leaves it, and a certificate for it.
//!
//! One file a swarm, `$XDG_CONFIG_HOME/swarm/<swarm>.json`, readable by its owner alone. Nothing in it says what the person may do:
//! the swarm decides that at each request.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use swarm_proto::{
    ClusterId, Code, PeerKey, Problem,
    access::Role,
    identity::{Applicant, Kind},
    token::Token,
};

use crate::{
    enroll::{Invitation, enroll},
    remote::{OwnCertificate, Trust},
};

/// A person's papers for one swarm.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    pub cluster: ClusterId,
    /// Who the swarm says this is.
    pub user: String,
    /// What that user might do at the time of the login.
    pub role: Role,
    /// Nodes that answered at the time of the login, `host:port`.
    pub addresses: Vec<String>,
    certificate: String,
    key: String,
    roots: Vec<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({} of {})", self.user, self.cluster)
    }
}

/// Where they lie: `$XDG_CONFIG_HOME/swarm`, else `~/.config/swarm`.
pub fn credentials_dir() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    config.or_else(|| variable("APPDATA")).map(|dir| dir.join("swarm"))
}

fn unusable(path: &Path, why: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Denied, format!("{} cannot be used", path.display()), why.to_string())
}

/// Makes a key here, has it certified with the line, and writes both into `dir`.
///
/// # Errors
/// A line that is none, what the swarm says, or a directory that cannot be written.
pub async fn login(line: &str, dir: &Path) -> Result<Credentials, Problem> {
    let what = "nobody was logged in";
    let token: Token = line.parse().map_err(|e| Problem::new(Code::BadRequest, what, format!("the line cannot be used: {e}")))?;
    if token.kind != Kind::User {
        return Err(Problem::new(Code::BadRequest, what, "this is a token for a node").hint("swarmctl mesh join TOKEN"));
    }
    // the line is good for once: what cannot be kept must be known before it is used
    make_dir(dir).map_err(|e| unusable(dir, e))?;
    let failed = |why: String| Problem::new(Code::Internal, what, why);
    let beside = dir.join(format!("{}.key", token.id()));
    let key = key_for(&beside)?;
    let pair = Ed25519KeyPair::from_pkcs8(&key).map_err(|e| failed(e.to_string()))?;
    let public = PeerKey(pair.public_key().as_ref().try_into().map_err(|_| failed("the key has another length".into()))?);
    let enrolled =
        enroll(&Invitation::Token(token.clone()), &Applicant::User { key: public }, |message| Ok(pair.sign(message).as_ref().to_vec()))
            .await?;
    let (user, role) = enrolled.user.ok_or_else(|| failed("the swarm does not say who this is".into()))?;
    let credentials = Credentials {
        cluster: token.cluster,
        user,
        role,
        addresses: token.addresses,
        certificate: STANDARD.encode(&enrolled.certificate),
        key: STANDARD.encode(&key),
        roots: enrolled.roots.nodes.iter().map(|root| STANDARD.encode(root)).collect(),
    };
    let path = dir.join(format!("{}.json", credentials.cluster));
    credentials.save(&path).map_err(|e| unusable(&path, e))?;
    // the login holds the key now
    let _ = std::fs::remove_file(&beside);
    Ok(credentials)
}

/// The key that an earlier try with the same line left, or a new one, which is kept first: whoever used the line up and did not
/// hear the answer asks again with the same key.
fn key_for(path: &Path) -> Result<Vec<u8>, Problem> {
    match std::fs::read(path) {
        Ok(key) => return Ok(key),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(unusable(path, e)),
    }
    let random = aws_lc_rs::rand::SystemRandom::new();
    let key = Ed25519KeyPair::generate_pkcs8(&random);
    let key = key.map_err(|e| Problem::new(Code::Internal, "no key was made", e.to_string()))?.as_ref().to_vec();
    write(path, &key).map_err(|e| unusable(path, e))?;
    Ok(key)
}

/// Writes what only its owner may read, as a whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    private(&mut options);
    let mut file = options.open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

impl Credentials {
    /// All that lie in `dir`, the latest login first.
    ///
    /// # Errors
    /// The first that cannot be read; others than its owner must not be able to.
    pub fn all(dir: &Path) -> Result<Vec<Self>, Problem> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(unusable(dir, e)),
        };
        let mut found = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ext| ext == "json")) {
            let when = std::fs::metadata(&path).and_then(|meta| meta.modified()).map_err(|e| unusable(&path, e))?;
            found.push((when, Self::load(&path)?));
        }
        found.sort_by_key(|(when, _)| std::cmp::Reverse(*when));
        Ok(found.into_iter().map(|(_, credentials)| credentials).collect())
    }

    /// One file.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn load(path: &Path) -> Result<Self, Problem> {
        if let Some(mode) = open_to_others(path).map_err(|e| unusable(path, e))? {
            return Err(unusable(path, format!("others may read this private key (mode {mode:04o}, should be 0600)")));
        }
        let text = std::fs::read(path).map_err(|e| unusable(path, e))?;
        serde_json::from_slice(&text).map_err(|e| unusable(path, e))
    }

    fn save(&self, path: &Path) -> io::Result<()> {
        write(path, &serde_json::to_vec_pretty(self)?)
    }

    /// Signs with the key of this login; answers whose signature it is.
    ///
    /// # Errors
    /// A file that somebody wrote into.
    pub fn sign(&self, message: &[u8]) -> Result<(PeerKey, Vec<u8>), Problem> {
        let unusable = |why: String| Problem::new(Code::Denied, "nothing was signed", why).hint("log in again");
        let pair = Ed25519KeyPair::from_pkcs8(&decode(&self.key)?).map_err(|e| unusable(e.to_string()))?;
        let key = pair.public_key().as_ref().try_into().map_err(|_| unusable("the key has another length".into()))?;
        Ok((PeerKey(key), pair.sign(message).as_ref().to_vec()))
    }

    /// What is shown to a node.
    ///
    /// # Errors
    /// A file that somebody wrote into.
    pub fn own(&self) -> Result<OwnCertificate, Problem> {
        Ok(OwnCertificate { certificate: decode(&self.certificate)?, key: decode(&self.key)? })
    }

    /// Whom a node must be vouched for by.
    ///
    /// # Errors
    /// As [`Self::own`].
    pub fn trust(&self) -> Result<Trust, Problem> {
        self.roots.iter().map(|root| decode(root)).collect::<Result<_, _>>().map(Trust::Roots)
    }
}

fn decode(text: &str) -> Result<Vec<u8>, Problem> {
    STANDARD.decode(text).map_err(|e| Problem::new(Code::Denied, "the credentials cannot be used", e.to_string()).hint("log in again"))
}

#[cfg(unix)]
fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(unix)]
fn private(options: &mut std::fs::OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt as _;
    options.mode(0o600);
}

#[cfg(unix)]
fn open_to_others(path: &Path) -> io::Result<Option<u32>> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = std::fs::metadata(path)?.mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// A profile's directory is its user's own on other systems.
#[cfg(not(unix))]
fn make_dir(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)
}

#[cfg(not(unix))]
fn private(_: &mut std::fs::OpenOptions) {}

#[cfg(not(unix))]
fn open_to_others(path: &Path) -> io::Result<Option<u32>> {
    std::fs::metadata(path).map(|_| None)
}
