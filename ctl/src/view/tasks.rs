//! Tasks.

use swarm_proto::{
    api::{OutputView, TaskView, Text},
    ledger::{End, TaskState},
};

use super::{between, bytes, instant, or_dash, state, tree};
use crate::output::{
    Card, Look, Row, View,
    table::{Tone, Value, number, plain, short, text, toned},
};

impl View for TaskView {
    fn columns(is_wide: bool) -> Vec<&'static str> {
        let mut columns = vec!["TASK", "STATE", "NODE", "ATTEMPT", "END", "TOOK", "ITEM"];
        if is_wide {
            columns.extend(["STARTED", "STDOUT", "STDERR", "FENCE"]);
        }
        columns
    }

    fn row(&self, look: Look) -> Row {
        let mut row = vec![
            text(self.task.to_string()),
            task_state(self),
            or_dash(self.node),
            number(self.attempt.0),
            short(&self.end.as_ref().map(end).unwrap_or_default(), look.is_wide),
            or_dash(took(self, look)),
            short(self.item.as_deref().unwrap_or_default(), look.is_wide),
        ];
        if look.is_wide {
            row.extend([
                or_dash(self.started.map(instant)),
                or_dash(self.output.as_ref().map(|output| bytes(output.stdout_len))),
                or_dash(self.output.as_ref().map(|output| bytes(output.stderr_len))),
                or_dash(self.fence),
            ]);
        }
        row
    }

    fn card(&self, look: Look) -> Card {
        let card = Card::default()
            .line("task", text(self.task.to_string()))
            .line("state", task_state(self))
            .some("item", self.item.as_deref(), text)
            .some("node", self.node, |node| text(node.to_string()))
            .line("attempt", number(self.attempt.0))
            .some("fence", self.fence, |fence| text(fence.to_string()))
            .some("end", self.end.as_ref().map(end), text)
            .some("started", self.started.map(instant), text)
            .some("ended", self.ended.map(instant), text)
            .some("took", took(self, look), text)
            .some("files", self.output.as_ref().and_then(|output| output.files), tree)
            .some("stdout blob", self.output.as_ref().and_then(|output| output.stdout_blob), |blob| text(blob.to_string()));
        match &self.output {
            None => card,
            Some(output) => heads(output).into_iter().fold(card, Card::block),
        }
    }
}

fn task_state(task: &TaskView) -> Value {
    if task.running && task.state == TaskState::Assigned { toned("running", Tone::Busy) } else { state(task.state) }
}

/// Of the attempt that ended, or so far; a time of pending is none.
fn took(task: &TaskView, look: Look) -> Option<String> {
    let started = task.started?;
    match task.ended {
        Some(ended) => Some(between(started, ended)),
        None => task.running.then(|| between(started, look.now)),
    }
}

/// `exit 3`.
pub fn end(end: &End) -> String {
    match end {
        End::Succeeded => "ok".into(),
        End::Exit(code) => format!("exit {code}"),
        End::Signal(n) => format!("signal {n}"),
        End::Timeout => "timeout".into(),
        End::Spawn(why) => format!("not started: {why}"),
        End::Refused(why) => format!("refused: {why}"),
        End::Input(why) => format!("no input: {why}"),
        End::Output(why) => format!("no output: {why}"),
        End::Cancelled => "cancelled".into(),
        End::Lost => "lost".into(),
    }
}

/// What it wrote first, each stream under its size.
fn heads(output: &OutputView) -> Vec<String> {
    let head = |name: &str, head: &Text, len: u64| {
        let (body, kept) = match head {
            Text::Utf8(text) => (text.lines().map(plain).collect::<Vec<_>>().join("\n"), text.len() as u64),
            Text::Base64(_) => ("(not text)".into(), len),
        };
        let size = if kept < len { format!("the first {kept} of {len} B") } else { format!("{len} B") };
        (len > 0).then(|| format!("{name}, {size}:\n{body}"))
    };
    let both = [head("stdout", &output.stdout, output.stdout_len), head("stderr", &output.stderr, output.stderr_len)];
    both.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use crate::{
        output::Format,
        view::samples::{self, shown_card, shown_list},
    };

    #[test]
    fn tasks_as_a_table() {
        assert_snapshot!(shown_list(&samples::tasks(), Format::Table), @"
TASK   STATE      NODE  ATTEMPT  END                                               TOOK   ITEM
j17.3  failed     n3          2  exit 3                                            1.2s   src/main.rs
j17.4  running    n3          2  -                                                 1m 1s  -
j17.5  assigned   n3          2  -                                                 -      -
j17.6  pending    -           0  -                                                 -      -
j17.7  failed     n3          2  not started: No such file or directory (os erro…  1.2s   src/main.rs
j17.8  lost       n3          2  lost                                              1.2s   src/main.rs
j17.9  succeeded  n3          2  ok                                                1.2s   src/main.rs
");
        assert_snapshot!(shown_list(&samples::tasks(), Format::Wide), @"
TASK   STATE      NODE  ATTEMPT  END                                                                           TOOK   ITEM         STARTED                   STDOUT   STDERR  FENCE
j17.3  failed     n3          2  exit 3                                                                        1.2s   src/main.rs  2024-06-01T11:59:50.000Z  4.0 KiB  1 B     120.2
j17.4  running    n3          2  -                                                                             1m 1s  -            2024-06-01T11:58:59.000Z  -        -       120.2
j17.5  assigned   n3          2  -                                                                             -      -            -                         -        -       120.2
j17.6  pending    -           0  -                                                                             -      -            -                         -        -       -
j17.7  failed     n3          2  not started: No such file or directory (os error 2) about a rather long path  1.2s   src/main.rs  2024-06-01T11:59:50.000Z  -        -       120.2
j17.8  lost       n3          2  lost                                                                          1.2s   src/main.rs  2024-06-01T11:59:50.000Z  4.0 KiB  1 B     120.2
j17.9  succeeded  n3          2  ok                                                                            1.2s   src/main.rs  2024-06-01T11:59:50.000Z  4.0 KiB  1 B     120.2
");
    }

    #[test]
    fn a_task_as_a_card() {
        for task in samples::tasks().into_iter().take(1) {
            assert_snapshot!(shown_card(&task), @r"
task:     j17.3
state:    failed
item:     src/main.rs
node:     n3
attempt:  2
fence:    120.2
end:      exit 3
started:  2024-06-01T11:59:50.000Z
ended:    2024-06-01T11:59:51.250Z
took:     1.2s

stdout, the first 23 of 4096 B:
line one
line \u{1b}[31mtwo

stderr, 1 B:
(not text)
");
        }
        let mut left = samples::tasks().remove(6);
        let output = left.output.as_mut().unwrap();
        (output.files, output.stdout_blob) = (Some(samples::tree(3)), Some(samples::tree(3).manifest));
        (output.stdout_len, output.stderr_len) = (0, 0);
        assert_snapshot!(shown_card(&left), @"
task:         j17.9
state:        succeeded
item:         src/main.rs
node:         n3
attempt:      2
fence:        120.2
end:          ok
started:      2024-06-01T11:59:50.000Z
ended:        2024-06-01T11:59:51.250Z
took:         1.2s
files:        3 files, 4.6 KiB, a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7
stdout blob:  a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7
");
        assert_snapshot!(shown_card(&samples::tasks()[3]), @"
task:     j17.6
state:    pending
attempt:  0
");
    }
}
