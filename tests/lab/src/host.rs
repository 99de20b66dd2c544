//! One host of a lab and the daemon on it.
//!
//! A daemon here is started as an operator's is: by `swarmd run` with a config file that is empty but for how it finds its mesh. Its
//! socket is where it is on any host, for each has a `/run` of its own. The file system is otherwise shared, so the places of the
//! config file and of the state are given in the environment.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::{
    fs::{Gid, Uid, chown},
    process::{Pid, Signal, kill_process},
};
use swarm_client::Client;
use swarm_proto::api::Status;
use tokio::process::{Child, Command};

use crate::{mesh::Mesh, until};

/// How long a daemon may take to stop.
const STOP: Duration = Duration::from_secs(10);
/// How long an answer about itself may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The user of daemons that may do nothing: `nobody`.
const NOBODY: u32 = 65_534;

/// As services have it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A host, its daemon's files, and its daemon while it runs.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    /// Its own `/run`.
    run: PathBuf,
    is_unprivileged: bool,
    child: Option<Child>,
    /// Bytes of the log that were looked through.
    read: u64,
}

/// What the daemon of a host has used of a processor, in all its threads.
pub(crate) type CpuTime = Duration;

impl Host {
    pub(crate) fn new(base: &Path, mesh: &Mesh, name: &str, is_unprivileged: bool) -> Self {
        Self { name: name.to_owned(), dir: base.join(name), run: mesh.run_dir(name), is_unprivileged, child: None, read: 0 }
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn socket(&self) -> PathBuf {
        self.run.join("swarmd/swarmd.sock")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("swarmd.toml")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.socket())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Makes its directories and a config file with this in it.
    pub(crate) fn configure(&self, text: &str) -> anyhow::Result<()> {
        let dirs = [self.dir.clone(), self.dir.join("state"), self.run.join("swarmd")];
        for dir in &dirs {
            std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        std::fs::write(self.config(), text).with_context(|| format!("the config of {}", self.name))?;
        if self.is_unprivileged {
            for path in dirs.iter().chain([&self.config()]) {
                chown(path, Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY)))?;
            }
        }
        Ok(())
    }

    /// Waits until its daemon answers at all.
    pub(crate) async fn answers(&self) -> anyhow::Result<()> {
        let what = format!("the daemon of {} answers", self.name);
        until(&what, ANSWER, async || self.client().healthy().await.map_err(|problem| problem.to_string())).await
    }

    /// A program on this host, which finds the daemon as any other there does.
    fn command(&self, mesh: &Mesh, program: &Path) -> Command {
        let mut command = mesh.command(&self.name, program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SWARM_")) {
            command.env_remove(name);
        }
        command.env("SWARM_CONFIG", self.config()).env("SWARM_STATE_DIR", self.dir.join("state")).env("HOME", &self.dir);
        command.env("PATH", PATH).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// `swarmctl` on this host; what it prints.
    pub(crate) fn ctl(&self, mesh: &Mesh, program: &Path, args: &[&str]) -> impl Future<Output = anyhow::Result<String>> + Send + use<> {
        let what = format!("swarmctl {} on {}", args.join(" "), self.name);
        let mut command = self.command(mesh, program);
        command.args(args);
        async move {
            let output = command.output().await?;
            ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        }
    }

    /// A line of a shell on this host, with the programs of `bin` before all others.
    pub(crate) async fn shell(&self, mesh: &Mesh, bin: &Path, line: &str) -> anyhow::Result<Output> {
        let mut command = self.command(mesh, Path::new("bash"));
        command.env("PATH", format!("{}:{PATH}", bin.display())).args(["-c", line]);
        command.output().await.with_context(|| format!("'{line}' on {}", self.name))
    }

    /// Starts its daemon.
    pub(crate) fn start(&mut self, mesh: &Mesh, program: &Path) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = if self.is_unprivileged {
            let mut command = self.command(mesh, Path::new("setpriv"));
            command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()]).arg(program);
            command
        } else {
            self.command(mesh, program)
        };
        command.args(["run", "--end-with-parent", "--config"]).arg(self.config());
        command.stdout(Stdio::null()).stderr(log).process_group(0);
        self.child = Some(command.spawn().with_context(|| format!("swarmd of {}", self.name))?);
        Ok(())
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        let id = self.child.as_ref()?.id()?;
        i32::try_from(id).ok().and_then(Pid::from_raw)
    }

    /// Asks its daemon to stop and waits until it is gone; kills it if it does not go.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.pid() {
            kill_process(pid, Signal::TERM)?;
        }
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let stopped = tokio::time::timeout(STOP, child.wait()).await;
        let ended = stopped.ok().context("it did not stop when it was told to").and_then(|status| Ok(status?));
        match ended {
            Ok(_) => Ok(()),
            Err(error) => {
                child.kill().await?;
                Err(error.context(format!("swarmd of {}", self.name)))
            }
        }
    }

    /// Kills its daemon.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// What its daemon says of itself; `Err` says what was wrong instead.
    pub(crate) async fn status(&mut self) -> Result<Status, String> {
        if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
            self.child = None;
            return Err(format!("swarmd of {} ended: {status}; {}", self.name, self.last_words()));
        }
        let answer = tokio::time::timeout(ANSWER, self.client().status()).await;
        let said = answer.map_err(|_| format!("{} does not answer", self.name))?;
        said.map_err(|problem| format!("{}: {problem}", self.name))
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Lines of its log, written since the last look, that no healthy daemon writes. No host of a lab is there twice.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let from = usize::try_from(self.read).unwrap_or(0).min(text.len());
        self.read = text.len() as u64;
        let text = String::from_utf8_lossy(&text[from..]).into_owned();
        let is_bad = |line: &&str| [" ERROR ", "panicked at", "another daemon"].iter().any(|bad| line.contains(bad));
        text.lines().filter(is_bad).map(|line| format!("{}: {line}", self.name)).collect()
    }

    /// Processor time of its daemon.
    pub(crate) fn cpu(&self) -> Option<CpuTime> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?.as_raw_nonzero())).ok()?;
        // the name may hold spaces: fields are counted after it
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(Duration::from_millis(1000 * ticks / rustix::param::clock_ticks_per_second()))
    }
}
