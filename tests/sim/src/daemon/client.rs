//! A client that outlives every daemon: submits jobs under keys through any node, again until they are acknowledged, and wants to be
//! told how each of them ends. Meanwhile it looks at jobs, its own and those of others, cancels some, and submits under keys that
//! others have used. All that it asks and hears is recorded, and judged at the end ([`crate::history`]).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use swarm_api::Backend as _;
use swarm_proto::{
    Code, JobId, Millis, Problem,
    access::{Caller, How, Role},
    api::{Call, JobView, Reply},
    ledger::Submit,
    peer::{Answer, Numbered, Target},
    spec::{Array, Cause, Durability, Exec, JobSpec, OnPartition, Resources, Retries, Work},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::world::{World, mix};
use crate::history::{Cancelled, Op, Submitted};

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a call may take in all; the gateway's own patience is 10 s twice.
const CALL_TIME: Duration = Duration::from_secs(30);
/// What is submitted under a key first, and what somebody else tries under it.
const CONTENT: u64 = 1;
const OTHER_CONTENT: u64 = 2;
/// Jobs on one page of a list.
const PAGE: u32 = 30;

struct Client {
    world: World,
    me: usize,
    rng: ChaCha8Rng,
    next: u64,
    /// Not acknowledged, with which content.
    open: BTreeMap<u64, (Numbered, u64)>,
    /// Of those what was sent on the present stream, and when.
    sent: BTreeMap<u64, u64>,
    /// Acknowledged, and nobody has said how they ended.
    followed: Vec<JobId>,
}

/// Submits until clients are to stop, then sees everything through.
pub(super) async fn run(world: World, me: usize) -> turmoil::Result {
    let rng = ChaCha8Rng::seed_from_u64(mix(&[world.seed(), me as u64, 0xc11e]));
    let mut client = Client { world, me, rng, next: 0, open: BTreeMap::new(), sent: BTreeMap::new(), followed: Vec::new() };
    while !(client.world.are_clients_stopped() && client.open.is_empty()) {
        client.stay().await;
        client.give_up_sent();
    }
    while let Some(job) = client.followed.last().copied() {
        client.follow(job).await;
    }
    client.world.client_is_done();
    Ok(())
}

impl Client {
    fn host(&mut self) -> u64 {
        self.rng.random_range(1..=self.world.nodes())
    }

    /// One stream to one node.
    async fn stay(&mut self) {
        let host = self.host();
        let Some((gateway, runtime)) = self.world.door(host) else { return sleep(AGAIN).await };
        let (tx, mut rx) = {
            // what serves the stream is the daemon's, and dies with it
            let _inside = runtime.enter();
            gateway.submit(&caller())
        };
        drop((gateway, runtime));
        let leave = Instant::now() + Duration::from_millis(self.rng.random_range(300..5_000));
        let mut next = Instant::now();
        loop {
            let is_stopped = self.world.are_clients_stopped();
            if is_stopped && self.open.is_empty() || Instant::now() >= leave || tx.is_closed() {
                return;
            }
            let unsent = self.unsent();
            if !unsent.is_empty() && tx.try_send(unsent).is_err() {
                return;
            }
            tokio::select! {
                biased;
                answers = rx.recv() => match answers {
                    Some(answers) => {
                        if self.hear(host, answers) {
                            return sleep(AGAIN).await;
                        }
                    }
                    None => return sleep(AGAIN).await,
                },
                () = sleep_until(next) => {
                    next = Instant::now() + Duration::from_millis(self.rng.random_range(100..700));
                    for _ in 0..self.rng.random_range(1..4) {
                        self.add_job();
                    }
                    self.ask();
                }
                () = sleep_until(leave) => return,
            }
        }
    }

    /// What this stream has not been given yet.
    fn unsent(&mut self) -> Vec<Numbered> {
        let mut unsent = Vec::new();
        for (seq, (item, _)) in &self.open {
            if !self.sent.contains_key(seq) {
                self.sent.insert(*seq, self.world.moment());
                unsent.push(item.clone());
            }
        }
        unsent
    }

    /// Nobody will say any more what became of what was sent.
    fn give_up_sent(&mut self) {
        for (seq, began) in std::mem::take(&mut self.sent) {
            if let Some((item, content)) = self.open.get(&seq)
                && let Some(key) = &item.submit.key
            {
                self.world.record(key, began, Op::Submit { content: *content, answer: None });
            }
        }
    }

    /// Whether the stream is of no use any more.
    fn hear(&mut self, host: u64, answers: Vec<Answer>) -> bool {
        let mut is_over = false;
        for answer in answers {
            match answer {
                Answer::Accepted { seq, job, is_new } => self.accepted(seq, job, is_new),
                Answer::Refused { seq, problem } if problem.code == Code::KeyConflict => self.conflicted(seq, &problem),
                Answer::Refused { problem, .. } => {
                    is_over = true;
                    if !self.is_passing(host, &problem) {
                        self.world.violate(format_args!("a submission was refused: {problem:?}"));
                    }
                }
                Answer::JobEnded(outcome) => {
                    self.followed.retain(|job| *job != outcome.job);
                    self.world.told(&outcome);
                }
                Answer::Progress { .. } | Answer::TaskEnded(_) => {}
                Answer::Unknown(target) => {
                    self.world.is_unknown(target);
                    self.followed.retain(|job| target != Target::Job(*job));
                }
            }
        }
        is_over
    }

    /// Whether a refusal is one that time heals, or the host is closed out.
    fn is_passing(&self, host: u64, problem: &Problem) -> bool {
        matches!(problem.code, Code::NoLeader | Code::UnknownOutcome | Code::NotReady | Code::Busy) || self.world.is_out(host)
    }

    fn accepted(&mut self, seq: u64, job: JobId, is_new: bool) {
        let (Some((item, content)), Some(began)) = (self.open.remove(&seq), self.sent.remove(&seq)) else {
            return self.world.violate(format_args!("{seq} of client {} is accepted, and is not open", self.me));
        };
        self.followed.push(job);
        let Some(key) = &item.submit.key else { return self.world.may_be_lost(job) };
        self.world.remember(&item.submit);
        self.world.acknowledge(key, job);
        self.world.record(key, began, Op::Submit { content, answer: Some(Submitted::Accepted { job, is_new }) });
    }

    fn conflicted(&mut self, seq: u64, problem: &Problem) {
        let (Some((item, content)), Some(began)) = (self.open.remove(&seq), self.sent.remove(&seq)) else {
            return self.world.violate(format_args!("{seq} of client {} is refused, and is not open: {problem:?}", self.me));
        };
        let key = item.submit.key.unwrap_or_default();
        self.world.record(&key, began, Op::Submit { content, answer: Some(Submitted::KeyConflict) });
    }

    /// Sometimes a question or an order about some job, through some node.
    fn ask(&mut self) {
        let Some((job, key, _)) = self.world.some_job(&mut self.rng) else { return };
        let call = match self.rng.random_range(0..20) {
            0..6 => Call::Job { job },
            6..8 => Call::Jobs { before: None, limit: PAGE, open_only: false },
            8 => Call::CancelJob { job },
            _ => return,
        };
        let host = self.host();
        if let Some(gateway) = self.world.gateway(host) {
            let began = self.world.moment();
            let answer = gateway.call(&caller(), call.clone());
            drop(tokio::spawn(check_call(self.world.clone(), host, key, call, began, answer)));
        }
    }

    async fn follow(&mut self, job: JobId) {
        let host = self.host();
        let Some(gateway) = self.world.gateway(host) else { return sleep(AGAIN).await };
        let mut rx: mpsc::Receiver<Vec<Answer>> = gateway.follow(Target::Job(job));
        drop(gateway);
        while let Some(answers) = rx.recv().await {
            self.hear(host, answers);
        }
    }

    fn add_job(&mut self) {
        if self.world.are_clients_stopped() {
            return;
        }
        self.next += 1;
        let seq = self.next;
        let (submit, content) = if self.rng.random_bool(0.08) { self.used_job() } else { None }.unwrap_or_else(|| self.fresh_job(seq));
        self.open.insert(seq, (Numbered { seq, submit, follow: true }, content));
    }

    fn fresh_job(&mut self, seq: u64) -> (Submit, u64) {
        let (mut spec, array) = self.job();
        let mut key = Some(format!("c{}-{seq}", self.me));
        // nothing is promised of the key of what may be lost
        if !spec.at_most_once && spec.on_partition != OnPartition::Stop && self.rng.random_bool(0.2) {
            (spec.durability, key) = (Durability::Async, None);
        }
        (Submit { submitter: caller().name, key, spec: Arc::new(spec), array, retry_of: None }, CONTENT)
    }

    /// Under a key that somebody has used: the same, or something else.
    fn used_job(&mut self) -> Option<(Submit, u64)> {
        let (_, _, submit) = self.world.some_job(&mut self.rng)?;
        if self.rng.random_bool(0.5) {
            return Some((submit, CONTENT));
        }
        let spec = JobSpec { name: Some("other".into()), ..(*submit.spec).clone() };
        Some((Submit { spec: Arc::new(spec), ..submit }, OTHER_CONTENT))
    }

    fn job(&mut self) -> (JobSpec, Array) {
        let rng = &mut self.rng;
        let is_exec = rng.random_bool(0.65);
        let array = if rng.random_bool(0.25) {
            let count = rng.random_range(2..if is_exec { 8 } else { 40 });
            Array { first: rng.random_range(0..3), count, is_array: true, items: Vec::new() }
        } else {
            Array::single()
        };
        let ms: u64 = if rng.random_bool(0.1) { rng.random_range(1_000..5_000) } else { rng.random_range(1..500) };
        let word = ["works", "works", "works", "flaky", "fails", "crashes"][rng.random_range(0..6)];
        let argv = vec!["sim".to_owned(), ms.to_string(), word.to_owned()];
        let exec = Exec { argv, env: BTreeMap::new(), stdin: Bytes::new(), cwd: None };
        let spec = JobSpec {
            needs: Resources { milli_cores: [0, 250, 500, 1_000][rng.random_range(0..4)], ..Resources::default() },
            timeout: rng.random_bool(0.1).then_some(Millis(300)),
            retries: Retries::default().with(Cause::Exit, rng.random_range(0..3)).with(Cause::Timeout, 1),
            on_partition: [OnPartition::Replace, OnPartition::Replace, OnPartition::Stop, OnPartition::Wait][rng.random_range(0..4)],
            at_most_once: rng.random_bool(0.15),
            patience: rng.random_bool(0.1).then_some(Millis(2_000)),
            ..JobSpec::new(if is_exec { Work::Exec(exec) } else { Work::Noop })
        };
        (spec, array)
    }
}

/// A call about acknowledged jobs: whoever answers knows them.
async fn check_call(world: World, host: u64, key: String, call: Call, began: u64, answer: swarm_api::CallFuture) {
    // known before the call began
    let known = world.known();
    let is_cancel = matches!(call, Call::CancelJob { .. });
    let unknown = || {
        if is_cancel {
            world.record(&key, began, Op::Cancel { answer: None });
        }
    };
    match timeout(CALL_TIME, answer).await {
        Ok(Ok(Reply::Job(view))) => world.shown(began, &view),
        Ok(Ok(Reply::Jobs(views))) => check_list(&world, began, &known, &views),
        Ok(Ok(Reply::Done)) => world.record(&key, began, Op::Cancel { answer: Some(Cancelled::Done) }),
        Ok(Ok(other)) => world.violate(format_args!("{call:?} is answered {other:?}")),
        // a job that has ended cannot be cancelled
        Ok(Err(problem)) if problem.code == Code::Conflict && is_cancel => {
            world.record(&key, began, Op::Cancel { answer: Some(Cancelled::TooLate) });
        }
        Ok(Err(problem)) => {
            unknown();
            let is_passing = matches!(problem.code, Code::NoLeader | Code::UnknownOutcome | Code::NotReady | Code::Busy);
            if !is_passing && !world.is_out(host) {
                world.violate(format_args!("{call:?} of an acknowledged job: {problem:?}"));
            }
        }
        Err(_) => {
            unknown();
            world.violate(format_args!("{call:?} was never answered"));
        }
    }
}

/// A list shows every job of its page, each as a look at it alone would.
fn check_list(world: &World, began: u64, known: &[(JobId, String)], views: &[JobView]) {
    views.iter().for_each(|view| world.shown(began, view));
    let is_whole = views.len() < PAGE as usize;
    let oldest = views.iter().map(|view| view.job).min().filter(|_| !is_whole);
    let missing = known.iter().filter(|(job, _)| oldest.is_none_or(|oldest| *job > oldest) && !views.iter().any(|view| view.job == *job));
    for (_, key) in missing {
        world.record(key, began, Op::Get { seen: None });
    }
}

/// Who all these clients are.
fn caller() -> Caller {
    Caller { name: "sim".into(), role: Role::Operator, how: How::Local }
}
