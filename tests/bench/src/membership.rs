//! `swarm-bench membership`: the promises of membership in figures, in virtual time, beside SWIM as memberlist does it.
//!
//! Ours, memberlist with its `DefaultLANConfig`, and memberlist made as fast as ours run through the same scenes, with the same seeds,
//! over the same simulated network. The figures are exact: they are the same on any machine, however busy it is. Only the simulator's
//! own speed is this machine's.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde::Serialize;
use swarm_core::members::{Members, Settings};
use swarm_sim::membership::{Protocol, Spec, Swim, Timings, World, quantile, scenes};

/// What the simulator has to do in a second of one core: nodes times seconds, at one probe of each a second.
const SPEED: f64 = 300_000.0;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fewer seeds, the corners of the grid, and nothing of a thousand nodes: seconds instead of minutes
    #[arg(long)]
    quick: bool,
    /// The simulator's own speed alone
    #[arg(long, conflicts_with = "check")]
    speed: bool,
    /// Fails where one of ours misses its target
    #[arg(long)]
    check: bool,
}

/// How much of it.
struct Plan {
    /// Nodes, and seeds.
    crashes: &'static [(usize, u64)],
    joins: &'static [usize],
    seeds: u64,
    /// Lifeguard's grid: how many of 128 are slow, for how long they stop, and how long they run between, in milliseconds.
    ill: &'static [usize],
    pauses: &'static [u64],
    runs: &'static [u64],
    traffic: &'static [(usize, Option<f64>)],
}

const FULL: Plan = Plan {
    crashes: &[(2, 200), (3, 200), (4, 200), (8, 200), (32, 200), (128, 40), (1_000, 5)],
    joins: &[256, 1_000],
    seeds: 20,
    ill: &[1, 2, 4, 8, 16, 32],
    pauses: &[128, 512, 2_048, 8_192, 32_768],
    runs: &[4, 64, 1_024],
    traffic: &[(32, Some(2_000.0)), (128, None), (1_000, Some(4_000.0))],
};

const QUICK: Plan = Plan {
    crashes: &[(2, 20), (3, 20), (4, 20), (8, 20), (32, 40)],
    joins: &[256],
    seeds: 3,
    ill: &[1, 32],
    pauses: &[512, 8_192],
    runs: &[64],
    traffic: &[(32, Some(2_000.0))],
};

/// One figure of one of them.
struct Cell {
    what: String,
    unit: &'static str,
    /// `None`: it never came.
    value: Option<f64>,
    /// At most.
    target: Option<f64>,
}

/// One figure of all.
#[derive(Serialize)]
struct Row {
    what: String,
    unit: &'static str,
    /// At most. Section 9 of the design, or what it says of all.
    target: Option<f64>,
    /// `None`: it never came.
    ours: Option<f64>,
    memberlist: Option<f64>,
    /// With probes, timeouts and gossip as fast as ours.
    memberlist_fast: Option<f64>,
}

/// All figures.
#[derive(Serialize)]
pub(crate) struct Told {
    rows: Vec<Row>,
    /// Node-seconds a second of one core.
    speed: f64,
    took_s: f64,
}

/// Measures all of it. The three run beside each other; the speed is measured alone, before.
pub(crate) fn measure(options: &Options) -> anyhow::Result<Told> {
    let plan = if options.quick { &QUICK } else { &FULL };
    let began = Instant::now();
    let speed = speed(if options.quick { 20 } else { 60 });
    if options.speed {
        return Ok(Told { rows: Vec::new(), speed, took_s: began.elapsed().as_secs_f64() });
    }
    let columns = std::thread::scope(|scope| {
        let all = [
            scope.spawn(|| column::<Members>(&Settings::lan(), plan)),
            scope.spawn(|| column::<Swim>(&Timings::lan(), plan)),
            scope.spawn(|| column::<Swim>(&Timings::fast(), plan)),
        ];
        all.map(|one| one.join().map_err(|_| anyhow::anyhow!("a scene panicked")))
    });
    let [ours, memberlist, fast] = columns;
    let rows = ours?.into_iter().zip(memberlist?).zip(fast?).map(|((ours, memberlist), fast)| {
        let Cell { what, unit, value, target } = ours;
        Row { what, unit, target, ours: value, memberlist: memberlist.value, memberlist_fast: fast.value }
    });
    Ok(Told { rows: rows.collect(), speed, took_s: began.elapsed().as_secs_f64() })
}

/// Of a thousand nodes that nothing happens to, in processor time of this thread.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn speed(seconds: u32) -> f64 {
    let nodes = 1_000;
    let mut world = World::new(Spec::lan(nodes, 1).with(Settings::wan()));
    // all have met, and nobody tells anybody of it any more
    world.run_for(Duration::from_secs(60));
    let cpu = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let before = cpu();
    world.run_for(Duration::from_secs(seconds.into()));
    nodes as f64 * f64::from(seconds) / (cpu() - before)
}

