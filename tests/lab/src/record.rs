//! What was asked and what was answered, line by line, and whether the two fit.

use std::{collections::BTreeMap, path::Path, time::Duration};

use swarm_proto::{
    Code, JobId, NodeId, Term,
    api::{JobView, SubmitLine, SubmitRequest},
    ledger::TaskState,
    spec::OnPartition,
};
use tokio::time::Instant;

/// How often a task that must not run beside itself says that it runs.
const TICKS: usize = 20;

/// What a job does and what was promised for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Noop,
    /// A process that may run again elsewhere.
    Replace,
    /// A process of which two attempts never run at once.
    Stop,
    /// A process that runs once or is lost.
    AtMostOnce,
}

impl Kind {
    /// Those that do something that is seen.
    pub(crate) const PROCESSES: [Self; 3] = [Self::Replace, Self::Stop, Self::AtMostOnce];

    /// The job. What a process does is seen in its witness, a file of its own that each attempt appends to.
    pub(crate) fn request(self, id: u64, key: &str, witness: &Path) -> SubmitRequest {
        let common = SubmitRequest { id: id.to_string(), key: Some(key.to_owned()), ..SubmitRequest::default() };
        let shell = |script: String| SubmitRequest { argv: vec!["sh".into(), "-c".into(), script], cores: Some(0.1), ..common.clone() };
        let witness = witness.display();
        match self {
            Self::Noop => SubmitRequest { noop: true, ..common },
            Self::Replace => shell(format!("echo $SWARM_ATTEMPT >> {witness}; sleep 1")),
            Self::Stop => {
                let script = format!("for i in $(seq {TICKS}); do echo $SWARM_ATTEMPT >> {witness}; sleep 0.1; done");
                SubmitRequest { on_partition: Some(OnPartition::Stop), ..shell(script) }
            }
            Self::AtMostOnce => SubmitRequest { at_most_once: true, ..shell(format!("echo $SWARM_ATTEMPT >> {witness}; sleep 1")) },
        }
    }

    /// What is wrong with an end in this state after these lines of the witness.
    fn fault(self, state: TaskState, lines: &[u32]) -> Option<String> {
        let is_good = state == TaskState::Succeeded;
        match self {
            Self::Noop => (!is_good).then(|| format!("a noop ended {state:?}")),
            Self::Replace if is_good && lines.is_empty() => Some("it succeeded and never ran".into()),
            Self::Replace => (!is_good).then(|| format!("it ended {state:?} after {} attempts", lines.len())),
            Self::Stop if !lines.is_sorted() => Some(format!("two attempts at once: {lines:?}")),
            Self::Stop if is_good && lines.iter().filter(|line| lines.last() == Some(line)).count() != TICKS => {
                Some(format!("it succeeded and did not run to its end: {lines:?}"))
            }
            Self::Stop => (!is_good).then(|| format!("it ended {state:?} after {lines:?}")),
            Self::AtMostOnce if lines.len() > 1 => Some(format!("it ran {} times", lines.len())),
            Self::AtMostOnce if is_good && lines.is_empty() => Some("it succeeded and never ran".into()),
            Self::AtMostOnce => (!is_good && state != TaskState::Lost).then(|| format!("it ended {state:?}")),
        }
    }
}

/// One submission.
struct Asked {
    kind: Kind,
    at: Instant,
    /// Which host it was asked of last.
    lane: usize,
    job: Option<JobId>,
    accepted: Option<Instant>,
    end: Option<TaskState>,
}

/// What an answer means for the submission it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// More comes.
    Wait,
    /// Ask again, after a while.
    Again,
    /// It has ended.
    Done,
}

/// Every submission of one load.
#[derive(Default)]
pub(crate) struct Record {
    asked: BTreeMap<u64, Asked>,
    /// When something was acknowledged, and at which lane.
    accepted: Vec<(Instant, usize)>,
    faults: Vec<String>,
    refused: u64,
    /// When nothing new was asked any more.
    stopped: Option<Instant>,
    /// Attempts beyond the first of each job that has ended.
    reruns: u64,
    /// Who has said of itself that it leads, in each term.
    leaders: BTreeMap<Term, NodeId>,
}

