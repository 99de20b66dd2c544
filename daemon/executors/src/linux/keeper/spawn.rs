//! Makes processes, on threads of its own: `posix_spawn` holds its caller until the new program runs.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File},
    io::{Seek, Write},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStringExt,
            fs::{DirBuilderExt, MetadataExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    event::epoll,
    fs::{Access, AtFlags, MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process_group, pidfd_open, waitpid},
};
use swarm_proto::{
    UnixMillis,
    ledger::End,
    spec::{Exec, JobSpec, Work},
};

use super::super::{
    boot_now,
    protocol::Key,
    task_user::{TaskUser, acting_as},
    tree, wall_now,
};
use crate::{Boot, argv, files::Inputs};

/// Most spawning threads; more only take turns in the kernel.
const THREADS: usize = 4;
/// Stack of a spawning thread.
const STACK: usize = 256 << 10;
/// Variables of the keeper's own environment that tasks see.
const INHERITED: [&str; 8] = ["PATH", "HOME", "LANG", "LC_ALL", "USER", "LOGNAME", "SHELL", "TZ"];
/// Those that are another user's where tasks run as one.
const OF_THE_USER: [&str; 4] = ["HOME", "USER", "LOGNAME", "SHELL"];
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process to make.
pub(super) struct Order {
    pub(super) key: Key,
    /// What its pidfd wakes the main thread with.
    pub(super) token: u64,
    pub(super) spec: Arc<JobSpec>,
    pub(super) is_array: bool,
    pub(super) item: Option<String>,
    /// To be put into its directory first.
    pub(super) inputs: Option<Inputs>,
    /// Its own working directory, where there is one already.
    pub(super) work: Option<PathBuf>,
}

/// A process made.
pub(super) struct Spawned {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) stdout: File,
    pub(super) stderr: File,
    /// Its own working directory, to be removed.
    pub(super) work: Option<PathBuf>,
    pub(super) started: UnixMillis,
    pub(super) started_boot: Boot,
}

impl Spawned {
    /// It cannot be kept.
    fn abandon(&self) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

pub(super) type Done = (Key, Result<Spawned, End>);

struct Shared {
    orders: Mutex<VecDeque<Order>>,
    is_there: Condvar,
    done: Mutex<Vec<Done>>,
    /// Working directories that are empty and unused.
    spare: Mutex<Vec<PathBuf>>,
    dirs_made: AtomicU64,
    epoll: Arc<OwnedFd>,
    /// Wakes the main thread for a failure, which no pidfd tells.
    wake: Arc<OwnedFd>,
    base: Base,
}

/// What all processes share.
pub(super) struct Base {
    work: PathBuf,
    keeper: String,
    env: Vec<(&'static str, OsString)>,
    user: Option<TaskUser>,
}

/// The threads. They end with the process.
#[derive(Clone)]
pub(super) struct Spawner(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // both queues are whole after each line that holds the lock
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spawner {
    /// What processes of this keeper have in common: where their directories are made, whose they are, as whom they run.
    pub(super) fn base(work: PathBuf, keeper: String, user: Option<TaskUser>) -> Base {
        let mut env: Vec<_> = INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect();
        if env.iter().all(|(name, _)| *name != "PATH") {
            env.push(("PATH", DEFAULT_PATH.into()));
        }
        if let Some(user) = &user {
            env.retain(|(name, _)| !OF_THE_USER.contains(name));
            env.extend([("HOME", user.home.clone().into()), ("SHELL", "/bin/sh".into())]);
            env.extend(["USER", "LOGNAME"].map(|name| (name, user.name.clone().into())));
        }
        Base { work, keeper, env, user }
    }

    pub(super) fn new(base: Base, epoll: Arc<OwnedFd>, wake: Arc<OwnedFd>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            orders: Mutex::default(),
            is_there: Condvar::new(),
            done: Mutex::default(),
            spare: Mutex::default(),
            dirs_made: AtomicU64::new(0),
            epoll,
            wake,
            base,
        });
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
        for _ in 0..threads {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("spawn".into()).stack_size(STACK).spawn(move || shared.work())?;
        }
        Ok(Self(shared))
    }

