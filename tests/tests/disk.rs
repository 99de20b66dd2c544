//! Disks that fail under real daemons. The kernel's answers are changed by `strace`, one system call at a time, so that everything
//! above it is the product as it ships.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use swarm_proto::{Code, api::SubmitRequest, ledger::TaskState};
use swarm_tests::{Rig, ended, eventually, submit};

/// A tracer that makes one system call of a daemon fail until it is dropped.
struct Fault(Child);

impl Fault {
    /// Attaches to every thread of a daemon and fails `call` on the files of its log; `None`, said on stderr, where this user may
    /// not trace it.
    fn inject(rig: &Rig, n: usize, call: &str, error: &str) -> Option<Self> {
        let node = &rig.swarm.nodes()[n];
        let files = std::fs::read_dir(rig.swarm.dir().join(&node.name).join("log")).expect("a log");
        let mut command = Command::new("strace");
        for file in files {
            command.arg("-P").arg(file.expect("a file").path());
        }
        let mut child = command
            .args(["-f", "-e", &format!("trace={call}"), "-e", &format!("inject={call}:error={error}"), "-o", "/dev/null", "-p"])
            .arg(node.pid.to_string())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed");
        let mut said = BufReader::new(child.stderr.take().expect("its stderr"));
        let mut line = String::new();
        said.read_line(&mut line).expect("it says something");
        if line.contains("attached") {
            // it goes on to say which threads come and go
            std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
            return Some(Self(child));
        }
        child.wait().expect("strace ends");
        swarm_tests::skip(line.trim());
        None
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // a tracer that is asked to end lets go of what it traces, one that is killed may take it along
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_full_disk_stops_acknowledging_and_recovers() {
    let mut rig = Rig::start(3).await;
    let leader = rig.leader(0).await;
    let client = rig.client(leader);
    let before = submit(&client, SubmitRequest { noop: true, ..SubmitRequest::default() }).await;
    let faults: Vec<_> = (0..3).map(|n| Fault::inject(&rig, n, "write", "ENOSPC")).collect();
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
    let Some(fault) = Fault::inject(&rig, leader, "fdatasync", "EIO") else {
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
