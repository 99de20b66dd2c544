//! What stands in for an array task's item.
//!
//! Few bytes of a spec can ask for many: an item of 64 KiB in 64,000 places. So each text has a bound while it is made.

/// Bytes of all arguments of one task: what Linux takes of them where the stack is of the usual size (execve(2)).
const MOST: usize = 2 << 20;

/// The arguments of a task with its item in their places; without one they are those of the job.
///
/// # Errors
/// They would be more than a host takes.
pub(crate) fn with_item(argv: &[String], item: Option<&str>) -> Result<Vec<String>, String> {
    let Some(item) = item else { return Ok(argv.to_vec()) };
    let mut room = MOST;
    let mut given = |arg: &String| {
        let arg = substitute(arg, item, room)?;
        room -= arg.len();
        Some(arg)
    };
    argv.iter().map(&mut given).collect::<Option<_>>().ok_or_else(|| format!("its item makes more than {MOST} bytes of its arguments"))
}

/// `{}` becomes the item, `{{}}` a literal `{}`. `None`: that would be more than `most` bytes.
pub(crate) fn substitute(arg: &str, item: &str, most: usize) -> Option<String> {
    let mut out = String::new();
    let mut rest = arg;
    while let Some(at) = rest.find('{') {
        append(&mut out, &rest[..at], most)?;
        rest = &rest[at..];
        let (with, len) = if rest.starts_with("{{}}") {
            ("{}", 4)
        } else if rest.starts_with("{}") {
            (item, 2)
        } else {
            ("{", 1)
        };
        append(&mut out, with, most)?;
        rest = &rest[len..];
    }
    append(&mut out, rest, most)?;
    Some(out)
}

fn append(out: &mut String, more: &str, most: usize) -> Option<()> {
    let fits = out.len() + more.len() <= most;
    fits.then(|| out.push_str(more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_stand_where_braces_stood() {
        for (arg, want) in [
            ("{}", "x y"),
            ("a{}b{}", "ax ybx y"),
            ("{{}}", "{}"),
            ("{{{}}}", "{{}}"),
            ("{", "{"),
            ("}{", "}{"),
            ("{ }", "{ }"),
            ("é{}é", "éx yé"),
            ("", ""),
        ] {
            assert_eq!(substitute(arg, "x y", 100).as_deref(), Some(want), "{arg}");
        }
    }

    #[test]
    fn a_long_item_in_many_places_is_refused_before_it_is_there() {
        assert_eq!(substitute("{}{}", "abc", 6).as_deref(), Some("abcabc"));
        assert_eq!(substitute("{}{}", "abc", 5), None);
        let (argv, item) = (vec!["{}".repeat(1_000); 64], "x".repeat(64 << 10));
        assert!(with_item(&argv, Some(&item)).is_err());
        assert_eq!(with_item(&argv, None).as_ref(), Ok(&argv));
        let half = vec!["{}".repeat(16); 2];
        assert_eq!(with_item(&half, Some(&item)).map(|given| given.concat().len()), Ok(MOST));
        assert!(with_item(&[half, vec!["x".into()]].concat(), Some(&item)).is_err());
    }
}
