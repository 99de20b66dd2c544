//! Makes a process that is in its job before it runs.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use swarm_proto::spec::{Exec, JobSpec, Work};
use swarm_win32::Job;
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

use crate::{argv, protocol::Key};

/// Variables of the keeper's own environment that tasks see: without most of them programs of Windows do not start.
const INHERITED: [&str; 22] = [
    "ALLUSERSPROFILE",
    "APPDATA",
    "ComSpec",
    "CommonProgramFiles",
    "HOMEDRIVE",
    "HOMEPATH",
    "LOCALAPPDATA",
    "NUMBER_OF_PROCESSORS",
    "OS",
    "PATH",
    "PATHEXT",
    "PROCESSOR_ARCHITECTURE",
    "ProgramData",
    "ProgramFiles",
    "PUBLIC",
    "SystemDrive",
    "SystemRoot",
    "TEMP",
    "TMP",
    "USERNAME",
    "USERPROFILE",
    "windir",
];
/// What a name without an ending may end with where the host does not say.
const ENDINGS: &str = ".COM;.EXE;.BAT;.CMD";
/// Its first thread waits to be resumed.
const SUSPENDED: u32 = 0x4;
/// Ctrl-Break reaches it and its own alone.
const NEW_PROCESS_GROUP: u32 = 0x200;

/// A process to make.
pub(super) struct Order {
    pub(super) key: Key,
    pub(super) spec: Arc<JobSpec>,
    pub(super) is_array: bool,
    pub(super) item: Option<String>,
    /// Its own working directory, where there is one already.
    pub(super) work: Option<PathBuf>,
}

/// A process made; it runs.
pub(super) struct Spawned {
    pub(super) child: Child,
    pub(super) pid: u32,
    pub(super) job: Arc<Job>,
    /// Its own working directory, to be removed.
    pub(super) work: Option<PathBuf>,
}

/// What all processes share.
pub(super) struct Spawner {
    work: PathBuf,
    keeper: String,
    env: Vec<(&'static str, OsString)>,
    dirs_made: u64,
}

impl Spawner {
    pub(super) fn new(dir: &Path, keeper: &str) -> Self {
        let env = INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect();
        Self { work: dir.join("work"), keeper: keeper.to_owned(), env, dirs_made: 0 }
    }

    pub(super) fn spawn(&mut self, order: &Order) -> Result<Spawned, String> {
        let Work::Exec(exec) = &order.spec.work else { return Err("the keeper runs processes only".into()) };
        let item = order.item.clone().unwrap_or_else(|| order.key.0.index.to_string());
        let argv = argv::with_item(&exec.argv, order.is_array.then_some(&item))?;
        let name = argv.first().ok_or("there is no program to run")?;
        let own = match &order.work {
            None if exec.cwd.is_none() => Some(self.work_dir()?),
            work => work.clone(),
        };
        let cwd = own.as_deref().unwrap_or_else(|| Path::new(exec.cwd.as_deref().unwrap_or(".")));
        let made = self.find(name, cwd, exec).and_then(|program| {
            let mut command = Command::new(program);
            command.args(&argv[1..]).current_dir(cwd).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.stdin(if exec.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
            self.environment(&mut command, exec, &order.key, order.is_array.then_some(item.as_str()));
            start(&mut command, exec).map_err(|why| explain(name, cwd, &why))
        });
        match made {
            Ok((child, pid, job)) => Ok(Spawned { child, pid, job: Arc::new(job), work: own }),
            Err(why) => {
                own.into_iter().for_each(|path| drop(fs::remove_dir_all(path)));
                Err(why)
            }
        }
    }

    /// An empty directory.
    pub(super) fn work_dir(&mut self) -> Result<PathBuf, String> {
        self.dirs_made += 1;
        let path = self.work.join(self.dirs_made.to_string());
        fs::create_dir(&path).map_err(|e| format!("making the working directory {}: {e}", path.display()))?;
        Ok(path)
    }

    fn environment(&self, command: &mut Command, exec: &Exec, (task, fence): &Key, item: Option<&str>) {
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value))).envs(&exec.env);
        command.env("SWARM_TASK_ID", task.to_string()).env("SWARM_FENCE", fence.to_string()).env("SWARM_KEEPER", &self.keeper);
        command.env("SWARM_JOB_ID", task.job.to_string()).env("SWARM_ATTEMPT", fence.attempt.0.to_string());
        if let Some(item) = item {
            command.env("SWARM_INDEX", task.index.to_string()).env("SWARM_ITEM", item);
        }
    }

    /// A variable as the task will see it; their names have no case here.
    fn variable(&self, name: &str, exec: &Exec) -> Option<OsString> {
        let asked = exec.env.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.into());
        asked.or_else(|| self.env.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone()))
    }

    /// The program's path: as it stands or below the working directory where it names a place, else along PATH; with each of
    /// PATHEXT's endings where it has none.
    fn find(&self, name: &str, cwd: &Path, exec: &Exec) -> Result<PathBuf, String> {
        let endings = self.variable("PATHEXT", exec).map_or_else(|| ENDINGS.to_owned(), |of| of.to_string_lossy().into_owned());
        let look = |path: PathBuf| -> Option<PathBuf> {
            if path.extension().is_some() && path.is_file() {
                return Some(path);
            }
            endings.split(';').filter(|ending| !ending.is_empty()).map(|ending| with_ending(&path, ending)).find(|path| path.is_file())
        };
        if name.contains(['/', '\\', ':']) {
            return look(cwd.join(name)).ok_or_else(|| format!("{name}: there is no such program"));
        }
        let path = self.variable("PATH", exec).unwrap_or_default();
        std::env::split_paths(&path)
            .find_map(|dir| look(dir.join(name)))
            .ok_or_else(|| format!("{name}: not found in PATH ({})", path.to_string_lossy()))
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(OsStr::new(ending));
    name.into()
}

fn start(command: &mut Command, exec: &Exec) -> std::io::Result<(Child, u32, Job)> {
    let job = Job::create(None)?;
    let mut child = command.creation_flags(SUSPENDED | NEW_PROCESS_GROUP).kill_on_drop(true).spawn()?;
    let pid = child.id().ok_or_else(|| std::io::Error::other("it ended at once"))?;
    job.adopt(&child)?;
    swarm_win32::resume(pid)?;
    if let Some(mut stdin) = child.stdin.take() {
        let bytes = exec.stdin.clone();
        // a task that does not want it all closes its end
        tokio::spawn(async move { stdin.write_all(&bytes).await });
    }
    Ok((child, pid, job))
}

fn explain(name: &str, cwd: &Path, error: &std::io::Error) -> String {
    if cwd.is_dir() { format!("{name}: {error}") } else { format!("the working directory {} is not there", cwd.display()) }
}
