//! Real daemons: a leader, one that gives, and those that get.

use std::{
    fs::File,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use mesh_config::Config;
use swarm_client::Client;
use swarm_proto::{
    Digest,
    api::{BlobLine, Phase},
};
use swarmd::dev::{self, Authority};

use crate::beside::place::{Host, Place, Running};

/// How long they may take to find each other.
const READY: Duration = Duration::from_secs(60);

/// One of them.
pub(crate) struct Daemon {
    pub(crate) host: Host,
    pub(crate) name: String,
    state: PathBuf,
    socket: PathBuf,
    process: Running,
}

/// All of them.
pub(crate) struct Swarm {
    leader: Daemon,
    pub(crate) from: Daemon,
    /// One at least.
    receivers: Vec<Daemon>,
}

/// A program of this workspace, built beside this one; a test of this one lies a directory deeper.
pub(crate) fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let dir = own.parent().context("a program is in a directory")?;
    let path = if dir.ends_with("deps") { dir.with_file_name(name) } else { dir.join(name) };
    ensure!(path.exists(), "{} is not built: cargo build --release --workspace", path.display());
    Ok(path)
}

/// A throw-away swarm of so many daemons, with their state below `dir`; all are ready.
pub(crate) async fn dev(dir: &Path, nodes: usize) -> anyhow::Result<dev::Swarm> {
    let options = dev::Options { nodes, program: Some(beside("swarmd")?), state_dir: Some(dir.to_owned()), ..dev::Options::default() };
    let mut swarm = dev::Swarm::start(&options).map_err(told)?;
    swarm.wait_ready().await.map_err(told)?;
    Ok(swarm)
}

/// How often any of these nodes has called another one down, and suspected it, so far.
pub(crate) async fn alarms(nodes: impl Iterator<Item = Client>) -> anyhow::Result<(usize, usize)> {
    let (mut downs, mut suspects) = (0, 0);
    for node in nodes {
        for event in node.node_events(0).await.map_err(told)? {
            downs += usize::from(event.text.ends_with(" is Down"));
            suspects += usize::from(event.text.ends_with(" is Suspect"));
        }
    }
    Ok((downs, suspects))
}

