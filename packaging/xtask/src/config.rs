//! The config file of a package.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context as _;

/// Writes it. What is to be set for keys that there are not is left out, so that one list serves a package for every version.
pub(crate) fn write(file: &Path, set: &[String]) -> anyhow::Result<()> {
    let keys: BTreeSet<&str> = mesh_config::reference().into_iter().map(|described| described.key).collect();
    let pairs = set.iter().map(|pair| pair.split_once('=').with_context(|| format!("'{pair}' is not KEY=VALUE")));
    let chosen: Vec<(&str, &str)> = pairs.collect::<anyhow::Result<_>>()?;
    let chosen: Vec<(&str, &str)> = chosen.into_iter().filter(|(key, _)| keys.contains(key)).collect();
    fs::write(file, mesh_config::commented(&chosen)).with_context(|| file.display().to_string())
}
