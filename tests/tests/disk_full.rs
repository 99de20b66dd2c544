//! Real file systems that are full, or do not sync, under real daemons.

use std::{fs::File, path::PathBuf, time::Duration};

use bytes::Bytes;
use swarm_proto::{Code, Digest, api::SubmitRequest, ledger::TaskState};
use swarm_tests::{Chance, Fault, Hosts, How, Rack, ended, eventually, fetch, submit};

const MIB: u64 = 1 << 20;

/// Takes all the room there is on a disk until it is dropped.
struct Filler(PathBuf);

impl Filler {
    fn fill(disk: &std::path::Path) -> Self {
        let path = disk.join("filler");
        let file = File::create(&path).expect("a file");
        for size in [MIB, 4096] {
            let mut at = file.metadata().expect("a file").len();
            while rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, size).is_ok() {
                at += size;
            }
        }
        file.sync_all().expect("synced");
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A job whose spec takes a large part of what an entry may take. No host has the label that it asks for.
fn large(n: usize) -> SubmitRequest {
    let env = (0..60).map(|at| (format!("FILL_{at}"), "x".repeat(3_900))).collect();
    let labels = [("nowhere".to_owned(), "at all".to_owned())].into();
    SubmitRequest { key: Some(format!("large-{n}")), argv: vec!["true".into()], env, labels, ..SubmitRequest::default() }
}

#[tokio::test]
async fn a_log_that_finds_no_room_loses_nothing_and_says_so_even_if_its_daemon_is_started_again() {
    let mut hosts = Hosts::prepare(3, |_| {});
    let at: Vec<_> = hosts.list.iter().map(|host| host.state.as_path()).collect();
    let Some(_rack) = Rack::mount(hosts.dir(), &at, 128 * MIB) else { return };
    hosts.list.iter_mut().for_each(|host| host.run());
    for host in &hosts.list {
        host.answers().await;
    }
    hosts.unite().await;
    let client = hosts.list[0].client();
    let fillers: Vec<Filler> = hosts.list.iter().map(|host| Filler::fill(&host.state)).collect();
    // until the segments that are there already are used up
    let mut accepted = Vec::new();
    loop {
        let request = large(accepted.len());
        match tokio::time::timeout(Duration::from_secs(4), client.submit(&request)).await {
            Ok(Ok(done)) => accepted.push(done.job),
            Ok(Err(problem)) => assert!(matches!(problem.code, Code::UnknownOutcome | Code::NoLeader | Code::Busy), "{problem}"),
            Err(_) => break,
        }
        assert!(accepted.len() < 1_000, "the disks are never full");
    }
    assert!(accepted.len() > 20, "{} were accepted", accepted.len());
    for host in &hosts.list {
        let client = host.client();
        eventually("it says that there is no room", async || {
            client.status().await.ok().filter(|status| status.trouble.contains("no room on the log's disk"))
        })
        .await;
    }
    // what is known is still read, and it is no reason to go
    assert_eq!(client.job(accepted[0]).await.expect("read").state, None);
    // one of them is started again as it is
    hosts.list[2].kill_all();
    hosts.list[2].run();
    let again = hosts.list[2].client();
    eventually("it is up, and says that there is no room", async || {
        assert_eq!(hosts.list[2].ended(), None, "{}", hosts.list[2].log());
        again.status().await.ok().filter(|status| status.trouble.contains("no room on the log's disk"))
    })
    .await;
    drop(fillers);
    for host in &hosts.list {
        let client = host.client();
        eventually("there is room", async || client.status().await.ok().filter(|status| status.trouble.is_empty() && status.is_voter))
            .await;
    }
    for (n, job) in accepted.iter().enumerate() {
        let kept = eventually("it is accepted as what it was", async || again.submit(&large(n)).await.ok()).await;
        assert_eq!((kept.job, kept.is_new), (*job, false), "{n}");
    }
    let after = submit(&client, SubmitRequest { noop: true, ..SubmitRequest::default() }).await;
    assert_eq!(ended(&again, after).await.state, Some(TaskState::Succeeded));
    hosts.list.iter_mut().for_each(|host| host.kill_all());
}

/// A blob is promised only once it is durable, so one that could not be synced is given up, and whoever asked hears why. Nothing else
/// hangs on its file: the daemon goes on, and goes on voting.
#[tokio::test]
async fn a_blob_that_cannot_be_synced_is_refused_and_neither_held_nor_in_the_way() {
    let hosts = Hosts::start(2, |_| {}).await;
    hosts.unite().await;
    let (host, other) = (&hosts.list[1], hosts.list[0].client());
    let client = host.client();
    let mut chance = Chance::new();
    let pid = u32::try_from(host.pid().as_raw_nonzero().get()).expect("a pid");
    let blobs = host.state.join("blobs");
    for (call, len) in [("fdatasync", 5_000), ("fdatasync", 3 * MIB), ("fsync", 5_000), ("fsync", 3 * MIB)] {
        let len = usize::try_from(len).expect("short");
        let put = Bytes::from(chance.bytes(len));
        let fetched = Bytes::from(chance.bytes(len));
        let brought = other.put_bytes(fetched.clone(), false).await.expect("there").digest;
        eventually("the leader knows", async || client.blob(brought).await.ok()).await;
        let name = Digest(*blake3::hash(&put).as_bytes());
        // of its files, or of the directories that they get their names in
        let mut files: Vec<PathBuf> = (0..64).map(|n| blobs.join("draft").join(n.to_string())).collect();
        files.extend([blobs.join("part").join(brought.to_string()), blobs.join("draft"), blobs.join("part")]);
        for digest in [name, brought] {
            files.extend(["whole", "outline"].map(|kind| blobs.join(kind).join(digest.shelf()).parent().expect("a shelf").to_owned()));
        }
        let Some(fault) = Fault::inject(pid, &files, call, &How::Fails("EIO")) else { return };
        let refused = client.put_bytes(put.clone(), false).await.expect_err("it is not durable");
        assert!(refused.code == Code::Internal && refused.why.contains("Input/output error"), "{call}: {refused}");
        let refused = fetch(&client, brought).await.expect_err("it is not durable");
        assert!(refused.why.contains("Input/output error"), "{call}: {refused}");
        drop(fault);
        let held = client.store().await.expect("up").blobs;
        assert!(held.iter().all(|blob| blob.digest != name && blob.digest != brought), "{call}: what is not durable is said to be held");
        // and now it is as if nothing had been
        assert_eq!(client.put_bytes(put, false).await.expect("it is put").digest, name);
        fetch(&client, brought).await.unwrap_or_else(|problem| panic!("{call} of {len} bytes: {problem}"));
        for digest in [name, brought] {
            let verified = client.verify_blob(digest).await.expect("it is there");
            assert!(verified.is_sound && verified.damaged == 0, "{call}: {verified:?}");
        }
    }
}
