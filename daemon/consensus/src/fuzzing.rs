//! For `tests/fuzz`: what is read from the disk and from peers, given as bytes.

use std::{io, sync::Arc};

use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use serde::{Serialize, de::DeserializeOwned};
use swarm_proto::{RaftDir, frame, ledger::Batch};

use crate::{
    Disk, DiskFile, checked, directory,
    engine::{Data, Types},
    log::{self, Sound},
    snapshot, wire,
};

/// A disk of files that are only read.
struct Shelf(Vec<(String, Vec<u8>)>);

impl Disk for Shelf {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.iter().map(|(name, _)| name.clone()).collect())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.iter().find(|(known, _)| known == name).map(|(_, bytes)| bytes.clone()))
    }

    fn open(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// Reads a log of segments, each named by its first batch; answers whether it is sound.
pub fn log(segments: Vec<(u64, Vec<u8>)>) -> bool {
    let files = segments.into_iter().map(|(first, bytes)| (log::fuzzing::name(first), bytes)).collect();
    Sound::check(Arc::new(Shelf(files))).is_ok()
}

/// A batch as it lies on the disk.
pub fn batch(epoch: u64, sequence: u64, body: &[u8]) -> Vec<u8> {
    log::fuzzing::batch(epoch, sequence, body)
}

/// What the body of the very first batch begins with.
pub fn beginning() -> Vec<u8> {
    log::fuzzing::beginning()
}

/// Reads the file of the snapshot; answers whether there is one in it.
pub fn snapshot(file: &[u8]) -> bool {
    snapshot::read(&Shelf(vec![("snapshot".into(), file.to_vec())])).is_ok_and(|found| found.is_some())
}

/// Reads the file that names the directory; answers whether it names one.
pub fn directory(file: &[u8]) -> bool {
    directory::raft_dir(&Shelf(vec![("directory".into(), file.to_vec())]), RaftDir([0; 16])).is_ok()
}

/// Reads the file that says whose the directory is.
pub fn owner(file: &[u8]) -> Option<Vec<u8>> {
    checked_file::<directory::Owner>(file)
}

/// Reads a checked file; answers what is written for what it holds.
pub fn checked_file<T: Serialize + DeserializeOwned>(file: &[u8]) -> Option<Vec<u8>> {
    checked::decode::<T>(file, "file").ok().and_then(|held| written(&held))
}

/// A checked file as it is written.
pub fn written<T: Serialize>(held: &T) -> Option<Vec<u8>> {
    checked::encode(held).ok().map(|(crc, body)| [&crc[..], &body].concat())
}

/// Reads what an entry holds.
pub fn entry(bytes: &[u8]) -> Option<Batch> {
    Data::of(bytes.to_vec().into()).batch().ok()
}

/// Reads each message that a peer sends, and makes of it what the engine takes.
pub fn wire(bytes: &[u8]) {
    if let Some(append) = read::<wire::Append>(bytes) {
        let _ = AppendEntriesRequest::<Types>::try_from(append);
    }
    if let Some(appended) = read::<wire::Appended>(bytes) {
        let _ = StreamAppendResult::<Types>::from(appended);
    }
    if let Some(head) = read::<wire::SnapshotHead>(bytes) {
        let _ = crate::engine::SnapshotMeta::try_from(head.meta);
    }
    read::<wire::Question>(bytes);
    read::<wire::Answer>(bytes);
    read::<wire::Installed>(bytes);
}

/// What decodes is written back in no more bytes, and reads the same.
fn read<T: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) -> Option<T> {
    let message: T = frame::decode(bytes).ok()?;
    let again = postcard::to_stdvec(&message).unwrap_or_default();
    assert!(again.len() <= bytes.len() && frame::decode(&again).is_ok_and(|again: T| again == message), "a message that changes");
    Some(message)
}
