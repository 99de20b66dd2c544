//! `--array 0-999`, `--array @FILE`: the indices of a job, or one item a line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::PathBuf,
};

use swarm_proto::{
    Digest,
    api::ArrayRequest,
    limits,
    spec::{Array, ItemList},
};

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// First and last index, both included.
    Range { first: u32, last: u32 },
    /// One item a line; `-` is standard input.
    File(String),
}

/// `0-999`, `@FILE` or `@-`.
///
/// # Errors
/// Why it is none.
pub fn parse(text: &str) -> Result<Word, String> {
    if let Some(path) = text.strip_prefix('@') {
        return if path.is_empty() { Err("a file's name is wanted after '@'".into()) } else { Ok(Word::File(path.into())) };
    }
    let wanted = || format!("'{}' is neither FIRST-LAST, such as 0-999, nor @FILE", text.escape_debug());
    let (first, last) = text.split_once('-').ok_or_else(wanted)?;
    let number = |digits: &str| digits.parse::<u32>().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    let (first, last) = number(first).zip(number(last)).ok_or_else(wanted)?;
    if last < first {
        return Err(format!("{last} comes before {first}"));
    }
    check(&range(first, last)).map(|()| Word::Range { first, last })
}

impl Word {
    /// The indices or items themselves; reads the file. Items that are too many to travel inside the submission are counted, and the
    /// request names the blob that they will be: the file is to be put before it.
    ///
    /// # Errors
    /// The file cannot be read, or holds nothing or too much.
    pub fn into_request(self) -> Result<(ArrayRequest, Option<PathBuf>), String> {
        let path = match self {
            Self::Range { first, last } => return Ok((range(first, last), None)),
            Self::File(path) => path,
        };
        let unreadable = |e: io::Error| format!("{path}: {e}");
        let (lines, can_be_put) = if path == "-" {
            (read(io::stdin().lock(), false), false)
        } else {
            let file = File::open(&path).map_err(unreadable)?;
            // what is put is read again, which only a file can be
            let can_be_put = file.metadata().map_err(unreadable)?.is_file();
            (read(BufReader::new(file), can_be_put), can_be_put)
        };
        let request = lines.and_then(Lines::into_request).map_err(|why| format!("{path}: {why}"))?;
        let is_put = can_be_put && request.list.is_some();
        Ok((request, is_put.then(|| path.into())))
    }
}

/// The lines of a file, each an item. A newline at the very end begins no item.
#[derive(Default)]
struct Lines {
    count: u32,
    size: u64,
    digest: Digest,
    /// None of them where they are too many.
    items: Vec<String>,
}

/// Reads to the end, with no more in memory than travels inside a submission. `may_be_long`: they may be more than that.
fn read(mut source: impl BufRead, may_be_long: bool) -> Result<Lines, String> {
    let (mut lines, mut hasher, mut line) = (Lines::default(), blake3::Hasher::new(), Vec::new());
    let (mut held, mut longest) = (0, (0, 0));
    loop {
        line.clear();
        // one byte more than any line may have, so that "too long" is noticed without reading all of it
        source.by_ref().take(limits::INLINE_INPUT as u64 + 1).read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
        if line.is_empty() {
            break;
        }
        hasher.update(&line);
        lines.size += line.len() as u64;
        lines.count += 1;
        let item = without_end(&line);
        (held, longest) = (held + item.len() + 1, longest.max((item.len(), lines.count)));
        if held > limits::INLINE_INPUT {
            lines.items.clear();
            check_long(lines.count, longest, may_be_long)?;
        }
        let item = std::str::from_utf8(item).map_err(|e| format!("line {}: {e}", lines.count))?;
        if held <= limits::INLINE_INPUT {
            lines.items.push(item.to_owned());
        }
    }
    lines.digest = Digest(hasher.finalize().into());
    Ok(lines)
}

