//! One bit that changed in one file of a used state directory: the daemon refuses with the file's name, or works on with what its peers
//! have, and never gives a wrong answer.
//!
//! `SWARM_FLIPS` says how many bits of each file; `tests/run --long` takes 12. The seed and each bit are printed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use swarm_client::Client;
use swarm_proto::{
    Digest, JobId, NodeId, Problem, TaskId,
    api::{Phase, Status, SubmitRequest},
    ledger::TaskState,
    peer::{OutputChunk, Which},
};
use swarm_tests::{Chance, Hosts, ended, eventually, rounds, say, shell, submit};

const MIB: usize = 1 << 20;
/// The host whose disk loses bits.
const VICTIM: usize = 1;
/// Most of a file where bits are flipped as often as in all the rest of it: its head.
const HEAD: u64 = 2048;

/// `# check `, and nothing is checked without it.
const MARK: u64 = 8;

/// What a start of the daemon came to.
enum Outcome {
    Refused,
    Damaged(String),
    Up(Box<Status>),
}

/// Files that may differ without anybody's harm, and why.
fn is_unread(path: &Path, at: u64) -> Option<&'static str> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_small = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= 1024);
    match name {
        "cluster.toml" | "node.key" | "node.crt" | "ca.crt" if at < MARK => Some("the mark of a checksum's line: what follows is whole"),
        "keeper.lock" => Some("looked at only to end a keeper that does not let go"),
        _ if name.ends_with(".tmp") => Some("begun by an earlier run, and removed"),
        _ if is_small && (name.ends_with(".stdout") || name.ends_with(".stderr")) => Some("the ledger has all of it, and is asked instead"),
        _ => None,
    }
}

struct Scene {
    hosts: Hosts,
    node: NodeId,
    jobs: Vec<JobId>,
    /// What tasks wrote to both streams.
    wrote: BTreeMap<JobId, (Vec<u8>, Vec<u8>)>,
    blobs: BTreeMap<Digest, Bytes>,
    pinned: Digest,
}

impl Scene {
    async fn start(chance: &mut Chance) -> Self {
        let hosts = Hosts::start(3, |config| {
            config.node.labels.insert("host".into(), config.node.name.clone());
        })
        .await;
        hosts.unite().await;
        let client = hosts.list[VICTIM].client();
        let mut jobs = Vec::new();
        for _ in 0..40 {
            jobs.push(submit(&client, SubmitRequest { noop: true, ..SubmitRequest::default() }).await);
        }
        let mut wrote = BTreeMap::new();
        for (out, err) in [(20, 0), (30_000, 9_000), (900, 4_000)] {
            let script = format!("yes out | head -c {out}; yes err | head -c {err} >&2");
            let request = SubmitRequest { labels: [("host".to_owned(), format!("host{}", VICTIM + 1))].into(), ..shell(&script) };
            let said = |word: &str, len| format!("{word}\n").into_bytes().into_iter().cycle().take(len).collect();
            wrote.insert(submit(&client, request).await, (said("out", out), said("err", err)));
        }
        for job in jobs.iter().chain(wrote.keys()) {
            assert_eq!(ended(&client, *job).await.state, Some(TaskState::Succeeded));
        }
        let mut blobs = BTreeMap::new();
        let mut pinned = Digest([0; 32]);
        for (len, encrypt) in [(700, false), (2 * MIB + 5, false), (MIB + 9, true)] {
            let data = Bytes::from(chance.bytes(len));
            pinned = client.put_bytes(data.clone(), encrypt).await.expect("it is put").digest;
            held_by_all(&client, pinned).await;
            blobs.insert(pinned, data);
        }
        client.pin_blob(pinned, true).await.expect("it is there");
        // what tasks wrote is owed twice, too
        for blob in client.store().await.expect("it answers").blobs {
            let another = async || client.blob(blob.digest).await.ok().filter(|view| view.holders.len() > 1);
            eventually("another host holds it", another).await;
        }
        let node = client.status().await.expect("up").node.expect("a member");
        Self { hosts, node, jobs, wrote, blobs, pinned }
    }

