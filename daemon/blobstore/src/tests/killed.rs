//! A run that is killed at any call by which it changes the disk. `strace` ends it there: the test runs itself, as another process.

use std::{
    env,
    io::{Write as _, stdout},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    MIB, PLENTY, SEGMENT, begin, bytes,
    faults::copy,
    files, fill, finish, flip, open, open_in, outline, put, put_sealed, read,
    sealed::{leaks, secret},
    shelf,
};
use crate::{Checked, Pin, Store, StoreError};

/// Where the run that shall be killed has its store.
const VICTIM: &str = "SWARM_KILLED_STORE";
/// Every call that changes files, and those that make them last.
const CALLS: &str = "openat,write,pwrite64,pwritev,copy_file_range,fallocate,ftruncate,rename,renameat,renameat2,unlink,unlinkat,link,linkat,\
                     mkdir,mkdirat,rmdir,fchmod,fsync,fdatasync,sync_file_range";
/// More than the run makes: about a hundred.
const MOST: u32 = 2_000;

/// What the run has to do, each step of which it says when it is done.
struct Work {
    plain: Vec<u8>,
    sealed: Vec<u8>,
    parts: Vec<u8>,
    gone: Vec<u8>,
}

const STEPS: [&str; 8] = ["put", "pinned", "sealed", "began", "completed", "demoted", "healed", "removed"];

impl Work {
    fn new() -> Self {
        Self { plain: bytes(11, SEGMENT + 100), sealed: secret(SEGMENT + 50), parts: bytes(13, 2 * SEGMENT + 9), gone: bytes(14, 700) }
    }

    fn run(&self, store: &Store, dir: &Path, mut said: impl FnMut(&str)) {
        let plain = put(store, &self.plain).unwrap();
        said("put");
        store.pin(plain, Pin::Hand).unwrap();
        said("pinned");
        put_sealed(store, &self.sealed).unwrap();
        said("sealed");
        let partial = begin(store, &outline(&self.parts));
        said("began");
        fill(&partial, &self.parts, u32::MAX);
        store.complete(&partial).unwrap();
        said("completed");
        flip(&shelf(dir, "whole", plain), 5);
        assert!(matches!(store.check(plain), Ok(Checked::Partial(_))));
        said("demoted");
        finish(store, &self.plain);
        said("healed");
        let gone = put(store, &self.gone).unwrap();
        store.remove(gone).unwrap();
        said("removed");
    }

    /// What a store makes of what a run left that had said so much.
    fn judge(&self, dir: &Path, boot: &str, said: &[&str]) {
        let has = |step: &str| said.contains(&step);
        let store = open_in(boot, dir, PLENTY);
        let kept: u64 = store.list().iter().map(|held| held.size).sum();
        assert!(kept <= store.room().0 && store.room().0 <= kept + 5 * MIB, "{said:?}: {:?} for {kept}", store.room());
        assert_eq!(files(&dir.join("draft")), [""; 0], "{said:?}");
        // from the moment the step before has ended, the run itself may have spoilt it
        let is_spoilt = has("completed") && !has("healed");
        for (data, is_there) in
            [(&self.plain, has("put") && !is_spoilt), (&self.sealed, has("sealed")), (&self.parts, has("completed")), (&self.gone, false)]
        {
            match read(&store, outline(data).digest()) {
                Ok(Some(got)) => assert!(got == *data, "{said:?}: wrong bytes"),
                Ok(None) => assert!(!is_there, "{said:?}: lost"),
                Err(StoreError::Damaged { .. }) => assert!(is_spoilt, "{said:?}: damaged"),
                Err(other) => panic!("{said:?}: {other}"),
            }
        }
        if has("pinned") {
            let pinned = store.list().into_iter().find(|held| held.digest == outline(&self.plain).digest());
            // what is spoilt may have gone to the parts, where a pin waits for it
            assert!(pinned.map_or(is_spoilt, |held| held.pins == [Pin::Hand]), "{said:?}: not pinned");
        }
        assert_eq!(leaks(dir), [""; 0], "{said:?}");
        // and everything can be done again
        for data in [&self.plain, &self.parts, &self.gone] {
            heal(&store, data);
        }
        put_sealed(&store, &self.sealed).unwrap();
        drop(store);
        let store = open(dir, PLENTY);
        let all = [&self.plain, &self.sealed, &self.parts, &self.gone];
        for data in all {
            let digest = outline(data).digest();
            assert!(read(&store, digest).unwrap().as_ref() == Some(data), "{said:?}");
            assert_eq!(store.check(digest).unwrap(), Checked::Sound, "{said:?}");
        }
        assert_eq!(store.room().0, all.iter().map(|data| data.len() as u64).sum::<u64>(), "{said:?}");
        assert_eq!(files(&dir.join("part")), [""; 0], "{said:?}");
        assert_eq!(leaks(dir), [""; 0], "{said:?}");
    }
}

/// Brings what is missing of a blob, once it was found out what is.
fn heal(store: &Store, data: &[u8]) {
    let digest = outline(data).digest();
    if matches!(read(store, digest), Err(StoreError::Damaged { .. })) {
        store.check(digest).unwrap();
    }
    finish(store, data);
}

#[test]
fn a_run_that_is_killed_at_any_call_keeps_what_it_said() {
    let work = Work::new();
    if let Some(dir) = env::var_os(VICTIM) {
        let dir = PathBuf::from(dir);
        work.run(&open(&dir, PLENTY), &dir, |step| {
            println!("\n{step}");
            stdout().flush().unwrap();
        });
        return;
    }
    for call in 1..MOST {
        let dir = tempfile::tempdir().unwrap();
        let inject = format!("inject={CALLS}:signal=KILL:when={call}");
        let done = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", &format!("trace={CALLS}"), "-e", &inject])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1", "tests::killed::a_run_that_is_killed_at_any_call_keeps_what_it_said"])
            .env(VICTIM, dir.path().join("store"))
            .output()
            .expect("strace is installed");
        let told = String::from_utf8(done.stdout).unwrap();
        let said: Vec<&str> = STEPS.into_iter().filter(|step| told.lines().any(|line| line == *step)).collect();
        for boot in ["this boot", "another boot"] {
            let left = tempfile::tempdir().unwrap();
            copy(dir.path(), left.path());
            work.judge(&left.path().join("store"), boot, &said);
        }
        if done.status.success() {
            assert_eq!(said, STEPS);
            assert!(call > 60, "only {call} calls were seen");
            return;
        }
        assert_eq!(done.status.signal(), Some(9), "{}", String::from_utf8_lossy(&done.stderr));
    }
    panic!("it never ended");
}
