//! A client that outlives every daemon: submits jobs under keys through any node, again until they are acknowledged, and wants to be
//! told how each of them ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use swarm_api::Backend as _;
use swarm_proto::{
    Code, JobId, Millis,
    access::{Caller, How, Role},
    api::{Call, Reply},
    ledger::Submit,
    peer::{Answer, Numbered, Target},
    spec::{Array, Cause, Exec, JobSpec, OnPartition, Resources, Retries, Work},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::world::{World, mix};

/// Between two tries.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a call may take in all; the gateway's own patience is 10 s twice.
const CALL_TIME: Duration = Duration::from_secs(30);

struct Client {
    world: World,
    me: usize,
    rng: ChaCha8Rng,
    next: u64,
    /// Not acknowledged.
    open: BTreeMap<u64, Numbered>,
    /// Acknowledged, and nobody has said how they ended.
    followed: Vec<JobId>,
}

/// Submits until clients are to stop, then sees everything through.
pub(super) async fn run(world: World, me: usize) -> turmoil::Result {
    let rng = ChaCha8Rng::seed_from_u64(mix(&[world.seed(), me as u64, 0xc11e]));
    let mut client = Client { world, me, rng, next: 0, open: BTreeMap::new(), followed: Vec::new() };
    while !(client.world.are_clients_stopped() && client.open.is_empty()) {
        client.stay().await;
    }
    while let Some(job) = client.followed.last().copied() {
        client.follow(job).await;
    }
    client.world.client_is_done();
    Ok(())
}

impl Client {
    fn gateway(&mut self) -> Option<swarmd::node::Gateway> {
        let host = self.rng.random_range(1..=self.world.nodes());
        self.world.gateway(host)
    }

    /// One stream to one node.
    async fn stay(&mut self) {
        let Some(gateway) = self.gateway() else { return sleep(AGAIN).await };
        let (tx, mut rx) = gateway.submit(&caller());
        drop(gateway);
        let leave = Instant::now() + Duration::from_millis(self.rng.random_range(300..5_000));
        let mut next = Instant::now();
        let mut has_sent = std::collections::BTreeSet::new();
        loop {
            let is_stopped = self.world.are_clients_stopped();
            if is_stopped && self.open.is_empty() || Instant::now() >= leave || tx.is_closed() {
                return;
            }
            let unsent: Vec<Numbered> = self.open.values().filter(|item| has_sent.insert(item.seq)).cloned().collect();
            if !unsent.is_empty() && tx.try_send(unsent).is_err() {
                return;
            }
            tokio::select! {
                biased;
                answers = rx.recv() => match answers {
                    Some(answers) => {
                        if self.hear(answers) {
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
                }
                () = sleep_until(leave) => return,
            }
        }
    }

    /// Whether the stream is of no use any more.
    fn hear(&mut self, answers: Vec<Answer>) -> bool {
        let mut is_over = false;
        for answer in answers {
            match answer {
                Answer::Accepted { seq, job, .. } => self.accepted(seq, job),
                Answer::Refused { problem, .. } => {
                    is_over = true;
                    if !matches!(problem.code, Code::NoLeader | Code::UnknownOutcome | Code::NotReady | Code::Busy) {
                        self.world.violate(format_args!("a submission was refused: {problem:?}"));
                    }
                }
                Answer::JobEnded(outcome) => {
                    self.followed.retain(|job| *job != outcome.job);
                    self.world.told(&outcome);
                }
                Answer::Progress { .. } | Answer::TaskEnded(_) => {}
                Answer::Unknown(target) => self.world.violate(format_args!("{target:?} was acknowledged and is unknown")),
            }
        }
        is_over
    }

    fn accepted(&mut self, seq: u64, job: JobId) {
        let Some(item) = self.open.remove(&seq) else {
            return self.world.violate(format_args!("{seq} of client {} is accepted, and is not open", self.me));
        };
        self.world.acknowledge(item.submit.key.as_deref().unwrap_or_default(), job);
        self.followed.push(job);
        let call = match self.rng.random_range(0..20) {
            0..3 => Call::Job { job },
            3 => Call::CancelJob { job },
            _ => return,
        };
        if let Some(gateway) = self.gateway() {
            let answer = gateway.call(&caller(), call.clone());
            drop(tokio::spawn(check_call(self.world.clone(), call, answer)));
        }
    }

    async fn follow(&mut self, job: JobId) {
        let Some(gateway) = self.gateway() else { return sleep(AGAIN).await };
        let mut rx: mpsc::Receiver<Vec<Answer>> = gateway.follow(Target::Job(job));
        drop(gateway);
        while let Some(answers) = rx.recv().await {
            self.hear(answers);
        }
    }

    fn add_job(&mut self) {
        if self.world.are_clients_stopped() {
            return;
        }
        self.next += 1;
        let seq = self.next;
        let (spec, array) = self.job();
        let key = Some(format!("c{}-{seq}", self.me));
        let submit = Submit { submitter: caller().name, key, spec: Arc::new(spec), array, retry_of: None };
        self.open.insert(seq, Numbered { seq, submit, follow: true });
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

/// A call about an acknowledged job, through another node: whoever answers knows the job.
async fn check_call(world: World, call: Call, answer: swarm_api::CallFuture) {
    match timeout(CALL_TIME, answer).await {
        Ok(Ok(Reply::Job(_) | Reply::Done)) => {}
        Ok(Ok(other)) => world.violate(format_args!("{call:?} is answered {other:?}")),
        Ok(Err(problem)) => {
            // a job that has ended cannot be cancelled
            let is_expected = matches!(problem.code, Code::NoLeader | Code::UnknownOutcome | Code::NotReady | Code::Conflict | Code::Busy);
            if !is_expected {
                world.violate(format_args!("{call:?} of an acknowledged job: {problem:?}"));
            }
        }
        Err(_) => world.violate(format_args!("{call:?} was never answered")),
    }
}

/// Who all these clients are.
fn caller() -> Caller {
    Caller { name: "sim".into(), role: Role::Operator, how: How::Local }
}
