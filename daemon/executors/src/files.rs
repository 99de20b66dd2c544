//! Files into a task's own directory, and out of it.
//!
//! ```text
//!   store: whole/ab/abcd..  --copied and hashed-->  work/17/in/data.csv   read-only, the task's own
//!                                                   work/17/out.csv       --copied-->  left/j3.0-120.1/out.csv
//! ```
//! **In.** Each attempt has copies of its own, so nothing that a task does to its inputs reaches another task or the store. Every byte
//! is hashed on its way: what changed on the disk since it was fetched is not run. What the store keeps encrypted is decrypted here, with
//! a key that comes with the order, and is plain in the task's directory for as long as that is there. **Out.** What an attempt was to leave is copied to a
//! place of the daemon's, where it stays until the outcome is in the ledger. What touches the task's directory is done as the task's
//! user, so a link that the task laid leads nowhere that the task could not have gone; on the way out links are not followed at all.

mod collect;
mod source;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};
use swarm_core::blobs::StoreKey;
use swarm_proto::{
    Digest, limits,
    manifest::{FileEntry, Manifest, check_path},
    spec::JobSpec,
};

pub(crate) use self::collect::{Found, Regular, collect};
pub use self::source::Shelves;
use self::source::Source;
use crate::{argv::substitute, host, output::kept::stem, protocol::Key};

/// Copied at a time.
const PIECE: usize = 1 << 20;

/// Whose a task's directory is.
pub(crate) trait Owner {
    /// Does it as that user.
    fn act<T>(&self, work: impl FnOnce() -> T) -> T;
}

/// What goes into an attempt's directory before it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inputs {
    /// Where whole blobs are.
    pub(crate) store: Shelves,
    /// What opens those that are kept encrypted.
    pub(crate) key: Option<StoreKey>,
    /// Of these files all.
    pub(crate) manifest: Option<Digest>,
    /// And this one.
    pub(crate) own: Option<Box<FileEntry>>,
}

/// Where what an attempt leaves waits for the daemon.
pub(crate) fn left_dir(dir: &Path, key: Key) -> PathBuf {
    left_of(dir).join(stem(key))
}

/// Where all that attempts leave waits.
pub(crate) fn left_of(dir: &Path) -> PathBuf {
    dir.join("left")
}

/// The paths that an attempt is to leave.
///
/// # Errors
/// The item makes one that is none.
pub(crate) fn declared(spec: &JobSpec, item: Option<&str>) -> Result<Vec<String>, String> {
    let with_item = |path: &String| {
        let long = || format!("its item makes a path of more than {} bytes", limits::PATH);
        let path = item.map_or_else(|| Some(path.clone()), |item| substitute(path, item, limits::PATH)).ok_or_else(long)?;
        check_path(&path).map(|()| path).map_err(|problem| problem.why)
    };
    spec.outputs.iter().map(with_item).collect()
}

/// Puts the inputs below `dir`. Stops where `is_revoked` becomes true.
///
/// # Errors
/// Which file, and why: it is not in the store, its bytes are not what they were, or the disk has no room.
pub(crate) fn stage(inputs: &Inputs, dir: &Path, owner: &impl Owner, is_revoked: &AtomicBool) -> Result<(), String> {
    let mut files = Vec::new();
    if let Some(digest) = inputs.manifest {
        let manifest = read_manifest(inputs, digest).map_err(|e| format!("the list of its files: {e}"))?;
        files.extend_from_slice(manifest.files());
    }
    if let Some(own) = inputs.own.as_deref() {
        match files.iter().find(|file| file.path == own.path) {
            Some(same) if same.digest == own.digest => {}
            Some(_) => return Err(format!("'{}' is one file among those of every task, and another as this one's own", own.path)),
            None => files.push(own.clone()),
        }
    }
    let needed = files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
    // where it cannot be told, writing tells it
    if let Some(free) = owner.act(|| host::free_space(dir)).filter(|free| needed > *free) {
        return Err(format!("its files have {needed} bytes, and the disk it runs on has {free} bytes free"));
    }
    let mut buffer = vec![0; PIECE];
    for file in &files {
        place(inputs, file, dir, owner, is_revoked, &mut buffer).map_err(|e| format!("'{}': {e}", file.path))?;
    }
    Ok(())
}

fn open_blob(inputs: &Inputs, digest: Digest) -> io::Result<Source> {
    Source::open(&inputs.store, inputs.key.as_ref(), digest)
}

fn damaged(digest: Digest) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("blob {digest} has changed on this node's disk"))
}

