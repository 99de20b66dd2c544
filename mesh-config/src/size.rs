//! Byte sizes as people write them: `8GiB`, `512 MiB`, `1.5G`, `4096`.
//!
//! `KiB`.. and the bare letters `K`.. are powers of 1024, `kB`.. powers of 1000. Integers all the way, so what is written is what is meant.

const UNITS: [(&str, u64); 16] = [
    ("b", 1),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("p", 1 << 50),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("pib", 1 << 50),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
];

/// Most digits after the point.
const FRACTION: usize = 9;

/// Bytes of `8GiB`, `512 MiB`, `1.5G`, `4096`. Case does not matter; less than one byte is cut off.
///
/// # Errors
/// Why it is none, as the end of a sentence.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let number_len = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at(number_len);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = !whole.is_empty() && fraction.len() <= FRACTION && !fraction.contains('.') && !number.ends_with('.');
    if !is_number {
        return Err(format!("'{}' does not begin with a number of at most {FRACTION} digits after the point", text.escape_debug()));
    }
    let unit = unit.trim_start();
    let scale =
        if unit.is_empty() { Some(1) } else { UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name)).map(|(_, scale)| *scale) };
    let scale = scale.ok_or_else(|| format!("'{}' is no unit; they are B, KiB, MiB, GiB, TiB, kB, MB, GB, TB", unit.escape_debug()))?;
    scaled(whole, fraction, scale).ok_or_else(|| format!("'{text}' is more than {} bytes", u64::MAX))
}

fn scaled(whole: &str, fraction: &str, scale: u64) -> Option<u64> {
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let places = u32::try_from(fraction.len()).ok()?;
    let part = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().ok()? };
    let part = part * u128::from(scale) / 10_u128.pow(places);
    whole.checked_add(u64::try_from(part).ok()?)
}

/// The shortest exact form: the largest binary unit that leaves no rest. `8GiB`, `1536MiB`, `1000B`.
pub fn format_bytes(bytes: u64) -> String {
    let binary = [("PiB", 1_u64 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let fits = binary.into_iter().find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale));
    fits.map_or_else(|| format!("{bytes}B"), |(unit, scale)| format!("{}{unit}", bytes / scale))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_mean_what_they_say() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("8GiB", 8 << 30),
            ("512 MiB", 512 << 20),
            ("512mib", 512 << 20),
            ("1.5G", 3 << 29),
            ("2kB", 2000),
            ("1.999999999kB", 1999),
            ("16383.999PiB", 18_446_742_947_809_644_773),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "-1", "1.2.3", "1.", ".5G", "1 XiB", "8 G B", "16384PiB", "18446744073709551616", "1.0000000001G", "½"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_size_or_a_reason(text in ".{0,30}") {
            let _ = parse_bytes(&text);
        }

        #[test]
        fn what_is_printed_reads_back(bytes: u64) {
            prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Ok(bytes));
        }
    }
}
