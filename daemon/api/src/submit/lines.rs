//! Bytes in, lines out, with a bound: what is kept between two frames is one unfinished line.

use swarm_proto::limits;

/// A line is longer than [`limits::HTTP_LINE`]. Nothing after it can be trusted to begin where a line begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong {
    /// As much of it as was kept.
    pub(super) head: Vec<u8>,
}

/// The unfinished line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Hands every line that `frame` completes to `each`, without its end; empty lines are skipped.
    pub(super) fn feed(&mut self, mut frame: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        while let Some(end) = memchr::memchr(b'\n', frame) {
            let (line, rest) = (&frame[..end], &frame[end + 1..]);
            if self.partial.is_empty() {
                whole(line, &mut each)?;
            } else {
                self.extend(line)?;
                let line = std::mem::take(&mut self.partial);
                whole(&line, &mut each)?;
            }
            frame = rest;
        }
        self.extend(frame)
    }

    /// The body has ended: what is left is the last line.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        let line = std::mem::take(&mut self.partial);
        whole(&line, &mut each)
    }

    fn extend(&mut self, more: &[u8]) -> Result<(), TooLong> {
        // One byte more may be the '\r' of a line's end.
        if self.partial.len() + more.len() > limits::HTTP_LINE + 1 {
            let head = if self.partial.is_empty() { more } else { &self.partial };
            return Err(TooLong { head: head[..head.len().min(1_024)].to_vec() });
        }
        self.partial.extend_from_slice(more);
        Ok(())
    }
}

fn whole(line: &[u8], each: &mut impl FnMut(&[u8])) -> Result<(), TooLong> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > limits::HTTP_LINE {
        return Err(TooLong { head: line[..1_024].to_vec() });
    }
    if !line.iter().all(u8::is_ascii_whitespace) {
        each(line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(frames: &[&[u8]]) -> Result<Vec<Vec<u8>>, TooLong> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for frame in frames {
            lines.feed(frame, |line| out.push(line.to_vec()))?;
        }
        lines.finish(|line| out.push(line.to_vec()))?;
        Ok(out)
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        for (len, passes) in [(limits::HTTP_LINE - 1, true), (limits::HTTP_LINE, true), (limits::HTTP_LINE + 1, false)] {
            let text = vec![b'x'; len];
            for end in [&b""[..], b"\n", b"\r\n"] {
                let sent = [&text, end].concat();
                assert_eq!(split(&[&sent]).is_ok(), passes, "{len} bytes and {end:?} in one frame");
                let (a, b) = sent.split_at(len / 2);
                assert_eq!(split(&[a, b]).is_ok(), passes, "{len} bytes and {end:?} in two frames");
            }
        }
    }

    proptest! {
        #[test]
        fn where_frames_are_cut_changes_nothing(text in "[a-c \r\n]{0,200}", cuts in prop::collection::vec(0..200usize, 0..8)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let frames: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let expected: Vec<Vec<u8>> = text
                .split('\n')
                .map(|line| line.strip_suffix('\r').unwrap_or(line))
                .filter(|line| !line.bytes().all(|b| b.is_ascii_whitespace()))
                .map(|line| line.as_bytes().to_vec())
                .collect();
            prop_assert_eq!(split(&frames), Ok(expected));
        }
    }
}
