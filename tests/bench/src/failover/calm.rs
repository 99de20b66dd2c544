//! Every core busy with tasks and submissions without a pause: whether anybody stands for election although nobody is gone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use swarm_client::Client;
use swarm_proto::{
    Term,
    api::{SubmitLine, SubmitRequest},
};

use super::{
    arena::{Arena, NODES},
    writer::Writer,
};
use crate::{
    figures::Figure,
    swarm::{alarms, told},
};

/// No-ops that are submitted and have not ended, besides those of the writer.
const IN_FLIGHT: usize = 256;
/// How long no answer at all may come.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was seen.
#[derive(Serialize)]
pub(crate) struct Calm {
    seconds: f64,
    /// Tasks that each keep a core busy.
    busy: usize,
    /// No-ops that ended, each second.
    tasks_s: f64,
    /// The first leader's term and the last one's: the same, if nobody was elected.
    terms: [u64; 2],
    /// How often a node took another one for down, or suspected it.
    downs: usize,
    suspects: usize,
    /// From a write's sending to its acknowledgement.
    writes: Figure,
}

/// Keeps all busy for that long.
pub(crate) async fn watch(arena: &mut Arena, span: Duration) -> anyhow::Result<Calm> {
    arena.whole().await?;
    let (leader, before) = arena.leader(0).await?;
    let client = arena.swarm.client(arena.other(leader));
    let busy = every_core();
    let spins = spin(arena, &client, busy).await?;
    let (downs, suspects) = alarms((0..NODES).map(|n| arena.swarm.client(n))).await?;
    let name = arena.fresh("calm");
    let writer = Writer::start(&client, name).await?;
    let began = Instant::now();
    let ended = match flood(&client, began + span).await {
        Ok(ended) => ended,
        // it was not calm: what the daemons say of it goes with them
        Err(error) => return Err(error.context(format!("after {:.0?}; {}", began.elapsed(), last_words(arena).await))),
    };
    let seconds = began.elapsed().as_secs_f64();
    let writes = writer.finish().await?;
    let (_, after): (usize, Term) = arena.leader(0).await?;
    let (downs_after, suspects_after) = alarms((0..NODES).map(|n| arena.swarm.client(n))).await?;
    client.cancel_job(spins).await.map_err(told)?;
    let took: Vec<Duration> = writes.iter().map(|write| write.acknowledged - write.sent).collect();
    ensure!(!took.is_empty(), "nothing was written");
    Ok(Calm {
        seconds,
        busy,
        tasks_s: per_second(ended, seconds),
        terms: [before.0, after.0],
        downs: downs_after - downs,
        suspects: suspects_after - suspects,
        writes: Figure::new("a write meanwhile", &took, &[]),
    })
}

impl Calm {
    /// Whether nobody was elected.
    pub(crate) const fn is_calm(&self) -> bool {
        self.terms[0] == self.terms[1]
    }

    /// For people.
    pub(crate) fn line(&self) -> String {
        let Self { seconds, busy, tasks_s, terms, downs, suspects, writes } = self;
        let verdict = if self.is_calm() { "met" } else { "MISSED" };
        format!(
            "{seconds:.0} s of {busy} busy tasks and {tasks_s:.0} no-ops/s: {} elections (should be 0: {verdict}), {downs} down, \
             {suspects} suspected\n{}",
            terms[1] - terms[0],
            crate::figures::table(std::slice::from_ref(writes))
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_second(count: usize, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// How many spinning tasks keep all cores of all nodes busy: each node thinks that it has all, so that each core is wanted by all of them.
pub(crate) fn every_core() -> usize {
    NODES * std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Tasks that each keep a core busy, on all nodes; the job that they are.
pub(crate) async fn spin(arena: &mut Arena, client: &Client, count: usize) -> anyhow::Result<swarm_proto::JobId> {
    let array = Some(swarm_proto::api::ArrayRequest { count: Some(u32::try_from(count)?), ..Default::default() });
    let argv = ["sh", "-c", "while :; do :; done"].map(str::to_owned).to_vec();
    let key = Some(arena.fresh("spin"));
    let request = SubmitRequest { argv, key, array, cores: Some(1.0), follow: Some(false), ..SubmitRequest::default() };
    let job = client.submit(&request).await.map_err(told)?.job;
    let give_up = Instant::now() + Duration::from_secs(30);
    while client.stats().await.map_err(told)?.tasks_running < count as u64 {
        ensure!(Instant::now() < give_up, "not {count} tasks run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(job)
}

/// Submits no-ops until then, [`IN_FLIGHT`] at a time; how many ended.
async fn flood(client: &Client, until: Instant) -> anyhow::Result<usize> {
    let (mut sender, mut answers) = client.submit_stream().await.map_err(told)?;
    let noop = SubmitRequest { noop: true, ..SubmitRequest::default() };
    for _ in 0..IN_FLIGHT {
        sender.send(&noop).await.map_err(told)?;
    }
    let (mut sent, mut accepted, mut ended) = (IN_FLIGHT, 0, 0);
    let (mut lines, mut sender) = (Vec::new(), Some(sender));
    loop {
        let more = tokio::time::timeout(PATIENCE, answers.next_many(&mut lines)).await;
        let silent =
            || format!("of {sent} no-ops {accepted} were accepted and {ended} ended, and then nothing came for {} s", PATIENCE.as_secs());
        if more.with_context(silent)?.map_err(told)? == 0 {
            break;
        }
        for line in lines.drain(..) {
            match line {
                SubmitLine::Refused { problem, .. } => return Err(told(problem)),
                SubmitLine::Accepted { .. } => accepted += 1,
                SubmitLine::Progress { .. } => {}
                SubmitLine::Ended { .. } => {
                    ended += 1;
                    if Instant::now() >= until {
                        sender = None;
                    }
                    if let Some(sender) = &mut sender {
                        sender.send(&noop).await.map_err(told)?;
                        sent += 1;
                    }
                }
            }
        }
    }
    ensure!(ended == sent, "of {sent} no-ops {ended} ended");
    Ok(ended)
}

/// What each node said last.
async fn last_words(arena: &Arena) -> String {
    let mut text = String::new();
    for n in 0..NODES {
        let events = arena.swarm.client(n).node_events(0).await.unwrap_or_default();
        let last: Vec<String> = events.iter().rev().take(12).rev().map(|event| format!("{} {}", event.at.0, event.text)).collect();
        text += &format!("{}: {}\n", arena.swarm.nodes()[n].name, last.join("; "));
    }
    text
}
