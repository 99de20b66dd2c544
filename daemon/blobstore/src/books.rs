//! What is here, who needs it, and how much room is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::Arc,
};

use swarm_proto::{
    Digest, JobId, TaskId,
    peer::{Holding, Owing},
};

use tokio::sync::mpsc;

use crate::{error::StoreError, files, partial::Partial};

/// Why a blob must stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pin {
    /// An operator said so; remembered over restarts.
    Hand,
    /// An attempt of this job is here. Forgotten with it.
    Job(JobId),
    /// It is this task's alone, of which an attempt is here.
    Task(TaskId),
    /// The swarm owes this, or the manifest that it belongs to. The leader knows, and says so again after a restart.
    Owed(Owing),
}

/// One blob that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// It is kept encrypted.
    pub is_sealed: bool,
    /// Who needs it.
    pub pins: Vec<Pin>,
}

/// A blob came, or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub digest: Digest,
    /// As it is here; `None`: it is no longer.
    pub holding: Option<Holding>,
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) quota: u64,
    pub(crate) whole: BTreeMap<Digest, Whole>,
    pub(crate) partial: BTreeMap<Digest, Arc<Partial>>,
    /// Partial blobs that are being opened.
    pub(crate) begun: BTreeSet<Digest>,
    /// Partial blobs of earlier runs that nobody asked for again yet, and the room they take.
    pub(crate) left: BTreeMap<Digest, u64>,
    /// How many of the whole ones are kept encrypted.
    pub(crate) sealed: usize,
    /// Encrypted with a key that is not here; they do not count.
    pub(crate) locked: BTreeSet<Digest>,
    pub(crate) pins: BTreeMap<Digest, BTreeSet<Pin>>,
    /// Bytes of whole blobs and of what earlier runs left.
    pub(crate) used: u64,
    pub(crate) reserved: u64,
    /// Who wants to hear what comes and goes.
    pub(crate) hearers: Vec<mpsc::UnboundedSender<Change>>,
    /// Grows with every use.
    pub(crate) clock: u64,
}

#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) size: u64,
    pub(crate) is_sealed: bool,
    used_at: u64,
}

impl Books {
    pub(crate) fn add(&mut self, holding: Holding) {
        let Holding { digest, size, is_sealed } = holding;
        self.clock += 1;
        self.used += size;
        if let Some(old) = self.whole.insert(digest, Whole { size, is_sealed, used_at: self.clock }) {
            self.used -= old.size;
            self.sealed -= usize::from(old.is_sealed);
        }
        self.sealed += usize::from(is_sealed);
        self.locked.remove(&digest);
        self.tell(Change { digest, holding: Some(holding) });
    }

    /// Whether it is the partial blob of its name: another one may have come after it, or a whole one.
    pub(crate) fn is_open(&self, partial: &Arc<Partial>) -> bool {
        self.partial.get(&partial.outline().digest()).is_some_and(|open| Arc::ptr_eq(open, partial))
    }

    /// As it is told.
    pub(crate) fn held(&self, Holding { digest, size, is_sealed }: Holding) -> Held {
        Held { digest, size, is_sealed, pins: self.pins_of(digest) }
    }

    /// All whole blobs, by name.
    pub(crate) fn holdings(&self) -> impl Iterator<Item = Holding> {
        self.whole.iter().map(|(digest, whole)| Holding { digest: *digest, size: whole.size, is_sealed: whole.is_sealed })
    }

    fn tell(&mut self, change: Change) {
        self.hearers.retain(|hearer| hearer.send(change).is_ok());
    }

    /// Whether it was there.
    pub(crate) fn forget(&mut self, digest: Digest) -> bool {
        let gone = self.whole.remove(&digest);
        self.used -= gone.as_ref().map_or(0, |whole| whole.size);
        self.sealed -= usize::from(gone.as_ref().is_some_and(|whole| whole.is_sealed));
        if gone.is_some() {
            self.tell(Change { digest, holding: None });
        }
        gone.is_some()
    }

    /// Whether it is there; if so, it was used now.
    pub(crate) fn touch(&mut self, digest: Digest) -> bool {
        self.clock += 1;
        let clock = self.clock;
        self.whole.get_mut(&digest).map(|whole| whole.used_at = clock).is_some()
    }

    pub(crate) fn is_sealed(&self, digest: Digest) -> bool {
        self.whole.get(&digest).is_some_and(|whole| whole.is_sealed)
    }

    pub(crate) fn pins_of(&self, digest: Digest) -> Vec<Pin> {
        self.pins.get(&digest).into_iter().flatten().copied().collect()
    }

