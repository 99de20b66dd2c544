//! A file that is not whole yet, beside the one that it will be.
//!
//! That of a blob is called `.swarmctl.DIGEST.part` and stays where the call breaks off: the next one that wants the same blob there
//! goes on with it. Whoever writes it holds its lock; another call at the same time writes a file of its own, that goes with it, as
//! does what has no name to be found by again.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use swarm_proto::{Digest, limits};

/// What is worth going on with: less comes again sooner than it is looked at.
const WORTH: u64 = limits::SEGMENT as u64;

/// See the head of the module.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    /// Its length.
    pub(super) len: u64,
    is_found_again: bool,
    is_done: bool,
}

impl Part {
    /// For what is known by no name.
    pub(super) fn beside(to: &Path) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            // the file's own name may be as long as a name can be, so this one has nothing of it
            let name = format!(".swarmctl.{}.{}.part", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = to.with_file_name(name);
            match File::options().write(true).create_new(true).open(&path) {
                // of a call that was killed
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return opened.map(|file| Self { path, file, len: 0, is_found_again: false, is_done: false }),
            }
        }
    }

    /// For a blob, with what an earlier call left of it, and that hashed.
    pub(super) fn of(digest: Digest, to: &Path) -> io::Result<(Self, blake3::Hasher)> {
        let path = to.with_file_name(format!(".swarmctl.{digest}.part"));
        let Some(mut file) = locked(&path)? else { return Ok((Self::beside(to)?, blake3::Hasher::new())) };
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&file)?;
        let len = file.seek(SeekFrom::End(0))?;
        Ok((Self { path, file, len, is_found_again: true, is_done: false }, hasher))
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)?;
        self.len += data.len() as u64;
        Ok(())
    }

    /// What is in it is worth nothing.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.len = 0;
        self.file.set_len(0)?;
        self.file.rewind()
    }

    /// It is all of it, and gets its name.
    pub(super) fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.is_done = true;
        Ok(())
    }

    /// Whether it stays when it is dropped now.
    pub(super) const fn is_kept(&self) -> bool {
        self.is_found_again && self.len >= WORTH
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_done && !self.is_kept() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file of this name, if nobody else writes it.
fn locked(path: &Path) -> io::Result<Option<File>> {
    loop {
        if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Ok(None);
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // a file system without locks
            Err(TryLockError::Error(_)) => return Ok(None),
            // in a directory that others write to, somebody else may have made it, to have what will be in it
            Ok(()) if !is_ours(&file) => return Ok(None),
            // renamed or removed by whoever had the lock, it is no longer what is there
            Ok(()) if !is_at(&file, path) => {}
            Ok(()) => return Ok(Some(file)),
        }
    }
}

#[cfg(unix)]
fn is_ours(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let me = rustix::process::geteuid().as_raw();
    file.metadata().is_ok_and(|metadata| metadata.uid() == me && metadata.nlink() == 1)
}

/// A directory that others write to belongs to them here.
#[cfg(not(unix))]
const fn is_ours(_: &File) -> bool {
    true
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let place = |metadata: io::Result<fs::Metadata>| metadata.map(|metadata| (metadata.dev(), metadata.ino())).ok();
    place(file.metadata()) == place(fs::symlink_metadata(path))
}

/// Here a second handle to what is locked cannot lock it.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    File::open(path).is_ok_and(|other| other.try_lock_shared().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &[u8] = &[7; 3 << 20];

    fn digest() -> Digest {
        Digest(*blake3::hash(DATA).as_bytes())
    }

    fn names(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn what_broke_off_is_found_again_and_gets_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let (mut part, _) = Part::of(digest(), &to).unwrap();
        part.write(&DATA[..2 << 20]).unwrap();
        drop(part);
        let (mut part, hasher) = Part::of(digest(), &to).unwrap();
        assert_eq!((part.len, hasher.finalize()), (2 << 20, blake3::hash(&DATA[..2 << 20])));
        part.write(&DATA[2 << 20..]).unwrap();
        part.rename(&to).unwrap();
        assert!(fs::read(&to).unwrap() == DATA && names(dir.path()) == 1);
    }

    #[test]
    fn little_or_wrong_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let (mut part, _) = Part::of(digest(), &to).unwrap();
        part.write(&DATA[..WORTH as usize - 1]).unwrap();
        drop(part);
        assert_eq!(names(dir.path()), 0);
        let (mut part, _) = Part::of(digest(), &to).unwrap();
        part.write(&DATA[..WORTH as usize]).unwrap();
        part.clear().unwrap();
        part.write(b"x").unwrap();
        assert_eq!(fs::read(&part.path).unwrap(), b"x");
        drop(part);
        assert_eq!(names(dir.path()), 0);
    }

    #[cfg(unix)]
    #[test]
    fn what_somebody_else_has_too_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let planted = dir.path().join("planted");
        fs::write(&planted, b"theirs").unwrap();
        let name = to.with_file_name(format!(".swarmctl.{}.part", digest()));
        for plant in [|from: &Path, to: &Path| fs::hard_link(from, to), |from: &Path, to: &Path| std::os::unix::fs::symlink(from, to)] {
            plant(&planted, &name).unwrap();
            let (mut part, _) = Part::of(digest(), &to).unwrap();
            assert!(part.len == 0 && part.path != name);
            part.write(DATA).unwrap();
            drop(part);
            assert_eq!(fs::read(&planted).unwrap(), b"theirs");
            fs::remove_file(&name).unwrap();
        }
    }

    #[test]
    fn two_at_once_do_not_write_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let (mut first, _) = Part::of(digest(), &to).unwrap();
        let (mut second, _) = Part::of(digest(), &to).unwrap();
        assert!(first.path != second.path);
        first.write(DATA).unwrap();
        second.write(DATA).unwrap();
        drop(second);
        assert_eq!(names(dir.path()), 1, "that of the second one is its own");
        // whoever opened it before it got its name must not write what has it now
        let open = File::options().write(true).open(&first.path).unwrap();
        let before = first.path.clone();
        first.rename(&to).unwrap();
        assert!(!is_at(&open, &before));
        let (third, _) = Part::of(digest(), &to).unwrap();
        assert_eq!(third.len, 0);
    }
}
