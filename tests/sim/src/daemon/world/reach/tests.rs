//! Who has to have a leader, and who need not.

use std::net::Ipv4Addr;

use swarm_consensus::Role;
use swarm_core::ledger::Ledger;
use swarm_proto::NodeId;

use super::{
    super::{STALLED, Show},
    *,
};

fn ip(host: u64) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(host).unwrap()).into()
}

fn role(hosts: u64, is_leader: bool) -> Role {
    Role { is_leader, voters: (1..=hosts).map(NodeId).collect(), ..Role::default() }
}

/// So many hosts, all of them up, well and voters; nobody leads.
fn world(hosts: u64) -> World {
    let world = World::new(1, hosts, 0, 1, Show::Nothing);
    for host in 1..=hosts {
        world.set_addr(host, ip(host));
        world.begin_life(host).unwrap();
        world.is(host, NodeId(host));
        world.look(host, &role(hosts, false), &Ledger::new(), false);
    }
    world
}

fn part(world: &World, one: u64, other: u64) {
    world.weather().cut(ip(one), ip(other));
    world.weather().cut(ip(other), ip(one));
}

/// Whether it is found that they should have had a leader.
fn is_found(world: &World) -> bool {
    (0..=10_050).for_each(|ms| world.check_leader(Duration::from_millis(ms)));
    !world.violations().is_empty()
}

#[test]
fn a_majority_without_a_leader_is_found_after_ten_seconds_and_no_earlier() {
    let world = world(3);
    (1_000..=11_000).for_each(|ms| world.check_leader(Duration::from_millis(ms)));
    assert_eq!(world.violations(), Vec::<String>::new());
    world.check_leader(Duration::from_millis(11_050));
    assert_eq!(world.violations(), ["no leader since 1s, although the voters {1, 2, 3} can reach each other"]);
}

#[test]
fn a_leader_in_between_is_enough() {
    let world = world(3);
    for ms in 0..30_000 {
        world.look(2, &role(3, ms % 9_000 == 4_000), &Ledger::new(), false);
        world.check_leader(Duration::from_millis(ms));
    }
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[test]
fn a_leader_whom_no_majority_can_reach_does_not_count() {
    for is_cut_off in [false, true] {
        let world = world(3);
        world.look(1, &role(3, true), &Ledger::new(), false);
        if is_cut_off {
            [2, 3].iter().for_each(|other| part(&world, 1, *other));
        }
        assert_eq!(is_found(&world), is_cut_off);
    }
}

#[test]
fn half_of_them_is_no_majority() {
    for (hosts, down, is_enough) in [(3, 1, true), (3, 2, false), (4, 2, false), (5, 2, true), (5, 3, false)] {
        let world = world(hosts);
        (1..=down).for_each(|host| world.went(host, true, Duration::ZERO));
        assert_eq!(is_found(&world), is_enough, "{down} of {hosts} are down");
    }
}

#[test]
fn one_who_reaches_both_halves_is_enough() {
    for bridge in [None, Some(3)] {
        let world = world(5);
        for (one, other) in [(1, 4), (1, 5), (2, 4), (2, 5)] {
            part(&world, one, other);
        }
        if bridge.is_none() {
            (1..=2).for_each(|one| part(&world, one, 3));
            // one way is as good as none
            world.weather().cut(ip(3), ip(4));
            world.weather().cut(ip(5), ip(3));
        }
        assert_eq!(is_found(&world), bridge.is_some());
    }
}

#[test]
fn whoever_may_be_kept_from_answering_is_not_counted() {
    type Trouble = fn(&World);
    let troubles: [Trouble; 8] = [
        |world| world.hold(2),
        |world| world.fill_disk(2),
        |world| world.break_disk(2, true),
        |world| world.pace_disk(2, STALLED),
        |world| world.ask_to_stop(2),
        |world| world.wipe(2, Duration::ZERO),
        |world| [1, 3].iter().for_each(|other| world.weather().flap(ip(2), ip(*other), Duration::from_secs(1))),
        |world| assert!(world.make_second(2)),
    ];
    for (n, trouble) in troubles.iter().enumerate() {
        let world = world(3);
        part(&world, 1, 3);
        trouble(&world);
        assert!(!is_found(&world), "trouble {n}");
        world.calm_disk(2, Duration::ZERO);
        world.release_links();
        world.weather().clear();
        world.unmake_second();
        if !matches!(n, 4 | 5) {
            assert!(is_found(&world), "trouble {n} is over");
        }
    }
}

#[test]
fn a_wrong_clock_counts_only_where_certificates_end_soon() {
    for papers in [0, 60] {
        let world = World::new(1, 1, papers, 1, Show::Nothing);
        world.set_addr(1, ip(1));
        world.begin_life(1).unwrap();
        world.is(1, NodeId(1));
        world.look(1, &role(1, false), &Ledger::new(), false);
        world.set_clock(1, -3_600);
        assert_eq!(is_found(&world), papers == 0);
    }
}
