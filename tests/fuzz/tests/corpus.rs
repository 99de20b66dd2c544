//! What is kept is no finding, and neither is most of what lies next to it.

use std::path::Path;

use rand::{Rng as _, SeedableRng as _};
use swarm_fuzz::{TARGETS, Target, kept};

/// Changed inputs for each one that is kept: some seconds for all targets.
const CHANGED: usize = 200;

fn replay(target: &Target) {
    let kept = kept(Path::new(concat!(env!("SWARM_ROOT"), "/tests/fuzz")), target);
    assert!(!kept.is_empty(), "{} has no inputs: swarm-fuzz seeds", target.name);
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    target.judge(&[]);
    for (file, bytes) in &kept {
        judge(target, bytes, file);
        for _ in 0..CHANGED {
            let mut changed = bytes.clone();
            for _ in 0..rng.random_range(1..4) {
                change(&mut changed, &kept[rng.random_range(0..kept.len())].1, &mut rng);
            }
            changed.truncate(target.longest);
            judge(target, &changed, file);
        }
    }
}

/// Says which input it was, where it is a finding.
fn judge(target: &Target, bytes: &[u8], near: &Path) {
    struct Said<'a>(&'a [u8], &'a Path);
    impl Drop for Said<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
                eprintln!("the input, like {}, is {hex}", self.1.display());
            }
        }
    }
    let said = Said(bytes, near);
    target.judge(bytes);
    drop(said);
}

fn change(bytes: &mut Vec<u8>, other: &[u8], rng: &mut impl rand::Rng) {
    let at = rng.random_range(0..=bytes.len());
    match rng.random_range(0..5) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = rng.random(),
        2 => bytes.insert(at, rng.random()),
        3 => bytes.truncate(at),
        _ => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[rng.random_range(0..=other.len())..]);
        }
    }
}

macro_rules! replayed {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            replay(swarm_fuzz::target(&stringify!($name).replace('_', "-")).expect("a target"));
        })+

        #[test]
        fn all_targets_are_replayed() {
            assert_eq!([$(stringify!($name).replace('_', "-")),+].as_slice(), TARGETS.iter().map(|target| target.name).collect::<Vec<_>>());
        }
    };
}

replayed! {
    peer frames gossip members ledger snapshot log consensus segment store manifest words job_file config host api request keeper certificate state desk worker
}
