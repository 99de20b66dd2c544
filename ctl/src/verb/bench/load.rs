//! The load itself, and its figures.

use std::{
    collections::BTreeMap,
    process::Command,
    time::{Duration, Instant},
};

use swarm_client::Client;
use swarm_proto::{
    Code, NodeId, Problem,
    api::{ArrayRequest, JobOutcome, SubmitLine, SubmitRequest},
    ledger::TaskState,
};

/// What a load came to.
pub(crate) struct Figures {
    pub(crate) took: Duration,
    pub(crate) by_node: BTreeMap<NodeId, u64>,
}

/// Times of single submissions, in milliseconds.
pub(crate) struct Trips {
    pub(crate) ack_p50: f64,
    pub(crate) rtt_p50: f64,
    pub(crate) rtt_p99: f64,
}

/// The value below which `part` of all lie.
pub fn percentile(values: &mut [f64], part: f64) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index within the slice")]
    let index = ((values.len() - 1) as f64 * part).round() as usize;
    values[index]
}

fn not_good(outcome: &JobOutcome) -> Problem {
    let end = outcome.task.as_ref().and_then(|task| task.end.clone());
    Problem::new(Code::Internal, format!("{} did not succeed", outcome.job), format!("it is {:?}: {end:?}", outcome.state))
}

fn ended_early() -> Problem {
    Problem::new(Code::UnknownOutcome, "the benchmark did not finish", "the daemon ended the stream of answers")
}

/// `n` submissions on one stream, at most `in_flight` of them unfinished.
pub(crate) async fn singles(client: &Client, request: &SubmitRequest, n: u32, in_flight: u32) -> Result<Figures, Problem> {
    let (mut sender, mut answers) = client.submit_stream().await?;
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(in_flight as usize));
    let began = Instant::now();
    let (request, room) = (request.clone(), slots.clone());
    let sending = tokio::spawn(async move {
        let mut request = request;
        for id in 0..n {
            let Ok(permit) = room.acquire().await else { break };
            permit.forget();
            request.id = id.to_string();
            sender.send(&request).await?;
        }
        sender.finish();
        Ok::<_, Problem>(())
    });
    let mut by_node = BTreeMap::new();
    let mut ended = 0;
    let mut lines = Vec::new();
    while ended < n {
        if answers.next_many(&mut lines).await? == 0 {
            return Err(ended_early());
        }
        let before = ended;
        for line in lines.drain(..) {
            match line {
                SubmitLine::Ended { outcome, .. } if outcome.state == TaskState::Succeeded => {
                    ended += 1;
                    if let Some(node) = outcome.task.and_then(|task| task.node) {
                        *by_node.entry(node).or_insert(0) += 1;
                    }
                }
                SubmitLine::Ended { outcome, .. } => return Err(not_good(&outcome)),
                SubmitLine::Refused { problem, .. } => return Err(problem),
                SubmitLine::Accepted { .. } | SubmitLine::Progress { .. } => {}
            }
        }
        slots.add_permits((ended - before) as usize);
    }
    let took = began.elapsed();
    sending.await.map_err(|e| Problem::new(Code::Internal, "the benchmark did not finish", e.to_string()))??;
    Ok(Figures { took, by_node })
}

/// One array of `n` tasks.
pub(crate) async fn array(client: &Client, request: &SubmitRequest, n: u32) -> Result<Figures, Problem> {
    let request = SubmitRequest { array: Some(ArrayRequest { first: 0, count: Some(n), ..ArrayRequest::default() }), ..request.clone() };
    let (mut sender, mut answers) = client.submit_stream().await?;
    let began = Instant::now();
    sender.send(&request).await?;
    sender.finish();
    while let Some(line) = answers.next().await? {
        match line {
            SubmitLine::Ended { outcome, .. } if outcome.state == TaskState::Succeeded => {
                let took = began.elapsed();
                return Ok(Figures { took, by_node: count_nodes(client, &outcome).await? });
            }
            SubmitLine::Ended { outcome, .. } => return Err(not_good(&outcome)),
            SubmitLine::Refused { problem, .. } => return Err(problem),
            SubmitLine::Accepted { .. } | SubmitLine::Progress { .. } => {}
        }
    }
    Err(ended_early())
}

async fn count_nodes(client: &Client, outcome: &JobOutcome) -> Result<BTreeMap<NodeId, u64>, Problem> {
    let mut by_node = BTreeMap::new();
    let mut after = None;
    loop {
        let query = swarm_client::TasksQuery { job: Some(outcome.job), after, ..swarm_client::TasksQuery::default() };
        let page = client.tasks(query).await?;
        let Some(last) = page.last() else { return Ok(by_node) };
        after = Some(last.task);
        for node in page.iter().filter_map(|task| task.node) {
            *by_node.entry(node).or_insert(0) += 1;
        }
    }
}

/// `n` submissions, each after the end of the one before it.
pub(crate) async fn one_at_a_time(client: &Client, request: &SubmitRequest, n: usize) -> Result<Trips, Problem> {
    let (mut sender, mut answers) = client.submit_stream().await?;
    let (mut acks, mut ends) = (Vec::with_capacity(n), Vec::with_capacity(n));
    for id in 0..n {
        let began = Instant::now();
        sender.send(&SubmitRequest { id: id.to_string(), ..request.clone() }).await?;
        loop {
            match answers.next().await?.ok_or_else(ended_early)? {
                SubmitLine::Accepted { .. } => acks.push(began.elapsed().as_secs_f64() * 1e3),
                SubmitLine::Ended { outcome, .. } if outcome.state == TaskState::Succeeded => break,
                SubmitLine::Ended { outcome, .. } => return Err(not_good(&outcome)),
                SubmitLine::Refused { problem, .. } => return Err(problem),
                SubmitLine::Progress { .. } => {}
            }
        }
        ends.push(began.elapsed().as_secs_f64() * 1e3);
    }
    sender.finish();
    Ok(Trips { ack_p50: percentile(&mut acks, 0.5), rtt_p50: percentile(&mut ends, 0.5), rtt_p99: percentile(&mut ends, 0.99) })
}

/// Processes a second that a bare loop a core starts and waits for.
pub(crate) async fn bare_spawns(time: Duration) -> Result<f64, Problem> {
    let failed = |why: String| Problem::new(Code::Internal, "bare spawning is not measured", why);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let loops = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let threads: Vec<_> = (0..cores).map(|_| std::thread::spawn(move || spawn_loop(time))).collect();
        let counts = threads.into_iter().map(|thread| thread.join().map_err(|_| "a loop panicked".to_owned())?.map_err(|e| e.to_string()));
        let sum = counts.sum::<Result<u32, String>>()?;
        Ok::<_, String>(f64::from(sum) / began.elapsed().as_secs_f64())
    });
    loops.await.map_err(|e| failed(e.to_string()))?.map_err(failed)
}

fn spawn_loop(time: Duration) -> std::io::Result<u32> {
    let end = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < end {
        Command::new("true").spawn()?.wait()?;
        count += 1;
    }
    Ok(count)
}
