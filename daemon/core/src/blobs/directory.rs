//! Who holds what: the leader's memory of what workers say, made again by each new leader.

use std::collections::{BTreeMap, BTreeSet};

use swarm_proto::{Digest, NodeId, limits, peer::Holding};

/// Blobs and their holders: [`limits::HOLDINGS`] of them, and as many again that are the first two of a blob. What is beyond is still
/// where it is, only not told here.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    blobs: BTreeMap<Digest, Known>,
    nodes: BTreeMap<NodeId, BTreeSet<Digest>>,
    holdings: usize,
}

/// One blob that somebody holds whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Who says to have all of it, how many bytes that is there, and whether they are encrypted.
    holders: BTreeMap<NodeId, (u64, bool)>,
}

impl Known {
    /// Its bytes: what most of its holders say, and of two such sizes the larger one, since a file that was cut is shorter.
    pub fn size(&self) -> u64 {
        let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
        for (size, _) in self.holders.values() {
            *votes.entry(*size).or_default() += 1;
        }
        votes.into_iter().max_by_key(|(size, count)| (*count, *size)).map_or(0, |(size, _)| size)
    }

    /// Who has that many bytes of it.
    pub fn holders(&self) -> impl Iterator<Item = NodeId> {
        let size = self.size();
        self.holders.iter().filter(move |(_, (of, _))| *of == size).map(|(node, _)| *node)
    }

    /// Whether somebody keeps it encrypted.
    pub fn is_sealed(&self) -> bool {
        self.holders.values().any(|(_, is_sealed)| *is_sealed)
    }
}

impl Directory {
    /// A node says what it holds: all of it (`is_all`), or what has changed since.
    pub fn handle_holds(&mut self, node: NodeId, is_all: bool, has: impl IntoIterator<Item = Holding>, lost: &[Digest]) {
        if is_all {
            self.handle_gone(node);
        }
        for digest in lost {
            if self.nodes.get_mut(&node).is_some_and(|held| held.remove(digest)) {
                self.forget(node, *digest);
            }
        }
        for Holding { digest, size, is_sealed } in has {
            // put once more, and kept in another way now
            if let Some(held) = self.blobs.get_mut(&digest).and_then(|known| known.holders.get_mut(&node)) {
                *held = (size, is_sealed);
                continue;
            }
            // the first two of each are worth more than the others of any
            let is_one_of_many = self.holdings >= limits::HOLDINGS && self.blobs.get(&digest).is_some_and(|known| known.holders.len() >= 2);
            if is_one_of_many || self.holdings >= 2 * limits::HOLDINGS {
                continue;
            }
            self.nodes.entry(node).or_default().insert(digest);
            self.holdings += 1;
            self.blobs.entry(digest).or_default().holders.insert(node, (size, is_sealed));
        }
    }

    /// A node that says nothing any more.
    pub fn handle_gone(&mut self, node: NodeId) {
        for digest in self.nodes.remove(&node).unwrap_or_default() {
            self.forget(node, digest);
        }
    }

    fn forget(&mut self, node: NodeId, digest: Digest) {
        self.holdings -= 1;
        if let Some(known) = self.blobs.get_mut(&digest) {
            known.holders.remove(&node);
            if known.holders.is_empty() {
                self.blobs.remove(&digest);
            }
        }
    }

    /// One blob.
    pub fn get(&self, digest: Digest) -> Option<&Known> {
        self.blobs.get(&digest)
    }

    /// Blobs by name, those after `after`.
    pub fn after(&self, after: Option<Digest>) -> impl Iterator<Item = (&Digest, &Known)> {
        use std::ops::Bound;
        self.blobs.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(n: u8) -> Digest {
        Digest([n; 32])
    }

    fn holding(n: u8, size: u64) -> Holding {
        Holding { digest: digest(n), size, is_sealed: false }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Says(u64, bool, Vec<u8>, Vec<u8>),
        Gone(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let names = || prop::collection::vec(0u8..6, 0..4);
        prop_oneof![
            5 => (1u64..4, any::<bool>(), names(), names()).prop_map(|(node, is_all, has, lost)| Step::Says(node, is_all, has, lost)),
            1 => (1u64..4).prop_map(Step::Gone),
        ]
    }

    #[test]
    fn a_size_that_few_believe_is_not_believed() {
        let mut directory = Directory::default();
        directory.handle_holds(NodeId(1), true, [holding(1, 5)], &[]);
        assert_eq!(directory.get(digest(1)).unwrap().size(), 5);
        directory.handle_holds(NodeId(2), true, [holding(1, 9)], &[]);
        let known = directory.get(digest(1)).unwrap();
        assert_eq!((known.size(), known.holders().collect::<Vec<_>>()), (9, vec![NodeId(2)]));
        directory.handle_holds(NodeId(3), true, [holding(1, 5)], &[]);
        assert_eq!(directory.get(digest(1)).unwrap().holders().count(), 2);
        // what is said again counts
        assert!(!directory.get(digest(1)).unwrap().is_sealed());
        directory.handle_holds(NodeId(3), false, [Holding { is_sealed: true, ..holding(1, 5) }], &[]);
        assert!(directory.get(digest(1)).unwrap().is_sealed());
        assert_eq!(directory.holdings, 3);
    }

    proptest! {
        #[test]
        fn it_knows_what_nodes_said_last(steps in prop::collection::vec(step(), 0..30)) {
            let (mut directory, mut model) = (Directory::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Says(node, is_all, has, lost) => {
                        let lost: Vec<Digest> = lost.into_iter().map(digest).collect();
                        directory.handle_holds(NodeId(node), is_all, has.iter().map(|n| holding(*n, u64::from(*n))), &lost);
                        model.retain(|(digest, of)| *of != node || (!is_all && !lost.contains(digest)));
                        model.extend(has.into_iter().map(|n| (digest(n), node)));
                    }
                    Step::Gone(node) => {
                        directory.handle_gone(NodeId(node));
                        model.retain(|(_, of)| *of != node);
                    }
                }
            }
            let told: BTreeSet<(Digest, u64)> = directory
                .after(None)
                .flat_map(|(digest, known)| known.holders().map(|node| (*digest, node.0)))
                .collect();
            prop_assert_eq!(directory.holdings, model.len());
            prop_assert_eq!(&told, &model);
            prop_assert!(directory.after(Some(digest(2))).all(|(name, _)| *name > digest(2)));
            for (digest, node) in model {
                prop_assert!(directory.get(digest).unwrap().holders().any(|holder| holder == NodeId(node)));
            }
        }
    }
}
