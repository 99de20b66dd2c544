//! What a daemon takes of its host.

use std::fs;

/// Memory and descriptors of one process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes resident.
    pub rss: u64,
    pub descriptors: usize,
}

impl Footprint {
    /// # Panics
    /// There is no such process.
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
        Self { rss: kib.expect("a process has memory") << 10, descriptors }
    }

    /// # Panics
    /// The process has grown by more than that.
    pub fn has_grown_at_most(self, pid: u32, rss: u64, descriptors: usize) {
        let now = Self::of(pid);
        let within = now.rss <= self.rss + rss && now.descriptors <= self.descriptors + descriptors;
        assert!(within, "process {pid}: {self:?} before, {now:?} now; {rss} bytes and {descriptors} descriptors more are allowed");
    }
}