/// A record in figures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub asked: usize,
    pub accepted: usize,
    /// Processes, by what was promised for them: may run again, never two at once, at most once.
    pub processes: [usize; 3],
    pub lost: usize,
    pub reruns: u64,
    pub terms: usize,
    pub refused: u64,
    /// The longest that any acknowledgement took.
    pub slowest: Duration,
    /// The longest time without any acknowledgement anywhere, while something new was asked.
    pub silence: Duration,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { asked, accepted, processes: [replace, stop, once], lost, reruns, terms, refused, slowest, silence } = self;
        write!(f, "{asked} asked, {accepted} accepted, {refused} refusals; processes: {replace} replace, {stop} stop, ")?;
        write!(f, "{once} at most once ({lost} lost); {reruns} reruns, {terms} terms; ")?;
        write!(f, "slowest answer {slowest:.1?}, longest silence {silence:.1?}")
    }
}

impl Record {
    pub(crate) fn ask(&mut self, n: u64, kind: Kind, lane: usize, at: Instant) {
        self.asked.insert(n, Asked { kind, at, lane, job: None, accepted: None, end: None });
    }

    /// A node says of itself that it leads.
    pub(crate) fn handle_leader(&mut self, term: Term, node: NodeId) {
        let first = *self.leaders.entry(term).or_insert(node);
        if first != node {
            self.faults.push(format!("both {first} and {node} led in term {}", term.0));
        }
    }

    /// Nothing new is asked from now on.
    pub(crate) fn stop(&mut self, now: Instant) {
        self.stopped = Some(now);
    }

    pub(crate) fn open(&self) -> usize {
        self.asked.values().filter(|asked| asked.end.is_none()).count()
    }

    /// Acknowledgements since `since` at one of these lanes.
    pub(crate) fn accepted_since(&self, since: Instant, lanes: &[usize]) -> usize {
        self.accepted.iter().filter(|(at, lane)| *at >= since && lanes.contains(lane)).count()
    }

    /// Takes an answer that came to `lane`.
    pub(crate) fn handle_line(&mut self, line: SubmitLine, lane: usize, now: Instant) -> Option<(u64, Next)> {
        let id = match &line {
            SubmitLine::Accepted { id, .. }
            | SubmitLine::Refused { id, .. }
            | SubmitLine::Progress { id, .. }
            | SubmitLine::Ended { id, .. } => id,
        };
        let Some((n, asked)) = id.parse().ok().and_then(|n: u64| Some((n, self.asked.get_mut(&n)?))) else {
            self.faults.push(format!("an answer to what was never asked: {line:?}"));
            return None;
        };
        let next = match line {
            SubmitLine::Accepted { job, .. } => {
                if *asked.job.get_or_insert(job) != job {
                    self.faults.push(format!("{n} was accepted as {job} after another: {:?}", asked.job));
                }
                asked.lane = lane;
                if asked.accepted.is_none() {
                    asked.accepted = Some(now);
                    self.accepted.push((now, lane));
                }
                Next::Wait
            }
            SubmitLine::Refused { problem, .. } => {
                self.refused += 1;
                match problem.code {
                    Code::Busy | Code::NoLeader | Code::UnknownOutcome | Code::Timeout | Code::NoDaemon | Code::NotReady => Next::Again,
                    Code::BadRequest
                    | Code::Denied
                    | Code::NotFound
                    | Code::KeyConflict
                    | Code::Conflict
                    | Code::Unrunnable
                    | Code::Version
                    | Code::NoSpace
                    | Code::Internal => {
                        self.faults.push(format!("{n} was refused: {problem}"));
                        Next::Again
                    }
                }
            }
            SubmitLine::Progress { .. } => Next::Wait,
            SubmitLine::Ended { outcome, .. } => {
                self.reruns += if asked.end.is_none() { outcome.reruns } else { 0 };
                if asked.job != Some(outcome.job) || *asked.end.get_or_insert(outcome.state) != outcome.state {
                    self.faults.push(format!("{n}, {:?}, {:?} before, ended otherwise: {outcome:?}", asked.job, asked.end));
                }
                Next::Done
            }
        };
        Some((n, next))
    }

