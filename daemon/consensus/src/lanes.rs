//! Where work that blocks on the disk runs: on threads of its own in a daemon, inline in the simulator.
//!
//! The code is the same `async` code in both: a thread drives one future to its end with a small runtime of its own, so a wait for
//! the disk stops nothing else. A simulated disk returns at once and says how long it wants to have taken
//! ([`Disk::pace`](crate::disk::Disk::pace)).

use std::{fmt, sync::Arc, thread};

use tokio::sync::oneshot;

/// How disk work is run.
#[derive(Clone)]
pub enum Lanes {
    /// A thread for each lane. The function runs first on each of them with the lane's name (`log`, `ahead`, `snapshot`): the
    /// place to ask for real-time priority.
    Threads(Arc<dyn Fn(&str) + Send + Sync>),
    /// Tasks of the runtime that starts them; for disks that never block.
    Tasks,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads(_) => "Threads",
            Self::Tasks => "Tasks",
        })
    }
}

impl Lanes {
    /// Threads of ordinary priority.
    pub fn threads() -> Self {
        Self::Threads(Arc::new(|_| ()))
    }

    /// Runs a future to its end on a lane; the receiver resolves when it has ended.
    pub(crate) fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> oneshot::Receiver<()> {
        let (done, ended) = oneshot::channel();
        let work = async move {
            future.await;
            // nobody waits unless it is being shut down
            drop(done);
        };
        match self {
            Self::Tasks => drop(tokio::spawn(work)),
            Self::Threads(on_start) => {
                let on_start = on_start.clone();
                let body = move || {
                    on_start(name);
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                    runtime.expect("a runtime without I/O needs nothing that can be missing").block_on(work);
                };
                thread::Builder::new().name(name.into()).spawn(body).expect("a thread at start");
            }
        }
        ended
    }

    /// Runs a function that blocks, and waits for it without blocking. `None` when it panicked.
    pub(crate) async fn block<R: Send + 'static>(&self, name: &'static str, f: impl FnOnce() -> R + Send + 'static) -> Option<R> {
        match self {
            Self::Tasks => Some(f()),
            Self::Threads(on_start) => {
                let (tx, rx) = oneshot::channel();
                let on_start = on_start.clone();
                let body = move || {
                    on_start(name);
                    // whoever asked may be gone
                    let _ = tx.send(f());
                };
                thread::Builder::new().name(name.into()).spawn(body).ok()?;
                rx.await.ok()
            }
        }
    }
}
