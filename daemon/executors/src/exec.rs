//! `exec`: hands tasks to the keeper, and notices when there is none any more.
//!
//! ```text
//!   start, kill, ..  --commands-->  [ driver ] --frames--> keeper
//!   events           <------------  [ driver ] <--frames-- (own reading task)
//! ```
//! The keeper is started with the first task, and taken over when an earlier life of the daemon left one. When its connection
//! breaks, the keeper is dead or about to be: what it left is killed by its marks, every attempt it had is reported lost, and the next start makes
//! a new one.
//!
//! A keeper that is a service ([`KeeperAt::Socket`]) is started by whoever owns its socket, when we connect. It may run tasks as a
//! user whose processes we can neither see into nor end, so what a dead one left is killed by the next one, as the first thing it
//! does, and its attempts are reported lost when that one answers.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use serde::de::DeserializeOwned;
use swarm_core::attempts::Recovered;
use swarm_proto::{
    Fence, TaskId, frame,
    ledger::{End, Outcome},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    sync::mpsc,
};

use crate::{
    Boot, Events, ExecEvent, Executor, OutputStore, Start,
    files::Shelves,
    files::{left_dir, left_of},
    host::{self, Reading, Writing, wall_now},
    id::keeper_id,
    output::kept::Written,
    protocol::{FRAME, FromKeeper, Key, TaskStart, ToKeeper, VERSION},
};

/// Default bound of kept output, where a tenth of the disk is not less.
const KEPT_TOTAL: u64 = 1 << 30;
/// How long a fresh keeper may take until it answers.
const START_TIME: Duration = Duration::from_secs(5);
/// Between two tries to reach a service: the first pause, which doubles, and the longest. Each try may start it.
const SERVICE_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Commands taken in one turn.
const TURN: usize = 1024;
/// Messages of the keeper that wait for the driver.
const INBOX: usize = 256;

/// Where and how.
#[derive(Clone, Debug)]
pub struct ExecSettings {
    /// Directory of the keeper, made if absent, mode 0700: socket, kept output, working directories.
    pub dir: PathBuf,
    /// Where whole blobs are.
    pub store: Shelves,
    /// How a keeper for it comes to be.
    pub keeper: KeeperAt,
    /// Most bytes of kept output; `None`: 1 GiB or a tenth of the disk, whichever is less.
    pub keep: Option<u64>,
    /// Most bytes that are kept of a task's standard output; never less than [`swarm_proto::limits::KEPT_OUTPUT`].
    pub stdout_limit: u64,
}

/// How a keeper comes to be.
#[derive(Clone, Debug)]
pub enum KeeperAt {
    /// We start it: program and arguments that call [`crate::keeper::main`] with the directory.
    Program(Vec<OsString>),
    /// It is a service: it is there, or begins, when we connect to this socket.
    Socket(PathBuf),
}

/// The executor cannot be had; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("{}: {error}", path.display())]
    Dir { path: PathBuf, error: io::Error },
    /// The keeper of an earlier life speaks another version. Its lease ends it.
    #[error("a keeper of another version ({theirs}, this is {VERSION}) still has tasks; it ends with its lease")]
    Version { theirs: u16 },
    /// The keeper does not answer as it should.
    #[error("the keeper in {}: {why}", path.display())]
    Keeper { path: PathBuf, why: String },
}

enum Command {
    Start(Start),
    Kill(Key, End),
    LeaseUntil(Boot),
    Follow(Key, bool),
    Forget(Key),
}

/// Runs processes. Dropping it ends the connection: the keeper's tasks then go on until the lease ends.
pub struct Exec {
    dir: PathBuf,
    commands: mpsc::UnboundedSender<Command>,
    outputs: Arc<OutputStore>,
}

