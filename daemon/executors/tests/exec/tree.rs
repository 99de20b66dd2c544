//! Nothing that a task starts outlives it.

use swarm_executors::Executor;
use swarm_proto::ledger::End;

use crate::rig::{Rig, is_alive, keeper_pid, pids, until};

/// Starts processes in its group, in sessions of their own, daemonised, and deaf to SIGTERM.
const FOREST: &str = "
    trap '' TERM
    sleep 1000 &
    setsid sh -c 'trap \"\" TERM; sleep 1001 & sleep 1002' &
    (setsid sh -c 'sleep 1003 & exec sleep 1004' &) &
    sh -c 'trap \"\" TERM; (sleep 1005 &); sleep 1006' &
    echo planted
    sleep 1007";

async fn planted(rig: &mut Rig) -> (swarm_proto::TaskId, swarm_proto::Fence) {
    let key = rig.sh(FOREST);
    rig.wait_for_line(key, "planted").await;
    let mark = rig.mark.clone();
    until("the forest stands", || crate::rig::marked(&mark).len() >= 11).await;
    key
}

#[tokio::test]
async fn a_cancelled_tree_is_gone_when_its_end_is_told() {
    let mut rig = Rig::new().await;
    let key = planted(&mut rig).await;
    rig.exec.kill(key.0, key.1, End::Cancelled);
    assert_eq!(rig.ended(key).await.end, End::Cancelled);
    assert!(rig.left().is_empty());
}

#[tokio::test]
async fn a_lost_tree_is_gone_at_once() {
    let mut rig = Rig::new().await;
    let key = planted(&mut rig).await;
    let begun = std::time::Instant::now();
    rig.exec.kill(key.0, key.1, End::Lost);
    assert_eq!(rig.ended(key).await.end, End::Lost);
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(rig.left().is_empty());
}

#[tokio::test]
async fn what_a_task_leaves_running_dies_with_it_and_others_live() {
    let mut rig = Rig::new().await;
    let other = rig.sh("(setsid sleep 1000 &); echo up; exec sleep 1001");
    rig.wait_for_line(other, "up").await;
    until("the other stands", || rig.left().len() == 2).await;
    let others = rig.left();
    let key = rig.sh("sleep 1002 & setsid sleep 1003 & (setsid sh -c 'sleep 1004 & sleep 1005' &); sleep 0.1; exit 5");
    assert_eq!(rig.ended(key).await.end, End::Exit(5));
    assert_eq!(rig.left(), others);
    rig.exec.kill(other.0, other.1, End::Timeout);
    assert_eq!(rig.ended(other).await.end, End::Timeout);
    assert!(rig.left().is_empty());
}

#[tokio::test]
async fn sigterm_comes_first_and_time_to_obey_it() {
    let mut rig = Rig::new().await;
    let key = rig.sh("trap 'sleep 0.2; echo bye; exit 3' TERM; echo up; while :; do sleep 0.02; done");
    rig.wait_for_line(key, "up").await;
    rig.exec.kill(key.0, key.1, End::Timeout);
    let outcome = rig.ended(key).await;
    assert_eq!(outcome.end, End::Timeout);
    assert_eq!(&outcome.output.unwrap().stdout[..], b"up\nbye\n");
}

#[tokio::test]
async fn a_stopped_task_can_be_killed() {
    let mut rig = Rig::new().await;
    let key = rig.sh("echo up; kill -STOP $$");
    rig.wait_for_line(key, "up").await;
    rig.exec.kill(key.0, key.1, End::Cancelled);
    assert_eq!(rig.ended(key).await.end, End::Cancelled);
    assert!(rig.left().is_empty());
}

/// Nothing names such a process; it goes when no attempt is left that can have made it.
#[tokio::test]
async fn a_daemon_without_environment_goes_when_the_keeper_is_idle() {
    let mut rig = Rig::new().await;
    let name = format!("77{}", std::process::id());
    let key = rig.sh(&format!("(env -i setsid sleep {name} &) ; sleep 0.2"));
    let is_there = || {
        pids().any(|pid| {
            is_alive(pid) && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == format!("sleep\0{name}\0").into_bytes())
        })
    };
    until("it stands", is_there).await;
    assert_eq!(rig.ended(key).await.end, End::Succeeded);
    until("it is gone", || !is_there()).await;
}

#[tokio::test]
async fn dead_orphans_do_not_pile_up() {
    let mut rig = Rig::new().await;
    let key = rig.sh("for i in 1 2 3 4 5 6 7 8; do (setsid true &); done; sleep 0.1");
    assert_eq!(rig.ended(key).await.end, End::Succeeded);
    let keeper = keeper_pid(&rig.dir).to_string();
    let children = || {
        pids()
            .filter(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/stat"))
                    .is_ok_and(|stat| stat.rsplit(") ").next().unwrap_or("").split(' ').nth(1) == Some(keeper.as_str()))
            })
            .count()
    };
    until("all are reaped", || children() == 0).await;
}
