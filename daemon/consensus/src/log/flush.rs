//! The lane "log": makes durable what the engine wrote, in order, everything that waits in one write and one sync.

use std::{collections::VecDeque, io, mem, sync::Arc, time::Duration};

use openraft::storage::IOFlushed;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use super::{
    ahead::{Ahead, Draft, zeroed},
    batch,
    record::{self, Record, State},
    recover::{Recovered, Segment},
};
use crate::{
    disk::{self, Disk, DiskFile},
    engine::{Entry, LogId, Types, Vote},
    health::{Fatal, Full, Vitals},
    wire,
};

/// What the engine wrote.
pub(crate) enum Item {
    Append {
        entries: Vec<Entry>,
        done: IOFlushed<Types>,
    },
    Vote {
        vote: Vote,
        done: oneshot::Sender<io::Result<()>>,
    },
    Truncate(Option<LogId>),
    Purge(LogId),
    Committed(LogId),
    /// Everything before it is to be durable; the lane ends.
    Stop,
}

/// Who waits for the sync.
enum Waiting {
    Entries(IOFlushed<Types>),
    Vote(oneshot::Sender<io::Result<()>>),
}

impl Waiting {
    fn answer(self, result: io::Result<()>) {
        match self {
            Self::Entries(done) => done.io_completed(result),
            // the engine may have been dropped meanwhile
            Self::Vote(done) => drop(done.send(result)),
        }
    }
}

/// A batch is written when its body has reached this size, even though more is waiting.
const ENOUGH: usize = 4 << 20;
/// How long to wait for room on a full disk before trying again.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// No state record is longer.
const STATE: usize = 128;

/// The state of the lane.
pub(super) struct Flusher {
    disk: Arc<dyn Disk>,
    vitals: Arc<Vitals>,
    /// The last segment.
    file: Box<dyn DiskFile>,
    offset: usize,
    capacity: usize,
    /// Length of an ordinary segment.
    segment: usize,
    segments: VecDeque<Segment>,
    epoch: u64,
    sequence: u64,
    /// What the log on the disk comes to.
    state: State,
    /// The next batch: its records, the state after them, the highest index among them, who waits for them.
    body: Vec<u8>,
    after: State,
    highest: Option<u64>,
    waiting: Vec<Waiting>,
    /// A committed index that is not in the log. It goes along with the next batch and never asks for one.
    hint: Option<wire::LogId>,
    /// The batch as it goes to the disk; kept for its memory.
    sectors: Vec<u8>,
}

impl Flusher {
    /// Ready to write after what was recovered; a fresh log gets its first segment.
    pub(super) fn open(disk: Arc<dyn Disk>, segment: usize, found: &Recovered, vitals: Arc<Vitals>) -> io::Result<Self> {
        let mut segments: VecDeque<Segment> = found.segments.iter().copied().collect();
        let (file, capacity) = if let Some(last) = segments.back() {
            (disk.open(&Segment::name(last.first))?, found.capacity)
        } else {
            let name = Segment::name(0);
            disk::replace(&*disk, &name, &[&vec![0; segment]])?;
            segments.push_back(Segment { first: 0, highest: None });
            (disk.open(&name)?, segment)
        };
        let state = State::of(&found.content);
        Ok(Self {
            disk,
            vitals,
            file,
            offset: found.offset,
            capacity,
            segment,
            segments,
            epoch: found.epoch + 1,
            sequence: found.sequence,
            state,
            body: Vec::new(),
            after: state,
            highest: None,
            waiting: Vec::new(),
            hint: None,
            sectors: Vec::new(),
        })
    }

    /// The lane "ahead" of this log.
    pub(super) fn ahead(&self) -> (Ahead, impl Future<Output = ()> + Send + 'static) {
        Ahead::lane(self.disk.clone(), self.vitals.clone(), self.segment)
    }

