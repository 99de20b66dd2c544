//! A world at rest, and worlds of which each lacks one thing.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use swarm_consensus::{Disk as _, Role};
use swarm_proto::{
    ClusterId, LogIndex, Term,
    api::{Health, Origin, PeerStatus, Status},
    ledger::Addrs,
};

use super::{super::Show, *};

const HOSTS: u64 = 4;
const NOW: Duration = Duration::from_secs(60);

fn addr(host: u64) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 0, u8::try_from(host).unwrap()), 4747).into()
}

fn status(host: u64) -> Status {
    let peer = |other| PeerStatus {
        node: NodeId(other),
        name: format!("h{other}"),
        health: Health::Alive,
        addr: addr(other),
        connected: true,
        rtt_us: None,
        mtu: None,
        software: String::new(),
        found: Origin::default(),
    };
    let addrs = Addrs { control: addr(host), bulk: addr(host) };
    Status {
        node: Some(NodeId(host)),
        phase: Phase::Ready,
        leader: Some(NodeId(1)),
        term: Term(3),
        peers: (1..=HOSTS).filter(|other| *other != host).map(peer).collect(),
        ..Status::new(format!("h{host}"), String::new(), ClusterId([1; 16]), addrs)
    }
}

fn look(host: u64) -> Look {
    let voters = [1, 2, 3].map(NodeId).into();
    let role = Role { term: Term(3), leader: Some(NodeId(1)), is_leader: host == 1, voters, applied: LogIndex(9), ..Role::default() };
    Look { role, applied: LogIndex(9), hash: 7, missing: 0, open: 0, members: (1..=HOSTS).map(NodeId).collect() }
}

/// Four hosts, of which the first leads and the last has no ledger.
fn resting() -> World {
    let world = World::new(1, HOSTS, 0, 1, Show::Nothing);
    for host in 1..=HOSTS {
        world.is(host, NodeId(host));
        let mut inner = world.lock();
        let place = inner.host(host);
        (place.is_up, place.status, place.look) = (true, Some(status(host)), Some(look(host)));
    }
    world.lock().open_clients = 0;
    world
}

/// What is missing once this was done to a world at rest.
fn after(change: impl FnOnce(&mut Inner)) -> String {
    let world = resting();
    change(&mut world.lock());
    world.unrest(NOW)
}

#[test]
fn a_world_rests_where_everybody_agrees_and_nothing_is_open() {
    let world = resting();
    assert_eq!(world.unrest(NOW), "");
    let rest = world.rest().unwrap();
    assert_eq!((rest.leader, rest.term, rest.applied, rest.carried.len()), (Some(NodeId(1)), 3, 9, 4));
}

#[test]
fn whatever_is_missing_is_named() {
    type Change = fn(&mut Inner);
    let changes: &[(&str, Change)] = &[
        ("h2 has no daemon", |inner| inner.host(2).is_up = false),
        ("h3 has no daemon", |inner| inner.host(3).status = None),
        ("h2 is Joining", |inner| inner.host(2).status.as_mut().unwrap().phase = Phase::Joining),
        ("h2 is Ready the mesh is late", |inner| inner.host(2).status.as_mut().unwrap().trouble = "the mesh is late".into()),
        ("h4 takes Some(NodeId(2)) for the leader", |inner| inner.host(4).status.as_mut().unwrap().leader = Some(NodeId(2))),
        ("h4 takes None for the leader", |inner| inner.host(4).status.as_mut().unwrap().leader = None),
        ("h4 takes Some(NodeId(1)) for the leader in Term(2)", |inner| inner.host(4).status.as_mut().unwrap().term = Term(2)),
        ("h4 takes {NodeId(2), NodeId(3), NodeId(4)} for the members", |inner| {
            inner.host(4).status.as_mut().unwrap().peers.remove(0);
        }),
        ("h4 was not looked at", |inner| inner.host(4).look = None),
        ("h2 applied LogIndex(8)", |inner| inner.host(2).look.as_mut().unwrap().applied = LogIndex(8)),
        ("h3 applied LogIndex(9)", |inner| inner.host(3).look.as_mut().unwrap().hash = 8),
        ("h3 knows the voters", |inner| {
            inner.host(3).look.as_mut().unwrap().role.voters.pop_first();
        }),
        ("h2 knows the voters", |inner| {
            inner.host(2).look.as_mut().unwrap().role.learners.insert(NodeId(4));
        }),
        ("h3 misses 1, has 0 open", |inner| inner.host(3).look.as_mut().unwrap().missing = 1),
        ("h2 misses 0, has 2 open", |inner| inner.host(2).look.as_mut().unwrap().open = 2),
        ("0 leaders", |inner| inner.host(1).look.as_mut().unwrap().role.is_leader = false),
        ("2 leaders", |inner| inner.host(2).look.as_mut().unwrap().role.is_leader = true),
        ("the disk of h2 may still be", |inner| inner.host(2).writes_until = Some(NOW + RECORDED)),
        ("j7 is not in the log yet", |inner| {
            inner.volatile.extend([(JobId(5), None), (JobId(6), Some(NOW - RECORDED)), (JobId(7), Some(NOW - RECORDED / 2))]);
        }),
        ("3 clients wait", |inner| inner.open_clients = 3),
    ];
    for (missing, change) in changes {
        let told = after(change);
        assert!(told.starts_with(missing), "{told:?} in place of {missing:?}");
    }
}

#[test]
fn too_few_voters_an_even_number_and_strangers_are_no_rest() {
    for voters in [&[1][..], &[1, 2], &[1, 2, 3, 4], &[1, 2, 9]] {
        let voters: BTreeSet<NodeId> = voters.iter().copied().map(NodeId).collect();
        let told = after(|inner| {
            for host in 1..=HOSTS {
                inner.host(host).look.as_mut().unwrap().role.voters.clone_from(&voters);
            }
        });
        assert!(told.contains(" vote, and 3 of "), "{voters:?}: {told:?}");
    }
}

#[test]
fn who_is_out_or_stands_by_is_not_waited_for() {
    for change in [(|inner| inner.host(4).is_out = true) as fn(&mut Inner), |inner| inner.host(4).is_spare = true] {
        let told = after(|inner| {
            inner.host(4).is_up = false;
            change(inner);
        });
        assert_eq!(told, "");
    }
}

#[test]
fn a_daemon_that_goes_on_without_its_log_is_found_once() {
    let world = resting();
    let mut inner = world.lock();
    let place = inner.host(2);
    let at = Duration::from_millis;
    assert_eq!(place.overdue(at(1_000)), None);
    place.log.set_faults(|faults| faults.write_fails = true);
    let mut file = place.log.mount().open("log").unwrap();
    assert!(file.write_at(0, b"x").is_err());
    assert_eq!([2_000, 3_000, 4_000].map(|now| place.overdue(at(now))), [None; 3]);
    assert_eq!(place.overdue(at(4_001)), Some(at(2_000)));
    assert_eq!(place.overdue(at(9_000)), None, "it was said");
}
