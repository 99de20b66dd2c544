//! What the keeper holds, and its loop.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use swarm_core::attempts::must_stop;
use swarm_proto::{ledger::End, spec::JobSpec};
use swarm_win32::Job;
use tokio::{net::windows::named_pipe::NamedPipeServer, sync::mpsc, time::sleep};

use super::{
    DEFAULT_LEASE, GRACE,
    attempt::{self, Event, Leaving},
    pipe_name,
    spawn::{Order, Spawned, Spawner},
};
use crate::{
    Boot,
    files::{Inputs, declared, left_dir},
    link::Link,
    outcomes::{Life, Outcomes},
    output::{
        kept::Written,
        record::{Record, Taken},
    },
    protocol::{FromKeeper, Key, STREAMS, TaskStart, ToKeeper, VERSION},
    windows::{boot_now, pipe::Pipe},
};

/// Bytes of one read.
const BUFFER: usize = 64 << 10;
/// Events of attempts that wait.
const INBOX: usize = 64;
/// The lease is looked at so often: timers of Windows do not count suspend, the lease does.
const LOOK: Duration = Duration::from_millis(250);

struct Attempt {
    life: Life,
    pid: u32,
    job: Arc<Job>,
    records: [Record; 2],
    is_followed: bool,
    killed: Option<End>,
    /// Nothing of it runs any more.
    has_ended: Arc<AtomicBool>,
    /// When its job is ended, if it was asked to end.
    patience: Option<Boot>,
}

/// One whose inputs are on their way.
struct Starting {
    spec: Arc<JobSpec>,
    is_revoked: Arc<AtomicBool>,
    killed: Option<End>,
}

pub(super) struct Keeper {
    pipe: String,
    /// The instance that the next daemon will get.
    free: NamedPipeServer,
    spawner: Spawner,
    link: Option<Link<Pipe>>,
    had_link: bool,
    starting: BTreeMap<Key, Starting>,
    running: BTreeMap<Key, Attempt>,
    dir: PathBuf,
    outcomes: Outcomes,
    stdout_limit: u64,
    lease_until: Boot,
    is_lease_over: bool,
    events: mpsc::Receiver<Event>,
    tell: mpsc::Sender<Event>,
    buffer: Vec<u8>,
}

enum Turn {
    Connected(io::Result<()>),
    Heard(io::Result<()>),
    Event(Option<Event>),
    Looked,
}

impl Keeper {
    /// Listens; inside a tokio runtime.
    pub(super) fn new(dir: &Path, id: &str) -> io::Result<Self> {
        let pipe = pipe_name(id);
        let free = swarm_win32::listen(pipe.as_ref(), true)?;
        let (tell, events) = mpsc::channel(INBOX);
        Ok(Self {
            pipe,
            free,
            spawner: Spawner::new(dir, id),
            link: None,
            had_link: false,
            starting: BTreeMap::new(),
            running: BTreeMap::new(),
            dir: dir.to_owned(),
            outcomes: Outcomes::new(dir.join("attempts")),
            stdout_limit: 0,
            lease_until: boot_now() + DEFAULT_LEASE,
            is_lease_over: false,
            events,
            tell,
            buffer: vec![0; BUFFER],
        })
    }

    pub(super) async fn run(mut self) -> io::Result<()> {
        loop {
            match self.turn().await {
                Turn::Connected(done) => self.accept(done)?,
                Turn::Heard(Ok(())) => self.listen(),
                Turn::Heard(Err(_)) => self.daemon_is_gone(),
                Turn::Event(Some(event)) => self.handle(event),
                // one sender is ours
                Turn::Event(None) | Turn::Looked => {}
            }
            self.check_lease();
            self.end_the_patient();
            self.flush();
            if self.is_finished() {
                return Ok(());
            }
        }
    }

    async fn turn(&mut self) -> Turn {
        let is_blocked = self.link.as_ref().is_some_and(Link::is_blocked);
        let link = self.link.as_ref();
        let heard = async {
            match link {
                Some(link) => link.socket().ready(is_blocked).await,
                None => std::future::pending().await,
            }
        };
        let lease = (!self.is_lease_over).then_some(self.lease_until);
        let soonest = self.running.values().filter_map(|attempt| attempt.patience).chain(lease).min();
        let wait = soonest.map_or(LOOK, |at| at.saturating_sub(boot_now()).clamp(Duration::from_millis(1), LOOK));
        tokio::select! { biased;
            done = self.free.connect() => Turn::Connected(done),
            done = heard => Turn::Heard(done),
            event = self.events.recv() => Turn::Event(event),
            () = sleep(wait) => Turn::Looked,
        }
    }

    fn is_finished(&self) -> bool {
        let is_awaited = self.link.is_some() || !(self.had_link || self.is_lease_over);
        let owes = !self.outcomes.is_empty() && !self.is_lease_over;
        self.starting.is_empty() && self.running.is_empty() && !is_awaited && !owes
    }

