//! `swarm-bench mesh`: real daemons, on loopback or in a lab, that are killed, or stopped again and again, beside the simulation of the
//! same.
//!
//! ```text
//!   crash     kill -9 of one daemon                      -> the first other one calls it Down, and the last
//!   stutter   SIGSTOP and SIGCONT of some, over and over -> healthy ones that are called Down
//! ```
//! When a daemon calls another one Down it says so itself, in milliseconds of the clock that all of them share.

mod place;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::ensure;
use rustix::process::{Signal, kill_process};
use serde::Serialize;
use swarm_core::members::Members;
use swarm_proto::{
    UnixMillis,
    api::{Health, NodeEvent},
};
use swarm_sim::membership::{Spec, scenes};

use self::place::Place;
use crate::{
    failover::pid,
    figures::{self, Figure, load},
    swarm::told,
};

/// How long all may take to see all, and all to see that one is gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long the daemons are watched while nothing happens.
const IDLE: Duration = Duration::from_secs(10);
/// What is real takes at most so many times what is simulated.
const RATIO: f64 = 1.5;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Daemons
    #[arg(long, default_value_t = 32)]
    nodes: usize,
    /// How often one is killed
    #[arg(long, default_value_t = 20)]
    crashes: usize,
    /// How many of them stutter
    #[arg(long, default_value_t = 4)]
    ill: usize,
    /// How long one of these stops at a time, in milliseconds
    #[arg(long, default_value_t = 512)]
    pause: u64,
    /// How long it runs between, in milliseconds
    #[arg(long, default_value_t = 64)]
    run: u64,
    /// How long they stutter
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Fails where what is real takes more than 1.5 times what is simulated, or a healthy node is called Down
    #[arg(long)]
    check: bool,
    /// Each on a host of its own, in a lab of network namespaces; needs root
    #[arg(long)]
    lab: bool,
    /// Where the state of those on loopback goes
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// All figures.
#[derive(Serialize)]
pub(crate) struct Told {
    nodes: usize,
    /// Each on a host of its own.
    lab: bool,
    /// How busy the machine was when it began and when it ended, this included.
    load: [String; 2],
    /// Cores that all daemons together use while nothing happens.
    idle_cores: f64,
    figures: Vec<Figure>,
    /// What is real beside what is simulated: of the figures, by pairs.
    ratios: Vec<Ratio>,
    /// Healthy nodes called Down, real and simulated: after crashes, and while some stuttered.
    wrong: [[usize; 2]; 2],
}

#[derive(Serialize)]
struct Ratio {
    what: &'static str,
    p50: f64,
    p99: f64,
}

/// The daemons, and how far each one's events have been read.
struct Mesh {
    place: Place,
    read: Vec<u64>,
}

/// What the daemons took to see one death.
struct Seen {
    first: Duration,
    all: Duration,
    wrong: usize,
}

/// Measures all of it.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Told> {
    let began = load();
    let place = if options.lab { Place::lab(options.nodes).await? } else { Place::loopback(options.nodes, options.dir.clone())? };
    let mut mesh = Mesh { read: vec![0; place.count()], place };
    let outcome = mesh.scenes(options).await;
    mesh.place.stop().await;
    let (idle_cores, crashes, stutter) = outcome?;

    // by hundreds where that takes no time
    let seeds = if options.nodes > 64 { 30 } else { 100 };
    let simulated: Vec<_> = (0..seeds).filter_map(|seed| scenes::crash::<Members>(Spec::lan(options.nodes, seed))).collect();
    let (pause, run) = (Duration::from_millis(options.pause), Duration::from_millis(options.run));
    let virtually = scenes::stutter::<Members>(Spec::lan(options.nodes, 1), options.ill, pause, run, Duration::from_secs(options.seconds));
    let first: Vec<Duration> = crashes.iter().map(|crash| crash.first).collect();
    let all: Vec<Duration> = crashes.iter().map(|crash| crash.all).collect();
    let (mut figures, mut ratios) = (Vec::new(), Vec::new());
    for (what, real, simulated) in [
        ("first Down", first, simulated.iter().map(|crash| crash.first).collect::<Vec<_>>()),
        ("all agree", all, simulated.iter().map(|crash| crash.all).collect()),
    ] {
        if real.is_empty() {
            continue;
        }
        let [real, simulated] =
            [("real", real), ("simulated", simulated)].map(|(kind, samples)| Figure::new(format!("crash, {what}, {kind}"), &samples, &[]));
        ratios.push(Ratio { what, p50: real.p50() / simulated.p50(), p99: real.p99() / simulated.p99() });
        figures.extend([real, simulated]);
    }
    let wrong = [
        [crashes.iter().map(|crash| crash.wrong).sum(), simulated.iter().map(|crash| crash.wrong).sum()],
        [stutter, virtually.unwrap_or(0)],
    ];
    Ok(Told { nodes: options.nodes, lab: options.lab, load: [began, load()], idle_cores, figures, ratios, wrong })
}

