//! Every route, through the client.

use std::time::Duration;

use swarm_client::{JobsQuery, TasksQuery};
use swarm_proto::{
    Code, Cursor, JobId, LogIndex, Millis, NodeId, Problem, TaskId,
    api::{ArrayRequest, Phase, SubmitRequest, Verdict},
    ledger::{Schedule, TaskState},
    limits,
};

use crate::{World, exec, soon, table::text};

async fn listed(world: &World, query: JobsQuery) -> Vec<u64> {
    world.client.jobs(query).await.unwrap().iter().map(|job| job.job.0).collect()
}

async fn listed_tasks(world: &World, query: TasksQuery) -> Vec<String> {
    world.client.tasks(query).await.unwrap().iter().map(|task| task.task.to_string()).collect()
}

#[tokio::test]
async fn jobs_are_listed_newest_first_in_pages() {
    let world = World::new();
    for argv in [["true"], ["hold"], ["true"], ["hold"]] {
        world.job(&argv).await;
    }
    assert_eq!(listed(&world, JobsQuery::default()).await, [4, 3, 2, 1]);
    assert_eq!(listed(&world, JobsQuery { before: Some(JobId(4)), limit: Some(2), open_only: false }).await, [3, 2]);
    assert_eq!(listed(&world, JobsQuery { open_only: true, ..JobsQuery::default() }).await, [4, 2]);
}