    /// All that is wrong, given the swarm's own list of jobs and the witnesses.
    pub(crate) fn faults(&self, jobs: &BTreeMap<JobId, JobView>, witness: impl Fn(u64) -> Vec<u32>) -> Vec<String> {
        let mut faults = self.faults.clone();
        let mut seen = BTreeMap::new();
        for (n, asked) in &self.asked {
            let Some(job) = asked.job else {
                faults.push(format!("{n} was never accepted"));
                continue;
            };
            if let Some(other) = seen.insert(job, n) {
                faults.push(format!("{n} and {other} were both accepted as {job}"));
            }
            let known = jobs.get(&job).map(|view| view.state);
            if known != Some(asked.end) {
                faults.push(format!("{job} ({:?}) ended {:?} for the client and is {known:?} in the swarm", asked.kind, asked.end));
            }
            if let Some(fault) = asked.end.and_then(|state| asked.kind.fault(state, &witness(*n))) {
                faults.push(format!("{job} ({:?}): {fault}", asked.kind));
            }
        }
        faults
    }

    /// The oldest job of the record; the swarm's list is read down to it.
    pub(crate) fn oldest(&self) -> Option<JobId> {
        self.asked.values().filter_map(|asked| asked.job).min()
    }

    /// What still waits, for a message: number, kind, host, job and age of the first few.
    pub(crate) fn waiting(&self, now: Instant) -> String {
        let open: Vec<String> = self
            .asked
            .iter()
            .filter(|(_, asked)| asked.end.is_none())
            .take(5)
            .map(|(n, asked)| format!("{n} {:?} at lane {} as {:?} for {:.0?}", asked.kind, asked.lane, asked.job, now - asked.at))
            .collect();
        format!("{} without an end after {} refusals: {}", self.open(), self.refused, open.join("; "))
    }

    /// Promises of which this load shows nothing, for no job of that kind came to a good end.
    pub(crate) fn unseen(&self) -> Vec<Kind> {
        let is_seen = |kind: &Kind| self.asked.values().any(|asked| asked.kind == *kind && asked.end == Some(TaskState::Succeeded));
        Kind::PROCESSES.into_iter().filter(|kind| !is_seen(kind)).collect()
    }

    fn count(&self, kind: Kind) -> usize {
        self.asked.values().filter(|asked| asked.kind == kind).count()
    }