    /// Whether that changed anything.
    pub(crate) fn set_pin(&mut self, digest: Digest, pin: Pin, is_pinned: bool) -> bool {
        if is_pinned {
            return self.pins.entry(digest).or_default().insert(pin);
        }
        let Some(pins) = self.pins.get_mut(&digest) else { return false };
        let was_pinned = pins.remove(&pin);
        if pins.is_empty() {
            self.pins.remove(&digest);
        }
        was_pinned
    }

    /// Takes this pin away wherever it is.
    pub(crate) fn unpin_all(&mut self, pin: Pin) {
        self.pins.retain(|_, pins| {
            pins.remove(&pin);
            !pins.is_empty()
        });
    }

    pub(crate) fn pinned_by_hand(&self) -> impl Iterator<Item = Digest> {
        self.pins.iter().filter(|(_, pins)| pins.contains(&Pin::Hand)).map(|(digest, _)| *digest)
    }

    /// What there is of a partial blob stays, and nobody works on it.
    pub(crate) fn leave(&mut self, digest: Digest, size: u64) {
        self.used += size;
        if let Some(old) = self.left.insert(digest, size) {
            self.used -= old;
        }
    }

    /// Somebody works on it again, or it goes; answers whether anything was left.
    pub(crate) fn take_up(&mut self, digest: Digest) -> bool {
        let left = self.left.remove(&digest);
        self.used -= left.unwrap_or(0);
        left.is_some()
    }

    /// Whether it is here whole, and in part.
    pub(crate) fn state(&self, digest: Digest) -> (bool, bool) {
        let is_part = self.partial.contains_key(&digest) || self.left.contains_key(&digest) || self.begun.contains(&digest);
        (self.whole.contains_key(&digest), is_part)
    }

    /// Sets room aside; answers which blobs go for it.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<Vec<Digest>, StoreError> {
        let mut gone = Vec::new();
        if self.used + self.reserved + bytes > self.quota {
            let all =
                self.whole.iter().map(|(digest, whole)| (digest, whole.size)).chain(self.left.iter().map(|(digest, size)| (digest, *size)));
            let pinned: u64 = all.filter(|(digest, _)| self.pins.contains_key(digest)).map(|(_, size)| size).sum();
            let free = self.quota.saturating_sub(self.reserved + pinned);
            if free < bytes {
                return Err(StoreError::Full { needs: bytes, free, quota: self.quota });
            }
            gone = self.evict(self.quota.saturating_sub(self.reserved + bytes)).0;
        }
        self.reserved += bytes;
        Ok(gone)
    }

    /// Forgets blobs that nobody pinned, the longest unused first, until at most `keep` bytes are used.
    pub(crate) fn evict(&mut self, keep: u64) -> (Vec<Digest>, u64) {
        // what was never whole is of least use
        let left = self.left.keys().map(|digest| (0, *digest));
        let all = left.chain(self.whole.iter().map(|(digest, whole)| (whole.used_at, *digest)));
        let mut order: Vec<(u64, Digest)> = all.filter(|(_, digest)| !self.pins.contains_key(digest)).collect();
        order.sort_unstable();
        let before = self.used;
        let mut gone = Vec::new();
        for (_, digest) in order {
            if self.used <= keep {
                break;
            }
            if !self.take_up(digest) {
                self.forget(digest);
            }
            gone.push(digest);
        }
        (gone, before - self.used)
    }
}

pub(crate) fn read_pins(path: &Path) -> io::Result<Vec<Digest>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    Ok(pins_in(&bytes, path))
}

/// One that changed costs its own pin, not the others.
pub(crate) fn pins_in(bytes: &[u8], path: &Path) -> Vec<Digest> {
    let name = |line: &str| {
        // as it was written: capitals would be read as the same, and be a change on the disk all the same
        let name = line.parse().ok().filter(|name: &Digest| name.to_string() == line);
        if name.is_none() {
            tracing::warn!(line, file = %path.display(), "the list of pins has changed on the disk, and a pin is lost");
        }
        name
    };
    String::from_utf8_lossy(bytes).lines().filter_map(name).collect()
}

pub(crate) fn write_pins(dir: &Path, pins: impl Iterator<Item = Digest>) -> io::Result<()> {
    let draft = dir.join("pins.new");
    let text: String = pins.map(|digest| format!("{digest}\n")).collect();
    fs::write(&draft, text)?;
    files::open_or_make(&draft)?.sync_all()?;
    fs::rename(&draft, dir.join("pins"))?;
    files::sync_dir(dir)
}
