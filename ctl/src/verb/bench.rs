//! `bench tasks`: how many tasks a second, how long one takes, and what it costs, beside the disk's own pace in the same run.
//! [`bench blob`](blob) is the same for payloads.
//!
//! ```text
//!  1. fdatasync alone and with three writers          what a durable answer can cost at best
//!  2. N submissions on one stream, K in flight        tasks a second, CPU and bytes a task
//!  3. 500 submissions one at a time                   acknowledged after, ended after
//!  4. (exec) bare posix_spawn-and-wait, every core    what a process costs at best
//! ```
//! Without a running swarm it starts a throw-away one of three nodes on a real disk with the `swarmd` beside this program.

pub mod blob;
pub mod disk;
mod load;
mod throwaway;
pub mod usage;

pub use self::load::percentile;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use serde::Serialize;
use swarm_client::{Client, Place};
use swarm_proto::{Code, Problem, api::SubmitRequest, spec::Durability};

use self::{load::Figures, throwaway::Throwaway, usage::Usage};
use crate::{args::Global, failure::Outcome, output::Out, session::place, spec::DurabilityWord};

/// Most tasks of one run.
const MOST: u32 = 10_000_000;
/// Submissions of the round-trip phase.
const ROUND_TRIPS: usize = 500;
/// How long spawning alone is measured.
const SPAWN_TIME: Duration = Duration::from_secs(2);

/// What is measured.
#[derive(Subcommand, Clone, Debug)]
pub enum Verb {
    /// Tasks a second, the time one takes, and what it costs, beside the disk's own pace
    ///
    /// Where a daemon answers, its swarm does the work and keeps N + 500 jobs on record; the disk's pace and the processor's time are not
    /// known then. Otherwise, or with --throw-away or --dir, a throw-away swarm of three is started.
    Tasks(Tasks),
    /// How fast a blob gets from disk to disk between two nodes of a throw-away swarm, beside stock QUIC
    ///
    /// A control round trip is a call at the node that receives (`GET /v1/stats`), which has the leader answer it: first while nothing
    /// else happens, then while the blob is sent over and over.
    Blob(blob::Blob),
}

/// Measures what was asked for.
///
/// # Errors
/// No swarm to measure, or a task that did not succeed: a figure of failures is no figure.
pub async fn call(verb: Verb, global: &Global, out: Out) -> Outcome {
    match verb {
        Verb::Tasks(args) => tasks(&args, place(global)?, out).await,
        Verb::Blob(args) => blob::call(&args, out).await,
    }
}

/// Options of `bench tasks`.
#[derive(Args, Clone, Debug)]
pub struct Tasks {
    /// How many tasks.
    #[arg(short, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    n: u32,
    /// What each task does: nothing, or run `true`.
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,
    /// One array job instead of N submissions.
    #[arg(long, conflicts_with = "durability")]
    array: bool,
    /// What an acknowledgement means.
    #[arg(long, value_enum, default_value_t)]
    durability: DurabilityWord,
    /// Submissions that may be unanswered at once.
    #[arg(long, value_name = "K", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: u32,
    /// The node of the throw-away swarm to speak to, such as dev2; the leader if absent.
    #[arg(long, value_name = "NAME")]
    through: Option<String>,
    /// Where a throw-away swarm keeps its state: a real disk, because every acknowledgement waits for it.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Start a throw-away swarm even where a daemon answers.
    #[arg(long)]
    throw_away: bool,
}

/// What a task does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The whole way there and back, and nothing in between.
    #[default]
    Noop,
    /// A process that ends at once.
    Exec,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    tasks: u32,
    kind: &'static str,
    mode: &'static str,
    in_flight: u32,
    tasks_per_s: f64,
    ack_p50_ms: f64,
    rtt_p50_ms: f64,
    rtt_p99_ms: f64,
    /// `None` where the daemons' disk is not ours to measure.
    fdatasync_p50_ms: Option<f64>,
    fdatasync_p50_ms_3_writers: Option<f64>,
    /// Of all daemons and this client; `None` where the daemons are not ours.
    cpu_us_per_task: Option<f64>,
    log_bytes_per_task: Option<f64>,
    rss_mb: Vec<f64>,
    fs: Option<String>,
    tasks_by_node: std::collections::BTreeMap<String, u64>,
    durability: Durability,
    nodes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    spawn_per_s: Option<f64>,
}

async fn tasks(args: &Tasks, place: Place, out: Out) -> Outcome {
    if !args.throw_away && args.dir.is_none() {
        let is_named = matches!(place, Place::Mesh(_));
        match Client::connect_to(place).await {
            Ok(running) => return show(&measure(args, &running, None).await?, out),
            Err(problem) if is_named => return Err(problem.into()),
            Err(_) => {}
        }
    }
    let swarm = Throwaway::start(args.dir.as_deref()).await?;
    let measured = async {
        let client = swarm.client(args.through.as_deref()).await?;
        measure(args, &client, Some(&swarm)).await
    };
    let report = measured.await;
    swarm.stop().await;
    show(&report?, out)
}

