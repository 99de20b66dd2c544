//! What the demo tells at the end.

use std::{collections::BTreeMap, io::Write as _, time::Duration};

use serde::Serialize;
use swarm_proto::{
    Code, Problem,
    api::{JobOutcome, NodeView, TaskView},
    ledger::TaskState,
};

use crate::dev::Form;

/// The figures. `lost` counts tasks that were accepted and did not end, or ended lost.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    tasks: u64,
    succeeded: u64,
    failed: u64,
    lost: u64,
    reruns: u64,
    leader_killed: bool,
    gap_ms: u64,
    checked: usize,
    collected: usize,
    seconds: f64,
    nodes: Vec<NodeLine>,
}

#[derive(Debug, Serialize)]
struct NodeLine {
    name: String,
    tasks: u64,
    killed: bool,
}

impl Report {
    pub(crate) fn new(
        outcome: &JobOutcome,
        tasks: &[TaskView],
        nodes: &[NodeView],
        gap: Duration,
        took: Duration,
        (checked, collected): (usize, usize),
        killed: &str,
    ) -> Self {
        let mut by_node = BTreeMap::new();
        for task in tasks.iter().filter(|task| task.state == TaskState::Succeeded) {
            if let Some(node) = task.node {
                *by_node.entry(node).or_insert(0) += 1;
            }
        }
        let line = |node: &NodeView| NodeLine {
            name: node.name.clone(),
            tasks: by_node.get(&node.node).copied().unwrap_or(0),
            killed: node.name == killed,
        };
        Self {
            tasks: outcome.counts.total(),
            succeeded: outcome.counts.succeeded,
            failed: outcome.counts.failed,
            lost: outcome.counts.lost + outcome.counts.open(),
            reruns: outcome.reruns,
            leader_killed: true,
            gap_ms: u64::try_from(gap.as_millis()).unwrap_or(u64::MAX),
            checked,
            collected,
            seconds: took.as_secs_f64(),
            nodes: nodes.iter().map(line).collect(),
        }
    }

    /// Prints the table, or the figures as data.
    pub(crate) fn print(&self, form: Form) {
        let text = match form {
            Form::Json => serde_json::to_string(self).unwrap_or_default(),
            Form::Table => self.table(),
        };
        write_out(&text);
    }

    fn table(&self) -> String {
        let mut text = String::from("\n  node      tasks\n");
        for node in &self.nodes {
            text += &format!("  {:<9} {:>5}{}\n", node.name, node.tasks, if node.killed { "  killed" } else { "" });
        }
        text += &format!(
            "\n  tasks accepted       {:>6}\n  succeeded            {:>6}\n  lost                 {:>6}\n  attempts re-run      {:>6}\n  \
             without a leader     {:>6} ms\n  results checked here {:>6}\n  files collected      {:>6}\n  in all               {:>6.1} s",
            self.tasks, self.succeeded, self.lost, self.reruns, self.gap_ms, self.checked, self.collected, self.seconds
        );
        text
    }

    /// Whether everything came true.
    pub(crate) fn verdict(&self) -> Result<(), Problem> {
        if self.succeeded == self.tasks && self.lost == 0 {
            return Ok(());
        }
        let why = format!("{} of {} tasks succeeded, {} failed, {} were lost", self.succeeded, self.tasks, self.failed, self.lost);
        Err(Problem::new(Code::Internal, "not every task succeeded", why))
    }
}

/// A line of progress; none where the output is data.
pub(crate) fn say(form: Form, text: &str) {
    if form == Form::Table {
        write_out(text);
    }
}

/// Whoever reads this may be gone; that changes nothing.
fn write_out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
