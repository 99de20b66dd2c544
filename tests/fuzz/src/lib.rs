//! Bytes that nobody would send: into everything that decodes, and into the state machine's apply.
//!
//! ```text
//!   corpus/TARGET/*  ---.                                        .--> a panic, more than a second, more memory than its bound:
//!   finds of earlier runs --> libFuzzer --bytes--> Target::judge --'    a finding, kept as a file
//!            ^                    | coverage is fed back
//!            '--------------------'
//! ```
//! A [`Target`] is a function of bytes, and stands in [`TARGETS`]. Two drivers feed it: a test, which is built like every other one
//! and replays what is kept, with some of it changed; and the program `swarm-fuzz` with libFuzzer in it, which `tests/fuzz/run` builds
//! so that coverage is counted in every crate of this workspace (stable Rust knows how: it is LLVM's own pass). No other crate is
//! built anew for it, and no sanitizer is used, because the workspace has no unsafe code to look for; overflows panic, though.
//!
//! **Run it.** `tests/fuzz/run all --seconds 20`, or `tests/fuzz/run ledger --seconds 600`; `tests/run --long` does all for some minutes. What is new goes
//! to `fuzz/` in the target directory, where later runs begin with it, and so do the totals over all runs, which are shown at the end.
//!
//! **Add a target.** Write a function, in the module of its subject; give it a row in [`TARGETS`], with the bound on its memory taken
//! from [`swarm_proto::limits`]; give it inputs in [`seeds`], real ones, so that it begins deep. Then `tests/fuzz/run seeds`. What is private
//! is let in by its crate's `fuzzing` module, which only this crate switches on.
//!
//! **A finding** is a file whose name is printed. `swarm-fuzz TARGET --replay FILE` shows it again. Mend it, and copy the file to
//! `corpus/TARGET/` with a name that says what it is: there it stays as a test. `tests/fuzz/run all --shrink` brings a few of the finds
//! that reach something of their own into the tree, and leaves alone what has such a name.

mod input;
mod meter;
pub mod seeds;

mod api;
mod blobs;
mod certificate;
mod desk;
mod disk;
mod gossip;
mod host;
mod keeper;
mod ledger;
mod peer;
mod requests;
mod state;
mod words;
mod worker;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use meter::Cost;
use swarm_proto::limits;

/// Processor time that one input may take. Built for coverage, and beside other work, everything is several times slower.
pub const TIME: Duration = Duration::from_secs(1);

/// One thing that is fed bytes.
pub struct Target {
    /// Its name, and that of its directory.
    pub name: &'static str,
    /// Does it; panics where something is wrong.
    pub run: fn(&[u8]),
    /// Bytes that any input may take, and more for each byte of it.
    pub memory: (usize, usize),
    /// Bytes of the longest input that is tried.
    pub longest: usize,
}

/// Serde sets room aside for what a list says that it holds, up to 1 MiB a list, before there is any of it.
const LIST: usize = 1 << 20;

/// A dot in a key of TOML makes a table, which sets room aside for eleven entries; a file is the operator's own, and bounded.
const TOML: usize = 2 << 10;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "peer", run: peer::messages, memory: (2 * LIST, 256), longest: 4096 },
    Target { name: "frames", run: peer::frames, memory: (16 << 10, 64), longest: 4096 },
    Target { name: "gossip", run: gossip::packets, memory: (16 << 10, 64), longest: 4096 },
    Target { name: "members", run: gossip::members, memory: (4 << 20, 256), longest: 4096 },
    Target { name: "ledger", run: ledger::apply, memory: (8 << 20, 512), longest: 4096 },
    Target { name: "snapshot", run: ledger::snapshot, memory: (2 * LIST, 256), longest: 8192 },
    Target { name: "log", run: disk::log, memory: (2 * LIST, 256), longest: 16 << 10 },
    Target { name: "consensus", run: disk::wire, memory: (2 * LIST, 256), longest: 4096 },
    Target { name: "segment", run: blobs::segment, memory: (4 * limits::SEGMENT as usize, 64), longest: 8192 },
    Target { name: "store", run: blobs::store, memory: (1 << 20, 64), longest: 4096 },
    Target { name: "manifest", run: blobs::manifest, memory: (64 << 10, 64), longest: 8192 },
    Target { name: "words", run: words::words, memory: (64 << 10, 64), longest: 512 },
    Target { name: "job-file", run: words::job_file, memory: (256 << 10, TOML), longest: 4096 },
    // each problem shows its line of the file
    Target { name: "config", run: words::config, memory: (512 << 10, TOML), longest: 4096 },
    Target { name: "host", run: host::answers, memory: (64 << 10, 256), longest: 8192 },
    Target { name: "api", run: api::bodies, memory: (256 << 10, 256), longest: 4096 },
    // the routes are made with the first one
    Target { name: "request", run: requests::requests, memory: (1 << 20, 256), longest: 4096 },
    Target { name: "keeper", run: keeper::messages, memory: (8 * LIST, 256), longest: 4096 },
    Target { name: "certificate", run: certificate::shown, memory: (64 << 10, 64), longest: 2048 },
    Target { name: "state", run: state::files, memory: (2 * LIST, TOML), longest: 4096 },
    Target { name: "desk", run: desk::messages, memory: (16 << 20, 512), longest: 4096 },
    Target { name: "worker", run: worker::messages, memory: (8 << 20, 512), longest: 4096 },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// Bytes of memory that an input of this length may take.
    pub const fn bound(&self, len: usize) -> usize {
        self.memory.0 + self.memory.1 * len
    }

    /// Runs one input, and says what it took.
    ///
    /// # Panics
    /// When the input is a finding.
    pub fn judge(&self, bytes: &[u8]) -> Cost {
        let cost = meter::measure(|| (self.run)(bytes));
        let bound = self.bound(bytes.len());
        assert!(cost.memory <= bound, "{} bytes of input take {} bytes of memory, {bound} is the bound", bytes.len(), cost.memory);
        assert!(cost.time <= TIME, "{} bytes of input take {:?} of processor time, {TIME:?} is the bound", bytes.len(), cost.time);
        cost
    }
}

/// The inputs that are kept for a target, in the directory of this crate.
pub fn kept(crate_dir: &Path, target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(crate_dir.join("corpus").join(target.name));
    let mut files: Vec<PathBuf> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.into_iter().filter_map(|file| Some((file.clone(), std::fs::read(file).ok()?))).collect()
}