async fn measure(args: &Tasks, client: &Client, swarm: Option<&Throwaway>) -> Result<Report, Problem> {
    if swarm.is_none() && args.through.is_some() {
        let why = "--through is for a throw-away swarm, and a daemon answers here";
        return Err(Problem::new(Code::BadRequest, "nothing was measured", why).hint("with --throw-away, or without --through"));
    }
    let pace = match swarm {
        Some(swarm) => Some(disk::pace(swarm.dir().to_owned()).await?),
        None => None,
    };
    let usage = Usage::begin(swarm, client).await?;
    let request = SubmitRequest { durability: Some(args.durability.into()), ..request(args.kind) };
    let figures = if args.array {
        load::array(client, &request, args.n).await?
    } else {
        load::singles(client, &request, args.n, args.in_flight).await?
    };
    let spent = usage.end(swarm, client).await?;
    let trips = load::one_at_a_time(client, &request, ROUND_TRIPS).await?;
    let spawn_per_s = match args.kind {
        Kind::Noop => None,
        Kind::Exec => Some(load::bare_spawns(SPAWN_TIME).await?),
    };
    let count = f64::from(args.n);
    Ok(Report {
        tasks: args.n,
        kind: if args.kind == Kind::Noop { "noop" } else { "exec" },
        mode: if args.array { "array" } else { "single" },
        in_flight: if args.array { 1 } else { args.in_flight },
        tasks_per_s: count / figures.took.as_secs_f64(),
        ack_p50_ms: trips.ack_p50,
        rtt_p50_ms: trips.rtt_p50,
        rtt_p99_ms: trips.rtt_p99,
        fdatasync_p50_ms: pace.as_ref().map(|pace| pace.alone),
        fdatasync_p50_ms_3_writers: pace.as_ref().map(|pace| pace.three),
        cpu_us_per_task: spent.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / count),
        log_bytes_per_task: spent.log_bytes.map(|bytes| bytes / count),
        rss_mb: spent.rss_mb,
        fs: pace.map(|pace| pace.fs),
        tasks_by_node: names(client, &figures).await?,
        durability: args.durability.into(),
        nodes: client.stats().await?.nodes_online,
        spawn_per_s,
    })
}

fn request(kind: Kind) -> SubmitRequest {
    match kind {
        Kind::Noop => SubmitRequest { noop: true, ..SubmitRequest::default() },
        Kind::Exec => SubmitRequest { argv: vec!["true".into()], ..SubmitRequest::default() },
    }
}

async fn names(client: &Client, figures: &Figures) -> Result<std::collections::BTreeMap<String, u64>, Problem> {
    let nodes = client.nodes().await?;
    let name = |id| nodes.iter().find(|node| node.node == id).map_or_else(|| id.to_string(), |node| node.name.clone());
    Ok(figures.by_node.iter().map(|(id, count)| (name(*id), *count)).collect())
}

const fn means(durability: Durability) -> &'static str {
    match durability {
        Durability::Majority => "majority: fsynced on a majority of voters before each acknowledgement",
        Durability::Async => "async: in the leader's memory alone until soon after its end, and lost with the leader",
    }
}

fn show(report: &Report, out: Out) -> Outcome {
    out.either(report, |_| table(report))?;
    Ok(())
}

fn table(report: &Report) -> String {
    let ms = |value: Option<f64>| value.map_or_else(|| "not known".into(), |value| format!("{value:.3} ms"));
    let mut lines = vec![
        format!("{:<28}{} {} ({} mode, {} in flight)", "tasks", report.tasks, report.kind, report.mode, report.in_flight),
        format!("{:<28}{:.0}", "tasks a second", report.tasks_per_s),
        format!("{:<28}{:.3} ms", "acknowledged, p50", report.ack_p50_ms),
        format!("{:<28}{:.3} ms, p99 {:.3} ms", "round trip, p50", report.rtt_p50_ms, report.rtt_p99_ms),
        format!("{:<28}{}, three writers {}", "fdatasync, p50", ms(report.fdatasync_p50_ms), ms(report.fdatasync_p50_ms_3_writers)),
    ];
    if let Some(cpu) = report.cpu_us_per_task {
        lines.push(format!("{:<28}{cpu:.1} us, all daemons and the client", "CPU a task"));
    }
    if let Some(bytes) = report.log_bytes_per_task {
        lines.push(format!("{:<28}{bytes:.0} B a voter", "log a task"));
    }
    if let Some(spawns) = report.spawn_per_s {
        lines.push(format!("{:<28}{spawns:.0}", "bare spawns a second"));
    }
    let nodes: Vec<String> = report.tasks_by_node.iter().map(|(name, count)| format!("{name} {count}")).collect();
    lines.push(format!("{:<28}{}", "by node", nodes.join(", ")));
    lines.push(format!("{:<28}{}", "durability", means(report.durability)));
    lines.join("\n") + "\n"
}
