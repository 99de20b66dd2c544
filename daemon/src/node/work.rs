//! The worker of this node: one task that owns [`Attempts`] and speaks with whoever leads.

mod inputs;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use swarm_blobstore::Change;
use swarm_core::attempts::{Attempts, Output, Settings as AttemptSettings};
use swarm_executors::{ExecEvent, Executor, Recovered, Start};
use swarm_proto::{
    Fence, NodeId, Problem, TaskId,
    ledger::{End, Outcome},
    limits,
    peer::{FromWorker, Open, Owing, Report, ToWorker},
    spec::Work,
};
use swarm_transport::{FrameRx, FrameTx, Plane};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::AbortHandle,
    time::Instant,
};

use super::{
    Node,
    desk::{Desk, ToDesk},
    env::{Workshop, stopped},
    files::{self, Files},
    signed::Signatures,
};

/// Messages under way to the leader.
const DEPTH: usize = 256;
/// Between two tries to find a leader.
const AGAIN: Duration = Duration::from_millis(50);
/// How often free space and load are told.
const LOAD_EVERY: Duration = Duration::from_secs(5);
/// Blobs in one message.
const BLOBS: usize = 8_192;
/// Events of executors taken in one turn.
const TURN: usize = 1_024;

/// Things kept for the leader that are brought at a time.
const KEEPS: usize = 4;
/// Reasons in one message.
const FAILED: usize = 128;
/// How long a new leader may take to speak of what it wants kept here.
const UNSPOKEN: Duration = Duration::from_secs(600);

type Key = (TaskId, Fence);

/// A stream to the leader's desk, here or elsewhere.
struct Link {
    leader: NodeId,
    to: mpsc::Sender<FromWorker>,
    from: mpsc::UnboundedReceiver<ToWorker>,
}

struct Worker {
    node: Arc<Node>,
    attempts: Attempts,
    executors: BTreeMap<&'static str, Arc<dyn Executor>>,
    events: mpsc::UnboundedReceiver<ExecEvent>,
    link: Option<Link>,
    retry_at: Instant,
    load_at: Instant,
    /// What comes and goes in the store, while there is somebody to tell it.
    blobs: Option<mpsc::UnboundedReceiver<Change>>,
    /// What was signed and begun here; or why that is not known.
    signatures: Result<Signatures, String>,
    /// Attempts whose files are on their way.
    gathering: BTreeMap<Key, AbortHandle>,
    /// Attempts that were begun with their files, until they have started or ended.
    placing: BTreeMap<Key, Start>,
    /// Attempts that are to leave files.
    leaves: BTreeSet<Key>,
    /// What the leader has kept here. Of what it has not spoken of since the stream to it began: when that may go.
    owed: BTreeMap<Owing, Option<Instant>>,
    keeps: mpsc::UnboundedSender<(Vec<Owing>, Vec<Owing>)>,
    /// What is kept, and what cannot be, as far as it was not said.
    answers: (Vec<Owing>, Vec<(Owing, Problem)>),
    /// What of all this comes back.
    done: (mpsc::UnboundedSender<Done>, mpsc::UnboundedReceiver<Done>),
}

/// Work with files that was done elsewhere.
enum Done {
    Gathered(Key, Result<Start, String>),
    /// What had changed on the disk is here again; or why the attempt got no files.
    Healed(Key, Result<Start, String>),
    Delivered(ExecEvent),
    Kept(Owing, Result<(), Problem>),
}

/// Runs attempts until the node stops.
pub(crate) async fn run(node: Arc<Node>, workshop: Workshop, life: u64, stop: watch::Receiver<bool>) {
    let boot = (node.clocks.boot)();
    let mut attempts =
        Attempts::new(node.me, life, node.settings.meta.clone(), AttemptSettings { lease: node.settings.timing.lease }, boot);
    let leaves = workshop.recovered.iter().filter(|found| !found.spec.outputs.is_empty()).map(|found| (found.task, found.fence)).collect();
    // what one left that ended while no daemon was here is delivered like that of any other: as if it ended now
    let mut ended = Vec::new();
    let recovered = workshop.recovered.into_iter().map(|found| match found.outcome {
        Some(outcome) if leaves_more(!found.spec.outputs.is_empty(), &outcome) => {
            ended.push(ExecEvent::Ended { task: found.task, fence: found.fence, outcome });
            Recovered { outcome: None, ..found }
        }
        outcome => Recovered { outcome, ..found },
    });
    attempts.handle_recovered(recovered.collect());
    let executors = workshop.executors.into_iter().map(|executor| (executor.name(), executor)).collect();
    let now = Instant::now();
    let signatures =
        if node.settings.require_signed { Signatures::load(node.roster.disk()) } else { Err("nothing has to be signed here".into()) };
    let (keeps, ordered) = mpsc::unbounded_channel();
    let done = mpsc::unbounded_channel();
    node.blobs.runtime().spawn(keep_in_order(node.clone(), ordered, done.0.clone()));
    let mut worker = Worker {
        node,
        attempts,
        executors,
        events: workshop.events,
        link: None,
        retry_at: now,
        load_at: now,
        blobs: None,
        signatures,
        gathering: BTreeMap::new(),
        placing: BTreeMap::new(),
        leaves,
        owed: BTreeMap::new(),
        keeps,
        answers: (Vec::new(), Vec::new()),
        done,
    };
    ended.into_iter().for_each(|event| worker.handle_event(event, boot));
    worker.run(stop).await;
}

