//! The front of the house: the demo, swarmctl against a real swarm, and the commands that the README shows.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use swarm_proto::{
    Code,
    api::{SubmitLine, SubmitRequest},
};
use swarm_tests::{Rig, ctl, eventually, program};
use swarmd::dev::{Authority, Options, Swarm};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_demo_survives_its_own_murder_of_the_leader() {
    let dir = env!("SWARM_ROOT");
    let output = Command::new(program("swarmd")).args(["demo", dir, "-o", "json"]).output().expect("the demo starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["lost"], 0, "{report}");
    assert_eq!(report["tasks"], report["succeeded"], "{report}");
    assert_eq!(report["tasks"], report["collected"], "{report}");
    assert!(report["tasks"].as_u64().expect("a number") >= 60 && report["leader_killed"] == true, "{report}");
    assert!(report["gap_ms"].as_u64().is_some() && report["reruns"].as_u64().is_some(), "{report}");
    assert_eq!(report["nodes"].as_array().map(Vec::len), Some(3), "{report}");
}

#[tokio::test]
async fn swarmctl_does_what_the_readme_shows() {
    let rig = Rig::start(3).await;
    let socket = rig.swarm.nodes()[1].socket.clone();
    let readme = std::fs::read_to_string(concat!(env!("SWARM_ROOT"), "/README.md")).expect("a README");
    let mut ran = 0;
    // what it shows for several machines is tried by the lab, on several machines
    let one_machine = readme.split("## Install it").next().expect("it begins with one machine");
    for line in one_machine.lines().filter(|line| line.starts_with("swarmctl ")) {
        let command = line.split("  #").next().unwrap_or(line).trim();
        if command.contains("event follow") || command.contains("bench") {
            continue;
        }
        let path = program("swarmctl").parent().expect("a directory").display().to_string();
        let path = format!("{path}:{}", std::env::var("PATH").unwrap_or_default());
        let root = env!("SWARM_ROOT");
        let mut bash = Command::new("bash");
        let done = bash.args(["-c", command]).current_dir(root).env("PATH", path).env("SWARM_SOCKET", &socket).output().expect("bash");
        assert!(done.status.success(), "{command}: {}{}", text(&done.stdout), text(&done.stderr));
        ran += 1;
    }
    assert!(ran >= 5, "the README shows {ran} commands");
    rig.swarm.stop().await;
}

/// A socket's path has 107 bytes at most, a directory's thousands.
#[tokio::test]
async fn a_throw_away_swarm_lives_in_a_deep_directory() {
    let top = tempfile::tempdir().expect("a directory");
    let deep = top.path().join("deep".repeat(30));
    std::fs::create_dir(&deep).expect("a directory");
    let options = Options { nodes: 1, state_dir: Some(deep.clone()), program: Some(program("swarmd")), ..Options::default() };
    let mut swarm = Swarm::start(&options).expect("a daemon starts");
    swarm.wait_ready().await.expect("it is ready");
    let socket = swarm.nodes()[0].socket.clone();
    assert!(swarm.dir().starts_with(&deep) && !socket.starts_with(&deep), "{}", socket.display());
    assert!(ctl(&socket, &["run", "--", "true"]).status.success());
    swarm.stop().await;
    assert!(!socket.parent().expect("a directory").exists(), "it is removed with the rest");
}

#[tokio::test]
async fn run_is_like_running_it_here() {
    let rig = Rig::start(3).await;
    let socket = &rig.swarm.nodes()[2].socket.clone();
    let done = ctl(socket, &["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((done.status.code(), text(&done.stdout), text(&done.stderr)), (Some(7), "out\n".into(), "err\n".into()));
    let done = ctl(socket, &["run", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(done.status.code(), Some(128 + 15), "{}", text(&done.stderr));
    let done = ctl(socket, &["run", "--timeout", "300ms", "--", "sleep", "60"]);
    assert_eq!(done.status.code(), Some(124), "{}", text(&done.stderr));
    let done = ctl(socket, &["task", "show", "j999"]);
    assert_eq!(done.status.code(), Some(3), "{}", text(&done.stderr));
    let done = ctl(socket, &["submit", "--wait", "--array", "5-9", "-o", "json", "--", "sh", "-c", "test $SWARM_INDEX = $SWARM_ITEM"]);
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    rig.swarm.stop().await;
    let done = ctl(socket, &["status"]);
    assert_eq!(done.status.code(), Some(5), "{}", text(&done.stderr));
}

/// Whoever waits for what no node can run is told so, and why is no question of patience.
#[tokio::test]
async fn a_wait_for_what_cannot_begin_says_why() {
    let rig = Rig::start(1).await;
    let socket = &rig.swarm.nodes()[0].socket.clone();
    let job = ctl(socket, &["submit", "--gpus", "7", "--", "true"]);
    let (job, other) = (text(&job.stdout).trim().to_owned(), "--label=no=such");
    let task = format!("{job}.0");
    let waiting =
        [&["job", "wait", &job][..], &["task", "wait", &task], &["submit", "--wait", other, "--", "true"], &["run", other, "--", "true"]];
    let start =
        |waiting: &[&str]| Command::new(program("swarmctl")).arg("--socket").arg(socket).args(waiting).stderr(Stdio::piped()).spawn();
    let children: Vec<_> = waiting.iter().map(|waiting| start(waiting).expect("starts")).collect();
    for (waiting, mut child) in waiting.iter().zip(children) {
        let mut said = String::new();
        BufReader::new(child.stderr.take().expect("it is piped")).read_line(&mut said).expect("a line");
        child.kill().expect("it still waits");
        child.wait().expect("it was killed");
        assert!(said.contains(".0 waits: no node that is here can ever run it; more: swarmctl task explain j"), "{waiting:?}: {said}");
    }
    rig.swarm.stop().await;
}

#[test]
fn the_benchmark_prints_what_it_should() {
    let output =
        Command::new(program("swarmctl")).args(["bench", "tasks", "-n", "2000", "--throw-away", "-o", "json"]).output().expect("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for key in [
        "tasks_per_s",
        "ack_p50_ms",
        "rtt_p50_ms",
        "rtt_p99_ms",
        "fdatasync_p50_ms",
        "fdatasync_p50_ms_3_writers",
        "cpu_us_per_task",
        "log_bytes_per_task",
    ] {
        assert!(report[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {report}");
    }
    let by_node = report["tasks_by_node"].as_object().expect("nodes");
    let all: u64 = by_node.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(all, 2000, "{report}");
    let most = by_node.values().filter_map(serde_json::Value::as_u64).max().expect("one");
    assert!(most <= 1_000, "at least half run on nodes other than any one: {report}");
    assert_eq!((report["mode"].as_str(), report["nodes"].as_u64()), (Some("single"), Some(3)));
}

#[tokio::test]
async fn a_benchmark_that_is_killed_leaves_nothing() {
    // a real disk: others are refused
    let dir = tempfile::tempdir_in(program("swarmctl").parent().expect("a directory")).expect("a directory");
    let mut bench = Command::new(program("swarmctl"));
    bench.args(["bench", "tasks", "--kind", "exec", "-n", "10000000", "--dir"]).arg(dir.path());
    let mut bench = bench.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("starts");
    let state = || std::fs::read_dir(dir.path()).expect("a directory").flatten().map(|entry| entry.path()).next();
    eventually("the swarm runs", async || state().filter(|state| state.join("dev3.sock").exists())).await;
    bench.kill().expect("it runs");
    bench.wait().expect("it ends");
    eventually("its swarm has gone, and its state", async || state().is_none().then_some(())).await;
}

#[tokio::test]
async fn a_stream_that_was_opened_early_serves_once_the_node_is_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut authority = Authority::create().expect("a CA");
    let (port, address) = (port(), |n: u8| std::net::IpAddr::from([127, 0, 0, n]));
    let mut daemons = Vec::new();
    let mut start = |n: u8| {
        let (state, config) = (dir.path().join(format!("n{n}")), dir.path().join(format!("n{n}.toml")));
        authority.prepare(&state).expect("prepared");
        if n == 1 {
            authority.found(&state).expect("the founder");
        }
        let text = format!(
            "[node]\nname = \"e{n}\"\nstate_dir = {state:?}\n[mesh]\nkind = \"address\"\naddress = \"{}\"\ncontrol_port = {port}\nbulk_port = {}\n\
             peers = [\"{}:{port}\"]\n[api]\nsocket = \"{}.sock\"\n",
            address(n),
            port + 1,
            address(3 - n),
            state.display()
        );
        std::fs::write(&config, text).expect("written");
        let args = ["run", "--end-with-parent", "--config"];
        let child = tokio::process::Command::new(program("swarmd")).args(args).arg(config).kill_on_drop(true).spawn();
        daemons.push(child.expect("swarmd starts"));
        swarm_client::Client::new(dir.path().join(format!("n{n}.sock")))
    };
    let client = start(2);
    eventually("the daemon answers", async || client.status().await.ok()).await;
    let (mut sender, mut answers) = client.submit_stream().await.expect("a stream");
    let mut ask = async |id: &str| {
        let request = SubmitRequest { id: id.into(), key: Some(id.into()), noop: true, ..SubmitRequest::default() };
        sender.send(&request).await.expect("sent");
        answers.next().await.expect("an answer").expect("more answers")
    };
    assert!(matches!(ask("early").await, SubmitLine::Refused { problem, .. } if problem.code == Code::NotReady));
    start(1);
    let mut n = 0;
    let accepted = eventually("the same stream accepts", async || {
        n += 1;
        match ask(&n.to_string()).await {
            SubmitLine::Accepted { id, .. } => Some(id),
            SubmitLine::Refused { .. } | SubmitLine::Progress { .. } | SubmitLine::Ended { .. } => None,
        }
    })
    .await;
    assert_eq!(accepted, n.to_string());
}

/// A port that, with the one above it, is free now.
fn port() -> u16 {
    let free = |port: u16| (1..=2).all(|n| std::net::UdpSocket::bind((std::net::Ipv4Addr::new(127, 0, 0, n), port)).is_ok());
    let own = u16::try_from(std::process::id() % 5_000).expect("small");
    (0..100).map(|n| 40_000 + 2 * own + 200 * n % 10_000).find(|port| free(*port) && free(*port + 1)).expect("a free port")
}
