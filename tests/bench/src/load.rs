//! `swarm-bench load`: no-op tasks under load, through three real daemons on loopback.
//!
//! ```text
//!   peak     1,000 in flight on one stream               -> tasks a second; and at 80 % of that, how long an acknowledgement takes
//!   fair     ten clients, 100 in flight each             -> the least and the most served beside the mean
//!   slow     one follower's disk 20 times slower         -> tasks a second beside the same without, before and after
//!   card     a disk of 50 ms a sync, as an SD card's     -> tasks a second with a follower on it, and with the only voter on it
//!   tasks    a thousand tasks, ten times as many, ...    -> processor time a task, and beside a backlog of a million
//!   pause    snapshots, of few jobs and of many          -> the longest acknowledgement beside them
//!   nodes    three nodes, and ten times as many          -> processor time a task, less that of the idle swarm
//! ```
//! A slow disk is `strace` that holds up each sync, so what it costs of the processors counts against us. On one core, as on a small
//! machine: `taskset -c 0 swarm-bench load`.

mod pause;
mod slow;
mod stream;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::ensure;
use clap::ValueEnum as _;
use swarm_client::Client;
use swarm_proto::api::{ArrayRequest, SubmitRequest};
use swarmctl::verb::bench::{disk, usage::cpu_of};
use swarmd::dev::Swarm;

use self::stream::{Paced, accepted_count, closed, closed_count, paced, waits};
use crate::{
    figures::{Row, Rows, load, row},
    median,
    quiet::Guard,
    swarm::{beside, dev, told},
};

/// Voters of a swarm that is loaded.
const NODES: usize = 3;
/// Submissions of one client that have not ended.
const IN_FLIGHT: u32 = 1_000;
/// Clients that share a swarm, and what each has in flight.
const CLIENTS: usize = 10;
const EACH: u32 = 100;
/// How many times slower a slow disk is.
const SLOWER: f64 = 20.0;
/// One sync of an SD card.
const CARD: Duration = Duration::from_millis(50);
/// Tasks that wait for ever, in a backlog that is full.
const BACKLOG: u32 = 1_000_000;
/// Until connections, rings and caches are as they will be.
const WARM: Duration = Duration::from_secs(1);

/// Jobs that wait for ever, in a ledger whose snapshots take their time.
const WAITING: u32 = 500_000;
/// The longest that a snapshot may keep an acknowledgement, in milliseconds.
const PAUSE: f64 = 50.0;

/// Until so much time has gone by.
fn so_long(span: Duration) -> impl Fn() -> bool + Send + 'static {
    let began = Instant::now();
    move || began.elapsed() < span
}

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// These alone
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Scene::value_variants().to_vec())]
    only: Vec<Scene>,
    /// How long each load lasts, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// The most tasks whose cost is compared with that of a thousand
    #[arg(long, default_value_t = 1_000_000)]
    tasks: u32,
    /// The nodes of a large swarm
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u8).range(4..=100))]
    nodes: u8,
    /// Measure beside others' work
    #[arg(long)]
    busy_anyway: bool,
    /// A real disk, because each acknowledgement waits for it
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scene {
    /// One client at the peak, and at 80 % of it
    Peak,
    /// Ten clients at a time
    Fair,
    /// A follower with a slow disk
    Slow,
    /// A disk as slow as an SD card
    Card,
    /// Few tasks and many
    Tasks,
    /// Snapshots
    Pause,
    /// Few nodes and many
    Nodes,
}

/// Measures what was asked for.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Rows> {
    let mut guard = if options.busy_anyway { Guard::Note(None) } else { Guard::Wait };
    let (began, mut figures) = (load(), Vec::new());
    for scene in &options.only {
        guard.before()?;
        figures.extend(match scene {
            Scene::Peak => peak(options).await?,
            Scene::Fair => fair(options).await?,
            Scene::Slow => slow(options).await?,
            Scene::Card => card(options).await?,
            Scene::Tasks => tasks(options).await?,
            Scene::Pause => pause(options).await?,
            Scene::Nodes => nodes(options).await?,
        });
    }
    Ok(Rows::new(began, figures))
}

/// The node that leads, and another one.
async fn leader_and_other(swarm: &Swarm) -> anyhow::Result<(usize, usize)> {
    let leader = swarm.client(0).leader().await.map_err(told)?.name;
    let at = swarm.nodes().iter().position(|node| node.name == leader).unwrap_or_default();
    Ok((at, (at + 1) % swarm.nodes().len()))
}

