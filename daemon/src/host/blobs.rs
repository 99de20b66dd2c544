//! Where the blobs of this host are.

use std::path::{Path, PathBuf};

use mesh_config::Config;
use swarm_blobstore::Store;
use swarm_proto::Problem;

use super::offer;

/// Beside the log, in the state directory.
const DIR: &str = "blobs";
/// What part of its disk the store takes where nothing is said.
const SHARE: u64 = 4;
/// What it takes where the disk does not tell its size.
const AT_LEAST: u64 = 1 << 30;

/// Where whole blobs are.
pub(super) fn shelves(state_dir: &Path) -> PathBuf {
    Store::shelves(&state_dir.join(DIR))
}

/// Opens the store.
pub(super) fn open(config: &Config, state_dir: &Path) -> Result<Store, Problem> {
    let share = || offer::disk_of(state_dir).map_or(AT_LEAST, |(total, _)| total / SHARE);
    let dir = state_dir.join(DIR);
    Store::open(&dir, config.blobs.quota.unwrap_or_else(share)).map_err(|error| error.problem(&format!("{} cannot be used", dir.display())))
}
