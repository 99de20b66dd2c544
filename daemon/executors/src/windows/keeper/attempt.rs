//! One attempt while it runs: reads its streams, waits for its root, sees to it that nothing stays.

use std::{
    path::PathBuf,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use swarm_proto::ledger::End;
use swarm_win32::Job;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Child,
    sync::mpsc,
    time::{sleep, timeout},
};

use super::spawn::Order;
use crate::{
    files::{Inputs, Owner, collect, stage},
    protocol::Key,
};

/// Bytes of one read.
const BUFFER: usize = 64 << 10;
/// Between two looks at a job that was ended: the first pause, and the longest.
const ROUND: Duration = Duration::from_millis(1);
const LONGEST_ROUND: Duration = Duration::from_millis(200);
/// How long a stream is still read when all processes are gone. More can come only from a process outside the job.
const DRAIN: Duration = Duration::from_secs(1);

/// What the keeper hears of an attempt.
pub(super) enum Event {
    /// Bytes of standard output (0) or standard error (1).
    Wrote(Key, usize, Vec<u8>),
    /// The whole tree is gone, and both streams were read to their ends.
    Gone(Key, End),
    /// Its inputs are in its directory, or why not.
    Staged(Order, Result<(), String>),
}

/// What an attempt is to leave.
pub(super) struct Leaving {
    /// As declared; or why that is not known.
    pub(super) paths: Result<Vec<String>, String>,
    pub(super) to: PathBuf,
}

/// Everything here runs as the keeper's own user.
struct Keeper;

impl Owner for Keeper {
    fn act<T>(&self, work: impl FnOnce() -> T) -> T {
        work()
    }
}

/// Puts the inputs into an order's directory.
pub(super) async fn bring(order: Order, inputs: Inputs, is_revoked: Arc<AtomicBool>, events: mpsc::Sender<Event>) {
    let staging = tokio::task::spawn_blocking(move || {
        let work = order.work.clone().unwrap_or_default();
        let staged = stage(&inputs, &work, &Keeper, &is_revoked);
        if staged.is_err() {
            let _ = std::fs::remove_dir_all(work);
        }
        Event::Staged(order, staged)
    });
    if let Ok(event) = staging.await {
        let _ = events.send(event).await;
    }
}

/// Follows an attempt to its end. `has_ended` becomes true when all of it is gone and only its files are still to be seen to.
pub(super) async fn follow(
    key: Key,
    mut child: Child,
    (job, has_ended): (Arc<Job>, Arc<AtomicBool>),
    work: Option<PathBuf>,
    leaving: Option<Leaving>,
    events: mpsc::Sender<Event>,
) {
    let stdout = child.stdout.take().map(|stream| tokio::spawn(read(key, 0, stream, events.clone())));
    let stderr = child.stderr.take().map(|stream| tokio::spawn(read(key, 1, stream, events.clone())));
    let mut end = child.wait().await.map_or(End::Lost, end_of);
    clear(&job).await;
    has_ended.store(true, Ordering::Relaxed);
    for mut reading in [stdout, stderr].into_iter().flatten() {
        if timeout(DRAIN, &mut reading).await.is_err() {
            reading.abort();
        }
    }
    if let (Some(work), Some(Leaving { paths, to }), End::Succeeded | End::Exit(_)) = (work.clone(), leaving, &end) {
        let must_be_there = end == End::Succeeded;
        // a kill comes too late for it
        let never = AtomicBool::new(false);
        let take = move |paths: Vec<String>| collect(&paths, must_be_there, &work, &to, &Keeper, &never);
        let taken = tokio::task::spawn_blocking(move || paths.and_then(take)).await;
        // one that failed by itself says no more than that
        if let (Ok(Err(why)), true) = (taken, must_be_there) {
            end = End::Output(why);
        }
    }
    if let Some(work) = work {
        // what cannot be removed now goes when the next keeper begins
        tokio::task::spawn_blocking(|| drop(std::fs::remove_dir_all(work)));
    }
    // the keeper hears it, or is no more
    let _ = events.send(Event::Gone(key, end)).await;
}

fn end_of(status: ExitStatus) -> End {
    match status.code() {
        Some(0) => End::Succeeded,
        Some(code) => End::Exit(code),
        None => End::Lost,
    }
}

/// Ends what the root left behind, and waits until it is gone.
async fn clear(job: &Job) {
    let mut pause = ROUND;
    while job.living().is_ok_and(|count| count > 0) {
        // one that is on its way out already is ended once more, which does nothing
        let _ = job.end();
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_ROUND);
    }
}

async fn read(key: Key, stream: usize, mut pipe: impl AsyncRead + Unpin, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(len) if len > 0 => {
                if events.send(Event::Wrote(key, stream, buffer[..len].to_vec())).await.is_err() {
                    return;
                }
            }
            Ok(_) | Err(_) => return,
        }
    }
}
