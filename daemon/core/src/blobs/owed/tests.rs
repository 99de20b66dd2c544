//! A leader that owes, in a swarm whose nodes come, go, lose and fill up.

use proptest::prelude::*;
use swarm_proto::Digest;

use super::*;

fn owing(n: u8) -> Owing {
    Owing { digest: Digest([n; 32]), is_tree: n.is_multiple_of(2) }
}

/// Nodes as they are: who lives, who holds what, who has no room.
struct World {
    owed: Owed,
    now: Instant,
    here: BTreeSet<NodeId>,
    holds: BTreeMap<NodeId, BTreeSet<Digest>>,
    keeps: BTreeMap<NodeId, BTreeSet<Owing>>,
    full: BTreeSet<NodeId>,
    ready: BTreeMap<u64, Result<(), Problem>>,
    asked: usize,
}

impl World {
    fn new(nodes: u64) -> Self {
        let now = Instant::now();
        let mut world = Self {
            owed: Owed::new(nodes as usize, now),
            now: now + SETTLING,
            here: (1..=nodes).map(NodeId).collect(),
            holds: BTreeMap::new(),
            keeps: BTreeMap::new(),
            full: BTreeSet::new(),
            ready: BTreeMap::new(),
            asked: 0,
        };
        for node in world.here.clone() {
            world.owed.handle_here(node);
        }
        world
    }

    fn put(&mut self, node: u64, n: u8) {
        self.holds.entry(NodeId(node)).or_default().insert(owing(n).digest);
        self.owed.handle_held(owing(n).digest);
    }

    fn order(&mut self) -> Option<KeepOrder> {
        let (holds, here) = (self.holds.clone(), self.here.clone());
        let holders = |digest| here.iter().filter(|node| holds.get(node).is_some_and(|held| held.contains(&digest))).copied().collect();
        self.owed.plan(holders, 3, self.now);
        self.owed.poll_output()
    }

    /// Everybody does what is asked.
    fn settle(&mut self) {
        loop {
            let Some(order) = self.order() else {
                if self.owed.dirty.is_empty() {
                    break;
                }
                continue;
            };
            match order {
                KeepOrder::Keep { node, owing } => {
                    assert!(self.here.contains(&node), "{node} is away");
                    assert!(self.owed.is_kept_by(node, owing), "{node} may have what it is asked to keep");
                    self.asked += 1;
                    let has = self.holds.entry(node).or_default().contains(&owing.digest);
                    if self.full.contains(&node) && !has {
                        self.owed.handle_failed(node, owing, Problem::new(Code::NoSpace, "no", "full"), self.now);
                    } else {
                        self.holds.entry(node).or_default().insert(owing.digest);
                        self.keeps.entry(node).or_default().insert(owing);
                        self.owed.handle_kept(node, owing);
                    }
                }
                KeepOrder::Release { node, owing } => {
                    self.keeps.entry(node).or_default().remove(&owing);
                }
                KeepOrder::Ready { ticket, end } => {
                    self.ready.insert(ticket, end);
                }
            }
        }
        self.check_claims();
    }

    /// Who keeps something may have it, and nobody else.
    fn check_claims(&self) {
        for (node, owing) in self.here.iter().flat_map(|node| self.owed.items.keys().map(move |owing| (*node, *owing))) {
            let keeps = self.keeps.get(&node).is_some_and(|kept| kept.contains(&owing));
            assert_eq!(self.owed.is_kept_by(node, owing), keeps, "{node} {owing:?}");
        }
    }

    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(at) = self.owed.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.owed.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    fn keepers(&self, n: u8) -> usize {
        self.here.iter().filter(|node| self.keeps.get(node).is_some_and(|kept| kept.contains(&owing(n)))).count()
    }

    fn away(&mut self, node: u64) {
        self.here.remove(&NodeId(node));
        // what it was to keep it forgets
        self.keeps.remove(&NodeId(node));
        self.owed.handle_gone(NodeId(node), self.now);
    }

    fn back(&mut self, node: u64) {
        self.here.insert(NodeId(node));
        self.owed.handle_here(NodeId(node));
        // and says what it holds
        for digest in self.holds.get(&NodeId(node)).into_iter().flatten() {
            self.owed.handle_held(*digest);
        }
    }
}

#[test]
fn a_job_waits_for_two_copies() {
    let mut world = World::new(3);
    world.put(2, 1);
    world.owed.owe(Owner::Ticket(7), [owing(1)], world.now);
    world.settle();
    assert_eq!(world.ready.remove(&7), Some(Ok(())));
    assert_eq!(world.keepers(1), 2);
    assert!(world.keeps[&NodeId(2)].contains(&owing(1)), "who has it keeps it");
    // the job has it now
    world.owed.owe(Owner::Job(JobId(1)), [owing(1)], world.now);
    world.owed.release(Owner::Answered(7));
    world.settle();
    assert_eq!((world.keepers(1), world.asked), (2, 2));
    world.owed.release(Owner::Job(JobId(1)));
    world.settle();
    assert_eq!(world.keepers(1), 0);
    assert!(world.owed.items.is_empty() && world.owed.owners.is_empty());
}

