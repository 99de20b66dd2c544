//! A blob that is not all here yet.
//!
//! The map says which segments are there. It is written every few segments and never synced: while the kernel runs, what was written
//! is there, also after the daemon was killed. After another boot the map proves nothing, so what it claims is hashed again; and where
//! it is lost or torn, or the bytes were cut, whatever is there is.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use swarm_core::blobs::{SegmentSet, StoreKey};
use swarm_proto::{Digest, blob::segment_start, limits};
use tokio::sync::watch;

use crate::{
    body::Body,
    error::StoreError,
    files::{self, Buffer},
    outline::Outline,
    store::Room,
};

/// Segments that may have to be fetched again after the daemon was killed.
const UNSAVED: u32 = 8;
const CRC: usize = 4;
/// Bytes of a blob that is written past the page cache.
const DIRECT: u64 = 64 << 20;

/// Where the files of a partial blob are.
#[derive(Clone, Debug)]
pub(crate) struct PartPaths {
    pub(crate) bytes: PathBuf,
    pub(crate) outline: PathBuf,
    pub(crate) map: PathBuf,
}

impl PartPaths {
    pub(crate) fn new(dir: &Path, digest: Digest) -> Self {
        let named = |suffix: &str| dir.join(format!("{digest}{suffix}"));
        Self { bytes: named(""), outline: named(".outline"), map: named(".map") }
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        [&self.map, &self.outline, &self.bytes].into_iter().try_for_each(|path| files::remove(path))
    }
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was new.
    New,
    /// It was here already.
    Known,
    /// It is not what it should be; nothing was written.
    Bad,
}

/// A blob that comes in segments, from anywhere and in any order.
#[derive(Debug)]
pub struct Partial {
    outline: Outline,
    body: Body,
    /// The same file past the page cache, for a large blob.
    direct: Option<File>,
    map: File,
    boot: String,
    state: Mutex<State>,
    /// Held while a segment is written: writers of one file wait for each other in the kernel anyway, and burn a core there.
    writing: Mutex<()>,
    /// How many segments are here.
    news: watch::Sender<u32>,
    pub(crate) paths: PartPaths,
    /// Given back when nobody has this any more, if it was not handed over before.
    room: Mutex<Room>,
}

#[derive(Debug)]
struct State {
    have: SegmentSet,
    unsaved: u32,
}

impl Partial {
    /// Begins, or goes on with what an earlier run left. `key`: it is kept encrypted.
    pub(crate) fn open(outline: Outline, paths: PartPaths, boot: String, room: Room, key: Option<&StoreKey>) -> Result<Self, StoreError> {
        let io = |what: &'static str| move |e| StoreError::io(what, e);
        let (body, len) = open_body(&paths.bytes, outline.size(), key).map_err(io("a blob's file"))?;
        let whole = outline.size() + Body::beyond(body.is_sealed());
        let known = files::read_small(&paths.outline, outline.bytes().len() as u64).map_err(io("a blob's outline"))?;
        if len != whole || known.is_none_or(|bytes| bytes != outline.bytes()) {
            // it speaks of another file than this one will be
            files::remove(&paths.map).map_err(io("a blob's map"))?;
            files::set_aside(body.file(), whole).and_then(|()| body.seal(outline.size())).map_err(io("room for a blob"))?;
            std::fs::write(&paths.outline, outline.bytes()).map_err(io("a blob's outline"))?;
        }
        let map = files::open_or_make(&paths.map).map_err(io("a blob's map"))?;
        let state = State { have: SegmentSet::empty(outline.segments()), unsaved: 0 };
        let direct = (outline.size() >= DIRECT).then(|| files::open_direct(&paths.bytes)).flatten();
        let partial = Self {
            outline,
            body,
            direct,
            map,
            boot,
            state: Mutex::new(state),
            writing: Mutex::new(()),
            news: watch::Sender::new(0),
            paths,
            room: Mutex::new(room),
        };
        partial.resume(len > 0)?;
        Ok(partial)
    }

    /// Leaves the map and the outline of a blob for [`Self::open`] to find; its bytes are brought after them.
    pub(crate) fn leave(outline: &Outline, paths: &PartPaths, boot: &str, have: &SegmentSet) -> io::Result<()> {
        std::fs::write(&paths.outline, outline.bytes())?;
        std::fs::write(&paths.map, encode(boot, have))
    }

    /// Believes the map of this boot; hashes what one of another boot claims, and everything where there is no map of what `is_old`.
    fn resume(&self, is_old: bool) -> Result<(), StoreError> {
        let io = |e| StoreError::io("a blob's map", e);
        let longest = (CRC + 64 + limits::BLOB.div_ceil(u64::from(limits::SEGMENT)) as usize) as u64;
        let saved = files::read_small(&self.paths.map, longest).map_err(io)?.unwrap_or_default();
        let (is_proof, mut have) = match decode(&saved, self.outline.segments()) {
            Some((boot, have)) => (!self.boot.is_empty() && boot == self.boot, have),
            None => {
                // what it has too much would stay behind what is written over it
                self.map.set_len(0).map_err(io)?;
                let may_be_there = if is_old { SegmentSet::full } else { SegmentSet::empty };
                (false, may_be_there(self.outline.segments()))
            }
        };
        if !is_proof {
            for index in have.clone().iter() {
                // a sector that cannot be read is no better than one that changed
                if !self.read_at(index, Vec::new()).is_ok_and(|data| self.outline.fits(index, &data)) {
                    have.remove(index);
                }
            }
        }
        self.news.send_replace(have.count());
        let mut state = self.state();
        state.have = have;
        self.save(&mut state).map_err(io)
    }

