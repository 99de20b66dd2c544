//! The main thread: what it holds, and its loop.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, Timespec, epoll, eventfd},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};
use swarm_core::attempts::must_stop;
use swarm_proto::{ledger::End, spec::JobSpec};

use super::{
    DEFAULT_LEASE, GRACE, TICK,
    capture::{Capture, Got},
    ending::Endings,
    link::Link,
    porter::{Leaving, Porter},
    spawn::{Base, Order, Spawned, Spawner},
};
use crate::{
    Boot,
    files::{Inputs, Shelves, declared, left_dir},
    linux::{
        boot_now,
        protocol::{FromKeeper, Key, STREAMS, TaskStart, ToKeeper, VERSION},
    },
    outcomes::{Life, Outcomes},
    output::kept::Written,
};

const LISTENER: u64 = 0;
const LINK: u64 = 1;
const WAKE: u64 = 2;
const TIMER: u64 = 3;
/// Tokens of attempts: the serial number, and two bits that say which of its files.
const FIRST_SERIAL: u64 = 1;
/// Bytes of one read.
const BUFFER: usize = 64 << 10;
/// Reads of one stream in one turn.
const READS: usize = 4;
/// Bytes that are still read of a stream whose processes are all gone. More can come only from a process outside the tree.
const DRAIN: u64 = 4 << 20;
/// How often dead orphans are reaped while nothing else happens.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

pub(super) struct Starting {
    spec: Arc<JobSpec>,
    /// Of an array: what `{}` stands for.
    item: Option<String>,
    killed: Option<End>,
    serial: u64,
    is_followed: bool,
    stdout_limit: u64,
}

pub(super) struct Attempt {
    life: Life,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    serial: u64,
    streams: [Capture; 2],
    work: Option<PathBuf>,
    item: Option<String>,
    is_followed: bool,
    pub(super) killed: Option<End>,
}

pub(super) struct Keeper {
    listener: UnixListener,
    epoll: Arc<OwnedFd>,
    wake: Arc<OwnedFd>,
    timer: OwnedFd,
    pub(super) spawner: Spawner,
    link: Option<Link<UnixStream>>,
    /// Whether room in the socket is waited for.
    is_blocked: bool,
    had_link: bool,
    pub(super) starting: BTreeMap<Key, Starting>,
    pub(super) running: BTreeMap<Key, Attempt>,
    porter: Porter,
    /// All of it is gone, and what it left is being taken away.
    leaving: BTreeMap<Key, (Attempt, End)>,
    dir: PathBuf,
    outcomes: Outcomes,
    serials: BTreeMap<u64, Key>,
    next_serial: u64,
    /// Running and not yet said so, in the order in which they started.
    young: VecDeque<Key>,
    pub(super) endings: Endings,
    lease_until: Boot,
    is_lease_over: bool,
    buffer: Vec<u8>,
}

fn now_and(span: Duration) -> Boot {
    boot_now() + span
}

