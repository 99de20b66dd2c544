//! The keeper: the parent of all tasks of a node, so that the daemon need not be.
//!
//! ```text
//!   daemon --pipe--> one task <--events-- one task an attempt: its streams, its process, its job
//!
//!   job of the keeper ( keeper, job of an attempt ( root, what it started .. ), job of an attempt ( .. ) .. )
//! ```
//! **It ends what it began.** Each attempt's root is made suspended, put into a job of its own and only then let run, so
//! nothing that it starts is ever outside; no process can leave a job. An attempt has ended when its root and all that came
//! from it are gone, and only then is its outcome told. The keeper itself is in a job that ends with the keeper, however it
//! ends, and with it everything below.
//!
//! **It never waits for the daemon**, and outlives it by no more than the lease, as its twin on Linux does, in whose words it
//! speaks. It is simpler and slower: an attempt costs milliseconds here, which is what making a process costs on Windows.
//!
//! Ending: cancel and timeout send Ctrl-Break to the root's process group, then end the job after [`GRACE`]; a lease's end does
//! so at once.

mod attempt;
mod spawn;
mod state;

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use swarm_win32::Job;

use super::{job_name, pipe_name};
use crate::id::keeper_id;

/// Held by the keeper that owns the directory.
const LOCK: &str = "keeper.lock";
/// Between Ctrl-Break and the job's end.
const GRACE: Duration = Duration::from_secs(2);
/// Without a word from a daemon.
const DEFAULT_LEASE: Duration = Duration::from_secs(3);
/// How long a keeper whose job was ended may take to let go of its directory.
pub(super) const DEATH_TIME: Duration = Duration::from_secs(4);

/// The keeper cannot begin, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Another keeper has the directory.
    #[error("another keeper owns {}", .0.display())]
    Taken(PathBuf),
    /// The system refused something it needs.
    #[error("{what}: {error}")]
    System { what: &'static str, error: io::Error },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> KeeperError {
    move |error| KeeperError::System { what, error }
}

pub(super) fn lock_file(dir: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(dir.join(LOCK))
}

/// Serves the daemon that owns `dir` until there is nothing left to do. The process must be the keeper's own.
///
/// # Errors
/// [`KeeperError::Taken`] when `dir` has a keeper; `System` with what failed.
pub fn main(dir: &Path) -> Result<(), KeeperError> {
    let lock = lock_file(dir).map_err(system("opening the lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(KeeperError::Taken(dir.to_owned())),
        Err(TryLockError::Error(error)) => return Err(system("locking")(error)),
    }
    let id = keeper_id(dir).map_err(system("reading the keeper's id"))?;
    let job = Job::create(Some(&job_name(&id))).map_err(system("making the keeper's job"))?;
    job.adopt_this_process().map_err(system("entering the keeper's job"))?;
    // its last handle is to close with the process and not before
    std::mem::forget(job);
    let work = dir.join("work");
    // leftovers of a keeper that was killed
    let _ = fs::remove_dir_all(&work);
    for path in [&work, &dir.join("attempts")] {
        fs::create_dir_all(path).map_err(system("making a directory"))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system("starting the runtime"))?;
    let served = runtime.block_on(async {
        let keeper = state::Keeper::new(dir, &id).map_err(system("setting up"))?;
        keeper.run().await.map_err(system("waiting for the daemon"))
    });
    runtime.shutdown_background();
    drop(lock);
    served
}

/// Ends the keeper of `dir` and every task it has, at once. For whoever throws a state directory away.
pub fn end(dir: &Path) {
    if let (true, Ok(id)) = (dir.join(LOCK).exists(), keeper_id(dir)) {
        let _ = super::clear_orphans(dir, Some(&id));
    }
}