    pub(crate) fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, state: &mut State) -> io::Result<()> {
        let bytes = encode(&self.boot, &state.have);
        files::write_at(&self.map, &bytes, 0)?;
        state.unsaved = 0;
        Ok(())
    }

    /// What it shall be.
    pub const fn outline(&self) -> &Outline {
        &self.outline
    }

    /// What is here now.
    pub fn have(&self) -> SegmentSet {
        self.state().have.clone()
    }

    /// Whether a segment is here now.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.state().have.contains(index)
    }

    /// How many segments are here now.
    pub fn count(&self) -> u32 {
        self.state().have.count()
    }

    /// Changes with every segment that comes.
    pub fn news(&self) -> watch::Receiver<u32> {
        self.news.subscribe()
    }

    /// Whether it is kept encrypted.
    pub const fn is_sealed(&self) -> bool {
        self.body.is_sealed()
    }

    /// Whether all of it is here.
    pub fn is_full(&self) -> bool {
        self.state().have.is_full()
    }

    /// Checks a segment and keeps it.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, index: u32, data: &[u8]) -> Result<Written, StoreError> {
        if self.state().have.contains(index) {
            return Ok(Written::Known);
        }
        if !self.outline.fits(index, data) {
            return Ok(Written::Bad);
        }
        self.write_at(index, data).map_err(|e| StoreError::io("a part of a blob", e))?;
        let mut state = self.state();
        if !state.have.insert(index) {
            return Ok(Written::Known);
        }
        state.unsaved += 1;
        if state.unsaved >= UNSAVED || state.have.is_full() {
            self.save(&mut state).map_err(|e| StoreError::io("a blob's map", e))?;
        }
        let count = state.have.count();
        drop(state);
        self.news.send_replace(count);
        Ok(Written::New)
    }

    fn write_at(&self, index: u32, data: &[u8]) -> io::Result<()> {
        let mut spare = Buffer::default();
        let data = self.body.on_disk(segment_start(index), data, &mut spare);
        if files::is_zero(data) && files::clear(self.body.file(), segment_start(index), data.len() as u64) {
            return Ok(());
        }
        if let Some(direct) = self.direct.as_ref().filter(|_| files::is_aligned(data)) {
            match files::write_at(direct, data, segment_start(index)) {
                // a disk with larger sectors than any we know
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {}
                written => return written,
            }
        }
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        files::write_at(self.body.file(), data, segment_start(index))
    }

    fn read_at(&self, index: u32, memory: Vec<u8>) -> io::Result<Vec<u8>> {
        self.body.read_in(memory, segment_start(index), self.outline.len_of(index).unwrap_or_default() as usize)
    }

    /// A segment in memory that is empty, where it is here.
    pub(crate) fn read_in(&self, memory: Vec<u8>, index: u32) -> Result<Option<Vec<u8>>, StoreError> {
        if !self.state().have.contains(index) {
            return Ok(None);
        }
        self.read_at(index, memory).map(Some).map_err(|e| StoreError::io("a part of a blob", e))
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.body.file().sync_data()
    }
}

/// The file of a blob of that size, and how long it was. An encrypted one that this key does not open gives way.
fn open_body(path: &Path, size: u64, key: Option<&StoreKey>) -> io::Result<(Body, u64)> {
    let file = files::open_or_make(path)?;
    let len = file.metadata()?.len();
    let Some(key) = key else { return Ok((Body::new(file, None), len)) };
    if len == size + Body::beyond(true)
        && let Some(cipher) = Body::open(&file, key)?
    {
        return Ok((Body::new(file, Some(cipher)), len));
    }
    drop(file);
    files::remove(path)?;
    let file = files::open_or_make(path)?;
    Ok((Body::new(file, Some(Body::cipher(key)?)), 0))
}

/// Checksum, boot and bits.
pub(crate) fn encode(boot: &str, have: &SegmentSet) -> Vec<u8> {
    let mut bytes = vec![0; CRC];
    bytes.push(u8::try_from(boot.len()).unwrap_or(0));
    bytes.extend_from_slice(boot.as_bytes());
    bytes.extend(have.to_bytes());
    let crc = crc32fast::hash(&bytes[CRC..]);
    bytes[..CRC].copy_from_slice(&crc.to_le_bytes());
    bytes
}

pub(crate) fn decode(bytes: &[u8], segments: u32) -> Option<(String, SegmentSet)> {
    let (crc, rest) = bytes.split_first_chunk::<CRC>()?;
    if crc32fast::hash(rest) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (len, rest) = rest.split_first()?;
    let (boot, bits) = rest.split_at_checked(usize::from(*len))?;
    Some((String::from_utf8(boot.to_vec()).ok()?, SegmentSet::from_bytes(segments, bits)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_map_reads_back_and_a_changed_one_does_not(
            boot in "[a-f0-9-]{0,36}", bits in prop::collection::vec(any::<bool>(), 1..200), at in any::<prop::sample::Index>(), bit in 0u8..8
        ) {
            let len = u32::try_from(bits.len()).unwrap();
            let mut have = SegmentSet::empty(len);
            for (_, index) in bits.iter().zip(0..).filter(|(is_in, _)| **is_in) {
                have.insert(index);
            }
            let mut bytes = encode(&boot, &have);
            prop_assert_eq!(decode(&bytes, len), Some((boot, have)));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes, len), None);
        }

        #[test]
        fn nonsense_is_no_map(bytes in prop::collection::vec(any::<u8>(), 0..100), len in 0u32..300) {
            let _ = decode(&bytes, len);
        }
    }
}
