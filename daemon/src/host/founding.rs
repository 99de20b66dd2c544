//! The authorities of a new swarm, on their way from the command that makes them to the ledger.
//!
//! They lie in the founder's state directory only until the ledger has them: `founding`, readable by the daemon's user alone.

use std::{io::Write as _, path::Path};

use swarm_proto::{
    ClusterId, Code, Problem, frame,
    identity::{Found, Kind},
};
use swarm_transport::{Ca, IdentityError, SecretKey};

const FILE: &str = "founding";

fn unusable(dir: &Path, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::NotReady, format!("{} cannot be used", dir.join(FILE).display()), why.to_string())
}

/// New authorities for a new swarm.
///
/// # Errors
/// [`IdentityError::Crypto`].
pub(crate) fn make(cluster: ClusterId) -> Result<(Found, Ca), IdentityError> {
    let nodes = Ca::create_for(Kind::Node, cluster, SecretKey::generate()?)?;
    let users = Ca::create_for(Kind::User, cluster, SecretKey::generate()?)?;
    Ok((Found { cluster, nodes: nodes.authority(), users: users.authority(), first: Vec::new() }, nodes))
}

/// Writes them into a state directory.
pub(crate) fn save(dir: &Path, found: &Found) -> Result<(), Problem> {
    let write = || -> anyhow::Result<()> {
        let bytes = encode(found)?;
        let mut options = atomic_write_file::OpenOptions::new();
        private(&mut options);
        let mut file = options.open(dir.join(FILE))?;
        file.write_all(&bytes)?;
        file.commit()?;
        Ok(())
    };
    write().map_err(|e| unusable(dir, &e))
}

#[cfg(unix)]
fn private(options: &mut atomic_write_file::OpenOptions) {
    use atomic_write_file::unix::OpenOptionsExt as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    options.preserve_mode(false).mode(0o600);
}

#[cfg(not(unix))]
fn private(_: &mut atomic_write_file::OpenOptions) {}

/// Those that the ledger does not have yet, if any.
pub(crate) fn load(dir: &Path) -> Result<Option<Found>, Problem> {
    match std::fs::read(dir.join(FILE)) {
        Ok(bytes) => decode(&bytes).map(Some).map_err(|why| unusable(dir, &why)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unusable(dir, &e)),
    }
}

/// The file's bytes.
pub(crate) fn encode(found: &Found) -> postcard::Result<Vec<u8>> {
    let mut bytes = postcard::to_stdvec(found)?;
    bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
    Ok(bytes)
}

/// What the file's bytes hold.
pub(crate) fn decode(bytes: &[u8]) -> Result<Found, String> {
    match bytes.split_last_chunk::<{ blake3::OUT_LEN }>() {
        Some((found, hash)) if blake3::hash(found) == *hash => frame::decode(found).map_err(|e| e.to_string()),
        Some(_) | None => Err("it has changed on the disk: its checksum is wrong".to_owned()),
    }
}

/// The ledger has them.
pub(crate) fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_file(dir.join(FILE))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "the founding file is not removed; it holds the swarm's authorities");
    }
}
