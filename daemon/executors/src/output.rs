//! What tasks wrote: files of what is kept, rings of what is being written.
//!
//! ```text
//!   keeper --chunks--> ring (newest 1 MiB of a stream, while somebody reads) --.
//!   keeper --appends-> file (stdout: up to the node's limit; stderr: 10 MiB) --+--> reader --> bounded channel
//! ```
//! Of a standard output beyond 10 MiB the file is all there is until it is a blob: until then it is not removed, then it is cut back.
//! A reader has a place in each stream. It takes what stands there from the ring, else from the file; where neither has it,
//! it is told how much it lost and goes on where the ring begins. So a slow reader loses only what is beyond the kept part and
//! older than the ring, and nobody waits for it: neither the task, nor the keeper, nor other readers.

mod reader;
mod ring;

pub(crate) mod kept;
pub(crate) mod record;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use swarm_proto::{
    Code, Fence, Problem, TaskId,
    limits::KEPT_OUTPUT,
    peer::{OutputChunk, OutputRequest, Stream},
};
use tokio::sync::{mpsc, watch};

use self::{kept::Written, ring::Ring};

type Key = (TaskId, Fence);

/// Chunks under way to a reader; each is at most [`reader::CHUNK`] bytes.
const CHUNKS: usize = 4;
/// Ended attempts that are remembered to have written nothing.
const SILENT: usize = 65_536;

const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// Output of this node's attempts.
pub struct OutputStore {
    dir: PathBuf,
    /// Most bytes of kept output.
    keep: u64,
    /// Asks the keeper for chunks as they come, or no longer.
    follow: Box<dyn Fn(Key, bool) + Send + Sync>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    live: BTreeMap<Key, Live>,
    silent: BTreeSet<Key>,
    silent_order: VecDeque<Key>,
    /// Ended attempts whose output is larger than what stays, and no blob yet.
    large: BTreeMap<Key, [Written; 2]>,
    kept: u64,
    is_collecting: bool,
}

struct Live {
    rings: [Option<Ring>; 2],
    /// Set when it has ended.
    ended: Option<[Written; 2]>,
    readers: usize,
    changed: watch::Sender<()>,
}

impl Live {
    fn new() -> Self {
        Self { rings: [None, None], ended: None, readers: 0, changed: watch::Sender::new(()) }
    }
}

/// Where a reader finds the next bytes of a stream.
enum Next {
    Ring(Vec<u8>),
    /// Not in the ring; the ring, if there is one, begins there.
    Elsewhere {
        ring: Option<(u64, u64)>,
        ended: Option<Written>,
    },
}

