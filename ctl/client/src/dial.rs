//! Opens the local socket. The one place that knows what kind of socket it is.

use std::{io, path::Path};

use swarm_proto::{Code, Problem};

#[cfg(unix)]
pub(crate) async fn dial(path: &Path) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(path).await
}

#[cfg(not(unix))]
pub(crate) fn dial(_: &Path) -> std::future::Ready<io::Result<tokio::io::DuplexStream>> {
    std::future::ready(Err(io::Error::new(io::ErrorKind::Unsupported, "there is no unix socket on this system")))
}

/// Why there is no connection, and what to type.
pub(crate) fn problem(path: &Path, error: &io::Error) -> Problem {
    let what = format!("swarmd cannot be reached at {}", path.display());
    let is = |kind| error.kind() == kind;
    if is(io::ErrorKind::PermissionDenied) {
        return Problem::new(Code::Denied, what, "the socket belongs to another user").hint("run it as the daemon's user or as root");
    }
    let why = if is(io::ErrorKind::NotFound) {
        "there is no such socket".to_owned()
    } else if is(io::ErrorKind::ConnectionRefused) {
        "the socket is there, but no daemon answers on it".to_owned()
    } else {
        error.to_string()
    };
    Problem::new(Code::NoDaemon, what, why).hint("start it: systemctl start swarmd, or: swarmd run")
}
