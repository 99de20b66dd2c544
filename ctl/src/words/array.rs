//! `--array 0-999`, `--array @FILE`: the indices of a job, or one item a line.

use std::io::Read as _;

use swarm_proto::{api::ArrayRequest, limits, spec::Array};

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
    /// The indices or items themselves; reads the file.
    ///
    /// # Errors
    /// The file cannot be read, or holds nothing or too much.
    pub fn into_request(self) -> Result<ArrayRequest, String> {
        match self {
            Self::Range { first, last } => Ok(range(first, last)),
            Self::File(path) => items(&read(&path)?).map_err(|why| format!("{path}: {why}")),
        }
    }
}

/// The lines of a text, each an item. A newline at the very end begins no item.
///
/// # Errors
/// There is none, or they are more than [`limits::INLINE_INPUT`].
pub fn items(text: &str) -> Result<ArrayRequest, String> {
    let items: Vec<String> = text.lines().map(str::to_owned).collect();
    if items.is_empty() {
        return Err("there is no line in it".into());
    }
    let request = ArrayRequest { items, ..ArrayRequest::default() };
    check(&request).map(|()| request)
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

fn read(path: &str) -> Result<String, String> {
    let file: Box<dyn std::io::Read> =
        if path == "-" { Box::new(std::io::stdin()) } else { Box::new(std::fs::File::open(path).map_err(|e| format!("{path}: {e}"))?) };
    // One byte more than is taken, so that "too large" is noticed without reading it all. Items count a byte each beside their text.
    let most = limits::INLINE_INPUT as u64 + 1;
    let mut text = String::new();
    file.take(most).read_to_string(&mut text).map_err(|e| format!("{path}: {e}"))?;
    if text.len() as u64 == most {
        return Err(format!("{path}: more than {} bytes of items", limits::INLINE_INPUT));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_include_both_ends() {
        assert_eq!(parse("5-9"), Ok(Word::Range { first: 5, last: 9 }));
        assert_eq!(parse("7-7").unwrap().into_request(), Ok(ArrayRequest { first: 7, count: Some(1), ..ArrayRequest::default() }));
        assert_eq!(parse("0-999").unwrap().into_request(), Ok(ArrayRequest { first: 0, count: Some(1000), ..ArrayRequest::default() }));
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

    #[test]
    fn items_fill_64_kib_and_no_more() {
        for (len, fits) in [(limits::INLINE_INPUT - 2, true), (limits::INLINE_INPUT - 1, true), (limits::INLINE_INPUT, false)] {
            assert_eq!(items(&"x".repeat(len)).is_ok(), fits, "{len}");
        }
        assert_eq!(items("a\n\nb\n").unwrap().items, ["a", "", "b"]);
        assert!(items("").is_err());
    }

    #[test]
    fn items_come_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("items");
        let word = || parse(&format!("@{}", path.display())).unwrap();
        assert!(word().into_request().unwrap_err().contains("items"));
        std::fs::write(&path, "one\r\ntwo\n").unwrap();
        assert_eq!(word().into_request().unwrap().items, ["one", "two"]);
        std::fs::write(&path, "x\n".repeat(limits::INLINE_INPUT / 2)).unwrap();
        assert_eq!(word().into_request().unwrap().items.len(), limits::INLINE_INPUT / 2);
        std::fs::write(&path, "x".repeat(limits::INLINE_INPUT + 1)).unwrap();
        assert!(word().into_request().unwrap_err().contains("more than 65536 bytes"));
    }

    proptest! {
        #[test]
        fn any_text_is_an_array_or_a_reason(text in ".{0,24}") {
            let _ = parse(&text);
            let _ = items(&text);
        }

        #[test]
        fn any_range_is_an_array_or_a_reason(first: u32, last: u32) {
            if let Ok(word) = parse(&format!("{first}-{last}")) {
                prop_assert_eq!(word, Word::Range { first, last });
            }
        }
    }
}
