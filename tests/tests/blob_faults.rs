//! Blobs between real daemons of which any is killed at any time, on disks that are full: what comes is right, and what did not come
//! can be asked for again.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use swarm_client::{BlobLines, Client};
use swarm_proto::{Code, Digest, Problem, api::BlobLine};
use swarm_tests::{Hosts, eventually, fetch, skip};
use tokio::sync::mpsc;

const MIB: u64 = 1 << 20;
/// What a killed receiver may have to get again.
const UNSAVED: u64 = 8 * MIB;

/// Bytes of their own for each seed.
fn bytes(seed: u64, len: u64) -> Bytes {
    let mut data = vec![0; usize::try_from(len).expect("it fits")];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut data);
    data.into()
}

async fn put(client: &Client, data: &Bytes) -> Result<Digest, Problem> {
    let (tx, pieces) = mpsc::channel(4);
    let feed = async {
        for piece in data.chunks(1 << 20) {
            let _ = tx.send(Ok(data.slice_ref(piece))).await;
        }
        drop(tx);
    };
    let (put, ()) = tokio::join!(client.put_blob(Some(data.len() as u64), false, pieces), feed);
    put.map(|put| put.digest)
}

/// The whole of it, or why it did not come; never anything else.
async fn get(client: &Client, digest: Digest, data: &Bytes) -> Result<(), Problem> {
    let mut reader = client.read_blob(digest).await?;
    let mut at = 0;
    while let Some(piece) = reader.next().await? {
        assert!(data[at..at + piece.len()] == piece[..], "{digest} at {at}");
        at += piece.len();
    }
    assert_eq!(at, data.len(), "{digest}");
    Ok(())
}

/// How far each node is, by its name, until `is_enough` or the end.
async fn watch(lines: &mut BlobLines, mut is_enough: impl FnMut(&str, u64) -> bool) -> Vec<BlobLine> {
    let mut ends = Vec::new();
    while let Ok(Some(line)) = lines.next().await {
        match &line {
            BlobLine::Progress { node, have, .. } => {
                if is_enough(node, *have) {
                    return ends;
                }
            }
            BlobLine::Held { .. } | BlobLine::Failed { .. } => ends.push(line),
        }
    }
    ends
}

/// Chance that is said where it matters.
fn chance(below: u64) -> u64 {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    u64::from(nanos / 1_000) % below
}

const NAMES: [&str; 4] = ["host1", "host2", "host3", "host4"];

async fn leader(hosts: &Hosts, asked: usize) -> usize {
    let client = hosts.list[asked].client();
    let name = eventually("somebody leads", async || client.leader().await.ok()).await.name;
    NAMES.iter().position(|known| *known == name).expect("one of the hosts")
}

/// A blob of 32 MiB at 32 MiB a second from one host to all others; one of them is killed at some time, and started again.
async fn round(hosts: &mut Hosts, seed: u64, victim: impl AsyncFn(&Hosts, usize) -> usize) {
    let lead = leader(hosts, 0).await;
    // the one that pushes does not lead
    let from = (lead + 1) % 4;
    let (data, victim) = (bytes(seed, 32 * MIB), victim(hosts, from).await);
    let digest = put(&hosts.list[from].client(), &data).await.expect("it is put");
    let when = MIB + chance(24 * MIB);
    let told = format!("{} killed when somebody has {when} bytes of what {} pushes", NAMES[victim], NAMES[from]);
    let to: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    let mut lines = hosts.list[from].client().push_blob(digest, &to).await.expect("it begins");
    let mut before = std::collections::BTreeMap::new();
    let ends = watch(&mut lines, |node, have| {
        before.insert(node.to_owned(), have);
        have >= when
    })
    .await;
    assert!(ends.len() < 4, "{told}: it was too fast");
    hosts.list[victim].kill();
    drop(lines);
    hosts.list[victim].run();
    hosts.list[victim].ready().await;
    // whoever it was, it is asked again, and goes on where it was
    let pusher = hosts.list[from].client();
    let mut first = std::collections::BTreeMap::new();
    eventually(&told, async || {
        let mut lines = pusher.push_blob(digest, &to).await.ok()?;
        let ends = watch(&mut lines, |node, have| {
            if have > 0 {
                first.entry(node.to_owned()).or_insert(have);
            }
            false
        })
        .await;
        (ends.iter().filter(|line| matches!(line, BlobLine::Held { .. })).count() == 4).then_some(())
    })
    .await;
    for (node, have) in first {
        let known = before.get(&node).copied().unwrap_or(0);
        assert!(have + UNSAVED >= known, "{told}: {node} had {known} bytes and goes on with {have}");
    }
    for host in &hosts.list {
        assert!(host.client().verify_blob(digest).await.expect("it is there").is_sound, "{told}");
        get(&host.client(), digest, &data).await.expect("it is there");
    }
}