/// Does what the leader asks in its order; what is brought takes its time meanwhile.
async fn keep_in_order(node: Arc<Node>, mut asked: mpsc::UnboundedReceiver<(Vec<Owing>, Vec<Owing>)>, done: mpsc::UnboundedSender<Done>) {
    let slots = Arc::new(Semaphore::new(KEEPS));
    while let Some((keep, release)) = asked.recv().await {
        for owing in release {
            files::release(&node, owing).await;
        }
        for owing in keep {
            // never closed
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let (node, done) = (node.clone(), done.clone());
            tokio::spawn(async move {
                let kept = files::keep(&node, owing).await;
                let _ = done.send(Done::Kept(owing, kept));
                drop(slot);
            });
        }
    }
}

/// Whether an attempt left more than its outcome can hold.
fn leaves_more(has_files: bool, outcome: &Outcome) -> bool {
    has_files || outcome.output.as_ref().is_some_and(|output| output.stdout_len > limits::INLINE_RESULT as u64)
}

impl Worker {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut leader = self.node.peers.leader_changes();
        let mut papers = self.node.papers.changes();
        loop {
            self.carry_out().await;
            self.node.set_quiet(self.attempts.is_quiet());
            let boot = (self.node.clocks.boot)();
            let timer = self.attempts.poll_timeout().map(|(due, _)| Instant::now() + due.saturating_sub(boot));
            let wake = [timer, Some(self.load_at), self.link.is_none().then_some(self.retry_at)].into_iter().flatten().min();
            let wake = wake.unwrap_or(self.load_at);
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return,
                Some(event) = self.events.recv() => self.drain_events(event),
                Ok(()) = papers.changed() => {
                    papers.mark_unchanged();
                    self.tell_view();
                }
                Ok(()) = leader.changed() => self.handle_leader(leader.borrow_and_update().1),
                message = async { self.link.as_mut().expect("guarded").from.recv().await }, if self.link.is_some() => self.handle_message(message),
                Some(done) = self.done.1.recv() => self.drain_done(done).await,
                Some(change) = async { self.blobs.as_mut().expect("guarded").recv().await }, if self.blobs.is_some() => self.tell_blobs(change).await,
                () = tokio::time::sleep_until(wake) => self.handle_wake().await,
            }
        }
    }

    fn drain_events(&mut self, first: ExecEvent) {
        let boot = (self.node.clocks.boot)();
        self.handle_event(first, boot);
        for _ in 0..TURN {
            match self.events.try_recv() {
                Ok(event) => self.handle_event(event, boot),
                Err(_) => return,
            }
        }
    }

    /// An outcome is told when what it names is here.
    fn handle_event(&mut self, event: ExecEvent, boot: Duration) {
        match event {
            ExecEvent::Ended { task, fence, outcome } => {
                let placing = self.placing.remove(&(task, fence));
                if let (Some(start), End::Input(why)) = (placing, &outcome.end) {
                    return self.heal(start, why.clone());
                }
                let has_files = self.leaves.remove(&(task, fence));
                if !leaves_more(has_files, &outcome) {
                    return self.attempts.handle_event(ExecEvent::Ended { task, fence, outcome }, boot);
                }
                let (node, done) = (self.node.clone(), self.done.0.clone());
                self.node.blobs.runtime().spawn(async move {
                    let outcome = files::deliver(&node, (task, fence), has_files, outcome).await;
                    let _ = done.send(Done::Delivered(ExecEvent::Ended { task, fence, outcome }));
                });
            }
            ExecEvent::Started { task, fence, at } => {
                self.placing.remove(&(task, fence));
                self.attempts.handle_event(ExecEvent::Started { task, fence, at }, boot);
            }
        }
    }

    async fn drain_done(&mut self, first: Done) {
        self.handle_done(first);
        for _ in 0..TURN {
            match self.done.1.try_recv() {
                Ok(done) => self.handle_done(done),
                Err(_) => break,
            }
        }
        let (kept, failed) = std::mem::take(&mut self.answers);
        if !kept.is_empty() {
            self.say(FromWorker::Kept { kept, failed: Vec::new() }).await;
        }
        for part in failed.chunks(FAILED) {
            self.say(FromWorker::Kept { kept: Vec::new(), failed: part.to_vec() }).await;
        }
    }

    fn handle_done(&mut self, done: Done) {
        match done {
            Done::Delivered(event) => self.attempts.handle_event(event, (self.node.clocks.boot)()),
            Done::Gathered(key, gathered) => {
                if let Ok(start) = &gathered {
                    self.placing.insert(key, start.clone());
                }
                self.handle_gathered(key, gathered);
            }
            Done::Healed(key, gathered) => {
                if gathered.is_ok() {
                    // or the executor would hold it for one that has ended
                    self.executors.values().for_each(|executor| executor.forget(key.0, key.1));
                }
                self.handle_gathered(key, gathered);
            }
            // released while it was brought
            Done::Kept(owing, Ok(())) if !self.owed.contains_key(&owing) => self.keep(Vec::new(), vec![owing]),
            Done::Kept(owing, Ok(())) => self.answers.0.push(owing),
            Done::Kept(owing, Err(problem)) => {
                self.owed.remove(&owing);
                self.answers.1.push((owing, problem));
            }
        }
    }

    fn handle_message(&mut self, message: Option<ToWorker>) {
        let boot = (self.node.clocks.boot)();
        match message {
            None | Some(ToWorker::NotLeader { .. }) => self.drop_link(),
            Some(ToWorker::View(view)) => {
                self.node.roster.merge(&view);
                self.tell_view();
            }
            Some(message @ ToWorker::Welcome { .. }) => {
                if let ToWorker::Welcome { view, term, now, .. } = &message {
                    self.node.roster.merge(view);
                    self.node.hear_clock(*now);
                    if let Some(link) = &self.link {
                        self.node.peers.hint_leader(*term, link.leader);
                    }
                }
                self.attempts.handle_to_worker(message, boot);
                self.tell_view();
            }
            Some(ToWorker::Keep { keep, release }) => self.keep(keep, release),
            Some(ToWorker::Hint { job, tree, place }) => {
                let node = self.node.clone();
                self.node.blobs.runtime().spawn(async move { files::prefetch(&node, job, tree, place).await });
            }
            Some(message) => self.attempts.handle_to_worker(message, boot),
        }
    }

    /// What the leader wants kept, and what it needs no longer.
    fn keep(&mut self, keep: Vec<Owing>, release: Vec<Owing>) {
        for owing in &release {
            self.owed.remove(owing);
        }
        self.owed.extend(keep.iter().map(|owing| (*owing, None)));
        let _ = self.keeps.send((keep, release));
    }

    /// A leader speaks of what it needs kept here; what it does not speak of in time is somewhere else by now.
    fn forget_owed(&mut self, now: Instant) {
        let old = self.owed.iter().filter(|(_, until)| until.is_some_and(|until| until <= now)).map(|(owing, _)| *owing);
        let old: Vec<Owing> = old.collect();
        if !old.is_empty() {
            self.keep(Vec::new(), old);
        }
    }

    /// Says to the leader what view this node has, and whose certificate. One that finds no room is said again after the next
    /// view or welcome.
    fn tell_view(&self) {
        let Some(link) = &self.link else { return };
        let view = self.node.roster.current();
        let hash = *blake3::hash(&view.canonical()).as_bytes();
        let root = self.node.papers.current().root();
        let _ = link.to.try_send(FromWorker::Synced { version: view.version, hash, root });
    }

    /// A leader that died says nothing: that there is another one ends the stream to it.
    fn handle_leader(&mut self, leader: Option<NodeId>) {
        if self.link.as_ref().is_some_and(|link| Some(link.leader) != leader) {
            self.drop_link();
        }
        self.retry_at = Instant::now();
    }

    fn drop_link(&mut self) {
        if let Some(link) = self.link.take() {
            tracing::debug!(leader = %link.leader, "the stream to the leader ended");
            self.blobs = None;
            self.retry_at = Instant::now() + AGAIN;
            self.attempts.handle_leader_gone((self.node.clocks.boot)());
        }
    }

    async fn handle_wake(&mut self) {
        let boot = (self.node.clocks.boot)();
        self.attempts.handle_timeout(boot);
        let now = Instant::now();
        if self.load_at <= now {
            self.load_at = now + LOAD_EVERY;
            self.attempts.handle_load((self.node.settings.load)());
            self.forget_owed(now);
        }
        if self.link.is_none() && self.retry_at <= now {
            self.retry_at = now + AGAIN;
            self.link = connect(&self.node).await;
            if self.link.is_some() {
                self.attempts.handle_leader(self.node.roster.version(), boot);
                self.owed.values_mut().for_each(|until| *until = Some(now + UNSPOKEN));
                // the report goes first
                self.carry_out().await;
                self.tell_all_blobs().await;
            }
        }
    }

    /// Says which blobs are here; from then on only what changes.
    async fn tell_all_blobs(&mut self) {
        let (all, changes) = self.node.blobs.store.subscribe();
        self.blobs = Some(changes);
        let mut is_all = true;
        // an empty first message clears what the leader may remember
        let mut pieces = all.chunks(BLOBS);
        while let Some(piece) = pieces.next().or(is_all.then_some(&[])) {
            self.say(FromWorker::Blobs { is_all, has: piece.to_vec(), lost: Vec::new() }).await;
            is_all = false;
        }
    }

    async fn tell_blobs(&mut self, first: Change) {
        let mut latest = BTreeMap::from([(first.digest, first.holding)]);
        while latest.len() < BLOBS
            && let Some(Ok(change)) = self.blobs.as_mut().map(mpsc::UnboundedReceiver::try_recv)
        {
            latest.insert(change.digest, change.holding);
        }
        let lost = latest.iter().filter(|(_, holding)| holding.is_none()).map(|(digest, _)| *digest).collect();
        let has = latest.into_values().flatten().collect();
        self.say(FromWorker::Blobs { is_all: false, has, lost }).await;
    }

    async fn say(&mut self, message: FromWorker) {
        if let Some(link) = &self.link
            && link.to.send(message).await.is_err()
        {
            self.drop_link();
        }
    }

    async fn carry_out(&mut self) {
        while let Some(output) = self.attempts.poll_output() {
            match output {
                Output::Send(message) => {
                    if let Some(link) = &self.link
                        && link.to.send(message).await.is_err()
                    {
                        self.drop_link();
                    }
                }
                Output::Start(start) => self.start(start),
                Output::Kill { task, fence, end } => match self.gathering.remove(&(task, fence)) {
                    Some(gathering) => {
                        gathering.abort();
                        self.end_unrun((task, fence), end);
                    }
                    None => self.executors.values().for_each(|executor| executor.kill(task, fence, end.clone())),
                },
                Output::Forget { task, fence } => {
                    files::end(&self.node, (task, fence));
                    self.executors.values().for_each(|executor| executor.forget(task, fence));
                }
                Output::LeaseUntil(until) => self.executors.values().for_each(|executor| executor.lease_until(until)),
            }
        }
    }

    /// Whether it is what its submitter signed, where that is demanded.
    fn judge(&mut self, start: &Start) -> Result<(), String> {
        if !self.node.settings.require_signed || matches!(start.spec.work, Work::Noop) {
            return Ok(());
        }
        let (view, now) = (self.node.roster.current(), self.node.clock.now());
        self.signatures.as_mut().map_err(|why| why.clone())?.judge(start, &self.node.cluster, &view, now)
    }

    fn start(&mut self, start: Start) {
        let (key, name) = ((start.task, start.fence), executor_of(&start.spec.work));
        let why = match (self.executors.contains_key(name), self.judge(&start)) {
            (true, Ok(())) if Files::needs(&start.spec) => return self.gather(start),
            (true, Ok(())) => return self.execute(start),
            (true, Err(why)) => why,
            (false, _) => format!("the executor '{name}' is not enabled on {}", self.node.settings.meta.name),
        };
        self.end_unrun(key, End::Refused(why));
    }

    fn execute(&mut self, start: Start) {
        if !start.spec.outputs.is_empty() {
            self.leaves.insert((start.task, start.fence));
        }
        if let Some(executor) = self.executors.get(executor_of(&start.spec.work)) {
            executor.start(start);
        }
    }

    fn end_unrun(&mut self, (task, fence): Key, end: End) {
        let at = (self.node.clocks.wall)();
        let outcome = Outcome { end, started: at, ended: at, output: None };
        self.attempts.handle_event(ExecEvent::Ended { task, fence, outcome }, (self.node.clocks.boot)());
    }
}

