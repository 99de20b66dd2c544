//! One world on turmoil: does what the plan says, a millisecond at a time.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{
    blobs, client, host,
    host::name,
    operator,
    plan::{Act, Plan},
    world::{SLOW, STALLED, Show, World},
};
use crate::net;

/// Time in which everything must come to rest after the last repair.
const REST: u64 = 60_000;
/// Rest is looked for this often, and must last this long.
const LOOK: u64 = 50;
const QUIET: u64 = 2_000;
const CLIENTS: usize = 3;
/// Most that a datagram takes when nothing is wrong, in milliseconds.
const LATENCY: u64 = 4;

fn rate(percent: u64) -> f64 {
    f64::from(u32::try_from(percent).unwrap_or(100)) / 100.0
}

pub(super) struct Stage<'a> {
    plan: Plan,
    world: World,
    sim: turmoil::Sim<'a>,
    down: Vec<u64>,
    /// Down for good, as far as anybody knows.
    gone: Vec<u64>,
    /// Asked to stop.
    stopping: Vec<u64>,
    /// Whether the host that stands by is a second one of another.
    has_second: bool,
    faults: BTreeMap<&'static str, usize>,
}

impl Stage<'_> {
    pub(super) fn new(plan: &Plan, show: Show) -> Self {
        let clients = CLIENTS + 1 + usize::from(plan.blobs > 0);
        let world = World::new(plan.seed, plan.nodes, plan.papers, clients, show);
        let mut builder = net::builder(plan.seed);
        builder.min_message_latency(Duration::from_millis(1)).max_message_latency(Duration::from_millis(LATENCY));
        let mut sim = builder.simulation_duration(Duration::from_secs(3_600)).build();
        // one more stands by
        for host in 1..=plan.nodes + 1 {
            let world = world.clone();
            sim.host(name(host), move || host::run(world.clone(), host));
        }
        (1..=plan.nodes + 1).for_each(|host| world.set_addr(host, sim.lookup(name(host))));
        for client in 0..CLIENTS {
            let world = world.clone();
            // hosts, for these may end before the others do
            sim.host(format!("client{client}"), move || client::run(world.clone(), client));
        }
        let its = world.clone();
        sim.host("operator", move || operator::run(its.clone()));
        if plan.blobs > 0 {
            let (world, count) = (world.clone(), plan.blobs);
            sim.host("blobs", move || blobs::run(world.clone(), count));
        }
        let (down, gone, stopping) = (Vec::new(), Vec::new(), Vec::new());
        Self { plan: plan.clone(), world, sim, down, gone, stopping, has_second: false, faults: BTreeMap::new() }
    }

    /// Everything that goes wrong, and then a repair.
    pub(super) fn storm(&mut self) {
        let mut acts = std::mem::take(&mut self.plan.acts).into_iter().peekable();
        for ms in 0..self.plan.end {
            while let Some((_, act)) = acts.next_if(|(at, _)| *at <= ms) {
                self.act(act);
            }
            self.step();
        }
        acts.for_each(|(_, act)| self.act(act));
        self.gone.clear();
        self.act(Act::Unclone);
        self.act(Act::Repair);
    }

    /// Until nothing is left to be done. How long that took.
    pub(super) fn come_to_rest(&mut self) -> Duration {
        let begin = self.sim.elapsed();
        self.world.stop_clients();
        let mut before = None;
        for ms in 0..REST {
            self.step();
            if !ms.is_multiple_of(LOOK) {
                continue;
            }
            // at two looks: what a client never heard of may have ended in a leader's memory just now, and is recorded between them
            let rests = self.stopping.is_empty() && self.world.unrest(self.sim.elapsed()).is_empty();
            let rest = if rests { self.world.rest() } else { None };
            if rest.is_some() && rest == before {
                return self.sim.elapsed() - begin;
            }
            before = rest;
        }
        let unrest = self.world.unrest(self.sim.elapsed());
        self.world.violate(format_args!("no rest within {REST} ms: {unrest}"));
        self.sim.elapsed() - begin
    }

    /// Who rests stays at rest.
    pub(super) fn stay_at_rest(&mut self) {
        if !self.world.unrest(self.sim.elapsed()).is_empty() {
            return;
        }
        let before = self.world.rest();
        (0..QUIET).for_each(|_| self.step());
        let (after, unrest) = (self.world.rest(), self.world.unrest(self.sim.elapsed()));
        if after != before || !unrest.is_empty() {
            self.world.violate(format_args!("the rest does not last: {unrest}; {before:?}, then {after:?}"));
        }
    }

    /// What is left: the world, how often what went wrong, how much time went by, and operations of disks.
    pub(super) fn end(self) -> (World, Vec<String>, Duration, u64) {
        let faults = self.faults.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
        let operations = (1..=self.plan.nodes).map(|host| self.world.operations(host)).sum();
        (self.world, faults, self.sim.elapsed(), operations)
    }

    fn act(&mut self, act: Act) {
        self.world.say(format_args!("{:?} ---- {act}", self.sim.elapsed()));
        *self.faults.entry(act.word()).or_default() += 1;
        let (world, weather) = (self.world.clone(), self.world.weather());
        match act {
            Act::Kill(host) => self.down(host, true),
            Act::PowerCut(host) => self.down(host, false),
            Act::PowerCutAll => (1..=self.plan.nodes).for_each(|host| self.down(host, false)),
            Act::Restart(host) => self.restart(host),
            Act::DieAt(host, more, blow) => world.set_fuse(host, more, blow, true),
            Act::CutAt(host, more, blow) => world.set_fuse(host, more, blow, false),
            Act::Pause(host) => {
                world.hold(host);
                self.others(host).for_each(|other| self.sim.hold(name(host), name(other)));
            }
            Act::CutOff(host) => self.others(host).for_each(|other| self.part(host, other)),
            Act::Split(last) => {
                self.pairs().filter(|(one, other)| *one <= last && *other > last).for_each(|(one, other)| self.part(one, other));
            }
            Act::Bridge(host) => self.bridge(host),
            Act::OneWay(from, to) => weather.cut(self.ip(from), self.ip(to)),
            Act::Mute(host) => self.others(host).for_each(|other| weather.cut(self.ip(host), self.ip(other))),
            Act::Deaf(host) => self.others(host).for_each(|other| weather.cut(self.ip(other), self.ip(host))),
            Act::Flap(host, ms) => {
                self.others(host).for_each(|other| weather.flap(self.ip(host), self.ip(other), Duration::from_millis(ms)));
            }
            Act::Loss(percent) => weather.set_rates(|rates| rates.lost = rate(percent)),
            Act::Double(percent) => weather.set_rates(|rates| rates.doubled = rate(percent)),
            Act::Overtake(percent) => weather.set_rates(|rates| rates.overtaken = rate(percent)),
            Act::Delay(most) => self.set_latency(most),
            Act::SlowDisk(host) => world.pace_disk(host, SLOW),
            Act::StallDisk(host) => world.pace_disk(host, STALLED),
            Act::FullDisk(host) => world.fill_disk(host),
            Act::FailSync(host) => world.break_disk(host, true),
            Act::FailWrite(host) => world.break_disk(host, false),
            Act::Clock(host, seconds) => world.set_clock(host, seconds),
            Act::ClockAll(seconds) => (1..=self.plan.nodes).for_each(|host| world.set_clock(host, seconds)),
            Act::Wipe(host) => self.wipe(host),
            Act::Copy(host) => world.copy_disks(host),
            Act::Restore(host) => {
                self.down(host, false);
                world.restore(host);
            }
            Act::Clone(host) => self.make_second(host),
            Act::Unclone => self.end_second(),
            Act::Revoke(host) => world.order_out(host),
            Act::Gone(host) => {
                self.down(host, false);
                self.gone.push(host);
            }
            Act::Back(host) => self.bring_back(host),
            Act::Repair => self.repair(),
        }
    }

    fn restart(&mut self, host: u64) {
        if !self.down.contains(&host) && !self.stopping.contains(&host) {
            self.world.ask_to_stop(host);
            self.stopping.push(host);
        }
    }

    /// Nothing gets from one to the other, or back.
    fn part(&self, one: u64, other: u64) {
        let (weather, one, other) = (self.world.weather(), self.ip(one), self.ip(other));
        weather.cut(one, other);
        weather.cut(other, one);
    }

    fn bridge(&self, host: u64) {
        let others: Vec<u64> = self.others(host).collect();
        let (left, right) = others.split_at(others.len() / 2);
        left.iter().for_each(|one| right.iter().for_each(|other| self.part(*one, *other)));
    }

    /// More than one lost disk at a time is not promised to be survived.
    fn wipe(&mut self, host: u64) {
        if self.world.may_lose(host) {
            self.down(host, false);
            self.world.wipe(host, self.sim.elapsed());
        } else {
            self.world.say("not now");
        }
    }

    fn make_second(&mut self, host: u64) {
        if !self.down.contains(&host) && !self.has_second && self.world.make_second(host) {
            self.has_second = true;
            let spare = name(self.spare());
            // it stood by
            self.sim.crash(spare.clone());
            self.sim.bounce(spare);
        }
    }

    fn end_second(&mut self) {
        if std::mem::take(&mut self.has_second) {
            let spare = self.spare();
            self.world.unmake_second();
            self.world.leave(spare);
            self.sim.crash(name(spare));
            self.world.went(spare, true, self.sim.elapsed());
        }
    }

    /// With a node to spare, whoever was gone for long votes no more.
    fn bring_back(&mut self, host: u64) {
        if self.gone.contains(&host) && self.plan.nodes > 3 && self.world.is_voter(host) {
            self.world.violate(format_args!("h{host} is gone, and nobody has taken its place as a voter"));
        }
        self.gone.retain(|gone| *gone != host);
    }

    fn spare(&self) -> u64 {
        self.plan.nodes + 1
    }

    fn ip(&self, host: u64) -> IpAddr {
        self.sim.lookup(name(host))
    }

    fn pairs(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let nodes = self.plan.nodes;
        (1..=nodes).flat_map(move |one| (one + 1..=nodes).map(move |other| (one, other)))
    }

    fn others(&self, host: u64) -> impl Iterator<Item = u64> + use<> {
        (1..=self.plan.nodes).filter(move |other| *other != host)
    }

    fn set_latency(&self, most: u64) {
        for (one, other) in self.pairs() {
            self.sim.set_link_max_message_latency(name(one), name(other), Duration::from_millis(most));
        }
    }

    fn down(&mut self, host: u64, has_power: bool) {
        if self.down.contains(&host) {
            return;
        }
        self.stopping.retain(|stopping| *stopping != host);
        self.world.leave(host);
        self.sim.crash(name(host));
        self.world.went(host, has_power, self.sim.elapsed());
        self.down.push(host);
    }

    fn repair(&mut self) {
        // whoever ended a moment ago waited for this one
        self.look_after_processes();
        let weather = self.world.weather();
        weather.clear();
        self.set_latency(LATENCY);
        for (one, other) in self.pairs() {
            self.sim.release(name(one), name(other));
        }
        self.world.release_links();
        self.world.mend_clocks();
        let now = self.sim.elapsed();
        (1..=self.plan.nodes).for_each(|host| self.world.calm_disk(host, now));
        let (gone, down) = std::mem::take(&mut self.down).into_iter().partition(|host| self.gone.contains(host));
        self.down = gone;
        for host in Vec::<u64>::from_iter(down) {
            weather.set_dead(self.ip(host), false);
            self.sim.bounce(name(host));
        }
    }

    /// Daemons that were asked to stop and have, start again. Those that ended by themselves wait for a repair.
    fn look_after_processes(&mut self) {
        for host in 1..=self.plan.nodes {
            if self.down.contains(&host) {
                continue;
            }
            if let Some(has_power) = self.world.blown(host) {
                self.down(host, has_power);
            } else if !self.sim.is_host_running(name(host)) {
                let is_to_restart = self.stopping.contains(&host);
                self.world.say(format_args!("{:?} h{host} has stopped", self.sim.elapsed()));
                self.down(host, true);
                if is_to_restart {
                    self.down.retain(|down| *down != host);
                    self.sim.bounce(name(host));
                }
            }
        }
    }

    fn step(&mut self) {
        self.look_after_processes();
        self.world.advance_keepers(self.sim.elapsed());
        self.world.check_failing(self.sim.elapsed());
        self.world.check_leader(self.sim.elapsed());
        if let Err(error) = self.sim.step() {
            self.world.violate(format_args!("the simulation: {error}"));
        }
    }
}
