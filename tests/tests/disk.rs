//! Disks that fail under real daemons. The kernel's answers are changed by `strace`, one system call at a time, so that everything
//! above it is the product as it ships.

use std::time::{Duration, Instant};

use swarm_client::Client;
use swarm_proto::{Code, JobId, Term, api::SubmitRequest, ledger::TaskState};
use swarm_tests::{Fault, How, Rig, ended, eventually, log_files, submit};

/// One call on the files of a node's log.
fn on_log(rig: &Rig, n: usize, call: &str, how: &How) -> Option<Fault> {
    let node = &rig.swarm.nodes()[n];
    Fault::inject(node.pid, &log_files(&rig.swarm.dir().join(&node.name)), call, how)
}

#[tokio::test]
async fn a_full_disk_stops_acknowledging_and_recovers() {
    let mut rig = Rig::start(3).await;
    let leader = rig.leader(0).await;
    let client = rig.client(leader);
    let before = submit(&client, SubmitRequest { noop: true, ..SubmitRequest::default() }).await;
    let faults: Vec<_> = (0..3).map(|n| on_log(&rig, n, "write", &How::Fails("ENOSPC"))).collect();
    if faults.iter().any(Option::is_none) {
        return rig.swarm.stop().await;
    }
    let waiting = tokio::spawn({
        let client = rig.client(leader);
        // a leader that loses its place meanwhile cannot say what became of it; with its key it is asked again, and accepted once
        let request = SubmitRequest { key: Some("full".into()), noop: true, ..SubmitRequest::default() };
        async move {
            loop {
                match client.submit(&request).await {
                    Ok(accepted) => break accepted.job,
                    Err(problem) if matches!(problem.code, Code::UnknownOutcome | Code::NoLeader) => {}
                    Err(problem) => panic!("{problem}"),
                }
            }
        }
    });
    for n in 0..3 {
        let client = rig.client(n);
        eventually("the daemon says that its disk is full", async || {
            client.status().await.ok().filter(|status| status.trouble.contains("no room"))
        })
        .await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!waiting.is_finished(), "acknowledged without a majority of disks");
    assert_eq!(client.job(before).await.expect("still read").state, Some(TaskState::Succeeded));
    drop(faults);
    let after = waiting.await.expect("accepted once there is room");
    assert_eq!(ended(&client, after).await.state, Some(TaskState::Succeeded));
    let exit = tokio::time::timeout(Duration::from_millis(500), rig.swarm.next_exit()).await;
    assert!(exit.is_err(), "a daemon ended: {exit:?}");
    rig.swarm.stop().await;
}

#[tokio::test]
async fn a_disk_that_does_not_sync_ends_the_daemon() {
    let mut rig = Rig::start(3).await;
    let leader = rig.leader(0).await;
    let Some(fault) = on_log(&rig, leader, "fdatasync", &How::Fails("EIO")) else {
        return rig.swarm.stop().await;
    };
    let client = rig.client((leader + 1) % 3);
    // that leader cannot say what became of it; with its key it is asked again, and accepted once
    let request = SubmitRequest { key: Some("eio".into()), noop: true, ..SubmitRequest::default() };
    let job = eventually("the others accept it", async || client.submit(&request).await.ok()).await.job;
    let (name, how) = rig.swarm.next_exit().await.expect("a daemon ends");
    drop(fault);
    assert_eq!(rig.position(&name), leader);
    assert!(!how.contains("signal"), "{how}");
    let log = std::fs::read_to_string(rig.swarm.log_of(&name)).expect("a log");
    assert!(log.contains("error:") && log.contains("try:"), "{log}");
    assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded), "the others go on");
    rig.swarm.restart(leader).expect("started again");
    let restarted = rig.client(leader);
    assert_eq!(eventually("it is back", async || restarted.job(job).await.ok()).await.state, Some(TaskState::Succeeded));
    rig.swarm.stop().await;
}

/// Who leads, in which term, as a node sees it.
async fn leads(client: &Client) -> (String, Term) {
    let leader = client.leader().await.expect("a leader");
    (leader.name, leader.term)
}

fn noop() -> SubmitRequest {
    SubmitRequest { noop: true, ..SubmitRequest::default() }
}

/// Submits until it is accepted, with one key; the job and how long that took.
async fn accepted(client: &Client, key: &str) -> (JobId, Duration) {
    let began = Instant::now();
    let request = SubmitRequest { key: Some(key.into()), ..noop() };
    let job = eventually("it is accepted", async || client.submit(&request).await.ok()).await.job;
    (job, began.elapsed())
}

