//! Who should be a voter, and which single change is safe now.
//!
//! ```text
//!   members -> target: 1 voter below 3 nodes, 3 up to 6, 5 up to 14, 7 above; never an even number
//!   a node -> AddLearner -> standby, catches up -> SetVoters: grow by two | swap one for one | shrink to an odd number
//! ```
//! The rules, each because a swarm was lost where it was missing:
//!
//! - One change at a time, and only while a majority of the present voters is alive. The new voters have a live majority too,
//!   and the leader is among them.
//! - A voter goes when it has left (or may vote no more), or when it has been Down for [`DOWN_FOR`] and a standby that has caught
//!   up takes its place at once. A live voter goes only together with one that has left, when fewer nodes want fewer voters. So a
//!   swarm that shrinks by a node keeps its voters as they are, and one that is merely unwell never talks itself down to nothing.
//! - The number of voters stays odd. Two voters stand less than one (either's loss stops both) and four no more than three, so
//!   growth adds two standbys in one joint change: between the two majorities of that change there is no moment at which two
//!   voters decide alone. It waits until both have caught up.
//! - New voters come from at most [`STANDBYS`] standbys; chosen for another failure domain (label `zone`) than the voters', then for
//!   a fast disk, then for a long uptime, then for a low id. Fine differences of disk and uptime do not count (powers of two), and
//!   nobody who serves well is exchanged for somebody better.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use swarm_proto::NodeId;

/// A voter that is Down this long may be replaced.
pub const DOWN_FOR: Duration = Duration::from_secs(30);
/// Nodes beyond the voters that hold the ledger.
pub const STANDBYS: usize = 2;

/// One node as the chooser sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeId,
    pub standing: Standing,
    /// False: never a voter, never a standby.
    pub may_vote: bool,
    /// The newest protocol that its version speaks; `None`: not heard yet.
    pub protocol: Option<u16>,
    /// Value of its label `zone`; `None` is a domain of its own.
    pub zone: Option<String>,
    /// Median time of an fsync of its log; `None`: not known, which counts as slow.
    pub fsync: Option<Duration>,
    /// How long its daemon has been up.
    pub uptime: Duration,
    /// Whether its log is close enough to the leader's (of learners and voters).
    pub is_caught_up: bool,
}

/// What membership thinks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Alive,
    Suspect,
    /// For this long.
    Down(Duration),
    /// Gone for good.
    Left,
}

/// Everything the choice depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterInput {
    /// The leader, who asks.
    pub me: NodeId,
    /// The committed configuration.
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// Whether a change is under way.
    pub is_changing: bool,
    /// Every node that has not left, and those that have while they are voters or learners. A voter or learner that is not
    /// listed counts as one that has left.
    pub nodes: Vec<Candidate>,
}

/// One change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VoterChange {
    /// Begins to hold the ledger; does not vote.
    AddLearner(NodeId),
    /// A standby that is no longer wanted.
    RemoveLearner(NodeId),
    /// The voters shall be exactly these, in one joint change; those that drop out hold the ledger no more.
    SetVoters { voters: BTreeSet<NodeId>, why: &'static str },
}

/// How many voters so many nodes should have.
pub const fn target(nodes: usize) -> usize {
    match nodes {
        0..3 => 1,
        3..7 => 3,
        7..15 => 5,
        _ => 7,
    }
}

const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The one change to make now, if any.
pub fn choose_change(input: &VoterInput) -> Option<VoterChange> {
    let scene = Scene::of(input);
    if input.is_changing || !input.voters.contains(&input.me) || !scene.has_live_majority(&input.voters) {
        return None;
    }
    let change = scene.replace_voter().or_else(|| scene.grow());
    change.or_else(|| scene.drop_standby()).or_else(|| scene.add_standby())
}

/// The protocol to write the log in from now on, one above `present`: every voter and standby is alive and knows it, and so does
/// every other node that is not Down (a voter may be made of any of them). What is Down, and older, comes back as a worker.
pub fn choose_protocol(input: &VoterInput, present: u16) -> Option<u16> {
    let scene = Scene::of(input);
    let knows_more = |node: &Candidate| node.protocol.is_some_and(|newest| newest > present);
    let holds_ledger = |id: &NodeId| input.voters.contains(id) || input.learners.contains(id);
    let holders_know = input.voters.iter().chain(&input.learners).all(|id| scene.is_alive(*id));
    let others_know = input.nodes.iter().all(|node| match node.standing {
        Standing::Alive | Standing::Suspect => knows_more(node),
        Standing::Down(_) | Standing::Left => !holds_ledger(&node.node),
    });
    (holders_know && others_know).then_some(present + 1)
}

