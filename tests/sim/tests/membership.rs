//! Membership's promises and figures, in virtual time. Figures are exact: a seed gives the same on any machine.

use std::time::Duration;

use swarm_core::members::Members;
use swarm_proto::{Term, api::Health};
use swarm_sim::membership::{
    Spec, World, id, quantile,
    scenes::{self, false_downs, traffic, until},
};

const SECOND: Duration = Duration::from_secs(1);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A world in which everybody takes everybody for alive.
fn settled(spec: Spec) -> World {
    let mut world = World::new(spec);
    let took = until(&mut world, 20 * SECOND, World::all_alive);
    assert!(took.is_some(), "never settled");
    world.run_for(3 * SECOND);
    world
}

/// Time from a crash to the first Down and to everybody's.
fn crash_times(nodes: usize, seeds: u64, loss: f64) -> (Vec<Duration>, Vec<Duration>) {
    let of = |seed| {
        let crash = scenes::crash::<Members>(Spec { loss, ..Spec::lan(nodes, seed) }).expect("everybody notices");
        assert_eq!(crash.wrong, 0, "seed {seed}");
        (crash.first, crash.all)
    };
    (0..seeds).map(of).unzip()
}

#[test]
fn crash_is_known_in_time_at_32() {
    let (first, all) = crash_times(32, 300, 0.0);
    println!(
        "n=32 crash: first Down p50 {:?} p99 {:?}; all agree p50 {:?} p99 {:?} max {:?}",
        quantile(&first, 0.5),
        quantile(&first, 0.99),
        quantile(&all, 0.5),
        quantile(&all, 0.99),
        quantile(&all, 1.0)
    );
    assert!(quantile(&first, 0.99) <= ms(1_200));
    assert!(quantile(&all, 0.99) <= ms(1_500));
    assert!(quantile(&all, 1.0) <= ms(3_000));
}

#[test]
fn crash_is_known_with_loss_and_in_small_and_large_swarms() {
    for (nodes, seeds, loss) in [(2, 20, 0.0), (3, 50, 0.0), (5, 50, 0.0), (32, 60, 0.05), (128, 20, 0.01)] {
        let (first, all) = crash_times(nodes, seeds, loss);
        println!(
            "n={nodes} loss {loss}: first Down p50 {:?} p99 {:?}; all p99 {:?}",
            quantile(&first, 0.5),
            quantile(&first, 0.99),
            quantile(&all, 0.99)
        );
        assert!(quantile(&all, 1.0) <= ms(3_000), "n={nodes}");
    }
}

#[test]
fn quiet_traffic_is_small_at_32() {
    let mut world = settled(Spec { loss: 0.001, ..Spec::lan(32, 1) });
    let spent = traffic(&mut world, 60);
    println!("n=32: {} B/s median, {} B/s most, headers and acknowledgements counted", quantile(&spent, 0.5), quantile(&spent, 1.0));
    assert!(quantile(&spent, 0.5) <= 2_000);
    assert_eq!(false_downs(&world, |_| true), 0);
    world.check();
}

#[test]
fn a_thousand_join_in_time_and_are_quiet() {
    let mut world = World::new(Spec { loss: 0.001, ..Spec::lan(1_000, 7) });
    let took = until(&mut world, 20 * SECOND, World::all_alive);
    println!("1,000 nodes that start together all know each other after {took:?}");
    assert!(took.is_some_and(|took| took <= 5 * SECOND));
    world.run_for(3 * SECOND);
    let spent = traffic(&mut world, 5);
    println!("n=1,000: {} B/s median, {} B/s most, headers and acknowledgements counted", quantile(&spent, 0.5), quantile(&spent, 1.0));
    assert!(quantile(&spent, 0.5) <= 4_000);
    world.crash(77);
    let took = until(&mut world, 5 * SECOND, |world| world.all_say(77, Health::Down)).expect("everybody notices");
    println!("n=1,000: a crash is known to all after {took:?}");
    assert!(took <= 3 * SECOND, "{took:?}");
    assert_eq!(false_downs(&world, |host| host != 77), 0);
    world.check();
}

#[test]
fn a_split_of_a_minute_heals() {
    for seed in 0..20 {
        let split = scenes::split::<Members>(Spec::lan(32, seed)).expect("each side gives up the other");
        println!("seed {seed}: split known after {:?}, healed after {:?}", split.known, split.healed);
        assert!(split.known <= 4 * SECOND, "seed {seed}: {split:?}");
        assert!(split.healed.is_some_and(|healed| healed <= 3 * SECOND), "seed {seed}: {split:?}");
        assert_eq!(split.wrong, 0, "seed {seed}: nobody falls out with his own side, and healing takes nobody down");
    }
}