impl OutputStore {
    /// Over the files in `dir`, of which at most `keep` bytes stay.
    pub(crate) fn new(dir: PathBuf, keep: u64, follow: impl Fn(Key, bool) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { dir, keep, follow: Box::new(follow), inner: Mutex::new(Inner::default()) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // no code panics while it holds the lock; the maps are whole after each line
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what an attempt wrote, from its start. Each stream in its order; the last chunk is `End` or `Failed`.
    pub fn read(self: &Arc<Self>, request: OutputRequest) -> mpsc::Receiver<OutputChunk> {
        let (tx, rx) = mpsc::channel(CHUNKS);
        let key = (request.task, request.fence);
        let watched = self.enter(key);
        tokio::spawn(reader::Reader::new(Arc::clone(self), request, tx, watched).run());
        rx
    }

    /// The file with what is kept of an attempt's standard output; it is there once there is one byte.
    pub fn stdout_file(&self, task: TaskId, fence: Fence) -> PathBuf {
        kept::path(&self.dir, (task, fence), Stream::Stdout)
    }

    /// One more reader of a live attempt.
    fn enter(&self, key: Key) -> Option<watch::Receiver<()>> {
        let mut inner = self.lock();
        let live = inner.live.get_mut(&key)?;
        live.readers += 1;
        let (watched, is_first) = (live.changed.subscribe(), live.readers == 1 && live.ended.is_none());
        drop(inner);
        if is_first {
            (self.follow)(key, true);
        }
        Some(watched)
    }

    fn leave(&self, key: Key) {
        let mut inner = self.lock();
        let Some(live) = inner.live.get_mut(&key) else { return };
        live.readers -= 1;
        if live.readers > 0 {
            return;
        }
        if live.ended.is_some() {
            inner.live.remove(&key);
        } else {
            drop(inner);
            (self.follow)(key, false);
        }
    }

    fn next(&self, key: Key, stream: Stream, at: u64) -> Next {
        let inner = self.lock();
        let Some(live) = inner.live.get(&key) else { return Next::Elsewhere { ring: None, ended: None } };
        match &live.rings[index(stream)] {
            Some(ring) if ring.start() <= at && at < ring.end() => Next::Ring(ring.read(at, reader::CHUNK)),
            ring => Next::Elsewhere {
                ring: ring.as_ref().filter(|ring| at < ring.start()).map(|ring| (ring.start(), ring.start_lines())),
                ended: live.ended.map(|written| written[index(stream)]),
            },
        }
    }

    /// Whether nothing was written by an attempt that ended here.
    fn was_silent(&self, key: Key) -> bool {
        self.lock().silent.contains(&key)
    }

    fn not_here((task, _): Key) -> OutputChunk {
        let problem = Problem::new(
            Code::NotFound,
            format!("there is no output of {task} at this node"),
            "it wrote nothing, or it is older than what is kept",
        );
        OutputChunk::Failed(problem.hint(format!("the first bytes are in the ledger: swarmctl task result {task}")))
    }

    /// An attempt begins.
    pub(crate) fn begin(&self, key: Key) {
        self.lock().live.entry(key).or_insert_with(Live::new);
    }

    /// Bytes as they are written.
    pub(crate) fn push(&self, key: Key, stream: Stream, (offset, lines): (u64, u64), data: &[u8]) {
        if let Some(live) = self.lock().live.get_mut(&key) {
            live.rings[index(stream)].get_or_insert_with(|| Ring::new(offset, lines)).push(offset, lines, data);
            live.changed.send_replace(());
        }
    }

    /// It has ended, having written that.
    pub(crate) fn end(self: &Arc<Self>, key: Key, written: [Written; 2]) {
        let mut inner = self.lock();
        if let Some(live) = inner.live.get_mut(&key) {
            live.ended = Some(written);
            live.changed.send_replace(());
            if live.readers == 0 {
                inner.live.remove(&key);
            }
        }
        let weight: u64 = written.iter().map(|of| of.kept_bytes).filter(|bytes| *bytes > 0).map(kept::weight).sum();
        if written == [Written::default(); 2] {
            inner.remember_silent(key);
        }
        if written.iter().any(|of| of.kept_bytes > KEPT_OUTPUT) {
            inner.large.insert(key, written);
        }
        inner.kept += weight;
        let is_over = inner.kept > self.keep && !inner.is_collecting;
        inner.is_collecting |= is_over;
        drop(inner);
        if is_over {
            self.collect();
        }
    }

    /// The end of an attempt, with the blob that its output became, is where it belongs: of what is large, only the beginning stays here.
    pub(crate) fn settle(self: &Arc<Self>, key: Key) {
        let Some(written) = self.lock().large.remove(&key) else { return };
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || match kept::shorten(&this.dir, key, written) {
            Ok(freed) => {
                let mut inner = this.lock();
                inner.kept = inner.kept.saturating_sub(freed);
            }
            Err(error) => tracing::warn!(%error, task = %key.0, "kept output cannot be cut back"),
        });
    }

    /// Counts what is kept, and removes the oldest where that is too much.
    pub(crate) fn collect(self: &Arc<Self>) {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let live = {
                let inner = this.lock();
                inner.live.keys().chain(inner.large.keys()).copied().collect()
            };
            // room for a tenth, so that the directory is not read for every attempt
            let left = kept::collect(&this.dir, this.keep - this.keep / 10, &live);
            let mut inner = this.lock();
            inner.is_collecting = false;
            match left {
                Ok(left) => inner.kept = left,
                Err(error) => tracing::warn!(%error, dir = %this.dir.display(), "kept output cannot be counted"),
            }
        });
    }

    fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Inner {
    fn remember_silent(&mut self, key: Key) {
        if self.silent.insert(key) {
            self.silent_order.push_back(key);
        }
        if self.silent_order.len() > SILENT
            && let Some(oldest) = self.silent_order.pop_front()
        {
            self.silent.remove(&oldest);
        }
    }
}
