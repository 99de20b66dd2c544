//! One output stream of one attempt: its pipe, its head, its file.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    path::PathBuf,
};

use swarm_proto::limits::{INLINE_RESULT, KEPT_OUTPUT};

use crate::output::kept::Written;

enum Kept {
    /// Nothing was written yet.
    Unmade(PathBuf),
    Open(File),
    /// Full, or the disk refused: what follows is only counted.
    Closed,
}

/// What one read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// Bytes at this place, with so many lines before; the count is in the buffer's front.
    Bytes { offset: u64, lines: u64, len: usize, is_kept: bool },
    /// None now.
    Nothing,
    /// No writer is left.
    End,
}

pub(super) struct Capture {
    pipe: Option<File>,
    kept: Kept,
    head: Vec<u8>,
    written: Written,
}

impl Capture {
    /// Of a pipe in non-blocking mode, into the file `path`, which is made with the first byte.
    pub(super) const fn new(pipe: File, path: PathBuf) -> Self {
        Self { pipe: Some(pipe), kept: Kept::Unmade(path), head: Vec::new(), written: Written { bytes: 0, lines: 0, kept_bytes: 0 } }
    }

    pub(super) const fn pipe(&self) -> Option<&File> {
        self.pipe.as_ref()
    }

    pub(super) const fn written(&self) -> Written {
        self.written
    }

    pub(super) fn take_head(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.head)
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Got {
        let Some(pipe) = &mut self.pipe else { return Got::End };
        let len = match pipe.read(buffer) {
            Ok(0) => {
                self.pipe = None;
                return Got::End;
            }
            Ok(len) => len,
            Err(e) if e.kind() == ErrorKind::Interrupted || e.kind() == ErrorKind::WouldBlock => return Got::Nothing,
            Err(_) => {
                self.pipe = None;
                return Got::End;
            }
        };
        let (offset, lines) = (self.written.bytes, self.written.lines);
        let data = &buffer[..len];
        let head = INLINE_RESULT.saturating_sub(self.head.len()).min(len);
        self.head.extend_from_slice(&data[..head]);
        self.keep(data);
        self.written.bytes += len as u64;
        self.written.lines += data.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        Got::Bytes { offset, lines, len, is_kept: self.written.kept_bytes == self.written.bytes }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (File, File) {
        let (rx, tx) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        (rx.into(), tx.into())
    }

    fn feed(capture: &mut Capture, tx: &mut File, total: u64) {
        let mut buffer = vec![0; 64 << 10];
        let mut left = total;
        while left > 0 {
            let piece = vec![b'\n'; usize::try_from(left.min(60_000)).unwrap()];
            tx.write_all(&piece).unwrap();
            left -= piece.len() as u64;
            assert!(matches!(capture.read(&mut buffer), Got::Bytes { len, .. } if len == piece.len()));
        }
    }

    #[test]
    fn the_kept_part_is_bounded_exactly_and_the_rest_is_counted() {
        for (total, kept) in [(KEPT_OUTPUT - 1, KEPT_OUTPUT - 1), (KEPT_OUTPUT, KEPT_OUTPUT), (KEPT_OUTPUT + 1, KEPT_OUTPUT)] {
            let dir = tempfile::tempdir().unwrap();
            let (rx, mut tx) = pipe();
            let mut capture = Capture::new(rx, dir.path().join("x"));
            feed(&mut capture, &mut tx, total);
            assert_eq!(capture.written(), Written { bytes: total, lines: total, kept_bytes: kept });
            assert_eq!(std::fs::metadata(dir.path().join("x")).unwrap().len(), kept);
            assert_eq!(capture.take_head().len(), INLINE_RESULT);
        }
    }

    #[test]
    fn a_disk_that_refuses_costs_the_file_only() {
        let (rx, mut tx) = pipe();
        let mut capture = Capture::new(rx, "/dev/full".into());
        feed(&mut capture, &mut tx, 5_000);
        assert_eq!(capture.written(), Written { bytes: 5_000, lines: 5_000, kept_bytes: 0 });
        assert_eq!(capture.take_head().len(), INLINE_RESULT);
        drop(tx);
        assert_eq!(capture.read(&mut [0; 8]), Got::End);
    }
}
