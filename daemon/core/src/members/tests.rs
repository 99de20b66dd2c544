use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use swarm_proto::{
    LogIndex, NodeId, PeerKey, RaftDir, Term,
    api::Health,
    gossip::{Claim, Head, Kind, Mood, Packet, Standing, Update, Writer, You},
    ledger::{Addrs, NodeRecord, Schedule, View},
    limits,
};

use super::*;

const ME: NodeId = NodeId(1);

fn record(node: u64) -> NodeRecord {
    let addr = SocketAddr::from(([127, 0, 0, 1], 4747));
    NodeRecord {
        id: NodeId(node),
        key: PeerKey::default(),
        raft: RaftDir::default(),
        name: String::new(),
        addrs: Addrs { control: addr, bulk: addr },
        role: Default::default(),
        may_vote: true,
        schedule: Schedule::Open,
        is_gone: false,
        changed: LogIndex(node),
        step: Default::default(),
        root: Default::default(),
    }
}

fn view(nodes: std::ops::RangeInclusive<u64>) -> View {
    View { nodes: nodes.map(|node| (NodeId(node), record(node))).collect(), ..View::default() }
}

fn head(kind: Kind) -> Head {
    Head {
        kind,
        incarnation: 0,
        meta: 0,
        mood: Mood::Well,
        you: You::default(),
        digest: [0; 8],
        roster: LogIndex(0),
        term: Term(0),
        leader: NodeId(0),
    }
}

fn packet(head: &Head, updates: &[Update]) -> Bytes {
    let mut writer = Writer::packet(head);
    assert!(updates.iter().all(|update| writer.push(update)));
    writer.finish()
}

fn update(node: u64, incarnation: u64, claim: Claim) -> Update {
    Update { node: NodeId(node), incarnation, meta: 0, claim }
}

/// A node of a swarm of `nodes`, all of whom it has heard a moment ago.
fn heard(nodes: u64) -> (Members, Instant) {
    let begin = Instant::now();
    let mut members = Members::new(ME, Settings::lan(), 7, begin);
    members.handle_view(&view(1..=nodes), begin);
    for node in 2..=nodes {
        members.handle_packet(NodeId(node), &packet(&head(Kind::Gossip), &[]), begin).unwrap();
    }
    let now = begin + Duration::from_secs(1);
    drain(&mut members);
    (members, now)
}

fn drain(members: &mut Members) -> (Vec<(NodeId, Packet)>, Vec<Event>) {
    let sent = std::iter::from_fn(|| members.poll_transmit()).map(|(to, bytes)| (to, Packet::decode(&bytes).unwrap())).collect();
    (sent, std::iter::from_fn(|| members.poll_event()).collect())
}

/// Fires every timer on time until `end`; `answer` decides what becomes of a packet.
fn run(members: &mut Members, end: Instant, mut answer: impl FnMut(&mut Members, NodeId, Packet, Instant)) {
    while let Some((due, _)) = members.poll_timeout().filter(|&(due, _)| due <= end) {
        members.handle_timeout(due);
        while let Some((to, bytes)) = members.poll_transmit() {
            answer(members, to, Packet::decode(&bytes).unwrap(), due);
        }
    }
}

fn ack(members: &mut Members, to: NodeId, packet_in: &Packet, now: Instant) {
    if let Kind::Ping { nonce } = packet_in.head.kind {
        members.handle_packet(to, &packet(&head(Kind::Ack { nonce }), &[]), now).unwrap();
    }
}

#[test]
fn a_higher_incarnation_refutes_down() {
    let (mut members, mut now) = heard(5);
    let down = packet(&head(Kind::Gossip), &[update(2, 0, Claim::Down { by: NodeId(4) })]);
    members.handle_packet(NodeId(3), &down, now).unwrap();
    assert_eq!(members.health(NodeId(2)), Health::Suspect, "an innocent gets time to object");
    now += Settings::lan().suspicion_min / 2;
    members.handle_packet(NodeId(3), &down, now).unwrap();
    assert_eq!(members.health(NodeId(2)), Health::Down);
    members.handle_packet(NodeId(3), &packet(&head(Kind::Gossip), &[update(2, 0, Claim::Alive)]), now).unwrap();
    assert_eq!(members.health(NodeId(2)), Health::Down, "the same incarnation does not");
    members.handle_packet(NodeId(3), &packet(&head(Kind::Gossip), &[update(2, 1, Claim::Alive)]), now).unwrap();
    assert_eq!(members.health(NodeId(2)), Health::Alive);
}

