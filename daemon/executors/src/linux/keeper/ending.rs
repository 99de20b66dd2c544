//! How attempts end: roots exit, trees are killed, orphans are found and reaped.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    os::fd::AsFd,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};
use swarm_proto::ledger::End;

use super::{
    super::{
        boot_now,
        protocol::Key,
        task_user::acting_as,
        tree::{Process, Table},
    },
    state::Keeper,
};
use crate::Boot;

/// `__WNOTHREAD` of wait(2): children of the calling thread only.
const OWN_THREAD: u32 = 0x2000_0000;
/// Between two looks at a tree that is being killed: the first pause, and the longest.
const ROUND: Duration = Duration::from_millis(1);
const LONGEST_ROUND: Duration = Duration::from_millis(200);

/// What is on its way out.
#[derive(Default)]
pub(super) struct Endings {
    /// Root exited; its zombie is kept until the tree is gone, so that its pid means nobody else.
    exited: BTreeSet<Key>,
    /// Asked to end by SIGTERM; SIGKILL follows then.
    terminating: BTreeMap<Key, Boot>,
    /// SIGKILL until nothing is left.
    forced: BTreeSet<Key>,
    /// Killed since the last round: to be signalled.
    fresh: BTreeSet<Key>,
    /// Orphans that nothing places, by pid and start, with the attempts that were there when they were first seen.
    strays: BTreeMap<(i32, u64), BTreeSet<Key>>,
    has_orphans: bool,
    pause: Duration,
    next: Boot,
}

impl Endings {
    pub(super) fn kill(&mut self, key: Key, grace: Option<Boot>) {
        match grace {
            Some(until) if !self.forced.contains(&key) && !self.exited.contains(&key) => {
                if let Entry::Vacant(free) = self.terminating.entry(key) {
                    free.insert(until);
                    self.fresh.insert(key);
                }
            }
            Some(_) => {}
            None => {
                self.terminating.remove(&key);
                self.forced.insert(key);
                self.fresh.insert(key);
            }
        }
        self.hurry();
    }

    /// Whether its root has ended by itself or by our doing.
    pub(super) fn has_exited(&self, key: Key) -> bool {
        self.exited.contains(&key)
    }

    fn hurry(&mut self) {
        self.pause = ROUND;
        self.next = Boot::ZERO;
    }

    /// Orphans without an attempt that are still to be killed.
    pub(super) fn has_strays(&self) -> bool {
        self.has_orphans
    }

    fn has_work(&self) -> bool {
        !self.exited.is_empty() || !self.forced.is_empty() || !self.fresh.is_empty()
    }

    /// When the next round is due.
    pub(super) fn due(&self) -> Option<Boot> {
        let round = (self.has_work() || self.has_orphans).then_some(self.next);
        round.into_iter().chain(self.terminating.values().copied()).min()
    }

    fn forget(&mut self, key: Key) {
        self.exited.remove(&key);
        self.terminating.remove(&key);
        self.forced.remove(&key);
        self.fresh.remove(&key);
    }
}

