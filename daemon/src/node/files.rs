//! The files of tasks: brought here before a task starts, kept when it has ended, and kept for others when the leader asks.
//!
//! ```text
//!   start --gather--> manifests, files, the task's item --> executor      pinned while an attempt of the job is here
//!   ended --deliver-> standard output and files as blobs --> outcome
//!   Keep  --keep----> the blob, or the manifest and all of its files      pinned until the leader releases it
//! ```
//! A manifest counts as here when all of its files are. What is asked of the disk is done off the threads that speak.

mod lines;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::Read as _,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use swarm_blobstore::{Pin, Reader, SourceAt, Store, StoreError};
use swarm_core::attempts::Start;
use swarm_proto::{
    Digest, Fence, JobId, NodeId, Problem, TaskId,
    api::Health,
    ledger::{End, Outcome, Output},
    limits,
    manifest::{FileEntry, Manifest, Tree},
    peer::Owing,
    spec::JobSpec,
};

use self::lines::Lines;
use super::{
    Node,
    blobs::{arrived, bring, hand_over, show},
};

/// Files fetched at a time.
const AT_ONCE: usize = 16;
/// Lists of items whose lines are remembered.
const LISTS: usize = 4;
/// Read at a time from what a task left.
const PIECE: usize = 1 << 20;

/// Nodes that are asked to take a copy of what a task left.
const TRIED: usize = 2;

type Key = (TaskId, Fence);

/// A name and how many bytes it stands for.
type Blob = (Digest, u64);

/// Whose files are here for which attempts.
#[derive(Default)]
pub(crate) struct Files {
    using: Mutex<BTreeMap<JobId, Using>>,
    lists: Mutex<VecDeque<(Digest, Arc<Lines>)>>,
}

/// What the attempts of one job need.
#[derive(Default)]
struct Using {
    attempts: BTreeSet<Key>,
    pinned: BTreeSet<Digest>,
    /// Those whose files are all here.
    whole: BTreeSet<Digest>,
    manifests: BTreeMap<Digest, Arc<Manifest>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // what is behind it is whole after each line that holds the lock
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    /// Whether an attempt of this job needs anything before it can start.
    pub(crate) fn needs(spec: &JobSpec) -> bool {
        spec.owings().next().is_some()
    }

    /// An attempt is here.
    pub(crate) fn begin(&self, key: Key) {
        lock(&self.using).entry(key.0.job).or_default().attempts.insert(key);
    }

    /// An attempt is no more; answers what nobody here needs now.
    fn end(&self, key: Key) -> BTreeSet<Digest> {
        let mut using = lock(&self.using);
        let Some(of_job) = using.get_mut(&key.0.job) else { return BTreeSet::new() };
        of_job.attempts.remove(&key);
        if of_job.attempts.is_empty() { using.remove(&key.0.job).map(|of_job| of_job.pinned).unwrap_or_default() } else { BTreeSet::new() }
    }

    /// Of these, what was not pinned for the job yet. `None`: no attempt of it is here any more.
    fn pin(&self, job: JobId, digests: impl IntoIterator<Item = Digest>) -> Option<Vec<Digest>> {
        let mut using = lock(&self.using);
        let of_job = using.get_mut(&job)?;
        Some(digests.into_iter().filter(|digest| of_job.pinned.insert(*digest)).collect())
    }
}

/// An attempt is no more: what only it needed may go.
pub(crate) fn end(node: &Arc<Node>, key: Key) {
    let unused = node.files.end(key);
    if !unused.is_empty() {
        let (store, lanes) = (node.blobs.store.clone(), node.blobs.lanes);
        node.blobs.runtime().spawn(async move { lanes.run(move || unpin(&store, unused, Pin::Job(key.0.job))).await });
    }
}

fn unpin(store: &Store, digests: impl IntoIterator<Item = Digest>, pin: Pin) {
    for digest in digests {
        // only pins by hand are written down
        let _ = store.unpin(digest, pin);
    }
}

fn why(problem: Problem) -> String {
    problem.why
}

/// Brings what an attempt needs. It then has its item, and its own file if each task has one.
///
/// # Errors
/// What did not come, and why.
pub(crate) async fn gather(node: &Arc<Node>, start: Start) -> Result<Start, String> {
    let (job, spec) = (start.task.job, start.spec.clone());
    let keep = Keep { node, pin: Pin::Job(job) };
    if let Some(tree) = spec.inputs {
        keep.tree(tree).await.map_err(why)?;
    }
    let place =
        || start.item.as_ref().map_or(Ok(start.task.index), |item| item.parse().map_err(|_| format!("'{item}' is no place in a list")));
    if let Some(tree) = spec.each {
        let manifest = keep.manifest(tree).await.map_err(why)?;
        let own = manifest.files().get(place()? as usize).ok_or_else(|| format!("there are only {} files", tree.files))?.clone();
        keep.files(tree.manifest, vec![own.clone()]).await.map_err(why)?;
        return Ok(Start { item: Some(own.path.clone()), own: Some(Box::new(own)), ..start });
    }
    if let Some(list) = spec.items {
        let item = keep.line(list.digest, place()?).await?;
        return Ok(Start { item: Some(item), ..start });
    }
    Ok(start)
}

