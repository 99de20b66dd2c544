//! `NAME=VALUE` of labels, resources and the environment.

/// Both sides; the value may be empty and may hold `=`.
///
/// # Errors
/// There is no `=`, or nothing before it.
pub fn text(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(format!("'{}' is not NAME=VALUE", text.escape_debug())),
    }
}

/// Both sides, the value a whole number.
///
/// # Errors
/// As [`text`], or the value is no number.
pub fn count(word: &str) -> Result<(String, u64), String> {
    let (name, value) = text(word)?;
    let count = value.parse().map_err(|_| format!("'{}' is not a whole number", value.escape_debug()))?;
    Ok((name, count))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_equals_sign_divides() {
        assert_eq!(text("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(text("A="), Ok(("A".into(), String::new())));
        assert_eq!(count("licence=4"), Ok(("licence".into(), 4)));
        assert!(text("=b").is_err() && text("A").is_err() && count("a=-1").is_err() && count("a=").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_pair_or_a_reason(word in ".{0,20}") {
            let _ = (text(&word), count(&word));
        }
    }
}
