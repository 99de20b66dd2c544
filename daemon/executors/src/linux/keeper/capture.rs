//! One output stream of one attempt: its pipe, and the record of what came through it.

use std::{
    fs::File,
    io::{ErrorKind, Read},
};

use crate::output::{
    kept::Written,
    record::{Record, Taken},
};

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
    record: Record,
}

impl Capture {
    /// Of a pipe in non-blocking mode.
    pub(super) const fn new(pipe: File, record: Record) -> Self {
        Self { pipe: Some(pipe), record }
    }

    pub(super) const fn pipe(&self) -> Option<&File> {
        self.pipe.as_ref()
    }

    pub(super) const fn written(&self) -> Written {
        self.record.written()
    }

    pub(super) const fn record(&mut self) -> &mut Record {
        &mut self.record
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Got {
        let Some(pipe) = &mut self.pipe else { return Got::End };
        match pipe.read(buffer) {
            Ok(len) if len > 0 => {
                let Taken { offset, lines, is_kept } = self.record.take(&buffer[..len]);
                Got::Bytes { offset, lines, len, is_kept }
            }
            Err(e) if e.kind() == ErrorKind::Interrupted || e.kind() == ErrorKind::WouldBlock => Got::Nothing,
            Ok(_) | Err(_) => {
                self.pipe = None;
                Got::End
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use swarm_proto::limits::{INLINE_RESULT, KEPT_OUTPUT};

    use super::*;
    use crate::output::kept::crc_after;

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
        let more = KEPT_OUTPUT + 20_000_000;
        for (limit, total, kept) in [
            (KEPT_OUTPUT, KEPT_OUTPUT - 1, KEPT_OUTPUT - 1),
            (KEPT_OUTPUT, KEPT_OUTPUT, KEPT_OUTPUT),
            (KEPT_OUTPUT, KEPT_OUTPUT + 1, KEPT_OUTPUT),
            (more, more - 1, more - 1),
            (more, more + 1, more),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (rx, mut tx) = pipe();
            let mut capture = Capture::new(rx, Record::new(dir.path().join("x"), limit));
            feed(&mut capture, &mut tx, total);
            let crc = crc_after(0, &vec![b'\n'; usize::try_from(kept).unwrap()]);
            assert_eq!(capture.written(), Written { bytes: total, lines: total, kept_bytes: kept, crc });
            assert_eq!(std::fs::metadata(dir.path().join("x")).unwrap().len(), kept);
            assert_eq!(capture.record().take_head().len(), INLINE_RESULT);
        }
    }

    #[test]
    fn a_disk_that_refuses_costs_the_file_only() {
        let (rx, mut tx) = pipe();
        let mut capture = Capture::new(rx, Record::new("/dev/full".into(), KEPT_OUTPUT));
        feed(&mut capture, &mut tx, 5_000);
        assert_eq!(capture.written(), Written { bytes: 5_000, lines: 5_000, kept_bytes: 0, crc: 0 });
        assert_eq!(capture.record().take_head().len(), INLINE_RESULT);
        drop(tx);
        assert_eq!(capture.read(&mut [0; 8]), Got::End);
    }
}