impl Mesh {
    async fn scenes(&mut self, options: &Options) -> anyhow::Result<(f64, Vec<Seen>, usize)> {
        self.place.ready().await?;
        self.settle().await?;
        let (before, at) = (self.processor()?, Instant::now());
        tokio::time::sleep(IDLE).await;
        let idle = (self.processor()? - before) / at.elapsed().as_secs_f64();
        let mut crashes = Vec::new();
        for n in 0..options.crashes {
            crashes.push(self.crash(n).await?);
        }
        let stutter = self.stutter(options).await?;
        Ok((idle, crashes, stutter))
    }

    /// Waits until all take all for alive.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let give_up = Instant::now() + PATIENCE;
        for n in 0..self.read.len() {
            loop {
                let status = self.place.client(n)?.status().await.map_err(told)?;
                let alive = status.peers.iter().filter(|peer| peer.health == Health::Alive).count();
                if alive + 1 == self.read.len() {
                    break;
                }
                ensure!(Instant::now() < give_up, "{} sees {alive} others alive", status.name);
                tokio::time::sleep(LOOK).await;
            }
        }
        for n in 0..self.read.len() {
            self.events(n).await?;
        }
        Ok(())
    }

    /// What a daemon has said since it was last asked.
    async fn events(&mut self, n: usize) -> anyhow::Result<Vec<NodeEvent>> {
        let events = self.place.client(n)?.node_events(self.read[n]).await.map_err(told)?;
        if let (Some(first), Some(last)) = (events.first(), events.last()) {
            ensure!(first.seq == self.read[n] + 1, "{} forgot what it had said", self.place.name(n));
            self.read[n] = last.seq;
        }
        Ok(events)
    }

    /// One that does not lead, another one each time.
    async fn victim(&self, round: usize) -> anyhow::Result<usize> {
        let leader = self.place.client(0)?.leader().await.map_err(told)?.name;
        let others: Vec<usize> = (1..self.read.len()).filter(|n| self.place.name(*n) != leader).collect();
        others.get(others.len() - 1 - round % others.len()).copied().ok_or_else(|| anyhow::anyhow!("two nodes at least"))
    }

    async fn crash(&mut self, round: usize) -> anyhow::Result<Seen> {
        let victim = self.victim(round).await?;
        let name = self.place.name(victim).to_owned();
        let clock = swarm_transport::machine_clock();
        let at = clock();
        self.place.kill(victim).await?;
        let give_up = Instant::now() + PATIENCE;
        let (mut first, mut all, mut wrong) = (u64::MAX, 0, 0);
        for n in (0..self.read.len()).filter(|n| *n != victim) {
            let mut is_seen = false;
            while !is_seen {
                for event in self.events(n).await?.iter().filter(|event| event.text.ends_with(" is Down")) {
                    if event.text.starts_with(&format!("{name} (")) {
                        let UnixMillis(seen) = event.at;
                        (first, all, is_seen) = (first.min(seen - at.0), all.max(seen - at.0), true);
                    } else {
                        wrong += 1;
                    }
                }
                ensure!(Instant::now() < give_up, "{} does not see that {name} is gone", self.place.name(n));
                if !is_seen {
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
        self.place.restart(victim)?;
        self.read[victim] = 0;
        self.place.ready().await?;
        self.settle().await?;
        Ok(Seen { first: Duration::from_millis(first), all: Duration::from_millis(all), wrong })
    }

    /// The last ones stop and run, over and over; how many others were called Down, by whomsoever.
    async fn stutter(&mut self, options: &Options) -> anyhow::Result<usize> {
        let (pause, run) = (Duration::from_millis(options.pause), Duration::from_millis(options.run));
        let (mut ill, mut pids) = (Vec::new(), Vec::new());
        for round in 0..options.ill {
            let n = self.victim(round).await?;
            pids.push(pid(self.place.pid(n)?)?);
            ill.push(format!("{} (", self.place.name(n)));
        }
        let end = tokio::time::Instant::now() + Duration::from_secs(options.seconds);
        let turns = pids.iter().zip(0u32..).map(|(&pid, turn)| async move {
            tokio::time::sleep(run * turn / u32::try_from(options.ill).unwrap_or(1)).await;
            while tokio::time::Instant::now() < end {
                let _ = kill_process(pid, Signal::STOP);
                tokio::time::sleep(pause).await;
                let _ = kill_process(pid, Signal::CONT);
                tokio::time::sleep(run).await;
            }
        });
        futures_util::future::join_all(turns).await;
        let mut wrong = 0;
        for n in 0..self.read.len() {
            let events = self.events(n).await?;
            let downs = events.iter().filter(|event| event.text.ends_with(" is Down"));
            wrong += downs.filter(|event| !ill.iter().any(|name| event.text.starts_with(name))).count();
        }
        Ok(wrong)
    }

    /// Processor seconds that all daemons together have used.
    fn processor(&self) -> anyhow::Result<f64> {
        let ticks = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace();
            fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>()
        };
        #[expect(clippy::cast_precision_loss, reason = "a hundred a second")]
        let hertz = rustix::param::clock_ticks_per_second() as f64;
        let used = (0..self.read.len()).map(|n| Ok(ticks(self.place.pid(n)?))).sum::<anyhow::Result<f64>>()?;
        Ok(used / hertz)
    }
}

/// A table for people.
pub(crate) fn table(told: &Told) -> String {
    let place = if told.lab { "in a lab" } else { "on loopback" };
    let mut text = format!("{} daemons {place}; idle they use {:.2} cores together\n", told.nodes, told.idle_cores);
    text += &figures::table(&told.figures);
    for Ratio { what, p50, p99 } in &told.ratios {
        let verdict = if *p50 <= RATIO && *p99 <= RATIO { "met" } else { "MISSED" };
        text += &format!("{what}: real / simulated p50 {p50:.2}, p99 {p99:.2} (should be <= {RATIO}: {verdict})\n");
    }
    let [[crash, crash_sim], [stutter, stutter_sim]] = told.wrong;
    text += &format!("healthy nodes called Down: {crash} real, {crash_sim} simulated after crashes; ");
    text += &format!("{stutter} real, {stutter_sim} simulated while some stuttered (should be 0)\n");
    text + &format!("busy when it began: {}; when it ended: {}\n", told.load[0], told.load[1])
}

/// Whether what is real is as it is simulated.
pub(crate) fn check(options: &Options, told: &Told) -> anyhow::Result<()> {
    if options.check {
        ensure!(told.ratios.iter().all(|ratio| ratio.p50 <= RATIO && ratio.p99 <= RATIO), "what is real is slower than what is simulated");
        ensure!(told.wrong[0][0] + told.wrong[1][0] == 0, "healthy nodes were called Down");
    }
    Ok(())
}
