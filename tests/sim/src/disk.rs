//! A disk by seed that forgets: what was not synced may be gone after a power cut, sector by sector, and what it is told to do
//! wrong it does.
//!
//! Written sectors sit in a cache until their file is synced; made, renamed and removed names until names are synced. A power cut
//! keeps each cached sector or loses it, by the seed, and keeps the first few name changes, as a journal would. A killed process
//! loses nothing: the cache is the host's.
//!
//! After a sync that failed, each cached sector is durable or not, by the seed, and the host takes all of them for clean: who reads
//! sees them, and no later sync writes them (as Linux does; Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
//!
//! A [`Fuse`] ends the process in the midst of an operation: before it, half way through its sectors, or after it but unheard.

#[path = "disk/fuse.rs"]
mod fuse;
#[cfg(test)]
#[path = "disk/tests.rs"]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use swarm_consensus::disk::{Disk, DiskFile, SECTOR};

pub use fuse::{Blow, Fuse};

/// A host's disk, from outside; clones are the same disk. A process uses it through a [`Mount`].
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

struct Inner {
    rng: ChaCha8Rng,
    /// Grows with every power cut and kill; what an earlier life still holds open is dead.
    life: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names since they were last synced.
    name_changes: Vec<NameChange>,
    files: BTreeMap<u64, Contents>,
    next_file: u64,
    faults: Faults,
    fuse: Fuse,
    lost: u64,
    syncs: u64,
    /// Operations that failed as ordered.
    failed: u64,
}

#[derive(Clone)]
enum NameChange {
    Set(String, u64),
    Renamed(String, String),
    Gone(String),
}

/// What goes wrong from now on.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// A sync takes between these.
    pub sync: (Duration, Duration),
    /// Files cannot grow and none can be made.
    pub is_full: bool,
    /// Every sync fails with an I/O error.
    pub sync_fails: bool,
    /// Every write fails with an I/O error.
    pub write_fails: bool,
    /// Every sync claims success and makes nothing durable; a power cut takes all of it.
    pub lies: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self { sync: (Duration::ZERO, Duration::ZERO), is_full: false, sync_fails: false, write_fails: false, lies: false }
    }
}

#[derive(Default)]
struct Contents {
    /// Sectors that are not all zeros.
    durable: BTreeMap<u64, [u8; SECTOR]>,
    durable_len: u64,
    cached: BTreeMap<u64, [u8; SECTOR]>,
    /// Taken for durable since a sync failed, and on no disk.
    ghosts: BTreeMap<u64, [u8; SECTOR]>,
    len: u64,
}