#[test]
fn a_node_goes_above_what_it_hears_of_its_own_past() {
    let (mut members, now) = heard(3);
    members.handle_packet(NodeId(2), &packet(&head(Kind::Gossip), &[update(1, 41, Claim::Down { by: NodeId(3) })]), now).unwrap();
    assert_eq!(members.incarnation(), 42);
    let (sent, events) = drain(&mut members);
    assert!(events.contains(&Event::Refuted { incarnation: 42 }));
    assert!(sent.iter().all(|(_, packet)| packet.head.incarnation == 42));
    let told = Head { you: You { incarnation: 42, standing: Standing::Suspect }, ..head(Kind::Ping { nonce: 1 }) };
    members.handle_packet(NodeId(3), &packet(&told, &[]), now).unwrap();
    let (sent, _) = drain(&mut members);
    assert_eq!((sent[0].1.head.kind, sent[0].1.head.incarnation), (Kind::Ack { nonce: 1 }, 43), "the answer already objects");
}

#[test]
fn nobody_is_talked_down_by_the_highest_incarnation() {
    for incarnation in [u64::MAX, u64::MAX - 1, 1 << 17] {
        let (mut members, mut now) = heard(4);
        let lie = |claim| packet(&head(Kind::Gossip), &[update(1, incarnation, claim), update(2, incarnation, claim)]);
        for claim in [Claim::Down { by: NodeId(3) }, Claim::Left, Claim::Suspect { by: NodeId(3) }] {
            for _ in 0..5 {
                members.handle_packet(NodeId(3), &lie(claim), now).unwrap();
                now += Settings::lan().suspicion_min;
                assert_eq!(members.health(NodeId(2)), Health::Alive, "{claim:?} at {incarnation}");
            }
        }
        assert_eq!(members.incarnation(), 0, "there is nothing to answer");
        assert!(drain(&mut members).0.is_empty(), "and no endless talk");
    }
}

#[test]
fn what_a_member_says_of_itself_ends_a_lie_that_came_first() {
    let begin = Instant::now();
    let mut members = Members::new(ME, Settings::lan(), 7, begin);
    members.handle_view(&view(1..=3), begin);
    let lie = update(2, u64::MAX, Claim::Down { by: NodeId(3) });
    members.handle_packet(NodeId(3), &packet(&head(Kind::Gossip), &[lie]), begin).unwrap();
    assert_eq!(members.health(NodeId(2)), Health::Down, "of whom nothing is known, anything may be true");
    let own = Head { incarnation: 1, ..head(Kind::Gossip) };
    members.handle_packet(NodeId(2), &packet(&own, &[]), begin).unwrap();
    assert_eq!(members.health(NodeId(2)), Health::Alive);
    members.handle_packet(NodeId(3), &packet(&head(Kind::Gossip), &[lie]), begin).unwrap();
    assert_eq!(members.member(NodeId(2)).unwrap().incarnation, 1, "and it does not come back");
}

/// The largest step that is believed is one that its owner goes above.
#[test]
fn what_is_believed_can_be_refuted() {
    let step = 1 << 16;
    let (mut members, now) = heard(3);
    let lie = |of| packet(&head(Kind::Gossip), &[update(of, step, Claim::Suspect { by: NodeId(3) })]);
    members.handle_packet(NodeId(3), &lie(2), now).unwrap();
    assert_eq!(members.health(NodeId(2)), Health::Suspect);
    members.handle_packet(NodeId(3), &lie(1), now).unwrap();
    assert_eq!(members.incarnation(), step + 1);
    members.handle_packet(NodeId(2), &packet(&Head { incarnation: step + 1, ..head(Kind::Gossip) }, &[]), now).unwrap();
    assert_eq!(members.health(NodeId(2)), Health::Alive);
}