fn column<P: Protocol>(settings: &P::Settings, plan: &Plan) -> Vec<Cell> {
    let mut cells = Vec::new();
    crashes::<P>(settings, plan, &mut cells);
    leaves::<P>(settings, plan, &mut cells);
    for &nodes in plan.joins {
        let took = scenes::join::<P>(lan(nodes, 7, 0.001, settings));
        let target = (nodes == 1_000).then_some(5_000.0);
        cells.push(Cell { what: format!("{nodes} start together, all know all"), unit: "ms", value: took.map(millis), target });
    }
    splits::<P>(settings, plan, &mut cells);
    grid::<P>(settings, plan, &mut cells);
    ills::<P>(settings, plan, &mut cells);
    let downs = (0..plan.seeds.min(5)).map(|seed| scenes::overload::<P>(lan(32, seed, 0.0, settings), Duration::from_secs(60)));
    cells.push(none_wrong("32 on processors that twice as many want, 60 s: wrong Down".into(), downs));
    traffic::<P>(settings, plan, &mut cells);
    cells
}

fn lan<S: Clone>(nodes: usize, seed: u64, loss: f64, settings: &S) -> Spec<S> {
    Spec { loss, ..Spec::lan(nodes, seed).with(settings.clone()) }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// A rank of what came; `None` where one never came.
fn rank(samples: &[Option<Duration>], q: f64) -> Option<f64> {
    let all: Option<Vec<Duration>> = samples.iter().copied().collect();
    all.map(|all| millis(quantile(&all, q)))
}

/// How many verdicts were wrong; none should be.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn none_wrong(what: String, counts: impl Iterator<Item = Option<usize>>) -> Cell {
    let sum: Option<usize> = counts.sum();
    Cell { what, unit: "", value: sum.map(|sum| sum as f64), target: Some(0.0) }
}

