//! Everything that only Windows has: the keeper, the way to it, clocks that count suspend.

pub(crate) mod below;
pub mod keeper;
mod pipe;

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use swarm_proto::UnixMillis;
use swarm_win32::Job;
use tokio::{
    io::{ReadHalf, WriteHalf},
    net::windows::named_pipe::{ClientOptions, NamedPipeClient},
    process::Command,
};

use crate::{Boot, KeeperAt, id::keeper_id};

/// Where the driver reads what the keeper says.
pub(crate) type Reading = ReadHalf<NamedPipeClient>;
/// Where the driver writes to the keeper.
pub(crate) type Writing = WriteHalf<NamedPipeClient>;

/// What system calls say when every instance of a pipe has its client.
const ALL_TAKEN: i32 = 231;
/// The new process has a console, which nobody sees.
const NO_WINDOW: u32 = 0x0800_0000;

/// Now, on a clock that counts suspend.
pub fn boot_now() -> Boot {
    swarm_win32::since_boot()
}

/// Now, for people.
pub(crate) fn wall_now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The keeper's pipe. Its id is random and in a directory that only we can read: nobody else can have taken the name.
fn pipe_name(id: &str) -> String {
    format!(r"\\.\pipe\swarm-keeper-{id}")
}

/// The job of a keeper and all that it began.
fn job_name(id: &str) -> String {
    format!(r"Local\swarm-keeper-{id}")
}

/// Makes the keeper's directory.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    swarm_win32::make_private(dir)?;
    fs::create_dir_all(dir.join("attempts"))
}

/// Bytes of the disk that holds `dir`.
pub(crate) fn disk_size(dir: &Path) -> io::Result<u64> {
    swarm_win32::space_of(dir).map(|space| space.total)
}

/// Connects to the keeper of `dir`.
pub(crate) async fn dial(at: &KeeperAt, dir: &Path) -> io::Result<(Reading, Writing)> {
    let name = match at {
        KeeperAt::Program(_) => pipe_name(&keeper_id(dir)?).into(),
        KeeperAt::Socket(path) => path.clone(),
    };
    let mut tries = 0;
    loop {
        match ClientOptions::new().open(&name) {
            Ok(pipe) => return Ok(tokio::io::split(pipe)),
            Err(e) if e.raw_os_error() == Some(ALL_TAKEN) && tries < 100 => tries += 1,
            Err(e) => return Err(e),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Not looked at here: writing tells it.
pub(crate) const fn free_space(_: &Path) -> Option<u64> {
    None
}

/// What to start as the keeper: a copy of `program` in its own directory. A running program cannot be replaced, and an upgrade is
/// to replace ours while tasks run.
pub(crate) fn kept_program(program: &OsStr, dir: &Path) -> PathBuf {
    let copy = dir.join("swarm-keeper.exe");
    // a keeper that is just ending still has it; then an upgrade waits for this one
    if fs::copy(program, &copy).is_ok() { copy } else { program.into() }
}

/// Prepares the keeper to live apart from this process: with a console of its own that no window shows, which its tasks share.
pub(crate) fn set_apart(command: &mut Command) {
    command.creation_flags(NO_WINDOW);
}

/// Ends the keeper of `dir` and all that it began, and waits until it has let go of the directory. How many jobs that were.
pub(crate) fn clear_orphans(dir: &Path, id: Option<&str>) -> io::Result<usize> {
    let found = id.map_or(Ok(false), |id| Job::end_named(&job_name(id)))?;
    let lock = keeper::lock_file(dir)?;
    let waited = std::time::Instant::now();
    while let Err(error) = lock.try_lock() {
        if waited.elapsed() > keeper::DEATH_TIME {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(usize::from(found))
}
