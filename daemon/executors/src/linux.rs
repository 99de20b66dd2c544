//! Everything that only Linux has: the keeper, the way to it, clocks that count suspend.

pub(crate) mod below;
pub mod keeper;
pub(crate) mod task_user;
pub(crate) mod tree;

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fd::OwnedFd,
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};
use swarm_proto::UnixMillis;

use crate::{Boot, KeeperAt, id::keeper_id, protocol};

/// Now, on CLOCK_BOOTTIME.
pub fn boot_now() -> Boot {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Now, for people.
pub(crate) fn wall_now() -> UnixMillis {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    UnixMillis(now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000)
}

/// Longest path that a socket address holds for sure.
const SOCKET_PATH: usize = 100;

/// A name for the socket in `dir` that fits into an address, and what must stay open while it is used.
fn socket_name(dir: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
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

/// Where the driver reads what the keeper says.
pub(crate) type Reading = tokio::net::unix::OwnedReadHalf;
/// Where the driver writes to the keeper.
pub(crate) type Writing = tokio::net::unix::OwnedWriteHalf;

/// Connects to the keeper of `dir`.
pub(crate) async fn dial(at: &KeeperAt, dir: &Path) -> io::Result<(Reading, Writing)> {
    let (name, held) = match at {
        KeeperAt::Program(_) => socket_name(dir)?,
        KeeperAt::Socket(path) => (path.clone(), None),
    };
    let stream = tokio::net::UnixStream::connect(name).await?;
    drop(held);
    // of a service's socket, its manager is the owner
    let owner = stream.peer_cred()?.uid();
    if owner != rustix::process::geteuid().as_raw() && !(owner == 0 && matches!(at, KeeperAt::Socket(_))) {
        return Err(io::Error::other("its socket belongs to another user"));
    }
    Ok(stream.into_split())
}

/// Makes the keeper's directory.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join("attempts"))
}

/// Bytes of the disk that holds `dir`.
pub(crate) fn disk_size(dir: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok(disk.f_blocks * disk.f_frsize)
}

/// Bytes that may still be written where `dir` is; `None`: that cannot be told.
pub(crate) fn free_space(dir: &Path) -> Option<u64> {
    rustix::fs::statvfs(dir).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// What to start as the keeper: the program itself, which may be replaced while it runs.
pub(crate) fn kept_program(program: &OsStr, _: &Path) -> PathBuf {
    program.into()
}

/// Prepares the keeper to live apart from this process, which it does by itself here.
pub(crate) const fn set_apart(_: &mut tokio::process::Command) {}

/// How long a keeper whose connection broke may take to let go of its directory.
const DEATH_TIME: Duration = Duration::from_secs(2);

/// Waits until no keeper owns `dir`, helping one along that does not let go, and kills what it left there, where that is ours to do.
pub(crate) fn clear_orphans(dir: &Path, id: Option<&str>) -> io::Result<usize> {
    let lock = std::fs::File::options().create(true).truncate(false).write(true).open(dir.join(keeper::LOCK))?;
    let waited = std::time::Instant::now();
    while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK || waited.elapsed() > 2 * DEATH_TIME {
            return Err(error.into());
        }
        if waited.elapsed() > DEATH_TIME {
            // who holds the lock has written its pid into it
            let holder = std::fs::read_to_string(dir.join(keeper::LOCK)).ok().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
            let _ = holder.map(|holder| kill_process(holder, Signal::KILL));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(id.map_or(0, |id| tree::kill_orphans(id, None)))
}