fn executor_of(work: &Work) -> &'static str {
    match work {
        Work::Noop => "noop",
        Work::Exec(_) => "exec",
    }
}

/// A stream to the desk of whoever leads, if that can be had now.
async fn connect(node: &Arc<Node>) -> Option<Link> {
    if let Some(desk) = node.desk.current() {
        let (to, requests) = mpsc::channel(DEPTH);
        let (answers, from) = mpsc::unbounded_channel();
        tokio::spawn(serve_desk(node.clone(), desk, node.me, requests, answers));
        return Some(Link { leader: node.me, to, from });
    }
    let leader = node.peers.leader().1.filter(|leader| *leader != node.me)?;
    let connection = node.control.get(Plane::Control, &node.roster.dial_control(leader)?).await.ok()?;
    let (tx, rx) = connection.open(&Open::Work).await.ok()?;
    let (to, requests) = mpsc::channel(DEPTH);
    let (answers, from) = mpsc::unbounded_channel();
    tokio::spawn(send_all(tx, requests));
    tokio::spawn(receive_all(rx, answers));
    Some(Link { leader, to, from })
}

async fn send_all(mut tx: FrameTx, mut messages: mpsc::Receiver<FromWorker>) {
    while let Some(message) = messages.recv().await {
        if tx.send(&message).await.is_err() {
            return;
        }
    }
    let _ = tx.finish();
}

