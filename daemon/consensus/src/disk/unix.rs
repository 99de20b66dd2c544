//! What only Unix can do with a directory.

use std::{fs::File, io, path::Path};

/// Makes the names in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
