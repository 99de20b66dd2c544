//! Three voters on loopback that are killed, stopped and made whole again.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal};
use swarm_client::Client;
use swarm_proto::{JobId, Term, UnixMillis, api::SubmitRequest, ledger::Schedule};
use swarmd::dev::{Options, Swarm};

use super::host;
use crate::swarm::{beside, told};

/// How many voters.
pub(crate) const NODES: usize = 3;
/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what nobody tells.
const LOOK: Duration = Duration::from_millis(1);

/// The swarm, and a directory where its tasks leave marks.
pub(crate) struct Arena {
    pub(crate) swarm: Swarm,
    marks: tempfile::TempDir,
    rounds: usize,
}

/// A task that runs until it is killed. Each attempt writes a line when it begins: its process.
pub(crate) struct Sleeper {
    pub(crate) job: JobId,
    mark: PathBuf,
}

impl Arena {
    /// Starts it, with its state below `dir`.
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let options = Options { nodes: NODES, program: Some(beside("swarmd")?), state_dir: Some(dir.to_owned()), ..Options::default() };
        let swarm = Swarm::start(&options).map_err(told)?;
        let marks = tempfile::Builder::new().prefix("swarm-marks-").tempdir_in(dir)?;
        let mut arena = Self { swarm, marks, rounds: 0 };
        arena.whole().await?;
        Ok(arena)
    }

    /// A name that nothing in this swarm has had yet.
    pub(crate) fn fresh(&mut self, what: &str) -> String {
        self.rounds += 1;
        format!("{what}-{}", self.rounds)
    }

    /// Which round this is: whoever has a choice takes turns by it.
    pub(crate) const fn round(&self) -> usize {
        self.rounds
    }

    /// Who leads, as this node hears, and in which term.
    pub(crate) async fn leader(&self, asked: usize) -> anyhow::Result<(usize, Term)> {
        let leader = self.swarm.client(asked).leader().await.map_err(told)?;
        let at = self.swarm.nodes().iter().position(|node| node.name == leader.name);
        Ok((at.with_context(|| format!("{} is no node of this swarm", leader.name))?, leader.term))
    }

    /// When a node said that it leads in that term; all are asked but one, which does not run.
    pub(crate) async fn leads(&self, term: Term, but: usize) -> anyhow::Result<UnixMillis> {
        let said = format!("leads from now on, term {}", term.0);
        for n in (0..NODES).filter(|n| *n != but) {
            let events = self.swarm.client(n).node_events(0).await.map_err(told)?;
            if let Some(event) = events.iter().find(|event| event.text == said) {
                return Ok(event.at);
            }
        }
        bail!("nobody says that it leads in {term:?}")
    }

    /// A node that does not lead: another one each round.
    pub(crate) fn other(&self, leader: usize) -> usize {
        (leader + 1 + self.rounds % (NODES - 1)) % NODES
    }

    /// The processes of a node's host.
    pub(crate) fn processes(&self, n: usize) -> anyhow::Result<Vec<Pid>> {
        let node = &self.swarm.nodes()[n];
        host::processes(node.pid, &self.swarm.dir().join(&node.name))
    }

    /// Kills a node's daemon; when that was.
    pub(crate) fn kill(&self, n: usize) -> anyhow::Result<Instant> {
        let pid = host::pid(self.swarm.nodes()[n].pid)?;
        let at = Instant::now();
        rustix::process::kill_process(pid, Signal::KILL)?;
        Ok(at)
    }

    /// Starts a daemon that was killed, and waits until it has caught up with the others.
    pub(crate) async fn restart(&mut self, n: usize) -> anyhow::Result<()> {
        // it is gone already, or about to be
        self.swarm.kill(n).await.map_err(told)?;
        self.swarm.restart(n).map_err(told)?;
        self.whole().await
    }

    /// Waits until all are members, alive, and have applied what the leader has.
    pub(crate) async fn whole(&mut self) -> anyhow::Result<()> {
        self.swarm.wait_ready().await.map_err(told)?;
        let give_up = Instant::now() + PATIENCE;
        let (leader, _) = self.leader(0).await?;
        let index = self.swarm.client(leader).status().await.map_err(told)?.log_index;
        for n in 0..NODES {
            while self.swarm.client(n).status().await.map_err(told)?.log_index < index {
                ensure!(Instant::now() < give_up, "{} does not catch up", self.swarm.nodes()[n].name);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Starts a task at that node; it may run at any other afterwards.
    pub(crate) async fn sleeper(&mut self, n: usize, request: SubmitRequest) -> anyhow::Result<Sleeper> {
        let client = self.swarm.client((n + 1) % NODES);
        let name = self.fresh("sleeper");
        let mark = self.marks.path().join(&name);
        self.cordon(&client, n, Schedule::Cordoned).await?;
        let script = format!("echo $$ >> {}; exec sleep 3600", mark.display());
        let argv = ["sh", "-c", &script].map(str::to_owned).to_vec();
        let request = SubmitRequest { argv, key: Some(name), cores: Some(0.1), follow: Some(false), ..request };
        let job = client.submit(&request).await.map_err(told)?.job;
        let sleeper = Sleeper { job, mark };
        sleeper.attempts(1).await?;
        self.cordon(&client, n, Schedule::Open).await?;
        Ok(sleeper)
    }

    /// Every node but that one.
    async fn cordon(&self, client: &Client, but: usize, to: Schedule) -> anyhow::Result<()> {
        for (_, node) in self.swarm.nodes().iter().enumerate().filter(|(n, _)| *n != but) {
            client.schedule(&node.name, to).await.map_err(told)?;
        }
        Ok(())
    }
}

impl Sleeper {
    /// Waits until so many of its attempts have begun; the process of the last.
    pub(crate) async fn attempts(&self, count: usize) -> anyhow::Result<u32> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let text = std::fs::read_to_string(&self.mark).unwrap_or_default();
            let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
            if let Some(line) = lines.get(count - 1) {
                return Ok(line.trim().parse()?);
            }
            ensure!(Instant::now() < give_up, "attempt {count} of {} does not begin", self.job);
            tokio::time::sleep(LOOK).await;
        }
    }
}
