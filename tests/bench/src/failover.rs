//! `swarm-bench failover`: how long three real daemons on loopback are without what one of their processes did, when it is taken away.
//!
//! ```text
//!   leader killed     kill -9 of the daemon that leads -> the first write that was sent after it is acknowledged, at another node
//!   handover          `leader resign`                  -> the longest time in which no write was acknowledged
//!   host gone, hung   SIGKILL, SIGSTOP of a daemon, its keeper and its tasks -> the task's next attempt has begun elsewhere
//!   task killed       SIGKILL of the task's process    -> its end is at the client; or with a retry, the next attempt has begun
//!   calm              every core busy with tasks, and submissions without a pause -> leaders that were elected meanwhile
//! ```
//! A writer submits a no-op with a key every 2 ms, and all that it wrote has to be acknowledged in the end, once.

pub(crate) mod arena;
pub(crate) mod calm;
mod host;
mod writer;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde::Serialize;
use swarm_proto::{TaskId, Term, api::SubmitRequest, spec::Cause};

pub(crate) use self::host::pid;
use self::{
    arena::{Arena, Sleeper},
    calm::Calm,
    writer::{Write, Writer, silence},
};
use crate::{
    figures::{self, Figure, load},
    swarm::told,
};

/// Acknowledgements that show that writes are accepted.
const SHOWN: usize = 50;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often the leader is killed
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// How often it hands over
    #[arg(long, default_value_t = 20)]
    handovers: usize,
    /// How often a host goes, and how often one hangs
    #[arg(long, default_value_t = 5)]
    hosts: usize,
    /// How often a task's process is killed
    #[arg(long, default_value_t = 20)]
    tasks: usize,
    /// How long every core is kept busy, to see whether anybody stands for election
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    calm: u64,
    /// Fails where a figure is over its target by more than this factor
    #[arg(long, value_name = "FACTOR", num_args = 0..=1, default_missing_value = "1")]
    check: Option<f64>,
    /// Where the state goes: a real disk, because each acknowledgement waits for it
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// All figures.
#[derive(Serialize)]
pub(crate) struct Told {
    /// How busy the machine was when it began and when it ended, this included.
    load: [String; 2],
    figures: Vec<Figure>,
    /// Terms that killed leaders cost, each: more than one is a vote that nobody won.
    terms_a_kill: Vec<u64>,
    calm: Option<Calm>,
    /// What targets were multiplied by before they were checked.
    checked_by: Option<f64>,
}

/// Measures what was asked for.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Told> {
    let began = load();
    let mut arena = Arena::start(&options.dir).await?;
    let outcome = rounds(options, &mut arena).await;
    let calm = match (&outcome, options.calm) {
        (Ok(_), 1..) => Some(calm::watch(&mut arena, Duration::from_secs(options.calm)).await),
        (Ok(_) | Err(_), _) => None,
    };
    arena.swarm.stop().await;
    let (figures, terms_a_kill) = outcome?;
    Ok(Told { load: [began, load()], figures, terms_a_kill, calm: calm.transpose()?, checked_by: options.check })
}

