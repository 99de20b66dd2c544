//! What was done over all runs; a small file, written after each target.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Of one target.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Total {
    pub(crate) inputs: u64,
    pub(crate) seconds: u64,
    pub(crate) findings: u64,
}

pub(crate) struct Totals {
    file: PathBuf,
    pub(crate) of: BTreeMap<String, Total>,
}

impl Totals {
    /// Those so far; a file that cannot be read counts as none.
    pub(crate) fn load(file: PathBuf) -> Self {
        let of = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { file, of }
    }

    pub(crate) fn add(&mut self, target: &str, more: &Total) -> anyhow::Result<Total> {
        let total = self.of.entry(target.to_owned()).or_default();
        total.inputs += more.inputs;
        total.seconds += more.seconds;
        total.findings += more.findings;
        let total = total.clone();
        std::fs::write(&self.file, serde_json::to_vec_pretty(&self.of)?)?;
        Ok(total)
    }
}
