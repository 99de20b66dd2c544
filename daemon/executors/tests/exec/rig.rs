//! An executor over a real keeper, and a look at what its tasks leave in /proc.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use swarm_executors::{Exec, ExecEvent, ExecSettings, Executor, KeeperAt, Recovered, Shelves, Start, boot_now};
use swarm_proto::{
    AttemptNo, Fence, JobId, LogIndex, TaskId,
    ledger::{End, Outcome},
    manifest::FileEntry,
    peer::{OutputChunk, OutputRequest, Stream, Which},
    spec::{Exec as Process, JobSpec, Work},
};
use tokio::sync::mpsc;

pub(crate) type Key = (TaskId, Fence);

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What is kept of a task's standard output.
pub(crate) const STDOUT_LIMIT: u64 = 12_000_000;

static MARKS: AtomicU64 = AtomicU64::new(1);

/// A directory that leaves no keeper behind.
pub(crate) struct Stage(tempfile::TempDir);

impl Drop for Stage {
    fn drop(&mut self) {
        swarm_executors::keeper::end(&self.0.path().join("keeper"));
    }
}

pub(crate) struct Rig {
    pub(crate) dir: PathBuf,
    stage: Option<Stage>,
    pub(crate) exec: Exec,
    pub(crate) recovered: Vec<Recovered>,
    events: mpsc::UnboundedReceiver<ExecEvent>,
    /// Ended, and not yet asked for.
    past: BTreeMap<Key, Outcome>,
    /// In the environment of all its tasks.
    pub(crate) mark: String,
    next: u64,
}

pub(crate) fn settings(dir: &Path) -> ExecSettings {
    let keeper = vec![env!("CARGO_BIN_EXE_swarm-keeper").into(), dir.into()];
    ExecSettings {
        dir: dir.to_owned(),
        store: Shelves { plain: dir.join("store"), sealed: dir.join("sealed") },
        keeper: KeeperAt::Program(keeper),
        keep: None,
        stdout_limit: STDOUT_LIMIT,
    }
}

fn new_mark() -> String {
    format!("rig-{}-{}", std::process::id(), MARKS.fetch_add(1, Ordering::Relaxed))
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("keeper");
        let mut rig = Self::over(settings(&dir), new_mark()).await;
        rig.stage = Some(Stage(temp));
        rig
    }

    /// Its tasks run as `user`, below `home`. Needs root.
    pub(crate) async fn new_as(user: &str, home: &Path) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut settings = settings(&temp.path().join("keeper"));
        if let KeeperAt::Program(program) = &mut settings.keeper {
            program.extend([user.into(), home.into()]);
        }
        let mut rig = Self::over(settings, new_mark()).await;
        rig.stage = Some(Stage(temp));
        rig
    }

    async fn over(settings: ExecSettings, mark: String) -> Self {
        let (tx, events) = mpsc::unbounded_channel();
        let dir = settings.dir.clone();
        let (exec, recovered) = Exec::open(settings, tx).await.unwrap();
        Self { dir, stage: None, exec, recovered, events, past: BTreeMap::new(), mark, next: 1 }
    }

    /// The daemon dies; what is left is its directory.
    pub(crate) async fn die(self) -> (PathBuf, String, Option<Stage>) {
        let Self { dir, mark, stage, exec, mut events, .. } = self;
        drop(exec);
        // the driver says its last words
        while events.recv().await.is_some() {}
        (dir, mark, stage)
    }

    /// The daemon is back.
    pub(crate) async fn back(dir: PathBuf, mark: String, stage: Option<Stage>) -> Self {
        let mut rig = Self::over(settings(&dir), mark).await;
        rig.stage = stage;
        rig.next = 1000;
        rig
    }

    pub(crate) fn lease(&self, span: Duration) {
        self.exec.lease_until(boot_now() + span);
    }

    pub(crate) fn spec(&self, argv: &[&str]) -> JobSpec {
        let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
        let go = self.dir.to_str().unwrap().to_owned();
        let env = BTreeMap::from([("RIG_MARK".to_owned(), self.mark.clone()), ("GO".to_owned(), go)]);
        JobSpec::new(Work::Exec(Process { argv, env, stdin: Bytes::new(), cwd: None }))
    }

    pub(crate) fn sh(&mut self, script: &str) -> Key {
        let spec = self.spec(&["sh", "-c", script]);
        self.start(spec)
    }

    pub(crate) fn start(&mut self, spec: JobSpec) -> Key {
        self.start_array(Arc::new(spec), false, 0, None)
    }

    /// A task of an array, with a file that only it gets.
    pub(crate) fn start_own(&mut self, spec: Arc<JobSpec>, index: u32, own: FileEntry) -> Key {
        self.begin(spec, index, |start| Start { is_array: true, item: Some(own.path.clone()), own: Some(Box::new(own)), ..start })
    }

    pub(crate) fn start_array(&mut self, spec: Arc<JobSpec>, is_array: bool, index: u32, item: Option<String>) -> Key {
        self.begin(spec, index, |start| Start { is_array, item, ..start })
    }

    fn begin(&mut self, spec: Arc<JobSpec>, index: u32, change: impl FnOnce(Start) -> Start) -> Key {
        let task = TaskId { job: JobId(self.next), index };
        let fence = Fence { index: LogIndex(100 + self.next), attempt: AttemptNo(1) };
        self.next += 1;
        self.exec.start(change(Start { task, fence, spec, is_array: false, item: None, own: None, key: None }));
        (task, fence)
    }

    pub(crate) async fn event(&mut self) -> ExecEvent {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("the driver lives")
    }

    pub(crate) async fn ended(&mut self, want: Key) -> Outcome {
        let outcome = self.settled(want).await;
        // a keeper that owes nothing goes with the test
        self.exec.forget(want.0, want.1);
        self.past.remove(&want);
        outcome
    }

    /// It has ended, and its keeper and this node have what it left, all of it.
    pub(crate) async fn settled(&mut self, want: Key) -> Outcome {
        while !self.past.contains_key(&want) {
            if let ExecEvent::Ended { task, fence, outcome } = self.event().await {
                assert_eq!(self.past.insert((task, fence), outcome), None, "ends once");
            }
        }
        self.past[&want].clone()
    }

    pub(crate) async fn started(&mut self, want: Key) {
        loop {
            match self.event().await {
                ExecEvent::Started { task, fence, .. } if (task, fence) == want => return,
                ExecEvent::Started { .. } => {}
                ended @ ExecEvent::Ended { .. } => panic!("{ended:?}"),
            }
        }
    }

    pub(crate) fn read(&self, (task, fence): Key, which: Which, follow: bool) -> mpsc::Receiver<OutputChunk> {
        self.exec.outputs().read(OutputRequest { task, fence, which, follow })
    }

    /// Follows until the task has written `line`.
    pub(crate) async fn wait_for_line(&self, key: Key, line: &str) {
        let mut chunks = self.read(key, Which::Stdout, true);
        let mut text = String::new();
        while !text.lines().any(|of| of == line) {
            match tokio::time::timeout(PATIENCE, chunks.recv()).await.expect("output in time") {
                Some(OutputChunk::Bytes { data, .. }) => text.push_str(std::str::from_utf8(&data).unwrap()),
                other => panic!("{other:?} before '{line}' came: {text}"),
            }
        }
    }

    /// Makes the file `$GO/name`, for which a task waits.
    pub(crate) fn go(&self, name: &str) {
        fs::write(self.dir.join(name), "").unwrap();
    }

    /// Pids of live processes that carry this rig's mark.
    pub(crate) fn left(&self) -> Vec<i32> {
        marked(&self.mark)
    }
}