#[test]
fn metadata_of_a_past_life_is_overtaken_too() {
    let (mut members, now) = heard(3);
    members.set_meta_version(5);
    let of_me = Update { meta: 9, ..update(1, 0, Claim::Alive) };
    members.handle_packet(NodeId(2), &packet(&head(Kind::Gossip), &[of_me]), now).unwrap();
    assert_eq!(members.incarnation(), 1);
}

#[test]
fn a_probe_without_a_connection_counts_only_after_the_time_of_a_dial() {
    let (mut members, now) = heard(5);
    let settings = Settings::lan();
    let answer = |members: &mut Members, to: NodeId, sent: Packet, at: Instant| {
        if to == NodeId(2) { members.handle_unsent(to, at) } else { ack(members, to, &sent, at) }
    };
    members.handle_timeout(now);
    run(&mut members, now + settings.dial_grace, answer);
    assert_eq!(members.health(NodeId(2)), Health::Alive);
    assert!(members.member(NodeId(2)).unwrap().is_unreachable);
    run(&mut members, now + settings.dial_grace + Duration::from_secs(2), answer);
    assert_ne!(members.health(NodeId(2)), Health::Alive);
}

#[test]
fn a_late_timer_blames_us() {
    let (mut members, now) = heard(5);
    members.handle_timeout(now);
    drain(&mut members);
    assert_eq!(members.local_health(), 1, "the first call after a second of nothing");
    // probes are out; we sleep through their answers, and nobody is accused for it
    let later = now + Duration::from_secs(30);
    members.handle_timeout(later);
    assert_eq!(members.local_health(), 2);
    assert!(members.members().all(|member| member.health == Health::Alive));
}

#[test]
fn an_unwell_observer_does_not_confirm() {
    let (mut members, now) = heard(5);
    for late in 1..=8 {
        members.handle_timeout(now + Duration::from_secs(late));
    }
    assert_eq!(members.local_health(), 8);
    let mut words = Vec::new();
    run(&mut members, now + Duration::from_secs(16), |members, to, sent, at| {
        words.extend(sent.updates.iter().filter(|update| update.node == NodeId(2)).map(|update| update.claim));
        if to != NodeId(2) {
            ack(members, to, &sent, at);
        }
    });
    let first = words.iter().find(|&&word| word != Claim::Alive);
    assert_eq!(first, Some(&Claim::Suspect { by: NodeId(0) }), "{words:?}");
}

#[test]
fn old_news_of_a_down_only_raises_a_suspicion() {
    let (mut members, now) = heard(5);
    let mut writer = Writer::state(&head(Kind::Better));
    writer.push(&update(2, 0, Claim::Down { by: NodeId(4) }));
    members.handle_sync_reply(NodeId(3), &writer.finish(), now).unwrap();
    assert_eq!(members.health(NodeId(2)), Health::Suspect);
}

#[test]
fn a_digest_that_differs_for_long_wants_a_pull_and_one_that_does_not_wants_none() {
    let (mut members, now) = heard(4);
    let Settings { sync_patience: patience, sync_gap: gap, .. } = Settings::lan();
    let says = |members: &mut Members, digest: u64, at: Instant| {
        let head = Head { digest: digest.to_le_bytes(), roster: LogIndex(4), ..head(Kind::Gossip) };
        members.handle_packet(NodeId(2), &packet(&head, &[]), at).unwrap();
        members.poll_sync()
    };
    // a node that knows almost nothing asks at once; that is long ago now
    assert_eq!(members.poll_sync(), Some(NodeId(2)));
    let begin = now + gap + patience;
    let differs = members.digest() ^ 1;
    assert_eq!(says(&mut members, differs, begin), None);
    assert_eq!(says(&mut members, differs, begin + patience / 2), None, "gossip may be on its way");
    assert_eq!(says(&mut members, differs, begin + patience), Some(NodeId(2)));
    assert_eq!(says(&mut members, differs, begin + patience * 3 / 2), None, "one pull in a while");
    assert!(gap > patience);
    let (mut members, now) = heard(4);
    members.poll_sync();
    for n in 0..8 {
        let same = members.digest();
        assert_eq!(says(&mut members, same, now + gap + patience * n / 2), None);
    }
}