async fn peak(options: &Options) -> anyhow::Result<Vec<Row>> {
    let swarm = dev(&options.dir, NODES).await?;
    let (leader, _) = leader_and_other(&swarm).await?;
    let (client, span) = (swarm.client(leader), Duration::from_secs(options.seconds));
    closed(&client, IN_FLIGHT, WARM).await?;
    let most = closed(&client, IN_FLIGHT, span).await?;
    let Paced { mut acknowledged_ms, per_s } = paced(&client, 0.8 * most, so_long(span)).await?;
    swarm.stop().await;
    let mut at = |part| swarmctl::verb::bench::percentile(&mut acknowledged_ms, part);
    let (p50, p99) = (at(0.5), at(0.99));
    Ok(vec![
        row("peak, 1,000 in flight", most, "tasks/s", None),
        row("80 % of it: went through", per_s, "tasks/s", None),
        row("80 % of it: acknowledged, p50", p50, "ms", None),
        row("80 % of it: acknowledged, p99", p99, "ms", None),
        row("80 % of it: p99 beside p50", p99 / p50, "times", 5.0),
    ])
}

async fn fair(options: &Options) -> anyhow::Result<Vec<Row>> {
    let swarm = dev(&options.dir, NODES).await?;
    let span = Duration::from_secs(options.seconds);
    let clients: Vec<Client> = (0..CLIENTS).map(|n| swarm.client(n % NODES)).collect();
    let served = futures_util::future::try_join_all(clients.iter().map(|client| closed(client, EACH, span))).await?;
    swarm.stop().await;
    #[expect(clippy::cast_precision_loss, reason = "ten")]
    let mean = served.iter().sum::<f64>() / CLIENTS as f64;
    let beside = |extreme: f64| 100.0 * (extreme / mean - 1.0).abs();
    Ok(vec![
        row("ten clients: all of them", mean * 10.0, "tasks/s", None),
        row("ten clients: the least served, below the mean", beside(served.iter().copied().fold(f64::MAX, f64::min)), "%", 20.0),
        row("ten clients: the most served, above the mean", beside(served.iter().copied().fold(0.0, f64::max)), "%", 20.0),
    ])
}

/// How many tasks a second fewer there are, in percent, while a follower's syncs take that long; and how many there are then.
async fn beside_slow(options: &Options, delay: Duration) -> anyhow::Result<[f64; 2]> {
    let mut swarm = dev(&options.dir, NODES).await?;
    let (leader, follower) = leader_and_other(&swarm).await?;
    let (sound, span) = (beside("swarmd")?, Duration::from_secs(options.seconds));
    let slow = slow::program(swarm.dir(), &sound, delay)?;
    let mut rates = Vec::new();
    closed(&swarm.client(leader), IN_FLIGHT, WARM).await?;
    for program in [&sound, &slow, &sound] {
        swarm.set_program(follower, program.clone());
        swarm.end(follower).await.map_err(told)?;
        swarm.restart(follower).map_err(told)?;
        swarm.wait_ready().await.map_err(told)?;
        ensure!(leader_and_other(&swarm).await?.0 == leader, "another node leads since a follower was restarted");
        closed(&swarm.client(leader), IN_FLIGHT, WARM).await?;
        rates.push(closed(&swarm.client(leader), IN_FLIGHT, span).await?);
    }
    swarm.stop().await;
    Ok([100.0 * (1.0 - rates[1] / f64::midpoint(rates[0], rates[2])), rates[1]])
}

async fn slow(options: &Options) -> anyhow::Result<Vec<Row>> {
    let sync = disk::writers(&options.dir, NODES)?.p50;
    let [lost, per_s] = beside_slow(options, Duration::from_secs_f64(sync * SLOWER / 1e3)).await?;
    Ok(vec![
        row(format!("a follower's syncs {:.1} ms instead of {sync:.2}", sync * SLOWER), per_s, "tasks/s", None),
        row("a follower's syncs 20 times slower: lost of the rate", lost, "%", 10.0),
    ])
}

async fn card(options: &Options) -> anyhow::Result<Vec<Row>> {
    let [lost, per_s] = beside_slow(options, CARD).await?;
    let mut swarm = dev(&options.dir, 1).await?;
    swarm.set_program(0, slow::program(swarm.dir(), &beside("swarmd")?, CARD)?);
    swarm.end(0).await.map_err(told)?;
    swarm.restart(0).map_err(told)?;
    swarm.wait_ready().await.map_err(told)?;
    let alone = closed(&swarm.client(0), IN_FLIGHT, Duration::from_secs(options.seconds)).await?;
    let mut single = paced(&swarm.client(0), 4.0, so_long(Duration::from_secs(options.seconds))).await?.acknowledged_ms;
    swarm.stop().await;
    Ok(vec![
        row("a follower with 50 ms a sync", per_s, "tasks/s", None),
        row("a follower with 50 ms a sync: lost of the rate", lost, "%", None),
        row("the only voter has 50 ms a sync", alone, "tasks/s", None),
        row("the only voter has 50 ms a sync: acknowledged, p50", swarmctl::verb::bench::percentile(&mut single, 0.5), "ms", None),
    ])
}