    fn client(&self) -> Client {
        self.hosts.list[VICTIM].client()
    }

    /// Starts the daemon and waits until it is clear what becomes of it.
    async fn begin(&mut self) -> Outcome {
        self.hosts.list[VICTIM].run();
        let client = self.client();
        let host = &mut self.hosts.list[VICTIM];
        eventually("the daemon is up, or refuses", async || {
            if host.ended().is_some() {
                return Some(Outcome::Refused);
            }
            let status = client.status().await.ok()?;
            match status.phase {
                Phase::Damaged => Some(Outcome::Damaged(status.trouble)),
                Phase::Ready if status.is_voter && status.leader.is_some() => Some(Outcome::Up(Box::new(status))),
                Phase::Ready | Phase::Starting | Phase::Unjoined | Phase::Joining | Phase::Stopping => None,
            }
        })
        .await
    }

    /// Everything that is known is asked of the victim. What it refuses, it refuses for that file.
    async fn answers(&self, told: &str, file: &Path) {
        let client = self.client();
        for job in &self.jobs {
            let view = eventually("it knows a leader", async || client.job(*job).await.ok()).await;
            assert_eq!(view.state, Some(TaskState::Succeeded), "{told}: {job}");
        }
        for (job, (out, err)) in &self.wrote {
            for (which, expected) in [(Which::Stdout, out), (Which::Stderr, err)] {
                let (got, problem) = output(&client, *job, which).await;
                // standard error is nowhere else than on its node and, its head, in the ledger: it may be gone, and never be wrong
                let is_refused = which == Which::Stderr && problem.is_some() && expected.starts_with(&got);
                assert!(is_refused || got == *expected, "{told}: {which:?} of {job}: {} bytes, {problem:?}", got.len());
            }
        }
        let file = file.display().to_string();
        for (digest, data) in &self.blobs {
            match read(&client, *digest).await {
                Ok(got) => assert!(got == *data, "{told}: {digest} differs"),
                Err(problem) => assert!(problem.to_string().contains(&file), "{told}: {digest}: {problem}"),
            }
        }
        // as the scrub does in its time
        for blob in client.store().await.expect("it answers").blobs {
            let verified = client.verify_blob(blob.digest).await.unwrap_or_else(|e| panic!("{told}: {}: {e}", blob.digest));
            assert!(verified.is_sound, "{told}: {}", blob.digest);
        }
    }

    /// One bit of one file, from a stop to the next.
    async fn flip(&mut self, file: &Path, at: u64, bit: u8) {
        let sound = std::fs::read(file).expect("readable");
        let mut bad = sound.clone();
        bad[usize::try_from(at).expect("in memory")] ^= 1 << bit;
        std::fs::write(file, &bad).expect("written");
        let said_before = self.hosts.list[VICTIM].log().len();
        let name = file.strip_prefix(&self.hosts.list[VICTIM].state).expect("below it").display().to_string();
        let told = format!("bit {bit} of byte {at} of {name} ({} bytes)", sound.len());
        let outcome = self.begin().await;
        let full = file.display().to_string();
        let word = match &outcome {
            Outcome::Refused => {
                let log = self.hosts.list[VICTIM].log().split_off(said_before);
                assert!(log.contains(&full), "{told}: refused, and the file is not named: {log}");
                "refused"
            }
            Outcome::Damaged(trouble) => {
                assert!(trouble.contains(&full), "{told}: {trouble}");
                self.answers(&told, file).await;
                "works, and does not vote"
            }
            Outcome::Up(status) => {
                assert_eq!(status.node, Some(self.node), "{told}");
                self.answers(&told, file).await;
                self.judge_up((file, at), &bad, said_before, &told)
            }
        };
        if !matches!(outcome, Outcome::Refused) {
            self.hosts.list[VICTIM].stop().await;
        }
        if std::fs::read(file).is_ok_and(|now| now == bad) {
            std::fs::write(file, sound).expect("written");
        }
        say(&format!("{told}: {word}"));
    }

