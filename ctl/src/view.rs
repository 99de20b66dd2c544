//! How things look: pure functions from the API's words to rows, cards and sentences.

mod blobs;
mod explain;
mod jobs;
mod nodes;
mod swarm;
mod tasks;

use std::{collections::BTreeMap, time::Duration};

use swarm_proto::{UnixMillis, ledger::TaskState, manifest::Tree, spec::Resources};

pub use explain::{explain, why_not};
pub use jobs::{counts, outcome};
pub use nodes::{health, leader};
pub use swarm::{event, status};
pub use tasks::end;

use crate::{
    output::table::{Tone, Value, text, toned},
    words::span,
};

/// The word of a state.
pub const fn state_word(state: TaskState) -> &'static str {
    match state {
        TaskState::Pending => "pending",
        TaskState::Assigned => "assigned",
        TaskState::Succeeded => "succeeded",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
        TaskState::Lost => "lost",
    }
}

const fn state_tone(state: TaskState) -> Tone {
    match state {
        TaskState::Pending => Tone::Plain,
        TaskState::Assigned => Tone::Busy,
        TaskState::Succeeded => Tone::Good,
        TaskState::Failed | TaskState::Cancelled | TaskState::Lost => Tone::Bad,
    }
}

fn state(state: TaskState) -> Value {
    toned(state_word(state), state_tone(state))
}

fn age(since: UnixMillis, now: UnixMillis) -> String {
    between(since, now)
}

/// Between two wall times; clocks that disagree show 0.
fn between(from: UnixMillis, to: UnixMillis) -> String {
    span::short(Duration::from_millis(to.0.saturating_sub(from.0)))
}

/// `2024-06-01T12:00:00.000Z`.
pub(crate) fn instant(at: UnixMillis) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(at.0.min(MAX_SHOWN)));
    time.map_or_else(|| at.0.to_string(), |time| humantime::format_rfc3339_millis(time).to_string())
}

/// The end of the year 9999, beyond which RFC 3339 has no form.
const MAX_SHOWN: u64 = 253_402_300_799_999;

/// `1.5 GiB`.
pub(crate) fn bytes(n: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut scale = 0;
    let mut rest = n;
    while rest >= 1024 * 1024 && scale + 1 < units.len() {
        rest /= 1024;
        scale += 1;
    }
    let tenths = u128::from(rest) * 10 / 1024;
    format!("{}.{} {}", tenths / 10, tenths % 10, units[scale])
}

/// `2 files, 1.5 GiB`.
pub(crate) fn files(count: u64, size: u64) -> String {
    format!("{count} {}, {}", if count == 1 { "file" } else { "files" }, bytes(size))
}

/// The same, with the name of the manifest.
fn tree(tree: Tree) -> Value {
    text(format!("{}, {}", files(tree.files.into(), tree.bytes), tree.manifest))
}

/// `3.5`.
fn cores(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `a=b c=d`.
fn pairs<V: ToString>(map: &BTreeMap<String, V>) -> String {
    map.iter().map(|(name, value)| format!("{name}={}", value.to_string())).collect::<Vec<_>>().join(" ")
}

/// `2 cores, 1.0 GiB memory, 1 gpu, licence=1`.
fn resources(needs: &Resources) -> String {
    let mut parts = Vec::new();
    if needs.milli_cores > 0 {
        parts.push(format!("{} cores", cores(needs.milli_cores)));
    }
    if needs.memory > 0 {
        parts.push(format!("{} memory", bytes(needs.memory)));
    }
    if needs.disk > 0 {
        parts.push(format!("{} disk", bytes(needs.disk)));
    }
    if needs.gpus > 0 {
        parts.push(format!("{} GPU", needs.gpus));
    }
    if !needs.named.is_empty() {
        parts.push(pairs(&needs.named));
    }
    parts.join(", ")
}

/// Words as a shell would need them to be typed.
fn command(argv: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%{}".contains(c);
    let word = |word: &String| {
        if !word.is_empty() && word.chars().all(is_plain) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    argv.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn or_dash<T: ToString>(value: Option<T>) -> Value {
    text(value.map(|value| value.to_string()).unwrap_or_default())
}

#[cfg(test)]
pub(crate) mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        let shown = [0, 1023, 1024, 1536, 1 << 20, (1 << 30) - 1, 8 << 30, u64::MAX].map(bytes).join(" | ");
        insta::assert_snapshot!(shown, @"0 B | 1023 B | 1.0 KiB | 1.5 KiB | 1.0 MiB | 1023.9 MiB | 8.0 GiB | 15.9 EiB");
        assert_eq!([0, 500, 1000, 3500, 12_345].map(cores).join(" "), "0 0.5 1 3.5 12.345");
    }

    #[test]
    fn commands_can_be_typed_again() {
        let argv = ["sh", "-c", "echo 'a b'; exit 3", "", "{}"].map(String::from);
        insta::assert_snapshot!(command(&argv), @r"sh -c 'echo '\''a b'\''; exit 3' '' {}");
    }

    #[test]
    fn times_never_fail() {
        assert_eq!(instant(UnixMillis(0)), "1970-01-01T00:00:00.000Z");
        assert!(instant(UnixMillis(u64::MAX)).starts_with("9999-12-31"));
        assert_eq!(between(UnixMillis(5), UnixMillis(3)), "0ms");
    }
}
