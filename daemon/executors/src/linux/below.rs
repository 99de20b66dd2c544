//! Looks into a directory that somebody else has filled, and never follows a link in it.

use std::{fs::File, io, path::Path};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2},
    io::Errno,
};

use crate::files::{Found, Regular};

/// Nobody waits for the other end of a pipe.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
/// For what lies below only.
const PASS: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Such a directory; or why it cannot be entered, which each look into it says.
pub(crate) struct Below(Result<OwnedFd, Errno>);

/// One in it, open to be listed.
pub(crate) struct Listing(OwnedFd);

impl Below {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(open(dir, PASS | OFlags::DIRECTORY, Mode::empty()))
    }

    /// Opens what is at the path, and says then what that is: it may be another thing a moment later.
    pub(crate) fn find(&self, path: &str) -> io::Result<Found> {
        let root = self.0.as_ref().map_err(|error| *error)?.as_fd();
        found(match openat2(root, path, READ, Mode::empty(), RESOLVE) {
            // Linux before 5.6
            Err(Errno::NOSYS) => walk(root, path),
            opened => opened,
        })
    }
}

fn found(opened: Result<OwnedFd, Errno>) -> io::Result<Found> {
    let fd = match opened {
        Ok(fd) => fd,
        Err(Errno::LOOP) => return Ok(Found::Link),
        // a socket
        Err(Errno::NXIO) => return Ok(Found::Other),
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&fd)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    Ok(if kind.is_dir() {
        Found::Directory(Listing(fd))
    } else if kind.is_file() {
        let len = u64::try_from(stat.st_size).map_err(io::Error::other)?;
        Found::File(Regular { file: File::from(fd), len, is_executable: stat.st_mode & 0o111 != 0 })
    } else {
        Found::Other
    })
}

/// Part by part, where the kernel cannot do it as one.
fn walk(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let (above, name) = path.rsplit_once('/').map_or((None, path), |(above, name)| (Some(above), name));
    let mut at: Option<OwnedFd> = None;
    for part in above.into_iter().flat_map(|above| above.split('/')) {
        let next = openat(at.as_ref().map_or(root, AsFd::as_fd), part, PASS, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&next)?.st_mode).is_symlink() {
            return Err(Errno::LOOP);
        }
        at = Some(next);
    }
    openat(at.as_ref().map_or(root, AsFd::as_fd), name, READ | OFlags::NOFOLLOW, Mode::empty())
}

impl Listing {
    /// Every name in it but those of links, until `take` fails.
    pub(crate) fn names(self, mut take: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        for entry in Dir::new(self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || entry.file_type().is_symlink() {
                continue;
            }
            take(name.to_str().map_err(|_| io::Error::other(format!("'{}' is no name in UTF-8", name.to_string_lossy())))?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{fs::symlink, net::UnixListener},
    };

    use super::*;

    fn said(found: io::Result<Found>) -> String {
        match found {
            Ok(Found::File(regular)) => format!("file of {}", regular.len),
            Ok(Found::Directory(_)) => "directory".into(),
            Ok(Found::Link) => "link".into(),
            Ok(Found::Other) => "other".into(),
            Err(e) => format!("{:?}", e.kind()),
        }
    }

    #[test]
    fn no_link_is_followed_whatever_the_kernel_can() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("work");
        fs::create_dir_all(dir.join("in/deep")).unwrap();
        fs::write(dir.join("in/deep/file"), "1234").unwrap();
        fs::write(root.path().join("outside"), "outside").unwrap();
        for (to, link) in [("../outside", "up"), ("in", "aside"), ("in/deep/file", "same"), ("/proc/self/fd/0", "magic"), ("none", "hangs")]
        {
            symlink(to, dir.join(link)).unwrap();
        }
        let _socket = UnixListener::bind(dir.join("socket")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.join("pipe"), FileType::Fifo, 0o600.into(), 0).unwrap();
        let below = Below::new(&dir);
        let by_parts = |path: &str| found(walk(below.0.as_ref().unwrap().as_fd(), path));
        for (path, want) in [
            ("in/deep/file", "file of 4"),
            ("in/deep", "directory"),
            ("in", "directory"),
            ("in/none", "NotFound"),
            ("none/file", "NotFound"),
            ("up", "link"),
            ("aside", "link"),
            ("aside/deep/file", "link"),
            ("same", "link"),
            ("magic", "link"),
            ("hangs", "link"),
            ("pipe", "other"),
            ("socket", "other"),
            ("in/deep/file/more", "NotADirectory"),
        ] {
            assert_eq!(said(below.find(path)), want, "{path}");
            assert_eq!(said(by_parts(path)), want, "{path} by parts");
        }
        symlink(&dir, root.path().join("moved")).unwrap();
        assert_eq!(said(Below::new(&root.path().join("moved")).find("in")), "NotADirectory");
        assert_eq!(said(Below::new(&root.path().join("none")).find("in")), "NotFound");
    }
}