#[test]
fn a_pull_leaves_both_equal() {
    let (mut a, now) = heard(6);
    let mut b = Members::new(NodeId(2), Settings::lan(), 1, now);
    b.handle_view(&view(1..=6), now);
    for (members, from, about) in [(&mut a, 3, update(4, 2, Claim::Alive)), (&mut b, 5, update(6, 1, Claim::Left))] {
        members.handle_packet(NodeId(from), &packet(&head(Kind::Gossip), &[about]), now).unwrap();
    }
    assert_ne!(a.digest(), b.digest());
    let reply = a.handle_sync_request(NodeId(2), &b.sync_request(), now).unwrap();
    b.handle_sync_reply(ME, &reply, now).unwrap();
    assert_eq!(a.digest(), b.digest());
    assert_eq!((b.health(NodeId(4)), a.health(NodeId(6))), (Health::Alive, Health::Left));
}

#[test]
fn strangers_and_the_gone_change_nothing() {
    let (mut members, now) = heard(5);
    let before = members.digest();
    let ping = Head { roster: LogIndex(99), ..head(Kind::Ping { nonce: 1 }) };
    assert_eq!(members.handle_packet(NodeId(9), &packet(&ping, &[]), now), Err(PacketError::Stranger { node: NodeId(9) }));
    assert_eq!(drain(&mut members).1, [Event::ViewStale { from: NodeId(9), version: LogIndex(99) }]);
    members.handle_view(
        &View { nodes: [(NodeId(5), NodeRecord { is_gone: true, changed: LogIndex(50), ..record(5) })].into(), ..View::default() },
        now,
    );
    assert_ne!(members.digest(), before);
    assert_eq!(members.handle_packet(NodeId(5), &packet(&ping, &[]), now), Err(PacketError::Gone { node: NodeId(5) }));
    members.handle_view(&view(1..=5), now);
    assert_eq!(members.members().count(), 3, "an old view does not bring it back");
    let state = head(Kind::State);
    assert_eq!(members.handle_packet(NodeId(2), &packet(&state, &[]), now), Err(PacketError::WrongKind { kind: Kind::State }));
}

#[test]
fn the_highest_term_leads() {
    let (mut members, now) = heard(5);
    members.set_leader_hint(NodeId(2), Term(4));
    let hint = Head { term: Term(3), leader: NodeId(3), ..head(Kind::Gossip) };
    members.handle_packet(NodeId(4), &packet(&hint, &[]), now).unwrap();
    assert_eq!(members.leader_hint(), Some((NodeId(2), Term(4))));
    let hint = Head { term: Term(5), ..hint };
    members.handle_packet(NodeId(4), &packet(&hint, &[]), now).unwrap();
    assert_eq!(members.leader_hint(), Some((NodeId(3), Term(5))));
    assert!(drain(&mut members).1.contains(&Event::LeaderHint { node: NodeId(3), term: Term(5) }));
}

#[test]
fn who_leaves_says_so_and_is_left() {
    let (mut members, now) = heard(5);
    members.leave(now);
    let mut said = Vec::new();
    run(&mut members, now + Duration::from_secs(2), |_, to, sent, _| {
        assert_eq!(sent.head.mood, Mood::Leaving);
        said.push(to);
    });
    assert!((2..=5).all(|node| said.iter().filter(|&&to| to == NodeId(node)).count() >= 3), "{said:?}");
    assert!(drain(&mut members).1.contains(&Event::HasLeft));
    let goodbye = packet(&Head { mood: Mood::Leaving, ..head(Kind::Gossip) }, &[]);
    let (mut other, now) = heard(5);
    other.handle_packet(NodeId(2), &goodbye, now).unwrap();
    assert_eq!(other.health(NodeId(2)), Health::Left);
}

#[test]
fn members_over_the_limit_are_not_taken() {
    let now = Instant::now();
    for (nodes, others) in
        [(limits::MEMBERS - 1, limits::MEMBERS - 2), (limits::MEMBERS, limits::MEMBERS - 1), (limits::MEMBERS + 1, limits::MEMBERS - 1)]
    {
        let mut members = Members::new(ME, Settings::lan(), 7, now);
        members.handle_view(&view(1..=nodes as u64), now);
        assert_eq!(members.members().count(), others);
    }
}

