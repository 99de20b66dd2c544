//! What the daemon says, if it says anything.

use std::time::Duration;

use swarm_client::{Client, Place};
use swarm_proto::{
    Code, Problem,
    api::{LeaderView, NodeView, Phase, Status},
};
use tokio::time::timeout;

use super::Finding;
use crate::words::span;

/// How long the daemon may take for one answer; without a leader it would look for one longer than a person waits.
const PATIENCE: Duration = Duration::from_secs(4);
/// Clocks may differ so much before the daemon says so.
const SKEW: Duration = Duration::from_secs(60);

/// What is known from the daemon.
#[derive(Default)]
pub(super) struct Daemon {
    pub(super) status: Option<Status>,
}

/// Asks all there is to ask.
pub(super) async fn ask(place: Place) -> (Daemon, Vec<Finding>) {
    let client = Client::at(place);
    let status = match within(client.status()).await {
        Ok(status) => status,
        Err(problem) => return (Daemon::default(), vec![unreachable(&problem)]),
    };
    let mut findings = vec![phase(&status)];
    findings.push(leader(&within(client.leader()).await, &status));
    findings.push(versions(&status, &within(client.nodes()).await));
    findings.push(clock(&status));
    findings.extend(payloads(&status));
    (Daemon { status: Some(status) }, findings)
}

