//! Everything that only Linux has: the keeper, its client, and clocks that count suspend.

pub(crate) mod exec;
pub mod keeper;
mod protocol;
pub(crate) mod task_user;
mod tree;

use std::{io, path::Path, time::Duration};

use rustix::fd::OwnedFd;
use swarm_proto::UnixMillis;

use crate::Boot;

/// Now, on CLOCK_BOOTTIME.
pub fn boot_now() -> Boot {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Now, for people.
fn wall_now() -> UnixMillis {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    UnixMillis(now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000)
}

/// Longest path that a socket address holds for sure.
const SOCKET_PATH: usize = 100;

/// A name for the socket in `dir` that fits into an address, and what must stay open while it is used.
fn socket_name(dir: &Path) -> io::Result<(std::path::PathBuf, Option<OwnedFd>)> {
    use rustix::{
        fd::AsRawFd,
        fs::{Mode, OFlags, open},
    };
    let path = dir.join("keeper.sock");
    if path.as_os_str().len() <= SOCKET_PATH {
        return Ok((path, None));
    }
    let held = open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((format!("/proc/self/fd/{}/keeper.sock", held.as_raw_fd()).into(), Some(held)))
}

/// What marks a process as a task of the keeper that owns `dir`: random, made once, and in every task's environment.
fn keeper_id(dir: &Path) -> io::Result<String> {
    let path = dir.join("id");
    match std::fs::read_to_string(&path) {
        Ok(id) if id.len() == 32 => return Ok(id),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut random = [0; 16];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let fresh = dir.join(format!("id.{}", std::process::id()));
    std::fs::write(&fresh, &id)?;
    std::fs::rename(&fresh, &path)?;
    Ok(id)
}
