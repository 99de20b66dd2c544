//! The store on a real directory.

mod faults;
#[cfg(target_os = "linux")]
mod killed;
mod sealed;

use std::{fs, path::Path, sync::Arc};

use proptest::prelude::*;
use swarm_core::blobs::SEAL;
use swarm_proto::{Digest, JobId, limits};

use crate::{Begun, Checked, Held, KeyAt, Outline, Outliner, Partial, Pin, Store, StoreError, Written};

const SEGMENT: usize = limits::SEGMENT as usize;
const MIB: u64 = limits::SEGMENT as u64;
const PLENTY: u64 = 1 << 30;

fn bytes(seed: u32, len: usize) -> Vec<u8> {
    (0u32..).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}

fn outline(data: &[u8]) -> Outline {
    let mut outliner = Outliner::default();
    outliner.update(data);
    outliner.finish()
}

fn put(store: &Store, data: &[u8]) -> Result<Digest, StoreError> {
    fill_draft(store.draft()?, data)
}

fn put_sealed(store: &Store, data: &[u8]) -> Result<Digest, StoreError> {
    fill_draft(store.sealed_draft()?, data)
}

fn fill_draft(mut draft: crate::Draft, data: &[u8]) -> Result<Digest, StoreError> {
    for piece in data.chunks(100_000) {
        draft.write(piece)?;
    }
    draft.finish().map(|outline| outline.digest())
}

fn begin(store: &Store, outline: &Outline) -> Arc<Partial> {
    match store.begin(outline.clone(), false).expect("it begins") {
        Begun::Partial(partial) => partial,
        Begun::Whole => panic!("it is not here yet"),
    }
}

/// Writes the first `count` segments.
fn fill(partial: &Partial, data: &[u8], count: u32) {
    for (segment, index) in data.chunks(SEGMENT).zip(0..count) {
        partial.write(index, segment).unwrap();
    }
}

/// Gets all of a blob that is missing; answers how many segments were there.
fn finish(store: &Store, data: &[u8]) -> u32 {
    let partial = match store.begin(outline(data), false).unwrap() {
        Begun::Partial(partial) => partial,
        Begun::Whole => return outline(data).segments(),
    };
    let kept = partial.count();
    fill(&partial, data, u32::MAX);
    store.complete(&partial).unwrap();
    kept
}

fn read(store: &Store, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(reader) = store.reader(digest)? else { return Ok(None) };
    let mut all = Vec::new();
    for index in 0..reader.outline().segments() {
        let Some(data) = reader.checked(index)? else { return Ok(None) };
        all.extend(data);
    }
    Ok(Some(all))
}

fn open(dir: &Path, quota: u64) -> Store {
    open_in("this boot", dir, quota)
}

fn open_in(boot: &str, dir: &Path, quota: u64) -> Store {
    Store::open_in(boot.into(), dir.to_owned(), quota, KeyAt::Own(dir.join("blobs.key"))).expect("it opens")
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("the file is there");
    bytes[at] ^= 0x40;
    fs::write(path, bytes).expect("it can be written");
}

fn files(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { names.extend(files(&path)) } else { names.push(path.display().to_string()) }
    }
    names.sort();
    names
}

fn shelf(dir: &Path, kind: &str, digest: Digest) -> std::path::PathBuf {
    let name = digest.to_string();
    dir.join(kind).join(&name[..2]).join(name)
}

