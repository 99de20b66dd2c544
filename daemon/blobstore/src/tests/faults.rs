//! What a store makes of files that changed, were cut, are gone, or were left by a run that ended anywhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use proptest::prelude::*;
use swarm_proto::Digest;

use super::{MIB, PLENTY, SEGMENT, begin, bytes, files, fill, finish, open, open_in, outline, put, read, shelf};
use crate::{Begun, Checked, KeyAt, Outline, Pin, Store, StoreError};

/// Segments that may come again where the map was not written since.
const UNSAVED: u32 = 8;

/// A store that was left with something in every place: a whole blob of several segments and one of one, each pinned, and a part.
struct Sample {
    dir: tempfile::TempDir,
    /// Whole, and pinned by hand.
    whole: [Vec<u8>; 2],
    part: Vec<u8>,
    /// How many of its first segments are there.
    there: u32,
}

impl Sample {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (whole, part) = ([bytes(1, SEGMENT + 100), bytes(2, 900)], bytes(3, 9 * SEGMENT + 50));
        let store = open(dir.path(), PLENTY);
        for data in &whole {
            let digest = put(&store, data).unwrap();
            store.pin(digest, Pin::Hand).unwrap();
        }
        let there = UNSAVED;
        fill(&begin(&store, &outline(&part)), &part, there);
        Self { dir, whole, part, there }
    }

    fn copy(&self) -> tempfile::TempDir {
        let to = tempfile::tempdir().unwrap();
        copy(self.dir.path(), to.path());
        to
    }

    /// Every file of it, below its directory.
    fn files(&self) -> Vec<PathBuf> {
        let below = |path: String| Path::new(&path).strip_prefix(self.dir.path()).unwrap().to_owned();
        files(self.dir.path()).into_iter().map(below).collect()
    }

    /// Whether a file holds a blob's own bytes.
    fn is_bytes(&self, file: &Path) -> bool {
        file.starts_with("whole") || file.file_name().unwrap() == outline(&self.part).digest().to_string().as_str()
    }

    fn is_of_part(file: &Path) -> bool {
        file.starts_with("part")
    }

    /// What a store in `dir` makes of it, of which `changed` is not what it was: nothing wrong is given out as right, what was not
    /// touched is there, and what was is found when it is looked at. Answers how many segments of the part were kept.
    fn judge(&self, dir: &Path, boot: &str, changed: &Path) -> u32 {
        let store = Store::open_in(boot.into(), dir.to_owned(), PLENTY, KeyAt::Own(dir.join("blobs.key")))
            .unwrap_or_else(|e| panic!("{}: {e}", changed.display()));
        for data in &self.whole {
            let digest = outline(data).digest();
            let is_hurt = changed == shelf(Path::new(""), "whole", digest);
            match read(&store, digest) {
                Ok(Some(got)) => assert!(got == *data && !is_hurt, "{}: wrong bytes", changed.display()),
                Ok(None) | Err(StoreError::Damaged { .. } | StoreError::Io { .. }) => assert!(is_hurt, "{}: lost", changed.display()),
                Err(other) => panic!("{}: {other}", changed.display()),
            }
            match store.check(digest) {
                Ok(Checked::Sound) => assert!(!is_hurt, "{}: not found", changed.display()),
                Ok(Checked::Partial(_) | Checked::Removed) | Err(StoreError::Missing(_)) => assert!(is_hurt, "{}", changed.display()),
                Err(other) => panic!("{}: {other}", changed.display()),
            }
            if is_hurt {
                // what is left of it is of use, and the whole of it can come again
                finish(&store, data);
                assert!(read(&store, digest).unwrap().as_ref() == Some(data), "{}: not healed", changed.display());
            }
        }
        let kept = finish(&store, &self.part);
        let digest = outline(&self.part).digest();
        match read(&store, digest) {
            Ok(Some(got)) => assert!(got == self.part, "{}: wrong bytes", changed.display()),
            // a map of this boot is believed, so that what rots under it is found when somebody reads it
            Err(StoreError::Damaged { .. }) if self.is_bytes(changed) && boot == "this boot" => {
                assert!(matches!(store.check(digest), Ok(Checked::Partial(_))), "{}", changed.display());
                finish(&store, &self.part);
                assert!(read(&store, digest).unwrap().as_ref() == Some(&self.part));
            }
            other => panic!("{}: {:?}", changed.display(), other.map(|data| data.is_some())),
        }
        drop(store);
        // and all of it again by a run after that, in which the books agree with the disk
        let store = open(dir, PLENTY);
        for data in self.whole.iter().chain([&self.part]) {
            assert!(read(&store, outline(data).digest()).unwrap().as_ref() == Some(data), "{}", changed.display());
        }
        assert_eq!(store.room().0, self.whole.iter().chain([&self.part]).map(|data| data.len() as u64).sum::<u64>());
        assert_eq!(files(&dir.join("part")), [""; 0], "{}", changed.display());
        kept
    }
}