    /// The newest daemon is the daemon.
    fn accept(&mut self, done: io::Result<()>) -> io::Result<()> {
        let next = swarm_win32::listen(self.pipe.as_ref(), false)?;
        let connected = std::mem::replace(&mut self.free, next);
        if done.is_ok() {
            // what the one before it still said
            self.listen();
            self.link = Some(Link::over(Pipe(connected)));
        }
        Ok(())
    }

    fn listen(&mut self) {
        let Some(link) = &mut self.link else { return };
        match link.receive(&mut self.buffer) {
            Ok(messages) => self.obey(messages),
            Err(_) => self.daemon_is_gone(),
        }
    }

    fn daemon_is_gone(&mut self) {
        if self.link.take().is_none_or(|link| !link.is_greeted) {
            return;
        }
        self.running.values_mut().for_each(|attempt| attempt.is_followed = false);
        if self.is_lease_over {
            self.kill_all(|_| true);
        }
    }

    fn obey(&mut self, messages: Vec<ToKeeper>) {
        for message in messages {
            match message {
                ToKeeper::Hello { version } => self.greet(version),
                ToKeeper::Start { spec, is_array, tasks, store, stdout_limit } => {
                    // each daemon says the same with every start
                    self.stdout_limit = stdout_limit;
                    for TaskStart { task, fence, item, own, key } in tasks {
                        let manifest = spec.inputs.map(|tree| tree.manifest);
                        let inputs = (manifest.is_some() || own.is_some()).then(|| Inputs { store: store.clone(), key, manifest, own });
                        self.take_on(Order { key: (task, fence), spec: Arc::clone(&spec), is_array, item, work: None }, inputs);
                    }
                }
                ToKeeper::Kill { task, fence, end } => self.kill((task, fence), end),
                ToKeeper::LeaseUntil(until) if until > self.lease_until => {
                    self.lease_until = until;
                    self.is_lease_over = false;
                }
                ToKeeper::LeaseUntil(_) => {}
                ToKeeper::Follow { task, fence, is_wanted } => self.follow((task, fence), is_wanted),
                ToKeeper::Forget(keys) => self.outcomes.forget(&keys),
            }
        }
    }

    fn greet(&mut self, version: u16) {
        let Some(link) = &mut self.link else { return };
        link.say(&FromKeeper::Hello { version: VERSION });
        if version != VERSION {
            return;
        }
        link.is_greeted = true;
        self.had_link = true;
        for (key, starting) in &self.starting {
            link.say(&FromKeeper::Recovered(Life::begun(&starting.spec).told(*key, self.lease_until), [Written::default(); 2]));
        }
        for (key, attempt) in &self.running {
            link.say(&FromKeeper::Recovered(attempt.life.told(*key, self.lease_until), attempt.records.each_ref().map(Record::written)));
        }
        self.outcomes.tell_all(link);
        link.say(&FromKeeper::Ready);
    }

    fn take_on(&mut self, mut order: Order, inputs: Option<Inputs>) {
        let (key, spec) = (order.key, Arc::clone(&order.spec));
        if self.starting.contains_key(&key) || self.running.contains_key(&key) || self.outcomes.holds(key) {
            return;
        }
        if must_stop(&spec) && boot_now() >= self.lease_until {
            return self.end_unrun(key, &spec, End::Lost);
        }
        let Some(inputs) = inputs else { return self.spawn(&order) };
        match self.spawner.work_dir() {
            Ok(work) => {
                order.work = Some(work);
                let is_revoked = Arc::new(AtomicBool::new(false));
                self.starting.insert(key, Starting { spec, is_revoked: Arc::clone(&is_revoked), killed: None });
                tokio::spawn(attempt::bring(order, inputs, is_revoked, self.tell.clone()));
            }
            Err(why) => self.end_unrun(key, &spec, End::Spawn(why)),
        }
    }

    fn spawn(&mut self, order: &Order) {
        match self.spawner.spawn(order) {
            Ok(spawned) => self.register(order, spawned),
            Err(why) => self.end_unrun(order.key, &order.spec, End::Spawn(why)),
        }
    }

    /// Its inputs are there, or it cannot run.
    fn staged(&mut self, order: &Order, staged: Result<(), String>) {
        let Some(starting) = self.starting.remove(&order.key) else { return };
        let end = starting.killed.or_else(|| staged.err().map(End::Input));
        let Some(end) = end else { return self.spawn(order) };
        order.work.iter().for_each(|work| drop(std::fs::remove_dir_all(work)));
        self.end_unrun(order.key, &order.spec, end);
    }

