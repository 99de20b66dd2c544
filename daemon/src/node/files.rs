//! The files of tasks: brought here before a task starts, kept when it has ended, and kept for others when the leader asks.
//!
//! ```text
//!   start --gather--> manifests, files, the task's item --> executor      pinned while an attempt of the job is here
//!   ended --deliver-> standard output and files as blobs --> outcome
//!   Keep  --keep----> the blob, or the manifest and all of its files      pinned until the leader releases it
//! ```
//! A manifest counts as here when all of its files are. What is asked of the disk is done off the threads that speak.

mod left;
mod lines;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use swarm_blobstore::{Checked, Pin, Reader, SourceAt, Store, StoreError};
use swarm_core::attempts::Start;
use swarm_proto::{
    Code, Digest, Fence, JobId, Problem, TaskId,
    blob::Claim,
    limits,
    manifest::{FileEntry, Manifest, Tree},
    peer::Owing,
    spec::JobSpec,
};
use tokio::{sync::OnceCell, time::Instant};

pub(crate) use self::left::deliver;
use self::lines::Lines;
use super::{
    Node,
    blobs::{arrived, bring, show},
};

/// Files fetched at a time.
const AT_ONCE: usize = 16;
/// Manifests, and lists of items, that are remembered once they were read.
const REMEMBERED: usize = 4;
/// Sources of one file.
const SOURCES: usize = 8;
/// How long an attempt waits for files that nobody has, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(300);

type Key = (TaskId, Fence);

/// A name and how many bytes it stands for.
type Blob = (Digest, u64);

/// Read once, whoever asks first.
type Once<T> = Arc<OnceCell<Arc<T>>>;
/// What was read of the last few blobs.
type Remembered<T> = Mutex<VecDeque<(Digest, Once<T>)>>;

/// Whose files are here for which attempts.
#[derive(Default)]
pub(crate) struct Files {
    using: Mutex<BTreeMap<JobId, Using>>,
    manifests: Remembered<Manifest>,
    /// What they name, ordered.
    names: Remembered<Vec<Digest>>,
    lists: Remembered<Lines>,
}

/// What the attempts of one job need.
#[derive(Default)]
struct Using {
    /// Each with what it alone needs.
    attempts: BTreeMap<Key, BTreeSet<Digest>>,
    /// What all of them need.
    pinned: BTreeSet<Digest>,
    /// Manifests whose files are all here.
    whole: BTreeSet<Digest>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
        lock(&self.using).entry(key.0.job).or_default().attempts.entry(key).or_default();
    }

    /// What an attempt needs, as far as it is known.
    fn used(&self, key: Key) -> BTreeSet<Digest> {
        let using = lock(&self.using);
        let of_job = using.get(&key.0.job);
        let own = of_job.and_then(|of_job| of_job.attempts.get(&key));
        of_job.map(|of_job| &of_job.pinned).into_iter().chain(own).flatten().copied().collect()
    }

    /// Not all of the files of the job's manifests may be here any more.
    fn forget_whole(&self, job: JobId) {
        if let Some(of_job) = lock(&self.using).get_mut(&job) {
            of_job.whole.clear();
        }
    }

    /// An attempt is no more; answers what nobody here needs now, and the pins that say so.
    fn end(&self, key: Key) -> Vec<(Pin, BTreeSet<Digest>)> {
        let mut using = lock(&self.using);
        let Some(of_job) = using.get_mut(&key.0.job) else { return Vec::new() };
        let own = of_job.attempts.remove(&key).unwrap_or_default();
        let shared = if of_job.attempts.is_empty() { using.remove(&key.0.job).map(|of_job| of_job.pinned) } else { None };
        let unused = [(Pin::Task(key.0), own), (Pin::Job(key.0.job), shared.unwrap_or_default())];
        unused.into_iter().filter(|(_, digests)| !digests.is_empty()).collect()
    }

    /// Pins these for the job or one attempt of it, while that is here.
    fn pin(&self, store: &Store, hold: Hold, digests: &[Digest]) {
        let mut using = lock(&self.using);
        let (pin, pinned) = match hold {
            Hold::Job(job) => (Pin::Job(job), using.get_mut(&job).map(|of_job| &mut of_job.pinned)),
            Hold::Attempt(key) => (Pin::Task(key.0), using.get_mut(&key.0.job).and_then(|of_job| of_job.attempts.get_mut(&key))),
            Hold::Owed(owing) => (Pin::Owed(owing), None),
        };
        let is_owed = matches!(hold, Hold::Owed(_));
        // what is gone needs nothing, and pins nothing that nobody would unpin
        let Some(pinned) = pinned else {
            if is_owed {
                digests.iter().for_each(|digest| drop(store.pin(*digest, pin)));
            }
            return;
        };
        for digest in digests {
            if pinned.insert(*digest) {
                // only pins by hand are written down
                let _ = store.pin(*digest, pin);
            }
        }
    }
}

