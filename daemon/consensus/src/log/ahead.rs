//! The lane "ahead": keeps one segment of zeros ready, so that no append waits while a file grows.

use std::{io, sync::Arc};

use tokio::{sync::mpsc, time::sleep};

use super::flush::RETRY;
use crate::{
    disk::{self, Disk, DiskFile},
    health::{Fatal, Full, Vitals},
};

/// Zeros are written and synced in pieces, so that a sync of the log never waits behind a whole segment.
const PIECE: usize = 256 << 10;

/// A segment without a name: all zeros, durable.
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) file: Box<dyn DiskFile>,
    pub(super) len: usize,
}

/// Where the next segment comes from.
pub(super) struct Ahead(mpsc::Receiver<io::Result<Draft>>);

impl Ahead {
    /// A queue of one, and the work that fills it.
    pub(super) fn lane(disk: Arc<dyn Disk>, vitals: Arc<Vitals>, len: usize) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (tx, rx) = mpsc::channel(1);
        let work = async move {
            let mut made = 0u64;
            loop {
                let Ok(permit) = tx.reserve().await else { return };
                made += 1;
                let draft = zeroed(&*disk, &vitals, &format!("ahead-{made}.tmp"), len, || tx.is_closed()).await;
                if let Err(error) = &draft
                    && !disk::is_full(error)
                {
                    // nothing counts on it yet, but a disk that does not take this one will not take the next batch
                    vitals.fail(Fatal::Disk(format!("a segment of the log cannot be made: {error}")));
                }
                let is_over = draft.is_err();
                permit.send(draft);
                if is_over {
                    return;
                }
            }
        };
        (Self(rx), work)
    }

    /// Waits for it while the disk is full.
    pub(super) async fn next(&mut self) -> io::Result<Draft> {
        self.0.recv().await.unwrap_or_else(|| Err(io::Error::other("no segment is made any more")))
    }
}

/// Makes a file of zeros; waits for room, but not when `is_over`.
pub(super) async fn zeroed(
    disk: &dyn Disk,
    vitals: &Vitals,
    name: &str,
    len: usize,
    is_over: impl Fn() -> bool + Send,
) -> io::Result<Draft> {
    loop {
        match try_zeroed(disk, name, len).await {
            Err(error) if disk::is_full(&error) && !is_over() => {
                vitals.set_full(Full::Ahead, true);
                // room for what needs it more
                let _ = disk.remove(name);
                sleep(RETRY).await;
            }
            other => {
                vitals.set_full(Full::Ahead, false);
                return other;
            }
        }
    }
}

async fn try_zeroed(disk: &dyn Disk, name: &str, len: usize) -> io::Result<Draft> {
    let mut file = disk.open(name)?;
    let zeros = vec![0; PIECE.min(len)];
    for offset in (0..len).step_by(PIECE) {
        file.write_at(offset as u64, &zeros[..PIECE.min(len - offset)])?;
        let pace = disk.pace();
        if !pace.is_zero() {
            sleep(pace).await;
        }
        file.sync()?;
    }
    Ok(Draft { name: name.into(), file, len })
}
