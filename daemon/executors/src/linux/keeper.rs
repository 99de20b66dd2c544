//! The keeper: the parent of all tasks of a node, so that the daemon need not be.
//!
//! ```text
//!   daemon --socket--> main thread --queue--> spawning threads --posix_spawn--> roots (each its own process group)
//!                        ^  epoll: socket, pidfds, pipes, lease timer                |
//!                        '------ orphans of tasks become its children <-------------'
//! ```
//! **It ends what it began.** Each task's root leads a process group; whatever else the task starts descends from it. The
//! keeper is a sub-reaper, so what daemonises becomes its child instead of init's and can be found ([`super::tree`]). An
//! attempt has ended when its root *and* all that came from it are gone, and only then is its outcome told.
//!
//! **The plain path is cheap.** Roots are children of the spawning threads, orphans become children of the main thread. So
//! `waitid(__WNOTHREAD)` on the main thread answers in one system call whether any orphan lives, and /proc is read only if one
//! does. Pipes of a task younger than [`TICK`] are not watched: a short task costs the main thread one wake-up, at its exit.
//!
//! **It never waits for the daemon.** Outcomes queue until they are taken; the oldest chunks of output give way when the
//! socket is full, for the daemon can read the file. When the daemon is gone the keeper goes on until the lease ends, kills everything, and
//! exits. While the daemon is there but silent (stopped, hung), attempts that must not outlive their lease die at its end.
//!
//! **As whom.** A keeper may run tasks as another user ([`super::task_user`]); it then runs as a service of its own, which the
//! daemon can reach but not start: the daemon stays without any power over users. Such a keeper is handed its socket.
//!
//! Ending: cancel and timeout send SIGTERM to the whole tree, then SIGKILL after [`GRACE`]; a lease's end kills at once.

mod capture;
mod ending;
mod porter;
mod spawn;
mod state;

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt, net::UnixListener},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use self::spawn::Spawner;
use super::{
    keeper_id, socket_name,
    task_user::{TaskUser, acting_as},
    tree,
};
use crate::{files::make_private, link};

/// Held by the keeper that owns the directory; holds its pid.
pub(crate) const LOCK: &str = "keeper.lock";
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// How old an attempt is when it is said to run and its pipes are watched.
const TICK: Duration = Duration::from_millis(5);
/// Without a word from a daemon.
const DEFAULT_LEASE: Duration = Duration::from_secs(3);

/// The keeper cannot begin, or cannot go on. Its tasks, if there are any, are killed by whoever next uses the directory.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Another keeper has the directory.
    #[error("another keeper owns {}", .0.display())]
    Taken(PathBuf),
    /// The system refused something it needs.
    #[error("{what}: {error}")]
    System { what: &'static str, error: io::Error },
}

fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> KeeperError {
    move |error| KeeperError::System { what, error: error.into() }
}

/// What a keeper is begun with.
#[derive(Debug)]
pub struct Start {
    /// The daemon's directory for it.
    pub dir: PathBuf,
    /// As whom tasks run; `None`: as the keeper does.
    pub user: Option<TaskUser>,
    /// A socket that somebody else listens on for it; `None`: its own, in `dir`.
    pub listener: Option<UnixListener>,
}

/// The socket that a service manager put in the place of standard input, if there is one.
pub fn listener_on_stdin() -> Option<UnixListener> {
    use rustix::fd::AsFd;
    let stdin = io::stdin();
    let listens = rustix::net::sockopt::socket_acceptconn(stdin.as_fd()).unwrap_or(false);
    listens.then(|| stdin.as_fd().try_clone_to_owned().ok().map(UnixListener::from)).flatten()
}

/// Serves the daemon that owns the directory until there is nothing left to do. To be called on a process's main thread with no
/// other thread running; the process must be the keeper's own.
///
/// # Errors
/// [`KeeperError::Taken`] when the directory has a keeper; `System` with what failed.
pub fn main(start: Start) -> Result<(), KeeperError> {
    let Start { dir, user, listener } = start;
    let handed = listener.as_ref().and_then(|listener| listener.try_clone().ok());
    let served = serve(&dir, user, listener);
    if let (Err(_), Some(handed)) = (&served, handed) {
        turn_away(&handed);
    }
    served
}

/// For a keeper that cannot begin: whoever waits at its socket hears that there is none, and is not the reason to start the next
/// one at once.
pub fn turn_away(listener: &UnixListener) {
    let _ = listener.set_nonblocking(true).map(|()| listener.accept());
}

