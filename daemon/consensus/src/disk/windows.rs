//! Names of files, where a directory cannot be synced.
//!
//! NTFS and ReFS write every change of a name into one journal, in order, and flushing a file that has changed flushes the
//! journal up to that change. So all names are durable once any file of the volume is changed and flushed after them; the lock
//! file, which holds nothing else, is there for it. Virus scanners and indexers open files for a moment as they appear, and a
//! rename onto one that is open so is refused: it is tried again for a while.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    path::Path,
    thread::sleep,
    time::Duration,
};

/// Tries to rename, and the pause before each but the first, which grows by itself: 2.5 s in all.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match std::fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && tries < TRIES => {
                tries += 1;
                sleep(PAUSE * tries);
            }
            done => return done,
        }
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync(_dir: &Path, mut lock: &File) -> io::Result<()> {
    let flip = u8::try_from(lock.metadata()?.len() % 2).unwrap_or(0);
    // one byte and none in turn: each time the file's size changes, and with it the journal
    lock.set_len(0)?;
    lock.rewind()?;
    if flip == 0 {
        lock.write_all(&[1])?;
    }
    lock.sync_all()
}
