//! Looks into a directory that somebody else has filled, and never follows a link in it. Everything runs as one user here, so what
//! is exchanged between the look and the opening leads nowhere that its task could not have gone.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::files::{Found, Regular};

/// Such a directory.
pub(crate) struct Below(PathBuf);

/// One in it.
pub(crate) struct Listing(PathBuf);

impl Below {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// What is at the path.
    pub(crate) fn find(&self, path: &str) -> io::Result<Found> {
        let mut at = self.0.clone();
        let mut metadata = fs::symlink_metadata(&at)?;
        for part in path.split('/') {
            at.push(part);
            metadata = fs::symlink_metadata(&at)?;
            if metadata.is_symlink() {
                return Ok(Found::Link);
            }
        }
        if metadata.is_dir() {
            return Ok(Found::Directory(Listing(at)));
        }
        if !metadata.is_file() {
            return Ok(Found::Other);
        }
        let file = File::open(at)?;
        let len = file.metadata()?.len();
        Ok(Found::File(Regular { file, len, is_executable: false }))
    }
}

impl Listing {
    /// Every name in it but those of links, until `take` fails.
    pub(crate) fn names(self, mut take: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        for entry in fs::read_dir(self.0)? {
            let entry = entry?;
            if entry.file_type()?.is_symlink() {
                continue;
            }
            let name = entry.file_name();
            take(name.to_str().ok_or_else(|| io::Error::other(format!("'{}' is no name in Unicode", name.to_string_lossy())))?)?;
        }
        Ok(())
    }
}
