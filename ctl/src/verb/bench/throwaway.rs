//! A swarm for the time of a benchmark: `swarmd dev` of the program beside this one.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use swarm_client::Client;
use swarm_proto::{Code, Problem};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::disk;

/// How long it may take to be ready, and to stop.
const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(10);

/// What `swarmd dev -o json` prints when it is ready.
#[derive(Deserialize)]
struct Ready {
    dir: PathBuf,
    nodes: Vec<Node>,
}

/// One node of it.
#[derive(Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) socket: PathBuf,
    pub(crate) pid: u32,
}

/// The running swarm.
pub(crate) struct Throwaway {
    child: Child,
    ready: Ready,
}

fn failed(why: impl Into<String>) -> Problem {
    Problem::new(Code::Internal, "the throw-away swarm does not start", why)
}

impl Throwaway {
    /// Starts it with its state below `dir`, or below the first usual directory that is on a real disk.
    pub(crate) async fn start(dir: Option<&Path>) -> Result<Self, Problem> {
        let dir = real_disk(dir)?;
        let swarmd = beside()?;
        let mut child = Command::new(&swarmd)
            .args(["dev", "--nodes", "3", "-o", "json", "--end-with-parent", "--state-dir"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(format!("{}: {e}", swarmd.display())))?;
        let stdout = child.stdout.take().ok_or_else(|| failed("its output cannot be read"))?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(READY, lines.next_line()).await.map_err(|_| failed("it was not ready after a minute"))?;
        let line = line.map_err(|e| failed(e.to_string()))?.ok_or_else(|| failed("it ended; its own error stands above"))?;
        let ready = serde_json::from_str(&line).map_err(|e| failed(format!("it said '{line}': {e}")))?;
        Ok(Self { child, ready })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.ready.dir
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.ready.nodes
    }

    /// A client of the named node, or of the leader.
    pub(crate) async fn client(&self, name: Option<&str>) -> Result<Client, Problem> {
        let any = Client::new(&self.ready.nodes[0].socket);
        let name = match name {
            Some(name) => name.to_owned(),
            None => any.leader().await?.name,
        };
        let node = self.ready.nodes.iter().find(|node| node.name == name);
        let node = node.ok_or_else(|| {
            Problem::new(Code::NotFound, format!("there is no node {name}"), "the throw-away swarm has dev1, dev2 and dev3")
        })?;
        Ok(Client::new(&node.socket))
    }

    /// Ends it as Ctrl-C would, and waits until its state is removed.
    pub(crate) async fn stop(mut self) {
        if let Some(pid) = self.child.id() {
            // the signal goes to the one process that we started; it ends its daemons
            let _ = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
        }
        let _ = tokio::time::timeout(STOP, self.child.wait()).await;
    }
}

/// Given up half way, by Ctrl-C too: what it has written may be much.
impl Drop for Throwaway {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        let _ = std::fs::remove_dir_all(&self.ready.dir);
    }
}

/// The `swarmd` beside this program.
pub(crate) fn beside() -> Result<PathBuf, Problem> {
    let own = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
    let path = own.with_file_name(if cfg!(windows) { "swarmd.exe" } else { "swarmd" });
    if path.exists() {
        return Ok(path);
    }
    Err(Problem::new(Code::NotFound, "there is no swarmd to measure", format!("{} does not exist", path.display()))
        .hint("cargo build --release --bin swarmd, or install both programs in one directory"))
}

fn real_disk(dir: Option<&Path>) -> Result<PathBuf, Problem> {
    let refused = |dir: &Path| {
        let why = format!(
            "{} is a {}: what is written there is in memory only, and a durable figure would be a lie",
            dir.display(),
            disk::filesystem(dir)
        );
        Problem::new(Code::BadRequest, "the benchmark does not run there", why).hint("--dir with a directory on a disk")
    };
    if let Some(dir) = dir {
        return if disk::is_memory(dir) { Err(refused(dir)) } else { Ok(dir.to_owned()) };
    }
    let usual = [Some(std::env::temp_dir()), std::env::current_dir().ok(), std::env::home_dir(), Some("/var/tmp".into())];
    let found = usual.into_iter().flatten().find(|dir| dir.is_dir() && !disk::is_memory(dir));
    found.ok_or_else(|| refused(&std::env::temp_dir()))
}
