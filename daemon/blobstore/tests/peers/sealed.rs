//! Blobs that are kept encrypted, between hosts.

use std::{fs, path::Path};

use swarm_blobstore::{Begun, Checked};

use crate::support::{Host, SEGMENT, text};

const MARKER: &[u8] = b"nobody shall find these words on a disk";

fn leaks(dir: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        count += match path.is_dir() {
            true => leaks(&path),
            false => usize::from(fs::read(&path).unwrap().windows(MARKER.len()).any(|window| window == MARKER)),
        };
    }
    count
}

fn secret() -> Vec<u8> {
    let mut data = text(6 * SEGMENT + 9);
    for at in [0, SEGMENT - 5, 4 * SEGMENT] {
        data[at..at + MARKER.len()].copy_from_slice(MARKER);
    }
    data
}

#[tokio::test]
async fn what_is_kept_encrypted_is_so_wherever_it_comes_to() {
    let hosts: Vec<Host> = (1..=3).map(Host::start).collect();
    let [first, second, third] = &hosts[..] else { panic!("there are three") };
    second.knows(&[first]);
    third.knows(&[second]);
    let data = secret();
    let mut draft = first.store.sealed_draft().unwrap();
    data.chunks(77_777).for_each(|piece| draft.write(piece).unwrap());
    let digest = draft.finish().unwrap().digest();
    second.fetch(digest, &[first]).await.unwrap();
    third.fetch(digest, &[second]).await.unwrap();
    for host in &hosts {
        assert!(host.store.is_sealed(digest) && host.has(digest, &data));
        assert_eq!(leaks(host.dir.path()), 0);
    }
    // each with a key of its own, and so with other bytes
    let on_disk = |host: &Host| fs::read(host.sealed_path(digest)).unwrap();
    assert!(on_disk(first) != on_disk(second));
    // one that changed is healed by another one
    let mut bytes = on_disk(third);
    bytes[3 * SEGMENT] ^= 1;
    fs::write(third.sealed_path(digest), bytes).unwrap();
    assert_eq!(third.store.check(digest).unwrap(), Checked::Partial(vec![3]));
    third.fetch(digest, &[second]).await.unwrap();
    assert!(third.store.is_sealed(digest) && third.has(digest, &data));
}

#[tokio::test]
async fn a_part_of_one_is_passed_on_as_one() {
    let (first, second) = (Host::start(1), Host::start(2));
    second.knows(&[&first]);
    let data = secret();
    let mut outliner = swarm_blobstore::Outliner::default();
    outliner.update(&data);
    let outline = outliner.finish();
    let Begun::Partial(partial) = first.store.begin(outline.clone(), true).unwrap() else { panic!("it is new") };
    for (segment, index) in data.chunks(SEGMENT).zip(0..) {
        partial.write(index, segment).unwrap();
    }
    // whole, but not yet for good
    second.fetch(outline.digest(), &[&first]).await.unwrap();
    assert!(second.store.is_sealed(outline.digest()) && second.has(outline.digest(), &data));
    assert_eq!((leaks(first.dir.path()), leaks(second.dir.path())), (0, 0));
}

#[tokio::test]
async fn who_has_no_key_says_so() {
    let (first, second) = (Host::start(1), Host::start(2));
    second.knows(&[&first]);
    let mut draft = first.store.sealed_draft().unwrap();
    draft.write(&secret()).unwrap();
    let digest = draft.finish().unwrap().digest();
    // a directory where the key should be
    fs::create_dir(second.dir.path().join("blobs.key")).unwrap();
    let error = second.fetch(digest, &[&first]).await.unwrap_err();
    assert!(error.to_string().contains("blobs.key, cannot be used"), "{error}");
    assert_eq!(second.store.room().0, 0);
}