async fn within<T>(ask: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let late = || Problem::new(Code::Timeout, "swarmd does not answer", format!("that took longer than {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, ask).await.unwrap_or_else(|_| Err(late()))
}

fn unreachable(problem: &Problem) -> Finding {
    let what = format!("{}: {}", problem.what, problem.why);
    let fix = if problem.hint.is_empty() { "systemctl restart swarmd" } else { &problem.hint };
    Finding::fail("daemon", what, fix)
}

fn phase(status: &Status) -> Finding {
    let up = span::short(Duration::from_millis(status.up_ms));
    let who = status.node.map_or_else(|| status.name.clone(), |node| format!("{node} ({})", status.name));
    let trouble = || if status.trouble.is_empty() { "it does not say why".to_owned() } else { status.trouble.clone() };
    match status.phase {
        Phase::Ready if status.trouble.is_empty() => {
            Finding::ok("daemon", format!("swarmd {} is ready as {who}, up {up}", status.software))
        }
        Phase::Ready => {
            Finding::fail("daemon", format!("{who} is up, but: {}", status.trouble), "swarmctl status; journalctl -u swarmd -n 50")
        }
        Phase::Damaged => Finding::fail(
            "daemon",
            format!("{who} works, but does not vote: {}", trouble()),
            "stop it, move its log directory away, start it again: it comes back as a new voter",
        ),
        Phase::Joining => Finding::fail(
            "daemon",
            format!("{who} waits to be let in: {}", trouble()),
            "look at the peers below; is a member up at one of them?",
        ),
        Phase::Unjoined => {
            Finding::warn("daemon", "swarmd is up, and belongs to no swarm yet", "swarmctl mesh init, or swarmctl mesh join TOKEN")
        }
        Phase::Starting | Phase::Stopping => Finding::warn(
            "daemon",
            format!("{who} is {}: {}", if status.phase == Phase::Starting { "starting" } else { "stopping" }, trouble()),
            "ask again",
        ),
    }
}

/// What a payload costs depends on it more than on anything else that a host can be told.
fn payloads(status: &Status) -> Option<Finding> {
    let what = match status.datagrams_a_call {
        0 => return None,
        1 => "one datagram a system call: this system has no UDP segmentation offload, so payloads cost more CPU".to_owned(),
        most => format!("up to {most} datagrams a system call (UDP segmentation offload)"),
    };
    Some(Finding::ok("payloads", what))
}

fn leader(leader: &Result<LeaderView, Problem>, status: &Status) -> Finding {
    match leader {
        Ok(view) if view.warning.is_empty() => {
            let voters = view.voters.len();
            Finding::ok("leader", format!("{} ({}) leads term {} with {voters} voter{}", view.node, view.name, view.term.0, plural(voters)))
        }
        Ok(view) => Finding::warn(
            "leader",
            format!("{} ({}) leads; {}", view.node, view.name, view.warning),
            "add nodes: from three on, three vote",
        ),
        Err(problem) => {
            let known = status.leader.map_or_else(String::new, |leader| format!(" ({leader} was the last one heard of)"));
            Finding::fail(
                "leader",
                format!("{}{known}", problem.why),
                "most voters must be up and reach each other; look at the peers below",
            )
        }
    }
}

const fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn versions(status: &Status, nodes: &Result<Vec<NodeView>, Problem>) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    if status.software != own {
        return Finding::warn("versions", format!("swarmctl is {own}, swarmd is {}", status.software), "install the same version of both");
    }
    let Ok(nodes) = nodes else {
        return Finding::warn(
            "versions",
            format!("swarmctl and swarmd are {own}; without a leader, nothing is known of the others"),
            "ask again",
        );
    };
    let others: Vec<String> = nodes
        .iter()
        .filter(|node| !node.software.is_empty() && node.software != status.software)
        .map(|node| format!("{} ({}) has {}", node.node, node.name, node.software))
        .collect();
    if others.is_empty() {
        return Finding::ok("versions", format!("{own} on this host and on all nodes that are heard of"));
    }
    Finding::warn(
        "versions",
        format!("this host has {own}, {}", others.join(", ")),
        "finish the upgrade: neighbours of one version work together",
    )
}

/// The daemon counts by the swarm's clock; the host's own is for people, and for the certificates of others.
fn clock(status: &Status) -> Finding {
    let off = Duration::from_millis(status.clock_ahead_ms.unsigned_abs());
    if off < SKEW {
        return Finding::ok("clocks", format!("this host and the swarm agree to within {} s", SKEW.as_secs()));
    }
    let way = if status.clock_ahead_ms > 0 { "behind" } else { "ahead of" };
    Finding::warn("clocks", format!("this host is {} {way} the swarm", span::short(off)), "timedatectl set-ntp true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{verb::doctor::Level, view::samples};

    #[test]
    fn what_the_daemon_says_has_a_level() {
        let mut status = samples::status();
        assert_eq!(phase(&status).level, Level::Ok);
        status.trouble = "the log's disk is full".into();
        assert_eq!(phase(&status).level, Level::Fail);
        for (to, level) in [(Phase::Starting, Level::Warn), (Phase::Joining, Level::Fail), (Phase::Damaged, Level::Fail)] {
            status.phase = to;
            assert_eq!(phase(&status).level, level, "{to:?}");
            assert!(!phase(&status).fix.is_empty());
        }
    }

    #[test]
    fn a_clock_that_is_off_is_told() {
        let mut status = samples::status();
        assert_eq!(clock(&status).level, Level::Ok);
        for (ahead, way) in [(172_800_000, "2d 0h behind"), (-172_800_000, "2d 0h ahead of")] {
            status.clock_ahead_ms = ahead;
            let finding = clock(&status);
            assert_eq!((finding.level, finding.what.contains(way)), (Level::Warn, true), "{finding:?}");
        }
    }

    #[test]
    fn another_version_anywhere_is_a_warning() {
        let mut status = samples::status();
        status.software = env!("CARGO_PKG_VERSION").into();
        let mut node = samples::nodes().remove(0);
        node.software = status.software.clone();
        assert_eq!(versions(&status, &Ok(vec![node.clone()])).level, Level::Ok);
        node.software = "9.9.9".into();
        let finding = versions(&status, &Ok(vec![node]));
        assert_eq!((finding.level, finding.what.contains("has 9.9.9")), (Level::Warn, true), "{finding:?}");
        status.software = "9.9.9".into();
        assert_eq!(versions(&status, &Ok(vec![])).level, Level::Warn);
    }
}
