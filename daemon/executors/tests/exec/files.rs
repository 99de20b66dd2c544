//! Inputs are there when a task starts, and what it left is there when it has ended.

use std::{fs, path::Path, sync::Arc};

use swarm_executors::Executor as _;
use swarm_proto::{
    Digest,
    ledger::End,
    manifest::{FileEntry, Manifest, Tree},
    spec::JobSpec,
};

use crate::rig::{Rig, until};

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
