//! Blobs that are kept encrypted.

use std::path::PathBuf;

use super::*;

const MARKER: &[u8] = b"nobody shall find these words on a disk";

/// Bytes with the marker at each place where something could be left out.
pub(super) fn secret(len: usize) -> Vec<u8> {
    let mut data = bytes(1, len);
    for at in [0, 99_990, SEGMENT - 7, SEGMENT, 2 * SEGMENT + 5, len.saturating_sub(MARKER.len())] {
        if let Some(place) = data.get_mut(at..at + MARKER.len()) {
            place.copy_from_slice(MARKER);
        }
    }
    data
}

/// Files in which the marker can be read.
pub(super) fn leaks(dir: &Path) -> Vec<String> {
    let has_it = |path: &String| fs::read(path).unwrap().windows(MARKER.len()).any(|window| window == MARKER);
    files(dir).into_iter().filter(has_it).collect()
}

fn begin_sealed(store: &Store, outline: &Outline) -> Arc<Partial> {
    match store.begin(outline.clone(), true).expect("it begins") {
        Begun::Partial(partial) => partial,
        Begun::Whole => panic!("it is not here yet"),
    }
}

fn key_of(dir: &Path) -> PathBuf {
    dir.join("blobs.key")
}

#[test]
fn what_is_kept_encrypted_is_the_same_blob_and_is_not_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    for len in [0, 1, 60, SEGMENT, SEGMENT + 1, 3 * SEGMENT + 77] {
        let data = secret(len);
        let store = open(dir.path(), PLENTY);
        let digest = put_sealed(&store, &data).unwrap();
        assert_eq!(digest.0, *blake3::hash(&data).as_bytes());
        for store in [store, open(dir.path(), PLENTY)] {
            assert_eq!(store.held(digest), Some(Held { digest, size: len as u64, is_sealed: true, pins: vec![] }));
            assert!(read(&store, digest).unwrap().as_ref() == Some(&data), "{len}");
            assert_eq!(store.check(digest).unwrap(), Checked::Sound);
        }
    }
    assert_eq!(leaks(dir.path()), [""; 0]);
    let store = open(dir.path(), PLENTY);
    assert_eq!(store.room().0, (1 + 60 + 5 * SEGMENT + 78) as u64);
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(key_of(dir.path())).unwrap().permissions()) & 0o777, 0o600);
    store.collect(0);
    assert_eq!(files(&dir.path().join("sealed")), [""; 0]);
}

#[test]
fn without_its_key_nothing_is_held_and_nothing_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let (data, other) = (secret(2 * SEGMENT), bytes(7, 10));
    let digest = put_sealed(&open(dir.path(), PLENTY), &data).unwrap();
    let key = fs::read(key_of(dir.path())).unwrap();
    let is_locked = |store: &Store| {
        assert_eq!((store.size_of(digest), store.room().0), (None, 0));
        assert!(matches!(store.reader(digest), Err(StoreError::Locked(of)) if of == digest));
        assert!(matches!(store.check(digest), Err(StoreError::Missing(_))));
    };
    // lost: a new one is not made in its place
    fs::remove_file(key_of(dir.path())).unwrap();
    let store = open(dir.path(), PLENTY);
    is_locked(&store);
    for refused in [put_sealed(&store, &other), put_sealed(&store, &data), put(&store, &data)] {
        let problem = refused.unwrap_err().problem("it was not put");
        assert!(problem.why.contains("blobs.key, cannot be used"), "{problem:?}");
    }
    assert!(matches!(store.begin(outline(&data), false), Err(StoreError::NoKey { .. })));
    put(&store, &other).expect("what is not encrypted needs none");
    store.collect(0);
    assert!(!key_of(dir.path()).exists());
    // another one opens none of it
    fs::write(key_of(dir.path()), [5; 32]).unwrap();
    is_locked(&open(dir.path(), 10));
    // half a key is none
    fs::write(key_of(dir.path()), &key[..16]).unwrap();
    is_locked(&open(dir.path(), 10));
    // found again
    fs::write(key_of(dir.path()), key).unwrap();
    assert!(read(&open(dir.path(), PLENTY), digest).unwrap().as_ref() == Some(&data));
    // where it is lost for good, what is fetched again takes its place
    fs::write(key_of(dir.path()), [5; 32]).unwrap();
    let store = open(dir.path(), PLENTY);
    put(&store, &data).unwrap();
    assert!(store.is_sealed(digest));
    assert!(read(&open(dir.path(), PLENTY), digest).unwrap().as_ref() == Some(&data));
    assert_eq!(leaks(dir.path()), [""; 0]);
}

#[test]
fn a_key_that_an_operator_gives_is_never_made() {
    let dir = tempfile::tempdir().unwrap();
    let given = dir.path().join("given");
    let open = || Store::open(dir.path().join("store"), PLENTY, KeyAt::Given(given.clone())).unwrap();
    assert!(matches!(put_sealed(&open(), b"x"), Err(StoreError::NoKey { .. })));
    assert!(!given.exists());
    fs::write(&given, [9; 32]).unwrap();
    let store = open();
    let digest = put_sealed(&store, b"x").unwrap();
    assert_eq!(read(&open(), digest).unwrap().as_deref(), Some(&b"x"[..]));
}

