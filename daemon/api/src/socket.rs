//! The unix socket: made private before anyone can connect, taken over from a dead daemon, never from a live one.
//!
//! The socket is bound under another name beside its path, given its mode, and renamed into place: there is no moment in which
//! it stands there with the umask's permissions. A path where something answers is refused; a socket where nothing answers is a
//! dead daemon's and is replaced; anything that is no socket is left alone.
//!
//! Who may connect is decided by the file's mode, who may speak by the kernel's word on the caller: root and the daemon's own user
//! are admin, members of one group have one role, everybody else is told why not. That a caller is a member was checked by the kernel
//! when it let the process connect; it counts for as long as the file has the mode and group it was given. No user database is
//! asked, so none that hangs delays anybody.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use swarm_proto::access::{Caller, How};
use tokio::net::{UnixListener, UnixStream};

use crate::server::{Accept, GroupAccess, Visitor};

/// Nobody but the daemon's user and root.
const PRIVATE: u32 = 0o600;
/// A group too.
const SHARED: u32 = 0o660;

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
    group: Option<GroupAccess>,
}

impl Socket {
    /// Listens at `path`, for the daemon's user, root and the members of `group`.
    ///
    /// # Errors
    /// [`ListenError`]; nothing was changed, but for a dead daemon's socket, which may be gone.
    pub fn bind(path: &Path, group: Option<GroupAccess>) -> Result<Self, ListenError> {
        let io = |source| ListenError::Io { path: path.to_owned(), source };
        // where nobody can connect nobody listens
        std::os::unix::net::SocketAddr::from_pathname(path).map_err(io)?;
        remove_stale(path)?;
        let dir = path.parent().unwrap_or_else(|| Path::new("/"));
        // a name that is not longer than that of a socket usually is: it has to fit too
        let fresh = tempfile::Builder::new().prefix(".").rand_bytes(6).make_in(dir, |fresh| UnixListener::bind(fresh)).map_err(io)?;
        if let Some(group) = group {
            std::os::unix::fs::chown(&fresh, None, Some(group.gid)).map_err(io)?;
        }
        let mode = if group.is_some() { SHARED } else { PRIVATE };
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode)).map_err(io)?;
        let meta = std::fs::symlink_metadata(&fresh).map_err(io)?;
        let listener = fresh.persist(path).map_err(|refused| io(refused.error))?;
        let identity = (meta.dev(), meta.ino());
        Ok(Self { listener, path: path.to_owned(), identity, own_uid: rustix::process::geteuid().as_raw(), group })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
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

    async fn accept(&mut self) -> io::Result<(UnixStream, Visitor)> {
        let (stream, _) = self.listener.accept().await?;
        let caller = match stream.peer_cred() {
            Ok(cred) if cred.uid() == 0 || cred.uid() == self.own_uid => Visitor::Local(Caller::local()),
            Ok(cred) => self.member(cred.uid(), cred.gid()),
            Err(e) => Visitor::Stranger(format!("the caller's user id cannot be read: {e}")),
        };
        Ok((stream, caller))
    }
}

impl Socket {
    fn member(&self, uid: u32, gid: u32) -> Visitor {
        let Some(group) = self.group else {
            return Visitor::Stranger(format!("user id {uid} is neither the daemon's own nor root"));
        };
        if gid == group.gid || self.lets_in_only(group) {
            return Visitor::Local(Caller { name: format!("local:{uid}"), role: group.role, how: How::Local });
        }
        let why = "the socket's mode was changed, so that connecting to it proves no membership in its group";
        Visitor::Stranger(format!("user id {uid} is neither the daemon's own nor root, and {why}"))
    }

    /// Whether the file is as it was made: then the kernel let in nobody but the group.
    fn lets_in_only(&self, group: GroupAccess) -> bool {
        std::fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity && meta.mode() & 0o777 == SHARED && meta.gid() == group.gid)
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