#[tokio::test]
async fn a_disk_that_takes_two_seconds_for_a_sync_is_tolerated() {
    let mut rig = Rig::start(3).await;
    let leader = rig.leader(0).await;
    let client = rig.client(leader);
    let before = leads(&client).await;
    let Some(fault) = on_log(&rig, leader, "fdatasync", &How::Late(Duration::from_secs(2))) else {
        return rig.swarm.stop().await;
    };
    let began = Instant::now();
    let mut last = None;
    while began.elapsed() < Duration::from_secs(7) {
        // the others are a majority, and nobody waits for this disk
        let (job, took) = accepted(&client, &format!("slow-{:?}", began.elapsed())).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        last = Some(job);
    }
    assert_eq!(leads(&client).await, before, "leadership moved");
    assert_eq!(client.status().await.expect("up").trouble, "");
    drop(fault);
    assert_eq!(ended(&client, last.expect("some")).await.state, Some(TaskState::Succeeded));
    assert!(tokio::time::timeout(Duration::from_millis(100), rig.swarm.next_exit()).await.is_err());
    rig.swarm.stop().await;
}

#[tokio::test]
async fn a_leader_whose_disk_stalls_for_more_than_three_seconds_leads_no_more_and_one_that_stalls_for_twenty_ends() {
    let mut rig = Rig::start(3).await;
    let leader = rig.leader(0).await;
    let other = rig.client((leader + 1) % 3);
    let (name, term) = leads(&other).await;
    let Some(fault) = on_log(&rig, leader, "fdatasync", &How::Late(Duration::from_secs(60))) else {
        return rig.swarm.stop().await;
    };
    let began = Instant::now();
    let (first, _) = accepted(&other, "first").await;
    let moved = eventually("somebody else leads", async || other.leader().await.ok().filter(|now| now.name != name)).await;
    let took = began.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(10), "{took:?}");
    assert!(moved.term > term);
    let (second, took) = accepted(&other, "second").await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    let slow = rig.client(leader);
    let trouble = slow.status().await.expect("it is still up").trouble;
    assert!(trouble.contains("busy with one write for"), "{trouble}");
    // and at the end of patience
    let path = rig.swarm.log_of(&name);
    eventually("it gives up", async || {
        let log = std::fs::read_to_string(&path).expect("a log");
        (log.contains("why: the log's disk has not answered for 20 s") && log.contains("try:")).then_some(())
    })
    .await;
    let took = began.elapsed();
    assert!(took > Duration::from_secs(19) && took < Duration::from_secs(40), "{took:?}");
    // the thread that waits for the disk is held by its tracer until then
    drop(fault);
    let (gone, how) = rig.swarm.next_exit().await.expect("a daemon ends");
    assert_eq!((rig.position(&gone), how.contains("signal")), (leader, false), "{how}");
    for job in [first, second] {
        assert_eq!(ended(&other, job).await.state, Some(TaskState::Succeeded));
    }
    rig.swarm.restart(leader).expect("started again");
    let restarted = rig.client(leader);
    assert_eq!(eventually("it is back", async || restarted.job(second).await.ok()).await.state, Some(TaskState::Succeeded));
    rig.swarm.stop().await;
}

#[tokio::test]
async fn a_disk_that_is_slow_for_eight_seconds_gets_its_node_back_as_a_voter() {
    let mut rig = Rig::start(3).await;
    let leader = rig.leader(0).await;
    let (client, other) = (rig.client(leader), rig.client((leader + 1) % 3));
    let (name, _) = leads(&other).await;
    let Some(fault) = on_log(&rig, leader, "fdatasync", &How::Late(Duration::from_secs(8))) else {
        return rig.swarm.stop().await;
    };
    accepted(&other, "first").await;
    eventually("somebody else leads", async || other.leader().await.ok().filter(|now| now.name != name)).await;
    drop(fault);
    eventually("its disk answers again", async || client.status().await.ok().filter(|status| status.trouble.is_empty() && status.is_voter))
        .await;
    let (job, _) = accepted(&client, "second").await;
    assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded));
    assert!(tokio::time::timeout(Duration::from_millis(100), rig.swarm.next_exit()).await.is_err());
    rig.swarm.stop().await;
}
