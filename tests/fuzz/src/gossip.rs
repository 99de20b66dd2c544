//! Membership: its packets, and the state machine that believes them as far as it does.

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    time::{Duration, Instant},
};

use swarm_core::members::{Members, Settings};
use swarm_proto::{
    LogIndex, NodeId, PeerKey, RaftDir, RootId, Term,
    gossip::{Claim, Head, Kind, Mood, Packet, Standing, Update, Writer, You},
    identity::{NodeRole, Step},
    ledger::{Addrs, NodeRecord, Schedule, View},
    limits,
};

use crate::input::Input;

/// A packet, and a state as it comes over a stream.
pub(crate) fn packets(bytes: &[u8]) {
    if let Ok(packet) = Packet::decode(bytes) {
        assert_eq!(Packet::decode(&written(&packet, Writer::packet)), Ok(packet), "a packet that changes");
    }
    if let Ok(packet) = Packet::decode_state(bytes) {
        assert_eq!(Packet::decode_state(&written(&packet, Writer::state)), Ok(packet), "a state that changes");
    }
}

fn written(packet: &Packet, begin: fn(&Head) -> Writer) -> bytes::Bytes {
    let mut writer = begin(&packet.head);
    assert!(packet.updates.iter().all(|update| writer.push(update)), "what was read is written in no more bytes");
    writer.finish()
}

/// Nodes that views speak of; packets come from strangers too.
const NODES: usize = 80;
const ME: NodeId = NodeId(1);

/// A node is told anything by anybody, and time passes.
pub(crate) fn members(bytes: &[u8]) {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let mut now = *BEGAN.get_or_init(Instant::now);
    let mut input = Input(bytes);
    let settings = if input.chance(2) { Settings::lan() } else { Settings::wan() };
    let mut members = Members::new(ME, settings, input.byte().into(), now);
    members.handle_view(&view(&mut input, 12), now);
    while !input.is_empty() {
        step(&mut members, &mut input, &mut now);
        drain(&mut members);
    }
}

fn step(members: &mut Members, input: &mut Input<'_>, now: &mut Instant) {
    let from = NodeId(input.below(NODES + 3) as u64);
    match input.below(12) {
        0 => drop(members.handle_packet(from, input.piece(), *now)),
        1..=4 => drop(members.handle_packet(from, &packet(input, Writer::packet), *now)),
        5 => {
            if let Ok(answer) = members.handle_sync_request(from, &packet(input, Writer::state), *now) {
                Packet::decode_state(&answer).expect("an answer that can be read");
            }
        }
        6 => drop(members.handle_sync_reply(from, &packet(input, Writer::state), *now)),
        7 => {
            let most = input.below(NODES);
            members.handle_view(&view(input, most), *now);
        }
        8 => members.handle_unsent(from, *now),
        9 => members.handle_linked(from, *now),
        10 if input.chance(16) => members.leave(*now),
        10 => {
            members.set_leader_hint(from, Term(input.number()));
            members.set_meta_version(input.number());
        }
        _ => *now += Duration::from_millis(input.below(128) as u64 * 40),
    }
    // as its driver does, in time or late
    for _ in 0..8 {
        let Some((due, _)) = members.poll_timeout().filter(|(due, _)| due <= now) else { break };
        members.handle_timeout(due.max(*now));
    }
}

fn drain(members: &mut Members) {
    let mut count = 0;
    while let Some((_, packet)) = members.poll_transmit() {
        Packet::decode(&packet).expect("what it sends can be read");
        count += 1;
    }
    assert!(count <= 4_096, "{count} packets at once");
    while members.poll_event().is_some() {}
    if members.poll_sync().is_some() {
        Packet::decode_state(&members.sync_request()).expect("what it sends can be read");
    }
    assert!(members.members().count() <= NODES + 3, "somebody whom no view named is a member");
    let _ = (members.digest(), members.probe_peers().count(), members.leader_hint());
}

/// A packet of the kinds that there are, or of the kind that a stream has.
fn packet(input: &mut Input<'_>, begin: fn(&Head) -> Writer) -> bytes::Bytes {
    let nonce = input.byte().into();
    let target = NodeId(input.below(NODES) as u64);
    let kinds = [
        Kind::Ping { nonce },
        Kind::Ack { nonce },
        Kind::PingReq { nonce, target },
        Kind::Relayed { nonce },
        Kind::Nack { nonce },
        Kind::Gossip,
        Kind::State,
        Kind::Better,
    ];
    let standings = [Standing::Unknown, Standing::Alive, Standing::Suspect, Standing::Down, Standing::Left];
    let head = Head {
        kind: kinds[input.below(kinds.len())],
        incarnation: input.number(),
        meta: input.number(),
        mood: [Mood::Well, Mood::Deaf, Mood::Leaving][input.below(3)],
        you: You { incarnation: input.number(), standing: standings[input.below(5)] },
        digest: [input.byte(); 8],
        roster: LogIndex(input.number()),
        term: Term(input.number()),
        leader: NodeId(input.below(NODES) as u64),
    };
    let mut writer = begin(&head);
    for _ in 0..input.below(12) {
        let by = NodeId(input.below(NODES + 3) as u64);
        let claim = [Claim::Alive, Claim::Suspect { by }, Claim::Down { by }, Claim::Left][input.below(4)];
        let node = NodeId(input.below(NODES + 3) as u64);
        writer.push(&Update { node, incarnation: input.number(), meta: input.number(), claim });
    }
    writer.finish()
}

fn view(input: &mut Input<'_>, most: usize) -> View {
    let addrs = Addrs { control: ([127, 0, 0, 1], 1).into(), bulk: ([127, 0, 0, 1], 2).into() };
    let mut nodes = BTreeMap::new();
    for _ in 0..input.below(most + 1) {
        let id = NodeId(input.below(NODES) as u64);
        let record = NodeRecord {
            id,
            key: PeerKey([id.0 as u8; 32]),
            raft: RaftDir([id.0 as u8; 16]),
            name: String::new(),
            addrs,
            role: NodeRole::Voter,
            may_vote: true,
            schedule: Schedule::Open,
            is_gone: input.chance(6),
            changed: LogIndex(input.number()),
            step: Step::Ready,
            root: RootId::default(),
        };
        nodes.insert(id, record);
    }
    let leader = input.chance(4).then(|| NodeId(input.below(NODES) as u64));
    View { version: LogIndex(input.number()), leader, term: Term(input.byte().into()), nodes, ..View::default() }
}

const _: () = assert!(NODES < limits::MEMBERS);
