//! Inputs are there when a task starts, and what it left is there when it has ended.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use swarm_executors::Executor as _;
use swarm_proto::{
    Digest,
    ledger::End,
    manifest::{FileEntry, Manifest, Tree},
    spec::JobSpec,
};

use crate::rig::{Rig, said, until};

fn put(rig: &Rig, bytes: &[u8]) -> Digest {
    let digest = Digest(*blake3::hash(bytes).as_bytes());
    let path = rig.dir.join("store").join(digest.shelf());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    digest
}

fn put_tree(rig: &Rig, files: &[(&str, &[u8])]) -> Tree {
    let entry = |(path, bytes): &(&str, &[u8])| FileEntry {
        path: (*path).to_owned(),
        size: bytes.len() as u64,
        digest: put(rig, bytes),
        executable: bytes.starts_with(b"#!"),
    };
    let manifest = Manifest::new(files.iter().map(entry).collect()).unwrap();
    manifest.tree(put(rig, &manifest.encode()))
}

fn with_files(rig: &Rig, script: &str, inputs: Tree, outputs: &[&str]) -> JobSpec {
    let outputs = outputs.iter().map(|path| (*path).to_owned()).collect();
    JobSpec { inputs: Some(inputs), outputs, ..rig.spec(&["sh", "-c", script]) }
}

fn read(left: &Path, path: &str) -> String {
    fs::read_to_string(left.join(path)).unwrap_or_else(|e| format!("{path}: {e}"))
}

const SCRIPT: &str = "mkdir out && ./tool in/data > out/sum && cp out/sum top && ! ( echo x >> in/data ) 2>/dev/null";
const TOOL: &[u8] = b"#!/bin/sh\ncat \"$1\" \"$1\"\n";

/// In and out, and nothing is left of it when the outcome is forgotten.
pub(crate) async fn there_and_back(mut rig: Rig) {
    let tree = put_tree(&rig, &[("in/data", b"twice\n"), ("tool", TOOL)]);
    let spec = with_files(&rig, SCRIPT, tree, &["out", "top"]);
    let (task, fence) = rig.start(spec);
    let left = rig.exec.left(task, fence);
    rig.settled((task, fence)).await;
    assert_eq!((read(&left, "out/sum"), read(&left, "top")), ("twice\ntwice\n".into(), "twice\ntwice\n".into()));
    let outcome = rig.ended((task, fence)).await;
    assert_eq!(outcome.end, End::Succeeded, "{outcome:?}");
    until("what it left is gone", || !left.exists()).await;
}

#[tokio::test]
async fn inputs_come_and_outputs_go() {
    if rustix::process::geteuid().is_root() {
        // nothing is read-only to root, so there is nothing to see there but as somebody else
        return;
    }
    there_and_back(Rig::new().await).await;
}

#[tokio::test]
async fn a_task_has_its_own_file_and_copies_of_its_own() {
    let mut rig = Rig::new().await;
    let tree = put_tree(&rig, &[("shared", b"shared")]);
    let spec = Arc::new(with_files(&rig, "chmod u+w shared; echo gone > shared && cat {} > {}.out", tree, &["{}.out"]));
    for (index, name) in ["a/one", "two"].iter().enumerate() {
        let own = FileEntry { path: (*name).to_owned(), size: 0, digest: put(&rig, name.as_bytes()), executable: false };
        let (task, fence) = rig.start_own(spec.clone(), u32::try_from(index).unwrap(), own);
        rig.settled((task, fence)).await;
        let got = read(&rig.exec.left(task, fence), &format!("{name}.out"));
        let outcome = rig.ended((task, fence)).await;
        assert_eq!((got.as_str(), &outcome.end), (*name, &End::Succeeded), "{outcome:?}");
    }
    assert_eq!(fs::read(rig.dir.join("store").join(Digest(*blake3::hash(b"shared").as_bytes()).shelf())).unwrap(), b"shared");
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let mut rig = Rig::new().await;
    let tree = put_tree(&rig, &[("data", b"data")]);
    let spec = with_files(&rig, "true", tree, &["out"]);
    let key = rig.start(spec);
    assert!(matches!(rig.ended(key).await.end, End::Output(why) if why.contains("'out' is not there")));
    // a task that failed by itself says so, whatever it left
    let spec = with_files(&rig, "echo half > out; exit 3", tree, &["out", "none"]);
    let (task, fence) = rig.start(spec);
    rig.settled((task, fence)).await;
    assert_eq!(read(&rig.exec.left(task, fence), "out"), "half\n");
    assert_eq!(rig.ended((task, fence)).await.end, End::Exit(3));
    fs::remove_dir_all(rig.dir.join("store")).unwrap();
    let spec = with_files(&rig, "true", tree, &[]);
    let key = rig.start(spec);
    assert!(matches!(rig.ended(key).await.end, End::Input(why) if why.contains("is not on this node")));
}