pub(super) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_changed_bit_anywhere_is_found_or_does_no_harm() {
    let sample = Sample::new();
    for file in sample.files() {
        let len = fs::metadata(sample.dir.path().join(&file)).unwrap().len();
        // its ends, its middle, and a few between
        let places: BTreeSet<u64> = [0, 1, len / 7, len / 3, len / 2, len - 2, len - 1].into();
        for (at, bit) in places.into_iter().zip([0u8, 5, 7].into_iter().cycle()) {
            let dir = sample.copy();
            let path = dir.path().join(&file);
            let mut data = fs::read(&path).unwrap();
            data[usize::try_from(at).unwrap()] ^= 1 << bit;
            fs::write(path, data).unwrap();
            let boot = if at % 2 == 0 { "this boot" } else { "another boot" };
            let kept = sample.judge(dir.path(), boot, &file);
            assert!(kept + 1 >= sample.there, "{}: {kept} segments of {} are left", file.display(), sample.there);
        }
    }
}

#[test]
fn a_pin_that_changed_costs_no_other() {
    let sample = Sample::new();
    let pinned = |dir: &Path| open(dir, PLENTY).list().into_iter().filter(|held| !held.pins.is_empty()).count();
    assert_eq!(pinned(sample.dir.path()), 2);
    for at in 0..65 {
        let dir = sample.copy();
        let path = dir.path().join("pins");
        let mut text = fs::read(&path).unwrap();
        // also what is no text any more
        text[at] ^= 0x80;
        fs::write(path, text).unwrap();
        // the end of a line is a part of both
        assert_eq!(pinned(dir.path()), if at == 64 { 0 } else { 1 }, "{at}");
    }
}

/// What somebody can do to a file of a store.
fn hurt(path: &Path, how: &str) {
    let len = fs::metadata(path).unwrap().len();
    let cut = |to: u64| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(to).unwrap();
    match how {
        "cut to nothing" => cut(0),
        "cut to half" => cut(len / 2),
        "cut by one" => cut(len - 1),
        "longer" => cut(len + 5),
        "much longer" => cut(len + 100_000),
        "garbage" => fs::write(path, bytes(77, usize::try_from(len).unwrap())).unwrap(),
        "gone" => fs::remove_file(path).unwrap(),
        _ => panic!("{how}"),
    }
}

#[test]
fn a_file_that_was_cut_or_is_garbage_or_gone_costs_no_more_than_what_it_held() {
    let sample = Sample::new();
    for file in sample.files() {
        for how in ["cut to nothing", "cut to half", "cut by one", "longer", "much longer", "garbage", "gone"] {
            let dir = sample.copy();
            hurt(&dir.path().join(&file), how);
            if file == Path::new("pins") {
                // it is no blob: what is pinned may go, and nothing else happens
                open(dir.path(), PLENTY);
                continue;
            }
            let kept = sample.judge(dir.path(), "this boot", &file);
            let there = match how {
                // a map of this boot is believed, and the bytes were as long as they should be
                "garbage" if sample.is_bytes(&file) && Sample::is_of_part(&file) => continue,
                "cut to half" if sample.is_bytes(&file) && Sample::is_of_part(&file) => sample.there / 2,
                "cut to nothing" | "gone" if sample.is_bytes(&file) && Sample::is_of_part(&file) => 0,
                _ => sample.there,
            };
            assert!(kept >= there, "{} {how}: {kept} segments of {there} are left", file.display());
        }
    }
}

