//! A simulated keeper: what runs tasks on a host and outlives its daemon, but not a power cut.
//!
//! It keeps the real one's contract: at its lease's end it kills what must not outlive it, and everything when no daemon is there;
//! outcomes stay until they are forgotten; a new daemon is handed what runs and what ended. What an attempt does is told by its argv
//! (`sim MILLISECONDS WORD`) and the world's seed. All times are those of the simulation; a host's boot clock begins at its power-on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use swarm_core::attempts::must_stop;
use swarm_executors::{Boot, Events, ExecEvent, Executor, Recovered, Start};
use swarm_proto::{
    Fence, TaskId, UnixMillis,
    ledger::{End, Outcome, Output},
    spec::{JobSpec, Work},
};

use super::world::{World, mix};

/// What one attempt is.
pub(super) type Key = (TaskId, Fence);

/// Until a leader has granted a lease.
const DEFAULT_LEASE: Duration = Duration::from_secs(3);
/// From the order to run, or to end, to when it is so.
const LATENCY: Duration = Duration::from_millis(3);

/// Something that everybody's invariants want to know.
pub(super) enum Seen {
    Started(Key, Arc<JobSpec>),
    Ended(Key, End),
    /// Gone with its host.
    Vanished(Key),
}

struct Attempt {
    spec: Arc<JobSpec>,
    started: Duration,
    is_told: bool,
    ends: Duration,
    end: End,
}

pub(super) struct Keeper {
    seed: u64,
    running: BTreeMap<Key, Attempt>,
    ended: BTreeMap<Key, Recovered>,
    lease_until: Duration,
    is_lease_over: bool,
    /// The daemon that is there.
    events: Option<Events>,
    /// When the host was switched on.
    pub(super) power_on: Duration,
    pub(super) seen: Vec<Seen>,
}

impl Keeper {
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            seed,
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            lease_until: DEFAULT_LEASE,
            is_lease_over: false,
            events: None,
            power_on: Duration::ZERO,
            seen: Vec::new(),
        }
    }

    fn boot(&self, at: Duration) -> Boot {
        at.saturating_sub(self.power_on)
    }

    /// A daemon is there, and is handed everything.
    pub(super) fn greet(&mut self, events: Events) -> Vec<Recovered> {
        self.events = Some(events);
        let running = self.running.iter().map(|((task, fence), attempt)| Recovered {
            task: *task,
            fence: *fence,
            spec: attempt.spec.clone(),
            started: wall(attempt.started),
            started_boot: self.boot(attempt.started),
            lease_until: self.boot(self.lease_until),
            outcome: None,
        });
        let ended = self.ended.values().map(|old| Recovered { lease_until: self.boot(self.lease_until), ..old.clone() });
        running.chain(ended).collect()
    }

    /// The daemon is gone, the host is not.
    pub(super) fn daemon_is_gone(&mut self, now: Duration) {
        self.hang_up();
        if self.is_lease_over {
            self.kill_all(now, |_| true);
        }
    }

    /// Nobody is told anything any more.
    pub(super) fn hang_up(&mut self) {
        self.events = None;
    }

    /// Whether anything runs here.
    pub(super) fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    /// Nothing of what ran is left.
    pub(super) fn cut_power(&mut self, now: Duration) {
        self.events = None;
        self.ended.clear();
        let gone = std::mem::take(&mut self.running);
        self.seen.extend(gone.into_keys().map(Seen::Vanished));
        (self.power_on, self.lease_until, self.is_lease_over) = (now, now + DEFAULT_LEASE, false);
    }

    pub(super) fn start(&mut self, start: Start, now: Duration) {
        let key = (start.task, start.fence);
        if self.running.contains_key(&key) || self.ended.contains_key(&key) {
            return;
        }
        if must_stop(&start.spec) && now >= self.lease_until {
            self.finish(key, &start.spec, now, now, End::Lost);
            return;
        }
        let (span, end) = fate(self.seed, key, &start.spec.work);
        self.seen.push(Seen::Started(key, start.spec.clone()));
        self.running.insert(key, Attempt { spec: start.spec, started: now, is_told: false, ends: now + LATENCY + span, end });
    }

    pub(super) fn kill(&mut self, key: Key, end: End, now: Duration) {
        if let Some(attempt) = self.running.get_mut(&key)
            && now + LATENCY < attempt.ends
        {
            (attempt.ends, attempt.end) = (now + LATENCY, end);
        }
    }

    pub(super) fn lease_until(&mut self, until: Boot) {
        let until = self.power_on + until;
        if until > self.lease_until {
            (self.lease_until, self.is_lease_over) = (until, false);
        }
    }

    pub(super) fn forget(&mut self, key: Key) {
        self.ended.remove(&key);
    }

    fn kill_all(&mut self, now: Duration, which: impl Fn(&JobSpec) -> bool) {
        for attempt in self.running.values_mut().filter(|attempt| which(&attempt.spec)) {
            (attempt.ends, attempt.end) = (now, End::Lost);
        }
    }

    /// Lets everything happen that is due.
    pub(super) fn advance(&mut self, now: Duration) {
        if !self.is_lease_over && now >= self.lease_until {
            self.is_lease_over = true;
            let is_alone = self.events.is_none();
            self.kill_all(now, |spec| is_alone || must_stop(spec));
        }
        for ((task, fence), attempt) in &mut self.running {
            if !attempt.is_told && attempt.started + LATENCY <= now {
                attempt.is_told = true;
                if let Some(events) = &self.events {
                    let _ = events.send(ExecEvent::Started { task: *task, fence: *fence, at: wall(attempt.started) });
                }
            }
        }
        let due: Vec<Key> = self.running.iter().filter(|(_, attempt)| attempt.ends <= now).map(|(key, _)| *key).collect();
        for key in due {
            if let Some(attempt) = self.running.remove(&key) {
                self.seen.push(Seen::Ended(key, attempt.end.clone()));
                self.finish(key, &attempt.spec, attempt.started, now, attempt.end);
            }
        }
    }

    fn finish(&mut self, (task, fence): Key, spec: &Arc<JobSpec>, started: Duration, now: Duration, end: End) {
        let stdout = written((task, fence));
        let output = Output { stdout_len: stdout.len() as u64, stdout: stdout.into(), ..Output::default() };
        let outcome = Outcome { end, started: wall(started), ended: wall(now), output: Some(Box::new(output)) };
        if let Some(events) = &self.events {
            // without a listener it is found at the next greeting
            let _ = events.send(ExecEvent::Ended { task, fence, outcome: outcome.clone() });
        }
        let (spec, started_boot, lease_until) = (spec.clone(), self.boot(started), Boot::ZERO);
        let kept = Recovered { task, fence, spec, started: outcome.started, started_boot, lease_until, outcome: Some(outcome) };
        self.ended.insert((task, fence), kept);
    }
}

