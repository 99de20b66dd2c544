//! One world as a small readable file, so that it can be kept, made smaller and run again.
//!
//! ```text
//! seed 42
//! nodes 5
//! blobs 0
//! papers 0
//! end 18000
//! 6000 kill 3
//! 6812 one-way 1 2
//! 8100 repair
//! ```
//! A line is a fault with the moment at which it begins, in milliseconds of simulated time; `#` begins a remark. Everything else
//! that happens in the world follows from the seed.

use std::{fmt, str::FromStr};

use crate::disk::Blow;

/// What goes wrong. Hosts are numbered from 1. All of it but a clock that jumped, a host that is gone and what became of disks is
/// over with the next [`Act::Repair`], which also starts what does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The daemon dies; its keeper and its host live.
    Kill(u64),
    PowerCut(u64),
    PowerCutAll,
    /// The daemon is asked to stop, does so, and starts again.
    Restart(u64),
    /// The daemon dies at the operation of its disks after so many others.
    DieAt(u64, u64, Blow),
    /// The same, and its host's power goes with it.
    CutAt(u64, u64, Blow),
    /// All that is sent to and from a host waits.
    Pause(u64),
    /// A host is cut off from all others.
    CutOff(u64),
    /// Hosts up to this one are cut off from those after it.
    Split(u64),
    /// The others are two halves that only this host can reach both of.
    Bridge(u64),
    /// What the first sends does not reach the second.
    OneWay(u64, u64),
    /// Nothing that a host sends arrives.
    Mute(u64),
    /// Nothing arrives at a host.
    Deaf(u64),
    /// A host's links work for so many milliseconds, and then do not for as many.
    Flap(u64, u64),
    /// So many of a hundred datagrams are lost, arrive twice, are overtaken, on every link.
    Loss(u64),
    Double(u64),
    Overtake(u64),
    /// Datagrams take up to this many milliseconds, on every link.
    Delay(u64),
    /// Syncs take up to 300 ms.
    SlowDisk(u64),
    /// Syncs take 4 to 8 s.
    StallDisk(u64),
    FullDisk(u64),
    /// I/O errors: of syncs, of writes.
    FailSync(u64),
    FailWrite(u64),
    /// A host's wall clock jumps ahead by so many seconds, or back.
    Clock(u64, i64),
    /// All hosts' do, as when a swarm slept.
    ClockAll(i64),
    /// A host loses power and everything on its disks.
    Wipe(u64),
    /// A copy of a host's disks is taken and kept.
    Copy(u64),
    /// A host loses power, and has on its disks what was copied.
    Restore(u64),
    /// Another host starts with the key and a copy of the disks of this one.
    Clone(u64),
    /// That one ends.
    Unclone,
    /// An operator closes a host out for good.
    Revoke(u64),
    /// A host loses power, and a repair does not bring it back.
    Gone(u64),
    /// It comes back; if it was a voter, another one has taken its place.
    Back(u64),
    Repair,
}

const fn blow_word(blow: Blow) -> i64 {
    match blow {
        Blow::Before => 0,
        Blow::Half => 1,
        Blow::After => 2,
    }
}

