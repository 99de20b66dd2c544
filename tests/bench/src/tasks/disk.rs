//! What a sync costs on the bare disk: the loop that `swarmctl bench tasks` and `swarmctl doctor` use.

use std::path::Path;

use swarmctl::verb::bench::disk::writers;

use super::{Figure, Measured};

pub(super) fn run(dir: &Path) -> anyhow::Result<Measured> {
    let (alone, three) = (writers(dir, 1)?, writers(dir, 3)?);
    Ok(vec![
        (Figure::SyncAlone, alone.p50),
        (Figure::SyncThree, three.p50),
        (Figure::SyncThreeP99, three.p99),
        (Figure::SyncThreePerS, three.per_s),
    ])
}
