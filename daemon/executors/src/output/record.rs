//! What one attempt wrote to one of its streams: the head for the ledger, the kept part for readers, the count of all.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::PathBuf,
};

use swarm_proto::limits::{INLINE_RESULT, KEPT_OUTPUT};

use super::kept::{self, Written};
use crate::host::free_space;

/// Beyond [`KEPT_OUTPUT`], the disk is looked at each time that so much more was kept ..
const LOOK: u64 = 16 << 20;
/// .. and must have room for all of it once more, as a blob, and so much besides.
const SPARE: u64 = 256 << 20;

enum Kept {
    /// Nothing was written yet.
    Unmade(PathBuf),
    /// Where to look for room, and the file.
    Open(PathBuf, File),
    /// Full, or the disk refused: what follows is only counted.
    Closed,
}

/// Where bytes that were taken stand in their stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) offset: u64,
    /// Line ends before them.
    pub(crate) lines: u64,
    /// Whether they and all before them are in the file.
    pub(crate) is_kept: bool,
}

pub(crate) struct Record {
    kept: Kept,
    /// Most bytes in the file.
    limit: u64,
    /// How many may be in it before the disk is looked at.
    looked: u64,
    head: Vec<u8>,
    written: Written,
}

impl Record {
    /// Into the file `path`, which is made with the first byte, and gets at most `limit` of them.
    pub(crate) const fn new(path: PathBuf, limit: u64) -> Self {
        Self {
            kept: Kept::Unmade(path),
            limit,
            looked: KEPT_OUTPUT,
            head: Vec::new(),
            written: Written { bytes: 0, lines: 0, kept_bytes: 0, crc: 0 },
        }
    }

    pub(crate) const fn written(&self) -> Written {
        self.written
    }

    pub(crate) fn take_head(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.head)
    }

    pub(crate) fn take(&mut self, data: &[u8]) -> Taken {
        let (offset, lines) = (self.written.bytes, self.written.lines);
        let head = INLINE_RESULT.saturating_sub(self.head.len()).min(data.len());
        self.head.extend_from_slice(&data[..head]);
        self.keep(data);
        self.written.bytes += data.len() as u64;
        self.written.lines += data.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        Taken { offset, lines, is_kept: self.written.kept_bytes == self.written.bytes }
    }

    /// Appends what still fits. A disk that refuses ends the keeping, not the task.
    fn keep(&mut self, data: &[u8]) {
        if let Kept::Unmade(path) = &self.kept {
            let made = File::options().create(true).truncate(true).write(true).open(path);
            self.kept = made.map_or(Kept::Closed, |file| Kept::Open(path.clone(), file));
        }
        let Kept::Open(path, file) = &mut self.kept else { return };
        let Written { kept_bytes: kept, crc, .. } = &mut self.written;
        let mut room = usize::try_from(self.limit - *kept).unwrap_or(usize::MAX).min(data.len());
        if *kept + room as u64 > self.looked {
            let has_room = free_space(path).is_none_or(|free| free >= *kept + SPARE);
            room = if has_room { room } else { usize::try_from(self.looked - *kept).unwrap_or_default() };
            self.looked = *kept + LOOK;
        }
        let mut rest = &data[..room];
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(count) if count > 0 => {
                    *kept += count as u64;
                    *crc = kept::crc_after(*crc, &rest[..count]);
                    rest = &rest[count..];
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.kept = Kept::Closed;
                    return;
                }
            }
        }
        if room < data.len() {
            self.kept = Kept::Closed;
        }
    }
}
