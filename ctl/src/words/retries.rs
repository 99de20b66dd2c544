//! `--retries N[:CAUSES]`: how many more attempts each cause is worth.

use std::collections::BTreeMap;

use swarm_proto::spec::Cause;

/// `3`: whatever the cause; `3:exit,timeout`: those causes, the others keep their default.
///
/// # Errors
/// Why it is none.
pub fn parse(text: &str) -> Result<BTreeMap<Cause, u16>, String> {
    let (times, causes) = text.split_once(':').map_or((text, None), |(times, causes)| (times, Some(causes)));
    let times = times.parse::<u16>().map_err(|_| format!("'{}' is not a number from 0 to {}", times.escape_debug(), u16::MAX))?;
    let causes = match causes {
        None => Cause::ALL.to_vec(),
        Some(list) => list.split(',').map(cause).collect::<Result<_, _>>()?,
    };
    Ok(causes.into_iter().map(|cause| (cause, times)).collect())
}

fn cause(word: &str) -> Result<Cause, String> {
    let wanted = word.trim().replace('-', "_");
    Cause::ALL.into_iter().find(|cause| cause.word() == wanted).ok_or_else(|| {
        let all = Cause::ALL.map(Cause::word).join(", ");
        format!("'{}' is no cause; they are {all}", word.escape_debug())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bare_number_is_for_every_cause() {
        assert_eq!(parse("3").unwrap(), Cause::ALL.into_iter().map(|cause| (cause, 3)).collect());
        assert_eq!(parse("0").unwrap()[&Cause::NodeLost], 0);
    }

    #[test]
    fn causes_are_named_one_by_one() {
        assert_eq!(parse("2:exit,node-lost").unwrap(), BTreeMap::from([(Cause::Exit, 2), (Cause::NodeLost, 2)]));
        assert_eq!(parse("65535:timeout").unwrap(), BTreeMap::from([(Cause::Timeout, u16::MAX)]));
    }

    #[test]
    fn what_is_no_budget_is_refused() {
        for text in ["", "x", "-1", "65536", "3:", "3:exits", "3:exit,", ":exit", "3:exit:4"] {
            assert!(parse(text).is_err(), "{text}");
        }
        insta::assert_snapshot!(parse("3:oom").unwrap_err(), @"'oom' is no cause; they are exit, signal, timeout, spawn, node_lost, attempt_lost, refused, input, output");
    }

    proptest! {
        #[test]
        fn any_text_is_a_budget_or_a_reason(text in "[0-9]{0,6}:?[a-z_,-]{0,20}|.{0,20}") {
            let _ = parse(&text);
        }
    }
}