    pub(super) fn order(&self, orders: Vec<Order>) {
        let count = orders.len();
        lock(&self.0.orders).extend(orders);
        if count == 1 { self.0.is_there.notify_one() } else { self.0.is_there.notify_all() }
    }

    /// Takes an order back; false: it is being carried out.
    pub(super) fn revoke(&self, key: Key) -> bool {
        let mut orders = lock(&self.0.orders);
        let at = orders.iter().position(|order| order.key == key);
        at.is_some_and(|at| orders.remove(at).is_some())
    }

    /// Takes a working directory back. What a task left in it is removed aside, and so is one that it made unusable.
    pub(super) fn take_back(&self, path: PathBuf) {
        if acting_as(self.user(), || is_as_new(&path)) {
            lock(&self.0.spare).push(path);
            return;
        }
        let shared = Arc::clone(&self.0);
        let remove = move || {
            let _ = acting_as(shared.base.user.as_ref(), || fs::remove_dir_all(path));
        };
        // without a thread it stays until the next keeper begins
        let _ = std::thread::Builder::new().name("remove".into()).spawn(remove);
    }

    /// An empty directory. Making and removing one a task waits for the file system's journal, so they are used again.
    pub(super) fn work_dir(&self) -> Result<PathBuf, String> {
        acting_as(self.user(), || self.0.work_dir())
    }

    /// An attempt cannot be made.
    pub(super) fn fail(&self, key: Key, end: End) {
        lock(&self.0.done).push((key, Err(end)));
        self.0.wake_main();
    }

    /// As whom processes run, if not as we do.
    pub(super) fn user(&self) -> Option<&TaskUser> {
        self.0.base.user.as_ref()
    }

    pub(super) fn done(&self) -> Vec<Done> {
        std::mem::take(&mut lock(&self.0.done))
    }
}

fn is_as_new(dir: &Path) -> bool {
    let is_ours = fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.mode() & 0o7777 == 0o700);
    is_ours && fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

impl Shared {
    fn work(self: &Arc<Self>) {
        loop {
            let mut orders = lock(&self.orders);
            let order = loop {
                match orders.pop_front() {
                    Some(order) => break order,
                    None => orders = self.is_there.wait(orders).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(orders);
            let (key, token) = (order.key, order.token);
            let made = self.spawn(order).map_err(End::Spawn);
            let mut done = lock(&self.done);
            let made = made.and_then(|made| {
                let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
                // an exit that nothing tells would be missed for ever
                let added = epoll::add(&*self.epoll, &made.pidfd, epoll::EventData::new_u64(token), flags);
                added.inspect_err(|_| made.abandon()).map(|()| made).map_err(|e| End::Spawn(format!("watching the process: {e}")))
            });
            let is_failed = made.is_err();
            done.push((key, made));
            drop(done);
            if is_failed {
                self.wake_main();
            }
        }
    }

    fn wake_main(&self) {
        // a counter that is full wakes just as well
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    fn spawn(self: &Arc<Self>, order: Order) -> Result<Spawned, String> {
        let Work::Exec(exec) = &order.spec.work else { return Err("the keeper runs processes only".into()) };
        let item = order.item.unwrap_or_else(|| order.key.0.index.to_string());
        let argv = argv::with_item(&exec.argv, order.is_array.then_some(&item))?;
        let name = argv.first().ok_or("there is no program to run")?;
        let user = self.base.user.as_ref();
        let Prepared { program, input, own, stdout, stderr } = acting_as(user, || self.prepare(name, exec, order.work))?;
        let mut command = Command::new(program);
        command.arg0(name).args(&argv[1..]).process_group(0).stdin(input).stdout(stdout.1).stderr(stderr.1);
        if let Some(user) = user {
            command.uid(user.uid);
        }
        self.base.environment(&mut command, exec, &order.key, order.is_array.then_some(item.as_str()));
        let cwd = own.as_deref().unwrap_or_else(|| Path::new(exec.cwd.as_deref().unwrap_or(".")));
        command.current_dir(cwd);
        let made = command.spawn().map_err(|e| acting_as(user, || explain(name, cwd, &e)));
        let made = made.and_then(|child| spawned(&child, [stdout.0, stderr.0], own.clone()));
        if made.is_err()
            && let Some(own) = own
        {
            Spawner(Arc::clone(self)).take_back(own);
        }
        made
    }

    /// What belongs to the task before it is there: its user may open a pipe by name, as `echo >/dev/stderr` does.
    fn prepare(&self, name: &str, exec: &Exec, work: Option<PathBuf>) -> Result<Prepared, String> {
        let (program, input) = (self.base.find(name, exec)?, stdin(exec)?);
        let (stdout, stderr) = (pipe()?, pipe()?);
        let own = match work {
            None if exec.cwd.is_none() => Some(self.work_dir()?),
            work => work,
        };
        Ok(Prepared { program, input, own, stdout, stderr })
    }

    fn work_dir(&self) -> Result<PathBuf, String> {
        if let Some(path) = lock(&self.spare).pop() {
            return Ok(path);
        }
        let path = self.base.work.join(self.dirs_made.fetch_add(1, Ordering::Relaxed).to_string());
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|e| format!("making the working directory {}: {e}", path.display()))?;
        Ok(path)
    }
}

impl Base {
    fn environment(&self, command: &mut Command, exec: &Exec, (task, fence): &Key, item: Option<&str>) {
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value))).envs(&exec.env);
        command.env(tree::TASK_ID, task.to_string()).env(tree::FENCE, fence.to_string()).env(tree::KEEPER, &self.keeper);
        command.env("SWARM_JOB_ID", task.job.to_string()).env("SWARM_ATTEMPT", fence.attempt.0.to_string());
        if let Some(item) = item {
            command.env("SWARM_INDEX", task.index.to_string()).env("SWARM_ITEM", item);
        }
    }

