//! The state directory: one daemon at a time, private to its user.
//!
//! ```text
//! state_dir/lock            held while a daemon runs here
//!           cluster.toml    which swarm, and whether this node founded it; missing while it belongs to none
//!           founding        authorities of a new swarm, until its ledger has them
//!           node.key node.crt ca.crt
//!           member view     what the log bound to this node, and who else is there
//!           log...          the ledger's segments and snapshots
//!           keeper/         attempts of this host and what they wrote
//! ```

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use swarm_proto::{ClusterId, Code, Problem};
use swarm_transport::{check, with_check};

/// `cluster.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// Which swarm this node belongs to.
    pub cluster: ClusterId,
    /// Whether this node may initialise the ledger.
    pub founder: bool,
    /// Recoveries of the swarm so far.
    #[serde(default)]
    pub epoch: u32,
    /// The operator has begun a new epoch with this voter alone; it is to be made so before the node starts.
    #[serde(default)]
    pub recover: bool,
}

const CLUSTER: &str = "cluster.toml";

impl ClusterFile {
    /// Writes the file into a state directory.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, dir: &Path) -> std::io::Result<()> {
        let mut file = atomic_write_file::AtomicWriteFile::open(dir.join(CLUSTER))?;
        file.write_all(self.text().as_bytes())?;
        file.commit()
    }

    /// What the file holds.
    pub(crate) fn text(&self) -> String {
        let text =
            format!("cluster = \"{}\"\nfounder = {}\nepoch = {}\nrecover = {}\n", self.cluster, self.founder, self.epoch, self.recover);
        with_check(&text)
    }

    fn load(dir: &Path) -> Result<Option<Self>, Problem> {
        let path = dir.join(CLUSTER);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Problem::new(Code::NotReady, format!("{} cannot be used", path.display()), e.to_string())),
        }
    }

    /// What the text of such a file says.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, Problem> {
        let unusable = |why: String| Problem::new(Code::NotReady, format!("{} cannot be used", path.display()), why);
        match check(text) {
            Ok(()) => toml::from_str(text).map_err(|e| unusable(e.to_string())),
            Err(why) => Err(unusable(why.into()).hint(
                "if somebody changed it on purpose, take its first line away; the swarm's id is in `swarmctl status` of other hosts",
            )),
        }
    }
}

/// A state directory, locked for this process.
pub struct StateDir {
    /// Where it is.
    pub path: PathBuf,
    /// Which swarm; `None`: none yet.
    pub cluster: Option<ClusterFile>,
    _lock: File,
}

impl StateDir {
    /// Opens and locks the directory, making it where it is missing.
    ///
    /// # Errors
    /// A directory that cannot be written, or that another daemon uses; each names the way out.
    pub fn open(path: &Path) -> Result<Self, Problem> {
        let unusable = |why: String| {
            Problem::new(Code::NotReady, format!("the state directory {} cannot be used", path.display()), why)
                .hint("let it belong to the daemon's user, or set node.state_dir to a directory that does")
        };
        belongs_to_us(path).map_err(unusable)?;
        make_private(path).map_err(|e| unusable(e.to_string()))?;
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(|e| unusable(e.to_string()))?;
        if let Err(error) = lock.try_lock() {
            let what = format!("another daemon uses the state directory {}", path.display());
            return Err(Problem::new(Code::Conflict, what, error.to_string()).hint("stop it, or give this one a node.state_dir of its own"));
        }
        Ok(Self { path: path.to_owned(), cluster: ClusterFile::load(path)?, _lock: lock })
    }
}

/// Root could use any; what it then made there, the daemon whose directory it is could not.
#[cfg(unix)]
fn belongs_to_us(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt as _;
    let me = nix::unistd::geteuid().as_raw();
    match fs::metadata(path) {
        Ok(there) if there.uid() != me => Err(format!("it belongs to the user {}, and this daemon runs as {me}", there.uid())),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(windows)]
fn belongs_to_us(_: &Path) -> Result<(), String> {
    Ok(())
}

/// Makes a directory that only its owner can read.
#[cfg(unix)]
pub(crate) fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Makes a directory that only its owner, the host's administrators and the system can read.
#[cfg(windows)]
pub(crate) fn make_private(path: &Path) -> std::io::Result<()> {
    swarm_win32::make_private(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_a_directory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = ClusterFile { cluster: ClusterId([7; 16]), founder: true, epoch: 2, recover: false };
        file.save(dir.path()).expect("written");
        let first = StateDir::open(dir.path()).expect("free");
        assert_eq!(first.cluster, Some(file));
        let second = StateDir::open(dir.path()).map(|_| ()).expect_err("taken");
        assert_eq!(second.code, Code::Conflict);
        drop(first);
        assert!(StateDir::open(dir.path()).is_ok());
    }

    #[test]
    fn one_flipped_bit_is_refused_or_changes_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = ClusterFile { cluster: ClusterId([7; 16]), founder: false, epoch: 2, recover: false };
        file.save(dir.path()).expect("written");
        let path = dir.path().join(CLUSTER);
        let bytes = fs::read(&path).expect("readable");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).expect("written");
            match ClusterFile::load(dir.path()) {
                Ok(found) => assert_eq!(found, Some(file), "bit {bit}"),
                Err(problem) => assert!(problem.what.contains(CLUSTER), "{problem}"),
            }
        }
        // by hand, and by `swarmctl recover`
        fs::write(&path, "cluster = \"07070707070707070707070707070707\"\nfounder = false\nepoch = 3\n").expect("written");
        assert_eq!(ClusterFile::load(dir.path()).expect("readable"), Some(ClusterFile { epoch: 3, ..file }));
    }

    #[test]
    fn a_directory_without_a_swarm_waits_for_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(StateDir::open(dir.path()).expect("it is fine").cluster, None);
        fs::write(dir.path().join(CLUSTER), "cluster = 3").expect("written");
        assert!(StateDir::open(dir.path()).is_err(), "a file that cannot be read is not the same as none");
    }
}