/// For whom something is here.
#[derive(Clone, Copy)]
enum Hold {
    Job(JobId),
    Attempt(Key),
    Owed(Owing),
}

/// What is read once for all who need it, and for the next ones too.
fn remembered<T>(list: &Remembered<T>, digest: Digest) -> Once<T> {
    let mut list = lock(list);
    if let Some((_, known)) = list.iter().find(|(of, _)| *of == digest) {
        return known.clone();
    }
    let cell = Arc::new(OnceCell::new());
    list.push_front((digest, cell.clone()));
    list.truncate(REMEMBERED);
    cell
}

/// An attempt is no more: what only it needed may go.
pub(crate) fn end(node: &Arc<Node>, key: Key) {
    let unused = node.files.end(key);
    if !unused.is_empty() {
        let node = node.clone();
        node.blobs.runtime().clone().spawn(async move {
            let (lanes, looked) = (node.blobs.lanes, node.clone());
            let work = move || {
                for (pin, digests) in unused {
                    unpin(&looked.blobs.store, digests, pin);
                }
                // a new attempt of the job may have come meanwhile, and found everything pinned
                let using = lock(&looked.files.using).get(&key.0.job).map(|of_job| of_job.pinned.clone());
                for digest in using.into_iter().flatten() {
                    let _ = looked.blobs.store.pin(digest, Pin::Job(key.0.job));
                }
            };
            lanes.run(work).await;
        });
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

fn refuse(why: String) -> Problem {
    Problem::new(Code::BadRequest, "the task's item is not found", why)
}

/// Brings what an attempt needs. It then has its item, and its own file if each task has one. What nobody has may be there in a moment:
/// a new leader has not heard of everybody.
///
/// # Errors
/// What did not come, and why.
pub(crate) async fn gather(node: &Arc<Node>, start: Start) -> Result<Start, String> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match gather_once(node, start.clone()).await {
            Err(problem) if is_passing(problem.code) && Instant::now() < give_up => tokio::time::sleep(AGAIN).await,
            done => return done.map(|start| Start { key: node.blobs.store.opener(), ..start }).map_err(why),
        }
    }
}

/// Reads again what an attempt needs and is here; answers whether any of it had changed on the disk. That is not here any more then.
pub(crate) async fn recheck(node: &Arc<Node>, key: Key) -> bool {
    let mut has_changed = false;
    for digest in node.files.used(key) {
        let store = node.blobs.store.clone();
        match node.blobs.lanes.run(move || store.check(digest)).await {
            Ok(Checked::Partial(_) | Checked::Removed) => {
                node.journal.warn(format!("blob {digest}, which {} needs, had changed on the disk and is fetched again", key.0));
                has_changed = true;
            }
            // another attempt found it first
            Err(StoreError::Missing(_)) => has_changed = true,
            Ok(Checked::Sound) | Err(_) => {}
        }
    }
    if has_changed {
        node.files.forget_whole(key.0.job);
    }
    has_changed
}

const fn is_passing(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::NotReady | Code::NoLeader | Code::UnknownOutcome | Code::Busy)
}

async fn gather_once(node: &Arc<Node>, start: Start) -> Result<Start, Problem> {
    let (key, spec) = ((start.task, start.fence), start.spec.clone());
    let (keep, own) = (Keep { node, hold: Hold::Job(key.0.job) }, Keep { node, hold: Hold::Attempt(key) });
    if let Some(tree) = spec.inputs {
        keep.tree(tree).await?;
    }
    let place = || {
        let parse = |item: &String| item.parse().map_err(|_| refuse(format!("'{item}' is no place in a list")));
        start.item.as_ref().map_or(Ok(start.task.index), parse)
    };
    if let Some(tree) = spec.each {
        keep.manifest(tree).await?;
        let file = own.file(tree, place()?).await?;
        return Ok(Start { item: Some(file.path.clone()), own: Some(Box::new(file)), ..start });
    }
    if let Some(list) = spec.items {
        let item = keep.line(list.digest, place()?).await?;
        return Ok(Start { item: Some(item), ..start });
    }
    Ok(start)
}

