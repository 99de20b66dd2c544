//! Who descends from a task, as /proc tells it, and how to end all of them.
//!
//! A process belongs to an attempt when it is in the process group or session that the attempt's root leads, when its
//! environment carries the attempt's marks, or when its parent belongs. A task that calls `setsid` and forks twice keeps its
//! environment; one that also scrubs that is a stray: nobody's for sure, and it dies with the last attempt that can have made it.
//!
//! Cost: one scan reads one small file a process of the host (about 10 us each), the environment only of those that nothing
//! else places. Scans happen while something is being killed or an orphan is known to exist, never on the plain path.

use std::{collections::BTreeMap, fs, io::Read};

use rustix::process::{Pid, Signal, kill_process};
use swarm_proto::{Fence, TaskId};

use super::{
    protocol::Key,
    task_user::{TaskUser, acting_as},
};

/// The variables that mark every process of an attempt.
pub(crate) const TASK_ID: &str = "SWARM_TASK_ID";
pub(crate) const FENCE: &str = "SWARM_FENCE";
pub(crate) const KEEPER: &str = "SWARM_KEEPER";

/// Most bytes of an environment that are looked at: what a spec may ask for, several times over.
const ENVIRON: u64 = 2 << 20;

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    group: i32,
    session: i32,
    is_dead: bool,
    /// In clock ticks since boot; with the pid it names a process for good.
    pub(crate) started: u64,
}

/// All processes of the host at one moment, more or less.
pub(crate) struct Table {
    processes: BTreeMap<i32, Process>,
}

pub(crate) fn parse(pid: i32, stat: &str) -> Option<Process> {
    // the name is in parentheses and may hold anything
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse::<i32>().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    let started = fields.nth(15)?.parse().ok()?;
    Some(Process { pid, parent, group, session, is_dead: matches!(state, "Z" | "X" | "x"), started })
}

impl Table {
    pub(crate) fn scan() -> Self {
        let mut processes = BTreeMap::new();
        let mut text = String::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            text.clear();
            // it may end while we look
            let read = fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read_to_string(&mut text));
            if let (Ok(_), Some(process)) = (read, parse(pid, &text)) {
                processes.insert(pid, process);
            }
        }
        Self { processes }
    }

    /// Live processes that descend from `ancestor`, by pid, each with its chain's child of `ancestor`.
    pub(crate) fn below(&self, ancestor: i32) -> Vec<(Process, Process)> {
        self.processes.values().filter(|p| !p.is_dead).filter_map(|p| Some((*p, self.branch(*p, ancestor)?))).collect()
    }

    fn branch(&self, process: Process, ancestor: i32) -> Option<Process> {
        let mut at = process;
        // the table is no snapshot: a chain may even be a circle
        for _ in 0..self.processes.len() {
            if at.parent == ancestor {
                return Some(at);
            }
            at = *self.processes.get(&at.parent)?;
        }
        None
    }

    /// Live processes whose environment says that this keeper made them.
    fn marked(&self, keeper: &str) -> Vec<Process> {
        let me = std::process::id().cast_signed();
        let mark = format!("{KEEPER}={keeper}");
        let is_ours = |p: &&Process| !p.is_dead && p.pid != me && has_line(&environ(p.pid), mark.as_bytes());
        self.processes.values().filter(is_ours).copied().collect()
    }
}

impl Process {
    /// Whether it stands in the group or session that `root` leads.
    pub(crate) const fn is_grouped_by(&self, root: i32) -> bool {
        self.pid == root || self.group == root || self.session == root
    }

    /// The attempt that its environment names.
    pub(crate) fn mark(&self) -> Option<Key> {
        let environ = environ(self.pid);
        let task: TaskId = value(&environ, TASK_ID)?.parse().ok()?;
        let fence: Fence = value(&environ, FENCE)?.parse().ok()?;
        Some((task, fence))
    }

    /// One that has just ended, or is not ours to signal, is left alone.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Empty for a process that is gone or somebody else's.
fn environ(pid: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(format!("/proc/{pid}/environ")) {
        let _ = file.take(ENVIRON).read_to_end(&mut bytes);
    }
    bytes
}

fn has_line(environ: &[u8], line: &[u8]) -> bool {
    environ.split(|byte| *byte == 0).any(|of| of == line)
}

fn value<'a>(environ: &'a [u8], name: &str) -> Option<&'a str> {
    let line = environ.split(|byte| *byte == 0).find_map(|of| of.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    std::str::from_utf8(line).ok()
}

/// Kills what a keeper that is no more has left behind; says how many processes that were. To be called while no keeper owns
/// the directory that `id` belongs to. Those that cannot die (uninterruptible) are given up after a while. It looks as `user`: marks
/// can be read by whom the process belongs to, and by root.
pub(crate) fn kill_orphans(id: &str, user: Option<&TaskUser>) -> usize {
    let mut killed = std::collections::BTreeSet::new();
    for round in 0..200u64 {
        let (table, marked) = acting_as(user, || {
            let table = Table::scan();
            let marked = table.marked(id);
            (table, marked)
        });
        if marked.is_empty() {
            break;
        }
        // descendants first: they may have scrubbed their environment
        for root in &marked {
            for (process, _) in table.below(root.pid) {
                process.signal(Signal::KILL);
                killed.insert((process.pid, process.started));
            }
            root.signal(Signal::KILL);
            killed.insert((root.pid, root.started));
        }
        std::thread::sleep(std::time::Duration::from_millis((round + 1).min(20)));
    }
    killed.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_from_its_stat_line() {
        let line = "77 (a) b (c) S 5 6 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 12345 9 9";
        let want = Process { pid: 77, parent: 5, group: 6, session: 7, is_dead: false, started: 12_345 };
        assert_eq!(parse(77, line), Some(want));
        assert_eq!(parse(77, "77 (a) Z 5 6 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 1").map(|p| p.is_dead), Some(true));
        assert_eq!(parse(77, "77 (a"), None);
        assert_eq!(parse(77, "77 (a) S 5"), None);
    }

    #[test]
    fn this_process_is_below_its_parent() {
        let table = Table::scan();
        let me = std::process::id().cast_signed();
        let parent = table.processes[&me].parent;
        assert!(table.below(parent).iter().any(|(process, branch)| process.pid == me && branch.pid == me));
        assert!(table.below(me).is_empty());
    }

    #[test]
    fn marks_are_whole_variables() {
        let environ = b"A=1\0SWARM_TASK_ID=j1.2\0SWARM_FENCE=3.4\0XSWARM_KEEPER=ab\0";
        assert_eq!(value(environ, TASK_ID), Some("j1.2"));
        assert_eq!(value(environ, "SWARM_TASK"), None);
        assert!(!has_line(environ, b"SWARM_KEEPER=ab"));
    }
}
