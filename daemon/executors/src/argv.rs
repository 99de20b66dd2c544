//! What stands in for an array task's item.

/// `{}` becomes the item, `{{}}` a literal `{}`.
pub(crate) fn substitute(arg: &str, item: &str) -> String {
    let mut out = String::with_capacity(arg.len());
    let mut rest = arg;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (with, len) = if rest.starts_with("{{}}") {
            ("{}", 4)
        } else if rest.starts_with("{}") {
            (item, 2)
        } else {
            ("{", 1)
        };
        out.push_str(with);
        rest = &rest[len..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::substitute;

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
            assert_eq!(substitute(arg, "x y"), want, "{arg}");
        }
    }
}