/// What an attempt writes to its standard output.
pub(super) fn written((task, fence): Key) -> String {
    format!("{task} {}", fence.attempt.0)
}

fn wall(at: Duration) -> UnixMillis {
    UnixMillis(u64::try_from(at.as_millis()).unwrap_or(u64::MAX))
}

/// How long an attempt takes and how it ends if nobody ends it.
fn fate(seed: u64, (task, fence): Key, work: &Work) -> (Duration, End) {
    let Work::Exec(exec) = work else { return (Duration::ZERO, End::Succeeded) };
    let ms = exec.argv.get(1).and_then(|ms| ms.parse().ok()).unwrap_or(0);
    let chance = mix(&[seed, task.job.0, u64::from(task.index), u64::from(fence.attempt.0)]);
    let end = match exec.argv.get(2).map(String::as_str) {
        Some("fails") => End::Exit(3),
        Some("crashes") => End::Signal(11),
        Some("flaky") if chance.is_multiple_of(2) => End::Exit(1),
        _ => End::Succeeded,
    };
    (Duration::from_millis(ms), end)
}

/// The daemon's side of a host's keeper.
pub(super) struct SimExec {
    pub(super) world: World,
    pub(super) host: u64,
}

impl Executor for SimExec {
    fn name(&self) -> &'static str {
        "exec"
    }

    fn start(&self, start: Start) {
        self.world.with_keeper(self.host, |keeper, now| keeper.start(start, now));
    }

    fn kill(&self, task: TaskId, fence: Fence, end: End) {
        self.world.with_keeper(self.host, |keeper, now| keeper.kill((task, fence), end, now));
    }

    fn lease_until(&self, until: Boot) {
        self.world.with_keeper(self.host, |keeper, _| keeper.lease_until(until));
    }

    fn forget(&self, task: TaskId, fence: Fence) {
        self.world.with_keeper(self.host, |keeper, _| keeper.forget((task, fence)));
    }
}