    pub(crate) fn figures(&self) -> Figures {
        let first = self.asked.values().map(|asked| asked.at).min();
        let is_asking = |at: &Instant| self.stopped.is_none_or(|stopped| *at <= stopped);
        let times = || first.into_iter().chain(self.accepted.iter().map(|(at, _)| *at).filter(is_asking)).chain(self.stopped);
        Figures {
            asked: self.asked.len(),
            accepted: self.accepted.len(),
            processes: Kind::PROCESSES.map(|kind| self.count(kind)),
            reruns: self.reruns,
            terms: self.leaders.len(),
            lost: self.asked.values().filter(|asked| asked.end == Some(TaskState::Lost)).count(),
            refused: self.refused,
            slowest: self.asked.values().filter_map(|asked| Some(asked.accepted? - asked.at)).max().unwrap_or_default(),
            silence: times().zip(times().skip(1)).map(|(before, after)| after - before).max().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_proto::{Problem, api::JobOutcome};

    use super::*;

    fn accepted(n: u64, job: u64) -> SubmitLine {
        SubmitLine::Accepted { id: n.to_string(), job: JobId(job), is_new: true }
    }

    fn ended(n: u64, job: u64, state: TaskState) -> SubmitLine {
        let outcome = JobOutcome { job: JobId(job), state, counts: swarm_proto::ledger::Counts::default(), reruns: 0, task: None };
        SubmitLine::Ended { id: n.to_string(), outcome: Box::new(outcome) }
    }

    fn told(kind: Kind, lines: Vec<SubmitLine>) -> Record {
        let (mut record, now) = (Record::default(), Instant::now());
        record.ask(1, kind, 0, now);
        for line in lines {
            record.handle_line(line, 0, now);
        }
        record
    }

    fn view(job: u64, state: TaskState) -> BTreeMap<JobId, JobView> {
        let text = serde_json::json!({
            "job": format!("j{job}"), "name": null, "submitter": "x", "submitted": 0, "ended": 0, "state": state,
            "counts": swarm_proto::ledger::Counts::default(), "reruns": 0, "retry_of": null, "key": null, "is_array": false, "first": 0,
            "tasks": 1, "spec": {"kind": "noop", "argv": [], "env": {}, "needs": swarm_proto::spec::Resources::default(), "labels": {},
            "timeout_ms": null, "retries": {}, "on_partition": "replace", "at_most_once": false, "durability": "majority", "inputs": null,
            "each": null, "outputs": []}
        });
        let view: JobView = serde_json::from_value(text).expect("a job");
        [(view.job, view)].into()
    }

    const GOOD: TaskState = TaskState::Succeeded;

    #[test]
    fn what_was_promised_and_kept_is_no_fault() {
        for (kind, lines) in [(Kind::Noop, vec![]), (Kind::Replace, vec![1, 2]), (Kind::AtMostOnce, vec![1]), (Kind::Stop, vec![1; TICKS])]
        {
            let record = told(kind, vec![accepted(1, 7), ended(1, 7, GOOD)]);
            assert_eq!(record.faults(&view(7, GOOD), |_| lines.clone()), Vec::<String>::new(), "{kind:?}");
        }
        let stopped = [vec![1, 1, 1], vec![2; TICKS]].concat();
        assert_eq!(told(Kind::Stop, vec![accepted(1, 7), ended(1, 7, GOOD)]).faults(&view(7, GOOD), |_| stopped.clone()).len(), 0);
        let lost = told(Kind::AtMostOnce, vec![accepted(1, 7), ended(1, 7, TaskState::Lost)]);
        assert_eq!(lost.faults(&view(7, TaskState::Lost), |_| vec![1]).len(), 0);
        assert_eq!(lost.figures().lost, 1);
    }

    #[test]
    fn every_broken_promise_is_a_fault() {
        let lost = told(Kind::Noop, vec![accepted(1, 7), ended(1, 7, GOOD)]);
        assert_eq!(lost.faults(&BTreeMap::new(), |_| vec![]).len(), 1, "an acknowledged job is gone");
        assert_eq!(lost.faults(&view(7, TaskState::Failed), |_| vec![]).len(), 1, "the swarm tells another end");
        let cases = [
            (Kind::Stop, vec![1, 2, 1], "two at once"),
            (Kind::Stop, vec![1; TICKS - 1], "not to its end"),
            (Kind::AtMostOnce, vec![1, 2], "twice"),
            (Kind::AtMostOnce, vec![], "never ran"),
            (Kind::Replace, vec![], "never ran"),
        ];
        for (kind, lines, why) in cases {
            let record = told(kind, vec![accepted(1, 7), ended(1, 7, GOOD)]);
            assert_eq!(record.faults(&view(7, GOOD), |_| lines.clone()).len(), 1, "{why}");
        }
        let two = told(Kind::Noop, vec![accepted(1, 7), accepted(1, 8), ended(1, 7, GOOD)]);
        assert_eq!(two.faults(&view(7, GOOD), |_| vec![]).len(), 1, "two jobs of one key");
        let other = told(Kind::Noop, vec![accepted(1, 7), ended(1, 7, GOOD), ended(1, 7, TaskState::Failed)]);
        assert_eq!(other.faults(&view(7, GOOD), |_| vec![]).len(), 1, "two ends of one job");
        assert_eq!(told(Kind::Noop, vec![]).faults(&BTreeMap::new(), |_| vec![]), ["1 was never accepted"]);
    }

    #[test]
    fn silence_is_while_something_is_asked() {
        let (mut record, start) = (Record::default(), Instant::now());
        for (n, at) in [(1, 1), (2, 4), (3, 30)] {
            record.ask(n, Kind::Noop, 0, start);
            record.handle_line(accepted(n, n), 0, start + Duration::from_secs(at));
        }
        assert_eq!(record.figures().silence, Duration::from_secs(26));
        record.stop(start + Duration::from_secs(5));
        assert_eq!(record.figures().silence, Duration::from_secs(3), "a straggler's answer is slow, and breaks no silence");
        assert_eq!(record.figures().slowest, Duration::from_secs(30));
    }

    #[test]
    fn two_leaders_of_one_term_are_a_fault() {
        let mut record = told(Kind::Noop, vec![accepted(1, 7), ended(1, 7, GOOD)]);
        for (term, node) in [(4, 1), (5, 2), (4, 1), (6, 1)] {
            record.handle_leader(Term(term), NodeId(node));
        }
        assert_eq!((record.faults(&view(7, GOOD), |_| vec![]).len(), record.figures().terms), (0, 3));
        record.handle_leader(Term(5), NodeId(3));
        assert_eq!(record.faults(&view(7, GOOD), |_| vec![]), ["both n2 and n3 led in term 5"]);
    }

    #[test]
    fn a_load_without_a_kind_shows_nothing_of_its_promise() {
        let record = told(Kind::Stop, vec![accepted(1, 7), ended(1, 7, GOOD)]);
        assert_eq!(record.unseen(), [Kind::Replace, Kind::AtMostOnce]);
        let lost = told(Kind::AtMostOnce, vec![accepted(1, 7), ended(1, 7, TaskState::Lost)]);
        assert_eq!(lost.unseen(), Kind::PROCESSES, "one that was lost does not show that it runs once");
    }

    /// The whole way from files to faults: a good record of every kind, and each way in which it can be falsified.
    #[test]
    fn a_falsified_witness_is_found() {
        let dir = std::env::temp_dir().join(format!("swarm-lab-record-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("made");
        let read = |n: u64| crate::load::read_witness(&dir.join(n.to_string()));
        let write = |lines: &str| std::fs::write(dir.join("1"), lines).expect("written");
        let judge = |kind| told(kind, vec![accepted(1, 7), ended(1, 7, GOOD)]).faults(&view(7, GOOD), read).len();
        let whole = "1\n".repeat(TICKS);
        write(&whole);
        assert_eq!((judge(Kind::Stop), judge(Kind::Replace)), (0, 0));
        write(&format!("{whole}2\n1\n"));
        assert_eq!(judge(Kind::Stop), 1, "a line of the first attempt after one of the second");
        write("1\n2\n");
        assert_eq!((judge(Kind::AtMostOnce), judge(Kind::Replace)), (1, 0), "twice");
        std::fs::remove_dir_all(&dir).expect("removed");
        assert_eq!((judge(Kind::AtMostOnce), judge(Kind::Stop), judge(Kind::Replace)), (1, 1, 1), "never");
    }

    #[test]
    fn a_refusal_for_now_is_asked_again_and_others_are_faults() {
        let mut record = told(Kind::Noop, vec![]);
        let refused = |code| SubmitLine::Refused { id: "1".into(), problem: Problem::new(code, "no", "no") };
        assert_eq!(record.handle_line(refused(Code::NoLeader), 0, Instant::now()), Some((1, Next::Again)));
        assert_eq!(record.faults.len(), 0);
        record.handle_line(refused(Code::Internal), 0, Instant::now());
        assert_eq!(record.faults.len(), 1);
    }
}
