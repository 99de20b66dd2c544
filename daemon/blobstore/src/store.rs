//! The directory of blobs.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use swarm_core::blobs::SegmentSet;
use swarm_proto::{Digest, limits};
use tokio::sync::mpsc;

use crate::{
    books::{Books, Change, Held, Pin, read_pins, write_pins},
    draft::Draft,
    error::StoreError,
    files,
    outline::{Outline, Outliner},
    partial::{PartPaths, Partial},
    reader::Reader,
};

/// Read at a time where a blob is hashed from the disk.
const SEGMENT: usize = limits::SEGMENT as usize;

/// What a blob was begun as.
#[derive(Debug)]
pub enum Begun {
    /// It is here already.
    Whole,
    /// To be filled.
    Partial(Arc<Partial>),
}

/// What a check of a blob found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It is what it should be.
    Sound,
    /// These segments are not. The blob counts as partial now, and what is sound of it needs not be fetched.
    Partial(Vec<u32>),
    /// Nothing of it is, or it cannot be told what, so it was removed.
    Removed,
}

/// Room that is taken for something that is not a whole blob yet. Dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Room {
    inner: Arc<Inner>,
    bytes: u64,
}

impl Room {
    /// What it was taken for is entered in the books in another way from now on.
    fn hand_over(&mut self, books: &mut Books) {
        books.reserved -= std::mem::take(&mut self.bytes);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.inner.books().reserved -= self.bytes;
        }
    }
}

/// A directory of blobs; clones share it. One process at a time, which the state directory's lock sees to.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    boot: String,
    drafts: AtomicU64,
    /// Held while a whole blob's file comes, goes or changes its place, so that file and books change together. Taken before the books.
    shelves: Mutex<()>,
    books: Mutex<Books>,
}

impl Inner {
    fn shelves(&self) -> MutexGuard<'_, ()> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf(&self, kind: &str, digest: Digest) -> PathBuf {
        self.dir.join(kind).join(digest.shelf())
    }

    fn whole_path(&self, digest: Digest) -> PathBuf {
        self.shelf("whole", digest)
    }

    fn outline_path(&self, digest: Digest) -> PathBuf {
        self.shelf("outline", digest)
    }

    fn part_paths(&self, digest: Digest) -> PartPaths {
        PartPaths::new(&self.dir.join("part"), digest)
    }

    /// A file that has no place yet.
    fn make_draft(&self) -> io::Result<(PathBuf, File)> {
        let path = self.dir.join("draft").join(self.drafts.fetch_add(1, Ordering::Relaxed).to_string());
        files::make(&path).map(|file| (path, file))
    }

    /// Puts a file in its place for good.
    fn shelve(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (Some(shelf), Some(floor)) = (to.parent(), from.parent()) else { return Err(io::ErrorKind::InvalidInput.into()) };
        if !shelf.is_dir() {
            fs::create_dir_all(shelf)?;
            files::sync_dir(shelf.parent().unwrap_or(shelf))?;
        }
        fs::rename(from, to)?;
        files::sync_dir(shelf)?;
        files::sync_dir(floor)
    }
}