impl Act {
    /// Its word and its numbers.
    fn parts(self) -> (&'static str, Vec<i64>) {
        let n = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        match self {
            Self::Kill(host) => ("kill", vec![n(host)]),
            Self::PowerCut(host) => ("power-cut", vec![n(host)]),
            Self::PowerCutAll => ("power-cut-all", vec![]),
            Self::Restart(host) => ("restart", vec![n(host)]),
            Self::DieAt(host, at, blow) => ("die-at", vec![n(host), n(at), blow_word(blow)]),
            Self::CutAt(host, at, blow) => ("cut-at", vec![n(host), n(at), blow_word(blow)]),
            Self::Pause(host) => ("pause", vec![n(host)]),
            Self::CutOff(host) => ("cut-off", vec![n(host)]),
            Self::Split(last) => ("split", vec![n(last)]),
            Self::Bridge(host) => ("bridge", vec![n(host)]),
            Self::OneWay(from, to) => ("one-way", vec![n(from), n(to)]),
            Self::Mute(host) => ("mute", vec![n(host)]),
            Self::Deaf(host) => ("deaf", vec![n(host)]),
            Self::Flap(host, ms) => ("flap", vec![n(host), n(ms)]),
            Self::Loss(percent) => ("loss", vec![n(percent)]),
            Self::Double(percent) => ("double", vec![n(percent)]),
            Self::Overtake(percent) => ("overtake", vec![n(percent)]),
            Self::Delay(ms) => ("delay", vec![n(ms)]),
            Self::SlowDisk(host) => ("slow-disk", vec![n(host)]),
            Self::StallDisk(host) => ("stall-disk", vec![n(host)]),
            Self::FullDisk(host) => ("full-disk", vec![n(host)]),
            Self::FailSync(host) => ("fail-sync", vec![n(host)]),
            Self::FailWrite(host) => ("fail-write", vec![n(host)]),
            Self::Clock(host, seconds) => ("clock", vec![n(host), seconds]),
            Self::ClockAll(seconds) => ("clock-all", vec![seconds]),
            Self::Wipe(host) => ("wipe", vec![n(host)]),
            Self::Copy(host) => ("copy", vec![n(host)]),
            Self::Restore(host) => ("restore", vec![n(host)]),
            Self::Clone(host) => ("clone", vec![n(host)]),
            Self::Unclone => ("unclone", vec![]),
            Self::Revoke(host) => ("revoke", vec![n(host)]),
            Self::Gone(host) => ("gone", vec![n(host)]),
            Self::Back(host) => ("back", vec![n(host)]),
            Self::Repair => ("repair", vec![]),
        }
    }

    fn from_parts(word: &str, numbers: &[i64]) -> Option<Self> {
        let n = |at: usize| numbers.get(at).and_then(|n| u64::try_from(*n).ok());
        let blow = |at: usize| [Blow::Before, Blow::Half, Blow::After].get(usize::try_from(n(at)?).ok()?).copied();
        let act = match word {
            "kill" => Self::Kill(n(0)?),
            "power-cut" => Self::PowerCut(n(0)?),
            "power-cut-all" => Self::PowerCutAll,
            "restart" => Self::Restart(n(0)?),
            "die-at" => Self::DieAt(n(0)?, n(1)?, blow(2)?),
            "cut-at" => Self::CutAt(n(0)?, n(1)?, blow(2)?),
            "pause" => Self::Pause(n(0)?),
            "cut-off" => Self::CutOff(n(0)?),
            "split" => Self::Split(n(0)?),
            "bridge" => Self::Bridge(n(0)?),
            "one-way" => Self::OneWay(n(0)?, n(1)?),
            "mute" => Self::Mute(n(0)?),
            "deaf" => Self::Deaf(n(0)?),
            "flap" => Self::Flap(n(0)?, n(1)?),
            "loss" => Self::Loss(n(0)?),
            "double" => Self::Double(n(0)?),
            "overtake" => Self::Overtake(n(0)?),
            "delay" => Self::Delay(n(0)?),
            "slow-disk" => Self::SlowDisk(n(0)?),
            "stall-disk" => Self::StallDisk(n(0)?),
            "full-disk" => Self::FullDisk(n(0)?),
            "fail-sync" => Self::FailSync(n(0)?),
            "fail-write" => Self::FailWrite(n(0)?),
            "clock" => Self::Clock(n(0)?, *numbers.get(1)?),
            "clock-all" => Self::ClockAll(*numbers.first()?),
            "wipe" => Self::Wipe(n(0)?),
            "copy" => Self::Copy(n(0)?),
            "restore" => Self::Restore(n(0)?),
            "clone" => Self::Clone(n(0)?),
            "unclone" => Self::Unclone,
            "revoke" => Self::Revoke(n(0)?),
            "gone" => Self::Gone(n(0)?),
            "back" => Self::Back(n(0)?),
            "repair" => Self::Repair,
            _ => return None,
        };
        (act.parts().1.len() == numbers.len()).then_some(act)
    }