/// All that came, by stream: bytes, then bytes and lines skipped.
#[derive(Default, Debug)]
pub(crate) struct Heard {
    pub(crate) bytes: [Vec<u8>; 2],
    pub(crate) skipped: [(u64, u64); 2],
}

pub(crate) async fn hear(mut chunks: mpsc::Receiver<OutputChunk>, pause: Duration) -> Heard {
    let mut heard = Heard::default();
    loop {
        match tokio::time::timeout(PATIENCE, chunks.recv()).await.expect("output in time").expect("an end") {
            OutputChunk::Bytes { stream, data } => heard.bytes[usize::from(stream == Stream::Stderr)].extend_from_slice(&data),
            OutputChunk::Skipped { stream, bytes, lines } => {
                let skipped = &mut heard.skipped[usize::from(stream == Stream::Stderr)];
                *skipped = (skipped.0 + bytes, skipped.1 + lines);
            }
            OutputChunk::End => return heard,
            OutputChunk::Failed(problem) => panic!("{problem}"),
        }
        tokio::time::sleep(pause).await;
    }
}

fn has(pid: i32, line: &str) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|byte| *byte == 0).any(|of| of == line.as_bytes()))
}

pub(crate) fn marked(mark: &str) -> Vec<i32> {
    pids().filter(|pid| is_alive(*pid) && has(*pid, &format!("RIG_MARK={mark}"))).collect()
}

/// Whether a process of that task lives.
pub(crate) fn marked_as(mark: &str, task: TaskId) -> bool {
    marked(mark).into_iter().any(|pid| has(pid, &format!("SWARM_TASK_ID={task}")))
}

pub(crate) fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn keeper_pid(dir: &Path) -> i32 {
    fs::read_to_string(dir.join("keeper.lock")).unwrap().parse().unwrap()
}

pub(crate) fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Standard output's head, of an outcome that must be a success.
pub(crate) fn said(outcome: &Outcome) -> &str {
    assert_eq!(outcome.end, End::Succeeded, "{outcome:?}");
    outcome.output.as_ref().map_or("", |output| text(&output.stdout))
}