#[test]
fn what_is_put_is_read_again_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    for len in [0, 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 77] {
        let data = bytes(1, len);
        let store = open(dir.path(), PLENTY);
        let digest = put(&store, &data).unwrap();
        assert_eq!(digest.0, *blake3::hash(&data).as_bytes());
        assert_eq!(put(&store, &data).unwrap(), digest, "twice is once");
        for store in [store, open(dir.path(), PLENTY)] {
            assert_eq!(store.held(digest), Some(Held { digest, size: len as u64, is_sealed: false, pins: vec![] }));
            assert!(read(&store, digest).unwrap().as_ref() == Some(&data), "{len}");
            assert_eq!(store.check(digest).unwrap(), Checked::Sound);
        }
    }
    let store = open(dir.path(), PLENTY);
    assert_eq!(store.list().len(), 5);
    assert_eq!(store.room().0, (1 + 5 * SEGMENT + 78) as u64);
    assert_eq!(read(&store, Digest([9; 32])).unwrap(), None);
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), PLENTY);
    let mut draft = store.draft().unwrap();
    draft.write(&bytes(1, 500_000)).unwrap();
    assert_eq!(store.room().0, 500_000);
    drop(draft);
    assert_eq!((store.room().0, files(dir.path()).len()), (0, 0));
    // nor one of a daemon that was killed
    std::mem::forget(store.draft().unwrap());
    open(dir.path(), PLENTY);
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
fn segments_come_in_any_order_and_each_is_judged_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, data) = (open(dir.path(), PLENTY), bytes(2, 4 * SEGMENT + 9));
    let whole = outline(&data);
    let partial = begin(&store, &whole);
    assert_eq!(store.room().0, data.len() as u64, "room is taken at once");
    let segment = |index: usize| data.chunks(SEGMENT).nth(index).unwrap();
    assert_eq!(partial.write(3, segment(2)).unwrap(), Written::Bad);
    assert!(partial.have().is_empty());
    for index in [4, 0, 2] {
        assert_eq!(partial.write(index, segment(index as usize)).unwrap(), Written::New);
        assert_eq!(partial.write(index, segment(index as usize)).unwrap(), Written::Known);
    }
    let reader = store.reader(whole.digest()).unwrap().expect("some of it is here");
    assert!(reader.checked(2).unwrap().as_deref() == Some(segment(2)));
    assert_eq!(reader.checked(1).unwrap(), None);
    assert!(matches!(store.complete(&partial), Err(StoreError::Missing(_))));
    for index in [1, 3] {
        partial.write(index, segment(index as usize)).unwrap();
    }
    store.complete(&partial).unwrap();
    drop((partial, reader));
    assert!(read(&store, whole.digest()).unwrap().as_ref() == Some(&data));
    assert!(matches!(store.begin(whole, false), Ok(Begun::Whole)));
    assert_eq!(store.room().0, data.len() as u64);
    assert_eq!(files(&dir.path().join("part")), [""; 0]);
}

