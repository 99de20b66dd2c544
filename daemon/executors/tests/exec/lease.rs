//! The daemon goes and comes back; leases end; the keeper dies.

use std::{sync::Arc, time::Duration};

use rustix::process::Signal;
use swarm_executors::Executor;
use swarm_proto::{ledger::End, peer::Which, spec::OnPartition};

use crate::rig::{Rig, hear, is_alive, keeper_pid, marked, marked_as, said, signal, text, until};

#[tokio::test]
async fn a_daemon_back_in_time_takes_its_tasks_back_with_their_output() {
    let mut rig = Rig::new().await;
    rig.lease(Duration::from_secs(60));
    let running = rig.sh("echo before; while [ ! -e $GO/one ]; do sleep 0.01; done; echo after; exit 4");
    rig.wait_for_line(running, "before").await;
    let ended = rig.sh("while [ ! -e $GO/two ]; do sleep 0.01; done; echo meanwhile");
    rig.started(ended).await;
    let taken = rig.sh("echo taken");
    rig.ended(taken).await;
    let keeper = keeper_pid(&rig.dir);

    let (dir, mark, temp) = rig.die().await;
    std::fs::write(dir.join("two"), "").unwrap();
    let log = dir.join("attempts").join(format!("{}-{}.stdout", ended.0, ended.1));
    until("it ends while nobody looks", || std::fs::read_to_string(&log).is_ok_and(|text| text == "meanwhile\n")).await;
    until("it is gone", || !marked_as(&mark, ended.0)).await;
    let mut rig = Rig::back(dir, mark, temp).await;
    assert_eq!(keeper_pid(&rig.dir), keeper);
    let recovered = |key| rig.recovered.iter().find(|r| (r.task, r.fence) == key);
    assert_eq!(rig.recovered.len(), 2, "{:?}", rig.recovered);
    assert_eq!(recovered(running).unwrap().outcome, None);
    assert_eq!(said(recovered(ended).unwrap().outcome.as_ref().unwrap()), "meanwhile\n");
    assert!(recovered(running).unwrap().lease_until > swarm_executors::boot_now() + Duration::from_secs(20));

    rig.exec.forget(ended.0, ended.1);
    let live = rig.read(running, Which::Stdout, true);
    rig.go("one");
    assert_eq!(rig.ended(running).await.end, End::Exit(4));
    assert_eq!(text(&hear(live, Duration::ZERO).await.bytes[0]), "before\nafter\n");
    assert!(rig.left().is_empty());
}

#[tokio::test]
async fn a_daemon_that_stays_away_leaves_nothing() {
    let mut rig = Rig::new().await;
    rig.lease(Duration::from_millis(3500));
    let key = rig.sh("(setsid sleep 1000 &); trap '' TERM; echo up; sleep 1001");
    rig.wait_for_line(key, "up").await;
    let keeper = keeper_pid(&rig.dir);
    let (_dir, mark, _temp) = rig.die().await;
    until("all is gone", || marked(&mark).is_empty() && !is_alive(keeper)).await;
}

#[tokio::test]
async fn a_keeper_without_tasks_goes_with_its_daemon() {
    let mut rig = Rig::new().await;
    rig.lease(Duration::from_secs(3600));
    let key = rig.sh("true");
    rig.ended(key).await;
    let keeper = keeper_pid(&rig.dir);
    let (_dir, _, _temp) = rig.die().await;
    until("the keeper is gone", || !is_alive(keeper)).await;
}

/// The daemon is there, but it hangs: what must not outlive the lease dies all the same, the rest goes on.
#[tokio::test]
async fn a_lease_ends_under_a_silent_daemon() {
    let mut rig = Rig::new().await;
    rig.lease(Duration::from_secs(4));
    let mut stops = rig.spec(&["sh", "-c", "echo up; exec sleep 1000"]);
    let goes_on = Arc::new(stops.clone());
    stops.on_partition = OnPartition::Stop;
    let stops = rig.start(stops);
    let mut once = (*goes_on).clone();
    once.at_most_once = true;
    let once = rig.start(once);
    let goes_on = rig.start_array(goes_on, false, 0, None);
    for key in [stops, once, goes_on] {
        rig.wait_for_line(key, "up").await;
    }
    assert_eq!(rig.left().len(), 3);
    assert_eq!(rig.ended(stops.min(once)).await.end, End::Lost);
    assert_eq!(rig.ended(stops.max(once)).await.end, End::Lost);
    assert_eq!(rig.left().len(), 1);
    // without a lease, nothing of the kind begins
    let mut late = rig.spec(&["true"]);
    late.on_partition = OnPartition::Stop;
    let late = rig.start(late);
    assert_eq!(rig.ended(late).await.end, End::Lost);
    rig.exec.kill(goes_on.0, goes_on.1, End::Cancelled);
    assert_eq!(rig.ended(goes_on).await.end, End::Cancelled);
}

#[tokio::test]
async fn a_killed_keeper_s_tasks_are_lost_and_gone() {
    let mut rig = Rig::new().await;
    let key = rig.sh("(setsid sleep 1000 &); sleep 1001 & echo up; sleep 1002");
    rig.wait_for_line(key, "up").await;
    signal(keeper_pid(&rig.dir), Signal::KILL);
    assert_eq!(rig.ended(key).await.end, End::Lost);
    assert!(rig.left().is_empty());
    let key = rig.sh("echo again");
    assert_eq!(said(&rig.ended(key).await), "again\n");
}

#[tokio::test]
async fn keeper_and_daemon_killed_together_leave_nothing_to_the_next() {
    let mut rig = Rig::new().await;
    let key = rig.sh("(setsid sleep 1000 &); echo up; sleep 1002");
    rig.wait_for_line(key, "up").await;
    let keeper = keeper_pid(&rig.dir);
    let (dir, mark, temp) = rig.die().await;
    signal(keeper, Signal::KILL);
    let rig = Rig::back(dir, mark, temp).await;
    assert_eq!(rig.recovered.len(), 0);
    assert!(rig.left().is_empty());
}