async fn four() -> Hosts {
    let hosts = Hosts::start(4, |config| config.blobs.send_rate = Some(32 * MIB)).await;
    hosts.unite().await;
    hosts
}

async fn rounds(count: u64) {
    let mut hosts = four().await;
    for seed in 0..count {
        match seed % 3 {
            0 => round(&mut hosts, seed, async |_, from| from).await,
            1 => round(&mut hosts, seed, async |hosts, from| (leader(hosts, from).await + 2) % 4).await,
            _ => round(&mut hosts, seed, async |hosts, from| leader(hosts, from).await).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_gets_everywhere_though_the_source_a_receiver_or_the_leader_is_killed() {
    rounds(3).await;
}

/// The same at many more times.
#[ignore = "minutes; tests/run --long"]
#[tokio::test(flavor = "multi_thread")]
async fn a_push_gets_everywhere_whoever_is_killed_whenever() {
    rounds(24).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_collected_while_it_is_read_comes_right_or_not_at_all() {
    let hosts = Hosts::start(1, |_| {}).await;
    hosts.unite().await;
    let client = hosts.list[0].client();
    let data = bytes(1, 24 * MIB);
    let digest = put(&client, &data).await.expect("it is put");
    // one that was begun is read to its end
    let mut reader = client.read_blob(digest).await.expect("it is there");
    let mut got = reader.next().await.expect("it comes").expect("some of it").to_vec();
    assert_eq!(client.collect_blobs(0).await.expect("it goes").used, 0);
    while let Some(piece) = reader.next().await.expect("it comes whole") {
        got.extend_from_slice(&piece);
    }
    assert!(got == data);
    let gone = get(&client, digest, &data).await.expect_err("nobody has it");
    assert_eq!(gone.code, Code::NotFound, "{gone}");
    // and at any other time
    let collector = {
        let client = hosts.list[0].client();
        tokio::spawn(async move {
            for _ in 0..60 {
                tokio::time::sleep(Duration::from_millis(25)).await;
                client.collect_blobs(0).await.expect("it answers");
            }
        })
    };
    let (mut came, mut refused) = (0, 0);
    while !collector.is_finished() {
        put(&client, &data.slice(..5 << 20)).await.expect("it is put");
        let small = data.slice(..5 << 20);
        match get(&client, Digest(*blake3::hash(&small).as_bytes()), &small).await {
            Ok(()) => came += 1,
            Err(problem) => {
                assert!(matches!(problem.code, Code::NotFound), "{problem}");
                refused += 1;
            }
        }
    }
    assert!(came > 0, "{came} came, {refused} did not");
}

/// A small file system where a host has its blobs. It goes when this is dropped, after the daemon.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said on stderr, where this user may not mount anything.
    fn mount(at: &Path, size: u64) -> Option<Self> {
        let size = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().expect("mount is installed");
        if !done.status.success() {
            skip(String::from_utf8_lossy(&done.stderr).trim());
            return None;
        }
        Some(Self(at.to_owned()))
    }

    fn resize(&self, size: u64) {
        let size = format!("remount,size={size}");
        let done = Command::new("mount").args(["-o", &size]).arg(&self.0).output().expect("mount is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn drafts(&self) -> usize {
        std::fs::read_dir(self.0.join("draft")).expect("a directory").count()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn is_full(problem: &Problem) {
    assert!(problem.code == Code::NoSpace && problem.why.contains("the disk is full") && !problem.hint.is_empty(), "{problem:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_it_cannot_keep_and_loses_nothing() {
    let mut hosts = Hosts::start(2, |_| {}).await;
    hosts.unite().await;
    hosts.list[1].kill();
    let Some(disk) = SmallDisk::mount(&hosts.list[1].state.join("blobs"), 24 * MIB) else { return };
    hosts.list[1].run();
    hosts.list[1].ready().await;
    let (large, small) = (hosts.list[0].client(), hosts.list[1].client());
    let kept = bytes(1, 10 * MIB + 3);
    let kept_name = put(&small, &kept).await.expect("there is room");
    small.pin_blob(kept_name, true).await.expect("it is there");
    let much = bytes(2, 40 * MIB);
    let much_name = put(&large, &much).await.expect("there is room");
    eventually("the leader knows", async || small.blob(much_name).await.ok()).await;
    // put, and fetched
    is_full(&put(&small, &much).await.expect_err("there is no room"));
    is_full(&fetch(&small, much_name).await.expect_err("there is no room"));
    assert_eq!(disk.drafts(), 0);
    // near the end of what there is, where only a part of it may find room: the bytes, the outline, the map
    for n in 0..14 {
        let data = bytes(10 + n, 14 * MIB - 36 * 1024 - n * 4 * 1024 + 20);
        match put(&small, &data).await {
            Ok(name) => get(&small, name, &data).await.expect("it is there"),
            Err(problem) => is_full(&problem),
        }
        assert_eq!(disk.drafts(), 0);
        small.collect_blobs(0).await.expect("it answers");
        let name = put(&large, &data).await.expect("there is room");
        eventually("the leader knows", async || small.blob(name).await.ok()).await;
        match fetch(&small, name).await {
            Ok(()) => get(&small, name, &data).await.expect("it is there"),
            Err(problem) => is_full(&problem),
        }
        assert_eq!(disk.drafts(), 0);
        small.collect_blobs(0).await.expect("it answers");
        assert_eq!(small.store().await.expect("it answers").used, kept.len() as u64, "what did not come takes no room");
    }
    get(&small, kept_name, &kept).await.expect("nothing was lost");
    disk.resize(80 * MIB);
    fetch(&small, much_name).await.expect("there is room now");
    get(&small, much_name, &much).await.expect("it is there");
    hosts.list[1].kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_kept_and_what_is_pinned_is_not_given_up_for_it() {
    let hosts = Hosts::start(2, |config| config.blobs.quota = (config.node.name == "host2").then_some(16 * MIB)).await;
    hosts.unite().await;
    let (large, small) = (hosts.list[0].client(), hosts.list[1].client());
    let is_over = |problem: &Problem| assert!(problem.code == Code::NoSpace && problem.why.contains("of the quota of"), "{problem:?}");
    let much = bytes(1, 20 * MIB);
    is_over(&put(&small, &much).await.expect_err("over the quota"));
    let name = put(&large, &much).await.expect("there is room");
    eventually("the leader knows", async || small.blob(name).await.ok()).await;
    is_over(&fetch(&small, name).await.expect_err("over the quota"));
    let data: Vec<Bytes> = (2..5).map(|seed| bytes(seed, 7 * MIB)).collect();
    let mut names = Vec::new();
    for data in &data {
        names.push(put(&small, data).await.expect("the oldest goes"));
    }
    let store = small.store().await.expect("it answers");
    assert_eq!((store.used, store.blobs.len()), (14 * MIB, 2));
    for name in &names[1..] {
        small.pin_blob(*name, true).await.expect("it is there");
    }
    is_over(&put(&small, &data[0]).await.expect_err("both are pinned"));
    for (name, data) in names[1..].iter().zip(&data[1..]) {
        get(&small, *name, data).await.expect("it is there");
    }
}
