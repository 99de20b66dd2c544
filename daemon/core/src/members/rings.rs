//! Who probes whom: every node has a place on each of K rings by a hash, and probes its successor on each.
//!
//! The rings together are a random regular graph, so news crosses the swarm in O(log n) steps over 2K connections a node, and K
//! observers watch each node however large the swarm is. Nobody has to agree: a node that is out (down, left) is stepped over, by
//! each observer when it learns so.

use swarm_proto::NodeId;

/// Rings, and so probe targets of a node. Eight observers see a death within 3.5 intervals at p99; each more costs two connections.
pub const RINGS: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Rings {
    /// Each sorted by place. Every member is on all of them; whether it counts is asked while walking.
    rings: [Vec<(u64, NodeId)>; RINGS],
}

impl Rings {
    pub(super) fn add(&mut self, nodes: &[NodeId]) {
        for (number, ring) in self.rings.iter_mut().enumerate() {
            ring.extend(nodes.iter().map(|&node| (place(number, node), node)));
            ring.sort_unstable();
        }
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        for ring in &mut self.rings {
            ring.retain(|&(_, other)| other != node);
        }
    }

    /// The next member on each ring after `node`; where that one was already taken, the one after it. All distinct.
    pub(super) fn successors(&self, node: NodeId, is_in: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let mut found = Vec::with_capacity(RINGS);
        for (number, ring) in self.rings.iter().enumerate() {
            let from = ring.partition_point(|&entry| entry <= (place(number, node), node));
            let mut around = (from..ring.len()).chain(0..from).map(|at| ring[at].1);
            found.extend(around.find(|&other| other != node && is_in(other) && !found.contains(&other)));
        }
        found
    }

    /// Who has `node` as a successor on some ring. Distinct.
    pub(super) fn predecessors(&self, node: NodeId, is_in: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let mut found = Vec::with_capacity(RINGS);
        for (number, ring) in self.rings.iter().enumerate() {
            let from = ring.partition_point(|&entry| entry < (place(number, node), node));
            let mut around = (0..from).rev().chain((from..ring.len()).rev()).map(|at| ring[at].1);
            let before = around.find(|&other| other != node && is_in(other));
            found.extend(before.filter(|other| !found.contains(other)));
        }
        found
    }
}

fn place(ring: usize, node: NodeId) -> u64 {
    mix(node.0 ^ mix(ring as u64 + 1))
}

/// The finaliser of splitmix64 (Steele et al. 2014): every input bit changes half of the output.
pub(super) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(count: u64) -> Rings {
        let mut rings = Rings::default();
        rings.add(&(1..=count).map(NodeId).collect::<Vec<_>>());
        rings
    }

    #[test]
    fn every_node_has_k_targets_and_observers() {
        let rings = rings(100);
        let mut observed = [0; 101];
        for node in (1..=100).map(NodeId) {
            let targets = rings.successors(node, |_| true);
            assert_eq!(targets.len(), RINGS);
            targets.iter().for_each(|target| observed[target.0 as usize] += 1);
        }
        assert!(observed[1..].iter().all(|&count| count >= 5), "{observed:?}");
    }

    #[test]
    fn predecessors_are_those_who_probe() {
        let rings = rings(50);
        for node in (1..=50).map(NodeId) {
            for observer in rings.predecessors(node, |_| true) {
                assert!(rings.successors(observer, |_| true).contains(&node), "{observer} does not probe {node}");
            }
        }
    }

    #[test]
    fn a_small_swarm_probes_everybody_and_who_is_out_is_stepped_over() {
        let mut rings = rings(5);
        let mut targets = rings.successors(NodeId(3), |node| node != NodeId(4));
        targets.sort_unstable();
        assert_eq!(targets, [1, 2, 5].map(NodeId));
        rings.remove(NodeId(5));
        assert_eq!(rings.successors(NodeId(3), |node| node != NodeId(4)).len(), 2);
        assert!(rings.successors(NodeId(3), |_| false).is_empty());
    }
}