impl Exec {
    /// Takes over what an earlier life left in `settings.dir`, and answers it. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`]; with `Version`, trying again after the lease succeeds.
    pub async fn open(settings: ExecSettings, events: Events) -> Result<(Self, Vec<Recovered>), OpenError> {
        let dir = settings.dir.clone();
        let dir_error = |error| OpenError::Dir { path: dir.clone(), error };
        host::make_dir(&settings.dir).map_err(dir_error)?;
        let id = keeper_id(&settings.dir).map_err(dir_error)?;
        let keep = settings.keep.unwrap_or_else(|| default_keep(&settings.dir));
        let (commands, inbox) = mpsc::unbounded_channel();
        let to_driver = commands.downgrade();
        let follow = move |key, is_wanted| {
            // without a driver there is nothing to follow
            let _ = to_driver.upgrade().map(|to_driver| to_driver.send(Command::Follow(key, is_wanted)));
        };
        let outputs = OutputStore::new(settings.dir.join("attempts"), keep, follow);
        outputs.collect();
        let mut driver = Driver { settings, id, events, outputs: Arc::clone(&outputs), held: BTreeSet::new(), lease_until: None };
        let (link, recovered) = match driver.find().await {
            Ok((link, recovered)) => {
                let list = driver.take_over(recovered);
                (Some(link), list)
            }
            Err(LinkError::Nobody) => {
                driver.clear_orphans().await;
                driver.clear_left().await;
                (None, Vec::new())
            }
            Err(LinkError::Version(theirs)) => return Err(OpenError::Version { theirs }),
            Err(LinkError::Io(e)) => return Err(OpenError::Keeper { path: driver.settings.dir, why: e.to_string() }),
        };
        tokio::spawn(driver.run(link, inbox));
        Ok((Self { dir, commands, outputs }, recovered))
    }

    /// Where the files are that an attempt left, from its end until it is forgotten. Nothing is there if it was to leave none.
    pub fn left(&self, task: TaskId, fence: Fence) -> PathBuf {
        left_dir(&self.dir, (task, fence))
    }

    /// What its tasks write.
    pub fn outputs(&self) -> Arc<OutputStore> {
        Arc::clone(&self.outputs)
    }

    fn tell(&self, command: Command) {
        // the driver ends only with the runtime
        let _ = self.commands.send(command);
    }
}

impl Executor for Exec {
    fn name(&self) -> &'static str {
        "exec"
    }

    fn start(&self, start: Start) {
        self.outputs.begin((start.task, start.fence));
        self.tell(Command::Start(start));
    }

    fn kill(&self, task: TaskId, fence: Fence, end: End) {
        self.tell(Command::Kill((task, fence), end));
    }

    fn lease_until(&self, until: Boot) {
        self.tell(Command::LeaseUntil(until));
    }

    fn forget(&self, task: TaskId, fence: Fence) {
        self.outputs.settle((task, fence));
        self.tell(Command::Forget((task, fence)));
    }
}

fn default_keep(dir: &Path) -> u64 {
    host::disk_size(dir).map_or(KEPT_TOTAL, |size| (size / 10).min(KEPT_TOTAL))
}

/// A connection on which Hello was answered.
struct Link {
    tx: Writing,
    inbox: mpsc::Receiver<FromKeeper>,
}

enum LinkError {
    /// No keeper is there.
    Nobody,
    Version(u16),
    Io(io::Error),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        // the last two: one that is on its way out
        let nobody = [Kind::NotFound, Kind::ConnectionRefused, Kind::ConnectionReset, Kind::BrokenPipe];
        if nobody.contains(&error.kind()) { Self::Nobody } else { Self::Io(error) }
    }
}

type Found = Vec<(Recovered, [Written; 2])>;

async fn connect(settings: &ExecSettings) -> Result<(Link, Found), LinkError> {
    let (rx, mut tx) = host::dial(&settings.keeper, &settings.dir).await?;
    tx.write_all(&encode(&ToKeeper::Hello { version: VERSION })?).await?;
    let (to_driver, mut inbox) = mpsc::channel(INBOX);
    tokio::spawn(read_frames(rx, to_driver));
    let odd = || LinkError::Io(io::Error::other("it does not say what a keeper says"));
    let FromKeeper::Hello { version } = inbox.recv().await.ok_or(LinkError::Nobody)? else { return Err(odd()) };
    if version != VERSION {
        return Err(LinkError::Version(version));
    }
    let mut found = Vec::new();
    loop {
        match inbox.recv().await.ok_or(LinkError::Nobody)? {
            FromKeeper::Recovered(recovered, written) => found.push((recovered, written)),
            FromKeeper::Ready => return Ok((Link { tx, inbox }, found)),
            FromKeeper::Hello { .. } | FromKeeper::Started(_) | FromKeeper::Ended { .. } | FromKeeper::Chunk { .. } => return Err(odd()),
        }
    }
}

