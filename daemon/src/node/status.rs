//! This node and what it sees, without asking anybody.

use swarm_proto::{
    NodeId,
    api::{Health, MeshStatus, Origin, PeerStatus, Phase, Status},
};
use swarm_transport::Plane;

use super::Node;

/// The status of a node that is up.
pub(crate) fn of(node: &Node) -> Status {
    let (term, leader) = node.peers.leader();
    let (is_voter, log_index) = node.consensus.as_ref().map_or((false, swarm_proto::LogIndex(0)), |consensus| {
        let role = consensus.role();
        let role = role.borrow();
        (role.voters.contains(&node.me), role.applied)
    });
    let phase = *node.phase.borrow();
    let carried = node.blobs.store.carried();
    Status {
        node: Some(node.me),
        name: node.settings.meta.name.clone(),
        software: node.settings.meta.software.clone(),
        cluster: node.cluster,
        phase,
        trouble: trouble(node, phase, leader),
        addrs: node.addrs(),
        leader,
        term,
        is_voter,
        log_index,
        peers: peers(node),
        log_written: node.consensus.as_ref().map_or(0, |consensus| consensus.health().written),
        blobs_given: carried.given(),
        blobs_taken: carried.taken(),
        datagrams_a_call: u32::try_from(node.bulk.datagrams_a_call()).unwrap_or(u32::MAX),
        up_ms: u64::try_from(node.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        certificate_ends: Some(node.papers.current().validity().until),
        clock_ahead_ms: node.clock.ahead(),
        preset: node.settings.preset.word().into(),
        mesh: MeshStatus::clone(&node.settings.whereabouts.seen()),
    }
}

fn trouble(node: &Node, phase: Phase, leader: Option<NodeId>) -> String {
    if phase == Phase::Damaged {
        return node.damage.clone();
    }
    let log = node.consensus.as_ref().map(|consensus| log_trouble(&consensus.health())).unwrap_or_default();
    if !log.is_empty() {
        return log;
    }
    let outcast = node.outcast();
    if !outcast.is_empty() {
        return outcast;
    }
    let waits = &node.settings.whereabouts.seen().waits;
    if !waits.is_empty() {
        return format!("waits for its mesh: {waits}");
    }
    if leader.is_none() { "no leader is known".into() } else { String::new() }
}

fn log_trouble(health: &swarm_consensus::Health) -> String {
    match health {
        swarm_consensus::Health { fatal: Some(fatal), .. } => fatal.to_string(),
        swarm_consensus::Health { disk_full: true, .. } => {
            "there is no room on the log's disk: nothing is acknowledged here until there is".into()
        }
        swarm_consensus::Health { stalled: Some(span), .. } => {
            format!("the log's disk has been busy with one write for {} s", span.as_secs())
        }
        swarm_consensus::Health { .. } => String::new(),
    }
}

fn peers(node: &Node) -> Vec<PeerStatus> {
    let (view, table) = (node.roster.current(), node.peers.current());
    let seen = node.settings.whereabouts.seen();
    let origin = |addr| seen.candidates.iter().find(|candidate| candidate.addr == addr).map_or(Origin::Remembered, |found| found.origin);
    let others = view.nodes.values().filter(|record| record.id != node.me && !record.is_gone);
    others
        .map(|record| {
            let connection = node.control.existing(Plane::Control, record.id);
            let peer = table.get(&record.id);
            PeerStatus {
                node: record.id,
                name: record.name.clone(),
                health: peer.map_or(Health::Unknown, |peer| peer.health),
                addr: record.addrs.control,
                connected: connection.is_some(),
                rtt_us: connection.as_ref().and_then(|connection| u64::try_from(connection.rtt().as_micros()).ok()),
                mtu: connection.map(|connection| connection.mtu()),
                software: peer.and_then(|peer| peer.meta.as_ref()).map(|meta| meta.software.clone()).unwrap_or_default(),
                found: origin(record.addrs.control),
            }
        })
        .collect()
}
