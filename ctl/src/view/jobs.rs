//! Jobs.

use swarm_proto::{
    api::{JobOutcome, JobView},
    ledger::{Counts, TaskState},
    spec::Durability,
};

use super::{age, between, command, instant, or_dash, pairs, resources, state, state_word, tree};
use crate::output::{
    Card, Look, Row, View,
    table::{Tone, Value, number, short, text, toned},
};

impl View for JobView {
    fn columns(is_wide: bool) -> Vec<&'static str> {
        let mut columns = vec!["JOB", "STATE", "TASKS", "ENDED", "FAILED", "AGE", "WHAT"];
        if is_wide {
            columns.extend(["TOOK", "LOST", "RERUNS", "SUBMITTER", "KEY", "RETRY OF"]);
        }
        columns
    }

    fn row(&self, look: Look) -> Row {
        let ended = self.counts.total() - self.counts.open();
        let mut row = vec![
            text(self.job.to_string()),
            job_state(self),
            number(self.tasks),
            number(ended),
            number(self.counts.failed),
            text(age(self.submitted, look.now)),
            short(&what(self), look.is_wide),
        ];
        if look.is_wide {
            row.extend([
                or_dash(self.ended.map(|ended| between(self.submitted, ended))),
                number(self.counts.lost),
                number(self.reruns),
                text(&self.submitter),
                or_dash(self.key.as_deref()),
                or_dash(self.retry_of),
            ]);
        }
        row
    }

    fn card(&self, _: Look) -> Card {
        let spec = &self.spec;
        let retries: Vec<_> = spec.retries.iter().map(|(cause, n)| format!("{n}:{}", cause.word())).collect();
        Card::default()
            .line("job", text(self.job.to_string()))
            .some("name", self.name.as_deref(), text)
            .line("state", job_state(self))
            .line("tasks", text(counts(&self.counts)))
            .some(
                "array",
                self.is_array.then(|| format!("{}-{}", self.first, self.first.saturating_add(self.tasks.saturating_sub(1)))),
                text,
            )
            .line("kind", text(&spec.kind))
            .some("command", (!spec.argv.is_empty()).then(|| command(&spec.argv)), text)
            .some("inputs", spec.inputs, tree)
            .some("each", spec.each, tree)
            .some("outputs", (!spec.outputs.is_empty()).then(|| command(&spec.outputs)), text)
            .some("env", (!spec.env.is_empty()).then(|| pairs(&spec.env)), text)
            .line("needs", text(resources(&spec.needs)))
            .some("labels", (!spec.labels.is_empty()).then(|| pairs(&spec.labels)), text)
            .some("timeout", spec.timeout_ms.map(|ms| format!("{ms} ms")), text)
            .line("retries", text(retries.join(" ")))
            .line("on partition", text(format!("{:?}", spec.on_partition).to_lowercase()))
            .some("durability", (spec.durability == Durability::Async).then_some("async, lost with the leader until it has ended"), text)
            .some("at most once", spec.at_most_once.then_some("yes"), text)
            .line("submitted", text(instant(self.submitted)))
            .some("ended", self.ended.map(instant), text)
            .line("submitter", text(&self.submitter))
            .some("key", self.key.as_deref(), text)
            .some("reruns", (self.reruns > 0).then_some(self.reruns), number)
            .some("retry of", self.retry_of, |job| text(job.to_string()))
    }
}

fn job_state(job: &JobView) -> Value {
    match job.state {
        Some(ended) => state(ended),
        None if job.counts.assigned > 0 || job.counts.open() < job.counts.total() => toned("running", Tone::Busy),
        None => state(TaskState::Pending),
    }
}

fn what(job: &JobView) -> String {
    job.name.clone().unwrap_or_else(|| if job.spec.argv.is_empty() { job.spec.kind.clone() } else { command(&job.spec.argv) })
}

/// `412 succeeded, 2 failed, 586 pending`.
pub fn counts(counts: &Counts) -> String {
    let all = [
        (counts.succeeded, "succeeded"),
        (counts.failed, "failed"),
        (counts.lost, "lost"),
        (counts.cancelled, "cancelled"),
        (counts.assigned, "assigned"),
        (counts.pending, "pending"),
    ];
    let some: Vec<_> = all.into_iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if some.is_empty() { "none".into() } else { some.join(", ") }
}

