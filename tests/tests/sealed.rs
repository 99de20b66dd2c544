//! Blobs that are kept encrypted, between real daemons.

use std::{
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use swarm_client::Client;
use swarm_proto::{
    Digest,
    api::{SubmitRequest, TaskView},
    ledger::TaskState,
    manifest::{FileEntry, Manifest, Tree},
};
use swarm_tests::{Rig, ctl, ended, eventually, shell, submit};

const MIB: usize = 1 << 20;
const MARKER: &[u8] = b"nobody shall find these words on a disk\n";

fn secret() -> Vec<u8> {
    MARKER.iter().copied().cycle().take(5 * MIB + 11).collect()
}

/// Files below a directory in which the words can be read.
fn leaks(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        // what a daemon removes meanwhile is not there
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file() && fs::read(&path).unwrap_or_default().windows(MARKER.len()).any(|window| window == MARKER) {
                found.push(path);
            }
        }
    }
    found
}

fn socket(rig: &Rig, n: usize) -> PathBuf {
    rig.swarm.nodes()[n].socket.clone()
}

fn told(rig: &Rig, n: usize, args: &[&str]) -> String {
    let done = ctl(&socket(rig, n), args);
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

fn state(rig: &Rig, n: usize) -> PathBuf {
    rig.swarm.dir().join(&rig.swarm.nodes()[n].name)
}

async fn put_tree(client: &Client, path: &str, bytes: Vec<u8>) -> (Digest, Tree) {
    let size = bytes.len() as u64;
    let digest = client.put_bytes(bytes.into(), true).await.expect("it is put").digest;
    let manifest = Manifest::new(vec![FileEntry { path: path.into(), size, digest, executable: false }]).expect("a name that fits");
    let put = client.put_bytes(manifest.encode().into(), true).await.expect("it is put");
    (digest, manifest.tree(put.digest))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_encrypted_is_nowhere_on_a_disk_and_tasks_read_it_all_the_same() {
    let rig = Rig::start(3).await;
    let client = rig.client(0);
    let files = tempfile::tempdir().expect("a directory");
    let (file, got) = (files.path().join("data"), files.path().join("got"));
    fs::write(&file, secret()).expect("written");
    let name = told(&rig, 0, &["blob", "put", "--encrypt", &file.display().to_string()]);
    let name = name.split_whitespace().next().expect("a name");
    assert_eq!(name, blake3::hash(&secret()).to_hex().as_str());
    told(&rig, 0, &["blob", "push", name, "--to", "all"]);
    eventually("it is known", async || client.blob(name.parse().expect("a name")).await.ok().filter(|view| view.holders.len() == 3)).await;
    assert!(told(&rig, 1, &["blob", "show", name]).contains("encrypted"));
    assert!(told(&rig, 1, &["blob", "list", "--here"]).contains("encrypted"));
    told(&rig, 2, &["blob", "get", name, &got.display().to_string()]);
    assert!(fs::read(&got).expect("a file") == secret());
    assert!(leaks(rig.swarm.dir()).is_empty(), "{:?}", leaks(rig.swarm.dir()));

    // each task has its own copy while it runs, whether all need it or it alone
    let (_, inputs) = put_tree(&client, "all", secret()).await;
    let (_, each) = put_tree(&client, "own", [&secret()[..], b"more"].concat()).await;
    let script = "grep -c 'shall find' all; wc -c < \"$SWARM_ITEM\"";
    let job = submit(&client, SubmitRequest { inputs: Some(inputs), each: Some(each), ..shell(script) }).await;
    let view = ended(&client, job).await;
    assert_eq!(view.state, Some(TaskState::Succeeded), "{view:?}");
    let task: TaskView = client.task(swarm_proto::TaskId { job, index: 0 }).await.expect("the task is known");
    let said = task.output.expect("it said something").stdout.into_bytes().expect("text");
    assert_eq!(String::from_utf8_lossy(&said), format!("{}\n{}\n", secret().len() / MARKER.len(), secret().len() + 4));
    eventually("its directory is gone", async || leaks(rig.swarm.dir()).is_empty().then_some(())).await;
    rig.swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rots_encrypted_is_healed_and_a_lost_key_is_said() {
    let mut rig = Rig::start(3).await;
    let client = rig.client(0);
    let digest = client.put_bytes(secret().into(), true).await.expect("it is put").digest;
    let name = digest.to_string();
    told(&rig, 0, &["blob", "push", &name, "--to", "all"]);
    let at = state(&rig, 1).join("blobs/sealed").join(digest.shelf());
    let mut stored = fs::OpenOptions::new().write(true).open(&at).expect("it is there");
    stored.seek(SeekFrom::Start(3 * MIB as u64 + 5)).expect("it is long enough");
    stored.write_all(b"rot").expect("it can be written");
    assert!(told(&rig, 1, &["blob", "verify", &name]).contains("in 1 segments"));
    assert!(told(&rig, 1, &["blob", "verify", &name]).contains("is sound"));
    assert!(at.is_file() && leaks(rig.swarm.dir()).is_empty());

    rig.swarm.kill(1).await.expect("killed");
    let key = state(&rig, 1).join("blobs.key");
    let bytes = fs::read(&key).expect("the key");
    fs::remove_file(&key).expect("removed");
    rig.swarm.restart(1).expect("started");
    let again = rig.client(1);
    eventually("it is back", async || again.store().await.ok()).await;
    assert!(again.store().await.expect("its store").blobs.is_empty());
    let refused = eventually("it says why", async || again.put_bytes(secret().into(), true).await.err()).await;
    assert!(refused.why.contains("blobs.key") && refused.hint.contains("key_file"), "{}", refused.why);
    assert!(!key.exists());
    // found again
    rig.swarm.kill(1).await.expect("killed");
    fs::write(&key, bytes).expect("written");
    rig.swarm.restart(1).expect("started");
    eventually("it holds it", async || again.store().await.ok().filter(|store| store.blobs.len() == 1 && store.blobs[0].encrypted)).await;
    rig.swarm.stop().await;
}