/// Everything that a node holds stays within its bounds.
fn assert_bounded(members: &Members, nodes: usize) {
    assert!(members.members().count() < nodes);
    assert!(members.suspicions.len() < nodes);
    assert!(members.outbox.len() <= OUTBOX);
    assert!(members.targets.len() <= RINGS && members.peers.len() < nodes);
    let suspects = members.table.iter().filter(|(_, member)| member.suspicion.is_some()).count();
    assert_eq!(members.suspicions.len(), suspects, "each suspicion has its deadline and none else");
    let fresh = members.table.iter().fold(0, |sum, (node, m)| sum ^ table::entry(node, m.incarnation, m.meta, m.standing));
    assert_eq!(fresh, members.table.digest());
}

fn any_kind() -> impl Strategy<Value = Kind> {
    (0..6u8, 0..40u32, 0..12u64).prop_map(|(kind, nonce, target)| {
        let target = NodeId(target);
        [
            Kind::Ping { nonce },
            Kind::Ack { nonce },
            Kind::PingReq { nonce, target },
            Kind::Relayed { nonce },
            Kind::Nack { nonce },
            Kind::Gossip,
        ][usize::from(kind)]
    })
}

prop_compose! {
    fn any_head()(kind in any_kind(), incarnation in 0..6u64, meta in 0..3u64, mood in 0..3u8, at in 0..6u64, standing in 0..5u8, roster in 0..20u64) -> Head {
        let mood = [Mood::Well, Mood::Deaf, Mood::Leaving][usize::from(mood)];
        let standing = [Standing::Unknown, Standing::Alive, Standing::Suspect, Standing::Down, Standing::Left][usize::from(standing)];
        Head { incarnation, meta, mood, you: You { incarnation: at, standing }, roster: LogIndex(roster), ..head(kind) }
    }
}

prop_compose! {
    fn any_update()(node in 0..12u64, incarnation in 0..6u64, meta in 0..3u64, claim in 0..4u8, by in 0..12u64) -> Update {
        let by = NodeId(by);
        let claim = [Claim::Alive, Claim::Suspect { by }, Claim::Down { by }, Claim::Left][usize::from(claim)];
        Update { node: NodeId(node), incarnation, meta, claim }
    }
}

proptest! {
    #[test]
    fn no_bytes_harm(inputs in proptest::collection::vec((2..12u64, proptest::collection::vec(any::<u8>(), 0..1_200)), 1..20)) {
        let (mut members, now) = heard(10);
        for (from, bytes) in inputs {
            let _ = members.handle_packet(NodeId(from), &bytes, now);
            let _ = members.handle_sync_request(NodeId(from), &bytes, now);
            let _ = members.handle_sync_reply(NodeId(from), &bytes, now);
            assert_bounded(&members, 10);
        }
    }

    #[test]
    fn no_packet_harms_whole_or_mutated(
        inputs in proptest::collection::vec((2..12u64, any_head(), proptest::collection::vec(any_update(), 0..20), any::<(u16, u8)>(), 0..400u64), 1..60),
    ) {
        let (mut members, mut now) = heard(10);
        let mut highest = 0;
        for (from, head, updates, (place, flip), wait) in inputs {
            let mut bytes = packet(&head, &updates).to_vec();
            let at = usize::from(place) % bytes.len();
            // half of them stay whole
            bytes[at] ^= if flip < 128 { 0 } else { flip };
            let _ = members.handle_packet(NodeId(from), &bytes, now);
            now += Duration::from_millis(wait);
            members.handle_timeout(now);
            prop_assert!(members.incarnation() >= highest, "incarnations only grow");
            highest = members.incarnation();
            while let Some((_, bytes)) = members.poll_transmit() {
                prop_assert!(bytes.len() <= limits::GOSSIP_PACKET && Packet::decode(&bytes).is_ok());
            }
            while members.poll_event().is_some() {}
            assert_bounded(&members, 10);
        }
    }
}
