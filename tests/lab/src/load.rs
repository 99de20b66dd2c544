//! A client that submits at a steady pace, at every host, and writes down what it is told.
//!
//! Each lane holds one streamed submit at one host. What was not answered to its end when a stream broke is asked again with the same
//! key, there or at another host: by the promise it is the same job.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use swarm_client::{Client, SubmitReceiver, SubmitSender};
use swarm_proto::{
    Problem,
    api::{SubmitLine, SubmitRequest},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, interval_at, sleep, timeout},
};

use crate::{
    lab::Lab,
    record::{Kind, Next, Record},
    until,
};

/// Between two tries at a host that does not answer, and before a refused submission is asked again.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a stream may take to open.
const OPEN: Duration = Duration::from_secs(5);
/// One submission in so many is a process; the kinds take turns.
const PROCESS: u64 = 20;

/// Numbers the loads of this program: keys are never used twice.
static LOADS: AtomicU64 = AtomicU64::new(0);

/// A load that runs. It ends when it is dropped.
pub struct Load {
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
    /// One a host: who says of itself that it leads.
    watches: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    patience: Duration,
}

struct Lane {
    host: String,
    at: watch::Sender<Client>,
    task: JoinHandle<()>,
}

struct Shared {
    record: Mutex<Record>,
    next: AtomicU64,
    load: String,
    witness: PathBuf,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn witness_of(&self, n: u64) -> PathBuf {
        self.witness.join(format!("{}-{n}", self.load))
    }

    /// The next submission of a lane.
    fn next(&self, lane: usize) -> (u64, SubmitRequest) {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = usize::try_from(n / PROCESS).unwrap_or(0);
        let kind = if n.is_multiple_of(PROCESS) { Kind::PROCESSES[turn % Kind::PROCESSES.len()] } else { Kind::Noop };
        self.record().ask(n, kind, lane, Instant::now());
        (n, kind.request(n, &format!("lab-{}-{n}", self.load), &self.witness_of(n)))
    }
}

impl Load {
    /// Starts `rate` submissions a second over all hosts that run.
    ///
    /// # Errors
    /// A host that is not there.
    pub fn start(lab: &Lab, rate: u32) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            record: Mutex::default(),
            next: AtomicU64::new(0),
            load: format!("{}-{}", std::process::id(), LOADS.fetch_add(1, Ordering::Relaxed)),
            witness: lab.dir().join("witness"),
        });
        let (stop, stopped) = watch::channel(false);
        let hosts = lab.running();
        let count = u32::try_from(hosts.len())?;
        let pace = Duration::from_secs(1) * count / rate;
        let mut lanes = Vec::new();
        let watches =
            hosts.iter().map(|host| Ok(tokio::spawn(watch_leader(shared.clone(), lab.client(host)?)))).collect::<anyhow::Result<_>>()?;
        for (number, host) in hosts.into_iter().enumerate() {
            let at = watch::Sender::new(lab.client(&host)?);
            let runner = Runner { number, lanes: count, shared: shared.clone(), open: BTreeMap::new(), again: VecDeque::new() };
            lanes.push(Lane { host, task: tokio::spawn(runner.run(at.subscribe(), stopped.clone(), pace)), at });
        }
        Ok(Self { shared, lanes, watches, stop, patience: lab.preset().patience() })
    }

    fn lanes_of(&self, hosts: &[String]) -> Vec<usize> {
        (0..self.lanes.len()).filter(|n| hosts.contains(&self.lanes[*n].host)).collect()
    }

    /// What was asked at `host` is asked at `other` from now on.
    ///
    /// # Errors
    /// There is no such host.
    pub fn move_lane(&mut self, lab: &Lab, host: &str, other: &str) -> anyhow::Result<()> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.host == host) {
            other.clone_into(&mut lane.host);
            lane.at.send_replace(lab.client(other)?);
        }
        Ok(())
    }

    /// Waits for so many more acknowledgements at these hosts; how long the first took.
    ///
    /// # Errors
    /// They do not come.
    pub async fn accepted(&self, hosts: &[String], count: usize) -> anyhow::Result<Duration> {
        let (since, lanes) = (Instant::now(), self.lanes_of(hosts));
        let more = |wanted: usize| {
            let seen = self.shared.record().accepted_since(since, &lanes);
            if seen >= wanted { Ok(since.elapsed()) } else { Err(format!("{seen} of {wanted} were accepted")) }
        };
        let first = until(&format!("work is accepted at {}", hosts.join(" ")), self.patience, async || more(1)).await?;
        until(&format!("work is accepted at {}", hosts.join(" ")), self.patience, async || more(count)).await?;
        Ok(first)
    }

    /// Asks no more, and waits until all that was asked has ended.
    ///
    /// # Errors
    /// What never ended.
    pub async fn finish(mut self) -> anyhow::Result<Finished> {
        self.stop.send_replace(true);
        self.shared.record().stop(Instant::now());
        until("everything that was asked ends", self.patience, async || {
            let record = self.shared.record();
            if record.open() == 0 { Ok(()) } else { Err(record.waiting(Instant::now())) }
        })
        .await?;
        for lane in &mut self.lanes {
            timeout(OPEN, &mut lane.task).await??;
        }
        let record = std::mem::take(&mut *self.shared.record());
        Ok(Finished { record, shared: self.shared.clone() })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.lanes.iter().map(|lane| &lane.task).chain(&self.watches).for_each(JoinHandle::abort);
    }
}

