//! What tasks leave: made blobs of when they end, and brought to another node before their end is told.

use std::{fs::File, io::Read as _, path::Path, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use swarm_blobstore::Store;
use swarm_core::blobs::rendezvous;
use swarm_proto::{
    NodeId,
    api::Health,
    ledger::{End, Outcome, Output},
    limits,
    manifest::{FileEntry, Manifest, Tree},
};

use super::{AT_ONCE, Blob, Hold, Key, why};
use crate::node::{Node, blobs::hand_over};

/// How long what a task left may take to get to another node: this, and so much for each MiB.
const COPY: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(1));
/// Read at a time from what a task left.
const PIECE: usize = 1 << 20;
/// Nodes that are asked to take a copy of what a task left.
const TRIED: usize = 2;

/// Makes blobs of what an attempt left, and says in its outcome what they are.
pub(crate) async fn deliver(node: &Arc<Node>, key: Key, has_files: bool, mut outcome: Outcome) -> Outcome {
    // pinned until the leader has taken the outcome, and says who keeps what it names
    node.files.begin(key);
    let left = node.outputs.left(key.0, key.1);
    let stdout = left.stdout.filter(|_| outcome.output.as_ref().is_some_and(|output| output.stdout_len > limits::INLINE_RESULT as u64));
    // of what was killed or lost there is at most a part
    let files = left.files.filter(|_| has_files && matches!(outcome.end, End::Succeeded | End::Exit(_)));
    let (of, is_good) = (node.clone(), outcome.end == End::Succeeded);
    let work = move || {
        let put = |path: &Path| -> Result<Blob, String> {
            let blob = put_file(&of.blobs.store, path, u64::MAX)?;
            of.files.pin(&of.blobs.store, Hold::Attempt(key), &[blob.0]);
            Ok(blob)
        };
        let put_stdout = |path: &Path| {
            put(path).or_else(|why| {
                // its beginning is better than nothing, and that it is cut can be told from its size
                let blob = put_file(&of.blobs.store, path, limits::KEPT_OUTPUT).map_err(|_| why)?;
                of.files.pin(&of.blobs.store, Hold::Attempt(key), &[blob.0]);
                Ok::<_, String>(blob)
            })
        };
        let stdout = stdout.map(|path| put_stdout(&path)).transpose();
        let files = match files {
            Some(dir) if dir.is_dir() => put_tree(&of.blobs.store, &dir, &put).map(Some),
            Some(_) if is_good => Err("what it left is not there any more".into()),
            Some(_) | None => Ok(None),
        };
        (stdout, files)
    };
    let (stdout, files) = node.blobs.lanes.run(work).await;
    let said = stdout.iter().flatten();
    // the manifest stays last
    copy(node, &said.chain(files.iter().flatten().flat_map(|(_, blobs)| blobs)).copied().collect::<Vec<_>>()).await;
    let mut output = outcome.output.take().map_or_else(Output::default, |output| *output);
    match stdout {
        Ok(blob) => output.stdout_blob = blob.map(|(digest, _)| digest),
        // it is still where the task ran
        Err(why) => tracing::warn!(task = %key.0, %why, "what a task wrote did not become a blob"),
    }
    match files {
        Ok(tree) => output.files = tree.map(|(tree, _)| tree),
        Err(why) if outcome.end == End::Succeeded => outcome.end = End::Output(why),
        Err(why) => tracing::warn!(task = %key.0, %why, "what a failed task left was not kept"),
    }
    outcome.output = (output != Output::default()).then(|| Box::new(output));
    outcome
}

/// Brings what a task left to another node before its end is told: then no result depends on this node alone. Where no other takes it,
/// the leader has it brought later.
async fn copy(node: &Arc<Node>, blobs: &[Blob]) {
    let Some((last, before)) = blobs.split_last() else { return };
    let mib = u32::try_from(blobs.iter().map(|(_, size)| size).sum::<u64>() >> 20).unwrap_or(u32::MAX);
    let peers = node.peers.current();
    let mut others: Vec<NodeId> =
        peers.iter().filter(|(id, peer)| **id != node.me && peer.health == Health::Alive).map(|(id, _)| *id).collect();
    // those whom the leader would choose
    others.sort_by_key(|other| rendezvous(last.0, *other));
    for other in others.into_iter().take(TRIED) {
        let give_one = |(digest, size): Blob| hand_over(node, other, digest, size);
        let give = async {
            stream::iter(before.to_vec()).map(give_one).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            // whoever has the manifest has its files
            give_one(*last).await
        };
        let mut peers = node.peers.changes();
        let gone = peers.wait_for(|peers| peers.get(&other).is_none_or(|peer| peer.health != Health::Alive));
        let why = tokio::select! {
            biased;
            given = give => match given {
                Ok(()) => return,
                Err(problem) => problem.why,
            },
            // a host that died says nothing on its streams, and membership is sooner than their end
            _ = gone => "it is no longer alive".to_owned(),
            () = tokio::time::sleep(COPY.0 + COPY.1 * mib) => "it takes too long".to_owned(),
        };
        tracing::info!(node = %other, why, "what a task left did not get a second copy there");
    }
}

/// A file as a blob, at most so many bytes of it: its name and size.
fn put_file(store: &Store, path: &Path, most: u64) -> Result<Blob, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let size = file.metadata().map_err(|e| e.to_string())?.len().min(most);
    let mut file = file.take(most);
    let mut draft = store.draft().map_err(|e| e.to_string())?;
    draft.expect(size).map_err(|e| e.to_string())?;
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).map_err(|e| e.to_string())? {
            0 => break,
            count => draft.write(&piece[..count]).map_err(|e| e.to_string())?,
        }
    }
    let outline = draft.finish().map_err(|e| e.to_string())?;
    Ok((outline.digest(), outline.size()))
}

/// All files below a directory as blobs; their manifest is the last of them.
fn put_tree(store: &Store, dir: &Path, put: &impl Fn(&Path) -> Result<Blob, String>) -> Result<(Tree, Vec<Blob>), String> {
    let mut files = Vec::new();
    let mut waiting = vec![String::new()];
    while let Some(path) = waiting.pop() {
        for entry in std::fs::read_dir(dir.join(&path)).map_err(|e| e.to_string())? {
            let entry = entry.map_err(|e| e.to_string())?;
            let name = entry.file_name().into_string().map_err(|name| format!("{} is no name in UTF-8", name.display()))?;
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            let metadata = entry.metadata().map_err(|e| e.to_string())?;
            if metadata.is_dir() {
                waiting.push(path);
            } else {
                let (digest, size) = put(&entry.path()).map_err(|why| format!("'{path}': {why}"))?;
                files.push(FileEntry { path, size, digest, executable: is_executable(&metadata) });
            }
        }
    }
    let manifest = Manifest::new(files).map_err(why)?;
    let mut draft = store.draft().map_err(|e| e.to_string())?;
    draft.write(&manifest.encode()).map_err(|e| e.to_string())?;
    let outline = draft.finish().map_err(|e| e.to_string())?;
    let mut blobs: Vec<Blob> = manifest.files().iter().map(|file| (file.digest, file.size)).collect();
    blobs.sort_unstable();
    blobs.dedup();
    blobs.push((outline.digest(), outline.size()));
    Ok((manifest.tree(outline.digest()), blobs))
}

#[cfg(unix)]
fn is_executable(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o111 != 0
}

#[cfg(windows)]
fn is_executable(_: &std::fs::Metadata) -> bool {
    false
}
