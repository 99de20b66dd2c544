//! Nodes, and who leads them.

use swarm_proto::{
    NodeId,
    api::{Health, LeaderView, NodeView},
    ledger::Schedule,
};

use super::{bytes, cores, pairs, resources};
use crate::output::{
    Card, Look, Row, View,
    table::{Tone, Value, number, text, toned},
};

impl View for NodeView {
    fn columns(is_wide: bool) -> Vec<&'static str> {
        let mut columns = vec!["NODE", "NAME", "HEALTH", "ROLE", "WORK", "RUNNING", "ASSIGNED", "CORES", "MEMORY", "ADDRESS"];
        if is_wide {
            columns.extend(["OS", "ARCH", "VERSION", "LOAD", "DISK", "GPUS", "EXECUTORS", "LABELS"]);
        }
        columns
    }

    fn row(&self, look: Look) -> Row {
        let mut row = vec![
            text(self.node.to_string()),
            text(&self.name),
            health(self.health),
            text(role(self)),
            schedule(self.schedule),
            number(self.running),
            number(self.assigned),
            number(cores(self.capacity.milli_cores)),
            number(bytes(self.capacity.memory)),
            text(self.addrs.control.to_string()),
        ];
        if look.is_wide {
            row.extend([
                text(&self.os),
                text(&self.arch),
                text(&self.software),
                text(self.load.map(|load| cores(load.milli_load)).unwrap_or_default()),
                number(bytes(self.capacity.disk)),
                number(self.capacity.gpus),
                text(self.executors.join(",")),
                text(pairs(&self.labels)),
            ]);
        }
        row
    }

    fn card(&self, _: Look) -> Card {
        Card::default()
            .line("node", text(self.node.to_string()))
            .line("name", text(&self.name))
            .line("health", health(self.health))
            .line("role", text(role(self)))
            .line("may vote", text(if self.may_vote { "yes" } else { "no" }))
            .line("work", schedule(self.schedule))
            .line("running", number(self.running))
            .line("assigned", number(self.assigned))
            .line("offers", text(resources(&self.capacity)))
            .some("free", self.load.map(|load| format!("{} memory, {} disk", bytes(load.memory_free), bytes(load.disk_free))), text)
            .some("load", self.load.map(|load| cores(load.milli_load)), text)
            .line("executors", text(self.executors.join(", ")))
            .line("labels", text(pairs(&self.labels)))
            .line("control", text(self.addrs.control.to_string()))
            .line("bulk", text(self.addrs.bulk.to_string()))
            .line("host", text(format!("{} {}", self.os, self.arch)))
            .line("version", text(&self.software))
            .line("key", text(&self.key))
    }
}

pub(super) const fn health_word(health: Health) -> (&'static str, Tone) {
    match health {
        Health::Unknown => ("unknown", Tone::Plain),
        Health::Alive => ("alive", Tone::Good),
        Health::Suspect => ("suspect", Tone::Busy),
        Health::Down => ("down", Tone::Bad),
        Health::Left => ("left", Tone::Plain),
    }
}

/// Its word.
pub fn health(health: Health) -> Value {
    let (word, tone) = health_word(health);
    toned(word, tone)
}

const fn role(node: &NodeView) -> &'static str {
    match (node.is_leader, node.is_voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "worker",
    }
}

/// The word of a schedule.
pub(super) const fn schedule_word(schedule: Schedule) -> &'static str {
    match schedule {
        Schedule::Open => "open",
        Schedule::Cordoned => "cordoned",
        Schedule::Draining => "draining",
    }
}

fn schedule(schedule: Schedule) -> Value {
    toned(schedule_word(schedule), if schedule == Schedule::Open { Tone::Plain } else { Tone::Busy })
}

pub(super) fn ids(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Who leads.
pub fn leader(leader: &LeaderView) -> Card {
    Card::default()
        .line("leader", text(format!("{} ({})", leader.node, leader.name)))
        .line("term", number(leader.term.0))
        .line("voters", text(ids(&leader.voters)))
        .line("standbys", text(ids(&leader.standbys)))
        .some("warning", (!leader.warning.is_empty()).then_some(&leader.warning), |warning| toned(warning, Tone::Bad))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use crate::{
        output::Format,
        view::samples::{self, shown_card, shown_list},
    };

    #[test]
    fn nodes_as_a_table() {
        assert_snapshot!(shown_list(&samples::nodes(), Format::Table), @"
NODE  NAME    HEALTH  ROLE    WORK      RUNNING  ASSIGNED  CORES    MEMORY  ADDRESS
n1    server  alive   leader  open            3         4     16  32.0 GiB  100.64.0.1:4747
n2    pi4     alive   voter   draining        3         4    3.5   4.0 GiB  100.64.0.2:4747
n3    laptop  down    worker  draining        3         4    3.5   4.0 GiB  100.64.0.2:4747
");
        assert_snapshot!(shown_list(&samples::nodes(), Format::Wide), @"
NODE  NAME    HEALTH  ROLE    WORK      RUNNING  ASSIGNED  CORES    MEMORY  ADDRESS          OS     ARCH     VERSION  LOAD     DISK  GPUS  EXECUTORS  LABELS
n1    server  alive   leader  open            3         4     16  32.0 GiB  100.64.0.1:4747  linux  x86_64   0.1.0    1.25  1.0 TiB     1  exec,noop  arch=x86_64 os=linux zone=attic
n2    pi4     alive   voter   draining        3         4    3.5   4.0 GiB  100.64.0.2:4747  linux  aarch64  0.1.0    -         0 B     0  exec,noop  arch=x86_64 os=linux zone=attic
n3    laptop  down    worker  draining        3         4    3.5   4.0 GiB  100.64.0.2:4747  linux  aarch64  0.1.0    -         0 B     0  exec,noop  arch=x86_64 os=linux zone=attic
");
    }

    #[test]
    fn a_node_as_a_card() {
        assert_snapshot!(shown_card(&samples::nodes()[0]), @"
node:       n1
name:       server
health:     alive
role:       leader
may vote:   yes
work:       open
running:    3
assigned:   4
offers:     16 cores, 32.0 GiB memory, 1.0 TiB disk, 1 GPU
free:       12.0 GiB memory, 900.0 GiB disk
load:       1.25
executors:  exec, noop
labels:     arch=x86_64 os=linux zone=attic
control:    100.64.0.1:4747
bulk:       100.64.0.1:4748
host:       linux x86_64
version:    0.1.0
key:        a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7
");
    }

    #[test]
    fn the_leader_as_a_card() {
        assert_snapshot!(super::leader(&samples::leader()).render(false), @"
leader:    n1 (server)
term:      4
voters:    n1 n2
standbys:  -
warning:   two nodes have one voter
");
    }
}
