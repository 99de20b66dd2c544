//! All processes of one node, which a host takes with it when it goes or hangs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// The daemon, its keeper, and all that descends from them.
pub(crate) fn processes(daemon: u32, state: &Path) -> anyhow::Result<Vec<Pid>> {
    let daemon = pid(daemon)?;
    let keeper = fs::read_to_string(state.join("keeper/keeper.lock")).ok().and_then(|text| text.parse().ok());
    let keeper = keeper.map(pid).transpose()?;
    let mut children = BTreeMap::<i32, Vec<i32>>::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // the name is in parentheses and may hold anything; one that has ended meanwhile is nobody's child
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_ascii_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut found: Vec<i32> = [Some(daemon), keeper].into_iter().flatten().map(|pid| pid.as_raw_nonzero().get()).collect();
    let mut seen: BTreeSet<i32> = found.iter().copied().collect();
    let mut at = 0;
    while let Some(parent) = found.get(at) {
        let below = children.get(parent).into_iter().flatten().copied().filter(|child| seen.insert(*child));
        found.extend(below.collect::<Vec<_>>());
        at += 1;
    }
    Ok(found.into_iter().filter_map(Pid::from_raw).collect())
}

/// The same to each of them. One that has ended by itself does not mind.
pub(crate) fn signal(processes: &[Pid], signal: Signal) {
    processes.iter().for_each(|pid| {
        let _ = kill_process(*pid, signal);
    });
}

/// A process by its number.
pub(crate) fn pid(number: u32) -> anyhow::Result<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw).with_context(|| format!("{number} is no process"))
}