    fn register(&mut self, order: &Order, spawned: Spawned) {
        let (key, spec) = (order.key, &order.spec);
        let Spawned { child, pid, job, work } = spawned;
        let life = Life::begun(spec);
        let records = self.outcomes.records(key, self.stdout_limit);
        let item = order.is_array.then(|| order.item.clone().unwrap_or_else(|| key.0.index.to_string()));
        let has_ended = Arc::new(AtomicBool::new(false));
        let leaves = !spec.outputs.is_empty();
        let leaving = leaves.then(|| Leaving { paths: declared(spec, item.as_deref()), to: left_dir(&self.dir, key) });
        tokio::spawn(attempt::follow(key, child, (Arc::clone(&job), Arc::clone(&has_ended)), work, leaving, self.tell.clone()));
        let started = life.started;
        let attempt = Attempt { life, pid, job, records, is_followed: false, killed: None, has_ended, patience: None };
        self.running.insert(key, attempt);
        if let Some(link) = self.link.as_mut().filter(|link| link.is_greeted) {
            link.say(&FromKeeper::Started(vec![(key.0, key.1, started)]));
        }
    }

    /// At the lease's end dies what must not outlive it; without a daemon, everything.
    fn check_lease(&mut self) {
        if !self.is_lease_over && boot_now() >= self.lease_until {
            self.is_lease_over = true;
            let is_alone = self.link.is_none();
            self.kill_all(|spec| is_alone || must_stop(spec));
        }
    }

    fn kill_all(&mut self, which: impl Fn(&JobSpec) -> bool) {
        let starting = self.starting.iter().map(|(key, starting)| (key, &starting.spec));
        let running = self.running.iter().map(|(key, attempt)| (key, &attempt.life.spec));
        let doomed: Vec<Key> = starting.chain(running).filter(|(_, spec)| which(spec)).map(|(key, _)| *key).collect();
        doomed.into_iter().for_each(|key| self.kill(key, End::Lost));
    }

    fn kill(&mut self, key: Key, end: End) {
        if let Some(starting) = self.starting.get_mut(&key) {
            starting.is_revoked.store(true, Ordering::Relaxed);
            starting.killed.get_or_insert(end);
            return;
        }
        let Some(attempt) = self.running.get_mut(&key).filter(|attempt| !attempt.has_ended.load(Ordering::Relaxed)) else { return };
        let is_urgent = end == End::Lost || swarm_win32::ask_to_stop(attempt.pid).is_err();
        attempt.killed.get_or_insert(end);
        if is_urgent {
            attempt.patience = None;
            // gone already, or tried again with the next word about it
            let _ = attempt.job.end();
        } else {
            attempt.patience.get_or_insert(boot_now() + GRACE);
        }
    }

    fn end_the_patient(&mut self) {
        let now = boot_now();
        for attempt in self.running.values_mut().filter(|attempt| attempt.patience.is_some_and(|until| until <= now)) {
            attempt.patience = None;
            let _ = attempt.job.end();
        }
    }

    fn follow(&mut self, key: Key, is_wanted: bool) {
        let Some(attempt) = self.running.get_mut(&key) else { return };
        attempt.is_followed = is_wanted;
        let at = attempt.records.each_ref().map(Record::written);
        if let (true, Some(link)) = (is_wanted, &mut self.link) {
            // what went into the files before this moment is announced by an empty chunk
            for (stream, written) in STREAMS.into_iter().zip(at) {
                let (offset, lines) = (written.bytes, written.lines);
                link.say_chunk(&FromKeeper::Chunk { task: key.0, fence: key.1, stream, offset, lines, data: Bytes::new() });
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wrote(key, stream, data) => self.wrote(key, stream, data),
            Event::Gone(key, end) => self.conclude(key, end),
            Event::Staged(order, staged) => self.staged(&order, staged),
        }
    }

    fn wrote(&mut self, (task, fence): Key, stream: usize, data: Vec<u8>) {
        let Some(attempt) = self.running.get_mut(&(task, fence)) else { return };
        let Taken { offset, lines, is_kept } = attempt.records[stream].take(&data);
        if let Some(link) = self.link.as_mut().filter(|link| link.is_greeted && (attempt.is_followed || !is_kept)) {
            link.say_chunk(&FromKeeper::Chunk { task, fence, stream: STREAMS[stream], offset, lines, data: data.into() });
        }
    }

    /// The whole tree is gone: the outcome.
    fn conclude(&mut self, key: Key, end: End) {
        let Some(mut attempt) = self.running.remove(&key) else { return };
        let (life, end) = (attempt.life.told(key, self.lease_until), attempt.killed.take().unwrap_or(end));
        self.outcomes.conclude(self.link.as_mut(), life, attempt.records.each_mut(), end);
    }

    fn end_unrun(&mut self, key: Key, spec: &Arc<JobSpec>, end: End) {
        self.outcomes.end_unrun(self.link.as_mut(), Life::begun(spec).told(key, self.lease_until), end);
    }

    fn flush(&mut self) {
        if self.link.as_mut().is_some_and(|link| link.flush().is_err()) {
            self.daemon_is_gone();
        }
    }
}