async fn read_frames<T: DeserializeOwned>(rx: Reading, to: mpsc::Sender<T>) {
    let mut rx = BufReader::with_capacity(64 << 10, rx);
    let mut header = [0; frame::HEADER];
    while rx.read_exact(&mut header).await.is_ok() {
        let Ok(len) = frame::body_len(header, FRAME) else { return };
        let mut body = vec![0; len];
        if rx.read_exact(&mut body).await.is_err() {
            return;
        }
        let Ok(message) = frame::decode(&body) else { return };
        if to.send(message).await.is_err() {
            return;
        }
    }
}

fn encode(message: &ToKeeper) -> io::Result<Vec<u8>> {
    frame::encode(message, FRAME).map_err(io::Error::other)
}

struct Driver {
    settings: ExecSettings,
    id: String,
    events: Events,
    outputs: Arc<OutputStore>,
    /// Attempts that the keeper has and that have not ended.
    held: BTreeSet<Key>,
    lease_until: Option<Boot>,
}

impl Driver {
    async fn run(mut self, mut link: Option<Link>, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut batch = Vec::new();
        loop {
            if let Some(open) = &mut link {
                let lives = tokio::select! {
                    biased;
                    message = open.inbox.recv() => message.is_some_and(|message| self.hear(message)),
                    count = commands.recv_many(&mut batch, TURN) => {
                        if count == 0 {
                            return;
                        }
                        self.hand_over(open, &mut batch).await.is_ok()
                    }
                };
                if !lives {
                    link = self.keeper_is_gone().await;
                }
            } else {
                if commands.recv_many(&mut batch, TURN).await == 0 {
                    return;
                }
                link = self.begin(&mut batch).await;
            }
        }
    }

    fn take_over(&mut self, found: Found) -> Vec<Recovered> {
        for (recovered, written) in &found {
            let key = (recovered.task, recovered.fence);
            self.outputs.begin(key);
            if recovered.outcome.is_some() {
                self.outputs.end(key, *written);
            } else {
                self.held.insert(key);
            }
        }
        found.into_iter().map(|(recovered, _)| recovered).collect()
    }

    /// Without a keeper only a start matters: it makes one.
    async fn begin(&mut self, batch: &mut Vec<Command>) -> Option<Link> {
        for command in batch.iter() {
            match command {
                Command::LeaseUntil(until) => self.lease_until = Some(*until),
                Command::Forget(key) => self.drop_left(*key),
                Command::Start(_) | Command::Kill(..) | Command::Follow(..) => {}
            }
        }
        batch.retain(|command| !matches!(command, Command::LeaseUntil(_) | Command::Forget(_)));
        if !batch.iter().any(|command| matches!(command, Command::Start(_))) {
            batch.clear();
            return None;
        }
        match self.start_keeper().await {
            Ok(mut link) => {
                batch.extend(self.lease_until.map(Command::LeaseUntil));
                batch.rotate_right(usize::from(self.lease_until.is_some()));
                if self.hand_over(&mut link, batch).await.is_ok() {
                    return Some(link);
                }
                return self.keeper_is_gone().await;
            }
            Err(why) => {
                tracing::warn!(%why, "the keeper cannot be started");
                for command in batch.drain(..) {
                    if let Command::Start(start) = command {
                        self.ended((start.task, start.fence), End::Spawn(format!("the keeper cannot be started: {why}")));
                    }
                }
            }
        }
        None
    }

