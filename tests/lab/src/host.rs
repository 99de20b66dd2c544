//! One host of a lab and the daemon on it.

use std::{
    fs::File,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use swarm_client::Client;
use swarm_proto::api::Status;
use tokio::process::{Child, Command};

use crate::{lab::Preset, mesh::Mesh, until};

/// How long a daemon may take to stop.
const STOP: Duration = Duration::from_secs(10);
/// How long an answer about itself may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A host, its daemon's files, and its daemon while it runs.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) dir: PathBuf,
    child: Option<Child>,
    /// Bytes of the log that were looked through.
    read: u64,
}

fn line(address: IpAddr) -> String {
    format!("address = \"{address}\"")
}

/// What the daemon of a host has used of a processor, in all its threads.
pub(crate) type CpuTime = Duration;

impl Host {
    pub(crate) fn new(base: &Path, name: &str, address: IpAddr) -> Self {
        Self { name: name.to_owned(), address, dir: base.join(name), child: None, read: 0 }
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.socket())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Writes the config that it has before it belongs to a swarm.
    pub(crate) fn configure(&self, preset: Preset) -> anyhow::Result<()> {
        let text = format!(
            "[node]\nname = \"{name}\"\nstate_dir = \"{state}\"\n\n[mesh]\n{address}\npreset = \"{preset}\"\n\n\
             [resources]\ncores = 8\n\n[api]\nsocket = \"{socket}\"\n",
            name = self.name,
            state = self.dir.join("state").display(),
            address = line(self.address),
            preset = preset.word(),
            socket = self.socket().display(),
        );
        std::fs::write(self.config(), text).with_context(|| format!("the config of {}", self.name))
    }

    fn config(&self) -> PathBuf {
        self.dir.join("swarmd.toml")
    }

    /// Has it bind another address when it is started next.
    pub(crate) fn readdress(&mut self, address: IpAddr) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(self.config())?;
        std::fs::write(self.config(), text.replace(&line(self.address), &line(address)))?;
        self.address = address;
        Ok(())
    }

    /// Waits until its daemon answers at all.
    pub(crate) async fn answers(&self) -> anyhow::Result<()> {
        let what = format!("the daemon of {} answers", self.name);
        until(&what, ANSWER, async || self.client().healthy().await.map_err(|problem| problem.to_string())).await
    }

    /// `swarmctl` at its daemon; what it prints.
    pub(crate) fn ctl(&self, program: &Path, args: &[&str]) -> impl Future<Output = anyhow::Result<String>> + Send + use<> {
        let what = format!("swarmctl {} at {}", args.join(" "), self.name);
        let mut command = Command::new(program);
        command.args(args).env("SWARM_SOCKET", self.socket()).stdin(Stdio::null()).kill_on_drop(true);
        async move {
            let output = command.output().await?;
            ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        }
    }

    /// Starts its daemon.
    pub(crate) fn start(&mut self, mesh: &Mesh, program: &Path) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = mesh.command(&self.name, program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SWARM_")) {
            command.env_remove(name);
        }
        command.args(["run", "--end-with-parent", "--config"]).arg(self.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.child = Some(command.spawn().with_context(|| format!("swarmd of {}", self.name))?);
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
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

    /// Lines of its log, written since the last look, that no healthy daemon writes.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let from = usize::try_from(self.read).unwrap_or(0).min(text.len());
        self.read = text.len() as u64;
        let text = String::from_utf8_lossy(&text[from..]).into_owned();
        let is_bad = |line: &&str| line.contains(" ERROR ") || line.contains("panicked at");
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
