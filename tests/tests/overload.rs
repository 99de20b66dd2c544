//! More than there is room for: a client that never reads its answers, a task that never stops printing. Both get what is theirs, in a
//! bounded part of their hosts, and others are served meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use swarm_client::Client;
use swarm_proto::{
    Code, JobId,
    api::{ArrayRequest, SubmitLine, SubmitRequest, Text},
    ledger::TaskState,
};
use swarm_tests::{Footprints, Rig, ended, eventually, first_task, say, shell, submit};

const MIB: u64 = 1 << 20;
/// Submissions of one flood; they are fewer than the jobs that are remembered when they have ended, and take longer than a window.
const MOST: u32 = 60_000;
/// How long somebody's rate is counted at a time, and how often in calm and beside a flood.
const WINDOW: Duration = Duration::from_millis(500);
/// Between two submissions of somebody who has a rate: about as fast as one after the other is done in calm.
const TICK: Duration = Duration::from_millis(2);
const WINDOWS: usize = 5;

fn noop() -> SubmitRequest {
    SubmitRequest { noop: true, ..SubmitRequest::default() }
}

/// Submits without end and reads nothing until it is told to stop; then reads it all. What was accepted, by id, and how much was not.
async fn flood(client: Client, most: u32, mut stop: tokio::sync::watch::Receiver<bool>) -> (u32, BTreeMap<String, JobId>, u32) {
    let (mut sender, mut answers) = client.submit_stream().await.expect("a stream");
    let mut sent = 0;
    while sent < most && !*stop.borrow_and_update() {
        sender.send(&SubmitRequest { id: sent.to_string(), follow: Some(false), ..noop() }).await.expect("taken");
        sent += 1;
    }
    sender.finish();
    let (mut accepted, mut refused) = (BTreeMap::new(), 0);
    while let Some(line) = answers.next().await.expect("an answer") {
        match line {
            SubmitLine::Accepted { id, job, .. } => drop(accepted.insert(id, job)),
            SubmitLine::Refused { problem, .. } => {
                assert_eq!(problem.code, Code::Busy, "{problem}");
                refused += 1;
            }
            SubmitLine::Progress { .. } | SubmitLine::Ended { .. } => {}
        }
    }
    (sent, accepted, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_submits_without_reading_loses_nothing_and_others_are_served() {
    let rig = Rig::start(3).await;
    let (greedy, honest) = (rig.client(0), rig.client(1));
    let before = Footprints::of(rig.swarm.nodes().iter().map(|node| node.pid));
    let (mut calm, mut flooded, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    // in turn, so that both see the same host; the first of each is for whatever is done once
    for _ in 0..=WINDOWS {
        calm.push(rate(&honest).await);
        let (stop, told) = tokio::sync::watch::channel(false);
        let flooding = tokio::spawn(flood(greedy.clone(), MOST, told));
        flooded.push(rate(&honest).await);
        stop.send_replace(true);
        let (all, accepted, refused) = flooding.await.expect("it reads to the end");
        are_answered(&honest, all, &accepted, refused).await;
        sent.push(all);
    }
    let said = format!("{calm:?} jobs in calm, {flooded:?} beside one who submits {sent:?}");
    say(&said);
    let median = |counts: &mut Vec<u32>| *counts[1..].select_nth_unstable(WINDOWS / 2).1;
    let (calm, flooded) = (median(&mut calm), median(&mut flooded));
    assert!(calm > 20 && 2 * flooded >= calm, "{said}: medians {calm} and {flooded}");
    before.have_grown_at_most(256 * MIB, 32);
    rig.swarm.stop().await;
}

/// Submits at a rate of its own, whatever was answered so far; how much is accepted in a window.
async fn rate(client: &Client) -> u32 {
    let (mut sender, mut answers) = client.submit_stream().await.expect("a stream");
    let (mut tick, mut accepted) = (tokio::time::interval(TICK), 0);
    let over = tokio::time::sleep(WINDOW);
    tokio::pin!(over);
    loop {
        tokio::select! {
            _ = tick.tick() => sender.send(&SubmitRequest { follow: Some(false), ..noop() }).await.expect("taken"),
            line = answers.next() => accepted += u32::from(matches!(line, Ok(Some(SubmitLine::Accepted { .. })))),
            () = &mut over => return accepted,
        }
    }
}

/// Those that were acknowledged are all there, and are done; the last ones are the likeliest to be missing.
async fn are_answered(client: &Client, sent: u32, accepted: &BTreeMap<String, JobId>, refused: u32) {
    assert_eq!(sent, u32::try_from(accepted.len()).expect("few") + refused, "each has one answer");
    let jobs: BTreeSet<JobId> = accepted.values().copied().collect();
    assert_eq!(jobs.len(), accepted.len(), "a job was told twice");
    for job in jobs.iter().rev().take(50) {
        assert_eq!(ended(client, *job).await.state, Some(TaskState::Succeeded));
    }
}

/// Pids in the locks of keepers below a directory.
fn keepers(dir: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            } else if entry.file_name() == "keeper.lock" {
                found.extend(fs::read_to_string(entry.path()).ok().and_then(|pid| pid.trim().parse::<u32>().ok()));
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_prints_without_end_costs_its_node_a_bounded_part() {
    let rig = Rig::start(1).await;
    let client = rig.client(0);
    let first = submit(&client, shell("true")).await;
    ended(&client, first).await;
    let keeper = *keepers(rig.swarm.dir()).first().expect("a keeper has begun");
    let before = Footprints::of([rig.swarm.nodes()[0].pid, keeper]);
    let endless = submit(&client, SubmitRequest { timeout_ms: Some(4_000), ..shell("exec yes without-end") }).await;
    eventually("it runs", async || first_task(&client, endless).await.running.then_some(())).await;
    let mut beside = 0;
    while !first_task(&client, endless).await.state.is_terminal() {
        let job = submit(&client, shell("echo here")).await;
        assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded));
        let said = first_task(&client, job).await.output.expect("it printed").stdout;
        assert_eq!(said, Text::Utf8("here\n".into()));
        beside += 1;
        before.have_grown_at_most(32 * MIB, 64);
    }
    assert!(beside >= 3, "{beside} tasks got through beside it");
    let output = first_task(&client, endless).await.output.expect("it printed");
    assert!(matches!(&output.stdout, Text::Utf8(text) if text.starts_with("without-end\n")), "{output:?}");
    rig.swarm.stop().await;
}

#[tokio::test]
async fn what_asks_for_nothing_runs_where_every_core_is_taken() {
    let rig = Rig::start(1).await;
    let client = rig.client(0);
    let cores = std::thread::available_parallelism().expect("a number").get();
    let array = Some(ArrayRequest { count: Some(u32::try_from(cores).expect("few")), ..ArrayRequest::default() });
    let long = submit(&client, SubmitRequest { array, cores: Some(1.0), ..shell("exec sleep 3600") }).await;
    let is_full = async || (client.stats().await.ok()?.tasks_running == cores as u64).then_some(());
    eventually("every core is taken", is_full).await;
    let small = submit(&client, noop()).await;
    let view = tokio::time::timeout(Duration::from_secs(30), ended(&client, small)).await.expect("it does not wait for a core");
    assert_eq!(view.counts.succeeded, 1, "{view:?}");
    client.cancel_job(long).await.expect("cancelled");
    rig.swarm.stop().await;
}