#[test]
fn one_node_is_enough_where_there_is_one() {
    let mut world = World::new(1);
    world.put(1, 1);
    world.owed.owe(Owner::Ticket(7), [owing(1)], world.now);
    world.settle();
    assert_eq!(world.ready.remove(&7), Some(Ok(())));
}

#[test]
fn what_nobody_has_is_waited_for_a_moment_and_then_refused() {
    let mut world = World::new(2);
    world.owed.owe(Owner::Ticket(7), [owing(1)], world.now);
    world.owed.owe(Owner::Ticket(8), [owing(2)], world.now);
    world.settle();
    assert!(world.ready.is_empty() && world.asked == 0);
    world.put(1, 2);
    world.settle();
    assert_eq!(world.ready.remove(&8), Some(Ok(())));
    world.pass(UNHEARD);
    let problem = world.ready.remove(&7).expect("told").expect_err("refused");
    assert_eq!(problem.code, Code::NotFound);
}

#[test]
fn a_copy_that_is_away_for_a_moment_does_not_refuse_a_job() {
    let mut world = World::new(3);
    world.put(1, 1);
    world.owed.owe(Owner::Job(JobId(1)), [owing(1)], world.now);
    world.settle();
    let other = (2..=3).find(|node| world.keeps.contains_key(&NodeId(*node))).expect("a second one");
    world.away(other);
    world.settle();
    assert_eq!(world.asked, 2, "it may be back soon");
    world.owed.owe(Owner::Ticket(7), [owing(1)], world.now);
    world.settle();
    assert_eq!(world.ready.remove(&7), Some(Ok(())));
    assert_eq!((world.keepers(1), world.asked), (2, 3), "who waits has a third one asked");
}

#[test]
fn a_new_leader_that_has_not_heard_of_the_others_lets_a_job_wait() {
    let mut world = World::new(1);
    world.owed.members = 5;
    world.now -= SETTLING;
    world.put(1, 1);
    world.owed.owe(Owner::Ticket(7), [owing(1)], world.now);
    world.settle();
    assert!(world.ready.is_empty());
    world.here.insert(NodeId(2));
    world.owed.handle_here(NodeId(2));
    world.settle();
    assert_eq!(world.ready.remove(&7), Some(Ok(())));
    assert_eq!(world.keepers(1), 2);
}

#[test]
fn a_copy_that_was_lost_is_made_again() {
    let mut world = World::new(3);
    world.put(1, 1);
    world.owed.owe(Owner::Job(JobId(1)), [owing(1)], world.now);
    world.settle();
    world.holds.get_mut(&NodeId(1)).expect("it holds it").clear();
    world.keeps.remove(&NodeId(1));
    world.owed.handle_lost(NodeId(1), owing(1).digest);
    world.settle();
    assert_eq!(world.keepers(1), 2);
}

#[test]
fn a_new_leader_asks_first_who_has_it() {
    let mut world = World::new(4);
    world.now -= SETTLING;
    world.put(1, 1);
    world.owed.owe(Owner::Job(JobId(1)), [owing(1)], world.now);
    world.settle();
    assert_eq!(world.keepers(1), 1);
    world.put(3, 1);
    world.settle();
    assert_eq!((world.keepers(1), world.asked), (2, 2), "it said so a moment later");
    world.put(2, 2);
    world.owed.owe(Owner::Job(JobId(1)), [owing(2)], world.now);
    world.pass(SETTLING);
    assert_eq!(world.keepers(2), 2, "nobody else said so");
}

#[test]
fn a_full_node_is_passed_over_and_none_left_is_said() {
    let mut world = World::new(3);
    world.put(1, 1);
    world.put(1, 2);
    world.full.insert(NodeId(2));
    world.owed.owe(Owner::Ticket(1), [owing(1), owing(2)], world.now);
    world.settle();
    assert_eq!(world.ready.remove(&1), Some(Ok(())));
    world.full.insert(NodeId(3));
    world.put(1, 3);
    world.owed.owe(Owner::Ticket(2), [owing(1), owing(3)], world.now);
    world.settle();
    let problem = world.ready.remove(&2).expect("told").expect_err("refused");
    assert_eq!((problem.code, problem.why.as_str()), (Code::NoSpace, "full"));
}