async fn receive_all(mut rx: FrameRx, messages: mpsc::UnboundedSender<ToWorker>) {
    while let Ok(Some(message)) = rx.recv::<ToWorker>().await {
        if messages.send(message).is_err() {
            return;
        }
    }
}

/// Carries a worker's messages to the desk of this node. The first one must be its report.
async fn serve_desk(
    node: Arc<Node>,
    desk: Desk,
    worker: NodeId,
    mut messages: mpsc::Receiver<FromWorker>,
    answers: mpsc::UnboundedSender<ToWorker>,
) {
    let session = node.next_stream();
    let Some(FromWorker::Report(report)) = messages.recv().await else { return };
    if !is_own(&report, worker) || desk.send(ToDesk::Worker { session, report, tx: answers }).await.is_err() {
        return;
    }
    while let Some(message) = messages.recv().await {
        let own = match &message {
            FromWorker::Report(report) => is_own(report, worker),
            FromWorker::Outcomes { .. }
            | FromWorker::Started(_)
            | FromWorker::LeaseAsk { .. }
            | FromWorker::Load(_)
            | FromWorker::Synced { .. }
            | FromWorker::Blobs { .. }
            | FromWorker::Kept { .. } => true,
        };
        if !own || desk.send(ToDesk::FromWorker { node: worker, session, message }).await.is_err() {
            break;
        }
    }
    let _ = desk.send(ToDesk::WorkerGone { node: worker, session }).await;
}