    /// A keeper that is there. A service is given the time to come; without it tasks cannot start, and the next one tries again.
    async fn find(&self) -> Result<(Link, Found), LinkError> {
        let (begun, mut pause) = (tokio::time::Instant::now(), SERVICE_PAUSE.0);
        let KeeperAt::Socket(path) = &self.settings.keeper else { return connect(&self.settings).await };
        loop {
            match connect(&self.settings).await {
                Err(LinkError::Nobody) if begun.elapsed() < START_TIME => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(SERVICE_PAUSE.1);
                }
                Err(LinkError::Nobody) => {
                    tracing::warn!(socket = %path.display(), "no keeper answers; tasks cannot start until one does");
                    return Err(LinkError::Nobody);
                }
                other => return other,
            }
        }
    }

    async fn start_keeper(&self) -> Result<Link, String> {
        let program = match &self.settings.keeper {
            KeeperAt::Program(program) => program,
            KeeperAt::Socket(path) => {
                return match self.find().await {
                    Ok((link, _)) => Ok(link),
                    Err(LinkError::Nobody) => Err(format!("none answers at {}", path.display())),
                    Err(LinkError::Version(theirs)) => Err(format!("one of version {theirs} still has tasks")),
                    Err(LinkError::Io(e)) => Err(e.to_string()),
                };
            }
        };
        let [program, args @ ..] = program.as_slice() else { return Err("no program is set".into()) };
        // not the daemon's: whoever reads that to its end would wait for the keeper
        let log_path = self.settings.dir.join("keeper.log");
        let log = std::fs::File::create(&log_path).map_err(|e| format!("{}: {e}", log_path.display()))?;
        let mut command = tokio::process::Command::new(host::kept_program(program, &self.settings.dir));
        host::set_apart(&mut command);
        let mut child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(false)
            .spawn()
            .map_err(|e| format!("{}: {e}", Path::new(program).display()))?;
        let started = tokio::time::Instant::now();
        loop {
            match connect(&self.settings).await {
                Ok((link, _)) => {
                    tokio::spawn(async move { child.wait().await });
                    return Ok(link);
                }
                Err(LinkError::Nobody) if started.elapsed() < START_TIME => {}
                Err(LinkError::Nobody) => return Err("it does not listen".into()),
                Err(LinkError::Version(theirs)) => return Err(format!("one of version {theirs} still has tasks")),
                Err(LinkError::Io(e)) => return Err(e.to_string()),
            }
            if let Ok(Some(status)) = child.try_wait() {
                let said = std::fs::read_to_string(&log_path).unwrap_or_default();
                return Err(format!("it ended at once: {status} {}", said.trim()));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Commands as few frames: consecutive starts of one job share its spec.
    async fn hand_over(&mut self, link: &mut Link, batch: &mut Vec<Command>) -> io::Result<()> {
        let (mut bytes, mut forgotten) = (Vec::new(), Vec::new());
        let mut commands = batch.drain(..).peekable();
        let mut unsent = Vec::new();
        while let Some(command) = commands.next() {
            let message = match command {
                Command::Start(start) => {
                    let (spec, is_array) = (start.spec.clone(), start.is_array);
                    let told = |Start { task, fence, item, own, key, .. }: Start| TaskStart { task, fence, item, own, key };
                    let mut tasks = vec![told(start)];
                    let same = |next: &Command| matches!(next, Command::Start(next) if Arc::ptr_eq(&next.spec, &spec));
                    while let Some(Command::Start(next)) = commands.next_if(same) {
                        tasks.push(told(next));
                    }
                    self.held.extend(tasks.iter().map(|start| (start.task, start.fence)));
                    let (store, stdout_limit) = (self.settings.store.clone(), self.settings.stdout_limit);
                    ToKeeper::Start { spec, is_array, tasks, store, stdout_limit }
                }
                Command::Kill((task, fence), end) => ToKeeper::Kill { task, fence, end },
                Command::LeaseUntil(until) => {
                    self.lease_until = Some(until);
                    ToKeeper::LeaseUntil(until)
                }
                Command::Follow((task, fence), is_wanted) => ToKeeper::Follow { task, fence, is_wanted },
                Command::Forget(key) => {
                    self.drop_left(key);
                    forgotten.push(key);
                    continue;
                }
            };
            match encode(&message) {
                Ok(frame) => bytes.extend_from_slice(&frame),
                Err(_) => unsent.push(message),
            }
        }
        drop(commands);
        self.refuse(unsent);
        if !forgotten.is_empty() {
            // first: what is forgotten may begin once more
            link.tx.write_all(&encode(&ToKeeper::Forget(forgotten))?).await?;
        }
        link.tx.write_all(&bytes).await
    }

    /// A message beyond the frame's bound cannot come from a checked spec.
    fn refuse(&mut self, unsent: Vec<ToKeeper>) {
        for message in unsent {
            if let ToKeeper::Start { tasks, .. } = message {
                for TaskStart { task, fence, .. } in tasks {
                    self.ended((task, fence), End::Spawn("its spec is too large for the keeper".into()));
                }
            }
        }
    }

    /// Whether the keeper makes sense.
    fn hear(&mut self, message: FromKeeper) -> bool {
        match message {
            FromKeeper::Started(list) => {
                for (task, fence, at) in list {
                    let _ = self.events.send(ExecEvent::Started { task, fence, at });
                }
            }
            FromKeeper::Ended { task, fence, outcome, written } => {
                self.held.remove(&(task, fence));
                self.outputs.end((task, fence), written);
                let _ = self.events.send(ExecEvent::Ended { task, fence, outcome });
            }
            FromKeeper::Chunk { task, fence, stream, offset, lines, data } => {
                self.outputs.push((task, fence), stream, (offset, lines), &data);
            }
            FromKeeper::Hello { .. } | FromKeeper::Recovered(..) | FromKeeper::Ready => return false,
        }
        true
    }

    fn ended(&mut self, key: Key, end: End) {
        self.held.remove(&key);
        self.outputs.end(key, [Written::default(); 2]);
        let at = wall_now();
        let outcome = Outcome { end, started: at, ended: at, output: None };
        let _ = self.events.send(ExecEvent::Ended { task: key.0, fence: key.1, outcome });
    }

    /// Its connection broke: nothing of it may live on, and then its attempts are lost. The next one, if a service makes it.
    async fn keeper_is_gone(&mut self) -> Option<Link> {
        self.clear_orphans().await;
        let next = match &self.settings.keeper {
            KeeperAt::Program(_) => None,
            KeeperAt::Socket(_) => self.find().await.ok().map(|(link, _)| link),
        };
        for key in std::mem::take(&mut self.held) {
            self.ended(key, End::Lost);
        }
        next
    }

    /// What an attempt left is no longer needed.
    fn drop_left(&self, key: Key) {
        let left = left_dir(&self.settings.dir, key);
        if left.exists() {
            // many files can be in it, and nobody waits for that
            tokio::task::spawn_blocking(move || drop(std::fs::remove_dir_all(left)));
        }
    }

    /// What attempts of an earlier life left: with their keeper went their outcomes.
    async fn clear_left(&self) {
        let left = left_of(&self.settings.dir);
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(left)).await.unwrap_or_else(|e| Err(io::Error::other(e)));
        if let Some(error) = removed.err().filter(|error| error.kind() != io::ErrorKind::NotFound) {
            tracing::warn!(%error, "what attempts of an earlier life left cannot be removed");
        }
    }

    async fn clear_orphans(&self) {
        let dir = self.settings.dir.clone();
        let id = matches!(self.settings.keeper, KeeperAt::Program(_)).then(|| self.id.clone());
        let killed = tokio::task::spawn_blocking(move || host::clear_orphans(&dir, id.as_deref())).await;
        match killed {
            Ok(Ok(0)) => {}
            Ok(Ok(count)) => tracing::warn!(count, "killed what a dead keeper left behind"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot tell whether a keeper is left"),
            Err(error) => tracing::warn!(%error, "looking for what a dead keeper left behind failed"),
        }
    }
}