/// What the operator should know about the voters; `None` when all is well.
pub fn warning(input: &VoterInput) -> Option<String> {
    let scene = Scene::of(input);
    let (nodes, voters, eligible) = (scene.members().count(), input.voters.len(), scene.eligible());
    let mut says = Vec::new();
    if nodes == 2 {
        says.push("two nodes have one voter: if it is lost, so is the ledger; a third node makes three voters".to_owned());
    } else if eligible < target(nodes) {
        says.push(format!("{nodes} nodes should have {} voters, but only {eligible} may vote", target(nodes)));
    }
    if voters < scene.wanted() {
        says.push(format!("there should be {} voters and there are {voters}: standbys must be alive and catch up first", scene.wanted()));
    }
    let silent: Vec<String> = input.voters.iter().filter(|id| !scene.is_alive(**id)).map(ToString::to_string).collect();
    if !scene.has_live_majority(&input.voters) {
        says.push(format!("no majority of the voters is alive ({} not): nothing can be accepted", silent.join(", ")));
    } else if !silent.is_empty() {
        let left = voters - silent.len() - majority(voters);
        says.push(format!("of the voters {} cannot be reached; {left} more may fail", silent.join(", ")));
    }
    (!says.is_empty()).then(|| says.join("; "))
}

/// The input by node.
struct Scene<'a> {
    input: &'a VoterInput,
    nodes: BTreeMap<NodeId, &'a Candidate>,
}

impl<'a> Scene<'a> {
    fn of(input: &'a VoterInput) -> Self {
        Self { input, nodes: input.nodes.iter().map(|node| (node.node, node)).collect() }
    }

    fn members(&self) -> impl Iterator<Item = &'a Candidate> + '_ {
        self.nodes.values().copied().filter(|node| node.standing != Standing::Left)
    }

    fn eligible(&self) -> usize {
        self.members().filter(|node| node.may_vote).count()
    }

    /// The target, as far as there are nodes that may vote, and odd.
    fn wanted(&self) -> usize {
        let most = target(self.members().count()).min(self.eligible());
        most.saturating_sub(1 - most % 2).max(1)
    }