#[test]
fn a_keeper_that_stays_away_is_replaced_and_one_that_is_back_soon_is_not() {
    let mut world = World::new(4);
    world.put(1, 1);
    world.owed.owe(Owner::Job(JobId(1)), [owing(1)], world.now);
    world.settle();
    let other = (2..=4).find(|node| world.keeps.contains_key(&NodeId(*node))).expect("a second one");
    world.away(other);
    world.pass(AWAY / 2);
    world.settle();
    assert_eq!(world.keepers(1), 1, "it may be back soon");
    world.back(other);
    world.settle();
    assert_eq!((world.keepers(1), world.asked), (2, 3), "and is asked again");
    world.away(other);
    world.pass(AWAY);
    assert_eq!(world.keepers(1), 2, "somebody else has it");
}

#[derive(Clone, Debug)]
enum Step {
    Put(u64, u8),
    Owe(u64, u8),
    Release(u64),
    Away(u64),
    Back(u64),
    Full(u64, bool),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u64..6, 0u8..5).prop_map(|(node, n)| Step::Put(node, n)),
        3 => (0u64..6, 0u8..5).prop_map(|(job, n)| Step::Owe(job, n)),
        1 => (0u64..6).prop_map(Step::Release),
        1 => (1u64..6).prop_map(Step::Away),
        1 => (1u64..6).prop_map(Step::Back),
        1 => (1u64..6, any::<bool>()).prop_map(|(node, is_full)| Step::Full(node, is_full)),
        1 => (0u64..40).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// When everything is quiet, what is owed and can be had is on two nodes, and nobody keeps what is not owed.
    #[test]
    fn in_the_end_there_are_two_copies(steps in prop::collection::vec(step(), 0..60)) {
        let mut world = World::new(5);
        let mut jobs: BTreeMap<u64, BTreeSet<u8>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(node, n) if world.here.contains(&NodeId(node)) => world.put(node, n),
                Step::Owe(job, n) => {
                    jobs.entry(job).or_default().insert(n);
                    world.owed.owe(Owner::Job(JobId(job)), [owing(n)], world.now);
                }
                Step::Release(job) => {
                    jobs.remove(&job);
                    world.owed.release(Owner::Job(JobId(job)));
                }
                Step::Away(node) => world.away(node),
                Step::Back(node) if !world.here.contains(&NodeId(node)) => world.back(node),
                Step::Full(node, true) => { world.full.insert(NodeId(node)); }
                Step::Full(node, false) => { world.full.remove(&NodeId(node)); }
                Step::Pass(seconds) => world.pass(Duration::from_secs(seconds)),
                Step::Put(..) | Step::Back(_) => {}
            }
            world.settle();
        }
        world.full.clear();
        world.pass(AWAY + AGAIN * 2);
        let owed: BTreeSet<u8> = jobs.into_values().flatten().collect();
        for n in 0..5 {
            let can_be_had = world.here.iter().any(|node| world.holds.get(node).is_some_and(|held| held.contains(&owing(n).digest)));
            let wanted = if owed.contains(&n) && can_be_had { COPIES.min(world.here.len()) } else { 0 };
            prop_assert!(world.keepers(n) >= wanted, "{n}: {} of {wanted}", world.keepers(n));
            prop_assert!(owed.contains(&n) || world.keepers(n) == 0, "{n} is kept for nobody");
        }
    }
}

#[test]
fn who_is_to_keep_a_copy_and_who_cannot_is_explained() {
    let now = Instant::now();
    let mut owed = Owed::new(3, now);
    (1..=3).for_each(|node| owed.handle_here(NodeId(node)));
    let input = |kind| InputReason {
        kind,
        digest: owing(2).digest,
        files: 1,
        bytes: 1,
        holders: vec![NodeId(1)],
        held_by: 1,
        is_preferred: false,
        coming: Vec::new(),
        failed: Vec::new(),
    };
    let explained = |owed: &Owed, kind| {
        let mut input = input(kind);
        owed.explain(&mut input);
        (input.coming, input.failed)
    };
    owed.owe(Owner::Job(JobId(1)), [owing(2)], now);
    owed.plan(|_| vec![NodeId(1)], 9, now + SETTLING);
    let (coming, failed) = explained(&owed, InputKind::Inputs);
    assert!(coming.len() == 2 && coming[0] == NodeId(1) && failed.is_empty(), "{coming:?}");
    let other = coming[1];
    owed.handle_kept(NodeId(1), owing(2));
    owed.handle_failed(other, owing(2), Problem::new(Code::NoSpace, "no", "full"), now);
    assert_eq!(explained(&owed, InputKind::Each), (Vec::new(), vec![(other, "full".to_owned())]));
    assert_eq!(explained(&owed, InputKind::Items), (Vec::new(), Vec::new()), "a list is no manifest");
}
