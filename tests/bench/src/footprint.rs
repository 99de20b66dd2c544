//! `swarm-bench footprint`: what daemons take of a machine when there is nothing to do, and when very much waits.
//!
//! ```text
//!   size      the programs' files
//!   start     a swarm of one, killed and started again and again -> ready
//!   idle      n daemons on loopback to which nothing happens     -> processor and memory of the leader, and of the others
//!   backlog   three daemons given one array that nobody may run  -> entries of the log, memory a task, ready again after kill -9 of all
//!   singles   the same with jobs of one task each
//! ```

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use swarm_client::Client;
use swarm_proto::{
    JobId,
    api::{ArrayRequest, Phase, SubmitLine, SubmitRequest},
};
use swarmctl::verb::bench::usage::cpu_of;
use swarmd::dev::Swarm;

use crate::{
    figures::{Row, Rows, load, row},
    median,
    swarm::{beside, dev, memory_of, told},
};

/// Voters of the swarm that has a backlog.
const VOTERS: usize = 3;
/// How often a daemon is killed and started again.
const STARTS: usize = 7;
/// Until nothing of a start is left to do.
const REST: Duration = Duration::from_secs(10);
/// How long a daemon may take to start again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Submissions that may be unanswered.
const IN_FLIGHT: u32 = 1_000;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Daemons that have nothing to do
    #[arg(long, default_value_t = 32)]
    nodes: usize,
    /// How long they are watched, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Tasks of the array that waits
    #[arg(long, default_value_t = 1_000_000)]
    tasks: u32,
    /// Jobs of one task each that wait
    #[arg(long, default_value_t = 900_000)]
    jobs: u32,
    /// Where the state goes
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// Measures all of it.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Rows> {
    let began = load();
    let mut figures = Vec::new();
    for program in ["swarmd", "swarmctl"] {
        figures.push(row(format!("{program}, its file"), mb(std::fs::metadata(beside(program)?)?.len()), "MB", None));
    }
    figures.extend(starts(options).await?);
    figures.extend(idle(options).await?);
    figures.extend(backlog(options, options.tasks, true).await?);
    figures.extend(backlog(options, options.jobs, false).await?);
    Ok(Rows::new(began, figures))
}

