//! How large a command is once it is encoded, from above and without encoding it.
//!
//! Each number counts with its longest form; strings and bytes with their length. A bound that is too low would make an entry that the
//! log refuses; one that is too high only splits batches a little early.

use std::collections::BTreeMap;

use swarm_proto::{
    ledger::{Command, End, Finish, Outcome, Output, RecordedTask, Submit},
    spec::{Array, Cause, Exec, JobSpec, Resources, Work},
};

/// A number of 64 bits, as a varint.
const WORD: usize = 10;
/// A length or a number of 32 bits.
const SHORT: usize = 5;
/// A command that has no text: its tag and at most four numbers.
pub(super) const SMALL: usize = 1 + 4 * WORD;
const DIGEST: usize = 32;
/// A manifest's name and two numbers.
const TREE: usize = DIGEST + SHORT + WORD;
/// A task and a fence.
const ATTEMPT: usize = 2 * (WORD + SHORT);

fn text(text: &str) -> usize {
    SHORT + text.len()
}

fn map(map: &BTreeMap<String, String>) -> usize {
    SHORT + map.iter().map(|(key, value)| text(key) + text(value)).sum::<usize>()
}

fn resources(of: &Resources) -> usize {
    4 * WORD + SHORT + of.named.keys().map(|name| text(name) + WORD).sum::<usize>()
}

fn exec(exec: &Exec) -> usize {
    let argv: usize = exec.argv.iter().map(|word| text(word)).sum();
    SHORT + argv + map(&exec.env) + SHORT + exec.stdin.len() + 1 + exec.cwd.as_deref().map_or(0, text)
}

/// A spec.
pub(super) fn spec(spec: &JobSpec) -> usize {
    let work = match &spec.work {
        Work::Noop => 1,
        Work::Exec(of) => 1 + exec(of),
    };
    let name = 1 + spec.name.as_deref().map_or(0, text);
    // timeout and patience, the retry budgets, on_partition and at_most_once
    let rest = 2 * (1 + WORD) + Cause::ALL.len() * SHORT + 2;
    let items = 1 + spec.items.map_or(0, |_| DIGEST + WORD);
    let files = 2 + spec.trees().count() * TREE + SHORT + spec.outputs.iter().map(|path| text(path)).sum::<usize>();
    let durability = 1;
    let signed = 1 + spec
        .signed
        .as_deref()
        .map_or(0, |signed| 32 + text(&signed.key) + array(&signed.array) + WORD + SHORT + signed.signature.len());
    name + work + resources(&spec.needs) + map(&spec.labels) + rest + items + files + signed + durability
}

fn array(array: &Array) -> usize {
    3 * SHORT + 1 + array.items.iter().map(|item| text(item)).sum::<usize>()
}

fn submit(of: &Submit) -> usize {
    let key = 1 + of.key.as_deref().map_or(0, text);
    1 + text(&of.submitter) + key + spec(&of.spec) + array(&of.array) + 1 + WORD
}

fn output(output: &Output) -> usize {
    2 * SHORT
        + output.stdout.len()
        + output.stderr.len()
        + 2 * WORD
        + 2
        + output.stdout_blob.map_or(0, |_| DIGEST)
        + output.files.map_or(0, |_| TREE)
}

fn outcome(outcome: &Outcome) -> usize {
    let end = match &outcome.end {
        End::Spawn(why) | End::Refused(why) | End::Input(why) | End::Output(why) => text(why),
        End::Succeeded | End::Exit(_) | End::Signal(_) | End::Timeout | End::Cancelled | End::Lost => SHORT,
    };
    1 + end + 2 * WORD + 1 + outcome.output.as_deref().map_or(0, output)
}

/// The end of an attempt.
pub(super) fn finish(finish: &Finish) -> usize {
    1 + ATTEMPT + outcome(&finish.outcome)
}

fn recorded(task: &RecordedTask) -> usize {
    1 + (WORD + SHORT) + WORD + 1 + task.outcome.as_ref().map_or(0, outcome)
}

/// Any command.
pub(super) fn command(command: &Command) -> usize {
    match command {
        Command::Submit(of) => submit(of),
        Command::Finish(of) => finish(of),
        // key, raft directory, two addresses of at most 19 bytes each, a name
        Command::Admit(of) => 1 + 32 + 16 + 2 * 20 + text(&of.name) + 1,
        // rare, and of many shapes
        Command::Set(set) => 1 + postcard::experimental::serialized_size(set).unwrap_or(0),
        Command::Record(of) => 1 + submit(&of.submit) + 3 * WORD + SHORT + of.tasks.iter().map(recorded).sum::<usize>(),
        Command::Identity(change) => 1 + postcard::experimental::serialized_size(change).unwrap_or(0),
        Command::Lead { .. }
        | Command::Assign(_)
        | Command::Lose { .. }
        | Command::CancelJob { .. }
        | Command::CancelTask { .. }
        | Command::Schedule { .. }
        | Command::Leave { .. }
        | Command::Raise { .. }
        | Command::Reserve { .. } => SMALL,
    }
}