fn read_manifest(inputs: &Inputs, digest: Digest) -> io::Result<Manifest> {
    let mut bytes = Vec::new();
    open_blob(inputs, digest)?.take(limits::MANIFEST as u64 + 1).read_to_end(&mut bytes)?;
    if blake3::hash(&bytes).as_bytes() != &digest.0 {
        return Err(damaged(digest));
    }
    Manifest::decode(&bytes).map_err(|problem| io::Error::other(problem.why))
}

fn place(inputs: &Inputs, file: &FileEntry, dir: &Path, owner: &impl Owner, is_revoked: &AtomicBool, buffer: &mut [u8]) -> io::Result<()> {
    // what comes from a peer is checked where it is used
    check_path(&file.path).map_err(|problem| io::Error::other(problem.why))?;
    let mut source = open_blob(inputs, file.digest)?;
    let path = dir.join(&file.path);
    let mut target = owner.act(|| {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        make(&path, if file.executable { 0o555 } else { 0o444 })
    })?;
    let mut hasher = blake3::Hasher::new();
    loop {
        if is_revoked.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match source.read(buffer)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                target.write_all(&buffer[..count])?;
            }
        }
    }
    if hasher.finalize().as_bytes() != &file.digest.0 {
        return Err(damaged(file.digest));
    }
    #[cfg(windows)]
    {
        let mut permissions = target.metadata()?.permissions();
        permissions.set_readonly(true);
        target.set_permissions(permissions)?;
    }
    Ok(())
}

/// A new file, open to be written whatever its mode says.
fn make(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(windows)]
    let _ = mode;
    options.open(path)
}