    /// The program's path: looked up here, because a changed PATH would cost std its `posix_spawn`.
    fn find(&self, name: &str, exec: &Exec) -> Result<PathBuf, String> {
        if name.contains('/') {
            return Ok(name.into());
        }
        let own = || self.env.iter().find(|(name, _)| *name == "PATH").map(|(_, value)| value.clone());
        let path = exec.env.get("PATH").map(OsString::from).or_else(own).unwrap_or_else(|| DEFAULT_PATH.into());
        let may_run = |path: &Path| rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
        let is_program = |path: &PathBuf| may_run(path) && path.is_file();
        std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(is_program)
            .ok_or_else(|| format!("{name}: not found in PATH ({})", String::from_utf8_lossy(&path.into_vec())))
    }
}

fn explain(name: &str, cwd: &Path, error: &std::io::Error) -> String {
    if cwd.is_dir() { format!("{name}: {error}") } else { format!("the working directory {} is not there", cwd.display()) }
}

/// What a process is made with: for each stream, the end that we read, and its own.
struct Prepared {
    program: PathBuf,
    input: Stdio,
    own: Option<PathBuf>,
    stdout: (File, Stdio),
    stderr: (File, Stdio),
}

fn pipe() -> Result<(File, Stdio), String> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| format!("making a pipe: {e}"))?;
    fcntl_getfl(&ours).and_then(|flags| fcntl_setfl(&ours, flags | OFlags::NONBLOCK)).map_err(|e| format!("making a pipe: {e}"))?;
    Ok((ours.into(), theirs.into()))
}

fn spawned(child: &std::process::Child, [stdout, stderr]: [File; 2], work: Option<PathBuf>) -> Result<Spawned, String> {
    let (started, started_boot) = (wall_now(), boot_now());
    let pid = child.id().cast_signed();
    let watched = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    watched.map(|pidfd| Spawned { pid, pidfd, stdout, stderr, work, started, started_boot }).map_err(|e| {
        // not `Child::kill`: it may be another user's, and its group goes too
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        format!("watching the process: {e}")
    })
}

/// Bytes that wait in memory, so that nobody has to feed a pipe.
fn stdin(exec: &Exec) -> Result<Stdio, String> {
    if exec.stdin.is_empty() {
        return Ok(Stdio::null());
    }
    let fill = || -> std::io::Result<File> {
        let mut file = File::from(memfd_create("stdin", MemfdFlags::CLOEXEC)?);
        file.write_all(&exec.stdin)?;
        file.rewind()?;
        Ok(file)
    };
    fill().map(Stdio::from).map_err(|e| format!("standard input: {e}"))
}
