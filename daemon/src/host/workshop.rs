//! What runs tasks on this host: `noop` always, `exec` where the config enables it.

use std::{path::Path, sync::Arc};

use mesh_config::Config;
use swarm_executors::{Events, ExecEvent, Executor, Noop};
use swarm_proto::{
    Code, Fence, Problem, TaskId,
    peer::{OutputChunk, OutputRequest},
};
use tokio::sync::mpsc;

use super::{blobs, clocks, keeper};
use crate::node::{Left, Outputs, Workshop};

/// Opens the executors, and takes over what an earlier daemon of this directory left running.
pub(crate) async fn open(config: &Config, state_dir: &Path, keeper_socket: Option<&Path>) -> Result<Workshop, Problem> {
    let (tx, events) = mpsc::unbounded_channel::<ExecEvent>();
    let noop: Arc<dyn Executor> = Arc::new(Noop::new(tx.clone(), clocks::wall));
    let mut workshop = Workshop { executors: vec![noop], events, recovered: Vec::new(), outputs: Arc::new(NoOutputs) };
    if config.exec.enabled {
        add_exec(&mut workshop, config, state_dir, keeper_socket, tx).await?;
    }
    Ok(workshop)
}

async fn add_exec(
    workshop: &mut Workshop,
    config: &Config,
    state_dir: &Path,
    keeper_socket: Option<&Path>,
    events: Events,
) -> Result<(), Problem> {
    use swarm_executors::{Exec, ExecSettings, KeeperAt, Shelves};

    let dir = state_dir.join(keeper::DIR);
    let refused = |why: String| Problem::new(Code::NotReady, "the exec executor does not start", why);
    let keeper = match keeper_socket {
        Some(path) => KeeperAt::Socket(path.to_owned()),
        None => KeeperAt::Program(keeper_program(config, &dir).map_err(refused)?),
    };
    let (plain, sealed) = blobs::shelves(state_dir);
    let stdout_limit = config.exec.stdout_limit.unwrap_or(swarm_proto::limits::KEPT_STDOUT);
    let settings = ExecSettings { dir, store: Shelves { plain, sealed }, keeper, keep: None, stdout_limit };
    let (exec, recovered) = Exec::open(settings, events).await.map_err(|e| refused(e.to_string()))?;
    let exec = Arc::new(exec);
    workshop.outputs = Arc::new(Kept(exec.clone()));
    workshop.recovered = recovered;
    workshop.executors.push(exec);
    Ok(())
}

/// The keeper that this daemon starts itself. A keeper that cannot change users says so when the first task is to start.
fn keeper_program(config: &Config, dir: &Path) -> Result<Vec<std::ffi::OsString>, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut words: Vec<std::ffi::OsString> = vec![program.into(), "keeper".into(), "--dir".into(), dir.into()];
    if let Some(user) = &config.exec.user {
        words.extend(["--user".into(), user.into()]);
    }
    Ok(words)
}

/// Output of `exec` attempts.
struct Kept(Arc<swarm_executors::Exec>);

impl Outputs for Kept {
    fn read(&self, request: OutputRequest) -> mpsc::Receiver<OutputChunk> {
        self.0.outputs().read(request)
    }

    fn left(&self, task: TaskId, fence: Fence) -> Left {
        Left { stdout: Some(self.0.outputs().stdout_file(task, fence)), files: Some(self.0.left(task, fence)) }
    }
}

/// A host without executors that write anything.
struct NoOutputs;

impl Outputs for NoOutputs {
    fn read(&self, _request: OutputRequest) -> mpsc::Receiver<OutputChunk> {
        let (tx, rx) = mpsc::channel(1);
        tx.try_send(OutputChunk::End).expect("a fresh channel has room for one");
        rx
    }

    fn left(&self, _task: TaskId, _fence: Fence) -> Left {
        Left::default()
    }
}
