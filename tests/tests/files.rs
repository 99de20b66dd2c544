//! Files of tasks: from the node that has them to those that need them, and back.

use std::time::Instant;

use bytes::Bytes;
use swarm_client::Client;
use swarm_proto::{
    Code, Digest, TaskId,
    api::{ArrayRequest, Health, NodeView, SubmitRequest, TaskView},
    ledger::{End, TaskState},
    limits,
    manifest::{FileEntry, Manifest, Tree},
    peer::{OutputChunk, Which},
    spec::{ItemList, OnPartition},
};
use swarm_tests::{Hosts, Rig, ctl, ended, eventually, shell, submit};
use tokio::sync::mpsc;

async fn put(client: &Client, bytes: &[u8]) -> Digest {
    let (tx, pieces) = mpsc::channel(4);
    let bytes = Bytes::copy_from_slice(bytes);
    let feed = async {
        for piece in bytes.chunks(1 << 20) {
            let _ = tx.send(Ok(Bytes::copy_from_slice(piece))).await;
        }
        drop(tx);
    };
    let (put, ()) = tokio::join!(client.put_blob(Some(bytes.len() as u64), false, pieces), feed);
    put.expect("it is put").digest
}

async fn put_tree(client: &Client, files: &[(&str, &[u8])]) -> Tree {
    let mut entries = Vec::new();
    for (path, bytes) in files {
        let (digest, executable) = (put(client, bytes).await, bytes.starts_with(b"#!"));
        entries.push(FileEntry { path: (*path).to_owned(), size: bytes.len() as u64, digest, executable });
    }
    let manifest = Manifest::new(entries).expect("names that fit");
    manifest.tree(put(client, &manifest.encode()).await)
}