impl Store {
    /// Opens a directory of blobs, makes it when it is not there. What earlier runs left half done is kept where it is of use.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn open(dir: impl Into<PathBuf>, quota: u64) -> Result<Self, StoreError> {
        Self::open_in(files::boot_id(), dir.into(), quota)
    }

    /// Where whole blobs are in such a directory, each at its [`Digest::shelf`].
    pub fn shelves(dir: &Path) -> PathBuf {
        dir.join("whole")
    }

    /// In this run of the host's kernel.
    pub(crate) fn open_in(boot: String, dir: PathBuf, quota: u64) -> Result<Self, StoreError> {
        let inner = Inner { dir, boot, drafts: AtomicU64::new(0), shelves: Mutex::default(), books: Mutex::default() };
        let io = |e| StoreError::io("the directory of blobs", e);
        for name in ["whole", "outline", "part", "draft"] {
            fs::create_dir_all(inner.dir.join(name)).map_err(io)?;
        }
        for draft in list(&inner.dir.join("draft")).map_err(io)? {
            files::remove(&draft).map_err(io)?;
        }
        let mut found = Vec::new();
        for shelf in list(&inner.dir.join("whole")).map_err(io)? {
            for path in list(&shelf).map_err(io)? {
                let metadata = fs::metadata(&path).map_err(io)?;
                let Some(digest) = named(path.file_name()) else { continue };
                found.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), digest, metadata.len()));
            }
        }
        found.sort_unstable();
        {
            let mut books = inner.books();
            books.quota = quota;
            for (_, digest, size) in found {
                books.add(digest, size);
            }
            for path in list(&inner.dir.join("part")).map_err(io)? {
                let Some(digest) = named(path.file_name()) else { continue };
                if books.whole.contains_key(&digest) {
                    inner.part_paths(digest).remove().map_err(io)?;
                    continue;
                }
                let size = fs::metadata(&path).map_err(io)?.len();
                books.leave(digest, size);
            }
            for digest in read_pins(&inner.dir.join("pins")).map_err(io)? {
                books.pins.entry(digest).or_default().insert(Pin::Hand);
            }
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Takes another quota. What is too much is given up as room is needed.
    pub fn set_quota(&self, quota: u64) {
        self.0.books().quota = quota;
    }

    /// Bytes that are used or set aside, and the quota.
    pub fn room(&self) -> (u64, u64) {
        let books = self.0.books();
        (books.used + books.reserved, books.quota)
    }

    /// The size of a blob that is all here.
    pub fn size_of(&self, digest: Digest) -> Option<u64> {
        self.0.books().whole.get(&digest).map(|whole| whole.size)
    }

    /// All whole blobs, by name.
    pub fn list(&self) -> Vec<Held> {
        let books = self.0.books();
        books.whole.iter().map(|(digest, whole)| Held { digest: *digest, size: whole.size, pins: books.pins_of(*digest) }).collect()
    }

    /// All whole blobs, and every change after that, for as long as it is listened to.
    pub fn subscribe(&self) -> (Vec<(Digest, u64)>, mpsc::UnboundedReceiver<Change>) {
        let (tx, rx) = mpsc::unbounded_channel();
        let mut books = self.0.books();
        books.hearers.push(tx);
        (books.whole.iter().map(|(digest, whole)| (*digest, whole.size)).collect(), rx)
    }

    /// One whole blob.
    pub fn held(&self, digest: Digest) -> Option<Held> {
        let books = self.0.books();
        books.whole.get(&digest).map(|whole| Held { digest, size: whole.size, pins: books.pins_of(digest) })
    }

    /// Begins a blob whose name is not known yet.
    ///
    /// # Errors
    /// The disk's.
    pub fn draft(&self) -> Result<Draft, StoreError> {
        let (path, file) = self.0.make_draft().map_err(|e| StoreError::io("a blob's file", e))?;
        Ok(Draft::new(self.clone(), path, file, Outliner::default(), Room { inner: self.0.clone(), bytes: 0 }))
    }

    /// Begins a blob whose outline is known, or goes on with it. One call at a time for one blob.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::DiskFull`], and the disk's.
    pub fn begin(&self, outline: Outline) -> Result<Begun, StoreError> {
        let digest = outline.digest();
        let (mut room, is_left) = {
            // not while it is made a partial one
            let _alone = self.0.shelves();
            let mut books = self.0.books();
            if books.whole.contains_key(&digest) {
                return Ok(Begun::Whole);
            }
            if let Some(partial) = books.partial.get(&digest) {
                return Ok(Begun::Partial(partial.clone()));
            }
            (Room { inner: self.0.clone(), bytes: 0 }, books.take_up(digest))
        };
        let paths = self.0.part_paths(digest);
        let opened = self.grow(&mut room, outline.size()).and_then(|()| Partial::open(outline, paths.clone(), self.0.boot.clone(), room));
        match opened {
            Ok(partial) => {
                let partial = Arc::new(partial);
                self.0.books().partial.insert(digest, partial.clone());
                Ok(Begun::Partial(partial))
            }
            Err(error) => {
                if !is_left {
                    let _ = paths.remove();
                } else if let Ok(metadata) = fs::metadata(&paths.bytes) {
                    self.0.books().leave(digest, metadata.len());
                }
                Err(error)
            }
        }
    }

    /// Makes a partial blob that is all here a whole one. When this returns, it is here for good.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when something is missing, and the disk's.
    pub fn complete(&self, partial: &Arc<Partial>) -> Result<(), StoreError> {
        let outline = partial.outline();
        let digest = outline.digest();
        if !partial.is_full() {
            return Err(StoreError::Missing(digest));
        }
        let io = |e| StoreError::io("a blob", e);
        if let Err(e) = partial.sync() {
            // what was lost is not known, and a second sync would claim that nothing was
            let _ = self.abandon(digest);
            return Err(io(e));
        }
        self.keep_outline(outline)?;
        {
            let _alone = self.0.shelves();
            let is_new = self.size_of(digest).is_none();
            if is_new {
                self.0.shelve(&partial.paths.bytes, &self.0.whole_path(digest)).map_err(io)?;
            }
            let mut books = self.0.books();
            partial.room().hand_over(&mut books);
            if is_new {
                books.add(digest, outline.size());
            }
            books.partial.remove(&digest);
        }
        partial.paths.remove().map_err(io)
    }

    /// Nobody fetches it any more: what there is of it stays for the next who does, as long as there is room.
    pub fn pause(&self, partial: &Arc<Partial>) {
        let outline = partial.outline();
        let mut books = self.0.books();
        partial.room().hand_over(&mut books);
        if books.partial.remove(&outline.digest()).is_some() {
            books.leave(outline.digest(), outline.size());
        }
    }

    /// Gives up what there is of a partial blob.
    ///
    /// # Errors
    /// The disk's.
    pub fn abandon(&self, digest: Digest) -> Result<(), StoreError> {
        let mut books = self.0.books();
        // its room goes back to the books when it is dropped, so that is after they are closed
        let gone = books.partial.remove(&digest);
        books.take_up(digest);
        drop(books);
        drop(gone);
        self.0.part_paths(digest).remove().map_err(|e| StoreError::io("a part of a blob", e))
    }

    /// Opens a blob, or what is here of it; `None`: nothing is.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when its outline is gone and its bytes are another blob, and the disk's.
    pub fn reader(&self, digest: Digest) -> Result<Option<Reader>, StoreError> {
        {
            let mut books = self.0.books();
            if !books.touch(digest) {
                return Ok(books.partial.get(&digest).cloned().map(Reader::partial));
            }
        }
        self.open_whole(digest)
    }

    /// Opens a whole blob; it does not count as used by this. `None`: it is not here.
    ///
    /// # Errors
    /// As [`Store::reader`].
    pub fn inspect(&self, digest: Digest) -> Result<Option<Reader>, StoreError> {
        if self.size_of(digest).is_some() { self.open_whole(digest) } else { Ok(None) }
    }

    fn open_whole(&self, digest: Digest) -> Result<Option<Reader>, StoreError> {
        let file = match File::open(self.0.whole_path(digest)) {
            Ok(file) => file,
            // somebody took it away behind our back, or it came and went a moment ago
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let _alone = self.0.shelves();
                if self.0.whole_path(digest).exists() {
                    return Err(StoreError::io("a blob", e));
                }
                self.0.books().forget(digest);
                return Ok(None);
            }
            Err(e) => return Err(StoreError::io("a blob", e)),
        };
        let outline = self.outline(digest, &file)?;
        Ok(Some(Reader::whole(outline, file)))
    }

    /// As it was written down, or from the bytes.
    fn outline(&self, digest: Digest, file: &File) -> Result<Outline, StoreError> {
        let io = |e| StoreError::io("a blob", e);
        let size = file.metadata().map_err(io)?.len();
        if size <= u64::from(limits::SEGMENT) {
            return Outline::new(digest, size, vec![digest.0]).map_err(|_| StoreError::Damaged { digest, segments: Vec::new() });
        }
        let largest = 32 * limits::BLOB / u64::from(limits::SEGMENT);
        let bytes = files::read_small(&self.0.outline_path(digest), largest).map_err(io)?.unwrap_or_default();
        let values = bytes.as_chunks::<32>().0.to_vec();
        if let Ok(outline) = Outline::new(digest, size, values) {
            return Ok(outline);
        }
        let mut outliner = Outliner::default();
        let mut piece = vec![0; SEGMENT];
        while outliner.size() < size {
            let len = usize::try_from(size - outliner.size()).unwrap_or(SEGMENT).min(SEGMENT);
            files::read_at(file, &mut piece[..len], outliner.size()).map_err(io)?;
            outliner.update(&piece[..len]);
        }
        let outline = outliner.finish();
        if outline.digest() != digest {
            return Err(StoreError::Damaged { digest, segments: Vec::new() });
        }
        self.keep_outline(&outline)?;
        Ok(outline)
    }

    /// Writes an outline down for good, where there is more to it than the name.
    fn keep_outline(&self, outline: &Outline) -> Result<(), StoreError> {
        if outline.segments() == 1 {
            return Ok(());
        }
        let io = |e| StoreError::io("a blob's outline", e);
        let (draft, file) = self.0.make_draft().map_err(io)?;
        files::write_at(&file, outline.bytes(), 0).and_then(|()| file.sync_data()).map_err(io)?;
        self.0.shelve(&draft, &self.0.outline_path(outline.digest())).map_err(io)
    }

    /// A draft got its name.
    ///
    /// One that is here already is replaced: the bytes at hand are sound, those on the disk may have changed.
    pub(crate) fn adopt(&self, draft: &Path, file: &File, outline: &Outline, room: &mut Room) -> Result<(), StoreError> {
        let io = |e| StoreError::io("a blob", e);
        let digest = outline.digest();
        let kept = file.sync_data().map_err(io).and_then(|()| self.keep_outline(outline));
        {
            let _alone = self.0.shelves();
            if let Err(error) = kept.and_then(|()| self.0.shelve(draft, &self.0.whole_path(digest)).map_err(io)) {
                let _ = files::remove(draft);
                return Err(error);
            }
            let mut books = self.0.books();
            room.hand_over(&mut books);
            books.add(digest, outline.size());
        }
        // whoever fetches it meanwhile finds that it is here
        self.abandon(digest)
    }

    /// Gives `room` so many bytes in all. Blobs that nobody pinned go, those first that were not used for longest.
    pub(crate) fn grow(&self, room: &mut Room, size: u64) -> Result<(), StoreError> {
        if size > limits::BLOB {
            return Err(StoreError::TooLarge(size));
        }
        let more = size.saturating_sub(room.bytes);
        let gone = self.0.books().take(more)?;
        room.bytes += more;
        gone.into_iter().for_each(|digest| self.unlink(digest));
        Ok(())
    }

    /// A blob that the books no longer have, unless it came again. What cannot be removed is found again at the next start.
    fn unlink(&self, digest: Digest) {
        let _alone = self.0.shelves();
        let (is_whole, is_partial) = self.0.books().state(digest);
        let whole = (!is_whole).then(|| [self.0.whole_path(digest), self.0.outline_path(digest)]).into_iter().flatten();
        let removed = whole.map(|path| files::remove(&path)).chain((!is_partial).then(|| self.0.part_paths(digest).remove()));
        for error in removed.filter_map(Result::err) {
            tracing::warn!(%digest, %error, "a blob was not removed");
        }
    }

    /// Removes blobs that nobody pinned until at most `keep` bytes are used; answers how many bytes that gave.
    pub fn collect(&self, keep: u64) -> u64 {
        let (gone, freed) = self.0.books().evict(keep);
        gone.into_iter().for_each(|digest| self.unlink(digest));
        freed
    }

    /// Removes a blob, or what there is of it, whoever pinned it.
    ///
    /// # Errors
    /// [`StoreError::Missing`], and the disk's.
    pub fn remove(&self, digest: Digest) -> Result<(), StoreError> {
        let (was_whole, was_part) = {
            let mut books = self.0.books();
            let (_, was_part) = books.state(digest);
            (books.forget(digest), was_part)
        };
        if was_part {
            self.abandon(digest)?;
        }
        if was_whole {
            self.unlink(digest);
        }
        if was_whole || was_part { Ok(()) } else { Err(StoreError::Missing(digest)) }
    }

    /// Keeps a blob until it is unpinned, whether it is here yet or not.
    ///
    /// # Errors
    /// The disk's, for [`Pin::Hand`]; then it is not pinned.
    pub fn pin(&self, digest: Digest, pin: Pin) -> Result<(), StoreError> {
        self.repin(digest, pin, true)
    }

    /// Takes a pin away; one that is not there is no error.
    ///
    /// # Errors
    /// The disk's, for [`Pin::Hand`]; then it stays pinned.
    pub fn unpin(&self, digest: Digest, pin: Pin) -> Result<(), StoreError> {
        self.repin(digest, pin, false)
    }

    /// Takes a pin away wherever it is; not for [`Pin::Hand`], which is written down.
    pub fn unpin_all(&self, pin: Pin) {
        self.0.books().unpin_all(pin);
    }

    fn repin(&self, digest: Digest, pin: Pin, is_pinned: bool) -> Result<(), StoreError> {
        let mut books = self.0.books();
        if books.set_pin(digest, pin, is_pinned)
            && pin == Pin::Hand
            && let Err(e) = write_pins(&self.0.dir, books.pinned_by_hand())
        {
            books.set_pin(digest, pin, !is_pinned);
            return Err(StoreError::io("the list of pins", e));
        }
        Ok(())
    }

    /// Reads a whole blob again. One that changed on the disk is not whole any more.
    ///
    /// # Errors
    /// [`StoreError::Missing`], and the disk's.
    pub fn check(&self, digest: Digest) -> Result<Checked, StoreError> {
        if self.size_of(digest).is_none() {
            return Err(StoreError::Missing(digest));
        }
        let reader = match self.reader(digest) {
            Ok(Some(reader)) => reader,
            Ok(None) => return Err(StoreError::Missing(digest)),
            Err(StoreError::Damaged { .. }) => {
                self.remove(digest)?;
                return Ok(Checked::Removed);
            }
            Err(error) => return Err(error),
        };
        let mut bad = Vec::new();
        for index in 0..reader.outline().segments() {
            match reader.checked(index) {
                Ok(_) => {}
                // a sector that cannot be read is no better than one that changed
                Err(StoreError::Damaged { .. } | StoreError::Io { .. }) => bad.push(index),
                Err(error) => return Err(error),
            }
        }
        if bad.is_empty() {
            return Ok(Checked::Sound);
        }
        if bad.len() == reader.outline().values().len() {
            self.remove(digest)?;
            return Ok(Checked::Removed);
        }
        self.demote(reader.outline(), &bad)?;
        Ok(Checked::Partial(bad))
    }

    /// Makes a whole blob a partial one without these segments.
    fn demote(&self, outline: &Outline, bad: &[u32]) -> Result<(), StoreError> {
        let io = |e| StoreError::io("a blob", e);
        let (digest, paths) = (outline.digest(), self.0.part_paths(outline.digest()));
        let mut have = SegmentSet::full(outline.segments());
        for index in bad {
            have.remove(*index);
        }
        let _alone = self.0.shelves();
        Partial::leave(outline, &paths, &self.0.boot, &have).map_err(io)?;
        self.0.shelve(&self.0.whole_path(digest), &paths.bytes).map_err(io)?;
        let mut books = self.0.books();
        books.forget(digest);
        books.leave(digest, outline.size());
        drop(books);
        files::remove(&self.0.outline_path(digest)).map_err(io)
    }
}

fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

fn named(name: Option<&OsStr>) -> Option<Digest> {
    name?.to_str()?.parse().ok()
}