impl Contents {
    fn sector(&self, at: u64) -> [u8; SECTOR] {
        *self.cached.get(&at).or_else(|| self.ghosts.get(&at)).or_else(|| self.durable.get(&at)).unwrap_or(&[0; SECTOR])
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let (number, within) = (at / SECTOR as u64, (at % SECTOR as u64) as usize);
            let part = rest.len().min(SECTOR - within);
            let mut sector = self.sector(number);
            let before = sector;
            sector[within..within + part].copy_from_slice(&rest[..part]);
            let was_ghost = self.ghosts.remove(&number).is_some();
            if sector != before || was_ghost || self.cached.contains_key(&number) {
                self.cached.insert(number, sector);
            }
            (at, rest) = (at + part as u64, &rest[part..]);
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    fn sync(&mut self) {
        for (at, sector) in std::mem::take(&mut self.cached) {
            self.keep(at, sector);
        }
        self.durable_len = self.len;
    }

    /// A sync that failed: each cached sector got to the disk or did not.
    fn fail_sync(&mut self, mut keeps: impl FnMut() -> bool) {
        for (at, sector) in std::mem::take(&mut self.cached) {
            if keeps() {
                self.keep(at, sector);
            } else {
                self.ghosts.insert(at, sector);
            }
        }
        self.durable_len = self.len;
    }

    fn keep(&mut self, at: u64, sector: [u8; SECTOR]) {
        if sector == [0; SECTOR] {
            self.durable.remove(&at);
        } else {
            self.durable.insert(at, sector);
        }
    }

    /// The cache is gone but for what `keeps` picks. Answers how many sectors were lost.
    fn cut(&mut self, mut keeps: impl FnMut() -> bool) -> u64 {
        let mut lost = std::mem::take(&mut self.ghosts).len() as u64;
        for (at, sector) in std::mem::take(&mut self.cached) {
            if at * (SECTOR as u64) < self.durable_len && keeps() {
                self.keep(at, sector);
            } else {
                lost += 1;
            }
        }
        self.len = self.durable_len;
        lost
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        for at in self.durable.keys().chain(self.ghosts.keys()).chain(self.cached.keys()) {
            let start = *at as usize * SECTOR;
            let end = bytes.len().min(start + SECTOR);
            if start < end {
                bytes[start..end].copy_from_slice(&self.sector(*at)[..end - start]);
            }
        }
        bytes
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            rng: ChaCha8Rng::seed_from_u64(seed),
            life: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            files: BTreeMap::new(),
            next_file: 0,
            faults: Faults::default(),
            fuse: Fuse::default(),
            lost: 0,
            syncs: 0,
            failed: 0,
        })))
    }

    /// The fuse of the process that uses it.
    pub fn set_fuse(&self, fuse: &Fuse) {
        self.lock().fuse = fuse.clone();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the process that starts now.
    pub fn mount(&self) -> Arc<Mount> {
        Arc::new(Mount { disk: self.clone(), life: self.lock().life })
    }

    /// A file as it is now, cache included.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.lock();
        inner.names.get(name).map(|id| inner.files[id].bytes())
    }

    /// Changes what goes wrong.
    pub fn set_faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.lock().faults);
    }

    /// The process is gone; what it wrote is in the host's cache.
    pub fn kill(&self) {
        self.lock().life += 1;
    }

    /// The power is gone, and with it a part of what was not synced.
    pub fn cut_power(&self) {
        let mut inner = self.lock();
        let Inner { rng, life, names, durable_names, name_changes, files, lost, faults, .. } = &mut *inner;
        *life += 1;
        let kept = if faults.lies { 0 } else { rng.random_range(0..=name_changes.len()) };
        apply(durable_names, name_changes.drain(..).take(kept));
        names.clone_from(durable_names);
        files.retain(|id, _| durable_names.values().any(|named| named == id));
        // all, none, or any of the cached sectors
        let chance = if faults.lies { 0.0 } else { [0.0, 0.5, 1.0][rng.random_range(0..3)] };
        for contents in files.values_mut() {
            *lost += contents.cut(|| rng.random_bool(chance));
        }
    }

    /// Sectors that power cuts have lost.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Operations that failed as ordered, so far.
    pub fn failed(&self) -> u64 {
        self.lock().failed
    }

    /// Takes the place of another disk's contents, as that is now; who holds this one open is dead.
    pub fn replace_with(&self, other: &Self) {
        let copy = other.copy(0);
        let (mut inner, mut from) = (self.lock(), copy.lock());
        inner.life += 1;
        inner.name_changes.clear();
        inner.names = std::mem::take(&mut from.names);
        inner.durable_names = std::mem::take(&mut from.durable_names);
        inner.files = std::mem::take(&mut from.files);
        inner.next_file = from.next_file;
    }

    /// Changes bytes of a file where they lie, durably.
    ///
    /// # Panics
    /// There is no such file.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        let id = inner.names[name];
        let contents = inner.files.get_mut(&id).expect("a named file exists");
        let mut bytes = contents.bytes();
        change(&mut bytes);
        *contents = Contents::default();
        contents.write(0, &bytes);
        contents.sync();
    }

    /// A copy as it is now, cache included, with a seed of its own.
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        for name in self.names() {
            let bytes = self.read(&name).unwrap_or_default();
            let mut inner = copy.lock();
            let id = inner.next_file;
            inner.next_file += 1;
            let mut contents = Contents::default();
            contents.write(0, &bytes);
            contents.len = bytes.len() as u64;
            contents.sync();
            inner.files.insert(id, contents);
            inner.names.insert(name.clone(), id);
            inner.durable_names.insert(name, id);
        }
        copy
    }

    /// Names of all files.
    pub fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }
}

fn apply(names: &mut BTreeMap<String, u64>, changes: impl Iterator<Item = NameChange>) {
    for change in changes {
        match change {
            NameChange::Set(name, id) => drop(names.insert(name, id)),
            NameChange::Gone(name) => drop(names.remove(&name)),
            NameChange::Renamed(from, to) => {
                if let Some(id) = names.remove(&from) {
                    names.insert(to, id);
                }
            }
        }
    }
}