    /// The hosts that it names.
    pub(super) fn hosts(self) -> Vec<u64> {
        let is_of_all = matches!(self, Self::Loss(_) | Self::Double(_) | Self::Overtake(_) | Self::Delay(_) | Self::ClockAll(_));
        let count = if is_of_all { 0 } else { 1 + usize::from(matches!(self, Self::OneWay(..))) };
        self.parts().1.into_iter().take(count).filter_map(|host| u64::try_from(host).ok()).collect()
    }

    /// Its word alone: what kind of fault it is.
    pub fn word(self) -> &'static str {
        self.parts().0
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, numbers) = self.parts();
        f.write_str(word)?;
        numbers.iter().try_for_each(|number| write!(f, " {number}"))
    }
}

/// One world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    /// Hosts with a daemon, 3 to 7.
    pub nodes: u64,
    /// Blobs that are put, pushed and read meanwhile.
    pub blobs: usize,
    /// How long certificates live, in seconds; 0: for a century.
    pub papers: u64,
    /// When the last repair is, in milliseconds.
    pub end: u64,
    /// What goes wrong before that, by time.
    pub acts: Vec<(u64, Act)>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, nodes, blobs, papers, end, acts } = self;
        write!(f, "seed {seed}\nnodes {nodes}\nblobs {blobs}\npapers {papers}\nend {end}\n")?;
        acts.iter().try_for_each(|(at, act)| writeln!(f, "{at} {act}"))
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = Self { seed: 0, nodes: 3, blobs: 0, papers: 0, end: 0, acts: Vec::new() };
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            if !words.is_empty() {
                plan.take(&words).ok_or_else(|| format!("line {}: '{}' means nothing here", at + 1, line.trim()))?;
            }
        }
        if !(3..=7).contains(&plan.nodes) {
            return Err(format!("a world has 3 to 7 nodes, not {}", plan.nodes));
        }
        plan.acts.sort_by_key(|(at, _)| *at);
        Ok(plan)
    }
}

impl Plan {
    fn take(&mut self, words: &[&str]) -> Option<()> {
        match words {
            ["seed", n] => self.seed = n.parse().ok()?,
            ["nodes", n] => self.nodes = n.parse().ok()?,
            ["blobs", n] => self.blobs = n.parse().ok()?,
            ["papers", n] => self.papers = n.parse().ok()?,
            ["end", n] => self.end = n.parse().ok()?,
            [at, word, numbers @ ..] => {
                let numbers: Option<Vec<i64>> = numbers.iter().map(|n| n.parse().ok()).collect();
                self.acts.push((at.parse().ok()?, Act::from_parts(word, &numbers?)?));
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_is_read_back_as_it_was_written() {
        for seed in 0..300 {
            for plan in [Plan::of(seed), Plan::small(seed), Plan::with_blobs(seed)] {
                assert_eq!(plan.to_string().parse(), Ok(plan));
            }
        }
    }

    #[test]
    fn every_kind_of_fault_is_drawn() {
        let drawn: std::collections::BTreeSet<&str> = (0..300).flat_map(|seed| Plan::of(seed).acts).map(|(_, act)| act.word()).collect();
        assert_eq!(drawn.len(), 34, "{drawn:?}");
    }

    #[test]
    fn remarks_are_passed_over_and_mistakes_are_named() {
        let text = "# found on a Sunday\nseed 4\n\nnodes 5 # all of them\n70 kill 2\n";
        let plan = Plan { seed: 4, nodes: 5, blobs: 0, papers: 0, end: 0, acts: vec![(70, Act::Kill(2))] };
        assert_eq!(text.parse(), Ok(plan));
        for wrong in ["seed x", "70 kill", "70 kill 1 2", "70 hug 1", "x kill 1", "70", "70 kill -1", "70 die-at 1 2 3"] {
            let error = format!("seed 1\n{wrong}\n").parse::<Plan>().unwrap_err();
            assert_eq!(error, format!("line 2: '{wrong}' means nothing here"));
        }
        assert!("nodes 2".parse::<Plan>().is_err());
    }
}
