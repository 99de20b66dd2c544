//! A rolling upgrade to the next protocol, under load, and the way back that there is not.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use swarm_proto::{PROTOCOL, api::SubmitRequest, ledger::TaskState};
use swarm_tests::{Rig, ctl, ended, eventually, submit};

/// The build that speaks one protocol more (`SWARM_RAISE_PROTOCOL=1 cargo build`); `tests/run --long` makes it and says where.
fn raised() -> Option<PathBuf> {
    std::env::var_os("SWARM_RAISED").map(PathBuf::from)
}

#[tokio::test]
#[ignore = "needs a second build: tests/run --long"]
async fn versions_run_side_by_side_and_none_goes_back() {
    let program = raised().expect("SWARM_RAISED names the swarmd of the next protocol");
    let mut rig = Rig::start(3).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (client, is_over) = (rig.client(0), is_over.clone());
        async move {
            let mut jobs = Vec::new();
            for n in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let request = SubmitRequest { key: Some(format!("load-{n}")), noop: true, ..SubmitRequest::default() };
                // a daemon that restarts, or a swarm between two leaders, does not answer: what was acknowledged is what counts
                match client.submit(&request).await {
                    Ok(accepted) => jobs.push(accepted.job),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            jobs
        }
    });
    for n in 0..3 {
        let before = submit(&rig.client((n + 1) % 3), SubmitRequest { noop: true, ..SubmitRequest::default() }).await;
        rig.swarm.set_program(n, program.clone());
        rig.swarm.end(n).await.expect("stopped");
        rig.swarm.restart(n).expect("started in the next version");
        rig.swarm.wait_ready().await.expect("versions side by side");
        assert_eq!(ended(&rig.client(n), before).await.state, Some(TaskState::Succeeded));
    }
    let socket = rig.swarm.nodes()[1].socket.clone();
    let next = format!("\"protocol\":{}", PROTOCOL + 1);
    eventually("the log is written in the next protocol", async || {
        let events = ctl(&socket, &["event", "list", "-o", "jsonl"]);
        let text = String::from_utf8_lossy(&events.stdout).replace(' ', "");
        text.lines().any(|line| line.contains("protocol_raised") && line.contains(&next)).then_some(())
    })
    .await;
    is_over.store(true, Ordering::Relaxed);
    let jobs = load.await.expect("the load ran");
    assert!(jobs.len() > 100, "{} jobs", jobs.len());
    for job in jobs {
        assert_eq!(ended(&rig.client(1), job).await.state, Some(TaskState::Succeeded), "{job}");
    }
    // and back: refused, in words
    rig.swarm.set_program(2, swarm_tests::program("swarmd"));
    rig.swarm.end(2).await.expect("stopped");
    rig.swarm.restart(2).expect("started in the old version");
    let (name, how) = rig.swarm.next_exit().await.expect("it does not run on what it cannot read");
    let log = std::fs::read_to_string(rig.swarm.log_of(&name)).expect("a log");
    let said = log.rsplit("error:").next().unwrap_or_default();
    assert!(name == "dev3" && !how.contains("signal"), "{name}: {how}");
    assert!(said.contains(&format!("protocol {}", PROTOCOL + 1)) && said.contains(&format!("up to {PROTOCOL}")), "{said}");
    rig.swarm.stop().await;
}