    fn is_alive(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.standing == Standing::Alive)
    }

    fn is_useful(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.standing != Standing::Left && node.may_vote)
    }

    fn is_down_long(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| matches!(node.standing, Standing::Down(time) if time >= DOWN_FOR))
    }

    fn has_live_majority(&self, voters: &BTreeSet<NodeId>) -> bool {
        voters.iter().filter(|id| self.is_alive(**id)).count() >= majority(voters.len())
    }

    /// Standbys that could vote at once, the best first, each chosen beside `voters` and those before it.
    fn ready(&self, voters: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let mut left: BTreeSet<NodeId> = self.input.learners.difference(&self.input.voters).copied().collect();
        left.retain(|id| self.is_alive(*id) && self.nodes.get(id).is_some_and(|node| node.may_vote && node.is_caught_up));
        let (mut beside, mut ready) = (voters.clone(), Vec::new());
        while let Some(best) = left.iter().copied().min_by_key(|id| self.rank(*id, &beside)) {
            left.remove(&best);
            beside.insert(best);
            ready.push(best);
        }
        ready
    }

    /// How good a voter a node makes beside `others`; smaller is better.
    fn rank(&self, id: NodeId, others: &BTreeSet<NodeId>) -> impl Ord {
        let node = self.nodes.get(&id);
        let zone = node.and_then(|node| node.zone.as_deref());
        let zone_of = |other: &NodeId| self.nodes.get(other).and_then(|other| other.zone.as_deref());
        let neighbours = others.iter().filter(|other| **other != id && zone.is_some() && zone_of(other) == zone).count();
        let disk = node.and_then(|node| node.fsync).map_or(u32::MAX, |time| time.as_micros().max(1).ilog2());
        let uptime = node.map_or(0, |node| node.uptime.as_secs().max(1).ilog2());
        (neighbours, disk, Reverse(uptime), id)
    }

    /// The change, if it keeps a live majority and the leader.
    fn set(&self, voters: BTreeSet<NodeId>, why: &'static str) -> Option<VoterChange> {
        (voters.contains(&self.input.me) && self.has_live_majority(&voters)).then_some(VoterChange::SetVoters { voters, why })
    }

    /// Voters other than the leader that have left or may vote no more; those that are out of reach first.
    fn departed(&self) -> Vec<NodeId> {
        let mut list: Vec<NodeId> = self.input.voters.iter().copied().filter(|id| *id != self.input.me && !self.is_useful(*id)).collect();
        list.sort_by_key(|id| self.is_alive(*id));
        list
    }

    fn replace_voter(&self) -> Option<VoterChange> {
        let voters = &self.input.voters;
        let departed = self.departed();
        if !departed.is_empty() && voters.len() > self.wanted() {
            return self.shrink(&departed);
        }
        if !departed.is_empty() && voters.len().is_multiple_of(2) {
            let kept = voters.iter().copied().filter(|id| *id != departed[0]).collect();
            return self.set(kept, "a voter that is gone is taken out");
        }
        let long_down = voters.iter().copied().filter(|id| *id != self.input.me && self.is_down_long(*id));
        for old in departed.iter().copied().chain(long_down) {
            let mut kept = voters.clone();
            kept.remove(&old);
            if let Some(new) = self.ready(&kept).first() {
                kept.insert(*new);
                return self.set(kept, "a standby replaces a voter that is gone");
            }
        }
        // without a replacement it helps only to come to an odd number again
        let (two, _) = departed.split_first_chunk::<2>()?;
        self.set(voters.iter().copied().filter(|id| !two.contains(id)).collect(), "voters that are gone are taken out")
    }

    /// Fewer nodes want fewer voters: down to an odd number, first those that departed, then the one that is least good beside
    /// the rest.
    fn shrink(&self, departed: &[NodeId]) -> Option<VoterChange> {
        let mut kept = self.input.voters.clone();
        let go = if kept.len().is_multiple_of(2) { 1 } else { 2 };
        for round in 0..go {
            let worst =
                || kept.iter().copied().filter(|id| *id != self.input.me).max_by_key(|id| (!self.is_alive(*id), self.rank(*id, &kept)));
            let next = departed.get(round).copied().or_else(worst)?;
            kept.remove(&next);
        }
        self.set(kept, "fewer nodes want fewer voters")
    }

    fn grow(&self) -> Option<VoterChange> {
        let mut voters = self.input.voters.clone();
        let more = if voters.len().is_multiple_of(2) { 1 } else { 2 };
        let ready = self.ready(&voters);
        if voters.len() + more > self.wanted() || ready.len() < more {
            return None;
        }
        voters.extend(&ready[..more]);
        self.set(voters, "more nodes want more voters")
    }

    /// Nodes that may become standbys.
    fn fresh(&self) -> impl Iterator<Item = NodeId> + '_ {
        let is_free = |id: &NodeId| !self.input.voters.contains(id) && !self.input.learners.contains(id);
        self.members().filter(|node| node.may_vote && node.standing == Standing::Alive).map(|node| node.node).filter(is_free)
    }

    fn drop_standby(&self) -> Option<VoterChange> {
        let standbys: Vec<NodeId> = self.input.learners.difference(&self.input.voters).copied().collect();
        let useless = standbys.iter().copied().find(|id| !self.is_useful(*id));
        // one that is down keeps its place until somebody else can have it
        let replaceable = || standbys.iter().copied().find(|id| self.is_down_long(*id) && self.fresh().next().is_some());
        let surplus = || {
            let worst = standbys.iter().copied().max_by_key(|id| (!self.is_alive(*id), self.rank(*id, &self.input.voters)));
            worst.filter(|_| standbys.len() > STANDBYS)
        };
        useless.or_else(replaceable).or_else(surplus).map(VoterChange::RemoveLearner)
    }

    fn add_standby(&self) -> Option<VoterChange> {
        if self.input.learners.difference(&self.input.voters).count() >= STANDBYS {
            return None;
        }
        let holders: BTreeSet<NodeId> = self.input.voters.union(&self.input.learners).copied().collect();
        self.fresh().min_by_key(|id| self.rank(*id, &holders)).map(VoterChange::AddLearner)
    }
}