/// Reaps orphans that are dead. Whether one is alive.
fn reap_orphans() -> bool {
    let options = WaitIdOptions::from_bits_retain(OWN_THREAD) | WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    loop {
        match waitid(WaitId::All, options) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// To whom a process below the keeper belongs.
enum Owner {
    Attempt(Key),
    /// One that has ended.
    Gone,
    Unknown,
}

type Trees = BTreeMap<Key, Vec<Process>>;

/// A process, and whether its attempt is known to have ended.
type Unplaced = (Process, bool);

impl Keeper {
    /// What it left in its own group dies with it, unless it is being given time.
    pub(super) fn root_has_exited(&mut self, key: Key) {
        let Some(attempt) = self.running.get(&key) else { return };
        if let (false, Some(group)) = (self.endings.terminating.contains_key(&key), Pid::from_raw(attempt.pid)) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.endings.exited.insert(key);
        self.endings.hurry();
    }

    /// One round: signals what must go, concludes what is gone.
    pub(super) fn end_what_is_gone(&mut self) {
        let now = boot_now();
        let late: Vec<Key> = self.endings.terminating.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key).collect();
        late.into_iter().for_each(|key| self.endings.kill(key, None));
        let is_idle = !self.endings.has_work() && !self.endings.has_orphans;
        if is_idle || now < self.endings.next {
            return;
        }
        let is_alone = !reap_orphans();
        if is_alone && self.endings.fresh.is_empty() && self.endings.forced.is_subset(&self.endings.exited) {
            for key in std::mem::take(&mut self.endings.exited) {
                self.conclude_root(key);
            }
        } else {
            self.round();
        }
        let is_empty = self.starting.is_empty() && self.running.is_empty();
        self.endings.has_orphans = is_empty && reap_orphans();
        self.endings.next = boot_now() + self.endings.pause;
        self.endings.pause = (self.endings.pause * 2).clamp(ROUND, LONGEST_ROUND);
    }

    fn round(&mut self) {
        // what is asked of /proc is told to whom the processes belong
        let (trees, unplaced) = acting_as(self.spawner.user(), || self.place(&Table::scan()));
        let empty = Vec::new();
        let of = |key: &Key| trees.get(key).unwrap_or(&empty);
        for key in std::mem::take(&mut self.endings.fresh) {
            if self.endings.terminating.contains_key(&key) {
                of(&key).iter().for_each(|process| process.signal(Signal::TERM));
                of(&key).iter().for_each(|process| process.signal(Signal::CONT));
            }
        }
        let endings = &self.endings;
        let doomed = endings.forced.union(&endings.exited).filter(|key| !endings.terminating.contains_key(key));
        doomed.flat_map(of).for_each(|process| process.signal(Signal::KILL));
        let gone: Vec<Key> = self.endings.exited.iter().filter(|key| of(key).is_empty()).copied().collect();
        for key in gone {
            self.conclude_root(key);
        }
        self.judge(unplaced);
    }

    fn conclude_root(&mut self, key: Key) {
        self.endings.forget(key);
        let Some(attempt) = self.running.get(&key) else { return };
        let status = waitid(WaitId::PidFd(attempt.pidfd.as_fd()), WaitIdOptions::EXITED);
        let end = match status {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(0), _) => End::Succeeded,
                (Some(code), _) => End::Exit(code),
                (None, Some(signal)) => End::Signal(signal),
                (None, None) => End::Lost,
            },
            Ok(None) | Err(_) => End::Lost,
        };
        self.conclude(key, end);
    }

    /// Whose every process below the keeper is; and those that are nobody's for sure.
    fn place(&self, table: &Table) -> (Trees, Vec<Unplaced>) {
        let me = std::process::id().cast_signed();
        let roots: Vec<(i32, Key)> = self.running.iter().map(|(key, attempt)| (attempt.pid, *key)).collect();
        let mut owners: BTreeMap<i32, Owner> = BTreeMap::new();
        let mut trees = Trees::new();
        let mut unplaced = Vec::new();
        for (process, branch) in table.below(me) {
            match owners.entry(branch.pid).or_insert_with(|| self.owner(&branch, &roots)) {
                Owner::Attempt(key) => trees.entry(*key).or_default().push(process),
                Owner::Gone => unplaced.push((process, true)),
                Owner::Unknown => unplaced.push((process, false)),
            }
        }
        (trees, unplaced)
    }

    fn owner(&self, branch: &Process, roots: &[(i32, Key)]) -> Owner {
        if let Some((_, key)) = roots.iter().find(|(root, _)| branch.is_grouped_by(*root)) {
            return Owner::Attempt(*key);
        }
        match branch.mark() {
            Some(key) if self.running.contains_key(&key) || self.starting.contains_key(&key) => Owner::Attempt(key),
            Some(_) => Owner::Gone,
            None => Owner::Unknown,
        }
    }

    /// A process of an ended attempt dies; one that nothing places dies with the last attempt that can have made it. (A process
    /// that is just being made looks unplaced too; its attempt is starting then.)
    fn judge(&mut self, unplaced: Vec<Unplaced>) {
        let alive = self.alive();
        let mut strays = BTreeMap::new();
        for (process, is_of_gone) in unplaced {
            let id = (process.pid, process.started);
            let suspects = self.endings.strays.remove(&id).unwrap_or_else(|| alive.clone());
            if is_of_gone || suspects.is_disjoint(&alive) {
                process.signal(Signal::KILL);
            }
            strays.insert(id, suspects);
        }
        self.endings.strays = strays;
    }
}
