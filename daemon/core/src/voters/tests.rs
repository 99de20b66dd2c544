use proptest::prelude::*;

use super::*;

fn node(id: u64) -> Candidate {
    Candidate {
        node: NodeId(id),
        standing: Standing::Alive,
        may_vote: true,
        protocol: Some(1),
        zone: None,
        fsync: None,
        uptime: Duration::from_secs(100),
        is_caught_up: true,
    }
}

fn set<const N: usize>(ids: [u64; N]) -> BTreeSet<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

fn input<const V: usize, const L: usize>(nodes: u64, voters: [u64; V], learners: [u64; L]) -> VoterInput {
    VoterInput { me: NodeId(1), voters: set(voters), learners: set(learners), is_changing: false, nodes: (1..=nodes).map(node).collect() }
}

fn at(input: &mut VoterInput, id: u64) -> &mut Candidate {
    input.nodes.iter_mut().find(|node| node.node == NodeId(id)).expect("listed")
}

fn voters_of(change: Option<VoterChange>) -> Option<BTreeSet<NodeId>> {
    match change {
        Some(VoterChange::SetVoters { voters, .. }) => Some(voters),
        Some(VoterChange::AddLearner(_) | VoterChange::RemoveLearner(_)) | None => None,
    }
}

#[test]
fn the_protocol_is_raised_when_everybody_knows_the_next() {
    let mut all = input(5, [1, 2, 3], [4]);
    all.nodes.iter_mut().for_each(|node| node.protocol = Some(2));
    assert_eq!(choose_protocol(&all, 1), Some(2));
    assert_eq!(choose_protocol(&all, 2), None);
    let with = |id, change: fn(&mut Candidate)| {
        let mut one = all.clone();
        change(at(&mut one, id));
        choose_protocol(&one, 1)
    };
    for id in 1..=5 {
        assert_eq!(with(id, |node| node.protocol = Some(1)), None, "n{id} knows it not");
        assert_eq!(with(id, |node| node.protocol = None), None, "n{id} has not said");
    }
    assert_eq!(with(2, |node| node.standing = SHORT), None, "a voter that is away may come back as it was");
    assert_eq!(with(4, |node| node.standing = LONG), None, "so may a standby");
    assert_eq!(with(5, |node| (node.standing, node.protocol) = (SHORT, Some(1))), Some(2), "a worker comes back as a worker");
}

const LONG: Standing = Standing::Down(DOWN_FOR);
const SHORT: Standing = Standing::Down(Duration::from_millis(29_999));

#[test]
fn targets_are_those_of_the_design() {
    let got: Vec<usize> = [1, 2, 3, 6, 7, 14, 15, 1_000].into_iter().map(target).collect();
    assert_eq!(got, [1, 1, 3, 3, 5, 5, 7, 7]);
}

#[test]
fn one_grows_to_three_only_when_both_have_caught_up() {
    assert_eq!(choose_change(&input(3, [1], [])), Some(VoterChange::AddLearner(NodeId(2))));
    assert_eq!(choose_change(&input(3, [1], [2])), Some(VoterChange::AddLearner(NodeId(3))));
    let mut both = input(3, [1], [2, 3]);
    assert_eq!(voters_of(choose_change(&both)), Some(set([1, 2, 3])));
    at(&mut both, 3).is_caught_up = false;
    assert_eq!(choose_change(&both), None);
    at(&mut both, 3).is_caught_up = true;
    at(&mut both, 2).standing = Standing::Suspect;
    assert_eq!(choose_change(&both), None);
}

#[test]
fn two_nodes_have_one_voter_a_standby_and_a_warning() {
    assert_eq!(choose_change(&input(2, [1], [])), Some(VoterChange::AddLearner(NodeId(2))));
    let settled = input(2, [1], [2]);
    assert_eq!(choose_change(&settled), None);
    assert!(warning(&settled).expect("warns").contains("two nodes have one voter"));
    assert_eq!(warning(&input(1, [1], [])), None);
    assert_eq!(warning(&input(3, [1, 2, 3], [])), None);
}