#[test]
fn nobody_healthy_is_down_while_others_stutter() {
    let mut total = 0;
    for ill in [1, 4, 16] {
        for pause in [128, 512, 2_048, 8_192] {
            for run in [4, 64, 512] {
                let spec = Spec { loss: 0.001, ..Spec::lan(64, pause + run) };
                let found = scenes::stutter::<Members>(spec, ill, ms(pause), ms(run), 20 * SECOND).expect("settles");
                if found > 0 {
                    println!("{ill} of 64 stop {pause} ms, run {run} ms: {found} false");
                }
                total += found;
            }
        }
    }
    assert_eq!(total, 0);
}

#[test]
fn a_seed_repeats_its_trace() {
    let run = |seed| {
        let mut world = World::new(Spec { loss: 0.05, ..Spec::lan(24, seed) });
        world.run_for(3 * SECOND);
        world.crash(3);
        world.pause(5, ms(900));
        world.run_for(2 * SECOND);
        world.restart(3);
        world.leave(7);
        world.run_for(3 * SECOND);
        world.trace()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_restarted_node_overtakes_its_past() {
    for (seed, away) in [(1, ms(50)), (2, ms(600)), (3, 5 * SECOND), (4, 30 * SECOND)] {
        let mut world = settled(Spec { loss: 0.01, ..Spec::lan(16, seed) });
        // it is doubted twice, so its past has an incarnation to overtake
        for _ in 0..2 {
            world.pause(4, 2 * SECOND);
            world.run_for(4 * SECOND);
        }
        let past = world.hosts()[4].highest;
        assert!(past >= 1);
        world.crash(4);
        world.run_for(away);
        world.restart(4);
        let back = world.run_until(10 * SECOND, |w| w.hosts()[4].highest > past && w.all_alive());
        assert!(back.is_some_and(|back| back <= 3 * SECOND), "away {away:?}: back after {back:?}");
        world.check();
    }
}

#[test]
fn leaving_is_heard_by_all_even_with_loss() {
    for seed in 0..20 {
        let mut world = settled(Spec { loss: 0.3, ..Spec::lan(32, seed) });
        world.leave(9);
        let took = world.run_until(5 * SECOND, |w| w.all_say(9, Health::Left));
        assert!(took.is_some_and(|took| took <= 2 * SECOND), "seed {seed}: {took:?}");
        assert!(world.run_until(SECOND, |w| w.hosts()[9].has_said_goodbye).is_some());
        world.crash(9);
        world.run_for(5 * SECOND);
        assert!(world.all_say(9, Health::Left), "seed {seed}: left stays left");
        assert!(world.verdicts(9, Health::Down).is_empty(), "seed {seed}");
        world.restart(9);
        assert!(world.run_until(5 * SECOND, |w| w.all_say(9, Health::Alive)).is_some(), "seed {seed}: and may come back");
        world.check();
    }
}

#[test]
fn a_half_deaf_host_takes_nobody_down() {
    for loss in [0.5, 0.8, 0.95] {
        for seed in 0..4 {
            let mut world = settled(Spec::lan(32, seed));
            world.network.loss_in.insert(0, loss);
            world.run_for(40 * SECOND);
            assert_eq!(false_downs(&world, |host| host != 0), 0, "loss {loss} seed {seed}");
            let refutations: u64 = world.hosts()[1..].iter().map(|host| host.refutations).sum();
            println!(
                "host 0 loses {loss}: it held itself deaf {} times, healthy hosts answered {refutations} doubts",
                world.hosts()[0].deafs.div_ceil(2)
            );
            world.network.loss_in.clear();
            assert!(world.run_until(10 * SECOND, World::all_alive).is_some());
            world.check();
        }
    }
}

#[test]
fn an_isolated_host_blames_itself_first() {
    let mut world = settled(Spec::lan(16, 3));
    world.network.sides.insert(6, 1);
    world.run_for(5 * SECOND);
    let own = |world: &World| world.hosts()[6].verdicts.iter().filter(|v| v.health == Health::Down).count();
    assert_eq!(own(&world), 0);
    assert!(world.all_say(6, Health::Down) && world.hosts()[6].deafs > 0);
    world.run_for(15 * SECOND);
    assert!(own(&world) > 0, "in the end the others are down, from here");
    world.network.sides.clear();
    let healed = world.run_until(10 * SECOND, World::all_alive).expect("heals");
    assert!(healed <= 3 * SECOND, "{healed:?}");
    assert_eq!(false_downs(&world, |host| host != 6), own(&world), "nobody but itself took a healthy host down");
    world.check();
}

#[test]
fn a_lost_path_is_not_a_lost_host() {
    for cuts in [vec![(2, 7), (7, 2)], vec![(2, 7)], vec![(7, 2)]] {
        let mut world = settled(Spec::lan(9, 5));
        world.network.cuts.extend(cuts.iter().copied());
        world.run_for(30 * SECOND);
        assert_eq!(false_downs(&world, |_| true), 0, "{cuts:?}");
        assert!(world.all_alive(), "{cuts:?}");
        let sees = |world: &World, a: usize, b: usize| {
            world.hosts()[a].members.as_ref().expect("runs").member(id(b)).expect("a member").is_unreachable
        };
        assert!(sees(&world, 2, 7) || sees(&world, 7, 2), "{cuts:?}: it is seen");
        assert!(!sees(&world, 3, 7));
        world.check();
    }
}

#[test]
fn half_the_swarm_at_once_is_not_taken_for_deafness() {
    for seed in 0..10 {
        let mut world = settled(Spec::lan(32, seed));
        (0..16).for_each(|host| world.crash(host));
        let took = world.run_until(20 * SECOND, |w| (0..16).all(|host| w.all_say(host, Health::Down)));
        println!("seed {seed}: 16 of 32 crash, known to all after {took:?}");
        assert!(took.is_some_and(|took| took <= 4 * SECOND), "seed {seed}: {took:?}");
        assert_eq!(false_downs(&world, |host| host >= 16), 0, "seed {seed}");
        world.check();
    }
}

#[test]
fn a_paused_host_comes_back_and_accuses_nobody() {
    for seed in 0..10 {
        let mut world = settled(Spec::lan(32, seed));
        world.pause(3, 6 * SECOND);
        world.run_for(4 * SECOND);
        assert!((0..32).filter(|&observer| observer != 3).all(|observer| world.health(observer, 3) == Some(Health::Down)));
        world.run_for(2 * SECOND);
        let back = world.run_until(5 * SECOND, World::all_alive).expect("comes back");
        assert!(back <= SECOND, "seed {seed}: {back:?}");
        assert_eq!(false_downs(&world, |host| host != 3), 0, "seed {seed}");
        world.check();
    }
}

#[test]
fn nodes_admitted_one_by_one_are_known_at_once() {
    let mut world = settled(Spec { loss: 0.01, ..Spec::lan(3, 11) });
    let begin = world.now();
    for _ in 3..200 {
        world.run_for(ms(5));
        world.join();
    }
    let last = world.now();
    let took = until(&mut world, 20 * SECOND, World::all_alive).expect("all known");
    println!("197 joins in {:?}: all know all {took:?} after the last", last - begin);
    assert!(took <= 3 * SECOND, "{took:?}");
    assert_eq!(false_downs(&world, |_| true), 0);
    world.check();
}

#[test]
fn who_is_gone_is_forgotten_also_by_those_who_missed_it() {
    let mut world = settled(Spec::lan(12, 2));
    world.network.sides.insert(5, 1);
    world.run_for(2 * SECOND);
    world.crash(8);
    world.remove(8);
    world.run_for(2 * SECOND);
    world.network.sides.clear();
    world.run_for(5 * SECOND);
    for host in world.running() {
        let members = world.hosts()[host].members.as_ref().expect("runs");
        assert!(members.member(id(8)).is_none(), "host {host}");
    }
    assert!(world.all_alive());
    world.check();
}

#[test]
fn hints_and_versions_reach_everybody() {
    let mut world = settled(Spec { loss: 0.1, ..Spec::lan(32, 4) });
    world.set_leader_hint(2, 2, 9);
    world.set_meta_version(6, 3);
    let all_know = |w: &World| {
        w.running().all(|host| {
            let members = w.hosts()[host].members.as_ref().expect("runs");
            let meta = members.member(id(6)).map(|member| member.meta);
            members.leader_hint() == Some((id(2), Term(9))) && (host == 6 || meta == Some(3))
        })
    };
    let took = world.run_until(10 * SECOND, all_know);
    assert!(took.is_some_and(|took| took <= 2 * SECOND), "{took:?}");
}
