//! The directory of blobs.

mod check;
mod opening;
mod suspects;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use swarm_core::blobs::StoreKey;
use swarm_proto::{Digest, limits, peer::Holding};
use tokio::sync::mpsc;

pub use self::check::Checked;
use crate::{
    body::Body,
    books::{Books, Change, Held, Pin, write_pins},
    carried::Carried,
    draft::Draft,
    error::StoreError,
    files,
    keys::{KeyAt, Keys},
    outline::{Outline, Outliner},
    partial::{PartPaths, Partial},
    reader::Reader,
    recent::Recent,
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
    keys: Keys,
    drafts: AtomicU64,
    carried: Carried,
    recent: Recent,
    suspects: suspects::Suspects,
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

    fn whole_path(&self, digest: Digest, is_sealed: bool) -> PathBuf {
        self.shelf(if is_sealed { "sealed" } else { "whole" }, digest)
    }

    /// The key, made where nothing is here that another one opens.
    fn key(&self) -> Result<StoreKey, StoreError> {
        self.keys.get(false).or_else(|error| {
            let books = self.books();
            let is_first = books.locked.is_empty() && books.sealed == 0;
            if is_first { self.keys.get(true) } else { Err(error) }
        })
    }

    /// Whatever else there is of a blob that is whole now.
    fn remove_other(&self, digest: Digest, is_sealed: bool) -> io::Result<()> {
        files::remove(&self.whole_path(digest, !is_sealed))
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
    /// The directory cannot be read or written. Without the key, what is encrypted is not here, and that is no error.
    pub fn open(dir: impl Into<PathBuf>, quota: u64, key: KeyAt) -> Result<Self, StoreError> {
        Self::open_in(files::boot_id(), dir.into(), quota, key)
    }

    /// Where whole blobs are in such a directory, each at its [`Digest::shelf`]: those that are as they are, and encrypted ones.
    pub fn shelves(dir: &Path) -> (PathBuf, PathBuf) {
        (dir.join("whole"), dir.join("sealed"))
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

    /// What has passed between it and other nodes' stores.
    pub fn carried(&self) -> &Carried {
        &self.0.carried
    }

    /// The size of a blob that is all here.
    pub fn size_of(&self, digest: Digest) -> Option<u64> {
        self.0.books().whole.get(&digest).map(|whole| whole.size)
    }

    /// All whole blobs, by name.
    pub fn list(&self) -> Vec<Held> {
        let books = self.0.books();
        books.holdings().map(|holding| books.held(holding)).collect()
    }

    /// All whole blobs, and every change after that, for as long as it is listened to.
    pub fn subscribe(&self) -> (Vec<Holding>, mpsc::UnboundedReceiver<Change>) {
        let (tx, rx) = mpsc::unbounded_channel();
        let mut books = self.0.books();
        books.hearers.push(tx);
        (books.holdings().collect(), rx)
    }

    /// One whole blob.
    pub fn held(&self, digest: Digest) -> Option<Held> {
        let books = self.0.books();
        books.whole.get(&digest).map(|whole| books.held(Holding { digest, size: whole.size, is_sealed: whole.is_sealed }))
    }

    /// Whether a whole blob is kept encrypted.
    pub fn is_sealed(&self, digest: Digest) -> bool {
        self.0.books().is_sealed(digest)
    }

    /// Whether it is or was, also where the key is not here.
    pub(crate) fn must_seal(&self, digest: Digest) -> bool {
        let books = self.0.books();
        books.is_sealed(digest) || books.locked.contains(&digest)
    }

    /// What opens the blobs that are kept encrypted, for whoever reads them where [`Self::shelves`] are; `None`: there are none.
    pub fn opener(&self) -> Option<StoreKey> {
        let has_some = self.0.books().sealed > 0;
        has_some.then(|| self.0.keys.get(false).ok()).flatten()
    }

    /// Begins a blob whose name is not known yet.
    ///
    /// # Errors
    /// The disk's.
    pub fn draft(&self) -> Result<Draft, StoreError> {
        self.make_draft(None)
    }

    /// The same of one that is kept encrypted, here and wherever it is fetched to.
    ///
    /// # Errors
    /// [`StoreError::NoKey`], and the disk's.
    pub fn sealed_draft(&self) -> Result<Draft, StoreError> {
        self.make_draft(Some(&self.0.key()?))
    }

    /// Keeps a blob that came whole. Without the files of one that comes in parts, whose making and removing takes most of the time of
    /// many small ones.
    pub(crate) fn keep_small(&self, digest: Digest, data: &[u8], is_sealed: bool) -> Result<(), StoreError> {
        let mut draft = if is_sealed || self.must_seal(digest) { self.sealed_draft() } else { self.draft() }?;
        draft.write(data)?;
        draft.finish().map(|_| ())
    }

    fn make_draft(&self, key: Option<&StoreKey>) -> Result<Draft, StoreError> {
        let io = |e| StoreError::io("a blob's file", e);
        let cipher = key.map(Body::cipher).transpose().map_err(io)?;
        let (path, file) = self.0.make_draft().map_err(io)?;
        let room = Room { inner: self.0.clone(), bytes: 0 };
        Ok(Draft::new(self.clone(), path, Body::new(file, cipher), Outliner::default(), room))
    }

    /// Begins a blob whose outline is known, or goes on with it. One call at a time for one blob. `is_sealed`: it is kept encrypted.
    ///
    /// # Errors
    /// [`StoreError::NoKey`], [`StoreError::Full`], [`StoreError::DiskFull`], and the disk's.
    pub fn begin(&self, outline: Outline, is_sealed: bool) -> Result<Begun, StoreError> {
        let digest = outline.digest();
        let paths = self.0.part_paths(digest);
        // what is left of an encrypted one goes on as that, whoever gives the rest
        let was_sealed = fs::metadata(&paths.bytes).is_ok_and(|metadata| metadata.len() == outline.size() + Body::beyond(true));
        let key = (is_sealed || was_sealed || self.must_seal(digest)).then(|| self.0.key()).transpose()?;
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
            books.begun.insert(digest);
            (Room { inner: self.0.clone(), bytes: 0 }, books.take_up(digest))
        };
        let boot = self.0.boot.clone();
        let opened = self.grow(&mut room, outline.size()).and_then(|()| Partial::open(outline, paths.clone(), boot, room, key.as_ref()));
        let mut books = self.0.books();
        books.begun.remove(&digest);
        match opened {
            Ok(partial) => {
                let partial = Arc::new(partial);
                books.partial.insert(digest, partial.clone());
                Ok(Begun::Partial(partial))
            }
            Err(error) => {
                if !is_left {
                    let _ = paths.remove();
                } else if let Ok(metadata) = fs::metadata(&paths.bytes) {
                    books.leave(digest, metadata.len());
                }
                Err(error)
            }
        }
    }

    /// Makes a partial blob that is all here a whole one. When this returns, it is here for good.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when something is missing, or when the blob was put meanwhile and is gone again; and the disk's.
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
            // its files went when the blob was put, and what is in their place belongs to somebody else
            let is_given_up = !self.0.books().is_open(partial);
            if is_given_up {
                return if is_new { Err(StoreError::Missing(digest)) } else { Ok(()) };
            }
            if is_new {
                let to = self.0.whole_path(digest, partial.is_sealed());
                self.0.shelve(&partial.paths.bytes, &to).and_then(|()| self.0.remove_other(digest, partial.is_sealed())).map_err(io)?;
            }
            let mut books = self.0.books();
            partial.room().hand_over(&mut books);
            if is_new {
                books.add(Holding { digest, size: outline.size(), is_sealed: partial.is_sealed() });
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
        if books.is_open(partial) {
            books.partial.remove(&outline.digest());
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
    /// [`StoreError::Damaged`] when its outline is gone and its bytes are another blob, [`StoreError::Locked`] when its key is not here,
    /// and the disk's.
    pub fn reader(&self, digest: Digest) -> Result<Option<Reader>, StoreError> {
        self.open_used(digest, |store, body| store.outline(digest, body))
    }

    /// As [`Store::reader`], for one of many requests: what was proved for the last one is not proved again.
    pub(crate) fn reader_again(&self, digest: Digest) -> Result<Option<Reader>, StoreError> {
        self.open_used(digest, |store, body| {
            let size = body.size().map_err(|e| StoreError::io("a blob", e))?;
            if let Some(outline) = store.0.recent.find(digest, size) {
                return Ok(outline);
            }
            let outline = store.outline(digest, body)?;
            store.0.recent.keep(outline.clone());
            Ok(outline)
        })
    }

    fn open_used(
        &self,
        digest: Digest,
        outline: impl FnOnce(&Self, &Body) -> Result<Outline, StoreError>,
    ) -> Result<Option<Reader>, StoreError> {
        {
            let mut books = self.0.books();
            if !books.touch(digest) {
                let partial = books.partial.get(&digest).cloned().map(Reader::partial);
                return if partial.is_none() && books.locked.contains(&digest) { Err(StoreError::Locked(digest)) } else { Ok(partial) };
            }
        }
        self.open_whole(digest, outline)
    }

    /// Opens a whole blob; it does not count as used by this. `None`: it is not here.
    ///
    /// # Errors
    /// As [`Store::reader`].
    pub fn inspect(&self, digest: Digest) -> Result<Option<Reader>, StoreError> {
        if self.size_of(digest).is_none() {
            return Ok(None);
        }
        self.open_whole(digest, |store, body| store.outline(digest, body))
    }

    fn open_whole(
        &self,
        digest: Digest,
        outline: impl FnOnce(&Self, &Body) -> Result<Outline, StoreError>,
    ) -> Result<Option<Reader>, StoreError> {
        let is_sealed = self.is_sealed(digest);
        let path = self.0.whole_path(digest, is_sealed);
        let file = match File::open(&path) {
            Ok(file) => file,
            // somebody took it away behind our back, or it came and went a moment ago
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let _alone = self.0.shelves();
                if path.exists() {
                    return Err(StoreError::io("a blob", e));
                }
                self.0.books().forget(digest);
                return Ok(None);
            }
            Err(e) => return Err(StoreError::io("a blob", e)),
        };
        let mut cipher = None;
        if is_sealed {
            cipher = Body::open(&file, &self.0.keys.get(false)?).map_err(|e| StoreError::io("a blob", e))?;
            if cipher.is_none() {
                // its seal changed on the disk, and nothing of it can be read any more
                return Err(StoreError::Damaged { digest, segments: Vec::new() });
            }
        }
        let body = Body::new(file, cipher);
        let outline = outline(self, &body)?;
        Ok(Some(Reader::whole(outline, body)))
    }

    /// As it was written down, or from the bytes.
    fn outline(&self, digest: Digest, body: &Body) -> Result<Outline, StoreError> {
        let io = |e| StoreError::io("a blob", e);
        let size = body.size().map_err(io)?;
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
        while outliner.size() < size {
            let len = usize::try_from(size - outliner.size()).unwrap_or(SEGMENT).min(SEGMENT);
            outliner.update(&body.read(outliner.size(), len).map_err(io)?);
        }
        let outline = outliner.finish();
        if outline.digest() != digest {
            return Err(StoreError::Damaged { digest, segments: Vec::new() });
        }
        if let Err(error) = self.keep_outline(&outline) {
            // it is made again the next time; a disk that is full can still be read
            tracing::warn!(%digest, %error, "the outline of a blob was lost and is not written down");
        }
        Ok(outline)
    }

    /// Writes an outline down for good, where there is more to it than the name.
    fn keep_outline(&self, outline: &Outline) -> Result<(), StoreError> {
        if outline.segments() == 1 {
            return Ok(());
        }
        let io = |e| StoreError::io("a blob's outline", e);
        let (draft, file) = self.0.make_draft().map_err(io)?;
        let written = files::write_at(&file, outline.bytes(), 0).and_then(|()| file.sync_data());
        let kept = written.and_then(|()| self.0.shelve(&draft, &self.0.outline_path(outline.digest())));
        if kept.is_err() {
            let _ = files::remove(&draft);
        }
        kept.map_err(io)
    }

    /// A draft got its name.
    ///
    /// One that is here already is replaced: the bytes at hand are sound, those on the disk may have changed.
    pub(crate) fn adopt(&self, draft: &Path, body: &Body, outline: &Outline, room: &mut Room) -> Result<(), StoreError> {
        let io = |e| StoreError::io("a blob", e);
        let (digest, is_sealed) = (outline.digest(), body.is_sealed());
        let kept = body.seal(outline.size()).and_then(|()| body.file().sync_data()).map_err(io).and_then(|()| self.keep_outline(outline));
        {
            let _alone = self.0.shelves();
            if !is_sealed && self.must_seal(digest) {
                // encrypted a moment ago: that one stays
                let _ = files::remove(draft);
                return Ok(());
            }
            let to = self.0.whole_path(digest, is_sealed);
            let shelve = || self.0.shelve(draft, &to).and_then(|()| self.0.remove_other(digest, is_sealed)).map_err(io);
            if let Err(error) = kept.and_then(|()| shelve()) {
                let _ = files::remove(draft);
                return Err(error);
            }
            let mut books = self.0.books();
            room.hand_over(&mut books);
            books.add(Holding { digest, size: outline.size(), is_sealed });
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
        let paths = || [self.0.whole_path(digest, false), self.0.whole_path(digest, true), self.0.outline_path(digest)];
        let whole = (!is_whole).then(paths).into_iter().flatten();
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
}