#[test]
fn what_is_nobodys_does_no_harm_and_what_lost_its_blob_goes() {
    let sample = Sample::new();
    let dir = sample.dir.path();
    for (file, is_ours) in [
        ("whole/.nobody", false),
        ("whole/ab/nobody", false),
        ("outline/nobody", false),
        ("part/nobody", false),
        ("draft/7", true),
        ("part/0000000000000000000000000000000000000000000000000000000000000007.map", true),
        ("part/0000000000000000000000000000000000000000000000000000000000000007.outline", true),
        ("outline/00/0000000000000000000000000000000000000000000000000000000000000007", true),
    ] {
        fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
        fs::write(dir.join(file), "x").unwrap();
        let store = open(dir, PLENTY);
        assert_eq!(store.list().len(), 2, "{file}");
        assert_eq!(dir.join(file).exists(), !is_ours, "{file}");
    }
}

/// The directory as it is after each step of a blob that comes, and in the midst of its end.
#[test]
fn a_run_that_ends_after_any_step_costs_at_most_eight_segments() {
    let data = bytes(5, 11 * SEGMENT + 77);
    let whole = outline(&data);
    let dir = tempfile::tempdir().unwrap();
    let mut steps = Vec::new();
    let mut keep = |count: u32| {
        let to = tempfile::tempdir().unwrap();
        copy(dir.path(), to.path());
        steps.push((to, count));
    };
    let store = open(dir.path(), PLENTY);
    keep(0);
    let partial = begin(&store, &whole);
    keep(0);
    // from both ends, as with several sources
    let order = [11, 0, 10, 1, 9, 2, 8, 3, 7, 4, 6, 5];
    for (count, index) in (1..).zip(order) {
        partial.write(index, data.chunks(SEGMENT).nth(index as usize).unwrap()).unwrap();
        keep(count);
    }
    // complete: the outline is kept, the bytes take their place, what is left of the part goes
    let [from, map] = ["", ".map"].map(|suffix| dir.path().join("part").join(format!("{}{suffix}", whole.digest())));
    let to = shelf(dir.path(), "outline", whole.digest());
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::write(to, whole.bytes()).unwrap();
    keep(12);
    let to = shelf(dir.path(), "whole", whole.digest());
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::rename(from, to).unwrap();
    keep(12);
    fs::remove_file(map).unwrap();
    keep(12);
    for (dir, count) in steps {
        for boot in ["this boot", "another boot"] {
            let after = tempfile::tempdir().unwrap();
            copy(dir.path(), after.path());
            let store = open_in(boot, after.path(), PLENTY);
            if let Begun::Partial(partial) = store.begin(whole.clone(), false).unwrap() {
                let kept = partial.count();
                assert!(kept <= count && kept + UNSAVED > count, "{kept} of {count} are left, {boot}");
                for index in partial.have().iter() {
                    assert!(partial.read_in(Vec::new(), index).unwrap().as_deref() == data.chunks(SEGMENT).nth(index as usize));
                }
                fill(&partial, &data, u32::MAX);
                store.complete(&partial).unwrap();
            }
            assert!(read(&store, whole.digest()).unwrap().as_ref() == Some(&data));
            drop(store);
            let store = open(after.path(), PLENTY);
            assert_eq!((store.room().0, files(&after.path().join("part"))), (data.len() as u64, vec![]));
        }
    }
}

/// Ends the others, also where a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One thread gets a blob again and again while another one fills what room there is and a third one gives it up.
#[test]
fn a_part_keeps_its_files_while_others_take_the_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 8 * MIB);
    let data = bytes(1, 3 * SEGMENT);
    let whole = outline(&data);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let _over = Over(&is_over);
        threads.spawn(|| {
            for seed in 10.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                // refused now and then, for want of room
                let _ = put(&store, &bytes(seed, 2 * SEGMENT));
            }
        });
        threads.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                store.collect(0);
            }
        });
        for _ in 0..200 {
            let partial = begin(&store, &whole);
            fill(&partial, &data, 2);
            store.pause(&partial);
            drop(partial);
            let Begun::Partial(partial) = store.begin(whole.clone(), false).unwrap() else { panic!("it was never whole") };
            fill(&partial, &data, u32::MAX);
            store.complete(&partial).expect("its files are there");
            drop(partial);
            let _ = store.remove(whole.digest());
        }
    });
    store.collect(0);
    assert_eq!((store.room().0, files(&dir.path().join("part"))), (0, vec![]));
}

