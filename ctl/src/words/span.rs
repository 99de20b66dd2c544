//! Spans of time: `30s`, `500ms`, `1h 30m`.

use std::time::Duration;

/// # Errors
/// Why it is none.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("'{text}' of what? write {text}s or {text}ms"));
    }
    humantime::parse_duration(text).map_err(|e| format!("'{}' is not a time such as 30s or 1h30m: {e}", text.escape_debug()))
}

/// For people: the two largest units, `1h 30m`; tenths below ten seconds.
pub fn short(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.as_millis()),
        1..10 => format!("{}.{}s", seconds, span.subsec_millis() / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_have_units() {
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("1h 30m"), Ok(Duration::from_secs(5400)));
        insta::assert_snapshot!(parse("30").unwrap_err(), @"'30' of what? write 30s or 30ms");
        insta::assert_snapshot!(parse("soon").unwrap_err(), @"'soon' is not a time such as 30s or 1h30m: expected number at 0");
        assert!(parse("").is_err() && parse("-1s").is_err());
    }

    #[test]
    fn spans_read_well() {
        let spans = [0, 1, 999, 1_000, 9_999, 10_000, 59_999, 60_000, 3_599_000, 3_600_000, 86_399_000, 90_000_000];
        let shown = spans.map(|ms| short(Duration::from_millis(ms))).join(" | ");
        insta::assert_snapshot!(shown, @"0ms | 1ms | 999ms | 1.0s | 9.9s | 10s | 59s | 1m 0s | 59m 59s | 1h 0m | 23h 59m | 1d 1h");
    }

    proptest! {
        #[test]
        fn any_text_is_a_span_or_a_reason(text in "[0-9]{0,22} ?[a-zµ]{0,6}|.{0,20}") {
            let _ = parse(&text);
        }
    }
}
