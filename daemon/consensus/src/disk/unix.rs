//! Names of files, where a directory is a file that can be synced.

use std::{fs::File, io, path::Path};

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)
}

/// Makes the names in a directory durable.
pub(super) fn sync(dir: &Path, _lock: &File) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