#[cfg(target_os = "linux")]
fn blocks(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).unwrap().blocks() * 512
}

/// The room that is counted is the blob's size all the same.
#[cfg(target_os = "linux")]
#[test]
fn zeros_are_holes_whichever_way_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = vec![0; 12 * SEGMENT + 5_000];
    data[5 * SEGMENT..6 * SEGMENT].copy_from_slice(&bytes(1, SEGMENT));
    let whole = outline(&data);
    let store = open(dir.path(), PLENTY);
    put(&store, &data).unwrap();
    let path = shelf(dir.path(), "whole", whole.digest());
    let is_there = |store: &Store| {
        assert!(read(store, whole.digest()).unwrap().as_ref() == Some(&data));
        assert_eq!(store.check(whole.digest()).unwrap(), Checked::Sound);
        assert_eq!(store.room().0, data.len() as u64);
        assert!(blocks(&path) <= 2 * MIB, "{} bytes of the disk", blocks(&path));
    };
    is_there(&store);
    is_there(&open(dir.path(), PLENTY));
    store.remove(whole.digest()).unwrap();
    let partial = begin(&store, &whole);
    fill(&partial, &data, u32::MAX);
    store.complete(&partial).unwrap();
    is_there(&store);
    // nothing but zeros, and nothing at all
    for data in [vec![0; 2 * SEGMENT], vec![0; 3], Vec::new()] {
        let digest = put(&store, &data).unwrap();
        assert_eq!(digest.0, *blake3::hash(&data).as_bytes());
        assert!(read(&store, digest).unwrap().as_ref() == Some(&data));
    }
}

/// A hole must not be left where something else was: a segment that changed on the disk and should be zeros.
#[test]
fn zeros_take_the_place_of_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let (store, data) = (open(dir.path(), PLENTY), vec![0; 3 * SEGMENT]);
    let digest = put(&store, &data).unwrap();
    super::flip(&shelf(dir.path(), "whole", digest), SEGMENT + 7);
    assert_eq!(store.check(digest).unwrap(), Checked::Partial(vec![1]));
    let partial = begin(&store, &outline(&data));
    fill(&partial, &data, u32::MAX);
    store.complete(&partial).unwrap();
    assert_eq!(store.check(digest).unwrap(), Checked::Sound);
}

fn reads(store: &Store, outline: &Outline, data: &[u8]) -> bool {
    read(store, outline.digest()).is_ok_and(|got| got.as_deref() == Some(data))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Any bytes in the place of any files: it opens, gives nothing wrong, and takes the blob again.
    #[test]
    fn whatever_lies_in_its_directory_it_opens_and_gives_nothing_wrong(
        garbage in prop::collection::vec((0usize..8, prop::collection::vec(any::<u8>(), 0..200), any::<bool>()), 1..5), boot in any::<bool>()
    ) {
        let dir = tempfile::tempdir().unwrap();
        let data = bytes(9, 2 * SEGMENT + 9);
        let whole = outline(&data);
        drop(open(dir.path(), PLENTY));
        let name: Digest = whole.digest();
        let places = [
            shelf(dir.path(), "whole", name), shelf(dir.path(), "outline", name), dir.path().join(format!("part/{name}")),
            dir.path().join(format!("part/{name}.map")), dir.path().join(format!("part/{name}.outline")), dir.path().join("pins"),
            dir.path().join("draft/0"), dir.path().join("pins.new"),
        ];
        for (place, bytes, is_long) in garbage {
            fs::create_dir_all(places[place].parent().unwrap()).unwrap();
            fs::write(&places[place], bytes).unwrap();
            if is_long {
                fs::OpenOptions::new().write(true).open(&places[place]).unwrap().set_len(data.len() as u64).unwrap();
            }
        }
        let boot = if boot { "this boot" } else { "" };
        let store = open_in(boot, dir.path(), PLENTY);
        prop_assert!(!reads(&store, &whole, &data), "it was never there");
        if store.size_of(name).is_some() {
            prop_assert_ne!(store.check(name).unwrap(), Checked::Sound);
        }
        if let Begun::Partial(partial) = store.begin(whole.clone(), false).unwrap() {
            fill(&partial, &data, u32::MAX);
            store.complete(&partial).unwrap();
        }
        prop_assert!(reads(&store, &whole, &data));
    }
}
