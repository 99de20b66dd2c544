//! The swarm at a glance, and what happened in it.

use swarm_proto::{
    api::{Candidate, MeshStatus, Missed, Phase, Stats, Status},
    ledger::{Event, What},
};

use super::{instant, jobs::counts, nodes, state_word};
use crate::{
    output::{
        Card, Table,
        table::{Tone, number, plain, text, toned},
    },
    words::span,
};

const PEERS: [&str; 7] = ["PEER", "NAME", "HEALTH", "CONNECTED", "RTT", "ADDRESS", "FOUND"];
const CANDIDATES: [&str; 5] = ["CANDIDATE", "NAME", "FOUND", "KNOCKS", "LAST TIME"];

/// This node, the figures of the swarm where a leader gave them, and the peers.
pub fn status(status: &Status, stats: Option<&Stats>, is_coloured: bool) -> String {
    let node = status.node.map_or_else(|| status.name.clone(), |node| format!("{node} ({})", status.name));
    let (phase, tone) = phase_word(status.phase);
    let leader = status.leader.map_or_else(|| "none known".into(), |leader| format!("{leader}, term {}", status.term.0));
    let card = Card::default()
        .line("node", text(node))
        .line("phase", toned(phase, tone))
        .some("trouble", (!status.trouble.is_empty()).then_some(&status.trouble), |trouble| toned(trouble, Tone::Bad))
        .some("mesh", mesh(status), text)
        .line("leader", text(leader))
        .line("votes", text(if status.is_voter { "yes" } else { "no" }))
        .line("log index", number(status.log_index.0))
        .some("clock", clock(status), |clock| toned(clock, Tone::Busy))
        .line("up", text(span::short(std::time::Duration::from_millis(status.up_ms))));
    let card = match stats {
        None => card,
        Some(stats) => figures(card, stats),
    };
    let missed = |card: Card, missed: &Missed| {
        card.line("not found", text(format!("{} by {}: {}", plain(&missed.what), missed.origin.word(), plain(&missed.why))))
    };
    let card = status.mesh.missed.iter().fold(card, missed);
    let block = match (status.peers.is_empty(), status.mesh.candidates.is_empty()) {
        (false, _) => peers(status, is_coloured),
        (true, false) => candidates(status, is_coloured),
        (true, true) => return card.render(is_coloured),
    };
    card.block(block).render(is_coloured)
}

/// `3d 0h behind the swarm's`, where it is off by more than a path can explain.
fn clock(status: &Status) -> Option<String> {
    let off = std::time::Duration::from_millis(status.clock_ahead_ms.unsigned_abs());
    let way = if status.clock_ahead_ms > 0 { "behind" } else { "ahead of" };
    (!off.is_zero()).then(|| format!("{} {way} the swarm's; set it: timedatectl set-ntp true", span::short(off)))
}

/// `tailscale on tailscale0, 100.64.0.1, preset wan`.
fn mesh(status: &Status) -> Option<String> {
    let MeshStatus { kind, interface, address, .. } = &status.mesh;
    let interface = interface.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
    let preset = if status.preset.is_empty() { String::new() } else { format!(", preset {}", status.preset) };
    address.map(|address| format!("{kind}{interface}, {address}{preset}"))
}

/// Where a node that knows no member yet looks for one.
fn candidates(status: &Status, is_coloured: bool) -> String {
    let mut table = Table::new(&CANDIDATES);
    for Candidate { addr, origin, name, knocks, why } in &status.mesh.candidates {
        let knocks = number(u64::from(*knocks));
        table.add(vec![text(addr.to_string()), text(name), text(origin.word()), knocks, text(plain(why))]);
    }
    table.render(is_coloured)
}

fn figures(card: Card, stats: &Stats) -> Card {
    let ended = swarm_proto::ledger::Counts {
        succeeded: stats.tasks_succeeded,
        failed: stats.tasks_failed,
        cancelled: stats.tasks_cancelled,
        lost: stats.tasks_lost,
        ..swarm_proto::ledger::Counts::default()
    };
    let open = format!("{} pending, {} assigned ({} running)", stats.tasks_pending, stats.tasks_assigned, stats.tasks_running);
    card.line("nodes", text(format!("{} of {} online, {} busy", stats.nodes_online, stats.nodes, stats.nodes_busy)))
        .some("labels", (!stats.nodes_by_label.is_empty()).then(|| by_label(stats)), text)
        .line("jobs", text(format!("{} open, {} ended", stats.jobs_open, stats.jobs_ended)))
        .line("tasks", text(open))
        .line("ended", text(counts(&ended)))
        .some("success", stats.success_rate.map(|rate| format!("{:.1} %", rate * 100.0)), text)
        .line("throughput", text(format!("{:.1} tasks/s", stats.throughput)))
        .some("refused", (stats.results_refused > 0).then(|| format!("{} late results", stats.results_refused)), text)
}