#[test]
fn a_killed_daemon_goes_on_where_it_was_and_hashes_nothing_again() {
    let dir = tempfile::tempdir().unwrap();
    let data = bytes(3, 20 * SEGMENT);
    let whole = outline(&data);
    let partial = begin(&open(dir.path(), PLENTY), &whole);
    fill(&partial, &data, 11);
    std::mem::forget(partial);
    // 8 of 11 are written down: the others are fetched again
    let store = open(dir.path(), PLENTY);
    assert_eq!(store.room().0, 20 * MIB, "what was left takes its room");
    let again = begin(&store, &whole);
    assert_eq!(again.have().iter().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    assert_eq!(store.room().0, 20 * MIB);
    drop((again, store));
    // what a map of this boot says is believed: a changed byte is not found here, but where it is read
    flip(&dir.path().join("part").join(whole.digest().to_string()), SEGMENT + 5);
    let store = open(dir.path(), PLENTY);
    assert_eq!(begin(&store, &whole).have().count(), 8);
    drop(store);
    // after another boot it proves nothing
    let store = open_in("another boot", dir.path(), PLENTY);
    assert_eq!(begin(&store, &whole).have().iter().collect::<Vec<_>>(), [0, 2, 3, 4, 5, 6, 7]);
    drop(store);
    // nor does a torn one: everything is looked at, also what it did not know of
    fs::write(dir.path().join("part").join(format!("{}.map", whole.digest())), b"torn").unwrap();
    assert_eq!(begin(&open(dir.path(), PLENTY), &whole).have().iter().collect::<Vec<_>>(), [0, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn a_full_quota_takes_what_nobody_needs_and_then_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 4 * MIB);
    let made: Vec<Digest> = (0..4).map(|seed| put(&store, &bytes(seed, SEGMENT)).unwrap()).collect();
    store.pin(made[0], Pin::Hand).unwrap();
    store.pin(made[2], Pin::Job(JobId(7))).unwrap();
    // used now, so it goes last
    read(&store, made[1]).unwrap();
    let fifth = put(&store, &bytes(10, SEGMENT)).unwrap();
    let held = |store: &Store| store.list().into_iter().map(|held| held.digest).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(held(&store), [made[0], made[1], made[2], fifth].into());
    let sixth = outline(&bytes(11, 3 * SEGMENT));
    match store.begin(sixth.clone(), false) {
        Err(StoreError::Full { needs, free, quota }) => assert_eq!((needs, free, quota), (3 * MIB, 2 * MIB, 4 * MIB)),
        other => panic!("{other:?}"),
    }
    assert_eq!(held(&store).len(), 4, "what is refused takes nothing away");
    assert!(matches!(put(&store, &bytes(12, 2 * SEGMENT + 1)), Err(StoreError::Full { .. })));
    store.unpin(made[2], Pin::Job(JobId(7))).unwrap();
    let partial = begin(&store, &sixth);
    assert_eq!(held(&store), [made[0]].into());
    assert!(matches!(put(&store, &[1]), Err(StoreError::Full { .. })), "a blob that is coming has its room");
    drop(partial);
    store.abandon(sixth.digest()).unwrap();
    assert_eq!(store.room().0, MIB);
    put(&store, &bytes(13, 3 * SEGMENT)).unwrap();
    assert!(matches!(store.draft().unwrap().expect(limits::BLOB + 1), Err(StoreError::TooLarge(_))));
    assert_eq!(store.collect(0), 3 * MIB);
    assert_eq!(held(&store), [made[0]].into());
    drop(store);
    assert_eq!(open(dir.path(), 4 * MIB).held(made[0]).unwrap().pins, [Pin::Hand], "the ledger says again what jobs need");
}

#[test]
fn what_changed_on_the_disk_is_found_and_only_that_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let data = bytes(4, 3 * SEGMENT + 5);
    let store = open(dir.path(), PLENTY);
    let digest = put(&store, &data).unwrap();
    // the outline is made again from the bytes
    for at in [0, 40, 127] {
        flip(&shelf(dir.path(), "outline", digest), at);
        assert!(read(&store, digest).unwrap().as_ref() == Some(&data));
    }
    fs::remove_file(shelf(dir.path(), "outline", digest)).unwrap();
    assert_eq!(store.check(digest).unwrap(), Checked::Sound);
    for at in [0, SEGMENT, 3 * SEGMENT + 4] {
        let index = u32::try_from(at / SEGMENT).unwrap();
        flip(&shelf(dir.path(), "whole", digest), at);
        match read(&store, digest) {
            Err(StoreError::Damaged { segments, .. }) => assert_eq!(segments, [index]),
            Ok(_) => panic!("it was given out"),
            Err(other) => panic!("{other}"),
        }
        assert_eq!(store.check(digest).unwrap(), Checked::Partial(vec![index]));
        assert_eq!(store.held(digest), None);
        let partial = begin(&store, &outline(&data));
        assert_eq!(partial.have().count(), 3);
        partial.write(index, data.chunks(SEGMENT).nth(index as usize).unwrap()).unwrap();
        store.complete(&partial).unwrap();
        assert!(read(&store, digest).unwrap().as_ref() == Some(&data));
    }
    // without the outline nobody can say which part is sound
    flip(&shelf(dir.path(), "whole", digest), 77);
    fs::remove_file(shelf(dir.path(), "outline", digest)).unwrap();
    assert!(matches!(store.reader(digest), Err(StoreError::Damaged { .. })));
    assert_eq!(store.check(digest).unwrap(), Checked::Removed);
    assert!(matches!(store.check(digest), Err(StoreError::Missing(_))));
    assert_eq!((store.room().0, files(dir.path()).len()), (0, 0));
    // a file that was cut
    let digest = put(&store, &data).unwrap();
    fs::OpenOptions::new().write(true).open(shelf(dir.path(), "whole", digest)).unwrap().set_len(MIB).unwrap();
    assert!(read(&store, digest).is_err());
    assert_eq!(store.check(digest).unwrap(), Checked::Removed);
}

#[test]
fn a_blob_that_is_removed_can_be_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (store, data) = (open(dir.path(), PLENTY), bytes(5, 2 * SEGMENT));
    let digest = put(&store, &data).unwrap();
    let reader = store.reader(digest).unwrap().unwrap();
    store.remove(digest).unwrap();
    assert!(reader.checked(1).unwrap().as_deref() == Some(&data[SEGMENT..]));
    assert!(store.reader(digest).unwrap().is_none());
    assert!(matches!(store.remove(digest), Err(StoreError::Missing(_))));
    // a file that somebody else took away is not here either
    let digest = put(&store, &data).unwrap();
    fs::remove_file(shelf(dir.path(), "whole", digest)).unwrap();
    assert!(store.reader(digest).unwrap().is_none());
    assert_eq!((store.size_of(digest), store.room().0), (None, 0));
}

