//! Which part of a blob a request asks for (RFC 9110, section 14).
//!
//! One run of bytes from a place on is honoured: `bytes=N-` and `bytes=N-M`. Anything else (the last bytes, several runs, other units,
//! what cannot be understood) is answered with all of it, as the RFC allows.

use std::ops::Range;

use http::{HeaderMap, header};

/// The bytes that are asked for, `None` for all of them. The blob may have fewer. `tag`: what the blob is now, quoted.
pub(super) fn asked(headers: &HeaderMap, tag: &str) -> Option<Range<u64>> {
    // the rest of something else is of no use
    if headers.get(header::IF_RANGE).is_some_and(|known| known.as_bytes() != tag.as_bytes()) {
        return None;
    }
    let mut given = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (given.next(), given.next()) else { return None };
    let (unit, range) = range.to_str().ok()?.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    let first = number(first)?;
    let end = if last.is_empty() { u64::MAX } else { number(last)?.checked_add(1)? };
    (unit.eq_ignore_ascii_case("bytes") && first < end).then_some(first..end)
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TAG: &str = "\"a1\"";

    fn of(lines: &[(header::HeaderName, &'static str)]) -> Option<Range<u64>> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        asked(&headers, TAG)
    }

    #[test]
    fn one_run_from_a_place_on_is_a_part() {
        for (line, part) in [
            ("bytes=0-", 0..u64::MAX),
            ("bytes=5-", 5..u64::MAX),
            ("Bytes=5-5", 5..6),
            ("bytes=0-99", 0..100),
            ("bytes=18446744073709551614-", u64::MAX - 1..u64::MAX),
        ] {
            assert_eq!(of(&[(header::RANGE, line)]), Some(part), "{line}");
        }
    }

    #[test]
    fn everything_else_is_all_of_it() {
        assert_eq!(of(&[]), None);
        for line in [
            "bytes=-5",
            "bytes=-",
            "bytes=6-5",
            "bytes=0-1,4-5",
            "bytes= 0-1",
            "bytes=+1-2",
            "bytes=1",
            "lines=1-2",
            "1-2",
            "bytes=18446744073709551616-",
            "bytes=0-18446744073709551615",
            "",
        ] {
            assert_eq!(of(&[(header::RANGE, line)]), None, "{line}");
        }
        assert_eq!(of(&[(header::RANGE, "bytes=1-2"), (header::RANGE, "bytes=3-4")]), None);
    }

    #[test]
    fn a_part_of_what_it_was_is_no_part_of_what_it_is() {
        let range = (header::RANGE, "bytes=1-");
        assert_eq!(of(&[range.clone(), (header::IF_RANGE, "\"a1\"")]), Some(1..u64::MAX));
        for other in ["\"a2\"", "W/\"a1\"", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(of(&[range.clone(), (header::IF_RANGE, other)]), None, "{other}");
        }
    }
}