#[test]
fn a_voter_that_is_down_is_replaced_after_its_time_and_by_somebody_ready() {
    let mut scene = input(4, [1, 2, 3], [4]);
    at(&mut scene, 3).standing = SHORT;
    assert_eq!(choose_change(&scene), None);
    at(&mut scene, 3).standing = LONG;
    assert_eq!(voters_of(choose_change(&scene)), Some(set([1, 2, 4])));
    at(&mut scene, 4).is_caught_up = false;
    assert_eq!(choose_change(&scene), None);
    let mut alone = input(3, [1, 2, 3], []);
    at(&mut alone, 3).standing = LONG;
    assert_eq!(choose_change(&alone), None);
    assert!(warning(&alone).expect("warns").contains("n3 cannot be reached; 0 more may fail"));
}

#[test]
fn without_a_live_majority_nothing_changes() {
    let mut scene = input(5, [1, 2, 3], [4, 5]);
    at(&mut scene, 2).standing = LONG;
    at(&mut scene, 3).standing = LONG;
    assert_eq!(choose_change(&scene), None);
    assert!(warning(&scene).expect("warns").contains("nothing can be accepted"));
}

#[test]
fn those_that_left_go_and_the_number_stays_odd() {
    let mut scene = input(3, [1, 2, 3], []);
    at(&mut scene, 3).standing = Standing::Left;
    assert_eq!(voters_of(choose_change(&scene)), Some(set([1])));
    let mut five = input(5, [1, 2, 3, 4, 5], []);
    at(&mut five, 2).standing = Standing::Left;
    at(&mut five, 5).standing = Standing::Left;
    assert_eq!(voters_of(choose_change(&five)), Some(set([1, 3, 4])));
    // five of eight: one that left has no replacement yet, so a standby is made first
    let mut wait = input(8, [1, 2, 3, 4, 5], []);
    at(&mut wait, 2).standing = Standing::Left;
    assert_eq!(choose_change(&wait), Some(VoterChange::AddLearner(NodeId(6))));
}

#[test]
fn a_live_voter_does_not_go_because_the_swarm_shrank() {
    assert_eq!(choose_change(&input(6, [1, 2, 3, 4, 5], [6])), None);
    assert_eq!(
        choose_change(&input(2, [1, 2, 3], [])),
        Some(VoterChange::SetVoters { voters: set([1]), why: "fewer nodes want fewer voters" })
    );
}

#[test]
fn never_is_never() {
    let mut scene = input(4, [1], []);
    for id in 2..=4 {
        at(&mut scene, id).may_vote = false;
    }
    assert_eq!(choose_change(&scene), None);
    assert!(warning(&scene).expect("warns").contains("only 1 may vote"));
    // a node whose config changed makes room
    let mut changed = input(4, [1, 2, 3], [4]);
    at(&mut changed, 2).may_vote = false;
    assert_eq!(voters_of(choose_change(&changed)), Some(set([1, 3, 4])));
}

#[test]
fn what_would_leave_no_live_majority_is_not_done() {
    // five voters of which two may vote no more: taking out just these would leave one alive of three
    let mut scene = input(5, [1, 2, 3, 4, 5], []);
    for (id, standing, may_vote) in [(2, Standing::Alive, false), (3, Standing::Alive, false), (4, LONG, true), (5, LONG, true)] {
        let node = at(&mut scene, id);
        (node.standing, node.may_vote) = (standing, may_vote);
    }
    assert_eq!(choose_change(&scene), None);
    at(&mut scene, 4).standing = Standing::Alive;
    assert_eq!(voters_of(choose_change(&scene)), Some(set([1, 4, 5])));
}

#[test]
fn zones_come_before_disks_and_disks_before_uptime() {
    let mut scene = input(6, [1, 2, 3], []);
    for (id, zone, fsync, uptime) in [(4, "a", 100, 900), (5, "b", 9_000, 1), (6, "b", 9_100, 900)] {
        let node = at(&mut scene, id);
        (node.zone, node.fsync, node.uptime) = (Some(zone.into()), Some(Duration::from_micros(fsync)), Duration::from_secs(uptime));
    }
    at(&mut scene, 1).zone = Some("a".into());
    assert_eq!(choose_change(&scene), Some(VoterChange::AddLearner(NodeId(6))), "the disks of 5 and 6 are alike");
    at(&mut scene, 2).zone = Some("b".into());
    assert_eq!(choose_change(&scene), Some(VoterChange::AddLearner(NodeId(4))));
}

