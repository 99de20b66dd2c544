//! `PATH[=NAME]`: a file or directory of this machine, and what it is called where it goes.

use std::path::{PathBuf, is_separator};

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub path: PathBuf,
    /// Empty: what is in the directory goes without the directory's own name.
    pub name: String,
}

/// `data.csv`, `data.csv=in/a.csv`, `dir`, `dir/`, `dir=.`; the last `=` divides.
///
/// # Errors
/// One side of the `=` is missing.
pub fn parse(text: &str) -> Result<Source, String> {
    let (path, name) = text.rsplit_once('=').unwrap_or_else(|| (text, own_name(text)));
    if path.is_empty() {
        return Err(format!("'{}' has no path; PATH or PATH=NAME is wanted", text.escape_debug()));
    }
    if name.is_empty() && path.len() < text.len() {
        return Err(format!("'{}' has no name after the '='; PATH=. keeps the names of what is in it", text.escape_debug()));
    }
    Ok(Source { path: path.into(), name: if name == "." { String::new() } else { name.into() } })
}

/// The last part of a path; what ends in `/`, `.` or `..` stands for what is in it.
fn own_name(path: &str) -> &str {
    path.rsplit(is_separator).next().filter(|part| !matches!(*part, "." | "..")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_the_paths_own_or_those_given() {
        for (text, path, name) in [
            ("a.csv", "a.csv", "a.csv"),
            ("in/a.csv", "in/a.csv", "a.csv"),
            ("/srv/data", "/srv/data", "data"),
            ("data/", "data/", ""),
            ("data/.", "data/.", ""),
            (".", ".", ""),
            ("..", "..", ""),
            ("/", "/", ""),
            ("a.csv=b", "a.csv", "b"),
            ("a.csv=in/b.csv", "a.csv", "in/b.csv"),
            ("data/=x", "data/", "x"),
            ("data=.", "data", ""),
            ("day=1/a.csv=a.csv", "day=1/a.csv", "a.csv"),
        ] {
            assert_eq!(parse(text), Ok(Source { path: path.into(), name: name.into() }), "{text}");
        }
        assert!(parse("").is_err() && parse("=a").is_err() && parse("a=").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_source_or_a_reason(text in ".{0,20}") {
            let _ = parse(&text);
        }
    }
}