/// A large input on its way holds up neither a kill nor the short tasks beside it.
#[tokio::test]
async fn bringing_files_holds_nothing_up() {
    let mut rig = Rig::new().await;
    let large = vec![7; 256 << 20];
    let files: Vec<(String, &[u8])> = (0..8).map(|n| (format!("large{n}"), large.as_slice())).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    let tree = put_tree(&rig, &files);
    let keys: Vec<_> = (0..3).map(|_| rig.start(with_files(&rig, "true", tree, &[]))).collect();
    let short = rig.sh("true");
    for key in &keys {
        rig.exec.kill(key.0, key.1, End::Cancelled);
    }
    assert_eq!(rig.ended(short).await.end, End::Succeeded);
    for key in keys {
        assert_eq!(rig.ended(key).await.end, End::Cancelled);
    }
    assert!(rig.left().is_empty());
}

/// A task that writes nothing but leaves much: a hole is read as quickly as anything.
fn with_a_hole(rig: &Rig) -> JobSpec {
    JobSpec { outputs: vec!["hole".into()], ..rig.spec(&["sh", "-c", "truncate -s 4G hole"]) }
}

#[tokio::test]
async fn a_kill_stops_the_collecting() {
    let mut rig = Rig::new().await;
    // more than are collected at a time, so that some only wait for it
    let keys: Vec<_> = (0..4).map(|_| rig.start(with_a_hole(&rig))).collect();
    let left: Vec<_> = keys.iter().map(|key| rig.exec.left(key.0, key.1)).collect();
    until("two are collected", || left.iter().filter(|left| left.exists()).count() == 2).await;
    until("all have ended", || rig.left().is_empty()).await;
    let killed = Instant::now();
    for key in &keys {
        rig.exec.kill(key.0, key.1, End::Cancelled);
    }
    for (key, left) in keys.iter().zip(left) {
        rig.settled(*key).await;
        // removed by the keeper: what was begun was not brought to its end
        assert!(!left.exists());
        assert_eq!(rig.ended(*key).await.end, End::Cancelled);
    }
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    let next = rig.start(JobSpec { outputs: vec!["out".into()], ..rig.spec(&["sh", "-c", "ls -A; echo 1 >out"]) });
    assert_eq!(said(&rig.ended(next).await), "");
}

#[tokio::test]
async fn what_cannot_be_collected_fails_only_what_succeeded() {
    let mut rig = Rig::new().await;
    for (script, want) in [
        ("ln -s /etc/hostname out", "'out': it is a link"),
        ("mkdir real && echo x >real/out && ln -s real way && ln -s way/out out", "'out': it is a link"),
        ("mkfifo out", "'out' is neither a file"),
        ("mkdir out && mkfifo out/pipe", "'out/pipe' is neither a file"),
        ("truncate -s 4T out", "'out': what it leaves has 4398046511104 bytes"),
    ] {
        let spec = |script: &str| JobSpec { outputs: vec!["out".into()], ..rig.spec(&["sh", "-c", script]) };
        let (ends_well, fails) = (spec(script), spec(&format!("{script}; exit 3")));
        let key = rig.start(ends_well);
        let end = rig.ended(key).await.end;
        assert!(matches!(&end, End::Output(why) if why.contains(want)), "{script}: {end:?}");
        let key = rig.start(fails);
        assert_eq!(rig.ended(key).await.end, End::Exit(3), "{script}");
        assert!(!rig.exec.left(key.0, key.1).exists());
    }
}

#[tokio::test]
async fn what_an_earlier_life_left_goes() {
    let rig = Rig::new().await;
    let (dir, mark, stage) = rig.die().await;
    let old = ["left/j9.0-1.1/out", "work/3/deep/file", "work.gone-1-1/3/file"].map(|path| dir.join(path));
    for path in &old {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "old").unwrap();
    }
    let mut rig = Rig::back(dir, mark, stage).await;
    assert!(!rig.dir.join("left").exists());
    // a keeper that begins removes nothing that a daemon may be reading
    let kept = rig.dir.join("left/j9.0-1.1/out");
    fs::create_dir_all(kept.parent().unwrap()).unwrap();
    fs::write(&kept, "kept").unwrap();
    let key = rig.sh("ls -A");
    assert_eq!(said(&rig.ended(key).await), "");
    assert!(kept.exists());
    let is_gone = |name: &str| name.starts_with("work.gone");
    let names = || fs::read_dir(&rig.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    until("old directories are removed", || !names().any(|name| is_gone(&name)) && !rig.dir.join("work/3").exists()).await;
}