#[test]
fn standbys_are_two_and_make_room_for_better() {
    assert_eq!(choose_change(&input(9, [1, 2, 3, 4, 5], [6, 7])), None);
    let mut scene = input(9, [1, 2, 3, 4, 5], [6, 7]);
    at(&mut scene, 6).standing = LONG;
    assert_eq!(choose_change(&scene), Some(VoterChange::RemoveLearner(NodeId(6))));
    let mut last = input(7, [1, 2, 3, 4, 5], [6, 7]);
    at(&mut last, 6).standing = LONG;
    assert_eq!(choose_change(&last), None, "nobody else could have its place");
    at(&mut last, 6).standing = Standing::Left;
    assert_eq!(choose_change(&last), Some(VoterChange::RemoveLearner(NodeId(6))));
}

/// Everything that must hold of any change whatever the input.
fn check(input: &VoterInput) -> Result<(), String> {
    let find = |id: &NodeId| input.nodes.iter().find(|node| node.node == *id);
    let alive = |set: &BTreeSet<NodeId>| set.iter().filter(|id| find(id).is_some_and(|node| node.standing == Standing::Alive)).count();
    let Some(change) = choose_change(input) else { return Ok(()) };
    let holds = |what: &str, is_true: bool| if is_true { Ok(()) } else { Err(format!("{what}: {change:?} of {input:?}")) };
    holds("one at a time", !input.is_changing)?;
    holds("a live majority decides", alive(&input.voters) * 2 > input.voters.len())?;
    match &change {
        VoterChange::SetVoters { voters, .. } => {
            holds("a live majority after", alive(voters) * 2 > voters.len())?;
            holds("the leader stays", voters.contains(&input.me))?;
            holds("it is a change", *voters != input.voters)?;
            holds("odd", voters.len() % 2 == 1 || input.voters.len().is_multiple_of(2))?;
            let added: Vec<_> = voters.difference(&input.voters).filter_map(find).collect();
            let is_fit = |node: &&Candidate| node.may_vote && node.is_caught_up && node.standing == Standing::Alive;
            holds("who is added is fit", added.iter().all(is_fit) && added.len() == voters.difference(&input.voters).count())?;
            holds("who is added was a standby", added.iter().all(|node| input.learners.contains(&node.node)))?;
            let gone: Vec<_> = input.voters.difference(voters).collect();
            let has_left = |id: &&NodeId| find(id).is_none_or(|node| node.standing == Standing::Left || !node.may_vote);
            let left = gone.iter().filter(|id| has_left(id)).count();
            let long = gone.iter().filter(|id| !has_left(id) && find(id).is_some_and(|node| node.standing == LONG)).count();
            let live = gone.len() - left - long;
            holds("a live voter goes only beside one that left", live == 0 || (left > 0 && voters.len() < input.voters.len()))?;
            holds("one that is down is replaced", long <= added.len() || (left > 0 && voters.len() < input.voters.len()))?;
            let members = input.nodes.iter().filter(|node| node.standing != Standing::Left).count();
            holds(
                "no more than the target",
                added.len() == gone.len() || voters.len() < input.voters.len() || voters.len() <= target(members),
            )
        }
        VoterChange::AddLearner(id) => {
            holds("a new one", !input.voters.contains(id) && !input.learners.contains(id))?;
            holds("alive and willing", find(id).is_some_and(|node| node.may_vote && node.standing == Standing::Alive))?;
            holds("two standbys", input.learners.difference(&input.voters).count() < STANDBYS)
        }
        VoterChange::RemoveLearner(id) => holds("it is a standby", input.learners.contains(id) && !input.voters.contains(id)),
    }
}

