//! Everything that looks at the swarm.

use swarm_proto::ledger::Schedule;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::with_swarm;

#[test]
fn status_without_a_leader_is_shown_and_is_code_6() {
    with_swarm(async |swarm| {
        let good = swarm.call(&["status", "-o", "json"]).await;
        assert_eq!(good.code, Some(0), "{good:?}");
        *swarm.fake.has_leader.lock().unwrap() = Some(false);
        let ended = swarm.call(&["status"]).await;
        assert_eq!(ended.code, Some(6));
        assert!(ended.stdout.starts_with("node:"), "{ended:?}");
        assert!(ended.stderr.starts_with("error: there is no leader now\n  why: "), "{ended:?}");
    });
}

#[test]
fn without_a_daemon_it_is_code_5_but_for_what_needs_none() {
    with_swarm(async |swarm| {
        let ended = swarm.call(&["--socket", "/nowhere/s", "status"]).await;
        ended.is(5, "");
        assert!(
            ended.stderr.starts_with("error: ") && ended.stderr.contains("\n  why: ") && ended.stderr.contains("\n  try: "),
            "{ended:?}"
        );
        let version = swarm.call(&["--socket", "/nowhere/s", "version"]).await;
        assert!(version.code == Some(0) && version.stdout.contains("no daemon answers"), "{version:?}");
        assert!(swarm.call(&["version"]).await.stdout.contains("9.9.9"));
        for shell in ["bash", "zsh", "fish"] {
            let script = swarm.call(&["--socket", "/nowhere/s", "completion", shell]).await;
            assert!(script.code == Some(0) && script.stdout.contains("swarmctl"), "{script:?}");
        }
    });
}

#[test]
fn configuration_is_checked_without_a_daemon() {
    with_swarm(async |swarm| {
        let path = swarm.dir.path().join("swarmd.toml");
        let words = |verb| ["config", verb, path.to_str().unwrap()];
        std::fs::write(&path, "[mesh]\naddress = '10.0.0.1'\n[node]\nname = 'pi4'").unwrap();
        swarm.call(&words("check")).await.is(0, &format!("{}: ok\n", path.display()));
        assert!(swarm.call(&words("explain")).await.stdout.contains("mesh.address"));
        std::fs::write(&path, "[mesh]\nadress = '0.0.0.0'\nkind = 'zerotier'\n[node]\nname = 'pi4'").unwrap();
        let faulty = swarm.call(&words("check")).await;
        faulty.is(2, "");
        assert!(
            faulty.stderr.starts_with("error: the configuration has 2 faults\n  why: ") && faulty.stderr.contains("try: address"),
            "{faulty:?}"
        );
        assert!(swarm.command(&words("check")).arg("-ojson").output().await.unwrap().stdout.starts_with(b"{"));
    });
}

#[test]
fn output_of_tasks_is_raw() {
    with_swarm(async |swarm| {
        swarm.call(&["run", "print", "a\nb"]).await.is(0, "a\nb");
        swarm.call(&["task", "logs", "j1"]).await.is(0, "a\nb");
        swarm.call(&["task", "logs", "j1.0", "-f", "--stdout"]).await.is(0, "a\nb");
        swarm.call(&["task", "result", "j1.0"]).await.is(0, "a\nb");
        swarm
            .call(&["task", "logs", "j1", "-o", "jsonl"])
            .await
            .is(0, "{\"bytes\":{\"stream\":\"stdout\",\"data\":{\"utf8\":\"a\\nb\"}}}\n");
        swarm.call(&["task", "logs", "j9"]).await.is(3, "");
        swarm.call(&["task", "explain", "j1"]).await.is(0, "j1.0: there is no node\n");
    });
}

#[test]
fn lists_are_json_lines_where_they_are_wanted() {
    with_swarm(async |swarm| {
        for _ in 0..3 {
            swarm.call(&["submit", "--", "print", "x"]).await;
        }
        let jobs = swarm.call(&["job", "list", "-o", "jsonl", "--limit", "2"]).await.stdout;
        let jobs: Vec<serde_json::Value> = jobs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((jobs.len(), &jobs[0]["job"]), (2, &"j3".into()));
        let nodes: serde_json::Value = serde_json::from_str(&swarm.call(&["node", "list", "-o", "json"]).await.stdout).unwrap();
        assert_eq!(nodes[0]["name"], "pi4");
        let table = swarm.call(&["task", "list"]).await.stdout;
        assert!(table.starts_with("TASK ") && !table.contains('\u{1b}'), "{table}");
    });
}

#[test]
fn a_watched_list_tells_what_is_new() {
    with_swarm(async |swarm| {
        swarm.call(&["submit", "--", "hang"]).await.is(0, "j1\n");
        let mut child = swarm.command(&["job", "list", "--watch"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next_line().await.unwrap().unwrap().contains("\"state\":null"));
        swarm.call(&["job", "cancel", "j1"]).await.is(0, "");
        assert!(lines.next_line().await.unwrap().unwrap().contains("\"state\":\"cancelled\""));
        child.kill().await.unwrap();
    });
}

#[test]
fn events_have_a_beginning_and_go_on() {
    with_swarm(async |swarm| {
        let last = swarm.call(&["event", "list", "--limit", "2"]).await;
        assert_eq!(last.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(), ["19.0", "20.0"], "{last:?}");
        assert_eq!(last.stderr, "");
        let first = swarm.call(&["event", "list", "--from", "5", "--limit", "2", "-o", "jsonl"]).await;
        assert_eq!(first.stdout.lines().count(), 2, "{first:?}");
        assert!(first.stdout.starts_with("{\"cursor\":\"10.0\""), "{first:?}");
        assert_eq!(first.stderr, "swarmctl: the record begins at 10.0; what lies before it is gone\n");
        let mut child = swarm.command(&["event", "follow", "--from", "19"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for begin in ["19.0 ", "20.0 "] {
            assert!(lines.next_line().await.unwrap().unwrap().starts_with(begin));
        }
        child.kill().await.unwrap();
    });
}

#[test]
fn drain_waits_for_what_runs() {
    with_swarm(async |swarm| {
        *swarm.fake.draining.lock().unwrap() = 3;
        swarm.call(&["node", "drain", "pi4"]).await.is(0, "");
        assert_eq!(*swarm.fake.draining.lock().unwrap(), 0);
        *swarm.fake.draining.lock().unwrap() = u64::MAX;
        swarm.call(&["node", "drain", "n1", "--no-wait"]).await.is(0, "");
        swarm.call(&["node", "drain", "n1", "--timeout", "50ms"]).await.is(124, "");
        swarm.call(&["node", "uncordon", "n1"]).await.is(0, "");
        assert_eq!(*swarm.fake.schedule.lock().unwrap(), Schedule::Open);
    });
}

#[test]
fn a_resignation_shows_the_new_leader() {
    with_swarm(async |swarm| {
        let ended = swarm.call(&["leader", "resign"]).await;
        assert!(ended.code == Some(0) && ended.stdout.contains("term:      1"), "{ended:?}");
    });
}