impl Keeper {
    pub(super) fn new(dir: &Path, base: Base, listener: UnixListener) -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        listener.set_nonblocking(true)?;
        let watch = |fd: &dyn AsFd, token| epoll::add(&*epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN);
        watch(&listener, LISTENER)?;
        watch(&*wake, WAKE)?;
        watch(&timer, TIMER)?;
        let spawner = Spawner::new(base, Arc::clone(&epoll), Arc::clone(&wake))?;
        let porter = Porter::new(spawner.clone(), Arc::clone(&wake))?;
        let mut this = Self {
            listener,
            epoll,
            wake,
            timer,
            spawner,
            link: None,
            is_blocked: false,
            had_link: false,
            starting: BTreeMap::new(),
            running: BTreeMap::new(),
            porter,
            leaving: BTreeMap::new(),
            dir: dir.to_owned(),
            outcomes: Outcomes::new(dir.join("attempts")),
            serials: BTreeMap::new(),
            next_serial: FIRST_SERIAL,
            young: VecDeque::new(),
            endings: Endings::default(),
            lease_until: Boot::ZERO,
            is_lease_over: false,
            buffer: vec![0; BUFFER],
        };
        this.set_lease(now_and(DEFAULT_LEASE))?;
        Ok(this)
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
        loop {
            let timeout = self.timeout().map(|span| Timespec::try_from(span).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 }));
            match epoll::wait(&*self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            self.register_spawned();
            self.register_left();
            for event in events.drain(..) {
                self.handle_event(event.data.u64());
            }
            self.check_lease();
            self.grow_up();
            self.end_what_is_gone();
            self.flush();
            if self.is_finished() {
                return Ok(());
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let young = (!self.starting.is_empty() || !self.young.is_empty()).then_some(TICK);
        let house = (!self.running.is_empty()).then_some(HOUSEKEEPING);
        let ending = self.endings.due().map(|at| at.saturating_sub(boot_now()));
        [young, house, ending].into_iter().flatten().min()
    }

    fn is_finished(&self) -> bool {
        let has_work = !self.starting.is_empty() || !self.running.is_empty() || !self.leaving.is_empty() || self.endings.has_strays();
        let is_awaited = self.link.is_some() || !(self.had_link || self.is_lease_over);
        let owes = !self.outcomes.is_empty() && !self.is_lease_over;
        !has_work && !is_awaited && !owes
    }

    fn handle_event(&mut self, token: u64) {
        match token {
            LISTENER => self.accept(),
            LINK => self.listen(),
            WAKE => {
                let _ = rustix::io::read(&*self.wake, &mut [0u8; 8]);
            }
            TIMER => {
                let _ = rustix::io::read(&self.timer, &mut [0u8; 8]);
            }
            token => {
                let Some(key) = self.serials.get(&(token >> 2)).copied() else { return };
                match token & 3 {
                    0 => self.root_has_exited(key),
                    stream => self.read_stream(key, usize::from(stream == 2)),
                }
            }
        }
    }

    /// The newest daemon is the daemon.
    fn accept(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else { return };
        let Ok(link) = Link::new(socket) else { return };
        // what the one before it still said
        self.listen();
        let watched = epoll::add(&*self.epoll, link.socket(), epoll::EventData::new_u64(LINK), epoll::EventFlags::IN);
        if watched.is_ok() {
            self.link = Some(link);
            self.is_blocked = false;
        }
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
        self.starting.values_mut().for_each(|starting| starting.is_followed = false);
        if self.is_lease_over {
            self.kill_all(|_| true);
        }
    }

    fn obey(&mut self, messages: Vec<ToKeeper>) {
        let mut orders = Vec::new();
        for message in messages {
            match message {
                ToKeeper::Hello { version } => self.greet(version),
                ToKeeper::Start { spec, is_array, tasks, store, stdout_limit } => {
                    for start in tasks {
                        orders.extend(self.take_on(start, &spec, is_array, (&store, stdout_limit)));
                    }
                }
                ToKeeper::Kill { task, fence, end } => {
                    self.carry_out(&mut orders);
                    self.kill((task, fence), end);
                }
                ToKeeper::LeaseUntil(until) => {
                    // a timer that cannot be set leaves the old end in force
                    let _ = self.set_lease(until);
                }
                ToKeeper::Follow { task, fence, is_wanted } => self.follow((task, fence), is_wanted),
                ToKeeper::Forget(keys) => self.outcomes.forget(&keys),
            }
        }
        self.carry_out(&mut orders);
    }

    fn carry_out(&self, orders: &mut Vec<Order>) {
        for order in orders.extract_if(.., |order| order.inputs.is_some()) {
            self.porter.bring(order);
        }
        if !orders.is_empty() {
            self.spawner.order(std::mem::take(orders));
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
        let leaving = self.leaving.iter().map(|(key, (attempt, _))| (key, attempt));
        for (key, attempt) in self.running.iter().chain(leaving) {
            link.say(&FromKeeper::Recovered(attempt.life.told(*key, self.lease_until), attempt.streams.each_ref().map(Capture::written)));
        }
        self.outcomes.tell_all(link);
        link.say(&FromKeeper::Ready);
    }

    fn take_on(&mut self, start: TaskStart, spec: &Arc<JobSpec>, is_array: bool, (store, stdout_limit): (&Shelves, u64)) -> Option<Order> {
        let TaskStart { task, fence, item, own, key: opener } = start;
        let key = (task, fence);
        let is_here = self.starting.contains_key(&key) || self.running.contains_key(&key) || self.leaving.contains_key(&key);
        if is_here || self.outcomes.holds(key) {
            return None;
        }
        if must_stop(spec) && boot_now() >= self.lease_until {
            self.end_unrun(key, spec, End::Lost);
            return None;
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let told = is_array.then(|| item.clone().unwrap_or_else(|| task.index.to_string()));
        let starting = Starting { spec: Arc::clone(spec), item: told, killed: None, serial, is_followed: false, stdout_limit };
        self.starting.insert(key, starting);
        let manifest = spec.inputs.map(|tree| tree.manifest);
        let inputs = (manifest.is_some() || own.is_some()).then(|| Inputs { store: store.clone(), key: opener, manifest, own });
        Some(Order { key, token: serial << 2, spec: Arc::clone(spec), is_array, item, inputs, work: None })
    }

    fn set_lease(&mut self, until: Boot) -> io::Result<()> {
        if until <= self.lease_until {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Timespec::try_from(until).map_err(io::Error::other)?;
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: zero, it_value: at })?;
        self.lease_until = until;
        self.is_lease_over = false;
        Ok(())
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
        for key in starting.chain(running).filter(|(_, spec)| which(spec)).map(|(key, _)| *key).collect::<Vec<_>>() {
            self.kill(key, End::Lost);
        }
    }

    fn kill(&mut self, key: Key, end: End) {
        if let Some(starting) = self.starting.get_mut(&key) {
            if self.spawner.revoke(key) || self.porter.revoke(key) {
                let spec = Arc::clone(&starting.spec);
                self.starting.remove(&key);
                self.end_unrun(key, &spec, end);
            } else {
                starting.killed = Some(end);
            }
        } else if let Some(attempt) = self.running.get_mut(&key) {
            let grace = if end == End::Lost { None } else { Some(now_and(GRACE)) };
            // its root is gone, but not its files: what would be stopped then is not begun
            let would_leave = end != End::Lost && !attempt.life.spec.outputs.is_empty();
            if would_leave || !self.endings.has_exited(key) {
                attempt.killed.get_or_insert(end);
            }
            self.endings.kill(key, grace);
        } else if let Some((attempt, _)) = self.leaving.get_mut(&key) {
            attempt.killed.get_or_insert(end);
            self.porter.revoke(key);
        }
    }

    fn follow(&mut self, key: Key, is_wanted: bool) {
        if let Some(starting) = self.starting.get_mut(&key) {
            starting.is_followed = is_wanted;
        }
        let Some(attempt) = self.running.get_mut(&key) else { return };
        attempt.is_followed = is_wanted;
        let at = attempt.streams.each_ref().map(Capture::written);
        if let (true, Some(link)) = (is_wanted, &mut self.link) {
            // what went into the files before this moment is announced by an empty chunk
            for (stream, written) in STREAMS.into_iter().zip(at) {
                let (offset, lines) = (written.bytes, written.lines);
                link.say_chunk(&FromKeeper::Chunk { task: key.0, fence: key.1, stream, offset, lines, data: Bytes::new() });
            }
        }
    }

    fn register_spawned(&mut self) {
        if self.starting.is_empty() {
            return;
        }
        for (key, made) in self.spawner.done() {
            let Some(starting) = self.starting.remove(&key) else { continue };
            match made {
                Ok(made) => self.register(key, starting, made),
                Err(end) => self.end_unrun(key, &starting.spec, starting.killed.unwrap_or(end)),
            }
        }
    }

    fn register(&mut self, key: Key, starting: Starting, made: Spawned) {
        let Starting { spec, item, killed, serial, is_followed, stdout_limit } = starting;
        let Spawned { pid, pidfd, stdout, stderr, work, started, started_boot } = made;
        let [out, err] = self.outcomes.records(key, stdout_limit);
        let streams = [Capture::new(stdout, out), Capture::new(stderr, err)];
        let life = Life { spec, started, started_boot };
        let attempt = Attempt { life, pid, pidfd, serial, streams, work, item, is_followed, killed: None };
        self.running.insert(key, attempt);
        self.serials.insert(serial, key);
        self.young.push_back(key);
        if let Some(end) = killed {
            self.kill(key, end);
        }
    }

    /// Says that the older ones of the young run, and watches their pipes.
    fn grow_up(&mut self) {
        let now = boot_now();
        let mut started = Vec::new();
        while let Some(key) = self.young.front().copied() {
            match self.running.get(&key) {
                Some(attempt) if attempt.life.started_boot + TICK > now => break,
                Some(attempt) => {
                    started.push((key.0, key.1, attempt.life.started));
                    for (n, stream) in attempt.streams.iter().enumerate() {
                        let data = epoll::EventData::new_u64(attempt.serial << 2 | (n as u64 + 1));
                        if let Some(pipe) = stream.pipe() {
                            // not watched, it is still read at the end
                            let _ = epoll::add(&*self.epoll, pipe, data, epoll::EventFlags::IN);
                        }
                    }
                }
                None => {}
            }
            self.young.pop_front();
        }
        if let (Some(link), false) = (self.link.as_mut().filter(|link| link.is_greeted), started.is_empty()) {
            link.say(&FromKeeper::Started(started));
        }
    }

    fn read_stream(&mut self, key: Key, n: usize) {
        for _ in 0..READS {
            if !matches!(self.read_once(key, n), Got::Bytes { .. }) {
                return;
            }
        }
    }

    fn read_once(&mut self, (task, fence): Key, n: usize) -> Got {
        let Some(attempt) = self.running.get_mut(&(task, fence)) else { return Got::End };
        let got = attempt.streams[n].read(&mut self.buffer);
        if let (Got::Bytes { offset, lines, len, is_kept }, Some(link)) = (got, &mut self.link)
            && link.is_greeted
            && (attempt.is_followed || !is_kept)
        {
            let data = Bytes::copy_from_slice(&self.buffer[..len]);
            link.say_chunk(&FromKeeper::Chunk { task, fence, stream: STREAMS[n], offset, lines, data });
        }
        got
    }

    /// The whole tree is gone: the last bytes, the outcome.
    pub(super) fn conclude(&mut self, key: Key, end: End) {
        for n in 0..STREAMS.len() {
            let mut drained = 0;
            while let Got::Bytes { len, .. } = self.read_once(key, n) {
                drained += len as u64;
                if drained > DRAIN {
                    break;
                }
            }
        }
        let Some(mut attempt) = self.running.remove(&key) else { return };
        self.serials.remove(&attempt.serial);
        let end = attempt.killed.take().unwrap_or(end);
        let work = attempt.work.take();
        match work {
            Some(work) if !attempt.life.spec.outputs.is_empty() && matches!(end, End::Succeeded | End::Exit(_)) => {
                let (paths, must_be_there) = (declared(&attempt.life.spec, attempt.item.as_deref()), end == End::Succeeded);
                self.porter.take(Leaving { key, work, paths, must_be_there, to: left_dir(&self.dir, key) });
                self.leaving.insert(key, (attempt, end));
                return;
            }
            Some(work) => self.spawner.take_back(work),
            None => {}
        }
        self.tell_end(key, attempt, end);
    }

    /// What attempts left is where the daemon finds it, or cannot be; one that failed by itself says no more than that.
    fn register_left(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        for (key, left) in self.porter.left() {
            let Some((mut attempt, end)) = self.leaving.remove(&key) else { continue };
            let refused = left.err().filter(|_| end == End::Succeeded).map(End::Output);
            let end = attempt.killed.take().or(refused).unwrap_or(end);
            self.tell_end(key, attempt, end);
        }
    }

    fn tell_end(&mut self, key: Key, mut attempt: Attempt, end: End) {
        let life = attempt.life.told(key, self.lease_until);
        self.outcomes.conclude(self.link.as_mut(), life, attempt.streams.each_mut().map(Capture::record), end);
    }

    fn end_unrun(&mut self, key: Key, spec: &Arc<JobSpec>, end: End) {
        self.outcomes.end_unrun(self.link.as_mut(), Life::begun(spec).told(key, self.lease_until), end);
    }

    fn flush(&mut self) {
        let Some(link) = &mut self.link else { return };
        if link.flush().is_err() {
            self.daemon_is_gone();
            return;
        }
        let is_blocked = link.is_blocked();
        if is_blocked != self.is_blocked {
            let flags = if is_blocked { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            // the next message tries again
            if epoll::modify(&*self.epoll, link.socket(), epoll::EventData::new_u64(LINK), flags).is_ok() {
                self.is_blocked = is_blocked;
            }
        }
    }

    /// Attempts that an orphan may belong to.
    pub(super) fn alive(&self) -> BTreeSet<Key> {
        self.starting.keys().chain(self.running.keys()).copied().collect()
    }
}