/// A fetch that was given up keeps what came, until the room is needed.
#[test]
fn what_nobody_fetches_any_more_stays_while_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (store, data) = (open(dir.path(), 6 * MIB), bytes(6, 4 * SEGMENT));
    let whole = outline(&data);
    let partial = begin(&store, &whole);
    fill(&partial, &data, 3);
    store.pause(&partial);
    assert_eq!(store.room().0, 4 * MIB, "its room is counted once, whoever still reads it");
    drop(partial);
    assert_eq!(store.room().0, 4 * MIB);
    put(&store, &bytes(7, SEGMENT)).unwrap();
    // the map was written last when nothing was there yet: what came since may come again
    let again = begin(&store, &whole);
    assert_eq!(store.room().0, 5 * MIB);
    store.pause(&again);
    drop(again);
    put(&store, &bytes(8, 3 * SEGMENT)).unwrap();
    assert_eq!((store.room().0, files(&dir.path().join("part"))), (4 * MIB, vec![]));
    // one that somebody pinned is not given up
    let again = begin(&store, &outline(&bytes(9, 2 * SEGMENT)));
    store.pin(again.outline().digest(), Pin::Job(JobId(1))).unwrap();
    store.pause(&again);
    drop(again);
    assert!(matches!(put(&store, &bytes(10, 5 * SEGMENT)), Err(StoreError::Full { .. })));
}

#[test]
fn the_room_of_a_blob_that_came_is_counted_once_while_it_is_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, data) = (open(dir.path(), 3 * MIB), bytes(6, 2 * SEGMENT));
    let whole = outline(&data);
    let partial = begin(&store, &whole);
    fill(&partial, &data, u32::MAX);
    let reader = store.reader(whole.digest()).unwrap().unwrap();
    store.complete(&partial).unwrap();
    assert_eq!(store.room().0, 2 * MIB);
    put(&store, &bytes(7, SEGMENT)).unwrap();
    assert!(store.size_of(whole.digest()).is_some(), "nothing had to go");
    assert!(reader.checked(1).unwrap().is_some());
}

#[test]
fn a_sound_copy_that_is_put_replaces_one_that_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, data) = (open(dir.path(), PLENTY), bytes(6, 2 * SEGMENT));
    let digest = put(&store, &data).unwrap();
    flip(&shelf(dir.path(), "whole", digest), 9);
    put(&store, &data).unwrap();
    assert_eq!(store.check(digest).unwrap(), Checked::Sound);
    assert_eq!(store.room().0, 2 * MIB);
}

/// Blobs come and go from several threads: whatever the books say is here can be read.
#[test]
fn what_is_here_can_be_read_while_others_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), PLENTY);
    let data: Vec<Vec<u8>> = (0..3).map(|seed| bytes(seed, 1_000 + seed as usize)).collect();
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                for round in 0..150 {
                    put(&store, &data[round % 3]).unwrap();
                }
            });
        }
        threads.spawn(|| {
            for _ in 0..300 {
                store.collect(0);
            }
        });
    });
    for data in &data {
        let digest = outline(data).digest();
        let is_here = store.size_of(digest).is_some();
        assert_eq!(read(&store, digest).unwrap().is_some(), is_here);
        assert_eq!(shelf(dir.path(), "whole", digest).exists(), is_here);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32, bool),
    Begin(u32, bool),
    Write(u32, u32),
    Remove(u32),
    Pin(u32, bool),
    Collect,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let blob = 0u32..4;
    prop_oneof![
        3 => (blob.clone(), any::<bool>()).prop_map(|(blob, is_sealed)| Step::Put(blob, is_sealed)),
        2 => (blob.clone(), any::<bool>()).prop_map(|(blob, is_sealed)| Step::Begin(blob, is_sealed)),
        6 => (blob.clone(), 0u32..3).prop_map(|(blob, index)| Step::Write(blob, index)),
        1 => blob.clone().prop_map(Step::Remove),
        2 => (blob, any::<bool>()).prop_map(|(blob, is_pinned)| Step::Pin(blob, is_pinned)),
        1 => Just(Step::Collect),
        2 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever is done in whatever order: what reads as a blob is that blob, what is pinned stays, and the books say what is on
    /// the disk.
    #[test]
    fn the_books_agree_with_the_disk(steps in prop::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path(), 7 * MIB);
        let data: Vec<Vec<u8>> = (0..4).map(|seed| bytes(seed, 2 * SEGMENT + 1 + seed as usize)).collect();
        let names: Vec<Outline> = data.iter().map(|data| outline(data)).collect();
        let mut open_parts: std::collections::BTreeMap<u32, Arc<Partial>> = std::collections::BTreeMap::new();
        let mut given_up = std::collections::BTreeSet::new();
        for step in steps {
            if let Step::Put(blob, _) = step {
                given_up.insert(blob);
            }
            match step {
                Step::Put(blob, false) => drop(put(&store, &data[blob as usize])),
                Step::Put(blob, true) => drop(put_sealed(&store, &data[blob as usize])),
                Step::Begin(blob, is_sealed) => {
                    if let Ok(Begun::Partial(partial)) = store.begin(names[blob as usize].clone(), is_sealed) {
                        open_parts.insert(blob, partial);
                        given_up.remove(&blob);
                    }
                }
                Step::Write(blob, index) => {
                    let Some(partial) = open_parts.get(&blob) else { continue };
                    partial.write(index, data[blob as usize].chunks(SEGMENT).nth(index as usize).unwrap()).unwrap();
                    if partial.is_full() {
                        match store.complete(partial) {
                            // it was put while it came, and collected
                            Err(StoreError::Missing(_)) if given_up.contains(&blob) => {}
                            done => done.unwrap(),
                        }
                        open_parts.remove(&blob);
                    }
                }
                Step::Remove(blob) => {
                    open_parts.remove(&blob);
                    let _ = store.remove(names[blob as usize].digest());
                }
                Step::Pin(blob, true) => store.pin(names[blob as usize].digest(), Pin::Hand).unwrap(),
                Step::Pin(blob, false) => store.unpin(names[blob as usize].digest(), Pin::Hand).unwrap(),
                Step::Collect => {
                    let pinned: Vec<Held> = store.list().into_iter().filter(|held| !held.pins.is_empty()).collect();
                    store.collect(0);
                    prop_assert_eq!(store.list(), pinned);
                }
                Step::Restart => {
                    open_parts.clear();
                    drop(store);
                    store = open(dir.path(), 7 * MIB);
                }
            }
            for (outline, data) in names.iter().zip(&data) {
                if store.size_of(outline.digest()).is_some() {
                    let read = read(&store, outline.digest()).unwrap();
                    prop_assert!(read.as_ref() == Some(data));
                    let is_at = |kind| shelf(dir.path(), kind, outline.digest()).exists();
                    let is_sealed = store.is_sealed(outline.digest());
                    prop_assert_eq!((is_at("whole"), is_at("sealed")), (!is_sealed, is_sealed));
                }
            }
            prop_assert!(store.room().0 <= 7 * MIB);
        }
        open_parts.clear();
        drop(store);
        let store = open(dir.path(), 7 * MIB);
        let on_disk: u64 = ["whole", "part"].iter().flat_map(|kind| files(&dir.path().join(kind)))
            .filter(|path| !path.ends_with(".map") && !path.ends_with(".outline"))
            .map(|path| fs::metadata(path).unwrap().len()).sum();
        let sealed: u64 = files(&dir.path().join("sealed")).iter().map(|path| fs::metadata(path).unwrap().len() - SEAL as u64).sum();
        prop_assert_eq!(store.room().0, on_disk + sealed);
    }
}