impl Swarm {
    /// Starts them with so many that get, one at least, and waits until they are one swarm. More than one need a loopback.
    pub(crate) async fn start(place: &Place, receivers: u8) -> anyhow::Result<Self> {
        let mut authority = Authority::create().map_err(|problem| anyhow::anyhow!("{problem}"))?;
        let mut hosts = vec![("leader".to_owned(), place.leader.clone()), ("from".to_owned(), place.from.clone())];
        hosts.extend((0..receivers.max(1)).map(|n| (format!("to{}", n + 1), place.to.next(n))));
        for (name, _) in &hosts {
            authority.prepare(&place.dir.join(name)).map_err(|problem| anyhow::anyhow!("{problem}"))?;
        }
        authority.found(&place.dir.join("leader")).map_err(|problem| anyhow::anyhow!("{problem}"))?;
        let mut daemons = hosts.into_iter().map(|(name, host)| Daemon::start(&place.dir, name, host, place.leader.ip));
        let mut next = || daemons.next().context("too few daemons")?;
        let (leader, from) = (next()?, next()?);
        let swarm = Self { leader, from, receivers: daemons.collect::<Result<_, _>>()? };
        let give_up = Instant::now() + READY;
        while let Some(lacks) = swarm.lacks().await {
            ensure!(Instant::now() < give_up, "the daemons are no swarm after {} s: {lacks}", READY.as_secs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(swarm)
    }

    /// The first of those that get.
    pub(crate) fn to(&self) -> &Daemon {
        &self.receivers[0]
    }

    pub(crate) fn receivers(&self) -> &[Daemon] {
        &self.receivers
    }

    fn daemons(&self) -> impl Iterator<Item = &Daemon> {
        [&self.leader, &self.from].into_iter().chain(&self.receivers)
    }

    pub(crate) fn clients(&self) -> impl Iterator<Item = Client> {
        self.daemons().map(Daemon::client)
    }

    async fn lacks(&self) -> Option<String> {
        let count = 2 + self.receivers.len() as u64;
        for daemon in self.daemons() {
            match daemon.client().status().await {
                Ok(status) if status.phase == Phase::Ready => {}
                Ok(status) => return Some(format!("{}: {}", daemon.name, status.trouble)),
                Err(problem) => return Some(problem.to_string()),
            }
        }
        match (self.from.client().stats().await, self.from.client().leader().await) {
            (Ok(stats), Ok(leader)) if stats.nodes_online == count && leader.name == self.leader.name => None,
            (Ok(stats), Ok(leader)) => Some(format!("{} of {count} are online, and {} leads", stats.nodes_online, leader.name)),
            (Err(problem), _) | (_, Err(problem)) => Some(problem.to_string()),
        }
    }

    /// Brings a blob to all that get; how long it took until they had it for good.
    pub(crate) async fn push(&self, digest: Digest) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let names: Vec<String> = self.receivers.iter().map(|to| to.name.clone()).collect();
        let mut lines = self.from.client().push_blob(digest, &names).await.map_err(told)?;
        let mut left = names.len();
        while let Some(line) = lines.next().await.map_err(told)? {
            match line {
                BlobLine::Progress { .. } => {}
                BlobLine::Held { .. } => left -= 1,
                BlobLine::Failed { problem, .. } => return Err(told(problem)),
            }
            if left == 0 {
                return Ok(began.elapsed());
            }
        }
        bail!("the daemon ended the stream of answers")
    }

    /// Bytes of blobs that passed through the leader.
    pub(crate) async fn through_leader(&self) -> anyhow::Result<u64> {
        let status = self.leader.client().status().await.map_err(told)?;
        Ok(status.blobs_given + status.blobs_taken)
    }
}

/// What a daemon says, as an error of this program.
pub(crate) fn told(problem: swarm_proto::Problem) -> anyhow::Error {
    anyhow::anyhow!("{problem}")
}

/// A line of a process's memory, such as `VmHWM`, in bytes.
pub(crate) fn memory_of(pid: u32, line: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = text.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{line} of process {pid}"))? * 1024)
}

impl Daemon {
    fn start(dir: &Path, name: String, host: Host, leader: IpAddr) -> anyhow::Result<Self> {
        let (state, socket) = (dir.join(&name), dir.join(format!("{name}.sock")));
        let mut config = Config::new(name.clone());
        (config.mesh.kind, config.mesh.address) = (Some(mesh_config::Kind::Explicit), Some(host.ip));
        let seed = (leader, config.mesh.control_port).into();
        config.mesh.peers = (host.ip != leader).then(|| mesh_config::Seed::from(std::net::SocketAddr::clone(&seed))).into_iter().collect();
        config.node.state_dir.clone_from(&state);
        config.api.socket.clone_from(&socket);
        let path = dir.join(format!("{name}.toml"));
        std::fs::write(&path, config.to_toml())?;
        let log = File::create(dir.join(format!("{name}.log")))?;
        let mut command = host.command(beside("swarmd")?);
        command.args(["run", "--end-with-parent", "--config"]).arg(&path).stdout(Stdio::null()).stderr(log);
        let process = Running::start(&mut command)?;
        Ok(Self { host, name, state, socket, process })
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `swarmctl` on its host.
    pub(crate) fn ctl(&self) -> anyhow::Result<Command> {
        let mut command = self.host.command(beside("swarmctl")?);
        command.env("SWARM_SOCKET", &self.socket);
        Ok(command)
    }

    /// Forgets every blob.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        let left = self.client().collect_blobs(0).await.map_err(told)?.used;
        ensure!(left == 0, "{left} bytes stay in the store of {}", self.name);
        Ok(())
    }

    /// The file of a blob that is all there.
    pub(crate) fn stored(&self, digest: Digest) -> PathBuf {
        swarm_blobstore::Store::shelves(&self.state.join("blobs")).0.join(digest.shelf())
    }

    /// A line of its process's memory, such as `VmHWM`, in bytes.
    pub(crate) fn memory(&self, line: &str) -> anyhow::Result<u64> {
        memory_of(self.pid(), line).with_context(|| self.name.clone())
    }

    /// From now on its peak of memory is that of what comes.
    pub(crate) fn forget_peak(&self) -> anyhow::Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").with_context(|| format!("clear_refs of {}", self.name))
    }
}