    /// Works until it is stopped. After a failure every later item fails too: the log never claims durability again.
    pub(super) async fn run(mut self, mut items: mpsc::UnboundedReceiver<Item>, mut ahead: Ahead) {
        let error = loop {
            let Some(item) = items.recv().await else { return };
            match self.turn(item, &mut items, &mut ahead).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => break error.to_string(),
            }
        };
        self.vitals.fail(Fatal::Disk(error.clone()));
        for waiting in mem::take(&mut self.waiting) {
            waiting.answer(Err(io::Error::other(error.clone())));
        }
        while let Some(item) = items.recv().await {
            let error = io::Error::other(error.clone());
            match item {
                Item::Append { done, .. } => done.io_completed(Err(error)),
                Item::Vote { done, .. } => Waiting::Vote(done).answer(Err(error)),
                Item::Truncate(_) | Item::Purge(_) | Item::Committed(_) => {}
                Item::Stop => return,
            }
        }
    }

    /// One item and what else waits; false when it was told to stop.
    async fn turn(&mut self, first: Item, items: &mut mpsc::UnboundedReceiver<Item>, ahead: &mut Ahead) -> io::Result<bool> {
        let mut next = Some(first);
        while let Some(item) = next.take() {
            if matches!(item, Item::Stop) {
                if let Some(hint) = self.hint.take() {
                    self.put(&Record::Committed(hint));
                }
                self.commit(ahead).await?;
                return Ok(false);
            }
            self.take(item, ahead).await?;
            if self.body.len() < ENOUGH {
                next = items.try_recv().ok();
            }
        }
        self.commit(ahead).await?;
        Ok(true)
    }

    async fn take(&mut self, item: Item, ahead: &mut Ahead) -> io::Result<()> {
        match item {
            Item::Append { entries, done } => {
                for entry in &entries {
                    if self.body.len() >= ENOUGH {
                        self.commit(ahead).await?;
                    }
                    self.put(&Record::Entry(entry.into()));
                    self.highest = self.highest.max(Some(entry.log_id.index));
                }
                self.waiting.push(Waiting::Entries(done));
            }
            Item::Vote { vote, done } => {
                self.put(&Record::Vote((&vote).into()));
                self.waiting.push(Waiting::Vote(done));
            }
            Item::Truncate(last) => self.put(&Record::Truncate(last.as_ref().map(Into::into))),
            Item::Purge(upto) => self.put(&Record::Purge((&upto).into())),
            Item::Committed(id) => self.hint = Some((&id).into()),
            Item::Stop => {}
        }
        Ok(())
    }

    fn put(&mut self, record: &Record) {
        record::encode(record, &mut self.body);
        self.after.note(record);
    }

    /// Makes the body durable as one batch, then tells those who wait.
    async fn commit(&mut self, ahead: &mut Ahead) -> io::Result<()> {
        if !self.body.is_empty() {
            if let Some(hint) = self.hint.take() {
                self.put(&Record::Committed(hint));
            }
            self.vitals.set_busy(Some(Instant::now()));
            self.write_batch(ahead).await?;
            self.vitals.set_busy(None);
        }
        for waiting in mem::take(&mut self.waiting) {
            waiting.answer(Ok(()));
        }
        self.drop_purged()
    }

    async fn write_batch(&mut self, ahead: &mut Ahead) -> io::Result<()> {
        let needed = batch::size_on_disk(STATE + self.body.len());
        if self.offset + needed > self.capacity {
            self.rotate(needed, ahead).await?;
        }
        if self.offset == 0 {
            let mut body = Vec::with_capacity(STATE + self.body.len());
            record::encode(&Record::State(self.state), &mut body);
            body.extend_from_slice(&self.body);
            self.body = body;
        }
        batch::encode(self.epoch, self.sequence, &self.body, &mut self.sectors);
        while let Err(error) = self.file.write_at(self.offset as u64, &self.sectors) {
            if !disk::is_full(&error) {
                return Err(error);
            }
            // nothing was acknowledged, and the same bytes go to the same place
            self.vitals.set_full(Full::Log, true);
            sleep(RETRY).await;
        }
        self.vitals.set_full(Full::Log, false);
        let pace = self.disk.pace();
        if !pace.is_zero() {
            sleep(pace).await;
        }
        self.file.sync()?;
        self.vitals.add_written(self.sectors.len());
        self.offset += self.sectors.len();
        self.sequence += 1;
        self.state = self.after;
        self.body.clear();
        let segment = self.segments.back_mut().expect("the segment that was written");
        segment.highest = segment.highest.max(self.highest.take());
        Ok(())
    }

    /// Goes on in the next segment.
    async fn rotate(&mut self, needed: usize, ahead: &mut Ahead) -> io::Result<()> {
        let draft: Draft = if needed <= self.segment {
            ahead.next().await?
        } else {
            zeroed(&*self.disk, &self.vitals, "large.tmp", needed, || false).await?
        };
        let name = Segment::name(self.sequence);
        while let Err(error) = self.disk.rename(&draft.name, &name) {
            if !disk::is_full(&error) {
                return Err(error);
            }
            self.vitals.set_full(Full::Log, true);
            sleep(RETRY).await;
        }
        self.disk.sync_names()?;
        (self.file, self.capacity, self.offset) = (draft.file, draft.len, 0);
        // an empty segment that was too short has been replaced under its own name
        if self.segments.back().is_none_or(|last| last.first != self.sequence) {
            self.segments.push_back(Segment { first: self.sequence, highest: None });
        }
        Ok(())
    }

    /// Removes segments of which a snapshot holds everything. The last one stays: it tells the state.
    fn drop_purged(&mut self) -> io::Result<()> {
        let Some(purged) = self.state.purged else { return Ok(()) };
        while self.segments.len() > 1 && self.offset > 0 && self.segments[0].highest <= Some(purged.index()) {
            self.disk.remove(&Segment::name(self.segments[0].first))?;
            // oldest first, each durably: a hole in the row of segments would be taken for damage
            self.disk.sync_names()?;
            self.segments.pop_front();
        }
        Ok(())
    }
}
