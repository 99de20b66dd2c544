//! The unix socket: made private before anyone can connect, taken over from a dead daemon, never from a live one.
//!
//! The socket is bound under another name beside its path, given its mode, and renamed into place: there is no moment in which
//! it stands there with the umask's permissions. A path where something answers is refused; a socket where nothing answers is a
//! dead daemon's and is replaced; anything that is no socket is left alone.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use crate::server::{Accept, Caller};

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A daemon answers there.
    #[error("another swarmd already answers at {}", .0.display())]
    InUse(PathBuf),
    /// Something else stands there; it was left alone.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The path has no room in a socket address, or the directory is missing or closed.
    #[error("cannot listen at {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A listening API socket. Dropping it removes the file, unless another daemon has replaced it.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our socket file.
    identity: (u64, u64),
    own_uid: u32,
}

impl Socket {
    /// Listens at `path` with permissions `mode` (0o600, or 0o660 for a group that may at least be told why it is refused).
    ///
    /// # Errors
    /// [`ListenError`]; nothing was changed, but for a dead daemon's socket, which may be gone.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ListenError> {
        let io = |source| ListenError::Io { path: path.to_owned(), source };
        remove_stale(path)?;
        let fresh = beside(path);
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(io)?;
        let settle = || -> io::Result<(u64, u64)> {
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode))?;
            let meta = std::fs::symlink_metadata(&fresh)?;
            std::fs::rename(&fresh, path)?;
            Ok((meta.dev(), meta.ino()))
        };
        let identity = settle().map_err(|source| {
            let _ = std::fs::remove_file(&fresh);
            io(source)
        })?;
        Ok(Self { listener, path: path.to_owned(), identity, own_uid: rustix::process::geteuid().as_raw() })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let io = |source| ListenError::Io { path: path.to_owned(), source };
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io)?,
    };
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(io),
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        Err(source) => Err(io(source)),
    }
}

impl Accept for Socket {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<(UnixStream, Caller)> {
        let (stream, _) = self.listener.accept().await?;
        let caller = match stream.peer_cred() {
            Ok(cred) if cred.uid() == 0 || cred.uid() == self.own_uid => Caller::Local,
            Ok(cred) => Caller::Stranger(format!("user id {} is neither the daemon's own nor root", cred.uid())),
            Err(e) => Caller::Stranger(format!("the caller's user id cannot be read: {e}")),
        };
        Ok((stream, caller))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity);
        if is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
