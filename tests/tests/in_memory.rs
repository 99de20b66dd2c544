//! `--durability async` on real daemons: at once, shown wherever the job is shown, in the log once it has ended, and lost with its leader.

use std::time::Duration;

use swarm_client::JobsQuery;
use swarm_proto::{
    Code, JobId,
    api::{SubmitLine, SubmitRequest},
    ledger::{Event, TaskState, What},
    spec::{Durability, OnPartition},
};
use swarm_tests::{Rig, ctl, ended, eventually, first_task, shell, submit};

fn in_memory(request: SubmitRequest) -> SubmitRequest {
    SubmitRequest { durability: Some(Durability::Async), ..request }
}

/// Whether the log tells of the job's end.
fn is_recorded(rig: &Rig, n: usize, job: JobId) -> bool {
    let told = ctl(&rig.swarm.nodes()[n].socket, &["event", "list", "-o", "jsonl"]);
    let events =
        String::from_utf8_lossy(&told.stdout).lines().map(|line| serde_json::from_str(line).expect("an event")).collect::<Vec<Event>>();
    events.iter().any(|event| matches!(event.what, What::JobEnded { job: of, .. } if of == job))
}

async fn recorded(rig: &Rig, n: usize, job: JobId) {
    eventually("the log knows of it", async || is_recorded(rig, n, job).then_some(())).await;
}

#[tokio::test]
async fn a_job_in_memory_is_like_any_other_and_in_the_log_once_it_has_ended() {
    let rig = Rig::start(3).await;
    let leader = rig.leader(0).await;
    let other = (leader + 1) % 3;
    let client = rig.client(other);
    let open = submit(&client, in_memory(shell("sleep 60"))).await;
    let done = submit(&client, in_memory(shell("echo from memory; exit 3"))).await;
    let view = ended(&client, done).await;
    assert_eq!((view.state, view.spec.durability), (Some(TaskState::Failed), Durability::Async));
    let output = first_task(&client, done).await.output.expect("it wrote something");
    assert_eq!(output.stdout.into_bytes().expect("text"), b"from memory\n");
    recorded(&rig, other, done).await;

    let listed: Vec<JobId> = client.jobs(JobsQuery::default()).await.expect("a list").iter().map(|job| job.job).collect();
    assert_eq!(listed, [done, open], "each once");
    assert!(!is_recorded(&rig, other, open));
    assert_eq!(client.stats().await.expect("stats").jobs_open, 1);
    let shown = ctl(&rig.swarm.nodes()[other].socket, &["job", "show", &open.to_string()]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("async, lost with the leader"), "{shown}");

    client.cancel_job(open).await.expect("cancelled");
    assert_eq!(ended(&client, open).await.state, Some(TaskState::Cancelled));
    recorded(&rig, other, open).await;
    rig.swarm.stop().await;
}

#[tokio::test]
async fn it_is_lost_with_its_leader_and_who_waits_is_told() {
    let mut rig = Rig::start(3).await;
    let leader = rig.leader(0).await;
    let other = (leader + 1) % 3;
    let client = rig.client(other);
    // what ended before is in the log, and stays
    let kept = submit(&client, in_memory(shell("true"))).await;
    ended(&client, kept).await;
    recorded(&rig, other, kept).await;
    let (mut sender, mut answers) = client.submit_stream().await.expect("a stream");
    sender.send(&in_memory(SubmitRequest { id: "x".into(), ..shell("sleep 60") })).await.expect("sent");
    let Some(Ok(SubmitLine::Accepted { job: lost, .. })) = answers.next().await.transpose() else { panic!("not accepted") };
    rig.swarm.kill(leader).await.expect("killed");
    let told = loop {
        match answers.next().await.expect("answers").expect("more answers") {
            SubmitLine::Refused { problem, .. } => break problem,
            SubmitLine::Progress { .. } => {}
            other @ (SubmitLine::Accepted { .. } | SubmitLine::Ended { .. }) => panic!("{other:?}"),
        }
    };
    assert_eq!(told.code, Code::NotFound, "{told}");
    assert!(told.to_string().contains("--durability async"), "{told}");
    let gone = client.job(lost).await.expect_err("nobody knows it");
    assert!(gone.code == Code::NotFound && gone.to_string().contains("--durability async"), "{gone}");
    assert_eq!(client.job(kept).await.expect("in the log").state, Some(TaskState::Succeeded));
    // nothing of it goes on running, and its number is not given again
    let is_idle = async || client.stats().await.ok().filter(|stats| stats.tasks_running == 0 && stats.tasks_assigned == 0);
    eventually("its attempt is killed", is_idle).await;
    for request in [shell("true"), in_memory(shell("true"))] {
        let next = submit(&client, request).await;
        assert!(next > lost, "{next} after {lost}");
        assert_eq!(ended(&client, next).await.state, Some(TaskState::Succeeded));
    }
    rig.swarm.stop().await;
}

#[tokio::test]
async fn what_needs_the_log_is_refused() {
    let rig = Rig::start(1).await;
    let client = rig.client(0);
    let refused = async |request: SubmitRequest| client.submit(&in_memory(request)).await.expect_err("refused");
    for request in
        [SubmitRequest { at_most_once: true, ..shell("true") }, SubmitRequest { on_partition: Some(OnPartition::Stop), ..shell("true") }]
    {
        let problem = refused(request).await;
        assert_eq!((problem.code, problem.to_string().contains("needs a majority")), (Code::BadRequest, true), "{problem}");
    }
    let array = swarm_proto::api::ArrayRequest { count: Some(swarm_proto::limits::ASYNC_TASKS + 1), ..Default::default() };
    let problem = refused(SubmitRequest { array: Some(array), ..shell("true") }).await;
    assert!(problem.to_string().contains("an array is one entry of the log"), "{problem}");
    tokio::time::timeout(Duration::from_secs(30), client.submit(&in_memory(shell("true")))).await.expect("in time").expect("taken");
    rig.swarm.stop().await;
}