#[test]
fn one_that_comes_in_parts_goes_on_after_a_kill_and_stays_encrypted() {
    let dir = tempfile::tempdir().unwrap();
    let data = secret(20 * SEGMENT);
    let whole = outline(&data);
    let partial = begin_sealed(&open(dir.path(), PLENTY), &whole);
    fill(&partial, &data, 11);
    assert!(partial.read_in(Vec::new(), 2).unwrap().as_deref() == Some(&data[2 * SEGMENT..3 * SEGMENT]));
    std::mem::forget(partial);
    assert_eq!(leaks(dir.path()), [""; 0]);
    // whoever gives the rest does not say that it is to be encrypted
    let store = open(dir.path(), PLENTY);
    let again = begin(&store, &whole);
    assert!(again.is_sealed());
    assert_eq!(again.have().iter().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    drop((again, store));
    // after another boot it is hashed, decrypted
    flip(&dir.path().join("part").join(whole.digest().to_string()), SEGMENT + 5);
    let store = open_in("another boot", dir.path(), PLENTY);
    let again = begin_sealed(&store, &whole);
    assert_eq!(again.have().iter().collect::<Vec<_>>(), [0, 2, 3, 4, 5, 6, 7]);
    fill(&again, &data, u32::MAX);
    store.complete(&again).unwrap();
    assert!(store.is_sealed(whole.digest()) && read(&store, whole.digest()).unwrap().as_ref() == Some(&data));
    assert_eq!((leaks(dir.path()), files(&dir.path().join("part"))), (vec![], vec![]));
    // what came of it as it is goes when it is to be encrypted
    let data = secret(4 * SEGMENT);
    let whole = outline(&data);
    let partial = begin(&store, &whole);
    fill(&partial, &data, 3);
    store.pause(&partial);
    drop(partial);
    assert_eq!(leaks(dir.path()).len(), 1);
    let again = begin_sealed(&store, &whole);
    assert_eq!((again.count(), leaks(dir.path())), (0, vec![]));
}

#[test]
fn one_that_is_large_goes_past_the_page_cache_encrypted_too() {
    let dir = tempfile::tempdir().unwrap();
    let (store, data) = (open(dir.path(), PLENTY), secret(65 * SEGMENT + 3));
    let whole = outline(&data);
    let partial = begin_sealed(&store, &whole);
    fill(&partial, &data, u32::MAX);
    store.complete(&partial).unwrap();
    assert_eq!(leaks(dir.path()), [""; 0]);
    assert!(read(&store, whole.digest()).unwrap().as_ref() == Some(&data));
}

#[test]
fn what_changed_on_the_disk_is_found_and_healed_and_stays_encrypted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, data) = (open(dir.path(), PLENTY), secret(3 * SEGMENT + 5));
    let digest = put_sealed(&store, &data).unwrap();
    let at = shelf(dir.path(), "sealed", digest);
    fs::remove_file(shelf(dir.path(), "outline", digest)).unwrap();
    assert_eq!(store.check(digest).unwrap(), Checked::Sound, "the outline is made again");
    for byte in [0, SEGMENT, 3 * SEGMENT + 4] {
        let index = u32::try_from(byte / SEGMENT).unwrap();
        flip(&at, byte);
        assert!(matches!(read(&store, digest), Err(StoreError::Damaged { segments, .. }) if segments == [index]));
        assert_eq!(store.check(digest).unwrap(), Checked::Partial(vec![index]));
        let partial = begin(&store, &outline(&data));
        assert_eq!((partial.is_sealed(), partial.have().count()), (true, 3));
        partial.write(index, data.chunks(SEGMENT).nth(index as usize).unwrap()).unwrap();
        store.complete(&partial).unwrap();
        assert!(store.is_sealed(digest) && read(&store, digest).unwrap().as_ref() == Some(&data));
    }
    // a seal that changed opens nothing
    flip(&at, data.len() + 20);
    assert!(matches!(store.reader(digest), Err(StoreError::Damaged { .. })));
    assert_eq!(store.check(digest).unwrap(), Checked::Removed);
    assert_eq!(leaks(dir.path()), [""; 0]);
}

#[test]
fn what_is_encrypted_once_is_not_kept_plain_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, data) = (open(dir.path(), PLENTY), secret(SEGMENT + 100));
    let digest = put(&store, &data).unwrap();
    assert_eq!(leaks(dir.path()).len(), 1);
    put_sealed(&store, &data).unwrap();
    assert_eq!(leaks(dir.path()), [""; 0]);
    put(&store, &data).unwrap();
    assert!(store.is_sealed(digest));
    assert_eq!((leaks(dir.path()), store.room().0), (vec![], data.len() as u64));
    // a crash between the two leaves both, and the encrypted one counts
    let plain = shelf(dir.path(), "whole", digest);
    fs::create_dir_all(plain.parent().unwrap()).unwrap();
    fs::write(&plain, &data).unwrap();
    let store = open(dir.path(), PLENTY);
    assert!(store.is_sealed(digest) && !plain.exists());
    assert!(read(&store, digest).unwrap().as_ref() == Some(&data));
}
