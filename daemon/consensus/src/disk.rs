//! The disk as the log sees it: a flat directory of named files, where nothing counts before it was synced.
//!
//! A trait, because the log must run on a disk that forgets: the simulator's disk keeps only what was synced when its power is
//! cut, tears a write between sectors, fails and fills up on command. What the trait does not have is not needed: no reads while
//! running (entries live in memory), no appends that grow a file (segments are filled with zeros ahead of their use).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

#[cfg(unix)]
#[path = "disk/unix.rs"]
mod names;
#[cfg(windows)]
#[path = "disk/windows.rs"]
mod names;

/// The unit that a device writes whole or not at all. Batches start on one, and tearing is judged by it.
pub const SECTOR: usize = 512;

/// Files by name with explicit sync.
pub trait Disk: Send + Sync + 'static {
    /// Names of all files.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A whole file; `None` when there is none of that name.
    ///
    /// # Errors
    /// The file cannot be read.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Opens a file for writing; makes it when it is not there.
    ///
    /// # Errors
    /// It cannot be opened or made.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, in place of what had that name. Durable after [`Disk::sync_names`].
    ///
    /// # Errors
    /// The system refuses.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; one that is not there is no error. Durable after [`Disk::sync_names`].
    ///
    /// # Errors
    /// The system refuses.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Where an operator finds a file of that name.
    fn place(&self, name: &str) -> String {
        name.to_owned()
    }
    /// Makes names durable: what was made, renamed, removed.
    ///
    /// # Errors
    /// The system refuses; what is on the disk is then unknown.
    fn sync_names(&self) -> io::Result<()>;
    /// How long the next sync takes on a disk that only pretends to be one; a real disk takes its time inside the call.
    fn pace(&self) -> Duration {
        Duration::ZERO
    }
}

/// One open file.
pub trait DiskFile: Send {
    /// Writes all of `data` at `offset`. On an error any part of it may be there.
    ///
    /// # Errors
    /// The disk is full or broken.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Returns when all that was written is durable.
    ///
    /// # Errors
    /// What is on the disk is then unknown, for ever: a second sync may claim success over lost pages.
    fn sync(&mut self) -> io::Result<()>;
}

/// Whether an error says that there is no room, which time can heal.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Of a large file so much is written at once. The log is on the same disk, and its next sync waits for all that was written before it.
const SLICE: usize = 1 << 20;

/// Puts a whole file in place of another in one step: after a power cut there is the old one or the new one.
///
/// # Errors
/// The disk's; the old file is then still there, or the new one.
pub fn replace(disk: &dyn Disk, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let draft = format!("{name}.tmp");
    disk.remove(&draft)?;
    let mut file = disk.open(&draft)?;
    let mut offset = 0;
    for part in parts {
        for slice in part.chunks(SLICE) {
            file.write_at(offset, slice)?;
            offset += slice.len() as u64;
            if slice.len() == SLICE {
                file.sync()?;
            }
        }
    }
    file.sync()?;
    disk.rename(&draft, name)?;
    disk.sync_names()
}

/// A directory of the host, held by one process.
pub struct DirDisk {
    dir: PathBuf,
    /// Locked for as long as it is open.
    lock: File,
}

impl DirDisk {
    /// Opens a directory, makes it when it is not there, and keeps every other process out of it.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process holds it; otherwise what the system says.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, lock }),
            Err(fs::TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::WouldBlock, format!("{} is held by another process", dir.display())))
            }
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

/// Not a file of the log.
const LOCK: &str = "lock";

impl Disk for DirDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
                && name != LOCK
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut file = match File::open(self.dir.join(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.dir.join(name))?;
        Ok(Box::new(HostFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        names::rename(&self.dir.join(from), &self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.dir.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn place(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn sync_names(&self) -> io::Result<()> {
        names::sync(&self.dir, &self.lock)
    }
}

struct HostFile(File);

impl DiskFile for HostFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.seek(SeekFrom::Start(offset))?;
        self.0.write_all(data)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirDisk::open(dir.path()).unwrap();
        assert_eq!(DirDisk::open(dir.path()).err().map(|e| e.kind()), Some(io::ErrorKind::WouldBlock));
        drop(first);
        assert!(DirDisk::open(dir.path()).is_ok());
    }

    #[test]
    fn a_replaced_file_is_the_new_one_and_leaves_no_draft() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        replace(&disk, "x", &[b"old and longer"]).unwrap();
        replace(&disk, "x", &[b"ne", b"w"]).unwrap();
        assert_eq!(disk.read("x").unwrap().as_deref(), Some(&b"new"[..]));
        assert_eq!(disk.list().unwrap(), ["x"]);
        disk.remove("x").unwrap();
        disk.remove("x").unwrap();
        assert_eq!(disk.read("x").unwrap(), None);
    }
}
