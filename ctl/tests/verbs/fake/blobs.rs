//! The blobs of the scripted daemon, in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use swarm_api::{BlobPiece, BlobTaker};
use swarm_proto::{
    Code, Digest, Problem,
    api::{BlobLine, BlobPut},
    manifest::{FileEntry, Manifest, Tree},
};
use tokio::sync::{mpsc, oneshot};

use super::lock;

#[derive(Default)]
pub(crate) struct Blobs {
    all: Mutex<BTreeMap<Digest, Bytes>>,
    /// How many came from clients, those that were here already included.
    puts: AtomicUsize,
    /// How many of them are to be kept encrypted.
    encrypted: AtomicUsize,
    /// What was read of any.
    reads: Mutex<Vec<Range<u64>>>,
    /// Where the next ones that read are let down.
    pub(crate) lets_down: Mutex<VecDeque<LetDown>>,
}

/// After so many bytes.
pub(crate) enum LetDown {
    /// The daemon goes away.
    Broken(usize),
    /// Nothing more comes.
    Stalled(usize),
}

impl Blobs {
    pub(crate) fn put(&self, data: impl Into<Bytes>) -> Digest {
        let data = data.into();
        let digest = Digest(blake3::hash(&data).into());
        lock(&self.all).insert(digest, data);
        digest
    }

    pub(crate) fn get(&self, digest: Digest) -> Option<Bytes> {
        lock(&self.all).get(&digest).cloned()
    }

    pub(crate) fn puts(&self) -> usize {
        self.puts.load(Ordering::Relaxed)
    }

    /// Puts files and their manifest; those whose name begins with `bin` are programs.
    pub(crate) fn put_tree(&self, files: &[(&str, &str)]) -> Tree {
        let entry = |(path, text): &(&str, &str)| FileEntry {
            path: (*path).into(),
            size: text.len() as u64,
            digest: self.put(text.as_bytes().to_vec()),
            executable: path.starts_with("bin"),
        };
        let manifest = Manifest::new(files.iter().map(entry).collect()).unwrap();
        manifest.tree(self.put(manifest.encode()))
    }

    /// Each file of a tree: its path, its text, and whether it is a program.
    pub(crate) fn files(&self, tree: Tree) -> Vec<(String, String, bool)> {
        let manifest = Manifest::decode(&self.get(tree.manifest).unwrap()).unwrap();
        assert_eq!(manifest.tree(tree.manifest), tree, "it is what it says");
        let text = |file: &FileEntry| String::from_utf8(self.get(file.digest).unwrap().into()).unwrap();
        manifest.files().iter().map(|file| (file.path.clone(), text(file), file.executable)).collect()
    }

    pub(crate) fn encrypted(&self) -> usize {
        self.encrypted.load(Ordering::Relaxed)
    }

    pub(super) fn take(self: Arc<Self>, encrypt: bool) -> BlobTaker {
        let (pieces, mut taken) = mpsc::channel::<Option<Bytes>>(4);
        let (reply, put) = oneshot::channel();
        tokio::spawn(async move {
            let mut data = Vec::new();
            while let Some(piece) = taken.recv().await {
                match piece {
                    Some(piece) => data.extend_from_slice(&piece),
                    None => {
                        self.puts.fetch_add(1, Ordering::Relaxed);
                        self.encrypted.fetch_add(usize::from(encrypt), Ordering::Relaxed);
                        let size = data.len() as u64;
                        let _ = reply.send(Ok(BlobPut { digest: self.put(data), size }));
                        return;
                    }
                }
            }
        });
        (pieces, put)
    }

    /// What was read since this was asked last.
    pub(crate) fn reads(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut lock(&self.reads))
    }

    pub(super) fn read(&self, digest: Digest, part: Range<u64>) -> mpsc::Receiver<Result<BlobPiece, Problem>> {
        let (tx, rx) = mpsc::channel(4);
        let Some(data) = self.get(digest) else {
            tx.try_send(Err(Problem::new(Code::NotFound, format!("there is no blob {digest}"), "nobody holds it"))).unwrap();
            return rx;
        };
        lock(&self.reads).push(part.clone());
        let within = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(data.len());
        let (size, mut part) = (data.len() as u64, data.slice(within(part.start)..within(part.end)));
        let last = match lock(&self.lets_down).pop_front() {
            None => Some(Ok(BlobPiece::End)),
            Some(LetDown::Broken(after)) => {
                part.truncate(after);
                Some(Err(Problem::new(Code::NotReady, "the blob broke off", "this daemon is stopping")))
            }
            Some(LetDown::Stalled(after)) => {
                part.truncate(after);
                None
            }
        };
        tokio::spawn(async move {
            let pieces = [BlobPiece::Size(size), BlobPiece::Bytes(part)].map(Ok);
            for piece in pieces.into_iter().chain(last) {
                let _ = tx.send(piece).await;
            }
            tx.closed().await;
        });
        rx
    }

    /// It is here already.
    pub(super) fn bring(&self) -> mpsc::Receiver<BlobLine> {
        let (tx, rx) = mpsc::channel(1);
        tx.try_send(BlobLine::Held { node: "pi4".into() }).unwrap();
        rx
    }
}
