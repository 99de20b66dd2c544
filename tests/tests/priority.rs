//! What others wait for goes before the tasks of a host, and tasks do not inherit it.
#![cfg(target_os = "linux")]

use std::{collections::BTreeMap, fs};

use swarm_tests::{Rig, ended, eventually, first_task, shell, submit};

/// Threads of a process: name, and scheduling policy (field 41 of proc(5)'s stat; 0: `SCHED_OTHER`, 2: `SCHED_RR`).
fn policies(pid: u32) -> BTreeMap<String, String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    let split = |stat: String| {
        let (head, fields) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        Some((name.to_owned(), fields.split_whitespace().nth(41 - 3)?.to_owned()))
    };
    stats.filter_map(split).collect()
}

#[tokio::test]
async fn control_and_log_go_first_and_nothing_else_does() {
    // as the host allows: a daemon that may not go first works all the same
    let is_allowed = std::thread::spawn(|| swarm_linux::go_first().is_ok()).join().expect("it only asks");
    let expected: &[&str] = if is_allowed { &["log", "swarmd"] } else { &[] };
    let rig = Rig::start(1).await;
    let pid = rig.swarm.nodes()[0].pid;
    let first = |policies: &BTreeMap<String, String>| -> Vec<String> {
        policies.iter().filter(|(_, policy)| *policy == "2").map(|(name, _)| name.clone()).collect()
    };
    let seen = eventually("the log's thread is there", async || Some(policies(pid)).filter(|all| all.contains_key("log"))).await;
    assert_eq!(first(&seen), expected, "{seen:?}");
    let job = submit(&rig.client(0), shell("cut -d ' ' -f 41 /proc/self/stat")).await;
    let view = ended(&rig.client(0), job).await;
    let task = first_task(&rig.client(0), view.job).await;
    let output = task.output.expect("it printed");
    assert_eq!(output.stdout, swarm_proto::api::Text::Utf8("0\n".into()), "a task is ordinary");
    rig.swarm.stop().await;
}
