//! A daemon whose disk is slow.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// A program below `dir` that runs `swarmd` and holds up each of its syncs for so long. Needs `strace`.
pub(super) fn program(dir: &Path, swarmd: &Path, delay: Duration) -> anyhow::Result<PathBuf> {
    let path = dir.join("slow-swarmd");
    let syncs = "fsync,fdatasync";
    // no other system call stops for it; the daemon is the child, and not the tracer
    let text = format!(
        "#!/bin/sh\nexec strace -D --seccomp-bpf -f -qqq -o /dev/null -e trace={syncs} -e inject={syncs}:delay_exit={} '{}' \"$@\"\n",
        delay.as_micros(),
        swarmd.display(),
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
