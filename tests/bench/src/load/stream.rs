//! One client's stream of no-ops.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use swarm_client::Client;
use swarm_proto::{
    api::{SubmitLine, SubmitRequest},
    ledger::TaskState,
};

use crate::swarm::told;

/// How long no answer may come.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(1);

/// What a load at a given rate came to.
pub(super) struct Paced {
    /// From when a submission was due, sent or not, to its acknowledgement; in the order in which they were due.
    pub(super) acknowledged_ms: Vec<f64>,
    pub(super) per_s: f64,
}

fn noop() -> SubmitRequest {
    SubmitRequest { noop: true, ..SubmitRequest::default() }
}

/// One that no node can run, so that it waits for ever.
pub(super) fn waits() -> SubmitRequest {
    let nobody = BTreeMap::from([("nobody".to_owned(), "has this".to_owned())]);
    SubmitRequest { labels: nobody, follow: Some(false), ..noop() }
}

/// Submits for that long, as soon as earlier ones end; tasks a second.
pub(super) async fn closed(client: &Client, in_flight: u32, span: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let ended = window(client, &noop(), in_flight, has_ended, |_| began.elapsed() < span).await?;
    Ok(f64::from(ended) / began.elapsed().as_secs_f64())
}

/// Submits so many.
pub(super) async fn closed_count(client: &Client, in_flight: u32, tasks: u32) -> anyhow::Result<()> {
    window(client, &noop(), in_flight.min(tasks), has_ended, |sent| sent < tasks).await?;
    Ok(())
}

/// Submits so many that never end, and waits until all are accepted.
pub(super) async fn accepted_count(client: &Client, request: &SubmitRequest, jobs: u32) -> anyhow::Result<()> {
    window(client, request, jobs.min(1_000), is_accepted, |sent| sent < jobs).await?;
    Ok(())
}

/// Has `in_flight` submissions that are not done, as long as there are to be more. How many there were; all are done.
async fn window(
    client: &Client,
    request: &SubmitRequest,
    in_flight: u32,
    is_done: fn(&SubmitLine) -> anyhow::Result<bool>,
    is_more: impl Fn(u32) -> bool,
) -> anyhow::Result<u32> {
    let (mut sender, mut answers) = client.submit_stream().await.map_err(told)?;
    let (mut sent, mut done, mut lines) = (0, 0, Vec::new());
    loop {
        while sent - done < in_flight && is_more(sent) {
            sender.send(request).await.map_err(told)?;
            sent += 1;
        }
        if done == sent {
            sender.finish();
            return Ok(done);
        }
        let more = tokio::time::timeout(PATIENCE, answers.next_many(&mut lines)).await;
        let more = more.with_context(|| format!("of {sent} no-ops {done} were done, and then nothing came"))?;
        ensure!(more.map_err(told)? > 0, "the daemon ended the stream of answers");
        for line in lines.drain(..) {
            done += u32::from(is_done(&line)?);
        }
    }
}

/// Whether a job was accepted.
fn is_accepted(line: &SubmitLine) -> anyhow::Result<bool> {
    Ok(!has_ended(line)? && matches!(line, SubmitLine::Accepted { .. }))
}

/// Whether a task ended, which it has to do well.
fn has_ended(line: &SubmitLine) -> anyhow::Result<bool> {
    match line {
        SubmitLine::Ended { outcome, .. } => {
            ensure!(outcome.state == TaskState::Succeeded, "{} is {:?}", outcome.job, outcome.state);
            Ok(true)
        }
        SubmitLine::Refused { problem, .. } => Err(told(problem.clone())),
        SubmitLine::Accepted { .. } | SubmitLine::Progress { .. } => Ok(false),
    }
}

/// Submits at a rate, whatever becomes of earlier ones, as long as there are to be more, and waits for all.
pub(super) async fn paced(client: &Client, per_s: f64, is_more: impl Fn() -> bool + Send + 'static) -> anyhow::Result<Paced> {
    let (mut sender, mut answers) = client.submit_stream().await.map_err(told)?;
    let began = Instant::now();
    let due = move |id: u64| {
        #[expect(clippy::cast_precision_loss, reason = "a number of a submission")]
        let seconds = id as f64 / per_s;
        began + Duration::from_secs_f64(seconds)
    };
    let sending = tokio::spawn(async move {
        let (mut request, mut sent, mut ticks) = (noop(), 0, tokio::time::interval(TICK));
        while is_more() {
            ticks.tick().await;
            while due(sent) <= Instant::now() {
                request.id = sent.to_string();
                sender.send(&request).await?;
                sent += 1;
            }
        }
        sender.finish();
        Ok::<_, swarm_proto::Problem>(sent)
    });
    let (mut acknowledged, mut ended, mut lines) = (BTreeMap::new(), 0, Vec::new());
    // the stream ends when all have
    while tokio::time::timeout(PATIENCE, answers.next_many(&mut lines)).await.context("nothing came")?.map_err(told)? > 0 {
        let now = Instant::now();
        for line in lines.drain(..) {
            ended += u64::from(has_ended(&line)?);
            if let SubmitLine::Accepted { id, .. } = line {
                let id: u64 = id.parse().context("the daemon says an id that it was not given")?;
                acknowledged.insert(id, now.saturating_duration_since(due(id)).as_secs_f64() * 1e3);
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    let sent = sending.await?.map_err(told)?;
    ensure!(ended == sent && acknowledged.len() as u64 == sent, "of {sent} no-ops {} were accepted and {ended} ended", acknowledged.len());
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let per_s = ended as f64 / took;
    Ok(Paced { acknowledged_ms: acknowledged.into_values().collect(), per_s })
}
