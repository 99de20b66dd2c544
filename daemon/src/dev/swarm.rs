//! The running daemons of a throw-away swarm.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use mesh_config::Resources;
use serde::Serialize;
use swarm_client::Client;
use swarm_proto::{Code, Problem, api::Phase};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::Instant,
};

use super::{
    children::{self, Leash},
    prepare::{self, Prepared, failed},
};

/// How long a swarm may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// How long daemons may take to stop before they are killed.
const STOP: Duration = Duration::from_secs(4);
/// Between two looks at a daemon that starts or stops.
const LOOK: Duration = Duration::from_millis(20);

/// What a throw-away swarm is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// 1 to 100.
    pub nodes: usize,
    /// Where its directory is made; the system's temporary directory if absent.
    pub state_dir: Option<PathBuf>,
    /// What every node offers instead of what this machine has.
    pub resources: Resources,
    /// Log level of the daemons.
    pub log: String,
    /// The `swarmd` to run; the running program if absent.
    pub program: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 3, state_dir: None, resources: Resources::default(), log: "info,openraft=warn".into(), program: None }
    }
}

/// One node, as it is announced.
#[derive(Clone, Debug, Serialize)]
pub struct DevNode {
    pub name: String,
    pub socket: PathBuf,
    pub pid: u32,
    pub control: std::net::SocketAddr,
}

/// A throw-away swarm. Its daemons end with this process; [`Swarm::stop`] ends them in order and removes their state.
pub struct Swarm {
    leash: Leash,
    dir: TempDir,
    /// Where the sockets are, if not there.
    _sockets: Option<TempDir>,
    /// What each node runs.
    programs: Vec<PathBuf>,
    prepared: Vec<Prepared>,
    nodes: Vec<DevNode>,
    children: Vec<Option<Child>>,
}

