//! The answer to "why is this not running?".

use swarm_proto::{
    NodeId,
    api::{Explain, Health, InputKind, InputReason, Reason, Verdict},
    spec::OnPartition,
};

use super::{bytes, cores, nodes::health_word, state_word};
use crate::{
    output::{
        Table,
        table::{plain, text},
    },
    words::span,
};

/// The verdict in one sentence, then what each node would say.
pub fn explain(explain: &Explain, is_coloured: bool) -> String {
    let mut shown = format!("{}: {}\n", explain.task, verdict(explain));
    if explain.ahead > 0 {
        shown.push_str(&format!("{} tasks are before it\n", explain.ahead));
    }
    if let Some(end) = &explain.files {
        shown.push_str(&format!("its last attempt ended so: {}\n", super::end(end)));
    }
    for input in &explain.inputs {
        shown.push_str(&self::input(input, &explain.verdict));
    }
    if !explain.nodes.is_empty() {
        let mut table = Table::new(&["NODE", "NAME", "WOULD SAY"]);
        for node in &explain.nodes {
            table.add(vec![text(node.node.to_string()), text(&node.name), text(reason(&node.reason))]);
        }
        shown.push('\n');
        shown.push_str(&table.render(is_coloured));
    }
    shown
}

/// Why it does not begin, for whoever waits for it; `None` where it has begun, is about to, or will not.
pub fn why_not(explain: &Explain) -> Option<String> {
    let task = explain.task;
    match &explain.verdict {
        Verdict::NodeUnreachable { .. } | Verdict::NoRoomNow | Verdict::NobodyCan | Verdict::NoNodes => {
            Some(format!("{task} waits: {}; more: swarmctl task explain {task}", verdict(explain)))
        }
        Verdict::Ended(_) | Verdict::Running { .. } | Verdict::WaitsAtNode { .. } | Verdict::Next => None,
    }
}

fn verdict(explain: &Explain) -> String {
    match &explain.verdict {
        Verdict::Ended(state) => format!("it has ended: {}", state_word(*state)),
        Verdict::Running { node } => format!("it runs on {node}"),
        Verdict::WaitsAtNode { node } => format!("it is at {node}, waiting for its turn"),
        Verdict::NodeUnreachable { node, on_partition, in_ms } => unreachable(&node.to_string(), *on_partition, *in_ms),
        Verdict::Next => "it is granted next".into(),
        Verdict::NoRoomNow => "nodes could run it, but none has room now".into(),
        Verdict::NobodyCan => "no node that is here can ever run it".into(),
        Verdict::NoNodes => "there is no node".into(),
    }
}

/// Where its files are, a line for each thing to be said of them.
fn input(input: &InputReason, verdict: &Verdict) -> String {
    let what = match input.kind {
        InputKind::Inputs => format!("its inputs ({}, {})", count(input.files, "file"), bytes(input.bytes)),
        InputKind::Each => format!("the files of the job's tasks ({}, {})", count(input.files, "file"), bytes(input.bytes)),
        InputKind::Items => format!("its list of items ({})", bytes(input.bytes)),
    };
    let more = if input.held_by as usize > input.holders.len() { ", .." } else { "" };
    let held = match input.held_by {
        0 => "are on no node that is here".to_owned(),
        by => format!("are on {} ({}{more})", count(by, "node"), list(&input.holders)),
    };
    let preferred = if input.is_preferred { "; such a node is preferred" } else { "" };
    let mut lines = vec![format!("{what} {held}{preferred}")];
    let waits = |node: &&NodeId| !input.holders.contains(node) && more.is_empty();
    if let Some(node) = waiting_at(verdict).as_ref().filter(waits) {
        lines.push(format!("  {node} does not have them yet"));
    }
    if !input.coming.is_empty() {
        lines.push(format!("  a copy is to come to {}", list(&input.coming)));
    }
    lines.extend(input.failed.iter().map(|(node, why)| format!("  {node} could not keep a copy: {}", plain(why))));
    lines.into_iter().map(|line| line + "\n").collect()
}

