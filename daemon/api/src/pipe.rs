//! The named pipe: the unix socket's twin on Windows.
//!
//! A pipe has an access list from the moment it exists: the system, the host's administrators and the daemon's own user may open
//! it, from this host only. So whoever is connected is one of them, and nobody has to be asked who they are. The first
//! instance claims the name: where somebody else has it already, a second daemon or an impostor, there is no socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use swarm_proto::access::Caller;
use tokio::net::windows::named_pipe::NamedPipeServer;

use crate::server::{Accept, GroupAccess, Visitor};

/// Where names of pipes begin.
const PIPES: &str = r"\\.\pipe\";

/// Why the API cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody has the name.
    #[error("another swarmd already answers at {}", .0.display())]
    InUse(PathBuf),
    /// A path, but not one of a pipe.
    #[error("{} is not the name of a pipe, which begins with {PIPES}", .0.display())]
    NotAPipe(PathBuf),
    /// What else the system says.
    #[error("cannot listen at {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A listening API pipe. Its name is free again when it and its connections are dropped.
pub struct Socket {
    /// The instance that the next client will get.
    free: NamedPipeServer,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`, inside a tokio runtime. `_group` is for unix sockets: the access list of a pipe is always the same.
    ///
    /// # Errors
    /// [`ListenError`]; nothing was changed.
    pub fn bind(path: &Path, _group: Option<GroupAccess>) -> Result<Self, ListenError> {
        if !path.to_string_lossy().to_lowercase().starts_with(PIPES) {
            return Err(ListenError::NotAPipe(path.to_owned()));
        }
        match swarm_win32::listen(path.as_os_str(), true) {
            Ok(free) => Ok(Self { free, path: path.to_owned() }),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(ListenError::InUse(path.to_owned())),
            Err(source) => Err(ListenError::Io { path: path.to_owned(), source }),
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Accept for Socket {
    type Stream = NamedPipeServer;

    async fn accept(&mut self) -> io::Result<(NamedPipeServer, Visitor)> {
        if let Err(error) = self.free.connect().await {
            // a client that left at once has used this instance up
            self.free = swarm_win32::listen(self.path.as_os_str(), false)?;
            return Err(error);
        }
        // the next one waits before this one is served, so that there always is one to connect to
        let next = swarm_win32::listen(self.path.as_os_str(), false)?;
        Ok((std::mem::replace(&mut self.free, next), Visitor::Local(Caller::local())))
    }
}
