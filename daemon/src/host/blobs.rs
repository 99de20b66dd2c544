//! Where the blobs of this host are.

use std::path::{Path, PathBuf};

use mesh_config::Config;
use swarm_blobstore::{KeyAt, Store};
use swarm_proto::Problem;

use super::offer;

/// Beside the log, in the state directory.
const DIR: &str = "blobs";
/// What part of its disk the store takes where nothing is said.
const SHARE: u64 = 4;
/// What it takes where the disk does not tell its size.
const AT_LEAST: u64 = 1 << 30;

/// What opens those that are kept encrypted, where the config names no other.
const KEY: &str = "blobs.key";

/// Where whole blobs are, and where those that are kept encrypted.
pub(super) fn shelves(state_dir: &Path) -> (PathBuf, PathBuf) {
    Store::shelves(&state_dir.join(DIR))
}

/// Opens the store.
pub(super) fn open(config: &Config, state_dir: &Path) -> Result<Store, Problem> {
    let share = || offer::disk_of(state_dir).map_or(AT_LEAST, |(total, _)| total / SHARE);
    let dir = state_dir.join(DIR);
    let key = config.blobs.key_file.clone().map_or_else(|| KeyAt::Own(state_dir.join(KEY)), KeyAt::Given);
    let quota = config.blobs.quota.unwrap_or_else(share);
    Store::open(&dir, quota, key).map_err(|error| error.problem(&format!("{} cannot be used", dir.display())))
}
