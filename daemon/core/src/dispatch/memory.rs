//! Jobs that live in this leader's memory alone ([`Durability::Async`]): taken, granted and ended here at once, written when they have ended.
//!
//! ```text
//!  handle_command --> waiting --\                                            /--> Answer, Grants, Cancel
//!  Outcomes ------------------> poll_memory --> a ledger of their own, at once --> ended --> Record in the next entry of the log
//!  absence judged ------------/       ^
//!                                numbers <-- Reserve, some thousands at a time
//! ```
//! They keep to the same rules as all others, because the same code serves them: the same queue, rooms and judgement, and a second
//! [`Ledger`] of the same kind. What differs is that nothing waits for a disk, and that all of it is gone with this leader: the next one
//! does not know of them, and has their attempts killed. (The next desk of the same term takes them over: [`Dispatch::into_memory`].)
//! Their numbers come from the log, so that no number is ever given twice; and the log comes to know of each job when it has ended, so that
//! it is found and listed like any other from then on. What has ended stays here until then, and counts among what there is room for.
//!
//! **Not without a majority.** A leader that is cut off would go on taking such jobs, since it asks nobody. So they are served only while a
//! majority has confirmed this leader within the time of a lease; otherwise they wait, and a round is begun.
//!
//! **In turn with those of the log.** When room comes for which both wait, it goes to the side that did not get the last.
//!
//! A grant's fence names the last entry applied, as if it stood beside it. So it is older than whatever the log grants later, and a worker
//! that says up to where it heard grants says so for both; if it heard some of those beside one entry and not others, these are lost and
//! tried again.
//!
//! Not guarded against: two submissions of one key, of different durability, one of which is on its way when the other one comes (into the
//! log, or waiting here). Both are then accepted, where otherwise the second would be refused.

use std::{
    collections::VecDeque,
    ops::Range,
    time::{Duration, Instant},
};

use swarm_proto::{
    Cursor, JobId, NodeId, UnixMillis,
    ledger::{Applied, Batch, Command, Finish, What},
    limits,
    spec::Durability,
};

use super::{
    Dispatch, Phase,
    batch::{Draft, ENTRY, RECORD_BYTES, Sent},
    turns::Turns,
    worker::Key,
};
use crate::ledger::Ledger;

/// Commands, outcomes and losses that are served at once, each.
const PASS: usize = 1_024;
/// What has ended waits so long for an entry that is made anyway, unless it is this much: an entry of its own for each would take the
/// cores and the disk from the next job, which waits for neither.
const RECORD_AFTER: Duration = Duration::from_millis(20);
const RECORD_AT: usize = 256;
/// When the log had no room for what has ended, it is tried again after this.
const RECORD_AGAIN: Duration = Duration::from_secs(1);

/// See the head of the module.
#[derive(Debug)]
pub struct Memory {
    /// Out of here only while it is changed.
    ledger: Option<Box<Ledger>>,
    /// Numbers that are not given yet; the ledger counts within the first range.
    numbers: VecDeque<Range<u64>>,
    is_asking: bool,
    /// Members, or what is set, changed in the log since this one followed it.
    pub(super) is_behind: bool,
    submissions: Turns,
    cancels: VecDeque<(u64, Command)>,
    pub(super) outcomes: VecDeque<(NodeId, Finish)>,
    pub(super) losses: VecDeque<(NodeId, Key)>,
    /// Jobs that have ended and are to be recorded, in the order of their ends, which is that of the ledger's.
    ended: VecDeque<JobId>,
    /// When the first of them is to be recorded.
    record_at: Option<Instant>,
    /// The log had no room for the last that was to be recorded.
    is_log_full: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            ledger: Some(Box::new(Ledger::memory())),
            numbers: VecDeque::new(),
            is_asking: false,
            is_behind: true,
            submissions: Turns::default(),
            cancels: VecDeque::new(),
            outcomes: VecDeque::new(),
            losses: VecDeque::new(),
            ended: VecDeque::new(),
            record_at: None,
            is_log_full: false,
        }
    }
}

