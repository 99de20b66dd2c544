//! `submit`, and waiting for what was submitted.

use swarm_proto::{Code, JobId, Problem};

use crate::with_swarm;

#[test]
fn the_id_is_data_and_the_end_is_a_remark() {
    with_swarm(async |swarm| {
        swarm.call(&["submit", "--", "print", "x"]).await.is(0, "j1\n");
        let ended = swarm.call(&["submit", "--wait", "--", "exit", "3"]).await;
        ended.is(1, "j2\n");
        assert_eq!(ended.stderr, "swarmctl: j2 failed: 1 failed\n");
        swarm.call(&["submit", "--progress", "--", "print", "x"]).await.is(0, "j3\n");
    });
}

#[test]
fn json_tells_acceptance_and_end() {
    with_swarm(async |swarm| {
        let json = swarm.call(&["submit", "--wait", "-o", "json", "--", "print", "x"]).await;
        let value: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!((value["job"].as_str(), value["outcome"]["state"].as_str()), (Some("j1"), Some("succeeded")));
        let lines = swarm.call(&["submit", "--wait", "-o", "jsonl", "--", "exit", "1"]).await;
        let lines: Vec<serde_json::Value> = lines.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["accepted"]["job"], "j2");
        assert_eq!(lines[1]["ended"]["outcome"]["state"], "failed");
    });
}

#[test]
fn job_files_come_from_disk_and_from_stdin() {
    with_swarm(async |swarm| {
        let path = swarm.dir.path().join("jobs.toml");
        std::fs::write(&path, "[[job]]\nargv = ['print', 'x']\n[[job]]\nargv = ['print', 'y']\narray = '5-9'").unwrap();
        swarm.call(&["submit", path.to_str().unwrap()]).await.is(0, "j1\nj2\n");
        assert_eq!(swarm.fake.submitted(JobId(2)).array.last(), 9);
        swarm.call_with(&["submit", "-"], b"{\"argv\": [\"print\", \"x\"]}\n").await.is(0, "j3\n");
        let faulty = swarm.call_with(&["submit", "-"], b"argv = 'x'").await;
        assert_eq!(faulty.code, Some(2), "{faulty:?}");
        assert!(faulty.stderr.starts_with("error: the job file cannot be used\n  why: -: "), "{faulty:?}");
    });
}

#[test]
fn the_same_key_is_the_same_job() {
    with_swarm(async |swarm| {
        for _ in 0..2 {
            swarm.call(&["submit", "--key", "k", "--", "print", "x"]).await.is(0, "j1\n");
        }
    });
}

#[test]
fn a_busy_daemon_is_asked_again() {
    with_swarm(async |swarm| {
        swarm.fake.refusals.lock().unwrap().extend([
            Problem::new(Code::Busy, "not now", "full").retry_after(swarm_proto::Millis(1)),
            Problem::new(Code::NoLeader, "there is no leader now", "nobody has a majority"),
        ]);
        swarm.call(&["submit", "--", "print", "x"]).await.is(0, "j1\n");
        swarm.fake.refusals.lock().unwrap().push(Problem::new(Code::Unrunnable, "nobody can run that", "no GPU here"));
        swarm.call(&["submit", "--", "print", "x"]).await.is(7, "");
    });
}

#[test]
fn waiting_ends_with_the_job_or_with_patience() {
    with_swarm(async |swarm| {
        swarm.call(&["submit", "--", "print", "x"]).await.is(0, "j1\n");
        for words in [["job", "wait", "j1"], ["task", "wait", "j1"]] {
            let ended = swarm.call(&words).await;
            assert!(ended.code == Some(0) && ended.stdout.contains("succeeded"), "{ended:?}");
        }
        swarm.call(&["submit", "--", "hang"]).await.is(0, "j2\n");
        let late = swarm.call(&["job", "wait", "j2", "--timeout", "50ms"]).await;
        late.is(124, "");
        assert_eq!(late.stderr, "error: j2 has not ended\n  why: that took longer than 50ms\n");
        swarm.call(&["task", "wait", "j2.0", "--timeout", "50ms"]).await.is(124, "");
        swarm.call(&["job", "cancel", "j2"]).await.is(0, "");
        let cancelled = swarm.call(&["job", "wait", "--progress", "j2"]).await;
        assert!(cancelled.code == Some(1) && cancelled.stdout.contains("cancelled"), "{cancelled:?}");
        swarm.call(&["job", "retry", "j1"]).await.is(0, "j3\n");
        swarm.call(&["task", "retry", "j1.0"]).await.is(0, "j4\n");
        swarm.call(&["job", "show", "j99"]).await.is(3, "");
    });
}

#[test]
fn ctrl_c_while_waiting_leaves_the_job() {
    with_swarm(async |swarm| {
        let ended = swarm.interrupt(&["submit", "--wait", "--", "hang"], swarm.fake.until(|view| view.running)).await;
        assert_eq!(ended.code, Some(130), "{ended:?}");
        assert!(!swarm.fake.is_cancelled(JobId(1)));
    });
}