async fn get(client: &Client, digest: Digest) -> Vec<u8> {
    let mut reader = client.read_blob(digest).await.expect("it is somewhere");
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next().await.expect("it comes") {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

async fn file(client: &Client, tree: Tree, path: &str) -> String {
    let manifest = Manifest::decode(&get(client, tree.manifest).await).expect("a manifest");
    assert_eq!(manifest.tree(tree.manifest), tree);
    let entry = manifest.get(path).unwrap_or_else(|| panic!("no {path} among {:?}", manifest.files()));
    String::from_utf8(get(client, entry.digest).await).expect("text")
}

async fn task(client: &Client, job: swarm_proto::JobId, index: u32) -> TaskView {
    client.task(TaskId { job, index }).await.expect("the task is known")
}

fn left(task: &TaskView) -> Tree {
    task.output.as_ref().and_then(|output| output.files).unwrap_or_else(|| panic!("{task:?} left nothing"))
}

const TOOL: &[u8] = b"#!/bin/sh\ntr a-z A-Z < \"$1\"\n";

/// Held back until several nodes have had their turn.
const SCRIPT: &str = "sleep 0.3; mkdir out; ./tool \"$SWARM_ITEM\" > out/result; echo \"$SWARM_ITEM by $SWARM_TASK_ID\"";

#[tokio::test(flavor = "multi_thread")]
async fn an_array_over_files_of_one_node_runs_on_all_and_its_results_outlive_a_worker() {
    let rig = Rig::start(3).await;
    let client = rig.client(0);
    let names: Vec<String> = (0..9).map(|n| format!("in/{n}.txt")).collect();
    let texts: Vec<String> = (0..9).map(|n| format!("text {n} ").repeat(1 + n * 40_000)).collect();
    let files: Vec<(&str, &[u8])> = names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    let (each, inputs) = (put_tree(&client, &files).await, put_tree(&client, &[("tool", TOOL)]).await);
    let request = SubmitRequest { each: Some(each), inputs: Some(inputs), outputs: vec!["out".into()], cores: Some(0.5), ..shell(SCRIPT) };
    let job = submit(&client, request).await;
    // accepted means that no single disk has them alone
    for tree in [each, inputs] {
        assert!(client.blob(tree.manifest).await.expect("known").holders.len() >= 2, "{tree:?}");
    }
    for digest in Manifest::decode(&get(&client, each.manifest).await).expect("a manifest").files().iter().map(|file| file.digest) {
        assert!(client.blob(digest).await.expect("known").holders.len() >= 2, "{digest}");
    }
    let view = ended(&client, job).await;
    assert_eq!(view.state, Some(TaskState::Succeeded), "{view:?}");
    let mut nodes = std::collections::BTreeSet::new();
    for (n, text) in texts.iter().enumerate() {
        let done = task(&client, job, u32::try_from(n).expect("few")).await;
        nodes.insert(done.node);
        assert!(file(&rig.client(1), left(&done), "out/result").await == text.to_uppercase(), "{n}");
        let said = done.output.expect("it said something").stdout;
        assert_eq!(said.into_bytes().expect("text"), format!("{} by {job}.{n}\n", names[n]).into_bytes());
    }
    assert!(nodes.len() > 1, "all on {nodes:?}");
    // two nodes keep each result, so one of them can go
    let first = task(&client, job, 0).await;
    let tree = left(&first);
    eventually("a second copy", async || client.blob(tree.manifest).await.ok().filter(|view| view.holders.len() >= 2)).await;
    let name = client.nodes().await.expect("nodes").into_iter().find(|view| Some(view.node) == first.node).expect("a member").name;
    let worker = rig.position(&name);
    rig.signal(worker, rustix::process::Signal::KILL);
    let other = rig.client((worker + 1) % 3);
    eventually("there is a leader", async || other.blob(tree.manifest).await.ok().filter(|view| !view.holders.is_empty())).await;
    assert_eq!(file(&other, tree, "out/result").await, texts[0].to_uppercase());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_the_task_that_comes_next_comes_while_this_one_runs() {
    let rig = Rig::start(3).await;
    let client = rig.client(0);
    let dir = tempfile::tempdir().expect("a directory");
    let go = dir.path().join("go");
    let names: Vec<String> = (0..9).map(|n| format!("{n}")).collect();
    let texts: Vec<Vec<u8>> = (0..9).map(|n| vec![n; 5 << 20]).collect();
    let files: Vec<(&str, &[u8])> = names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_slice())).collect();
    let each = put_tree(&client, &files).await;
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; head -c 1 \"$SWARM_ITEM\" | od -An -tu1", go.display());
    // one at a time on each node
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    let request = SubmitRequest { each: Some(each), cores: Some(cores as f64), ..shell(&script) };
    let job = submit(&client, request).await;
    let named: Vec<Digest> = texts.iter().map(|text| Digest(*blake3::hash(text).as_bytes())).collect();
    // two nodes have them all; the third one gets that of its task, and that of the task which it is told of
    eventually("a node has the file of its next task", async || {
        let mut everywhere = 0;
        for digest in &named {
            everywhere += usize::from(client.blob(*digest).await.ok()?.holders.len() == 3);
        }
        (everywhere == 2).then_some(())
    })
    .await;
    assert_eq!(client.job(job).await.expect("it is known").counts.succeeded, 0, "all that run wait");
    std::fs::write(&go, b"").expect("written");
    assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded));
    for index in 0..9 {
        let task = task(&client, job, index).await;
        let said = task.output.expect("it said something").stdout.into_bytes().expect("text");
        assert_eq!((String::from_utf8_lossy(&said).trim().to_owned(), task.attempt.0), (index.to_string(), 1));
    }
    rig.swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_rots_where_it_is_used_is_brought_again_within_the_attempt() {
    let rig = Rig::start(2).await;
    let client = rig.client(0);
    let data = "some text ".repeat(300_000);
    let inputs = put_tree(&client, &[("data", data.as_bytes()), ("other", b"other")]).await;
    let here = rig.swarm.nodes()[1].clone();
    assert!(ctl(&here.socket, &["node", "cordon", &rig.swarm.nodes()[0].name]).status.success());
    let request = || SubmitRequest {
        inputs: Some(inputs),
        retries: [(swarm_proto::spec::Cause::Input, 0)].into(),
        ..shell("wc -c < data; cat other")
    };
    let good = async |what: &str| {
        let job = submit(&client, request()).await;
        assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded), "{what}");
        let task = task(&client, job, 0).await;
        let said = task.output.as_ref().map(|output| output.stdout.clone().into_bytes().expect("text"));
        assert_eq!((said, task.attempt.0), (Some(format!("{}\nother", data.len()).into_bytes()), 1), "{what}: {task:?}");
    };
    good("as it was put").await;
    let blobs = rig.swarm.dir().join(&here.name).join("blobs/whole");
    for (what, blob) in [("a file", blake3::hash(data.as_bytes())), ("the list of files", blake3::Hash::from_bytes(inputs.manifest.0))] {
        let name = blob.to_hex().to_string();
        let path = blobs.join(&name[..2]).join(&name);
        let stored = std::fs::read(&path).expect("it is there");
        let mut rotten = stored.clone();
        rotten[stored.len() / 2] ^= 1;
        std::fs::write(&path, rotten).expect("it can be written");
        good(what).await;
        assert!(std::fs::read(&path).is_ok_and(|healed| healed == stored), "{what}");
    }
    rig.swarm.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_at_length_is_a_blob_and_long_lists_are_items() {
    let rig = Rig::start(2).await;
    let client = rig.client(0);
    let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    assert!(lines.len() > swarm_proto::limits::INLINE_INPUT);
    let list = ItemList { digest: put(&client, lines.as_bytes()).await, size: lines.len() as u64 };
    let array = ArrayRequest { count: Some(3), list: Some(list), ..ArrayRequest::default() };
    let request = SubmitRequest { array: Some(array), ..shell("for n in $(seq 500); do echo {} $n; done") };
    let job = submit(&client, request).await;
    assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded));
    for n in 0..3 {
        let output = task(&client, job, n).await.output.expect("it said something");
        let want: String = (1..=500).map(|times| format!("line {n} {times}\n")).collect();
        assert_eq!(output.stdout_len, want.len() as u64);
        assert_eq!(get(&rig.client(1), output.stdout_blob.expect("more than the head")).await, want.into_bytes());
    }
    // what the outcome can hold is in it, and one byte more is a blob
    for len in [limits::INLINE_RESULT, limits::INLINE_RESULT + 1] {
        let job = submit(&client, shell(&format!("head -c {len} /dev/zero | tr '\\0' x"))).await;
        assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded));
        let output = task(&client, job, 0).await.output.expect("it said something");
        assert_eq!((output.stdout_len, output.stdout_blob.is_some()), (len as u64, len > limits::INLINE_RESULT));
        let head = output.stdout.into_bytes().expect("text");
        assert_eq!(head, vec![b'x'; limits::INLINE_RESULT]);
        if let Some(blob) = output.stdout_blob {
            assert_eq!(get(&client, blob).await, vec![b'x'; len]);
        }
    }
    rig.swarm.stop().await;
}