impl Memory {
    /// `None` while they are served.
    pub(super) fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_deref()
    }

    /// Whether it is one of these jobs; false for all while they are served.
    pub(super) fn has(&self, job: JobId) -> bool {
        self.ledger().is_some_and(|ledger| ledger.job(job).is_some())
    }

    /// The ledger that knows the job: this one, or that of the log; the latter for all while these are served.
    pub(super) fn book<'a>(&'a self, log: &'a Ledger, job: JobId) -> &'a Ledger {
        self.ledger().filter(|ledger| ledger.job(job).is_some()).unwrap_or(log)
    }

    /// Whether the command is for these jobs, as far as the log's ledger does not know better.
    fn is_mine(&self, command: &Command, log: &Ledger) -> bool {
        match command {
            Command::Submit(submit) => {
                let is_known = || self.ledger.as_ref().is_some_and(|ledger| ledger.is_known(submit));
                if submit.spec.durability == Durability::Async { !log.is_known(submit) } else { is_known() }
            }
            Command::CancelJob { job } => self.has(*job),
            Command::CancelTask { task } => self.has(task.job),
            Command::Lead { .. }
            | Command::Assign(_)
            | Command::Finish(_)
            | Command::Lose { .. }
            | Command::Admit(_)
            | Command::Schedule { .. }
            | Command::Leave { .. }
            | Command::Raise { .. }
            | Command::Identity(_)
            | Command::Set(_)
            | Command::Reserve { .. }
            | Command::Record(_) => false,
        }
    }

    /// Whether nothing came, and no job is open.
    fn is_idle(&self) -> bool {
        let is_empty = self.submissions.is_empty() && self.cancels.is_empty() && self.outcomes.is_empty() && self.losses.is_empty();
        is_empty && self.ledger.as_ref().is_none_or(|ledger| ledger.open_job_count() == 0)
    }

    /// Numbers that were left when jobs were last served.
    fn left(&self) -> u64 {
        self.numbers.iter().map(|range| range.end - range.start).sum()
    }
}

impl Dispatch {
    /// Takes the command if it is for jobs in memory.
    pub(super) fn keep_in_memory(&mut self, source: u64, ticket: u64, command: Command, log: &Ledger) -> Option<Command> {
        if !self.memory.is_mine(&command, log) {
            return Some(command);
        }
        if matches!(command, Command::Submit(_)) {
            self.memory.submissions.push(source, ticket, command);
        } else {
            // these wait for no number
            self.memory.cancels.push_back((ticket, command));
        }
        None
    }

    /// The ledger that knows the job: that of this leader's memory, or that of the log, `log`.
    pub fn book<'a>(&'a self, log: &'a Ledger, job: JobId) -> &'a Ledger {
        self.memory.book(log, job)
    }

    /// Jobs that live in this leader's memory, those included that have ended and are not in the log yet.
    ///
    /// # Panics
    /// Never: it is away only inside of [`Dispatch::poll_memory`].
    pub fn memory(&self) -> &Ledger {
        self.memory.ledger().expect("only away while it is served")
    }