fn serve(dir: &Path, user: Option<TaskUser>, listener: Option<UnixListener>) -> Result<(), KeeperError> {
    make_private(dir).map_err(system("making the directory"))?;
    let lock = lock(dir)?;
    // fails where the caller made us a leader already
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(system("becoming a sub-reaper"))?;
    let id = keeper_id(dir).map_err(system("reading the keeper's id"))?;
    tree::kill_orphans(&id, None);
    if let Some(user) = &user {
        user.prepare().map_err(system("becoming able to run tasks as another user"))?;
        tree::kill_orphans(&id, Some(user));
    }
    let work = make_work(dir, &id, user.as_ref())?;
    make_private(&dir.join("attempts")).map_err(system("making a directory"))?;
    let is_own = listener.is_none();
    let listener = listener.map_or_else(|| bind(dir), Ok)?;
    let keeper = state::Keeper::new(dir, Spawner::base(work, id, user), listener).map_err(system("setting up"))?;
    let served = keeper.run().map_err(system("waiting for events"));
    if is_own {
        let _ = fs::remove_file(dir.join("keeper.sock"));
    }
    drop(lock);
    served
}

/// The directory of working directories, without the leftovers of a keeper that was killed. Those are removed aside: there may be many.
fn make_work(dir: &Path, id: &str, user: Option<&TaskUser>) -> Result<PathBuf, KeeperError> {
    let work = user.map_or_else(|| dir.join("work"), |user| user.work_dir(id));
    let make = || {
        if set_aside(&work).is_err_and(|e| e.kind() != io::ErrorKind::NotFound) {
            let _ = fs::remove_dir_all(&work);
        }
        make_private(&work)
    };
    acting_as(user, make).map_err(|error| {
        let why = user.map_or_else(|| error.to_string(), |user| user.explain_home(&error));
        system("making the directory of working directories")(io::Error::new(error.kind(), why))
    })?;
    let (aside, user) = (work.clone(), user.cloned());
    let remove = move || acting_as(user.as_ref(), || remove_aside(&aside));
    // without a thread they stay until the next keeper begins
    let _ = std::thread::Builder::new().name("remove".into()).spawn(remove);
    Ok(work)
}

/// What the names of directories begin with that were `work` once.
fn gone(work: &Path) -> OsString {
    let mut name = work.file_name().unwrap_or_default().to_owned();
    name.push(".gone-");
    name
}

/// Gives the directory a name under which nobody looks for it.
fn set_aside(work: &Path) -> io::Result<()> {
    let mut name = gone(work);
    // an earlier keeper may have had our pid, and no two the same moment
    name.push(format!("{}-{}", std::process::id(), super::boot_now().as_nanos()));
    fs::rename(work, work.with_file_name(name))
}

/// Removes what was set aside, now or by earlier keepers.
fn remove_aside(work: &Path) {
    let prefix = gone(work);
    let entries = work.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().as_bytes().starts_with(prefix.as_bytes())) {
        // what cannot be removed is in nobody's way
        let _ = fs::remove_dir_all(entry.path());
    }
}

fn bind(dir: &Path) -> Result<UnixListener, KeeperError> {
    let (name, held) = socket_name(dir).map_err(system("opening the directory"))?;
    let _ = fs::remove_file(dir.join("keeper.sock"));
    let listener = UnixListener::bind(&name).map_err(system("binding the socket"))?;
    drop(held);
    Ok(listener)
}

/// Ends the keeper of `dir` and every task it has, at once. For whoever throws a state directory away.
pub fn end(dir: &Path) {
    let is_held = || {
        let file = File::options().write(true).open(dir.join(LOCK));
        file.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK))
    };
    // the pid is the keeper's for as long as it holds the lock
    let pid = fs::read_to_string(dir.join(LOCK)).ok().and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid.filter(|_| is_held()) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    if dir.join(LOCK).exists()
        && let Ok(id) = keeper_id(dir)
    {
        tree::kill_orphans(&id, None);
    }
}

fn lock(dir: &Path) -> Result<File, KeeperError> {
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK)).map_err(system("opening the lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(KeeperError::Taken(dir.to_owned())),
        Err(error) => return Err(system("locking")(error)),
    }
    file.set_len(0)
        .and_then(|()| io::Write::write_all(&mut &file, std::process::id().to_string().as_bytes()))
        .map_err(system("locking"))?;
    Ok(file)
}
