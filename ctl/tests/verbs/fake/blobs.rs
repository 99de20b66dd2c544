//! The blobs of the scripted daemon, in memory.

use std::{
    collections::BTreeMap,
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

    pub(super) fn take(self: Arc<Self>) -> BlobTaker {
        let (pieces, mut taken) = mpsc::channel::<Option<Bytes>>(4);
        let (reply, put) = oneshot::channel();
        tokio::spawn(async move {
            let mut data = Vec::new();
            while let Some(piece) = taken.recv().await {
                match piece {
                    Some(piece) => data.extend_from_slice(&piece),
                    None => {
                        self.puts.fetch_add(1, Ordering::Relaxed);
                        let size = data.len() as u64;
                        let _ = reply.send(Ok(BlobPut { digest: self.put(data), size }));
                        return;
                    }
                }
            }
        });
        (pieces, put)
    }

    pub(super) fn read(&self, digest: Digest) -> mpsc::Receiver<Result<BlobPiece, Problem>> {
        let (tx, rx) = mpsc::channel(4);
        let pieces = match self.get(digest) {
            Some(data) => vec![Ok(BlobPiece::Size(data.len() as u64)), Ok(BlobPiece::Bytes(data)), Ok(BlobPiece::End)],
            None => vec![Err(Problem::new(Code::NotFound, format!("there is no blob {digest}"), "nobody holds it"))],
        };
        pieces.into_iter().for_each(|piece| tx.try_send(piece).unwrap());
        rx
    }

    /// It is here already.
    pub(super) fn bring(&self) -> mpsc::Receiver<BlobLine> {
        let (tx, rx) = mpsc::channel(1);
        tx.try_send(BlobLine::Held { node: "pi4".into() }).unwrap();
        rx
    }
}
