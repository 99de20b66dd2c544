//! Reads a log back. Nothing is written before all of it was found sound.

use std::io;

use super::{
    batch::{self, Found},
    content::Content,
    record::{self, Record},
};
use crate::{StartError, disk::Disk};

/// A segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Sequence of its first batch; its name.
    pub(super) first: u64,
    /// The highest index among its entries.
    pub(super) highest: Option<u64>,
}

impl Segment {
    pub(super) fn name(first: u64) -> String {
        format!("{first:012}.log")
    }
}

/// What a log was found to be.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(super) content: Content,
    /// Oldest first.
    pub(super) segments: Vec<Segment>,
    /// Where the next batch goes in the last segment, and how long that is.
    pub(super) offset: usize,
    pub(super) capacity: usize,
    /// Of the next batch.
    pub(super) sequence: u64,
    /// Of the last batch.
    pub(super) epoch: u64,
    /// The last batch of the last segment: from, to.
    last: Option<(usize, usize)>,
    /// Remains of a batch that was in flight in the last segment: from, to.
    torn: Option<(usize, usize)>,
    /// Files that were being made.
    drafts: Vec<String>,
}

/// Reads all segments.
pub(super) fn scan(disk: &dyn Disk) -> Result<Recovered, StartError> {
    let names = disk.list().map_err(|source| StartError::Io { what: "the log's directory cannot be read".into(), source })?;
    let mut found = Recovered { drafts: names.iter().filter(|n| n.ends_with(".tmp")).cloned().collect(), ..Recovered::default() };
    let mut firsts: Vec<u64> = names.iter().filter_map(|n| n.strip_suffix(".log")?.parse().ok()).collect();
    firsts.sort_unstable();
    for first in firsts {
        let name = Segment::name(first);
        let bytes = disk.read(&name).map_err(|source| StartError::Io { what: format!("{name} cannot be read"), source })?;
        let bytes = bytes.ok_or_else(|| damaged(&name, 0, "it vanished while the log was read"))?;
        found.scan_segment(first, &bytes)?;
    }
    found.check()?;
    Ok(found)
}

fn damaged(file: &str, offset: usize, why: impl Into<String>) -> StartError {
    StartError::Damaged { file: file.into(), offset: offset as u64, why: why.into() }
}

impl Recovered {
    fn scan_segment(&mut self, first: u64, bytes: &[u8]) -> Result<(), StartError> {
        let name = Segment::name(first);
        if let Some(before) = self.segments.last() {
            let before = Segment::name(before.first);
            if self.torn.is_some() {
                return Err(damaged(&before, self.offset, format!("a hole, although {name} comes after it")));
            }
            if self.sequence != first {
                let why = format!("it ends with batch {}, and the next segment is {name}", self.sequence.wrapping_sub(1));
                return Err(damaged(&before, self.offset, why));
            }
        }
        self.sequence = first;
        self.segments.push(Segment { first, highest: None });
        (self.offset, self.capacity, self.last) = (0, bytes.len(), None);
        loop {
            match batch::read(bytes, self.offset, self.sequence, self.epoch) {
                Found::Batch(batch) => {
                    self.replay(&name, &batch.body)?;
                    self.last = Some((self.offset, batch.end));
                    (self.offset, self.epoch) = (batch.end, batch.epoch);
                    self.sequence += 1;
                }
                Found::End => return Ok(()),
                Found::Torn { to } => {
                    self.torn = Some((self.offset, to));
                    return Ok(());
                }
                Found::Damaged { at, why } => return Err(damaged(&name, at, why)),
                Found::Newer { format } => return Err(StartError::Newer { file: name, found: format, known: batch::FORMAT }),
            }
        }
    }

    fn replay(&mut self, name: &str, body: &[u8]) -> Result<(), StartError> {
        let offset = self.offset;
        let at = |why: String| damaged(name, offset, why);
        let mut records = record::decode(body).map_err(at)?.into_iter();
        if offset == 0 {
            let Some(Record::State(state)) = records.next() else {
                return Err(at("a segment that does not begin with the state before it".into()));
            };
            if self.segments.len() == 1 {
                self.content = state.content();
            } else if !state.continues(&mut self.content) {
                return Err(at("a segment that does not follow the one before it".into()));
            }
        }
        let segment = self.segments.last_mut().expect("the segment being read");
        for record in records {
            if let Record::Entry(entry) = &record {
                segment.highest = segment.highest.max(Some(entry.id.index()));
            }
            record::replay(record, &mut self.content).map_err(at)?;
        }
        Ok(())
    }

    /// What only the whole log shows.
    fn check(&mut self) -> Result<(), StartError> {
        let Some(oldest) = self.segments.first() else { return Ok(()) };
        if !self.content.is_covered() {
            return Err(damaged(&Segment::name(oldest.first), 0, "segments before it are missing"));
        }
        if self.sequence == oldest.first && oldest.first > 0 {
            return Err(damaged(&Segment::name(oldest.first), 0, "it is empty, and the segments before it are missing"));
        }
        let last = self.content.last();
        if self.content.committed > last {
            self.content.committed = last;
        }
        Ok(())
    }

    /// Makes what was read durable, trims the torn tail, removes drafts.
    ///
    /// After a kill, what was read may sit in the host's cache alone. This voter will answer for it from now on, so it must not
    /// vanish with the power later. A sync alone is not enough for the last batch: where one has failed before, the host takes what
    /// it could not write for clean, shows it to whoever reads, and writes it never. So it is written again; it is one batch, because
    /// there is never more than one in flight and none after a failure.
    pub(super) fn clean(&self, disk: &dyn Disk) -> io::Result<()> {
        for draft in &self.drafts {
            disk.remove(draft)?;
        }
        if let Some(segment) = self.segments.last() {
            let name = Segment::name(segment.first);
            let mut file = disk.open(&name)?;
            if let Some((from, to)) = self.last
                && let Some(bytes) = disk.read(&name)?
            {
                file.write_at(from as u64, &bytes[from..to])?;
            }
            if let Some((from, to)) = self.torn {
                tracing::warn!(file = name, from, to, "trimmed a batch that was being written when the power went; nobody was told of it");
                file.write_at(from as u64, &vec![0; to - from])?;
            }
            file.sync()?;
        }
        disk.sync_names()
    }
}