/// Brings files that an attempt may need soon. Nothing is pinned while there is none.
pub(crate) async fn prefetch(node: &Arc<Node>, job: JobId, tree: Tree, place: Option<u32>) {
    let keep = Keep { node, hold: Hold::Job(job) };
    let brought = match place {
        None => keep.tree(tree).await,
        Some(place) => keep.file(tree, place).await.map(drop),
    };
    if let Err(problem) = brought {
        tracing::debug!(%job, why = %problem.why, "files that may be needed did not come");
    }
}

/// Has something here that the leader wants to be kept. What cannot be had is not pinned either.
pub(crate) async fn keep(node: &Arc<Node>, owing: Owing) -> Result<(), Problem> {
    let keep = Keep { node, hold: Hold::Owed(owing) };
    let kept = if owing.is_tree { keep.whole(owing.digest).await } else { keep.blob(owing.digest).await };
    if kept.is_err() {
        release(node, owing).await;
    }
    kept
}

/// Keeps it no longer.
pub(crate) async fn release(node: &Arc<Node>, owing: Owing) {
    let (store, lanes) = (node.blobs.store.clone(), node.blobs.lanes);
    let pin = Pin::Owed(owing);
    let work = move || {
        // a manifest names what is pinned with it
        match owing.is_tree.then(|| read_manifest(&store, owing.digest)) {
            Some(Ok(manifest)) => unpin(&store, manifest.files().iter().map(|file| file.digest), pin),
            Some(Err(_)) => store.unpin_all(pin),
            None => {}
        }
        unpin(&store, [owing.digest], pin);
    };
    lanes.run(work).await;
}

/// Brings blobs here and pins them.
struct Keep<'a> {
    node: &'a Arc<Node>,
    hold: Hold,
}