impl Swarm {
    /// Prepares the directories and starts every daemon.
    ///
    /// # Errors
    /// What could not be made or started.
    pub fn start(options: &Options) -> Result<Self, Problem> {
        let parent = options.state_dir.clone().unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new().prefix("swarm-").tempdir_in(&parent).map_err(|e| {
            failed("the state directory is not made", &format!("{}: {e}", parent.display()))
                .hint("name a directory that can be written with --state-dir")
        })?;
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(|e| failed("the daemon's program is not found", &e))?,
        };
        let sockets = prepare::shorter(dir.path(), options.nodes)?;
        let prepared = prepare::all(dir.path(), sockets.as_ref().unwrap_or(&dir).path(), options)?;
        let leash = Leash::new().map_err(|e| failed("the swarm is not started", &e))?;
        let programs = vec![program; prepared.len()];
        let mut swarm = Self { leash, dir, _sockets: sockets, programs, prepared, nodes: Vec::new(), children: Vec::new() };
        for n in 0..swarm.prepared.len() {
            let child = swarm.spawn(n)?;
            let node = &swarm.prepared[n];
            swarm.nodes.push(DevNode {
                name: node.name.clone(),
                socket: node.socket.clone(),
                pid: child.id().unwrap_or(0),
                control: node.control,
            });
            swarm.children.push(Some(child));
        }
        Ok(swarm)
    }

    fn spawn(&self, n: usize) -> Result<Child, Problem> {
        let node = &self.prepared[n];
        let log = File::options().create(true).append(true).open(self.log_of(&node.name)).map_err(|e| failed("a log is not opened", &e))?;
        let mut command = Command::new(&self.programs[n]);
        // what would be one value for all nodes is in their config files; the log level may be asked for from outside
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SWARM_") && name != "SWARM_LOG_LEVEL")
        {
            command.env_remove(name);
        }
        command.args(["run", "--end-with-parent", "--config"]).arg(&node.config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.leash.start(&mut command).map_err(|e| failed(&format!("{} is not started", self.programs[n].display()), &e))
    }

    /// The directory that holds everything of this swarm.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The nodes, the founder first.
    pub fn nodes(&self) -> &[DevNode] {
        &self.nodes
    }

    /// Where a node's log goes.
    pub fn log_of(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// A client of one node.
    pub fn client(&self, n: usize) -> Client {
        Client::new(self.nodes[n].socket.clone())
    }

    /// How many voters a swarm of this size should have.
    fn voters(&self) -> usize {
        match self.nodes.len() {
            0..3 => 1,
            3..7 => 3,
            7..15 => 5,
            _ => 7,
        }
    }

    /// Waits until every node is a member that is alive and can be given work, and the voters are those it should have.
    ///
    /// # Errors
    /// A daemon that ended, or a swarm that is not whole after a minute.
    pub async fn wait_ready(&mut self) -> Result<(), Problem> {
        let give_up = Instant::now() + READY;
        loop {
            if let Some((name, how)) = self.any_exit() {
                return Err(Problem::new(
                    Code::Internal,
                    format!("the daemon {name} did not start"),
                    format!("{how}; {}", self.last_words(&name)),
                ));
            }
            let missing = match self.missing().await {
                Ok(None) => return Ok(()),
                Ok(Some(missing)) => missing,
                Err(problem) => problem.to_string(),
            };
            if Instant::now() > give_up {
                return Err(Problem::new(Code::Timeout, format!("the swarm is not ready after {} s", READY.as_secs()), missing));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What the swarm still lacks.
    async fn missing(&self) -> Result<Option<String>, Problem> {
        for n in 0..self.nodes.len() {
            if self.client(n).status().await?.phase != Phase::Ready {
                return Ok(Some(format!("{} is not ready", self.nodes[n].name)));
            }
        }
        let client = self.client(0);
        let (stats, leader) = (client.stats().await?, client.leader().await?);
        if stats.nodes_online < self.nodes.len() as u64 {
            return Ok(Some(format!("{} of {} nodes are online", stats.nodes_online, self.nodes.len())));
        }
        if leader.voters.len() < self.voters() {
            return Ok(Some(format!("{} of {} voters are there", leader.voters.len(), self.voters())));
        }
        let idle = client.nodes().await?.into_iter().find(|node| node.executors.is_empty());
        Ok(idle.map(|node| format!("the worker of {} is not connected", node.name)))
    }

    fn any_exit(&mut self) -> Option<(String, String)> {
        for (node, child) in self.nodes.iter().zip(&mut self.children) {
            if let Some(Ok(Some(status))) = child.as_mut().map(Child::try_wait) {
                *child = None;
                return Some((node.name.clone(), status.to_string()));
            }
        }
        None
    }

    /// The next daemon that ends by itself, and how; `None` when there is none left.
    pub async fn next_exit(&mut self) -> Option<(String, String)> {
        while self.children.iter().any(Option::is_some) {
            if let Some(exit) = self.any_exit() {
                return Some(exit);
            }
            tokio::time::sleep(10 * LOOK).await;
        }
        None
    }

    /// The end of a node's log.
    fn last_words(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.log_of(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Kills a daemon with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// It was not running.
    pub async fn kill(&mut self, n: usize) -> Result<(), Problem> {
        let mut child = self.children[n].take().ok_or_else(|| failed("the daemon is not killed", &"it is not running"))?;
        child.kill().await.map_err(|e| failed("the daemon is not killed", &e))
    }

    /// Ends a daemon in order and waits until it is gone.
    ///
    /// # Errors
    /// It was not running.
    pub async fn end(&mut self, n: usize) -> Result<(), Problem> {
        let mut child = self.children[n].take().ok_or_else(|| failed("the daemon is not stopped", &"it is not running"))?;
        children::ask_to_stop(&child);
        child.wait().await.map(|_| ()).map_err(|e| failed("the daemon is not stopped", &e))
    }

    /// What a node runs when it is started the next time.
    pub fn set_program(&mut self, n: usize, program: PathBuf) {
        self.programs[n] = program;
    }

    /// Starts a daemon again that was ended.
    ///
    /// # Errors
    /// What could not be started.
    pub fn restart(&mut self, n: usize) -> Result<(), Problem> {
        let child = self.spawn(n)?;
        self.nodes[n].pid = child.id().unwrap_or(0);
        self.children[n] = Some(child);
        Ok(())
    }

    /// Ends every daemon, in order where they let us, and removes the state.
    pub async fn stop(mut self) {
        self.children.iter().flatten().for_each(children::ask_to_stop);
        let give_up = Instant::now() + STOP;
        for child in self.children.iter_mut().flatten() {
            if tokio::time::timeout_at(give_up, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
        for node in &self.prepared {
            swarm_executors::keeper::end(&node.dir.join("keeper"));
        }
    }
}
