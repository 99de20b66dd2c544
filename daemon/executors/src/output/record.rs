//! What one attempt wrote to one of its streams: the head for the ledger, the kept part for readers, the count of all.

use std::{
    fs::File,
    io::{ErrorKind, Write},
    path::PathBuf,
};

use swarm_proto::limits::{INLINE_RESULT, KEPT_OUTPUT};

use super::kept::Written;

enum Kept {
    /// Nothing was written yet.
    Unmade(PathBuf),
    Open(File),
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
    head: Vec<u8>,
    written: Written,
}

impl Record {
    /// Into the file `path`, which is made with the first byte.
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self { kept: Kept::Unmade(path), head: Vec::new(), written: Written { bytes: 0, lines: 0, kept_bytes: 0 } }
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
            self.kept = File::options().create(true).truncate(true).write(true).open(path).map_or(Kept::Closed, Kept::Open);
        }
        let Kept::Open(file) = &mut self.kept else { return };
        let room = usize::try_from(KEPT_OUTPUT - self.written.kept_bytes).unwrap_or(usize::MAX).min(data.len());
        let mut rest = &data[..room];
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(count) if count > 0 => {
                    self.written.kept_bytes += count as u64;
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