/// Makes the directory and those above it, for their owner only.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use swarm_proto::spec::Work;

    use super::*;

    pub(super) struct Me;

    impl Owner for Me {
        fn act<T>(&self, work: impl FnOnce() -> T) -> T {
            work()
        }
    }

    fn shelves(store: &Path) -> Shelves {
        Shelves { plain: store.to_owned(), sealed: store.join("sealed") }
    }

    fn put(store: &Path, bytes: &[u8]) -> Digest {
        let digest = Digest(*blake3::hash(bytes).as_bytes());
        let path = store.join(digest.shelf());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        digest
    }

    fn entry(path: &str, digest: Digest, executable: bool) -> FileEntry {
        FileEntry { path: path.into(), size: 0, digest, executable }
    }

    fn boxed(path: &str, digest: Digest, executable: bool) -> Box<FileEntry> {
        Box::new(entry(path, digest, executable))
    }

    fn staged(inputs: &Inputs, dir: &Path) -> Result<(), String> {
        stage(inputs, dir, &Me, &AtomicBool::new(false))
    }

    #[test]
    fn inputs_are_copies_that_cannot_be_written() {
        let root = tempfile::tempdir().unwrap();
        let (store, dir) = (root.path().join("store"), root.path().join("work"));
        fs::create_dir(&dir).unwrap();
        let (data, tool, mine) = (put(&store, &vec![7; PIECE + 3]), put(&store, b"#!/bin/sh\n"), put(&store, b"mine"));
        let manifest = Manifest::new(vec![entry("in/data", data, false), entry("tool", tool, true)]).unwrap();
        let manifest = put(&store, &manifest.encode());
        let inputs = Inputs { store: shelves(&store), key: None, manifest: Some(manifest), own: Some(boxed("x/y", mine, false)) };
        staged(&inputs, &dir).unwrap();
        assert_eq!(fs::read(dir.join("in/data")).unwrap(), vec![7; PIECE + 3]);
        assert_eq!(fs::read(dir.join("x/y")).unwrap(), b"mine");
        for (path, runs) in [("in/data", false), ("tool", true), ("x/y", false)] {
            let metadata = fs::metadata(dir.join(path)).unwrap();
            assert!(metadata.permissions().readonly(), "{path}");
            #[cfg(unix)]
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0, runs, "{path}");
            #[cfg(windows)]
            let _ = runs;
        }
        // what is in both is one file, and cannot be two
        let (both, clash) = (root.path().join("both"), root.path().join("clash"));
        staged(&Inputs { own: Some(boxed("tool", tool, false)), ..inputs.clone() }, &both).unwrap();
        assert!(staged(&Inputs { own: Some(boxed("tool", mine, false)), ..inputs.clone() }, &clash).unwrap_err().contains("another"));
        // another path to the same place is one too many
        assert!(staged(&inputs, &dir).unwrap_err().contains("in/data"));
    }

    #[test]
    fn what_changed_on_the_disk_is_not_run() {
        let root = tempfile::tempdir().unwrap();
        let (store, dir) = (root.path().join("store"), root.path().join("work"));
        let data = put(&store, b"right");
        let own = |path: &str, digest| Inputs { store: shelves(&store), key: None, manifest: None, own: Some(boxed(path, digest, false)) };
        fs::write(store.join(data.shelf()), b"wrong").unwrap();
        assert!(staged(&own("a", data), &dir).unwrap_err().contains("has changed"));
        assert!(staged(&own("b", Digest([9; 32])), &dir).unwrap_err().contains("is not on this node"));
        for path in ["../b", "/b", "con"] {
            assert!(staged(&own(path, data), &dir).is_err(), "{path}");
        }
        assert!(staged(&Inputs { manifest: Some(data), ..own("c", data) }, &dir).unwrap_err().contains("the list of its files"));
        let revoked = AtomicBool::new(true);
        fs::write(store.join(data.shelf()), b"right").unwrap();
        assert!(stage(&own("d", data), &dir, &Me, &revoked).is_err());
    }

    #[test]
    fn what_is_kept_encrypted_is_plain_for_the_task_alone() {
        use swarm_core::blobs::{Cipher, SALT};
        let root = tempfile::tempdir().unwrap();
        let (store, dir) = (root.path().join("store"), root.path().join("work"));
        let key = StoreKey::new([3; StoreKey::LEN]);
        let seal = |bytes: &[u8], salt: u8| {
            let digest = Digest(*blake3::hash(bytes).as_bytes());
            let cipher = Cipher::new(&key, [salt; SALT]);
            let mut sealed = bytes.to_vec();
            cipher.apply(0, &mut sealed);
            sealed.extend(cipher.seal());
            let path = shelves(&store).sealed.join(digest.shelf());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, sealed).unwrap();
            (digest, path)
        };
        let plain = put(&store, b"plain");
        let (data, at) = seal(&vec![7; PIECE + 3], 1);
        let manifest = Manifest::new(vec![entry("data", data, false), entry("plain", plain, false)]).unwrap();
        let (manifest, _) = seal(&manifest.encode(), 2);
        let inputs = Inputs { store: shelves(&store), key: Some(key.clone()), manifest: Some(manifest), own: None };
        staged(&inputs, &dir).unwrap();
        assert_eq!(fs::read(dir.join("data")).unwrap(), vec![7; PIECE + 3]);
        assert_eq!(fs::read(dir.join("plain")).unwrap(), b"plain");
        for wrong in [None, Some(StoreKey::new([4; StoreKey::LEN]))] {
            let why = staged(&Inputs { key: wrong, ..inputs.clone() }, &root.path().join("none")).unwrap_err();
            assert!(why.contains("is kept encrypted on this node, and its key is not here"), "{why}");
        }
        let mut bytes = fs::read(&at).unwrap();
        bytes[PIECE] ^= 1;
        fs::write(&at, bytes).unwrap();
        assert!(staged(&inputs, &root.path().join("rot")).unwrap_err().contains("has changed"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_does_not_fit_is_not_begun() {
        let root = tempfile::tempdir().unwrap();
        let (store, dir) = (root.path().join("store"), root.path().join("work"));
        fs::create_dir(&dir).unwrap();
        let (data, mine) = (put(&store, b"data"), put(&store, b"mine"));
        let size = 1 << 60;
        let manifest = Manifest::new(vec![entry("data", data, false)]).unwrap();
        let own = Box::new(FileEntry { size, ..entry("mine", mine, false) });
        let inputs = Inputs { store: shelves(&store), key: None, manifest: Some(put(&store, &manifest.encode())), own: Some(own) };
        let why = staged(&inputs, &dir).unwrap_err();
        assert!(why.contains(&size.to_string()) && why.contains("bytes free"), "{why}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn items_make_paths() {
        let spec =
            |outputs: &[&str]| JobSpec { outputs: outputs.iter().map(|path| (*path).to_owned()).collect(), ..JobSpec::new(Work::Noop) };
        assert_eq!(declared(&spec(&["out/{}.txt", "log"]), Some("a/b")).unwrap(), ["out/a/b.txt", "log"]);
        assert_eq!(declared(&spec(&["{}.txt"]), None).unwrap(), ["{}.txt"]);
        assert!(declared(&spec(&["{}"]), Some("../up")).is_err());
    }
}