/// What takes the place of a part that was given up is another fetch's, and not whole.
#[test]
fn a_part_that_was_given_up_takes_nobodys_place() {
    let dir = tempfile::tempdir().unwrap();
    let (store, data) = (open(dir.path(), PLENTY), bytes(1, 2 * SEGMENT));
    let outline = outline(&data);
    let begin = || match store.begin(outline.clone(), false).unwrap() {
        Begun::Partial(partial) => partial,
        Begun::Whole => panic!("it is not here"),
    };
    let old = begin();
    put(&store, &data).unwrap();
    store.collect(0);
    let new = begin();
    for (index, data) in (0..).zip(data.chunks(SEGMENT)) {
        old.write(index, data).unwrap();
    }
    new.write(0, &data[..SEGMENT]).unwrap();
    assert!(matches!(store.complete(&old), Err(StoreError::Missing(_))));
    store.pause(&old);
    assert_eq!(store.size_of(outline.digest()), None);
    new.write(1, &data[SEGMENT..]).unwrap();
    store.complete(&new).unwrap();
    assert!(read(&store, outline.digest()).unwrap() == Some(data));
}

#[tokio::test]
async fn what_changed_on_the_disk_is_found_and_nothing_counts_as_used_by_that() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), PLENTY);
    let old = put(&store, &bytes(1, 3 * SEGMENT)).unwrap();
    let new = put(&store, &bytes(2, 10)).unwrap();
    for digest in [old, new, Digest([9; 32])] {
        assert!(crate::is_sound(&store, crate::Lanes::Inline, digest).await);
    }
    assert!(crate::is_sound(&store, crate::Lanes::Inline, old).await);
    // the one that was not used for longest goes first, and that is still the old one
    store.collect(10);
    assert_eq!((store.size_of(old), store.size_of(new)), (None, Some(10)));
    let long = put(&store, &bytes(3, 3 * SEGMENT)).unwrap();
    flip(&shelf(dir.path(), "whole", long), 2 * SEGMENT + 5);
    assert!(!crate::is_sound(&store, crate::Lanes::Inline, long).await);
}