#[tokio::test]
async fn a_job_is_shown_cancelled_and_retried() {
    let world = World::new();
    let array = SubmitRequest { array: Some(ArrayRequest { first: 5, count: Some(3), ..ArrayRequest::default() }), ..exec("a", &["hold"]) };
    let job = world.client.submit(&array).await.unwrap().job;
    let view = world.client.job(job).await.unwrap();
    assert_eq!((view.submitter.as_str(), view.first, view.tasks, view.state), ("local", 5, 3, None));
    assert_eq!(view.spec.labels["os"], std::env::consts::OS);

    world.client.cancel_job(job).await.unwrap();
    let view = world.client.job(job).await.unwrap();
    assert_eq!((view.state, view.counts.cancelled), (Some(TaskState::Cancelled), 3));

    let again = world.client.retry_job(job, Some("once")).await.unwrap();
    assert!(again.is_new);
    assert_eq!(world.client.job(again.job).await.unwrap().retry_of, Some(job));
    let same = world.client.retry_job(job, Some("once")).await.unwrap();
    assert_eq!((same.job, same.is_new), (again.job, false));
    assert_eq!(world.client.job(JobId(99)).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn tasks_are_listed_by_job_state_and_place() {
    let world = World::new();
    world.job(&["true"]).await;
    let array = SubmitRequest { array: Some(ArrayRequest { count: Some(3), ..ArrayRequest::default() }), ..exec("a", &["hold"]) };
    let job = world.client.submit(&array).await.unwrap().job;
    assert_eq!(listed_tasks(&world, TasksQuery::default()).await, ["j1.0", "j2.0", "j2.1", "j2.2"]);
    let after = TasksQuery { job: Some(job), after: Some(TaskId { job, index: 0 }), limit: Some(1), ..TasksQuery::default() };
    assert_eq!(listed_tasks(&world, after).await, ["j2.1"]);
    let ended = TasksQuery { state: Some(TaskState::Succeeded), ..TasksQuery::default() };
    assert_eq!(listed_tasks(&world, ended).await, ["j1.0"]);
}

#[tokio::test]
async fn a_task_is_shown_explained_cancelled_and_retried() {
    let world = World::new();
    let task = world.task(&["hold"]).await;
    assert_eq!(world.client.task(task).await.unwrap().node, Some(NodeId(1)));
    let explain = world.client.explain(task).await.unwrap();
    assert_eq!((explain.verdict, explain.ahead), (Verdict::Running { node: NodeId(1) }, 3));
    world.client.cancel_task(task).await.unwrap();
    assert_eq!(world.client.task(task).await.unwrap().state, TaskState::Cancelled);
    assert!(world.client.retry_task(task, None).await.unwrap().is_new);
    let missing = TaskId { job: JobId(9), index: 1 };
    for problem in [world.client.explain(missing).await.unwrap_err(), world.client.cancel_task(missing).await.unwrap_err()] {
        assert_eq!((problem.code, problem.what.as_str()), (Code::NotFound, "there is no j9.1"));
    }
}

#[tokio::test]
async fn waiting_ends_with_the_job_or_with_its_time() {
    let world = World::new();
    let task = world.task(&["hold"]).await;
    let view = world.client.wait_job(task.job, Duration::from_millis(20)).await.unwrap();
    assert_eq!(view.state, None, "the time is over and the job is not");

    let (client, table) = (world.client.clone(), world.table.clone());
    let waiting = tokio::spawn(async move { client.wait_job(task.job, Duration::from_secs(3_000)).await });
    while table.0.state().recalls < 2 {
        tokio::task::yield_now().await;
    }
    table.0.end(task, TaskState::Failed);
    assert_eq!(soon(waiting).await.unwrap().unwrap().state, Some(TaskState::Failed));
    assert_eq!(soon(world.client.wait_job(task.job, Duration::from_secs(3_000))).await.unwrap().state, Some(TaskState::Failed));
    assert_eq!(soon(world.client.wait_task(task, Duration::from_secs(3_000))).await.unwrap().state, TaskState::Failed);
    assert_eq!(soon(world.client.wait_task(TaskId { index: 4, ..task }, Duration::ZERO)).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn a_result_is_the_whole_standard_output_of_an_ended_task() {
    let world = World::new();
    let (none, small) = (world.task(&["true"]).await, world.task(&["echo", "hello"]).await);
    let large = world.task(&["flood", "100000"]).await;
    let held = world.task(&["hold"]).await;
    assert_eq!(world.client.result(none).await.unwrap(), "");
    assert_eq!(world.client.result(small).await.unwrap(), "hello\n");
    assert_eq!(world.client.result(large).await.unwrap(), "x".repeat(100_000));
    assert_eq!(world.client.result(held).await.unwrap_err().code, Code::Conflict);
    assert_eq!(world.client.result(TaskId { index: 1, ..held }).await.unwrap_err().code, Code::NotFound);
    let view = world.client.task(small).await.unwrap();
    assert_eq!(text(&view.output.unwrap().stdout), "hello\n");
}

#[tokio::test]
async fn nodes_go_by_id_or_by_any_name() {
    let world = World::new();
    assert_eq!(world.client.nodes().await.unwrap().len(), 1);
    let name = world.client.node("n1").await.unwrap().name;
    assert_eq!(name, "one / first");
    assert_eq!(world.client.node(&name).await.unwrap().node, NodeId(1));
    for to in [Schedule::Cordoned, Schedule::Draining, Schedule::Open] {
        world.client.schedule(&name, to).await.unwrap();
        assert_eq!(world.client.node("n1").await.unwrap().schedule, to);
    }
    assert_eq!(world.client.schedule("nowhere", Schedule::Open).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn the_swarm_tells_of_itself() {
    let world = World::new();
    world.job(&["true"]).await;
    assert_eq!(world.client.leader().await.unwrap().warning, "alone");
    world.client.resign().await.unwrap();
    assert_eq!(world.table.0.state().resigned, 1);
    assert_eq!(world.client.stats().await.unwrap().jobs_ended, 1);
    assert_eq!(world.client.status().await.unwrap().phase, Phase::Ready);
    let seqs: Vec<u64> = world.client.node_events(1).await.unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [2, 3]);
    let page = world.client.event_page(None, Some(2)).await.unwrap();
    assert_eq!((page.begins, page.events.len()), (Cursor { index: LogIndex(1), sub: 0 }, 2));
    let rest = world.client.event_page(Some(page.events[1].cursor), None).await.unwrap();
    assert_eq!(rest.events.len(), 1);
}

#[tokio::test]
async fn health_readiness_and_figures_need_no_leader() {
    let world = World::new();
    world.client.healthy().await.unwrap();
    world.client.ready().await.unwrap();
    let text = world.client.metrics().await.unwrap();
    let lines = ["swarm_ready 1.0", "swarm_up_seconds 1.5", "swarm_blobs_given_bytes 7.0", "swarm_blobs_taken_bytes 8.0"];
    for line in lines.into_iter().chain(["swarm_tasks{state=\"succeeded\"} 5.0", "swarm_nodes 1.0", "# EOF"]) {
        assert!(text.lines().any(|l| l == line), "{line} is missing from\n{text}");
    }
    {
        let mut state = world.table.0.state();
        state.status.phase = Phase::Joining;
        state.status.trouble = "nobody answers".into();
        state.trouble = Some(Problem::new(Code::NoLeader, "there is no leader", "votes are out").retry_after(Millis(200)));
    }
    world.client.healthy().await.unwrap();
    let problem = world.client.ready().await.unwrap_err();
    assert_eq!((problem.code, problem.why.as_str()), (Code::NotReady, "nobody answers"));
    let text = world.client.metrics().await.unwrap();
    assert!(text.contains("swarm_ready 0.0") && !text.contains("swarm_nodes "), "{text}");
    assert_eq!(world.client.stats().await.unwrap_err().retry_after_ms, Some(200));
}

#[tokio::test]
async fn a_page_has_its_limits() {
    let world = World::new();
    let last = u32::try_from(limits::PAGE).unwrap();
    for (limit, passes) in [(0, false), (1, true), (last - 1, true), (last, true), (last + 1, false)] {
        let jobs = world.client.jobs(JobsQuery { limit: Some(limit), ..JobsQuery::default() }).await;
        let tasks = world.client.tasks(TasksQuery { limit: Some(limit), ..TasksQuery::default() }).await;
        let events = world.client.event_page(None, Some(limit)).await;
        assert_eq!((jobs.is_ok(), tasks.is_ok(), events.is_ok()), (passes, passes, passes), "{limit}");
    }
}
