//! The log as the engine uses it.

use std::{
    fmt, io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use swarm_proto::limits;
use tokio::sync::{mpsc, oneshot};

use super::{
    content::{Content, weight},
    flush::{Flusher, Item},
};
use crate::{
    engine::{Entry, LogId, Types, Vote},
    lanes::Lanes,
};

/// A handle on the log; clones are the same log.
#[derive(Clone)]
pub(crate) struct Store(Arc<Shared>);

struct Shared {
    content: Mutex<Content>,
    items: mpsc::UnboundedSender<Item>,
    /// Resolve when the lanes have ended.
    lanes: Mutex<Vec<oneshot::Receiver<()>>>,
}

impl Store {
    pub(super) fn start(content: Content, flusher: Flusher, lanes: &Lanes) -> Self {
        let (items, rx) = mpsc::unbounded_channel();
        let (ahead, work) = flusher.ahead();
        let lanes = vec![lanes.spawn("ahead", work), lanes.spawn("log", flusher.run(rx, ahead))];
        Self(Arc::new(Shared { content: Mutex::new(content), items, lanes: Mutex::new(lanes) }))
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, item: Item) -> io::Result<()> {
        self.0.items.send(item).map_err(|_| io::Error::other("the log is closed"))
    }

    /// Looks at the log.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Content) -> R) -> R {
        f(&self.content())
    }

    /// Makes everything durable and ends the lanes.
    pub(crate) async fn close(&self) {
        if self.send(Item::Stop).is_ok() {
            let lanes = std::mem::take(&mut *self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner));
            for ended in lanes {
                // an error is the end itself: the sender is dropped
                let _ = ended.await;
            }
        }
    }
}

fn start_of(range: &impl RangeBounds<u64>) -> u64 {
    match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i + 1,
        Bound::Unbounded => 0,
    }
}

fn end_of(range: &impl RangeBounds<u64>) -> u64 {
    match range.end_bound() {
        Bound::Included(i) => i.saturating_add(1),
        Bound::Excluded(i) => *i,
        Bound::Unbounded => u64::MAX,
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend,
    {
        Ok(self.content().range(start_of(&range)..end_of(&range)).cloned().collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.content().vote)
    }

    /// At least one entry, and no more than fit into one append frame.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut bytes = 0;
        let content = self.content();
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += weight(entry) + FRAME_ENTRY;
            is_first || bytes <= limits::LOG_ENTRY
        };
        Ok(content.range(start..end).take_while(fits).cloned().collect())
    }
}

/// What an entry takes in a frame beside its batch, at most; a membership of a few dozen nodes included.
pub(crate) const FRAME_ENTRY: usize = 64;

impl RaftLogStorage<Types> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let content = self.content();
        Ok(LogState { last_purged_log_id: content.purged, last_log_id: content.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.content().vote = Some(*vote);
        let (done, durable) = oneshot::channel();
        self.send(Item::Vote { vote: *vote, done })?;
        durable.await.unwrap_or_else(|_| Err(io::Error::other("the log is closed")))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.content().committed = committed;
        committed.map_or(Ok(()), |id| self.send(Item::Committed(id)))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.content().committed)
    }

    /// Returns at once; the entries are readable, and `done` hears when they are durable.
    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut content = self.content();
            for entry in &entries {
                if !content.push(entry.clone()) {
                    return Err(io::Error::other(format!("entry {} where {} belongs", entry.log_id.index, content.next())));
                }
            }
        }
        self.send(Item::Append { entries, done })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.content().truncate(last);
        self.send(Item::Truncate(last))
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.content().purge(upto);
        self.send(Item::Purge(upto))
    }
}