fn by_label(stats: &Stats) -> String {
    stats.nodes_by_label.iter().map(|(label, n)| format!("{label} ({n})")).collect::<Vec<_>>().join(", ")
}

fn peers(status: &Status, is_coloured: bool) -> String {
    let mut table = Table::new(&PEERS);
    for peer in &status.peers {
        let rtt = peer.rtt_us.map(|us| format!("{}.{} ms", us / 1000, us % 1000 / 100)).unwrap_or_default();
        table.add(vec![
            text(peer.node.to_string()),
            text(&peer.name),
            nodes::health(peer.health),
            text(if peer.connected { "yes" } else { "no" }),
            text(rtt),
            text(peer.addr.to_string()),
            text(peer.found.word()),
        ]);
    }
    table.render(is_coloured)
}

const fn phase_word(phase: Phase) -> (&'static str, Tone) {
    match phase {
        Phase::Starting => ("starting", Tone::Busy),
        Phase::Joining => ("joining", Tone::Busy),
        Phase::Ready => ("ready", Tone::Good),
        Phase::Damaged => ("damaged", Tone::Bad),
        Phase::Stopping => ("stopping", Tone::Busy),
        Phase::Unjoined => ("belongs to no swarm", Tone::Busy),
    }
}

/// `120.3  2024-06-01T12:00:00.000Z  j17 accepted, 1000 tasks`.
pub fn event(event: &Event) -> String {
    format!("{:<10}  {}  {}", event.cursor.to_string(), instant(event.at), what(&event.what))
}

