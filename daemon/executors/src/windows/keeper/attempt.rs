//! One attempt while it runs: reads its streams, waits for its root, sees to it that nothing stays.

use std::{path::PathBuf, process::ExitStatus, sync::Arc, time::Duration};

use swarm_proto::ledger::End;
use swarm_win32::Job;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Child,
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::protocol::Key;

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
}

/// Follows an attempt to its end.
pub(super) async fn follow(key: Key, mut child: Child, job: Arc<Job>, work: Option<PathBuf>, events: mpsc::Sender<Event>) {
    let stdout = child.stdout.take().map(|stream| tokio::spawn(read(key, 0, stream, events.clone())));
    let stderr = child.stderr.take().map(|stream| tokio::spawn(read(key, 1, stream, events.clone())));
    let end = child.wait().await.map_or(End::Lost, end_of);
    clear(&job).await;
    for mut reading in [stdout, stderr].into_iter().flatten() {
        if timeout(DRAIN, &mut reading).await.is_err() {
            reading.abort();
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