async fn starts(options: &Options) -> anyhow::Result<[Row; 1]> {
    let mut swarm = dev(&options.dir, 1).await?;
    let mut took = Vec::new();
    for _ in 0..STARTS {
        swarm.kill(0).await.map_err(told)?;
        let began = Instant::now();
        swarm.restart(0).map_err(told)?;
        ready(&swarm.client(0)).await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    swarm.stop().await;
    Ok([row(format!("started to ready, alone, p50 of {STARTS}"), median(took), "ms", 150.0)])
}

/// Until it is a member, and there is a leader.
async fn ready(client: &Client) -> anyhow::Result<()> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let is_ready = client.status().await.is_ok_and(|status| status.phase == Phase::Ready && status.leader.is_some());
        if is_ready {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "a daemon is not ready after {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn idle(options: &Options) -> anyhow::Result<[Row; 6]> {
    let swarm = dev(&options.dir, options.nodes).await?;
    tokio::time::sleep(REST).await;
    let leader = swarm.client(0).leader().await.map_err(told)?.name;
    let cpu = || swarm.nodes().iter().map(|node| cpu_of(node.pid)).collect::<Vec<_>>();
    let (before, began) = (cpu(), Instant::now());
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let (after, took) = (cpu(), began.elapsed());
    let (mut leads, mut others, mut memory) = ((0.0, 0.0), Vec::new(), Vec::new());
    for (node, (after, before)) in swarm.nodes().iter().zip(after.iter().zip(&before)) {
        let (share, rss) = (100.0 * (*after - *before).as_secs_f64() / took.as_secs_f64(), rss(node.pid)?);
        if node.name == leader {
            leads = (share, rss);
        } else {
            others.push(share);
            memory.push(rss);
        }
    }
    swarm.stop().await;
    let most = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    let of = |what: &str| format!("idle, {} nodes: {what}", options.nodes);
    Ok([
        row(of("processor of the leader"), leads.0, "% of a core", 1.0),
        row(of("processor of another one, median"), median(others.clone()), "% of a core", 0.3),
        row(of("processor of another one, most"), most(&others), "% of a core", None),
        row(of("memory of the leader"), leads.1, "MB", None),
        row(of("memory of another one, median"), median(memory.clone()), "MB", 25.0),
        row(of("memory of another one, most"), most(&memory), "MB", 25.0),
    ])
}

/// Tasks that no node may run: an array, or as many jobs.
async fn backlog(options: &Options, tasks: u32, is_array: bool) -> anyhow::Result<Vec<Row>> {
    let mut swarm = dev(&options.dir, VOTERS).await?;
    let memory = |swarm: &Swarm| swarm.nodes().iter().map(|node| rss(node.pid)).collect::<anyhow::Result<Vec<_>>>();
    let (client, before) = (swarm.client(0), memory(&swarm)?);
    let at = client.status().await.map_err(told)?;
    let (began, last) = (Instant::now(), submit(&client, tasks, is_array).await?);
    let took = began.elapsed();
    let now = client.status().await.map_err(told)?;
    // what waits for a sync, or to be forgotten, has gone
    tokio::time::sleep(Duration::from_secs(3)).await;
    let growth: Vec<f64> = memory(&swarm)?.iter().zip(&before).map(|(now, before)| now - before).collect();
    for n in 0..VOTERS {
        swarm.kill(n).await.map_err(told)?;
    }
    let began = Instant::now();
    for n in 0..VOTERS {
        swarm.restart(n).map_err(told)?;
    }
    for n in 0..VOTERS {
        ready(&swarm.client(n)).await?;
    }
    let view = client.job(last).await.map_err(told)?;
    let again = began.elapsed();
    ensure!(view.counts.pending == if is_array { u64::from(tasks) } else { 1 }, "{last} is not as it was: {view:?}");
    swarm.stop().await;
    let of = |what: &str| if is_array { format!("one array of {tasks}: {what}") } else { format!("{tasks} jobs: {what}") };
    let a_task = |mb: f64| mb * 1e6 / f64::from(tasks);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let entries = (now.log_index.0 - at.log_index.0) as f64;
    Ok(vec![
        row(of("until accepted"), took.as_secs_f64() * 1e3, "ms", None),
        row(of("entries of the log"), entries, "", is_array.then_some(1.0)),
        row(of("log, a voter"), mb(now.log_written - at.log_written), "MB", None),
        row(of("memory a task, the voter with most"), a_task(growth.iter().copied().fold(0.0, f64::max)), "B", 256.0),
        row(of("all killed, until all ready and it is shown"), again.as_secs_f64() * 1e3, "ms", 3_000.0),
    ])
}

/// The last job, when all are accepted.
async fn submit(client: &Client, tasks: u32, is_array: bool) -> anyhow::Result<JobId> {
    let nobody = BTreeMap::from([("nobody".to_owned(), "has this".to_owned())]);
    let mut request = SubmitRequest { noop: true, labels: nobody, follow: Some(false), ..SubmitRequest::default() };
    if is_array {
        request.array = Some(ArrayRequest { first: 0, count: Some(tasks), ..ArrayRequest::default() });
        return Ok(client.submit(&request).await.map_err(told)?.job);
    }
    let (mut sender, mut answers) = client.submit_stream().await.map_err(told)?;
    let (mut sent, mut accepted, mut last, mut lines) = (0, 0, None, Vec::new());
    while accepted < tasks {
        while sent < tasks.min(accepted + IN_FLIGHT) {
            request.id = sent.to_string();
            sender.send(&request).await.map_err(told)?;
            sent += 1;
        }
        ensure!(answers.next_many(&mut lines).await.map_err(told)? > 0, "the daemon ended the stream of answers");
        for line in lines.drain(..) {
            match line {
                SubmitLine::Accepted { job, .. } => (accepted, last) = (accepted + 1, Some(job)),
                SubmitLine::Refused { problem, .. } => return Err(told(problem)),
                SubmitLine::Progress { .. } | SubmitLine::Ended { .. } => {}
            }
        }
    }
    last.context("one job at least")
}

fn mb(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let bytes = bytes as f64;
    bytes / 1e6
}

/// What a process has of memory, in MB.
fn rss(pid: u32) -> anyhow::Result<f64> {
    memory_of(pid, "VmRSS").map(mb)
}
