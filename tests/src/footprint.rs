//! What a daemon takes of its host.

use std::fs;

/// Memory and descriptors of some processes at one moment.
#[derive(Debug)]
pub struct Footprints(Vec<Footprint>);

#[derive(Debug)]
struct Footprint {
    pid: u32,
    /// Bytes resident.
    rss: u64,
    descriptors: usize,
}

impl Footprints {
    /// # Panics
    /// There is no such process.
    pub fn of(pids: impl IntoIterator<Item = u32>) -> Self {
        Self(pids.into_iter().map(Footprint::of).collect())
    }

    /// Bytes resident, of all of them.
    pub fn resident(&self) -> u64 {
        self.0.iter().map(|one| one.rss).sum()
    }

    /// # Panics
    /// One of them has grown by more than that since.
    pub fn have_grown_at_most(&self, rss: u64, descriptors: usize) {
        for before in &self.0 {
            let now = Footprint::of(before.pid);
            let within = now.rss <= before.rss + rss && now.descriptors <= before.descriptors + descriptors;
            assert!(within, "{before:?} before, {now:?} now; {rss} bytes and {descriptors} descriptors more are allowed");
        }
    }
}

impl Footprint {
    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
        Self { pid, rss: kib.expect("a process has memory") << 10, descriptors }
    }
}
