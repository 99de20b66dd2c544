//! Where packages put things, and what a path must be to work there.

use std::path::Path;

/// Where the package puts the file.
#[cfg(not(windows))]
pub const CONFIG_FILE: &str = "/etc/swarmd/swarmd.toml";
/// Where the package puts the state.
#[cfg(not(windows))]
pub const STATE_DIR: &str = "/var/lib/swarmd";
/// Where the package puts the socket.
#[cfg(not(windows))]
pub const SOCKET: &str = "/run/swarmd/swarmd.sock";

/// Where the msi puts the file: %ProgramData%, where it is unless the host was set up by hand.
#[cfg(windows)]
pub const CONFIG_FILE: &str = r"C:\ProgramData\Swarm\swarmd.toml";
/// Where the service keeps its state.
#[cfg(windows)]
pub const STATE_DIR: &str = r"C:\ProgramData\Swarm\state";
/// The service's pipe.
#[cfg(windows)]
pub const SOCKET: &str = r"\\.\pipe\swarmd";

/// Why nobody can listen at `socket`, and what to write instead.
#[cfg(not(windows))]
pub(crate) fn socket_fault(socket: &Path) -> Option<(String, &'static str)> {
    /// `sun_path` without its NUL.
    const MOST: usize = 107;
    let len = socket.as_os_str().len();
    (len > MOST).then(|| (format!("the path has {len} bytes; the kernel takes {MOST}"), "a shorter path"))
}

/// Why nobody can listen at `socket`, and what to write instead.
#[cfg(windows)]
pub(crate) fn socket_fault(socket: &Path) -> Option<(String, &'static str)> {
    let name = socket.to_string_lossy();
    let is_pipe = name.to_lowercase().starts_with(r"\\.\pipe\");
    (!is_pipe).then(|| (format!("{name} is not the name of a pipe"), r"socket = '\\.\pipe\swarmd'"))
}
