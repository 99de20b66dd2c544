//! What earlier runs left in the directory.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::SystemTime,
};

use swarm_proto::{Digest, peer::Holding};

use super::{Inner, Store, suspects::Suspects};
use crate::{
    body::Body,
    books::{Pin, read_pins},
    carried::Carried,
    error::StoreError,
    files,
    keys::{KeyAt, Keys},
    recent::Recent,
};

/// A whole blob, and when it came.
type Found = (SystemTime, Holding);

impl Store {
    /// In this run of the host's kernel.
    pub(crate) fn open_in(boot: String, dir: PathBuf, quota: u64, key: KeyAt) -> Result<Self, StoreError> {
        let (keys, drafts, carried, recent) = (Keys::new(key), AtomicU64::new(0), Carried::default(), Recent::default());
        let inner = Inner {
            dir,
            boot,
            keys,
            drafts,
            carried,
            recent,
            suspects: Suspects::default(),
            shelves: Mutex::default(),
            books: Mutex::default(),
        };
        let io = |e| StoreError::io("the directory of blobs", e);
        for name in ["whole", "sealed", "outline", "part", "draft"] {
            fs::create_dir_all(inner.dir.join(name)).map_err(io)?;
        }
        for draft in files::list(&inner.dir.join("draft")).map_err(io)? {
            files::remove(&draft).map_err(io)?;
        }
        let mut found = inner.find_whole(false).map_err(io)?;
        let (sealed, locked) = inner.find_sealed().map_err(io)?;
        // one that was encrypted later is whole before the plain one is removed
        let twice: BTreeSet<Digest> = sealed.iter().map(|(_, holding)| holding.digest).collect();
        for (_, holding) in found.extract_if(.., |(_, holding)| twice.contains(&holding.digest)) {
            inner.remove_other(holding.digest, true).map_err(io)?;
        }
        found.extend(sealed);
        found.sort_unstable_by_key(|(at, holding)| (*at, holding.digest));
        {
            let mut books = inner.books();
            books.quota = quota;
            for (_, holding) in found {
                books.add(holding);
            }
            books.locked = locked;
            for path in files::list(&inner.dir.join("part")).map_err(io)? {
                let Some(digest) = named(path.file_name()) else { continue };
                if books.whole.contains_key(&digest) {
                    inner.part_paths(digest).remove().map_err(io)?;
                    continue;
                }
                let size = fs::metadata(&path).map_err(io)?.len();
                books.leave(digest, size);
            }
            let pins = inner.dir.join("pins");
            for digest in read_pins(&pins).map_err(io)? {
                if !books.whole.contains_key(&digest) && !books.locked.contains(&digest) {
                    tracing::warn!(%digest, file = %pins.display(), "a blob that is pinned by hand is not here, or the list of pins has changed on the disk");
                }
                books.pins.entry(digest).or_default().insert(Pin::Hand);
            }
        }
        inner.sweep().map_err(io)?;
        Ok(Self(Arc::new(inner)))
    }
}

impl Inner {
    /// Removes what belongs to blobs that are not here: an earlier run ended before it could.
    fn sweep(&self) -> io::Result<()> {
        let books = self.books();
        for path in files::on_shelves(&self.dir.join("outline"))? {
            if named(path.file_name()).is_some_and(|digest| !books.whole.contains_key(&digest) && !books.locked.contains(&digest)) {
                files::remove(&path)?;
            }
        }
        for path in files::list(&self.dir.join("part"))? {
            if path.extension().is_some() && named(path.file_stem()).is_some_and(|digest| !books.left.contains_key(&digest)) {
                files::remove(&path)?;
            }
        }
        Ok(())
    }

    fn find_whole(&self, is_sealed: bool) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for path in files::on_shelves(&self.dir.join(if is_sealed { "sealed" } else { "whole" }))? {
            let Some(digest) = named(path.file_name()) else { continue };
            let metadata = fs::metadata(&path)?;
            let size = metadata.len().saturating_sub(Body::beyond(is_sealed));
            found.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), Holding { digest, size, is_sealed }));
        }
        Ok(found)
    }

    /// Encrypted blobs that the key opens, and those that it does not.
    fn find_sealed(&self) -> io::Result<(Vec<Found>, BTreeSet<Digest>)> {
        let mut found = self.find_whole(true)?;
        let mut locked = BTreeSet::new();
        if found.is_empty() {
            return Ok((found, locked));
        }
        let key = self.keys.get(false);
        if let Err(error) = &key {
            tracing::warn!(count = found.len(), %error, "blobs that are kept encrypted are not held");
        }
        let mut first = None;
        for (_, holding) in &found {
            let file = File::open(self.whole_path(holding.digest, true))?;
            let is_open = key.as_ref().is_ok_and(|key| Body::open(&file, key).is_ok_and(|cipher| cipher.is_some()));
            if !is_open {
                locked.insert(holding.digest);
                first.get_or_insert(holding.digest);
            }
        }
        if let (Ok(_), Some(digest)) = (key, first) {
            tracing::warn!(count = locked.len(), %digest, "blobs that are encrypted with another key are not held");
        }
        found.retain(|(_, holding)| !locked.contains(&holding.digest));
        Ok((found, locked))
    }
}

fn named(name: Option<&OsStr>) -> Option<Digest> {
    name?.to_str()?.parse().ok()
}