impl Keep<'_> {
    /// Why this node may have what `root` names.
    fn claim(&self, root: Digest) -> Claim {
        match self.hold {
            Hold::Job(job) | Hold::Attempt((TaskId { job, .. }, _)) => Claim::Job { job, root },
            Hold::Owed(owing) => Claim::Keep(owing),
        }
    }

    /// Pins these; answers which are not here.
    async fn pinned(&self, digests: Vec<Digest>) -> Vec<Digest> {
        let (node, hold) = (self.node.clone(), self.hold);
        let work = move || {
            node.files.pin(&node.blobs.store, hold, &digests);
            digests.into_iter().filter(|digest| node.blobs.store.size_of(*digest).is_none()).collect()
        };
        self.node.blobs.lanes.run(work).await
    }

    async fn blob(&self, digest: Digest) -> Result<(), Problem> {
        match self.pinned(vec![digest]).await.is_empty() {
            true => Ok(()),
            false => arrived(bring(self.node, digest, self.claim(digest), None)).await,
        }
    }

    /// A manifest, read; its files may be elsewhere.
    async fn manifest_of(&self, digest: Digest) -> Result<Arc<Manifest>, Problem> {
        if !self.pinned(vec![digest]).await.is_empty() {
            let view = show(self.node, digest).await?;
            // what is larger is none, and is not fetched to find that out
            check_size(view.size)?;
            arrived(bring(self.node, digest, self.claim(digest), None)).await?;
        }
        let read = async || {
            let store = self.node.blobs.store.clone();
            self.node.blobs.lanes.run(move || read_manifest(&store, digest)).await.map(Arc::new)
        };
        remembered(&self.node.files.manifests, digest).get_or_try_init(read).await.cloned()
    }

    async fn manifest(&self, tree: Tree) -> Result<Arc<Manifest>, Problem> {
        let manifest = self.manifest_of(tree.manifest).await?;
        if manifest.tree(tree.manifest) != tree {
            let why =
                format!("it names {} files of {} bytes, not {} of {}", manifest.files().len(), manifest.bytes(), tree.files, tree.bytes);
            return Err(Problem::new(Code::Conflict, "the list of files is another one", why));
        }
        Ok(manifest)
    }

    /// What is known of the job's files, where this is for a job of which an attempt is here.
    fn using<T>(&self, look: impl FnOnce(&mut Using) -> T) -> Option<T> {
        match self.hold {
            Hold::Job(job) => lock(&self.node.files.using).get_mut(&job).map(look),
            Hold::Attempt(_) | Hold::Owed(_) => None,
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

    /// The file at one place of a manifest.
    async fn file(&self, tree: Tree, place: u32) -> Result<FileEntry, Problem> {
        let manifest = self.manifest(tree).await?;
        let file = manifest.files().get(place as usize).ok_or_else(|| refuse(format!("there are only {} files", tree.files)))?.clone();
        self.files(tree.manifest, vec![file.clone()]).await?;
        Ok(file)
    }

    async fn whole(&self, digest: Digest) -> Result<(), Problem> {
        let manifest = self.manifest_of(digest).await?;
        self.files(digest, manifest.files().to_vec()).await
    }

    /// Some files of a manifest. Whoever holds that is asked first: it holds them too, most likely.
    async fn files(&self, manifest: Digest, files: Vec<FileEntry>) -> Result<(), Problem> {
        let files: BTreeMap<Digest, FileEntry> = files.into_iter().map(|file| (file.digest, file)).collect();
        let missing = self.pinned(files.keys().copied().collect()).await;
        if missing.is_empty() {
            return Ok(());
        }
        let holders = show(self.node, manifest).await.map(|view| view.holders).unwrap_or_default();
        let others = holders.into_iter().map(|holder| holder.node).filter(|holder| *holder != self.node.me);
        let sources: Vec<SourceAt> = others.map(|node| SourceAt { node, is_spare: false }).collect();
        let count = sources.len();
        let turned = |n: usize| sources.iter().copied().cycle().skip(n % count.max(1)).take(count.min(SOURCES)).collect::<Vec<_>>();
        // each begins with another one, so that all of them give
        let fetched = stream::iter(missing.into_iter().enumerate()).map(|(n, digest)| {
            let file = &files[&digest];
            let coming = bring(self.node, digest, self.claim(manifest), (count > 0).then(|| (file.size, turned(n))));
            async { arrived(coming).await.map_err(|problem| Problem { what: format!("'{}' did not come", file.path), ..problem }) }
        });
        let mut fetched = fetched.buffer_unordered(AT_ONCE);
        while let Some(end) = fetched.next().await {
            end?;
        }
        Ok(())
    }

    /// One line of a list of items.
    async fn line(&self, digest: Digest, place: u32) -> Result<String, Problem> {
        self.blob(digest).await?;
        let lanes = self.node.blobs.lanes;
        let read = async || {
            let store = self.node.blobs.store.clone();
            lanes.run(move || Lines::of(&mut segments(&open(&store, digest)?)).map(Arc::new).map_err(refuse)).await
        };
        let lines = remembered(&self.node.files.lists, digest).get_or_try_init(read).await.cloned()?;
        let store = self.node.blobs.store.clone();
        lanes.run(move || lines.get(place, &mut segments(&open(&store, digest)?)).map_err(refuse)).await
    }
}

fn segments(reader: &Reader) -> impl FnMut(u32) -> Result<Option<Vec<u8>>, String> {
    |index| reader.checked(index).map_err(|error| error.to_string())
}

fn check_size(size: u64) -> Result<(), Problem> {
    if size <= limits::MANIFEST as u64 {
        return Ok(());
    }
    let why = format!("it has {size} bytes, and a list of files has at most {}", limits::MANIFEST);
    Err(Problem::new(Code::BadRequest, "this is no list of files", why))
}

fn open(store: &Store, digest: Digest) -> Result<Reader, Problem> {
    let what = format!("blob {digest} cannot be read");
    let reader = store.reader(digest).map_err(|error| error.problem(&what))?;
    reader.ok_or_else(|| StoreError::Missing(digest).problem(&what))
}

/// Whether a manifest that is here names a blob.
///
/// # Errors
/// It is not here, or is none.
pub(crate) async fn names(node: &Arc<Node>, manifest: Digest, digest: Digest) -> Result<bool, Problem> {
    let read = async || {
        let store = node.blobs.store.clone();
        let work = move || {
            let mut names: Vec<Digest> = read_manifest(&store, manifest)?.files().iter().map(|file| file.digest).collect();
            names.sort_unstable();
            Ok(Arc::new(names))
        };
        node.blobs.lanes.run(work).await
    };
    let named = remembered(&node.files.names, manifest);
    named.get_or_try_init(read).await.map(|names| names.binary_search(&digest).is_ok())
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
