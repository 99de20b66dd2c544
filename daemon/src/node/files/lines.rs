//! Where the lines of a long list begin.

use swarm_proto::{blob::segment_start, limits};

/// Lines between two places that are remembered: a line is found by reading on from the one before it.
const EVERY: u32 = 1_024;

/// A list of items that was read once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lines {
    /// Where every [`EVERY`]th line begins.
    begins: Vec<u64>,
    count: u32,
}

/// Gives a segment of the list; `None`: there is no such one.
type Segments<'a> = &'a mut dyn FnMut(u32) -> Result<Option<Vec<u8>>, String>;

impl Lines {
    /// Reads the list through.
    ///
    /// # Errors
    /// A segment cannot be read, or there are more lines than an array has tasks.
    pub(super) fn of(segments: Segments<'_>) -> Result<Self, String> {
        let (mut lines, mut at, mut is_new, mut index) = (Self { begins: Vec::new(), count: 0 }, 0_u64, true, 0);
        while let Some(data) = segments(index)? {
            for byte in data {
                if is_new {
                    if lines.count.is_multiple_of(EVERY) {
                        lines.begins.push(at);
                    }
                    lines.count += 1;
                    if lines.count > limits::ARRAY {
                        return Err(format!("the list has more than {} lines", limits::ARRAY));
                    }
                }
                is_new = byte == b'\n';
                at += 1;
            }
            index += 1;
        }
        Ok(lines)
    }

    /// One line, without its end.
    ///
    /// # Errors
    /// There is none of this number, or it is longer than [`limits::ITEM`], or no UTF-8.
    pub(super) fn get(&self, place: u32, segments: Segments<'_>) -> Result<String, String> {
        let begins = self.begins.get((place / EVERY) as usize).filter(|_| place < self.count);
        let begins = *begins.ok_or_else(|| format!("the list has only {} lines", self.count))?;
        let mut index = u32::try_from(begins / u64::from(limits::SEGMENT)).map_err(|e| e.to_string())?;
        let mut skip = usize::try_from(begins - segment_start(index)).map_err(|e| e.to_string())?;
        let (mut before, mut line) = (place % EVERY, Vec::new());
        while let Some(data) = segments(index)? {
            for byte in &data[skip.min(data.len())..] {
                match (byte, before) {
                    (b'\n', 0) => return text(line, place),
                    (b'\n', _) => before -= 1,
                    (_, 0) if line.len() >= limits::ITEM => {
                        return Err(format!("line {} of the list has more than {} bytes", place + 1, limits::ITEM));
                    }
                    (_, 0) => line.push(*byte),
                    _ => {}
                }
            }
            (index, skip) = (index + 1, 0);
        }
        text(line, place)
    }
}

fn text(mut line: Vec<u8>, place: u32) -> Result<String, String> {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| format!("line {} of the list is not UTF-8", place + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], place: u32) -> Result<String, String> {
        let segment = limits::SEGMENT as usize;
        let mut segments = |index: u32| Ok(text.chunks(segment).nth(index as usize).map(<[u8]>::to_vec));
        Lines::of(&mut segments)?.get(place, &mut segments)
    }

    #[test]
    fn each_line_is_found() {
        let text: String = (0..300_000).map(|n| format!("item {n}\n")).collect();
        assert!(text.len() > 3 * limits::SEGMENT as usize);
        for n in [0, 1, 1_023, 1_024, 1_025, 150_000, 299_999] {
            assert_eq!(read(text.as_bytes(), n), Ok(format!("item {n}")));
        }
        assert!(read(text.as_bytes(), 300_000).unwrap_err().contains("only 300000 lines"));
        // without an end of line at the very end, with one of Windows, and an empty one
        assert_eq!(read(b"a\r\n\nb", 0), Ok("a".into()));
        assert_eq!(read(b"a\r\n\nb", 1), Ok(String::new()));
        assert_eq!(read(b"a\r\n\nb", 2), Ok("b".into()));
        assert!(read(b"a\n", 1).is_err() && read(b"", 0).is_err());
        assert!(read(b"\xff\n", 0).unwrap_err().contains("UTF-8"));
        assert!(read(&[b'x'; limits::ITEM + 1], 0).unwrap_err().contains("more than"));
        assert_eq!(read(&[b'x'; limits::ITEM], 0).map(|line| line.len()), Ok(limits::ITEM));
    }
}