/// Microseconds on a processor, of all daemons and of this process, the client.
fn cpu_us(swarm: &Swarm) -> f64 {
    let pids = swarm.nodes().iter().map(|node| node.pid).chain([std::process::id()]);
    pids.map(cpu_of).sum::<Duration>().as_secs_f64() * 1e6
}

/// What a task costs, of so many; the median of some times as many.
async fn cost(swarm: &Swarm, client: &Client, tasks: u32) -> anyhow::Result<f64> {
    // short ones are measured often enough that beginning and end of a measurement do not count
    let times = (100_000 / tasks).clamp(1, 50);
    let mut all = Vec::new();
    for _ in 0..times {
        let before = cpu_us(swarm);
        closed_count(client, IN_FLIGHT, tasks).await?;
        all.push((cpu_us(swarm) - before) / f64::from(tasks));
    }
    Ok(median(all))
}

async fn tasks(options: &Options) -> anyhow::Result<Vec<Row>> {
    let swarm = dev(&options.dir, NODES).await?;
    let (leader, _) = leader_and_other(&swarm).await?;
    let client = swarm.client(leader);
    closed(&client, IN_FLIGHT, WARM).await?;
    let (mut figures, mut costs) = (Vec::new(), Vec::new());
    for tasks in [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|tasks| *tasks <= options.tasks) {
        costs.push(cost(&swarm, &client, tasks).await?);
        figures.push(row(format!("{tasks} tasks: processors, a task"), costs[costs.len() - 1], "us", None));
    }
    let few = cost(&swarm, &client, 100_000).await?;
    let array = Some(ArrayRequest { first: 0, count: Some(BACKLOG), ..ArrayRequest::default() });
    let waits = SubmitRequest { array, ..waits() };
    client.submit(&waits).await.map_err(told)?;
    let full = cost(&swarm, &client, 100_000).await?;
    swarm.stop().await;
    let extreme = |pick: fn(f64, f64) -> f64| costs.iter().copied().reduce(pick).unwrap_or(f64::NAN);
    figures.push(row("the dearest beside the cheapest of these", extreme(f64::max) / extreme(f64::min), "times", 1.3));
    figures.push(row("beside a million that wait: processors, a task", full, "us", None));
    figures.push(row("beside a million that wait, beside none", full / few, "times", 1.3));
    Ok(figures)
}

async fn pause(options: &Options) -> anyhow::Result<Vec<Row>> {
    let swarm = dev(&options.dir, NODES).await?;
    let (leader, _) = leader_and_other(&swarm).await?;
    let (client, log) = (swarm.client(leader), swarm.log_of(&swarm.nodes()[leader].name));
    closed(&client, IN_FLIGHT, WARM).await?;
    let mut figures = Vec::new();
    for waiting in [0, WAITING] {
        accepted_count(&client, &waits(), waiting).await?;
        let pause::Pauses { beside, otherwise } = pause::pauses(&client, log.clone()).await?;
        let longest = beside.iter().copied().fold(0.0, f64::max);
        figures.push(row(format!("{waiting} jobs wait: longest acknowledgement beside a snapshot"), longest, "ms", PAUSE));
        figures.push(row(format!("{waiting} jobs wait: longest in a second without one, median"), median(otherwise.clone()), "ms", None));
        let worst = otherwise.into_iter().fold(0.0, f64::max);
        figures.push(row(format!("{waiting} jobs wait: longest in a second without one, worst"), worst, "ms", None));
    }
    swarm.stop().await;
    Ok(figures)
}

async fn nodes(options: &Options) -> anyhow::Result<Vec<Row>> {
    let mut costs = Vec::new();
    for nodes in [NODES, usize::from(options.nodes)] {
        let swarm = dev(&options.dir, nodes).await?;
        let (leader, _) = leader_and_other(&swarm).await?;
        let (client, span) = (swarm.client(leader), Duration::from_secs(options.seconds));
        closed(&client, IN_FLIGHT, WARM).await?;
        let before = cpu_us(&swarm);
        tokio::time::sleep(span).await;
        let idle = (cpu_us(&swarm) - before) / span.as_secs_f64();
        let (before, began) = (cpu_us(&swarm), Instant::now());
        let per_s = closed(&client, IN_FLIGHT, span).await?;
        let took = began.elapsed().as_secs_f64();
        costs.push((nodes, per_s, ((cpu_us(&swarm) - before) / took - idle) / per_s));
        swarm.stop().await;
    }
    let mut figures = Vec::new();
    for (nodes, per_s, cost) in &costs {
        figures.push(row(format!("{nodes} nodes"), *per_s, "tasks/s", None));
        figures.push(row(format!("{nodes} nodes: processors, a task"), *cost, "us", None));
    }
    figures.push(row(format!("{} nodes beside {NODES}: processors, a task", options.nodes), costs[1].2 / costs[0].2, "times", 1.3));
    Ok(figures)
}