fn without_end(line: &[u8]) -> &[u8] {
    let Some(line) = line.strip_suffix(b"\n") else { return line };
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether so many lines can be a list. `longest`: its bytes, and which line it is.
fn check_long(count: u32, (longest, at): (usize, u32), may_be_long: bool) -> Result<(), String> {
    if !may_be_long {
        return Err(format!("more than {} bytes of items; only a file that can be read twice may have more", limits::INLINE_INPUT));
    }
    if longest > limits::ITEM {
        return Err(format!(
            "line {at} is too long: where there are more than {} bytes in all, each has at most {}",
            limits::INLINE_INPUT,
            limits::ITEM
        ));
    }
    if count > limits::ARRAY {
        return Err(format!("more than {} lines", limits::ARRAY));
    }
    Ok(())
}

impl Lines {
    fn into_request(self) -> Result<ArrayRequest, String> {
        if self.count == 0 {
            return Err("there is no line in it".into());
        }
        let request = if self.items.is_empty() {
            let list = Some(ItemList { digest: self.digest, size: self.size });
            ArrayRequest { count: Some(self.count), list, ..ArrayRequest::default() }
        } else {
            ArrayRequest { items: self.items, ..ArrayRequest::default() }
        };
        check(&request).map(|()| request)
    }
}

fn range(first: u32, last: u32) -> ArrayRequest {
    // A range over all of u32 has one index more than u32 counts; the check that follows refuses both alike.
    ArrayRequest { first, count: Some((last - first).saturating_add(1)), ..ArrayRequest::default() }
}

fn check(request: &ArrayRequest) -> Result<(), String> {
    let items = u32::try_from(request.items.len()).unwrap_or(u32::MAX);
    let array = Array { first: request.first, count: request.count.unwrap_or(items), is_array: true, items: request.items.clone() };
    array.check().map_err(|problem| problem.why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_include_both_ends() {
        assert_eq!(parse("5-9"), Ok(Word::Range { first: 5, last: 9 }));
        let request = |text| parse(text).unwrap().into_request();
        assert_eq!(request("7-7"), Ok((ArrayRequest { first: 7, count: Some(1), ..ArrayRequest::default() }, None)));
        assert_eq!(request("0-999"), Ok((ArrayRequest { first: 0, count: Some(1000), ..ArrayRequest::default() }, None)));
        assert_eq!(parse("@items.txt"), Ok(Word::File("items.txt".into())));
    }

    #[test]
    fn an_array_has_at_most_ten_million_indices() {
        for (text, fits) in [
            ("0-9999998", true),
            ("0-9999999", true),
            ("0-10000000", false),
            ("0-4294967295", false),
            ("4294967290-4294967294", true),
            ("4294967290-4294967295", false),
        ] {
            assert_eq!(parse(text).is_ok(), fits, "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for text in ["", "5", "-", "5-", "-5", "9-5", "a-b", "0-1-2", "+0-1", "0 - 1", "@", "0-99999999999"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    fn items(text: &[u8]) -> Result<ArrayRequest, String> {
        read(text, true).and_then(Lines::into_request)
    }

    #[test]
    fn lines_are_items() {
        assert_eq!(items(b"a\n\nb\n").unwrap().items, ["a", "", "b"]);
        assert_eq!(items(b"one\r\ntwo").unwrap().items, ["one", "two"]);
        assert_eq!(items(b"").unwrap_err(), "there is no line in it");
        assert!(items(b"a\n\xff\n").unwrap_err().starts_with("line 2: invalid utf-8"));
    }

    #[test]
    fn more_than_64_kib_become_a_list() {
        // each item counts a byte beside its text
        for (last, is_list) in [(2_045, false), (2_046, false), (2_047, true), (2_048, true)] {
            let text = format!("{}{}", format!("{}\n", "x".repeat(2_047)).repeat(31), "y".repeat(last + 1));
            let request = items(text.as_bytes()).unwrap();
            assert_eq!((request.list.is_some(), request.items.is_empty()), (is_list, is_list), "{last}");
            if let Some(list) = request.list {
                let digest = Digest(blake3::hash(text.as_bytes()).into());
                assert_eq!((request.count, list), (Some(32), ItemList { digest, size: text.len() as u64 }));
            }
        }
        assert!(read("x\n".repeat(40_000).as_bytes(), false).err().unwrap().contains("more than 65536 bytes"));
    }

    #[test]
    fn a_line_of_a_list_has_at_most_4_kib() {
        let many = "x\n".repeat(limits::INLINE_INPUT);
        for (len, fits) in [(limits::ITEM - 1, true), (limits::ITEM, true), (limits::ITEM + 1, false), (limits::INLINE_INPUT * 3, false)] {
            let long = "y".repeat(len);
            for text in [format!("{many}{long}\n"), format!("{long}\n{many}"), format!("{many}{long}")] {
                assert_eq!(items(text.as_bytes()).is_ok(), fits, "{len}");
            }
        }
        assert!(items("y".repeat(limits::ITEM + 1).as_bytes()).is_ok(), "alone it travels inside");
    }

    #[test]
    fn a_list_has_at_most_ten_million_lines() {
        let lines = |count: u32| items(&b"\n".repeat(count as usize));
        assert_eq!(lines(limits::ARRAY).unwrap().count, Some(limits::ARRAY));
        assert_eq!(lines(limits::ARRAY + 1).unwrap_err(), "more than 10000000 lines");
    }

    #[test]
    fn items_come_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("items");
        let word = || parse(&format!("@{}", path.display())).unwrap();
        assert!(word().into_request().unwrap_err().contains("items"));
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let (request, put) = word().into_request().unwrap();
        assert_eq!((request.items.len(), put), (2, None));
        std::fs::write(&path, "x\n".repeat(limits::INLINE_INPUT)).unwrap();
        let (request, put) = word().into_request().unwrap();
        assert_eq!((request.count, put), (Some(65_536), Some(path)));
    }

    proptest! {
        #[test]
        fn any_text_is_an_array_or_a_reason(text in ".{0,24}") {
            let _ = parse(&text);
            let _ = items(text.as_bytes());
        }

        #[test]
        fn any_range_is_an_array_or_a_reason(first: u32, last: u32) {
            if let Ok(word) = parse(&format!("{first}-{last}")) {
                prop_assert_eq!(word, Word::Range { first, last });
            }
        }
    }
}