/// The node that it is at and has not started on.
const fn waiting_at(verdict: &Verdict) -> Option<NodeId> {
    match verdict {
        Verdict::WaitsAtNode { node } => Some(*node),
        Verdict::Ended(_)
        | Verdict::Running { .. }
        | Verdict::NodeUnreachable { .. }
        | Verdict::Next
        | Verdict::NoRoomNow
        | Verdict::NobodyCan
        | Verdict::NoNodes => None,
    }
}

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn count(n: u32, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

fn unreachable(node: &str, on_partition: OnPartition, in_ms: Option<u64>) -> String {
    let then = match on_partition {
        OnPartition::Replace => "a new attempt is granted",
        OnPartition::Stop => "the old attempt is dead for sure and a new one is granted",
        OnPartition::Wait => return format!("its node {node} cannot be reached, and it waits for that node"),
    };
    match in_ms {
        None => format!("its node {node} cannot be reached; once that node is down, {then}"),
        Some(ms) => {
            format!("its node {node} cannot be reached; in {} at the earliest {then}", span::short(std::time::Duration::from_millis(ms)))
        }
    }
}

fn reason(reason: &Reason) -> String {
    match reason {
        Reason::Fits => "it fits here now".into(),
        Reason::NotAlive(Health::Unknown) => "nothing has been heard of me yet".into(),
        Reason::NotAlive(health) => format!("I am {}", health_word(*health).0),
        Reason::NotConnected => "I am alive, but not connected to the leader".into(),
        Reason::Cordoned => "I am cordoned".into(),
        Reason::Draining => "I am draining".into(),
        Reason::ExecutorOff { executor } => format!("my config does not enable {executor}"),
        Reason::Label { key, want, has: None } => format!("it wants label {key}={want}, I have no {key}"),
        Reason::Label { key, want, has: Some(has) } => format!("it wants label {key}={want}, mine is {key}={has}"),
        Reason::TooSmall { resource, need, has } => {
            format!("it needs {}, I have {} in all", amount(resource, *need), amount(resource, *has))
        }
        Reason::Full { resource, need, free } => format!("it needs {}, {} is free", amount(resource, *need), amount(resource, *free)),
        Reason::WindowFull { window } => format!("I hold {window} attempts, as many as I take"),
    }
}

fn amount(resource: &str, n: u64) -> String {
    match resource {
        "milli_cores" => format!("{} cores", cores(n)),
        "memory" | "disk" => format!("{} of {resource}", bytes(n)),
        other => format!("{n} {}", plain(other)),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use swarm_proto::{
        Digest,
        ledger::{End, TaskState},
    };

    use super::*;
    use crate::view::samples;

    #[test]
    fn nobody_can_run_it() {
        assert_snapshot!(super::explain(&samples::explain(), false), @"
j17.3: no node that is here can ever run it
570 tasks are before it

NODE  NAME  WOULD SAY
n1    a     it fits here now
n2    b     I am down
n3    c     I am alive, but not connected to the leader
n4    d     I am cordoned
n5    e     I am draining
n6    f     my config does not enable exec
n7    g     it wants label gpu=3090, I have no gpu
n8    h     it wants label gpu=3090, mine is gpu=2080
n9    i     it needs 8 cores, I have 3.5 cores in all
n10   j     it needs 8.0 GiB of memory, 1.0 GiB of memory is free
n11   k     it needs 2 licence, 1 licence is free
n12   l     I hold 16 attempts, as many as I take
n13   m     nothing has been heard of me yet
");
    }

    #[test]
    fn where_its_files_are_is_said() {
        let input = |kind, holders: &[u64], is_preferred| InputReason {
            kind,
            digest: Digest([7; 32]),
            files: 12,
            bytes: 3 << 30,
            holders: holders.iter().copied().map(NodeId).collect(),
            held_by: u32::try_from(holders.len()).unwrap(),
            is_preferred,
            coming: vec![],
            failed: vec![],
        };
        let copied = InputReason {
            coming: vec![NodeId(4)],
            failed: vec![(NodeId(5), "its store is full".into())],
            ..input(InputKind::Each, &[], false)
        };
        let many = InputReason { held_by: 40, ..input(InputKind::Items, &[1, 2, 3, 4, 5, 6, 7, 8], false) };
        let explain = Explain {
            verdict: Verdict::WaitsAtNode { node: NodeId(3) },
            nodes: vec![],
            ahead: 0,
            inputs: vec![input(InputKind::Inputs, &[1, 2], true), copied, many],
            files: Some(End::Input("'a/b' did not come: nobody gave it: n2 (it is away)".into())),
            ..samples::explain()
        };
        assert_snapshot!(super::explain(&explain, false), @"
j17.3: it is at n3, waiting for its turn
its last attempt ended so: no input: 'a/b' did not come: nobody gave it: n2 (it is away)
its inputs (12 files, 3.0 GiB) are on 2 nodes (n1, n2); such a node is preferred
  n3 does not have them yet
the files of the job's tasks (12 files, 3.0 GiB) are on no node that is here
  n3 does not have them yet
  a copy is to come to n4
  n5 could not keep a copy: its store is full
its list of items (3.0 GiB) are on 40 nodes (n1, n2, n3, n4, n5, n6, n7, n8, ..)
");
    }

    #[test]
    fn every_verdict_is_a_sentence() {
        let node = NodeId(3);
        let unreachable = |on_partition, in_ms| Verdict::NodeUnreachable { node, on_partition, in_ms };
        let verdicts = [
            Verdict::Ended(TaskState::Succeeded),
            Verdict::Running { node },
            Verdict::WaitsAtNode { node },
            unreachable(OnPartition::Replace, None),
            unreachable(OnPartition::Stop, Some(2_500)),
            unreachable(OnPartition::Wait, None),
            Verdict::Next,
            Verdict::NoRoomNow,
            Verdict::NobodyCan,
            Verdict::NoNodes,
        ];
        let lines = verdicts.map(|verdict| super::explain(&Explain { verdict, nodes: vec![], ahead: 0, ..samples::explain() }, false));
        assert_snapshot!(lines.concat(), @"
j17.3: it has ended: succeeded
j17.3: it runs on n3
j17.3: it is at n3, waiting for its turn
j17.3: its node n3 cannot be reached; once that node is down, a new attempt is granted
j17.3: its node n3 cannot be reached; in 2.5s at the earliest the old attempt is dead for sure and a new one is granted
j17.3: its node n3 cannot be reached, and it waits for that node
j17.3: it is granted next
j17.3: nodes could run it, but none has room now
j17.3: no node that is here can ever run it
j17.3: there is no node
");
    }
}