/// A worker speaks for its own node only, and within bounds.
fn is_own(report: &Report, worker: NodeId) -> bool {
    report.node == worker && report.meta.is_bounded()
}

/// Serves another node's worker at the desk of this node.
pub(crate) async fn serve(node: Arc<Node>, worker: NodeId, mut tx: FrameTx, mut rx: FrameRx) {
    let Some(desk) = node.desk.current() else {
        let hint = node.peers.leader().1.filter(|leader| *leader != node.me);
        if tx.send(&ToWorker::NotLeader { hint }).await.is_ok() {
            let _ = tx.finish();
        }
        return;
    };
    let (to, requests) = mpsc::channel(DEPTH);
    let (answers, mut from) = mpsc::unbounded_channel::<ToWorker>();
    let desk_side = tokio::spawn(serve_desk(node, desk, worker, requests, answers));
    let send = async move {
        while let Some(message) = from.recv().await {
            for part in super::split::to_worker(message) {
                if tx.send(&part).await.is_err() {
                    return;
                }
            }
        }
        let _ = tx.finish();
    };
    let receive = async move {
        while let Ok(Some(message)) = rx.recv::<FromWorker>().await {
            if to.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(send, receive);
    tokio::select! { biased; () = &mut send => {}, () = &mut receive => {} }
    drop(desk_side);
}
