//! Opens the local socket. The one place that knows what kind of socket it is.

use std::{io, path::Path};

use swarm_proto::{Code, Problem};

#[cfg(unix)]
pub(crate) async fn dial(path: &Path) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(path).await
}

/// A pipe whose instances are all taken gets its next one in a moment.
#[cfg(windows)]
pub(crate) async fn dial(path: &Path) -> io::Result<tokio::net::windows::named_pipe::NamedPipeClient> {
    use tokio::net::windows::named_pipe::ClientOptions;

    const ALL_TAKEN: i32 = 231;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
    for _ in 0..100 {
        match ClientOptions::new().open(path) {
            Err(error) if error.raw_os_error() == Some(ALL_TAKEN) => tokio::time::sleep(PAUSE).await,
            opened => return opened,
        }
    }
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, "all instances of the pipe stay taken"))
}

#[cfg(unix)]
mod words {
    pub(super) const DENIED: &str = "run it as the daemon's user, as a member of the group in [api] group, or as root";
    pub(super) const START: &str = "start it: systemctl start swarmd, or: swarmd run";
}

#[cfg(windows)]
mod words {
    pub(super) const DENIED: &str = "run it as an administrator: a terminal that was started with 'Run as administrator'";
    pub(super) const START: &str = "start it: sc start swarmd, or: swarmd run";
}

/// Why there is no connection, and what to type.
pub(crate) fn problem(path: &Path, error: &io::Error) -> Problem {
    let what = format!("swarmd cannot be reached at {}", path.display());
    let is = |kind| error.kind() == kind;
    if is(io::ErrorKind::PermissionDenied) {
        return Problem::new(Code::Denied, what, "the socket belongs to another user").hint(words::DENIED);
    }
    let why = if is(io::ErrorKind::NotFound) {
        "there is no such socket".to_owned()
    } else if is(io::ErrorKind::ConnectionRefused) {
        "the socket is there, but no daemon answers on it".to_owned()
    } else {
        error.to_string()
    };
    Problem::new(Code::NoDaemon, what, why).hint(words::START)
}