fn what(what: &What) -> String {
    match what {
        What::LeaderElected { node, term } => format!("{node} leads, term {}", term.0),
        What::JobSubmitted { job, tasks: 1 } => format!("{job} accepted, 1 task"),
        What::JobSubmitted { job, tasks } => format!("{job} accepted, {tasks} tasks"),
        What::TasksAssigned { job, first, count: 1, attempt, node } => format!("{job}.{first} assigned to {node}, attempt {}", attempt.0),
        What::TasksAssigned { job, first, count, attempt, node } => {
            let last = first.saturating_add(count.saturating_sub(1));
            format!("{job}.{first} to {job}.{last} assigned to {node}, attempt {}", attempt.0)
        }
        What::TaskEnded { task, state, attempt, node } => {
            let place = node.map(|node| format!(" on {node}")).unwrap_or_default();
            format!("{task} {}{place}, attempt {}", state_word(*state), attempt.0)
        }
        What::TaskRetried { task, attempt, cause } => {
            format!("{task} goes back to pending: attempt {} ended by {}", attempt.0, cause.word())
        }
        What::ResultRefused { task, attempt } => format!("{task} late result of attempt {} refused", attempt.0),
        What::JobEnded { job, counts: ended } => format!("{job} ended: {}", counts(ended)),
        What::NodeAdmitted { node, name } => format!("{node} admitted: {}", plain(name)),
        What::NodeScheduled { node, to } => format!("{node} is now {}", nodes::schedule_word(*to)),
        What::NodeLeft { node } => format!("{node} left"),
        What::VotersChanged { voters } => format!("voters are now {}", nodes::ids(voters)),
        What::ProtocolRaised { protocol } => format!("every member knows protocol {protocol}: the log is written in it"),
        What::SwarmFounded { cluster } => format!("swarm {cluster} founded"),
        What::NodeRegistered { node, name } => format!("{node} registered: {}", plain(name)),
        What::NodeWelcomed { node } => format!("{node} welcomed"),
        What::NodeSynced { node } => format!("{node} in sync"),
        What::NodeReady { node } => format!("{node} ready"),
        What::NodeRevoked { node } => format!("{node} revoked"),
        What::TokenCreated { token, by } => format!("token {token} made by {}", plain(by)),
        What::TokenUsed { token, uses_left } => format!("token {token} used, {uses_left} uses left"),
        What::TokenRevoked { token } => format!("token {token} revoked"),
        What::UserSet { name, role } => format!("user {} is {role}", plain(name)),
        What::UserEnrolled { name, key } => format!("user {} logged in with key {}", plain(name), &key.to_string()[..16]),
        What::UserRevoked { name } => format!("user {} revoked", plain(name)),
        What::RootAdded { kind, root } => format!("{} authority {root} issues from now on", kind.word()),
        What::RootDropped { kind, root } => format!("{} authority {root} is believed no more", kind.word()),
        What::SettingChanged { key, value: Some(value), by } => format!("{} set to {} by {}", plain(key), plain(value), plain(by)),
        What::SettingChanged { key, value: None, by } => format!("{} left to each host by {}", plain(key), plain(by)),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use swarm_proto::api::{Candidate, Missed, Origin};

    use crate::view::samples;

    #[test]
    fn the_swarm_at_a_glance() {
        assert_snapshot!(super::status(&samples::status(), Some(&samples::stats()), false), @"
node:        n1 (server)
phase:       ready
mesh:        tailscale on tailscale0, 100.64.0.1, preset wan
leader:      n1, term 4
votes:       yes
log index:   1234
up:          1h 1m
nodes:       2 of 3 online, 1 busy
labels:      os=linux (2), zone=attic (1)
jobs:        1 open, 16 ended
tasks:       570 pending, 16 assigned (12 running)
ended:       412 succeeded, 2 failed
success:     99.5 %
throughput:  41.2 tasks/s
refused:     1 late results

PEER  NAME    HEALTH  CONNECTED  RTT     ADDRESS          FOUND
n2    pi4     alive   yes        1.2 ms  100.64.0.2:4747  tailscale
n3    laptop  down    no         -       100.64.0.2:4747  remembered
");
    }

    #[test]
    fn a_node_without_a_leader_says_so() {
        let mut status = samples::status();
        (status.leader, status.node, status.trouble) = (None, None, "no member answers".into());
        status.peers.clear();
        status.mesh.candidates = vec![Candidate {
            addr: ([100, 64, 0, 2], 4747).into(),
            origin: Origin::Dns,
            name: "pi4".into(),
            knocks: 3,
            why: "it does not answer".into(),
        }];
        status.mesh.missed = vec![Missed { origin: Origin::Dns, what: "h9".into(), why: "DNS does not know the name".into() }];
        assert_snapshot!(super::status(&status, None, false), @"
node:       server
phase:      ready
trouble:    no member answers
mesh:       tailscale on tailscale0, 100.64.0.1, preset wan
leader:     none known
votes:      yes
log index:  1234
up:         1h 1m
not found:  h9 by dns: DNS does not know the name

CANDIDATE        NAME  FOUND  KNOCKS  LAST TIME
100.64.0.2:4747  pi4   dns         3  it does not answer
");
    }

    #[test]
    fn a_clock_that_is_off_has_a_line() {
        let mut status = samples::status();
        assert!(!super::status(&status, None, false).contains("clock:"));
        for (ahead, line) in [(259_200_000, "3d 0h behind the swarm's"), (-90_000, "1m 30s ahead of the swarm's")] {
            status.clock_ahead_ms = ahead;
            let shown = super::status(&status, None, false);
            assert!(shown.lines().any(|said| said.starts_with("clock:") && said.contains(line)), "{shown}");
        }
    }

    #[test]
    fn events_in_one_line_each() {
        let lines: Vec<_> = samples::events().iter().map(super::event).collect();
        assert_snapshot!(lines.join("\n"), @"
120.0       2024-06-01T12:00:00.000Z  n3 leads, term 4
120.1       2024-06-01T12:00:00.000Z  j17 accepted, 1 task
120.2       2024-06-01T12:00:00.000Z  j17 accepted, 1000 tasks
120.3       2024-06-01T12:00:00.000Z  j17.3 assigned to n3, attempt 2
120.4       2024-06-01T12:00:00.000Z  j17.0 to j17.15 assigned to n3, attempt 2
120.5       2024-06-01T12:00:00.000Z  j17.3 succeeded on n3, attempt 2
120.6       2024-06-01T12:00:00.000Z  j17.3 cancelled, attempt 2
120.7       2024-06-01T12:00:00.000Z  j17.3 goes back to pending: attempt 2 ended by node_lost
120.8       2024-06-01T12:00:00.000Z  j17.3 late result of attempt 2 refused
120.9       2024-06-01T12:00:00.000Z  j17 ended: 998 succeeded, 2 failed
120.10      2024-06-01T12:00:00.000Z  n3 admitted: pi4
120.11      2024-06-01T12:00:00.000Z  n3 is now draining
120.12      2024-06-01T12:00:00.000Z  n3 left
120.13      2024-06-01T12:00:00.000Z  voters are now n1 n3
120.14      2024-06-01T12:00:00.000Z  every member knows protocol 2: the log is written in it
");
    }
}
