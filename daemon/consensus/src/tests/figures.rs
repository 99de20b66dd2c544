//! What an append and a commit cost on this host's disk, beside a bare fdatasync. Run on a quiet host, in release:
//! `cargo test --release -p swarm-consensus figures -- --ignored --nocapture`.

use std::{
    fs::OpenOptions,
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use openraft::{
    EntryPayload,
    storage::{IOFlushed, RaftLogStorage as _},
    type_config::TypeConfigExt as _,
};

use super::*;
use crate::{
    DirDisk,
    engine::{Data, Entry, Rt, Types, log_id},
    health::Vitals,
    log::{SEGMENT, Sound},
};

const ROUNDS: usize = 7;
const EACH: usize = 300;

fn p50(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// One 200-byte write and sync after another, over a file of zeros.
fn bare(dir: &Path, name: &str, count: usize) -> Vec<Duration> {
    let path = dir.join(name);
    if !path.exists() {
        std::fs::write(&path, vec![0; 4 << 20]).unwrap();
    }
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.sync_all().unwrap();
    let timed = |i: usize| {
        let began = Instant::now();
        file.seek(SeekFrom::Start(i as u64 * 512)).unwrap();
        file.write_all(&[3; 200]).unwrap();
        file.sync_data().unwrap();
        began.elapsed()
    };
    (0..count).map(timed).collect()
}

fn bare_of_three(dir: &Path, count: usize) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3).map(|i| scope.spawn(move || bare(dir, &format!("bare{i}"), count))).collect();
        writers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    })
}

fn real<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(Rt::scope(1, test))
}

#[test]
#[ignore = "a measurement"]
fn figures_of_one_append() {
    real(async {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(DirDisk::open(dir.path().join("log")).unwrap());
        let mut store = Sound::check(disk).unwrap().open(SEGMENT, &Lanes::threads(), Arc::new(Vitals::new())).unwrap();
        let mut index = 0;
        let (mut single, mut many, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            alone.extend(bare(dir.path(), "bare", EACH));
            for (times, count) in [(&mut single, 1), (&mut many, 64)] {
                for _ in 0..EACH {
                    let entries: Vec<Entry> = (index..index + count)
                        .map(|i| Entry { log_id: log_id(1, i), payload: EntryPayload::Normal(Data::of(Bytes::from_static(&[7; 200]))) })
                        .collect();
                    index += count;
                    let (tx, rx) = Types::oneshot();
                    let began = Instant::now();
                    store.append(entries, IOFlushed::signal(tx)).await.unwrap();
                    rx.await.unwrap().unwrap();
                    times.push(began.elapsed());
                }
            }
        }
        println!("fdatasync {:?}, append of 200 B {:?}, of 64 x 200 B {:?} (p50)", p50(alone), p50(single), p50(many));
        store.close().await;
    });
}

#[test]
#[ignore = "a measurement"]
fn figures_of_one_commit() {
    real(async {
        let dir = tempfile::tempdir().unwrap();
        let net = Net::default();
        let mut nodes = Vec::new();
        for me in 1..=3 {
            let disk = Arc::new(DirDisk::open(dir.path().join(format!("n{me}"))).unwrap());
            let settings = Settings::default();
            nodes.push(start(&net, Spec { settings, ..spec(me, disk, me, Lanes::threads()) }).await.unwrap());
        }
        nodes[0].initialize().await.unwrap();
        nodes[0].role().wait_for(|r| r.is_leader).await.unwrap();
        nodes[0].read_barrier().await.unwrap();
        for me in 2..=3 {
            nodes[0].add_learner(NodeId(me)).await.unwrap();
            nodes[0].change_voters((1..=me).map(NodeId).collect()).await.unwrap();
        }
        let (mut commits, mut reads, mut three) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS as u64 {
            let at = dir.path().to_owned();
            three.extend(Lanes::threads().block("bare", move || bare_of_three(&at, EACH)).await.unwrap());
            for n in 0..EACH as u64 {
                let began = Instant::now();
                propose(&nodes[0], round * EACH as u64 + n).await;
                commits.push(began.elapsed());
                let began = Instant::now();
                nodes[0].read_barrier().await.unwrap();
                reads.push(began.elapsed());
            }
        }
        println!("fdatasync with three writers {:?}, commit {:?}, read barrier {:?} (p50)", p50(three), p50(commits), p50(reads));
        for node in nodes.iter().rev() {
            node.shutdown().await;
        }
    });
}