async fn rounds(options: &Options, arena: &mut Arena) -> anyhow::Result<(Vec<Figure>, Vec<u64>)> {
    let mut figures = Vec::new();
    let mut add = |name: &str, samples: &[Duration], targets: &[(f64, f64)]| {
        if !samples.is_empty() {
            figures.push(Figure::new(name, samples, targets));
        }
    };
    let (mut led, mut gaps, mut terms) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..options.kills {
        let kill = kill_leader(arena).await.with_context(|| format!("kill {}", n + 1))?;
        led.push(kill.led);
        gaps.push(kill.gap);
        terms.push(kill.terms);
    }
    add("leader killed, another one leads", &led, &[]);
    add("leader killed, to the next commit", &gaps, &[(0.5, 500.0), (0.99, 800.0)]);
    let mut silent = [Vec::new(), Vec::new(), Vec::new()];
    for n in 0..options.handovers {
        let each = hand_over(arena).await.with_context(|| format!("handover {}", n + 1))?;
        silent.iter_mut().zip(each).for_each(|(all, one)| all.push(one));
    }
    add("writes as always, longest without a commit", &silent[0], &[]);
    add("leader asked to hand over, another one leads", &silent[2], &[]);
    add("leader hands over, without a commit", &silent[1], &[(1.0, 30.0)]);
    for (name, signal) in [("host gone, to its task elsewhere", Signal::KILL), ("host hung, to its task elsewhere", Signal::STOP)] {
        let mut took = Vec::new();
        for n in 0..options.hosts {
            took.push(take_host(arena, signal).await.with_context(|| format!("{name} {}", n + 1))?);
        }
        add(name, &took, &[(1.0, 2_500.0)]);
    }
    let (mut ends, mut again) = (Vec::new(), Vec::new());
    for n in 0..options.tasks {
        ends.push(kill_task(arena, false).await.with_context(|| format!("task {}", n + 1))?);
        again.push(kill_task(arena, true).await.with_context(|| format!("task {}", n + 1))?);
    }
    add("task's process killed, to its end at the client", &ends, &[(1.0, 100.0)]);
    add("task's process killed, to its next attempt", &again, &[(1.0, 100.0)]);
    Ok((figures, terms))
}

/// What a killed leader cost.
struct Kill {
    /// Until another node says that it leads.
    led: Duration,
    /// Until the first write that was sent afterwards was acknowledged.
    gap: Duration,
    /// How many terms later that was.
    terms: u64,
}

/// Kills the leader.
async fn kill_leader(arena: &mut Arena) -> anyhow::Result<Kill> {
    let name = arena.fresh("kill");
    let (leader, before) = arena.leader(0).await?;
    let client = arena.swarm.client(arena.other(leader));
    let mut writer = Writer::start(&client, name).await?;
    writer.next(SHOWN).await?;
    // not always at the same moment of a heartbeat
    tokio::time::sleep(Duration::from_millis(arena.round() as u64 * 7 % 50)).await;
    let clock = swarm_transport::machine_clock();
    let (at, wall) = (arena.kill(leader)?, clock());
    let first = writer.since(at, 1).await?;
    writer.next(SHOWN).await?;
    let after = client.status().await.map_err(told)?.term;
    writer.finish().await?;
    let led = arena.leads(after, leader).await?.0.saturating_sub(wall.0);
    arena.restart(leader).await?;
    Ok(Kill { led: Duration::from_millis(led), gap: first.acknowledged - at, terms: after.0 - before.0 })
}

/// The leader hands over: the longest time without a commit before it, and from then on; and until another one says that it leads.
async fn hand_over(arena: &mut Arena) -> anyhow::Result<[Duration; 3]> {
    let name = arena.fresh("handover");
    let (leader, before) = arena.leader(0).await?;
    let client = arena.swarm.client(arena.other(leader));
    let mut writer = Writer::start(&client, name).await?;
    writer.next(SHOWN).await?;
    let usual = Instant::now();
    writer.next(SHOWN).await?;
    let (at, wall) = (Instant::now(), swarm_transport::machine_clock()());
    client.resign().await.map_err(told)?;
    let (next, term) = await_term(arena, leader, before).await?;
    ensure!(next != leader, "the leader that resigned leads");
    let led = arena.leads(term, leader).await?.0.saturating_sub(wall.0);
    writer.next(SHOWN).await?;
    let writes = writer.finish().await?;
    let earlier: Vec<Write> = writes.iter().copied().filter(|write| write.acknowledged < at).collect();
    arena.whole().await?;
    Ok([silence(&earlier, usual), silence(&writes, at), Duration::from_millis(led)])
}