fn crashes<P: Protocol>(settings: &P::Settings, plan: &Plan, cells: &mut Vec<Cell>) {
    for &(nodes, seeds) in plan.crashes {
        let crashes: Vec<_> = (0..seeds).map(|seed| scenes::crash::<P>(lan(nodes, seed, 0.0, settings))).collect();
        let first: Vec<_> = crashes.iter().map(|crash| crash.map(|crash| crash.first)).collect();
        let all: Vec<_> = crashes.iter().map(|crash| crash.map(|crash| crash.all)).collect();
        let is_promised = nodes == 32;
        let mut cell = |what: &str, value: Option<f64>, target: Option<f64>| {
            cells.push(Cell { what: format!("{nodes}: crash, {what}"), unit: "ms", value, target: target.filter(|_| is_promised) });
        };
        cell("first Down p50", rank(&first, 0.5), None);
        cell("first Down p99", rank(&first, 0.99), Some(1_200.0));
        cell("all agree p99", rank(&all, 0.99), Some(1_500.0));
        cell("all agree, longest", rank(&all, 1.0), Some(3_000.0));
        cells.push(none_wrong(format!("{nodes}: crash, others wrongly Down"), crashes.iter().map(|crash| crash.map(|crash| crash.wrong))));
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn leaves<P: Protocol>(settings: &P::Settings, plan: &Plan, cells: &mut Vec<Cell>) {
    for loss in [0.0, 0.1, 0.3] {
        let leaves: Vec<_> = (0..plan.seeds).filter_map(|seed| scenes::leave::<P>(lan(32, seed, loss, settings))).collect();
        let known: Vec<_> = leaves.iter().map(|leave| leave.known).collect();
        let heard = leaves.iter().filter(|leave| leave.known.is_some() && leave.downs == 0).count();
        let value = (leaves.len() as u64 == plan.seeds).then_some(100.0 * heard as f64 / plan.seeds as f64);
        let name = format!("32: leave at {:.0} % loss", loss * 100.0);
        cells.push(Cell { what: format!("{name}, known to all p99"), unit: "ms", value: rank(&known, 0.99), target: None });
        // a share that should be reached: its opposite should be none
        cells.push(Cell {
            what: format!("{name}, missed or taken for a death"),
            unit: "%",
            value: value.map(|v| 100.0 - v),
            target: Some(0.0),
        });
    }
}

fn splits<P: Protocol>(settings: &P::Settings, plan: &Plan, cells: &mut Vec<Cell>) {
    let splits: Vec<_> = (0..plan.seeds).map(|seed| scenes::split::<P>(lan(32, seed, 0.0, settings))).collect();
    let known: Vec<_> = splits.iter().map(|split| split.map(|split| split.known)).collect();
    let healed: Vec<_> = splits.iter().map(|split| split.and_then(|split| split.healed)).collect();
    cells.push(Cell { what: "32: split in halves, known".into(), unit: "ms", value: rank(&known, 1.0), target: None });
    cells.push(Cell { what: "32: split of 60 s heals, longest".into(), unit: "ms", value: rank(&healed, 1.0), target: Some(3_000.0) });
    cells.push(none_wrong("32: split, own half wrongly Down".into(), splits.iter().map(|split| split.map(|split| split.wrong))));
}

fn grid<P: Protocol>(settings: &P::Settings, plan: &Plan, cells: &mut Vec<Cell>) {
    for &ill in plan.ill {
        let all = plan.pauses.iter().flat_map(|&pause| plan.runs.iter().map(move |&run| (pause, run)));
        let counts = all.map(|(pause, run)| {
            let (pause, run, span) = (Duration::from_millis(pause), Duration::from_millis(run), Duration::from_secs(120));
            scenes::stutter::<P>(lan(128, 1, 0.001, settings), ill, pause, run, span)
        });
        let (least, most) = (plan.pauses.first().unwrap_or(&0), plan.pauses.last().unwrap_or(&0));
        cells.push(none_wrong(format!("128: {ill} blocked {least} to {most} ms, healthy wrongly Down"), counts));
    }
}

fn ills<P: Protocol>(settings: &P::Settings, plan: &Plan, cells: &mut Vec<Cell>) {
    for (name, is_deaf) in [("deaf", true), ("mute", false)] {
        let ills: Vec<_> = (0..plan.seeds).map(|seed| scenes::one_way::<P>(lan(32, seed, 0.0, settings), is_deaf)).collect();
        let known: Vec<_> = ills.iter().map(|ill| ill.and_then(|ill| ill.known)).collect();
        cells.push(Cell { what: format!("32: one is {name}, Down at all, longest"), unit: "ms", value: rank(&known, 1.0), target: None });
        cells.push(none_wrong(format!("32: one is {name}, others wrongly Down"), ills.iter().map(|ill| ill.map(|ill| ill.wrong))));
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn traffic<P: Protocol>(settings: &P::Settings, plan: &Plan, cells: &mut Vec<Cell>) {
    for &(nodes, target) in plan.traffic {
        let world = scenes::settled::<P>(lan(nodes, 1, 0.001, settings));
        // as long as memberlist's rarest tick at a thousand nodes, or near it
        let spent = world.map(|mut world| (scenes::traffic(&mut world, 60), scenes::churn(&mut world, 30)));
        let median = |spent: &Vec<u64>| quantile(spent, 0.5) as f64;
        let idle = spent.as_ref().map(|(idle, _)| median(idle));
        let churn = spent.as_ref().map(|(_, churn)| median(churn));
        cells.push(Cell { what: format!("{nodes}: a node sends, idle"), unit: "B/s", value: idle, target });
        cells.push(Cell { what: format!("{nodes}: a node sends, one dies each second"), unit: "B/s", value: churn, target: None });
    }
}

impl Row {
    fn is_met(&self) -> Option<bool> {
        let target = self.target?;
        Some(self.ours.is_some_and(|ours| ours <= target))
    }
}

/// A table for people.
pub(crate) fn table(told: &Told) -> String {
    let wide = told.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
    let mut text = format!("{:wide$} {:>9} {:>10} {:>10}   should be\n", "", "ours", "memberlist", "as fast");
    let word = |value: Option<f64>, unit: &str| match value {
        None => "never".to_owned(),
        Some(value) => format!("{value:.0}{}{unit}", if unit.is_empty() { "" } else { " " }),
    };
    for row in &told.rows {
        let [ours, memberlist, fast] = [row.ours, row.memberlist, row.memberlist_fast].map(|value| word(value, row.unit));
        let verdict = match (row.target, row.is_met()) {
            (Some(target), Some(true)) => format!("<= {target} met"),
            (Some(target), Some(false) | None) => format!("<= {target} MISSED"),
            (None, _) => String::new(),
        };
        let _ = writeln!(text, "{:wide$} {ours:>9} {memberlist:>10} {fast:>10}   {verdict}", row.what);
    }
    let verdict = if told.speed >= SPEED { "met" } else { "MISSED" };
    let _ = writeln!(text, "the simulator: {:.0} node-seconds a second of one core (should be >= {SPEED}: {verdict})", told.speed);
    let _ = writeln!(text, "memberlist: its DefaultLANConfig without Lifeguard; as fast: with probes, timeouts and gossip as fast as ours");
    let _ = writeln!(text, "all of it took {:.0} s", told.took_s);
    text
}

/// Whether ours is as it should be.
pub(crate) fn check(options: &Options, told: &Told) -> anyhow::Result<()> {
    if options.check {
        let mut missed: Vec<&str> = told.rows.iter().filter(|row| row.is_met() == Some(false)).map(|row| row.what.as_str()).collect();
        missed.extend((told.speed < SPEED).then_some("the simulator's own speed"));
        ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    }
    Ok(())
}
