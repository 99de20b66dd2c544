//! Where the daemon's socket is.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The package's socket.
#[cfg(not(windows))]
const PACKAGE: &str = "/run/swarmd/swarmd.sock";
/// The service's pipe.
#[cfg(windows)]
const PACKAGE: &str = r"\\.\pipe\swarmd";

/// `SWARM_SOCKET`; else the package's `/run/swarmd/swarmd.sock` if it is there; else `$XDG_RUNTIME_DIR/swarmd/swarmd.sock`.
/// On Windows the pipe `\\.\pipe\swarmd`.
pub fn default_socket() -> PathBuf {
    choose_socket(|name| std::env::var_os(name).filter(|value| !value.is_empty()), Path::exists)
}

fn choose_socket(variable: impl Fn(&str) -> Option<OsString>, exists: impl Fn(&Path) -> bool) -> PathBuf {
    if let Some(path) = variable("SWARM_SOCKET") {
        return path.into();
    }
    let package = PathBuf::from(PACKAGE);
    match variable("XDG_RUNTIME_DIR") {
        Some(runtime) if !exists(&package) => Path::new(&runtime).join("swarmd").join("swarmd.sock"),
        Some(_) | None => package,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], package_exists: bool) -> String {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        choose_socket(variable, |_| package_exists).display().to_string()
    }

    #[test]
    fn the_variable_wins_then_the_package_then_the_users_own() {
        let both = [("SWARM_SOCKET", "/x.sock"), ("XDG_RUNTIME_DIR", "/run/user/7")];
        assert_eq!(chosen(&both, true), "/x.sock");
        assert_eq!(chosen(&both[1..], true), PACKAGE);
        assert_eq!(chosen(&both[1..], false), "/run/user/7/swarmd/swarmd.sock");
        assert_eq!(chosen(&[], false), PACKAGE);
    }
}