    /// It is up and answers right: the bit is mended, or said, or of no use to anybody.
    fn judge_up(&self, (file, at): (&Path, u64), bad: &[u8], said_before: usize, told: &str) -> &'static str {
        let log = self.hosts.list[VICTIM].log().split_off(said_before);
        let name = file.file_name().and_then(|name| name.to_str()).expect("text");
        let is_named = log.contains(&file.display().to_string()) || (name.len() == 64 && log.contains(name));
        if std::fs::read(file).map_or(true, |now| now != bad) {
            return if is_named { "mended, and said" } else { "mended" };
        }
        if is_named {
            return "said";
        }
        let why = is_unread(file, at);
        assert!(why.is_some(), "{told}: silent: {log}");
        why.unwrap_or_default()
    }
}

async fn read(client: &Client, digest: Digest) -> Result<Vec<u8>, Problem> {
    let mut reader = client.read_blob(digest).await?;
    let mut got = Vec::new();
    while let Some(piece) = reader.next().await? {
        got.extend_from_slice(&piece);
    }
    Ok(got)
}

/// What is given of what a task wrote, and why not all of it.
async fn output(client: &Client, job: JobId, which: Which) -> (Vec<u8>, Option<Problem>) {
    let mut stream = client.logs(TaskId { job, index: 0 }, which, false).await.expect("it begins");
    let mut got = Vec::new();
    while let Some(chunk) = stream.next().await.expect("it goes on") {
        match chunk {
            OutputChunk::Bytes { data, .. } => got.extend_from_slice(&data),
            OutputChunk::Failed(problem) => return (got, Some(problem)),
            OutputChunk::Skipped { .. } => panic!("{job}: something of {which:?} is left out"),
            OutputChunk::End => {}
        }
    }
    (got, None)
}

async fn held_by_all(client: &Client, digest: Digest) {
    let mut lines = client.push_blob(digest, &["all".to_owned()]).await.expect("it begins");
    while lines.next().await.expect("it goes on").is_some() {}
}

/// All files below a directory that hold something.
fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).expect("a directory").flatten() {
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() && entry.metadata().is_ok_and(|metadata| metadata.len() > 0) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn one_bit_that_changed_is_refused_said_or_mended_and_never_silent() {
    let mut chance = Chance::new();
    let mut scene = Scene::start(&mut chance).await;
    scene.hosts.list[VICTIM].stop().await;
    let all = files(&scene.hosts.list[VICTIM].state);
    let names: Vec<String> = all.iter().map(|file| file.display().to_string()).collect();
    for part in ["cluster.toml", "node.key", "node.crt", "ca.crt", "blobs.key", "log/owner", "log/directory", ".log", "records/member"] {
        assert!(names.iter().any(|name| name.ends_with(part)), "{part} is not among {names:?}");
    }
    for file in all {
        for n in 0..rounds("SWARM_FLIPS", 1) {
            // what an earlier bit had it make anew may be longer, or gone
            let Ok(len) = std::fs::metadata(&file).map(|metadata| metadata.len()) else { continue };
            let at = chance.below(if n % 2 == 0 { len.min(HEAD) } else { len });
            let bit = u8::try_from(chance.below(8)).expect("a bit");
            scene.flip(&file, at, bit).await;
        }
    }
    let status = scene.begin().await;
    assert!(matches!(status, Outcome::Up(_)), "it votes again");
    scene.answers("at the end", Path::new("none")).await;
    let held = scene.client().store().await.expect("it answers").blobs;
    assert!(held.iter().any(|blob| blob.digest == scene.pinned));
}