/// Asks a host again and again whether it leads, and in which term.
async fn watch_leader(shared: Arc<Shared>, client: Client) {
    loop {
        if let Ok(Ok(status)) = timeout(OPEN, client.status()).await
            && let (Some(node), true) = (status.node, status.leader == status.node)
        {
            shared.record().handle_leader(status.term, node);
        }
        sleep(AGAIN).await;
    }
}

/// A load that has ended, everything answered.
pub struct Finished {
    pub(crate) record: Record,
    shared: Arc<Shared>,
}

impl Finished {
    /// What a submission's attempts wrote.
    pub(crate) fn witness(&self, n: u64) -> Vec<u32> {
        read_witness(&self.shared.witness_of(n))
    }
}

/// The attempts that wrote lines into a witness, in their order.
pub(crate) fn read_witness(path: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// What drives one lane.
struct Runner {
    number: usize,
    /// Of how many lanes.
    lanes: u32,
    shared: Arc<Shared>,
    /// Asked and not ended.
    open: BTreeMap<u64, SubmitRequest>,
    /// To be asked again, and when.
    again: VecDeque<(Instant, u64)>,
}

impl Runner {
    async fn run(mut self, mut at: watch::Receiver<Client>, mut stopped: watch::Receiver<bool>, pace: Duration) {
        while !(*stopped.borrow() && self.open.is_empty()) {
            let client = at.borrow_and_update().clone();
            if let Ok(Ok(stream)) = timeout(OPEN, client.submit_stream()).await {
                // a stream that breaks is opened again
                let _ = self.stream(stream, &mut at, &mut stopped, pace).await;
            }
            sleep(AGAIN).await;
        }
    }

    async fn stream(
        &mut self,
        (mut sender, mut answers): (SubmitSender, SubmitReceiver),
        at: &mut watch::Receiver<Client>,
        stopped: &mut watch::Receiver<bool>,
        pace: Duration,
    ) -> Result<(), Problem> {
        self.again.clear();
        for request in self.open.values() {
            sender.send(request).await?;
        }
        // lanes take turns
        let turn = pace * u32::try_from(self.number).unwrap_or(0) / self.lanes;
        let mut tick = interval_at(Instant::now() + turn, pace);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let is_stopped = *stopped.borrow_and_update();
            if is_stopped && self.open.is_empty() {
                return Ok(());
            }
            let due = self.again.front().map_or_else(Instant::now, |(due, _)| *due);
            tokio::select! {
                biased;
                _ = at.changed() => return Ok(()),
                _ = stopped.changed() => {}
                line = answers.next() => match line? {
                    // the stream is refused, not a submission: what was not answered is asked again on another
                    Some(SubmitLine::Refused { id, .. }) if id.is_empty() => return Ok(()),
                    Some(line) => self.handle_line(line),
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(due), if !self.again.is_empty() => {
                    let request = self.again.pop_front().and_then(|(_, n)| self.open.get(&n));
                    if let Some(request) = request {
                        sender.send(request).await?;
                    }
                }
                _ = tick.tick(), if !is_stopped => {
                    let (n, request) = self.shared.next(self.number);
                    self.open.insert(n, request.clone());
                    sender.send(&request).await?;
                }
            }
        }
    }

    fn handle_line(&mut self, line: SubmitLine) {
        let now = Instant::now();
        match self.shared.record().handle_line(line, self.number, now) {
            Some((n, Next::Done)) => drop(self.open.remove(&n)),
            Some((n, Next::Again)) => self.again.push_back((now + AGAIN, n)),
            Some((_, Next::Wait)) | None => {}
        }
    }
}
