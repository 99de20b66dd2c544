//! Real daemons that are killed, stopped and started again, with tasks under way. What was acknowledged ends exactly once; an
//! outside witness, a file that each attempt appends to, says how often something ran.

use std::{
    collections::BTreeMap,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use swarm_client::Client;
use swarm_proto::{
    JobId,
    api::{SubmitLine, SubmitRequest},
    ledger::TaskState,
    spec::OnPartition,
};
use swarm_tests::{Hosts, Rig, ended, eventually, first_task, program, shell, submit};

/// Lines of a witness file.
fn witness(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Three daemons, a leader, another node as the worker that comes to harm, and a witness file.
struct Scene {
    rig: Rig,
    leader: usize,
    worker: usize,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Self {
        let rig = Rig::start(3).await;
        let leader = rig.leader(0).await;
        let dir = tempfile::tempdir().expect("a directory");
        Self { rig, leader, worker: (leader + 1) % 3, path: dir.path().join("witness"), _dir: dir }
    }

    /// A shell job that only the worker may run.
    fn pinned(&self, script: &str) -> SubmitRequest {
        SubmitRequest { labels: [("dev".to_owned(), (self.worker + 1).to_string())].into(), ..shell(script) }
    }

    /// Submits such a job and waits until the worker runs it.
    async fn start_pinned(&self, request: SubmitRequest) -> JobId {
        let job = submit(&self.client(), request).await;
        assert_eq!(self.rig.node_of(self.leader, job).await, self.worker);
        job
    }

    /// A client of the leader.
    fn client(&self) -> Client {
        self.rig.client(self.leader)
    }
}

#[tokio::test]
async fn every_acknowledged_job_survives_the_leader() {
    let mut rig = Rig::start(3).await;
    let leader = rig.leader(0).await;
    let client = rig.client((leader + 1) % 3);
    let (mut sender, mut answers) = client.submit_stream().await.expect("a stream");
    let count = 600;
    let sending = tokio::spawn(async move {
        for n in 0..count {
            let request = SubmitRequest { id: n.to_string(), key: Some(format!("survivor-{n}")), noop: true, ..SubmitRequest::default() };
            sender.send(&request).await.expect("the stream takes it");
            if n % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let (mut accepted, mut ends) = (BTreeMap::new(), BTreeMap::<String, u32>::new());
    let mut is_killed = false;
    while ends.len() < count {
        match answers.next().await.expect("answers").expect("more answers") {
            SubmitLine::Accepted { id, job, .. } => {
                accepted.insert(id, job);
            }
            SubmitLine::Ended { id, outcome } => {
                assert!(swarm_tests::is_good(&outcome), "{outcome:?}");
                *ends.entry(id).or_default() += 1;
            }
            SubmitLine::Refused { id, problem } => panic!("{id}: {problem}"),
            SubmitLine::Progress { .. } => {}
        }
        if !is_killed && ends.len() > count / 3 {
            is_killed = true;
            rig.swarm.kill(leader).await.expect("killed");
        }
    }
    sending.await.expect("sent");
    assert_eq!(accepted.len(), count);
    assert!(ends.values().all(|times| *times == 1), "a job ended twice");
    assert_eq!(accepted.values().collect::<std::collections::BTreeSet<_>>().len(), count, "two keys made one job");
    rig.swarm.stop().await;
}

#[tokio::test]
async fn a_handover_is_not_the_business_of_whoever_submits_with_a_key() {
    let rig = Rig::start(3).await;
    let leader = rig.leader(0).await;
    let client = rig.client((leader + 1) % 3);
    let (mut sender, mut answers) = client.submit_stream().await.expect("a stream");
    let (count, resigns) = (900, client.clone());
    let sending = tokio::spawn(async move {
        for n in 0..count {
            let key = Some(format!("handover-{n}"));
            let request = SubmitRequest { id: n.to_string(), key, noop: true, follow: Some(false), ..SubmitRequest::default() };
            sender.send(&request).await.expect("the stream takes it");
            tokio::time::sleep(Duration::from_millis(1)).await;
            if n % 300 == 150 {
                // asked of a node that does not lead, or of the one that does
                resigns.resign().await.expect("somebody else leads");
            }
        }
    });
    let mut accepted = std::collections::BTreeSet::new();
    while accepted.len() < count {
        match answers.next().await.expect("answers").expect("more answers") {
            SubmitLine::Accepted { job, .. } => assert!(accepted.insert(job), "two keys made one job"),
            SubmitLine::Refused { id, problem } => panic!("{id}: {problem}"),
            SubmitLine::Progress { .. } | SubmitLine::Ended { .. } => {}
        }
    }
    sending.await.expect("sent");
    rig.swarm.stop().await;
}

#[tokio::test]
async fn a_submitter_that_is_killed_loses_nothing_that_was_acknowledged() {
    let rig = Rig::start(3).await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("witness");
    let said = dir.path().join("said");
    let socket = rig.swarm.nodes()[1].socket.clone();
    // one submission after the other, each acknowledgement written down; killed with SIGKILL in the midst of it
    let submit_one = format!("swarmctl submit --key k$n --cores 0.1 -- sh -c \"echo $n >> {}\" >> {}", path.display(), said.display());
    let mut submitter = std::process::Command::new("bash")
        .args(["-c", &format!("for n in $(seq 1000); do {submit_one}; done")])
        .env(
            "PATH",
            format!("{}:{}", program("swarmctl").parent().expect("a directory").display(), std::env::var("PATH").unwrap_or_default()),
        )
        .env("SWARM_SOCKET", &socket)
        .process_group(0)
        .spawn()
        .expect("bash");
    eventually("acknowledgements", async || (witness(&said).len() > 20).then_some(())).await;
    let group = rustix::process::Pid::from_raw(i32::try_from(submitter.id()).expect("a pid")).expect("a pid");
    rustix::process::kill_process_group(group, Signal::KILL).expect("killed");
    submitter.wait().expect("gone");
    let client = rig.client(0);
    let acknowledged = witness(&said).len();
    for n in 1..=acknowledged {
        let request = SubmitRequest { key: Some(format!("k{n}")), cores: Some(0.1), ..shell(&format!("echo {n} >> {}", path.display())) };
        let again = client.submit(&request).await.expect("answered");
        assert!(!again.is_new, "k{n} was acknowledged and is not known");
        assert_eq!(ended(&client, again.job).await.state, Some(TaskState::Succeeded));
    }
    let runs = witness(&path);
    for n in 1..=acknowledged {
        assert_eq!(runs.iter().filter(|line| **line == n.to_string()).count(), 1, "task {n}");
    }
    rig.swarm.stop().await;
}

#[tokio::test]
async fn a_dead_workers_tasks_run_elsewhere() {
    let mut scene = Scene::start().await;
    let mut jobs = Vec::new();
    for _ in 0..9 {
        jobs.push(submit(&scene.client(), shell("sleep 3")).await);
    }
    let mut there = Vec::new();
    for job in &jobs {
        if scene.rig.node_of(scene.leader, *job).await == scene.worker {
            there.push(*job);
        }
    }
    assert!(!there.is_empty(), "work is spread");
    scene.rig.swarm.kill(scene.worker).await.expect("killed");
    for job in jobs {
        assert_eq!(ended(&scene.client(), job).await.state, Some(TaskState::Succeeded));
        let attempt = first_task(&scene.client(), job).await.attempt.0;
        assert_eq!(attempt > 1, there.contains(&job), "{job}, attempt {attempt}: only what ran there runs again");
    }
    scene.rig.swarm.stop().await;
}

#[tokio::test]
async fn all_nodes_killed_at_once_lose_nothing() {
    let mut rig = Rig::start(3).await;
    let client = rig.client(0);
    let mut jobs = Vec::new();
    for n in 0..40 {
        let request = SubmitRequest { key: Some(format!("k{n}")), ..shell("sleep 0.3; echo done") };
        jobs.push(submit(&client, request).await);
    }
    for n in 0..3 {
        rig.swarm.kill(n).await.expect("killed");
    }
    for n in 0..3 {
        rig.swarm.restart(n).expect("started again");
    }
    let client = rig.client(1);
    eventually("a leader", async || client.leader().await.ok()).await;
    for (n, job) in jobs.iter().enumerate() {
        assert_eq!(ended(&client, *job).await.state, Some(TaskState::Succeeded), "{job}");
        let again = client.submit(&SubmitRequest { key: Some(format!("k{n}")), ..shell("sleep 0.3; echo done") }).await.expect("answered");
        assert_eq!((again.job, again.is_new), (*job, false), "the same key is the same job");
    }
    rig.swarm.stop().await;
}

#[tokio::test]
async fn at_most_once_ends_lost_rather_than_run_twice() {
    let mut scene = Scene::start().await;
    let script = format!("echo ran >> {}; sleep 30", scene.path.display());
    let job = scene.start_pinned(SubmitRequest { at_most_once: true, ..scene.pinned(&script) }).await;
    scene.rig.swarm.kill(scene.worker).await.expect("killed");
    assert_eq!(ended(&scene.client(), job).await.state, Some(TaskState::Lost));
    scene.rig.swarm.restart(scene.worker).expect("started again");
    eventually("the worker is back", async || scene.client().stats().await.ok().filter(|stats| stats.nodes_online == 3)).await;
    assert_eq!(witness(&scene.path), ["ran"]);
    scene.rig.swarm.stop().await;
}

#[tokio::test]
async fn a_stopped_worker_never_overlaps_with_its_successor() {
    let rig = Rig::start(3).await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("witness");
    let leader = rig.leader(0).await;
    // every attempt writes its number again and again: two at once would interleave
    let script = format!("for i in $(seq 100); do echo $SWARM_ATTEMPT >> {}; sleep 0.05; done", path.display());
    let request =
        SubmitRequest { on_partition: Some(OnPartition::Stop), labels: [("os".to_owned(), "linux".to_owned())].into(), ..shell(&script) };
    let mut job = submit(&rig.client(leader), request.clone()).await;
    let mut at = rig.node_of(leader, job).await;
    while at == leader {
        rig.client(leader).cancel_job(job).await.expect("cancelled");
        job = submit(&rig.client(leader), SubmitRequest { cores: Some(1.0), ..request.clone() }).await;
        at = rig.node_of(leader, job).await;
    }
    std::fs::write(&path, "").expect("a fresh witness");
    rig.signal(at, Signal::STOP);
    let client = rig.client(leader);
    eventually("another attempt", async || (first_task(&client, job).await.attempt.0 > 1).then_some(())).await;
    rig.signal(at, Signal::CONT);
    assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded));
    let lines: Vec<u32> = witness(&path).iter().filter_map(|line| line.parse().ok()).collect();
    assert!(lines.is_sorted(), "two attempts at once: {lines:?}");
    rig.swarm.stop().await;
}

#[tokio::test]
async fn a_daemon_that_is_back_in_time_takes_its_tasks_up() {
    let mut scene = Scene::start().await;
    let script = format!("echo before; echo ran >> {}; sleep 4; echo after", scene.path.display());
    let job = scene.start_pinned(SubmitRequest { patience_ms: Some(20_000), ..scene.pinned(&script) }).await;
    scene.rig.swarm.kill(scene.worker).await.expect("killed");
    scene.rig.swarm.restart(scene.worker).expect("started again");
    assert_eq!(ended(&scene.client(), job).await.state, Some(TaskState::Succeeded));
    let task = first_task(&scene.client(), job).await;
    let output = task.output.expect("it wrote something").stdout.into_bytes().expect("bytes");
    assert_eq!((task.attempt.0, String::from_utf8_lossy(&output).as_ref()), (1, "before\nafter\n"));
    assert_eq!(witness(&scene.path), ["ran"]);
    scene.rig.swarm.stop().await;
}

#[tokio::test]
async fn a_daemon_that_stays_away_leaves_nothing_running() {
    let mut scene = Scene::start().await;
    let script = format!("setsid sh -c 'while :; do echo x >> {0}; sleep 0.1; done' & sleep 300", scene.path.display());
    let job = scene.start_pinned(scene.pinned(&script)).await;
    scene.rig.swarm.kill(scene.worker).await.expect("killed");
    eventually("the process tree is gone", async || {
        let before = witness(&scene.path).len();
        tokio::time::sleep(Duration::from_millis(500)).await;
        (before > 0 && witness(&scene.path).len() == before).then_some(())
    })
    .await;
    scene.client().cancel_job(job).await.expect("cancelled");
    scene.rig.swarm.stop().await;
}

#[tokio::test]
async fn waiting_work_is_given_to_a_node_the_moment_it_joins() {
    let mut rig = Rig::start(3).await;
    rig.swarm.kill(2).await.expect("killed");
    eventually("the others miss it", async || rig.client(0).stats().await.ok().filter(|stats| stats.nodes_online == 2)).await;
    let leader = eventually("a leader", async || rig.client(0).leader().await.ok()).await;
    let at = rig.position(&leader.name);
    let client = rig.client(if at == 2 { 0 } else { at });
    let job = submit(&client, SubmitRequest { labels: [("dev".to_owned(), "3".to_owned())].into(), ..shell("echo here") }).await;
    let task = swarm_proto::TaskId { job, index: 0 };
    assert_eq!(client.task(task).await.expect("known").state, TaskState::Pending);
    let explain = client.explain(task).await.expect("explained");
    assert!(!explain.nodes.is_empty(), "{explain:?}");
    rig.swarm.restart(2).expect("started again");
    assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded));
    rig.swarm.stop().await;
}

/// In whose environment this is, is the test that is killed.
const VICTIM: &str = "SWARM_TESTS_VICTIM";

#[tokio::test]
async fn a_test_that_is_killed_takes_its_daemons_along() {
    if let Some(told) = std::env::var_os(VICTIM) {
        let hosts = Hosts::start(2, |_| {}).await;
        rustix::process::kill_process(hosts.list[1].pid(), Signal::STOP).expect("it is there");
        let [runs, stands] = [0, 1].map(|n| hosts.list[n].pid().as_raw_nonzero());
        let partial = PathBuf::from(&told).with_extension("partial");
        std::fs::write(&partial, format!("{runs} {stands} {}", hosts.dir().display())).expect("written");
        std::fs::rename(partial, told).expect("written");
        std::future::pending().await
    }
    let dir = tempfile::tempdir().expect("a directory");
    let told = dir.path().join("told");
    let mut test = std::process::Command::new(std::env::current_exe().expect("a test knows its own program"));
    test.args(["--exact", "a_test_that_is_killed_takes_its_daemons_along"]).env(VICTIM, &told).process_group(0);
    let mut test = test.spawn().expect("it starts");
    let said = eventually("daemons run", async || std::fs::read_to_string(&told).ok()).await;
    let [runs, stands, left] = said.split(' ').collect::<Vec<_>>().try_into().expect("three words");
    // as long as its test lives nobody removes it; then any test beside this one may
    assert!(Path::new(left).exists(), "{left} is not there");
    test.kill().expect("killed");
    test.wait().expect("gone");
    for pid in [runs, stands] {
        // of one that nobody has waited for yet the rest of its line is there, but no program
        eventually("the daemon is gone", async || std::fs::read_link(Path::new("/proc").join(pid).join("exe")).err()).await;
    }
    let next = Hosts::prepare(1, |_| {});
    assert!(!Path::new(left).exists(), "{} is there, and {left} too", next.dir().display());
}