    /// Judges whose time has come, and serves the jobs that live in this leader's memory as far as there is anything to do: true if there
    /// was, and more may be left. To be called until it says no, before each [`Dispatch::poll_batch`] and after it, which may have left
    /// room; what came true are the events of [`Dispatch::memory`] until the next call. `log` is the ledger of the log.
    pub fn poll_memory(&mut self, log: &Ledger, at: UnixMillis, now: Instant) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        self.judge_due(log, now);
        // what was cancelled leaves the queue when its turn comes
        if self.memory.is_idle() && self.queue.next(Durability::Async).is_none() {
            return false;
        }
        if now > self.confirmed + self.settings.lease {
            self.leases.want();
            self.begin_round(now);
            return false;
        }
        let Some(mut ledger) = self.memory.ledger.take() else { return false };
        if std::mem::take(&mut self.memory.is_behind) {
            ledger.follow(log);
        }
        ledger.forget_events();
        let mut draft = Draft::default();
        let has_moved = self.draft_from_memory(&mut draft, &mut ledger, log);
        self.wake();
        let is_theirs = self.is_logs_turn && self.queue.next(Durability::Majority).is_some();
        if !is_theirs {
            let before = draft.commands.len();
            self.draft_grants(&mut draft, Durability::Async, &ledger, now);
            self.is_logs_turn |= draft.commands.len() > before;
        }
        let has_work = !draft.commands.is_empty();
        if has_work {
            let batch = Batch { at, commands: draft.commands };
            let applied = ledger.apply_beside(self.applied, &batch);
            self.settle_entry(self.applied, draft.entry, applied, &ledger, now);
            self.note_ended(&ledger, now);
        }
        self.memory.ledger = Some(ledger);
        has_work || has_moved
    }

    /// Whether any submission turned out to be one for the log.
    fn draft_from_memory(&mut self, draft: &mut Draft, ledger: &mut Ledger, log: &Ledger) -> bool {
        for (node, finish) in take(&mut self.memory.outcomes) {
            let sent = Sent::Finish(node, (finish.task, finish.fence));
            draft.push(Command::Finish(finish), 0, sent);
        }
        for (node, key) in take(&mut self.memory.losses) {
            self.draft_loss(draft, node, key);
        }
        for (ticket, command) in take(&mut self.memory.cancels) {
            self.draft_command(draft, ticket, command, 0);
        }
        let mut has_moved = false;
        for _ in 0..self.memory.numbers_now(ledger).min(PASS as u64) {
            let Some((source, (ticket, command))) = self.memory.submissions.pop_front() else { break };
            // it may have come to the log since it came here: what the leader before had recorded is applied now
            if matches!(&command, Command::Submit(submit) if log.is_known(submit)) {
                self.commands.push(source, ticket, command);
                has_moved = true;
                continue;
            }
            self.draft_command(draft, ticket, command, 0);
        }
        has_moved
    }

    fn note_ended(&mut self, ledger: &Ledger, now: Instant) {
        for event in ledger.events_after(Cursor::default(), usize::MAX) {
            if let What::JobEnded { job, .. } = event.what {
                self.memory.ended.push_back(job);
                self.memory.record_at.get_or_insert(now + RECORD_AFTER);
            }
        }
    }

    /// When jobs that have ended are to be recorded, if any are.
    pub(super) const fn record_at(&self) -> Option<Instant> {
        self.memory.record_at
    }

    /// What the next entry of the log has to say of jobs in memory: those that have ended, and that more numbers are wanted.
    pub(super) fn draft_records(&mut self, draft: &mut Draft, each: usize, now: Instant) {
        let is_wanted = !self.memory.submissions.is_empty() || !self.memory.numbers.is_empty();
        if is_wanted && !self.memory.is_asking && self.memory.left() <= u64::from(limits::ASYNC_NUMBERS / 2) {
            self.memory.is_asking = true;
            draft.push(Command::Reserve { count: limits::ASYNC_NUMBERS }, super::size::SMALL, Sent::Reserve);
        }
        let is_entry_made = !draft.commands.is_empty() || !self.commands.is_empty();
        let is_early = !self.memory.is_log_full && (is_entry_made || self.memory.ended.len() >= RECORD_AT);
        if !is_early && self.memory.record_at.is_none_or(|at| now < at) {
            return;
        }
        let most = draft.commands.len() + each;
        let mut room = ENTRY;
        while draft.commands.len() < most
            && let Some(job) = self.memory.ended.front()
        {
            let job = *job;
            let Some(recorded) = self.memory().recorded(job) else {
                self.memory.ended.pop_front();
                continue;
            };
            let command = Command::Record(Box::new(recorded));
            let bytes = super::size::command(&command);
            if draft.bytes + bytes > room {
                break;
            }
            self.memory.ended.pop_front();
            draft.push(command, bytes, Sent::Record(job));
            room = RECORD_BYTES;
        }
        self.memory.record_at = (!self.memory.ended.is_empty()).then_some(now);
    }

    pub(super) fn reserved(&mut self, applied: &Applied) {
        self.memory.is_asking = false;
        if let Applied::Reserved { first } = applied {
            self.memory.numbers.push_back(first.0..first.0 + u64::from(limits::ASYNC_NUMBERS));
        }
    }

    /// The log has the job now, or will never have it.
    pub(super) fn recorded(&mut self, job: JobId) {
        self.memory.is_log_full = false;
        if let Some(ledger) = &mut self.memory.ledger {
            ledger.forget_recorded(job);
        }
    }

    /// The log had no room for these. They stay, and are tried again.
    pub(super) fn not_recorded(&mut self, jobs: Vec<JobId>, now: Instant) {
        if !jobs.is_empty() {
            self.memory.ended.extend(jobs);
            self.memory.is_log_full = true;
            self.memory.record_at = Some(now + RECORD_AGAIN);
        }
    }

    /// Tickets of those whose commands wait; nothing waits then.
    pub(super) fn drain_memory(&mut self) -> Vec<u64> {
        let cancels = std::mem::take(&mut self.memory.cancels).into_iter().map(|(ticket, _)| ticket);
        self.memory.submissions.drain().chain(cancels).collect()
    }

    /// What the next desk of the same term goes on with: [`Dispatch::go_on_with`].
    pub fn into_memory(self) -> Memory {
        let Memory { ledger, numbers, outcomes, .. } = self.memory;
        // which of those that have ended were recorded meanwhile nobody knows: the log says it, and does not take them twice
        let ended: VecDeque<JobId> = ledger.iter().flat_map(|ledger| ledger.ended_jobs()).collect();
        let record_at = (!ended.is_empty()).then_some(self.began);
        Memory { ledger, numbers, outcomes, ended, record_at, ..Memory::default() }
    }
}

impl Memory {
    /// Goes on to the next range of numbers where one is used up; how many are left in the present one.
    fn numbers_now(&mut self, ledger: &mut Ledger) -> u64 {
        if let Some(range) = self.numbers.front_mut() {
            range.start = range.start.max(ledger.next_number().0.min(range.end));
            if range.is_empty() {
                self.numbers.pop_front();
            }
        }
        let Some(range) = self.numbers.front() else { return 0 };
        if !range.contains(&ledger.next_number().0) {
            ledger.number_from(JobId(range.start));
        }
        range.end - range.start
    }
}

fn take<T>(queue: &mut VecDeque<T>) -> Vec<T> {
    let count = queue.len().min(PASS);
    queue.drain(..count).collect()
}