/// Waits until somebody leads in a later term than that; who it is.
async fn await_term(arena: &Arena, asked: usize, before: Term) -> anyhow::Result<(usize, Term)> {
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        match arena.leader(asked).await {
            Ok((leader, term)) if term > before => return Ok((leader, term)),
            Ok(_) | Err(_) => ensure!(Instant::now() < give_up, "nobody leads after {before:?}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// All processes of a host that does not lead get that signal; how long until its task has begun elsewhere.
async fn take_host(arena: &mut Arena, signal: Signal) -> anyhow::Result<Duration> {
    let (leader, _) = arena.leader(0).await?;
    let worker = arena.other(leader);
    let sleeper = arena.sleeper(worker, SubmitRequest::default()).await?;
    let processes = arena.processes(worker)?;
    let at = Instant::now();
    host::signal(&processes, signal);
    let begun = sleeper.attempts(2).await.map(|_| at.elapsed());
    if signal == Signal::STOP {
        host::signal(&processes, Signal::CONT);
    }
    let begun = begun?;
    arena.swarm.client(leader).cancel_job(sleeper.job).await.map_err(told)?;
    if signal == Signal::STOP {
        arena.whole().await?;
    } else {
        arena.restart(worker).await?;
    }
    Ok(begun)
}

/// Kills a task's process; how long until a client at another node knows its end, or with a retry until its next attempt has begun.
async fn kill_task(arena: &mut Arena, is_retried: bool) -> anyhow::Result<Duration> {
    let (leader, _) = arena.leader(0).await?;
    let worker = arena.other(leader);
    let retries = if is_retried { [(Cause::Signal, 1)].into() } else { [].into() };
    let sleeper: Sleeper = arena.sleeper(worker, SubmitRequest { retries, ..SubmitRequest::default() }).await?;
    let process = host::pid(sleeper.attempts(1).await?)?;
    let client = arena.swarm.client((0..arena::NODES).find(|n| ![leader, worker].contains(n)).unwrap_or(leader));
    // whoever waits is there before it happens
    let task = TaskId { job: sleeper.job, index: 0 };
    let waits = tokio::spawn({
        let client = client.clone();
        async move { client.wait_task(task, Duration::from_secs(60)).await.map(|view| (Instant::now(), view)) }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let at = Instant::now();
    host::signal(&[process], Signal::KILL);
    if !is_retried {
        let (known, view) = waits.await?.map_err(told)?;
        ensure!(view.exit_code() == 137, "the task ended otherwise: {view:?}");
        return Ok(known - at);
    }
    sleeper.attempts(2).await?;
    let begun = at.elapsed();
    client.cancel_job(sleeper.job).await.map_err(told)?;
    waits.await?.map_err(told)?;
    Ok(begun)
}

/// A table for people.
pub(crate) fn table(told: &Told) -> String {
    let mut text = figures::table(&told.figures);
    let votes = told.terms_a_kill.iter().filter(|terms| **terms > 1).count();
    if !told.terms_a_kill.is_empty() {
        text += &format!("{votes} of {} killed leaders cost more than one vote\n", told.terms_a_kill.len());
    }
    if let Some(calm) = &told.calm {
        text += &calm.line();
    }
    if let Some(factor) = told.checked_by.filter(|factor| *factor != 1.0) {
        text += &format!("checked against {factor} x each target: a figure that MISSED its target by less fails nothing\n");
    }
    text + &format!("busy when it began: {}; when it ended: {}\n", told.load[0], told.load[1])
}

/// Whether all is as it should be, give or take a factor.
pub(crate) fn check(options: &Options, told: &Told) -> anyhow::Result<()> {
    let Some(factor) = options.check else { return Ok(()) };
    let missed = figures::missed(&told.figures, factor);
    ensure!(missed.is_empty(), "over their targets by more than {factor} x: {}", missed.join("; "));
    ensure!(told.calm.as_ref().is_none_or(Calm::is_calm), "a leader was elected though none was lost");
    Ok(())
}