/// Brings files that an attempt may need soon. Nothing is pinned while there is none.
pub(crate) async fn prefetch(node: &Arc<Node>, job: JobId, tree: Tree) {
    if let Err(problem) = (Keep { node, pin: Pin::Job(job) }).tree(tree).await {
        tracing::debug!(%job, why = %problem.why, "files that may be needed did not come");
    }
}

/// Has something here that the leader wants to be kept.
pub(crate) async fn keep(node: &Arc<Node>, owing: Owing) -> Result<(), Problem> {
    let keep = Keep { node, pin: Pin::Owed(owing.digest) };
    if owing.is_tree { keep.whole(owing.digest).await.map(drop) } else { keep.blob(owing.digest).await }
}

/// Keeps it no longer.
pub(crate) async fn release(node: &Arc<Node>, owing: Owing) {
    let (store, lanes) = (node.blobs.store.clone(), node.blobs.lanes);
    let pin = Pin::Owed(owing.digest);
    lanes.run(move || if owing.is_tree { store.unpin_all(pin) } else { unpin(&store, [owing.digest], pin) }).await;
}

/// Brings blobs here and pins them.
struct Keep<'a> {
    node: &'a Arc<Node>,
    pin: Pin,
}

impl Keep<'_> {
    /// Pins these; answers which are not here.
    async fn pinned(&self, digests: Vec<Digest>) -> Vec<Digest> {
        let pin = self.pin;
        let fresh = match pin {
            // an attempt that is gone needs nothing, and pins nothing that nobody would unpin
            Pin::Job(job) => self.node.files.pin(job, digests.iter().copied()).unwrap_or_default(),
            Pin::Hand | Pin::Owed(_) => digests.clone(),
        };
        let store = self.node.blobs.store.clone();
        let work = move || {
            for digest in fresh {
                // only pins by hand are written down
                let _ = store.pin(digest, pin);
            }
            digests.into_iter().filter(|digest| store.size_of(*digest).is_none()).collect()
        };
        self.node.blobs.lanes.run(work).await
    }

    async fn blob(&self, digest: Digest) -> Result<(), Problem> {
        match self.pinned(vec![digest]).await.is_empty() {
            true => Ok(()),
            false => arrived(bring(self.node, digest, None)).await,
        }
    }

    /// A manifest, read; its files may be elsewhere.
    async fn manifest_of(&self, digest: Digest) -> Result<Arc<Manifest>, Problem> {
        if !self.pinned(vec![digest]).await.is_empty() {
            let view = show(self.node, digest).await?;
            // what is larger is none, and is not fetched to find that out
            check_size(view.size)?;
            arrived(bring(self.node, digest, None)).await?;
        }
        let store = self.node.blobs.store.clone();
        self.node.blobs.lanes.run(move || read_manifest(&store, digest)).await.map(Arc::new)
    }

    async fn manifest(&self, tree: Tree) -> Result<Arc<Manifest>, Problem> {
        if let Some(known) = self.using(|using| using.manifests.get(&tree.manifest).cloned()).flatten() {
            return Ok(known);
        }
        let manifest = self.manifest_of(tree.manifest).await?;
        if manifest.tree(tree.manifest) != tree {
            let why =
                format!("it names {} files of {} bytes, not {} of {}", manifest.files().len(), manifest.bytes(), tree.files, tree.bytes);
            return Err(Problem::new(swarm_proto::Code::Conflict, "the list of files is another one", why));
        }
        self.using(|using| using.manifests.insert(tree.manifest, manifest.clone()));
        Ok(manifest)
    }

    /// What is known of the job's files, where this is for a job of which an attempt is here.
    fn using<T>(&self, look: impl FnOnce(&mut Using) -> T) -> Option<T> {
        match self.pin {
            Pin::Job(job) => lock(&self.node.files.using).get_mut(&job).map(look),
            Pin::Hand | Pin::Owed(_) => None,
        }
    }

    /// A manifest and all of its files.
    async fn tree(&self, tree: Tree) -> Result<(), Problem> {
        if self.using(|using| using.whole.contains(&tree.manifest)) == Some(true) {
            return Ok(());
        }
        let manifest = self.manifest(tree).await?;
        self.files(tree.manifest, manifest.files().to_vec()).await?;
        self.using(|using| using.whole.insert(tree.manifest));
        Ok(())
    }

    async fn whole(&self, digest: Digest) -> Result<(), Problem> {
        let manifest = self.manifest_of(digest).await?;
        self.files(digest, manifest.files().to_vec()).await
    }

    /// Some files of a manifest. Whoever holds that is asked first: it holds them too, most likely.
    async fn files(&self, manifest: Digest, files: Vec<FileEntry>) -> Result<(), Problem> {
        let sizes: BTreeMap<Digest, u64> = files.iter().map(|file| (file.digest, file.size)).collect();
        let missing = self.pinned(sizes.keys().copied().collect()).await;
        if missing.is_empty() {
            return Ok(());
        }
        let holders = show(self.node, manifest).await.map(|view| view.holders).unwrap_or_default();
        let others = holders.into_iter().map(|holder| holder.node).filter(|holder| *holder != self.node.me);
        let sources: Vec<SourceAt> = others.map(|node| SourceAt { node, is_spare: false }).collect();
        let fetched = stream::iter(missing).map(|digest| {
            let from = (!sources.is_empty()).then(|| (sizes[&digest], sources.clone()));
            arrived(bring(self.node, digest, from))
        });
        let mut fetched = fetched.buffer_unordered(AT_ONCE);
        while let Some(end) = fetched.next().await {
            end?;
        }
        Ok(())
    }

    /// One line of a list of items.
    async fn line(&self, digest: Digest, place: u32) -> Result<String, String> {
        self.blob(digest).await.map_err(why)?;
        let node = self.node.clone();
        let read = move || {
            let reader = open(&node.blobs.store, digest).map_err(why)?;
            let mut segments = |index| reader.checked(index).map_err(|error| error.to_string());
            let known = lock(&node.files.lists).iter().find(|(of, _)| *of == digest).map(|(_, lines)| lines.clone());
            let lines = match known {
                Some(lines) => lines,
                None => {
                    let lines = Arc::new(Lines::of(&mut segments)?);
                    let mut lists = lock(&node.files.lists);
                    lists.push_front((digest, lines.clone()));
                    lists.truncate(LISTS);
                    lines
                }
            };
            lines.get(place, &mut segments)
        };
        self.node.blobs.lanes.run(read).await
    }
}