/// More than a worker keeps of a stream.
const LARGE: u64 = 3 * limits::KEPT_OUTPUT;

/// What swarmctl prints of a task's standard output, and what it says beside it.
fn logs(socket: &std::path::Path, task: TaskId) -> (Vec<u8>, String) {
    let done = ctl(socket, &["task", "logs", &task.to_string()]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    (done.stdout, said)
}

/// A task that writes a line again and again, and what that is.
async fn says(client: &Client, line: &str) -> (TaskView, Vec<u8>) {
    let want: Vec<u8> = format!("{line}\n").bytes().cycle().take(LARGE as usize).collect();
    let job = submit(client, shell(&format!("yes {line} | head -c {LARGE}; echo oops >&2"))).await;
    assert_eq!(ended(client, job).await.state, Some(TaskState::Succeeded));
    let done = task(client, job, 0).await;
    let output = done.output.clone().expect("it said something");
    assert_eq!(output.stdout_len, LARGE);
    assert!(output.stdout_blob.expect("more than the head").0 == *blake3::hash(&want).as_bytes());
    (done, want)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_task_wrote_outlives_its_node_however_much_it_is() {
    let rig = Rig::start(3).await;
    let client = rig.client(0);
    let (done, want) = says(&client, "123456789").await;
    for node in rig.swarm.nodes() {
        let (stdout, stderr) = logs(&node.socket, done.task);
        assert!(stdout == want && stderr == "oops\n", "{}: {} bytes, {stderr}", node.name, stdout.len());
    }
    // its end was told, so another node has what it wrote: no time for anybody to bring it there
    let (done, want) = says(&client, "987654321").await;
    let name = client.nodes().await.expect("nodes").into_iter().find(|view| Some(view.node) == done.node).expect("a member").name;
    let worker = rig.position(&name);
    rig.signal(worker, rustix::process::Signal::KILL);
    let other = (worker + 1) % 3;
    eventually("there is a leader", async || rig.client(other).task(done.task).await.ok()).await;
    let is_down = |view: &NodeView| view.name == name && view.health == Health::Down;
    eventually("its node is down", async || rig.client(other).nodes().await.ok().filter(|nodes| nodes.iter().any(is_down))).await;
    let asked = Instant::now();
    let (stdout, stderr) = logs(&rig.swarm.nodes()[other].socket, done.task);
    assert!(stdout == want && stderr == "oops\n", "{} bytes, {stderr}", stdout.len());
    assert!(asked.elapsed() < limits::IDLE, "it waited for a connection to a host that is known to be gone");
    let whole = ctl(&rig.swarm.nodes()[other].socket, &["task", "result", &done.task.to_string()]);
    assert!(whole.status.success() && whole.stdout == want, "{}", String::from_utf8_lossy(&whole.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_does_not_fail_because_of_what_it_wrote() {
    let exec = mesh_config::Exec { enabled: true, sandbox: Some(mesh_config::Sandbox::None), ..Default::default() };
    // either the node keeps no more, or its store has no room for more
    for (limit, quota, kept) in [(Some(LARGE - 7), None, LARGE - 7), (None, Some(limits::KEPT_OUTPUT + (1 << 20)), limits::KEPT_OUTPUT)] {
        let hosts = Hosts::start(1, |config| {
            config.exec = mesh_config::Exec { stdout_limit: limit, ..exec.clone() };
            config.blobs.quota = quota;
        })
        .await;
        hosts.unite().await;
        let client = hosts.list[0].client();
        let job = submit(&client, shell(&format!("yes 123456789 | head -c {LARGE}"))).await;
        assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded));
        let output = task(&client, job, 0).await.output.expect("it said something");
        assert_eq!(output.stdout_len, LARGE);
        let digest = output.stdout_blob.expect("its beginning");
        assert_eq!(get(&client, digest).await.len() as u64, kept);
        let mut chunks = client.logs(TaskId { job, index: 0 }, Which::Both, false).await.expect("they come");
        let (mut got, mut missing) = (0, 0);
        while let Some(chunk) = chunks.next().await.expect("they come") {
            match chunk {
                OutputChunk::Bytes { data, .. } => got += data.len() as u64,
                OutputChunk::Skipped { bytes, .. } => missing += bytes,
                OutputChunk::End => break,
                OutputChunk::Failed(problem) => panic!("{problem}"),
            }
        }
        assert_eq!((got, missing), (kept, LARGE - kept));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_said() {
    let rig = Rig::start(2).await;
    let client = rig.client(0);
    let nowhere = Tree { manifest: Digest([9; 32]), files: 1, bytes: 1 };
    let problem = client.submit(&SubmitRequest { inputs: Some(nowhere), ..shell("true") }).await.expect_err("nobody has it");
    assert_eq!(problem.code, Code::NotFound, "{problem:?}");
    // what is no manifest, and one that counts otherwise
    let text = put(&client, b"hello").await;
    let none = Tree { manifest: text, files: 1, bytes: 5 };
    let problem = client.submit(&SubmitRequest { inputs: Some(none), ..shell("true") }).await.expect_err("no manifest");
    assert_eq!(problem.code, Code::BadRequest, "{problem:?}");
    let tree = put_tree(&client, &[("a", b"a")]).await;
    let request =
        SubmitRequest { inputs: Some(Tree { bytes: 2, ..tree }), retries: [(swarm_proto::spec::Cause::Input, 0)].into(), ..shell("true") };
    let end = client.run_to_end(request).await;
    assert!(matches!(end, Some(End::Input(_))), "{end:?}");
    let end = client.run_to_end(SubmitRequest { outputs: vec!["none".into()], ..shell("true") }).await;
    assert!(matches!(&end, Some(End::Output(why)) if why.contains("'none' is not there")), "{end:?}");
    for outputs in ["../up", "/etc/passwd", "con"] {
        let refused = client.submit(&SubmitRequest { outputs: vec![outputs.into()], ..shell("true") }).await;
        assert_eq!(refused.expect_err(outputs).code, Code::BadRequest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_task_waits_is_said_of_its_files_too() {
    let rig = Rig::start(2).await;
    let client = rig.client(0);
    let tree = put_tree(&client, &[("a", b"a")]).await;
    // nobody can run it, so it stays in the queue
    let labels = [("no".to_owned(), "body".to_owned())].into();
    let job = submit(&client, SubmitRequest { inputs: Some(tree), labels, ..shell("true") }).await;
    let explain = client.explain(TaskId { job, index: 0 }).await.expect("explained");
    let [input] = explain.inputs.as_slice() else { panic!("{explain:?}") };
    assert_eq!((input.digest, input.files, input.bytes, input.held_by, input.holders.len()), (tree.manifest, 1, 1, 2, 2), "{explain:?}");
    let other = Tree { files: 2, ..tree };
    let retries: std::collections::BTreeMap<_, _> = [(swarm_proto::spec::Cause::Input, 0)].into();
    let job = submit(&client, SubmitRequest { inputs: Some(other), retries, ..shell("true") }).await;
    ended(&client, job).await;
    let explain = client.explain(TaskId { job, index: 0 }).await.expect("explained");
    assert!(matches!(&explain.files, Some(End::Input(why)) if why.contains("it names 1 files")), "{explain:?}");
    let shown = ctl(&rig.swarm.nodes()[1].socket, &["task", "explain", &job.to_string()]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("its last attempt ended so: no input:"), "{shown:?}");
}

trait RunToEnd {
    async fn run_to_end(&self, request: SubmitRequest) -> Option<End>;
}

impl RunToEnd for Client {
    async fn run_to_end(&self, request: SubmitRequest) -> Option<End> {
        let job = submit(self, request).await;
        ended(self, job).await;
        task(self, job, 0).await.end
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_lost_is_made_again() {
    let rig = Rig::start(4).await;
    let client = rig.client(0);
    let job = submit(&client, SubmitRequest { outputs: vec!["out".into()], ..shell("echo kept > out") }).await;
    assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded));
    let tree = left(&task(&client, job, 0).await);
    let holders = async |asked: usize| {
        let view = rig.client(asked).blob(tree.manifest).await.ok()?;
        Some(view.holders.iter().map(|holder| rig.position(&holder.name)).collect::<Vec<_>>())
    };
    // on two nodes before its end was told
    let before = eventually("its holders are known", async || holders(0).await.filter(|holders| holders.len() >= 2)).await;
    assert_eq!(before.len(), 2, "{before:?}");
    rig.signal(before[0], rustix::process::Signal::KILL);
    let asked = (0..4).find(|n| !before.contains(n)).expect("four nodes");
    let after = eventually("another one has it", async || {
        holders(asked).await.filter(|holders| holders.iter().filter(|holder| **holder != before[0]).count() >= 2)
    })
    .await;
    assert!(after.iter().any(|holder| !before.contains(holder)), "{before:?} {after:?}");
    assert_eq!(file(&rig.client(asked), tree, "out").await, "kept\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_back_in_time_delivers_what_its_tasks_left() {
    let mut rig = Rig::start(3).await;
    // it ends while its daemon is away, however soon that is seen
    let on_partition = Some(OnPartition::Wait);
    let request = SubmitRequest { outputs: vec!["out".into()], on_partition, ..shell("sleep 1; seq 1000; echo $SWARM_ATTEMPT > out") };
    let job = submit(&rig.client(0), request).await;
    let worker = rig.node_of(0, job).await;
    let client = rig.client((worker + 1) % 3);
    rig.swarm.kill(worker).await.expect("killed");
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    rig.swarm.restart(worker).expect("started");
    assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded));
    let done = task(&client, job, 0).await;
    assert_eq!(file(&client, left(&done), "out").await, "1\n", "the first attempt's");
    let said: String = (1..=1_000).map(|n| format!("{n}\n")).collect();
    let stdout = done.output.and_then(|output| output.stdout_blob).expect("more than the head");
    assert_eq!(get(&client, stdout).await, said.into_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_needs_and_what_it_left_stay_where_all_else_is_collected() {
    let rig = Rig::start(3).await;
    let client = rig.client(0);
    let dir = tempfile::tempdir().expect("a directory");
    let go = dir.path().join("go");
    let names: Vec<String> = (0..6).map(|n| format!("{n}")).collect();
    let texts: Vec<Vec<u8>> = (0..6).map(|n| vec![n; 2 << 20]).collect();
    let files: Vec<(&str, &[u8])> = names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_slice())).collect();
    let each = put_tree(&client, &files).await;
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done; head -c 1 \"$SWARM_ITEM\" | od -An -tu1 | tee out", go.display());
    // one at a time on each node: three run, and three wait
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    #[expect(clippy::cast_precision_loss, reason = "a few")]
    let cores = Some(cores as f64);
    let job = submit(&client, SubmitRequest { each: Some(each), cores, outputs: vec!["out".into()], ..shell(&script) }).await;
    eventually("three run", async || (client.job(job).await.ok()?.counts.assigned == 3).then_some(())).await;
    let not_needed = put(&client, &[9; 3 << 20]).await;
    let collect = async || {
        for n in 0..3 {
            rig.client(n).collect_blobs(0).await.expect("it collects");
        }
    };
    let held = async |digest: Digest| {
        let mut held = 0;
        for n in 0..3 {
            held += usize::from(rig.client(n).store().await.expect("a list").blobs.iter().any(|blob| blob.digest == digest));
        }
        held
    };
    assert!(held(not_needed).await >= 1);
    collect().await;
    assert_eq!(held(not_needed).await, 0);
    let inputs: Vec<Digest> = texts.iter().map(|text| Digest(*blake3::hash(text).as_bytes())).chain([each.manifest]).collect();
    for digest in &inputs {
        assert!(held(*digest).await >= 2, "{digest} is needed");
    }
    std::fs::write(&go, b"").expect("written");
    assert_eq!(ended(&client, job).await.state, Some(TaskState::Succeeded));
    collect().await;
    for index in 0..6 {
        let done = task(&client, job, index).await;
        let tree = left(&done);
        assert!(held(tree.manifest).await >= 2, "{index}: {tree:?}");
        assert_eq!((file(&client, tree, "out").await.trim(), done.attempt.0), (index.to_string().as_str(), 1));
    }
    eventually("inputs go with their job", async || {
        collect().await;
        let mut left = 0;
        for digest in &inputs {
            left += held(*digest).await;
        }
        (left == 0).then_some(())
    })
    .await;
}