/// Every swarm of four nodes: each other node's standing, will, role and log.
#[test]
fn the_rules_hold_for_every_swarm_of_four() {
    let standings = [Standing::Alive, Standing::Suspect, SHORT, LONG, Standing::Left];
    const KINDS: usize = 5 * 2 * 3 * 2;
    for code in 0..KINDS.pow(3) {
        let mut scene = input(4, [1], []);
        for id in 2..=4u64 {
            let kind = code / KINDS.pow(id as u32 - 2) % KINDS;
            let node = at(&mut scene, id);
            (node.standing, node.may_vote, node.is_caught_up) =
                (standings[kind % 5], (kind / 5).is_multiple_of(2), (kind / 10).is_multiple_of(2));
            match kind / 20 {
                0 => scene.voters.insert(NodeId(id)),
                1 => scene.learners.insert(NodeId(id)),
                _ => true,
            };
        }
        check(&scene).unwrap();
        let _ = warning(&scene);
    }
}

fn apply(input: &mut VoterInput, change: VoterChange) {
    match change {
        VoterChange::AddLearner(id) => {
            input.learners.insert(id);
        }
        VoterChange::RemoveLearner(id) => {
            input.learners.remove(&id);
        }
        VoterChange::SetVoters { voters, .. } => {
            input.learners = &input.learners - &voters;
            input.voters = voters;
        }
    }
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let standing = prop_oneof![
        6 => Just(Standing::Alive), 1 => Just(Standing::Suspect), 1 => Just(SHORT), 1 => Just(LONG), 1 => Just(Standing::Left)
    ];
    let zone = prop_oneof![Just(None), Just(Some("a".to_owned())), Just(Some("b".to_owned()))];
    (standing, prop::bool::weighted(0.85), zone, prop::option::of(1u64..20_000), 0u64..100_000, prop::bool::weighted(0.8)).prop_map(
        |(standing, may_vote, zone, fsync, uptime, is_caught_up)| Candidate {
            node: NodeId(0),
            standing,
            may_vote,
            protocol: Some(1),
            zone,
            fsync: fsync.map(Duration::from_micros),
            uptime: Duration::from_secs(uptime),
            is_caught_up,
        },
    )
}

proptest! {
    /// Swarms of up to twenty nodes, whose nodes change under the chooser.
    #[test]
    fn the_rules_hold_while_the_swarm_changes(
        nodes in prop::collection::vec(candidate(), 1..20),
        changes in prop::collection::vec((any::<prop::sample::Index>(), candidate()), 0..20),
    ) {
        let mut scene = input(nodes.len() as u64, [1], []);
        for (at, node) in nodes.into_iter().enumerate().skip(1) {
            scene.nodes[at] = Candidate { node: NodeId(at as u64 + 1), ..node };
        }
        for (which, node) in changes {
            for _ in 0..3 {
                check(&scene).map_err(TestCaseError::fail)?;
                if let Some(change) = choose_change(&scene) {
                    apply(&mut scene, change);
                }
            }
            let id = which.index(scene.nodes.len());
            if id > 0 && scene.nodes[id].standing != Standing::Left {
                scene.nodes[id] = Candidate { node: NodeId(id as u64 + 1), ..node };
            }
        }
        // once everybody who has not left is well, it comes to rest with as many voters as there should be, none of whom has left
        for node in &mut scene.nodes {
            node.is_caught_up = true;
            if node.standing != Standing::Left {
                node.standing = Standing::Alive;
            }
        }
        for step in 0.. {
            check(&scene).map_err(TestCaseError::fail)?;
            let Some(change) = choose_change(&scene) else { break };
            apply(&mut scene, change);
            prop_assert!(step < 60, "it does not come to rest: {scene:?}");
        }
        // a majority that left takes the swarm with it
        prop_assume!(Scene::of(&scene).has_live_majority(&scene.voters));
        let wanted = Scene::of(&scene).wanted();
        prop_assert!(scene.voters.len() >= wanted, "{} of {wanted}: {scene:?}", scene.voters.len());
        prop_assert!(Scene::of(&scene).departed().is_empty(), "{scene:?}");
    }
}
