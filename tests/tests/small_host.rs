//! A host with little memory: its tables are smaller, what is beyond them is refused as busy, and it lives.

use std::collections::BTreeMap;

use swarm_proto::{
    Code,
    api::{SubmitLine, SubmitRequest},
    ledger::{Schedule, TaskState},
};
use swarm_tests::{Footprints, Host, Hosts, eventually, say};

const MEMORY: u64 = 256 << 20;
/// A sixteenth of what the ledger takes at most: a quarter of the host's memory of the gigabyte.
const ALLOWED: &str = "64MiB";
const OPEN: usize = swarm_proto::limits::OPEN_JOBS / 16;

fn resident(host: &Host) -> u64 {
    Footprints::of([host.pid().as_raw_nonzero().get().unsigned_abs()]).resident()
}

fn noop(id: usize) -> SubmitRequest {
    SubmitRequest { id: id.to_string(), noop: true, ..SubmitRequest::default() }
}

#[tokio::test]
async fn a_voter_of_256_mib_refuses_what_it_has_no_room_for_and_does_the_rest() {
    let mut hosts = Hosts::prepare(1, |_| {});
    hosts.list[0].memory = Some(MEMORY);
    hosts.list[0].run();
    let host = &hosts.list[0];
    host.answers().await;
    host.ok(&["mesh", "init"]);
    host.ready().await;
    let client = host.client();
    eventually("the leader holds the ledger to less", async || {
        let shown = host.ok(&["config", "show", "-o", "json"]);
        (shown.contains(ALLOWED) && shown.contains("the leader")).then_some(())
    })
    .await;

    // nothing can run, so that all of it waits
    let name = host.answers().await.name;
    client.schedule(&name, Schedule::Cordoned).await.expect("cordoned");
    let (mut sender, mut answers) = client.submit_stream().await.expect("a stream");
    let sending = tokio::spawn(async move {
        for id in 0..OPEN + 500 {
            sender.send(&noop(id)).await.expect("sent");
        }
        sender
    });
    let (mut accepted, mut busy) = (BTreeMap::new(), 0);
    while accepted.len() + busy < OPEN + 500 {
        match answers.next().await.expect("answers").expect("more answers") {
            SubmitLine::Accepted { id, job, .. } => drop(accepted.insert(job, id)),
            SubmitLine::Refused { problem, .. } => {
                assert_eq!(problem.code, Code::Busy, "{problem}");
                busy += 1;
            }
            SubmitLine::Progress { .. } | SubmitLine::Ended { .. } => panic!("nothing can run"),
        }
    }
    assert_eq!((accepted.len(), busy), (OPEN, 500));
    let full = resident(host);
    say(&format!("{} jobs wait in {} MiB", accepted.len(), full >> 20));
    assert!(full < MEMORY, "{full} bytes");

    client.schedule(&name, Schedule::Open).await.expect("open again");
    while !accepted.is_empty() {
        match answers.next().await.expect("answers").expect("more answers") {
            SubmitLine::Ended { outcome, .. } => {
                assert_eq!(outcome.state, TaskState::Succeeded);
                assert!(accepted.remove(&outcome.job).is_some(), "{} ends twice", outcome.job);
            }
            SubmitLine::Progress { .. } => {}
            other @ (SubmitLine::Accepted { .. } | SubmitLine::Refused { .. }) => panic!("{other:?}"),
        }
    }
    drop(sending.await.expect("sent"));
    let done = resident(host);
    say(&format!("and have ended in {} MiB", done >> 20));
    assert!(done < MEMORY, "{done} bytes");
}