/// `j17 failed: 998 succeeded, 2 failed`.
pub fn outcome(outcome: &JobOutcome) -> String {
    format!("{} {}: {}", outcome.job, state_word(outcome.state), counts(&outcome.counts))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use crate::{
        output::{Format, View},
        view::samples::{self, shown_card, shown_list},
    };

    #[test]
    fn jobs_as_a_table() {
        assert_snapshot!(shown_list(&samples::jobs(), Format::Table), @r#"
JOB  STATE    TASKS  ENDED  FAILED  AGE     WHAT
j17  running   1000    414       2  1m 15s  sh -c 'sha256sum "{}" && wc -l "{}" # for every…
j2   failed       1      1       1  1d 1h   night run
j1   pending      1      0       0  1m 15s  sh -c 'sha256sum "{}" && wc -l "{}" # for every…
"#);
        assert_snapshot!(shown_list(&samples::jobs(), Format::Wide), @r#"
JOB  STATE    TASKS  ENDED  FAILED  AGE     WHAT                                                         TOOK    LOST  RERUNS  SUBMITTER  KEY         RETRY OF
j17  running   1000    414       2  1m 15s  sh -c 'sha256sum "{}" && wc -l "{}" # for every file of it'  -          0       4  local      2024-06-01  j9
j2   failed       1      1       1  1d 1h   night run                                                    2h 46m     0       0  local      -           -
j1   pending      1      0       0  1m 15s  sh -c 'sha256sum "{}" && wc -l "{}" # for every file of it'  -          0       4  local      2024-06-01  j9
"#);
        assert_snapshot!(shown_list(&samples::jobs()[..0], Format::Table), @"JOB  STATE  TASKS  ENDED  FAILED  AGE  WHAT");
    }

    #[test]
    fn a_job_as_a_card() {
        assert_snapshot!(shown_card(&samples::jobs()[0]), @r#"
job:           j17
state:         running
tasks:         412 succeeded, 2 failed, 16 assigned, 570 pending
array:         0-999
kind:          exec
command:       sh -c 'sha256sum "{}" && wc -l "{}" # for every file of it'
env:           LANG=C
needs:         0.5 cores, 512.0 MiB memory, 1.0 GiB disk, 1 GPU, licence=2
labels:        os=linux zone=attic
timeout:       30000 ms
retries:       3:exit 5:node_lost
on partition:  stop
at most once:  yes
submitted:     2024-06-01T11:58:45.000Z
submitter:     local
key:           2024-06-01
reruns:        4
retry of:      j9
"#);
        assert_snapshot!(shown_card(&samples::jobs()[1]), @"
job:           j2
name:          night run
state:         failed
tasks:         1 failed
kind:          noop
needs:         -
retries:       -
on partition:  replace
durability:    async, lost with the leader until it has ended
submitted:     2024-05-31T11:00:00.000Z
ended:         2024-05-31T13:46:40.000Z
submitter:     local
");
    }

    #[test]
    fn a_job_with_files_names_them() {
        let mut job = samples::jobs().remove(1);
        (job.spec.inputs, job.spec.each) = (Some(samples::tree(3)), Some(samples::tree(1)));
        job.spec.outputs = vec!["out".into(), "a b/{}.csv".into()];
        assert_snapshot!(shown_card(&job), @"
job:           j2
name:          night run
state:         failed
tasks:         1 failed
kind:          noop
inputs:        3 files, 4.6 KiB, a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7
each:          1 file, 4.6 KiB, a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7
outputs:       out 'a b/{}.csv'
needs:         -
retries:       -
on partition:  replace
durability:    async, lost with the leader until it has ended
submitted:     2024-05-31T11:00:00.000Z
ended:         2024-05-31T13:46:40.000Z
submitter:     local
");
    }

    #[test]
    fn an_outcome_in_one_line() {
        assert_snapshot!(super::outcome(&samples::outcome()), @"j17 failed: 998 succeeded, 2 failed");
    }

    #[test]
    fn every_row_fits_its_header() {
        for is_wide in [false, true] {
            let row = samples::jobs()[0].row(samples::look(is_wide));
            assert_eq!(row.len(), swarm_proto::api::JobView::columns(is_wide).len());
        }
    }
}
