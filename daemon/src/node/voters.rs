//! While leading: who votes. Asks [`swarm_core::voters`] for the one safe change and makes it, one at a time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use swarm_core::voters::{Candidate, Standing, VoterChange, VoterInput, choose_change, choose_protocol, warning};
use swarm_proto::{
    NodeId, PROTOCOL,
    api::Health,
    ledger::Command,
    peer::NodeMeta,
    settings::{Key, Set, ledger_memory_for},
};

use super::{
    Node,
    desk::{Desk, commit},
    peers::Peer,
};

/// How often the question is asked when nothing happens.
const EVERY: Duration = Duration::from_millis(250);
/// Who sets what nobody set. No user is called so: a name has no spaces.
const BY_ITSELF: &str = "the leader";
/// A follower that is fewer entries behind takes part in the next commit.
const CAUGHT_UP: u64 = 1_000;

/// Looks after the voters until leadership ends (the caller ends the task).
pub(crate) async fn run(node: Arc<Node>, desk: Desk) {
    let Some(consensus) = node.consensus.clone() else { return };
    let mut peers = node.peers.changes();
    let mut view = node.roster.changes();
    loop {
        let input = input(&node, &consensus);
        if let Some(change) = choose_change(&input) {
            // what a host gets when it begins to hold the ledger has to fit there
            if let VoterChange::AddLearner(id) = change {
                fit(&node, &consensus, &desk, Some(id)).await;
            }
            if let Err(error) = make(&consensus, change.clone()).await {
                tracing::debug!(%error, ?change, "the voters did not change");
            } else {
                node.journal.info(words(&change));
                continue;
            }
        }
        raise(&consensus, &desk, &input).await;
        fit(&node, &consensus, &desk, None).await;
        finish_rotation(&consensus, &desk).await;
        tokio::select! {
            biased;
            () = desk.closed() => return,
            _ = peers.changed() => {}
            _ = view.changed() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Has the log written in the next protocol, once everybody knows it.
async fn raise(consensus: &swarm_consensus::Consensus, desk: &Desk, input: &VoterInput) {
    let present = consensus.with_ledger(swarm_core::ledger::Ledger::protocol);
    let next = if present < PROTOCOL { choose_protocol(input, present) } else { None };
    if let Some(protocol) = next
        && let Err(problem) = commit(desk, Command::Raise { protocol }).await
    {
        tracing::debug!(%problem, protocol, "the protocol is not raised");
    }
}

/// Has the ledger take no more memory than the smallest of those that hold it, or are about to, can spare, unless somebody has set how
/// much.
async fn fit(node: &Node, consensus: &swarm_consensus::Consensus, desk: &Desk, next: Option<NodeId>) {
    let role = consensus.role().borrow().clone();
    let peers = node.peers.current();
    let memory = |id: &NodeId| meta(node, *id, peers.get(id)).map(|meta| meta.memory);
    // who is not known yet may be the smallest
    let Some(all) = role.voters.iter().chain(&role.learners).chain(&next).map(memory).collect::<Option<Vec<u64>>>() else { return };
    let Some(smallest) = all.into_iter().min() else { return };
    let wanted = ledger_memory_for(smallest).map(|mebibytes| format!("{mebibytes}MiB"));
    let is_right = consensus.with_ledger(|ledger| match ledger.settings().get(Key::LedgerMemory.word()) {
        Some(record) => record.by != BY_ITSELF || Some(&record.value) == wanted.as_ref(),
        None => wanted.is_none(),
    });
    if !is_right {
        let set = Set { key: Key::LedgerMemory.word().into(), value: wanted, by: BY_ITSELF.into() };
        if let Err(problem) = commit(desk, Command::Set(set)).await {
            tracing::debug!(%problem, "what the ledger takes is not set");
        }
    }
}

/// Drops an authority of nodes that was replaced, once every member holds a certificate of the new one.
async fn finish_rotation(consensus: &swarm_consensus::Consensus, desk: &Desk) {
    if let Some(change) = consensus.with_ledger(super::calls::identity::is_replaced)
        && let Err(problem) = commit(desk, Command::Identity(Box::new(change))).await
    {
        tracing::debug!(%problem, "the replaced authority is not dropped");
    }
}

async fn make(consensus: &swarm_consensus::Consensus, change: VoterChange) -> Result<(), swarm_consensus::ChangeError> {
    match change {
        VoterChange::AddLearner(node) => consensus.add_learner(node).await,
        VoterChange::RemoveLearner(node) => consensus.remove_learners(BTreeSet::from([node])).await,
        VoterChange::SetVoters { voters, .. } => consensus.change_voters(voters).await,
    }
}

fn words(change: &VoterChange) -> String {
    let list = |nodes: &BTreeSet<NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match change {
        VoterChange::AddLearner(node) => format!("{node} begins to hold the ledger"),
        VoterChange::RemoveLearner(node) => format!("{node} holds the ledger no more"),
        VoterChange::SetVoters { voters, why } => format!("the voters are {} ({why})", list(voters)),
    }
}

/// What an operator should know about the voters.
pub(crate) fn warning_of(node: &Arc<Node>) -> Option<String> {
    warning(&input(node, node.consensus.as_ref()?))
}

fn input(node: &Node, consensus: &swarm_consensus::Consensus) -> VoterInput {
    let role = consensus.role().borrow().clone();
    let lags = consensus.lags();
    let present = consensus.with_ledger(swarm_core::ledger::Ledger::protocol);
    let peers = node.peers.current();
    let view = node.roster.current();
    let wanted = |id: &NodeId| role.voters.contains(id) || role.learners.contains(id);
    let nodes = view.nodes.values().filter(|record| !record.is_gone || wanted(&record.id));
    let nodes = nodes
        .map(|record| {
            let peer = peers.get(&record.id);
            Candidate {
                node: record.id,
                standing: if record.is_gone {
                    Standing::Left
                } else if record.id == node.me {
                    Standing::Alive
                } else {
                    standing(peer)
                },
                // a version that was put back to before the log's protocol cannot read it
                may_vote: record.may_vote && meta(node, record.id, peer).is_none_or(|meta| meta.protocol >= present),
                protocol: meta(node, record.id, peer).map(|meta| meta.protocol),
                zone: meta(node, record.id, peer).and_then(|meta| meta.labels.get("zone").cloned()),
                fsync: None,
                uptime: peer.map_or(Duration::ZERO, |peer| peer.since.elapsed()),
                is_caught_up: record.id == node.me || matches!(lags.get(&record.id), Some(Some(behind)) if *behind < CAUGHT_UP),
            }
        })
        .collect();
    VoterInput { me: node.me, voters: role.voters, learners: role.learners, is_changing: false, nodes }
}

fn meta<'a>(node: &'a Node, id: NodeId, peer: Option<&'a Peer>) -> Option<&'a NodeMeta> {
    if id == node.me { Some(&node.settings.meta) } else { peer.and_then(|peer| peer.meta.as_deref()) }
}

fn standing(peer: Option<&Peer>) -> Standing {
    let Some(peer) = peer else { return Standing::Suspect };
    match peer.health {
        Health::Alive => Standing::Alive,
        Health::Suspect | Health::Unknown => Standing::Suspect,
        // a daemon that said goodbye may be restarting; only an entry of the log takes a member out
        Health::Down | Health::Left => Standing::Down(peer.since.elapsed()),
    }
}