fn check_size(size: u64) -> Result<(), Problem> {
    if size <= limits::MANIFEST as u64 {
        return Ok(());
    }
    let why = format!("it has {size} bytes, and a list of files has at most {}", limits::MANIFEST);
    Err(Problem::new(swarm_proto::Code::BadRequest, "this is no list of files", why))
}

fn open(store: &Store, digest: Digest) -> Result<Reader, Problem> {
    let what = format!("blob {digest} cannot be read");
    let reader = store.reader(digest).map_err(|error| error.problem(&what))?;
    reader.ok_or_else(|| StoreError::Missing(digest).problem(&what))
}

fn read_manifest(store: &Store, digest: Digest) -> Result<Manifest, Problem> {
    let reader = open(store, digest)?;
    check_size(reader.outline().size())?;
    let mut bytes = Vec::new();
    for index in 0..reader.outline().segments() {
        let piece = reader.checked(index).map_err(|error| error.problem("the list of files cannot be read"))?;
        bytes.extend_from_slice(&piece.unwrap_or_default());
    }
    Manifest::decode(&bytes)
}

/// Makes blobs of what an attempt left, and says in its outcome what they are.
pub(crate) async fn deliver(node: &Arc<Node>, key: Key, has_files: bool, mut outcome: Outcome) -> Outcome {
    // pinned until the leader has taken the outcome, and says who keeps what it names
    node.files.begin(key);
    let left = node.outputs.left(key.0, key.1);
    let stdout = left.stdout.filter(|_| outcome.output.as_ref().is_some_and(|output| output.stdout_len > limits::INLINE_RESULT as u64));
    let files = left.files.filter(|_| has_files);
    let (store, pin) = (node.blobs.store.clone(), Pin::Job(key.0.job));
    let files_of = node.clone();
    let work = move || {
        let put = |path: &Path| -> Result<Blob, String> {
            let digest = put_file(&store, path)?;
            if files_of.files.pin(key.0.job, [digest.0]).is_some_and(|fresh| !fresh.is_empty()) {
                // only pins by hand are written down
                let _ = store.pin(digest.0, pin);
            }
            Ok(digest)
        };
        let stdout = stdout.map(|path| put(&path).map(|(digest, _)| digest)).transpose();
        let files = files.filter(|dir| dir.is_dir()).map(|dir| put_tree(&store, &dir, &put)).transpose();
        (stdout, files)
    };
    let (stdout, files) = node.blobs.lanes.run(work).await;
    if let Ok(Some((_, blobs))) = &files {
        copy(node, blobs).await;
    }
    let mut output = outcome.output.take().map_or_else(Output::default, |output| *output);
    match stdout {
        Ok(digest) => output.stdout_blob = digest,
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
    let peers = node.peers.current();
    let mut others: Vec<NodeId> =
        peers.iter().filter(|(id, peer)| **id != node.me && peer.health == Health::Alive).map(|(id, _)| *id).collect();
    others.sort_by_key(|other| {
        let mut hasher = DefaultHasher::new();
        (last.0.0, other.0).hash(&mut hasher);
        hasher.finish()
    });
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
        };
        tracing::info!(node = %other, why, "what a task left did not get a second copy there");
    }
}

/// A file as a blob: its name and size.
fn put_file(store: &Store, path: &Path) -> Result<Blob, String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let size = file.metadata().map_err(|e| e.to_string())?.len();
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