impl Inner {
    fn make(&mut self, name: &str) -> io::Result<u64> {
        if self.faults.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, Contents::default());
        self.change_name(NameChange::Set(name.into(), id));
        Ok(id)
    }

    fn change_name(&mut self, change: NameChange) {
        apply(&mut self.names, std::iter::once(change.clone()));
        self.name_changes.push(change);
    }
}

/// The disk as one life of a process has it. After that life everything fails.
#[derive(Clone)]
pub struct Mount {
    disk: SimDisk,
    life: u64,
}

impl Mount {
    fn lock(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.lock();
        if inner.life == self.life && !inner.fuse.is_blown() { Ok(inner) } else { Err(dead()) }
    }

    /// Begins a change of the disk. Whether it is to be carried out although the process dies of it.
    fn begin(&self) -> io::Result<(MutexGuard<'_, Inner>, Option<Blow>)> {
        let inner = self.lock()?;
        match inner.fuse.burn() {
            Some(Blow::Before) => Err(dead()),
            other => Ok((inner, other)),
        }
    }

    /// A change that is made in one step.
    fn change<R>(&self, change: impl FnOnce(&mut Inner) -> io::Result<R>) -> io::Result<R> {
        let (mut inner, blow) = self.begin()?;
        match blow {
            None => change(&mut inner),
            Some(Blow::After) => change(&mut inner).and(Err(dead())),
            Some(Blow::Before | Blow::Half) => Err(dead()),
        }
    }
}

fn dead() -> io::Error {
    io::Error::other("this process is dead")
}

fn broken() -> io::Error {
    io::Error::other("an I/O error, as ordered")
}

impl Disk for Mount {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock()?.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let inner = self.lock()?;
        Ok(inner.names.get(name).map(|id| inner.files[id].bytes()))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let known = self.lock()?.names.get(name).copied();
        let id = match known {
            Some(id) => id,
            None => self.change(|inner| inner.make(name))?,
        };
        Ok(Box::new(SimFile { mount: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|inner| {
            if !inner.names.contains_key(from) {
                return Err(io::ErrorKind::NotFound.into());
            }
            inner.change_name(NameChange::Renamed(from.into(), to.into()));
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.lock()?.names.contains_key(name) {
            return Ok(());
        }
        self.change(|inner| {
            inner.change_name(NameChange::Gone(name.into()));
            Ok(())
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.change(|inner| {
            if inner.faults.sync_fails {
                inner.failed += 1;
                return Err(broken());
            }
            if !inner.faults.lies {
                inner.name_changes.clear();
                inner.durable_names = inner.names.clone();
            }
            Ok(())
        })
    }

    fn pace(&self) -> Duration {
        let Ok(mut inner) = self.lock() else { return Duration::ZERO };
        let (least, most) = inner.faults.sync;
        if least < most { inner.rng.random_range(least..=most) } else { least }
    }
}

struct SimFile {
    mount: Mount,
    id: u64,
}

fn contents(files: &mut BTreeMap<u64, Contents>, id: u64) -> io::Result<&mut Contents> {
    files.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl DiskFile for SimFile {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut inner, blow) = self.mount.begin()?;
        let Inner { files, faults, failed, .. } = &mut *inner;
        let contents = contents(files, self.id)?;
        let is_growing = offset + data.len() as u64 > contents.len;
        if faults.is_full && is_growing {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if faults.write_fails {
            *failed += 1;
            return Err(broken());
        }
        let done = if blow == Some(Blow::Half) { &data[..data.len() / 2 / SECTOR * SECTOR] } else { data };
        contents.write(offset, done);
        if blow.is_some() { Err(dead()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let id = self.id;
        self.mount.change(|inner| {
            inner.syncs += 1;
            let Inner { files, faults, failed, rng, .. } = inner;
            let contents = contents(files, id)?;
            if faults.sync_fails {
                *failed += 1;
                contents.fail_sync(|| rng.random_bool(0.5));
                return Err(broken());
            }
            if !faults.lies {
                contents.sync();
            }
            Ok(())
        })
    }
}
