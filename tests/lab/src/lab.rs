//! A mesh with a daemon on every host.

use std::{
    fs::Permissions,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use swarm_client::Client;
use swarm_proto::{
    NodeId,
    api::{Health, Phase, Status},
};
use tokio::task::JoinSet;

use crate::{finding::Finding, host::Host, mesh::Mesh, until};

/// Where members let hosts in.
const PORT: u16 = 4749;

/// Hosts that join at the same time, as a tool that sets up many of them does it: every daemon of the lab shares this machine's
/// cores, and a hundred of them that connect at once leave none for an election.
const JOINING: usize = 10;

/// How `swarmctl` ends where nobody leads.
const NO_LEADER: i32 = 6;

/// What a lab is like.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Of the mesh; two of one name never run at once.
    pub name: String,
    /// Hosts at the beginning.
    pub hosts: usize,
    /// How long the resolver's answers live, in seconds.
    pub ttl: u32,
    pub preset: Preset,
    pub finding: Finding,
    /// Without WireGuard, whatever the finding, and with less to do for the processor: for crowds.
    pub is_plain: bool,
    /// The `swarmd` to run; `swarmctl` is beside it.
    pub program: PathBuf,
}

/// How patient the daemons are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    Lan,
    Wan,
}

impl Preset {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
        }
    }

    /// How long the swarm may take to be whole again after anything: a dead voter is replaced after 30 s.
    pub(crate) const fn patience(self) -> Duration {
        match self {
            Self::Lan => Duration::from_secs(90),
            Self::Wan => Duration::from_secs(180),
        }
    }
}

impl Spec {
    /// The config file of every host before it belongs to a swarm.
    fn config(&self) -> String {
        let preset = if self.preset == self.finding.preset() { String::new() } else { format!("preset = \"{}\"\n", self.preset.word()) };
        let mesh = format!("{}{preset}", self.finding.config());
        if mesh.is_empty() { mesh } else { format!("[mesh]\n{mesh}") }
    }
}

/// A lab that is up. Its daemons and its mesh go when it is dropped; its files stay until the next one of its name.
pub struct Lab {
    pub mesh: Mesh,
    spec: Spec,
    dir: PathBuf,
    hosts: Vec<Host>,
    /// Hosts that are gone for good: their nodes may stay in the list of members, but not alive.
    gone: Vec<String>,
}

impl Lab {
    /// Makes the mesh, starts a daemon on each host, founds a swarm on the first and lets the others join it by a token.
    ///
    /// # Errors
    /// What could not be made.
    pub async fn up(spec: &Spec) -> anyhow::Result<Self> {
        let lab = Self::apart(spec, &spec.config()).await?;
        let names: Vec<String> = lab.hosts.iter().map(|host| host.name.clone()).collect();
        lab.hosts[0].ctl(&lab.mesh, &lab.program("swarmctl"), &["mesh", "init", "--allow", "exec", "--label", "host=h1"]).await?;
        lab.join(&names[1..]).await?;
        Ok(lab)
    }

    /// Makes the mesh and starts a daemon with this config on each host; none belongs to a swarm yet.
    ///
    /// # Errors
    /// What could not be made.
    pub(crate) async fn apart(spec: &Spec, config: &str) -> anyhow::Result<Self> {
        let kind = if spec.is_plain { &["--plain"] } else { spec.finding.mesh() };
        let mesh = Mesh::up(&spec.name, spec.hosts, spec.ttl, kind).await?;
        let dir = std::env::temp_dir().join(format!("swarm-lab.{}", spec.name));
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        std::fs::create_dir_all(dir.join("witness"))?;
        // tasks of any user leave their witness
        std::fs::set_permissions(dir.join("witness"), Permissions::from_mode(0o777))?;
        // any user may run programs from here, wherever they were built
        let bin = dir.join("bin");
        std::fs::create_dir(&bin)?;
        for (from, name) in [(spec.program.clone(), "swarmd"), (spec.program.with_file_name("swarmctl"), "swarmctl")] {
            std::fs::copy(&from, bin.join(name)).with_context(|| from.display().to_string())?;
        }
        let spec = Spec { program: bin.join("swarmd"), ..spec.clone() };
        let mut lab = Self { mesh, spec, dir, hosts: Vec::new(), gone: Vec::new() };
        for n in 1..=lab.spec.hosts {
            lab.prepare(&format!("h{n}"), config)?;
        }
        for host in &lab.hosts {
            host.answers().await?;
        }
        Ok(lab)
    }

    /// A program beside the daemon's.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.spec.program.with_file_name(name)
    }

    fn prepare(&mut self, name: &str, config: &str) -> anyhow::Result<()> {
        let mut host = Host::new(&self.dir, &self.mesh, name, self.spec.finding.is_unprivileged());
        host.configure(config)?;
        host.start(&self.mesh, &self.spec.program)?;
        self.hosts.push(host);
        Ok(())
    }

    /// Lets these hosts in with one token, [`JOINING`] at a time.
    async fn join(&self, names: &[String]) -> anyhow::Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let ctl = self.program("swarmctl");
        let uses = names.len().to_string();
        let mut create = vec!["token", "create", "--uses", &uses];
        let members = self.hosts.iter().filter(|host| !names.contains(&host.name));
        let addresses: Vec<String> = members.take(4).map(|host| format!("{}:{PORT}", host.name)).collect();
        if self.spec.finding == Finding::Names {
            // whoever joins knows the members by name only
            addresses.iter().for_each(|address| create.extend(["--address", address]));
        }
        // where the leader changes just then nobody knows whether a token was made, so another one is
        let member = self.hosts.iter().find(|host| !names.contains(&host.name)).context("there is no member")?;
        let token = until("a token is made", self.preset().patience(), async || {
            member.ctl(&self.mesh, &ctl, &create).await.map_err(|e| e.to_string())
        })
        .await?;
        let mut joining = JoinSet::new();
        for host in self.hosts.iter().filter(|host| names.contains(&host.name)) {
            host.answers().await?;
            if joining.len() >= JOINING {
                joining.join_next().await.context("some are joining")???;
            }
            let label = format!("host={}", host.name);
            joining.spawn(host.ctl(&self.mesh, &ctl, &["mesh", "join", &token, "--allow", "exec", "--label", &label]));
        }
        while let Some(joined) = joining.join_next().await {
            joined??;
        }
        Ok(())
    }

    /// What a line of a shell on a host does, as somebody who sits there types it.
    pub(crate) async fn shell(&self, name: &str, line: &str) -> anyhow::Result<Output> {
        let bin = self.spec.program.parent().context("a program is somewhere")?;
        self.host(name)?.shell(&self.mesh, bin, line).await
    }

    /// What `swarmctl status` shows on a host, with or without a leader.
    pub(crate) async fn shown(&self, name: &str) -> Result<String, String> {
        let told = self.shell(name, "swarmctl status").await.map_err(|e| e.to_string())?;
        let (out, err) = (String::from_utf8_lossy(&told.stdout).into_owned(), String::from_utf8_lossy(&told.stderr));
        if matches!(told.status.code(), Some(0 | NO_LEADER)) { Ok(out) } else { Err(format!("swarmctl status on {name}: {err}")) }
    }

    /// An address of the mesh that no host has had.
    pub(crate) async fn free_address(&self) -> anyhow::Result<IpAddr> {
        let taken = self.mesh.addresses().await?;
        let mut free = (1..=u8::MAX).map(|n| IpAddr::from([100, 64, 99, n]));
        free.find(|address| taken.values().all(|other| other != address)).context("every address is taken")
    }

    /// Keeps its files, but for the state, for somebody to look at; says where.
    ///
    /// # Errors
    /// The file system's.
    pub fn keep(&self, what: &str) -> anyhow::Result<PathBuf> {
        let kept = std::env::temp_dir().join(format!("swarm-lab.{}.failed-{what}", self.spec.name));
        if kept.exists() {
            std::fs::remove_dir_all(&kept)?;
        }
        std::fs::create_dir(&kept)?;
        for host in &self.hosts {
            std::fs::copy(host.dir.join("log"), kept.join(format!("{}.log", host.name)))?;
        }
        Ok(kept)
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) const fn finding(&self) -> Finding {
        self.spec.finding
    }

    pub(crate) const fn preset(&self) -> Preset {
        self.spec.preset
    }

    /// The hosts whose daemon runs.
    pub fn running(&self) -> Vec<String> {
        self.hosts.iter().filter(|host| host.is_running()).map(|host| host.name.clone()).collect()
    }

    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    fn host(&self, name: &str) -> anyhow::Result<&Host> {
        self.hosts.iter().find(|host| host.name == name).with_context(|| format!("there is no host {name}"))
    }

    fn host_mut(&mut self, name: &str) -> anyhow::Result<&mut Host> {
        self.hosts.iter_mut().find(|host| host.name == name).with_context(|| format!("there is no host {name}"))
    }

    /// A client of a host's daemon.
    ///
    /// # Errors
    /// There is no such host.
    pub fn client(&self, name: &str) -> anyhow::Result<Client> {
        Ok(self.host(name)?.client())
    }

    /// One more host with a daemon.
    ///
    /// # Errors
    /// What could not be made.
    pub async fn add(&mut self) -> anyhow::Result<String> {
        let name = self.mesh.run(&["add"]).await?.trim().to_owned();
        self.prepare(&name, &self.spec.config())?;
        self.join(std::slice::from_ref(&name)).await?;
        Ok(name)
    }

    /// A host breaks: its daemon and all that it ran are killed, its network is gone.
    ///
    /// # Errors
    /// What could not be undone.
    pub async fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        self.host_mut(name)?.kill().await?;
        self.mesh.run(&["remove", name]).await?;
        self.hosts.retain(|host| host.name != name);
        self.gone.push(name.to_owned());
        Ok(())
    }

    /// The process of a host's daemon.
    ///
    /// # Errors
    /// It does not run.
    pub fn pid(&self, name: &str) -> anyhow::Result<u32> {
        let pid = self.host(name)?.pid().with_context(|| format!("the daemon of {name} does not run"))?;
        Ok(pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Starts a host's daemon again.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, name: &str) -> anyhow::Result<()> {
        let (mesh, program) = (&self.mesh, &self.spec.program);
        let host = self.hosts.iter_mut().find(|host| host.name == name);
        host.with_context(|| format!("there is no host {name}"))?.start(mesh, program)
    }

    /// Stops a host's daemon in order.
    ///
    /// # Errors
    /// It did not stop by itself.
    pub async fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        self.host_mut(name)?.stop().await
    }

    /// Kills a host's daemon.
    ///
    /// # Errors
    /// It cannot be killed.
    pub async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        self.host_mut(name)?.kill().await
    }

    /// What a host's daemon says of itself and its peers.
    ///
    /// # Errors
    /// Why it says nothing.
    pub async fn status(&mut self, name: &str) -> Result<Status, String> {
        let host = self.hosts.iter_mut().find(|host| host.name == name);
        host.ok_or_else(|| format!("there is no host {name}"))?.status().await
    }

    /// The id of a host's node.
    ///
    /// # Errors
    /// It says nothing, or has none.
    pub(crate) async fn node(&mut self, name: &str) -> anyhow::Result<NodeId> {
        let status = self.status(name).await.map_err(anyhow::Error::msg)?;
        status.node.with_context(|| format!("{name} is no node"))
    }

    /// Waits until a daemon looks for members by the means that this lab is for, and finds where some may be.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn looks(&mut self, name: &str) -> anyhow::Result<()> {
        let (origin, patience) = (self.finding().origin(), self.preset().patience());
        until(&format!("{name} looks for members by {}", origin.word()), patience, async || {
            let mesh = self.status(name).await?.mesh;
            let is_found = mesh.candidates.iter().any(|candidate| candidate.origin == origin);
            if is_found { Ok(()) } else { Err(format!("{:?}, {:?}", mesh.candidates, mesh.missed)) }
        })
        .await
    }

    /// Who leads, as `asked` says.
    ///
    /// # Errors
    /// It knows of none.
    pub async fn leader(&mut self, asked: &str) -> Result<String, String> {
        let status = self.status(asked).await?;
        let leader = status.leader.ok_or_else(|| format!("{asked} knows no leader"))?;
        if status.node == Some(leader) {
            return Ok(asked.to_owned());
        }
        let peer = status.peers.into_iter().find(|peer| peer.node == leader);
        peer.map(|peer| peer.name).ok_or_else(|| format!("{asked} does not know {leader}, which leads"))
    }

    /// The hosts that vote, as `asked` says.
    ///
    /// # Errors
    /// There is no leader to ask.
    pub async fn voters(&self, asked: &str) -> anyhow::Result<Vec<String>> {
        let client = self.client(asked)?;
        let (leader, nodes) = (client.leader().await?, client.nodes().await?);
        Ok(nodes.into_iter().filter(|node| leader.voters.contains(&node.node)).map(|node| node.name).collect())
    }

    /// How `at` sees `of`.
    ///
    /// # Errors
    /// It says nothing, or does not know it.
    pub async fn sees(&mut self, at: &str, of: &str) -> Result<Health, String> {
        let status = self.status(at).await?;
        let peer = status.peers.iter().find(|peer| peer.name == of);
        peer.map(|peer| peer.health).ok_or_else(|| format!("{at} does not know {of}"))
    }

    /// Waits until `at` sees `of` in one of these states.
    ///
    /// # Errors
    /// It never does.
    pub async fn until_seen(&mut self, at: &str, of: &str, wanted: &[Health]) -> anyhow::Result<()> {
        let patience = self.preset().patience();
        until(&format!("{at} sees {of} as one of {wanted:?}"), patience, async || {
            let health = self.sees(at, of).await?;
            if wanted.contains(&health) { Ok(()) } else { Err(format!("{health:?}")) }
        })
        .await
    }

    /// Waits until every running daemon is ready, all of them see each other alive and nobody else, they agree on one leader, and it
    /// has as many voters as it should, all of them running.
    ///
    /// # Errors
    /// What is still missing at the end.
    pub async fn whole(&mut self) -> anyhow::Result<()> {
        let patience = self.preset().patience();
        until("the swarm is whole", patience, async || self.missing().await).await
    }

    async fn missing(&mut self) -> Result<(), String> {
        let running = self.running();
        let mut leads = None;
        for name in &running {
            let status = self.status(name).await?;
            if status.phase != Phase::Ready {
                return Err(format!("{name} is {:?}: {}", status.phase, status.trouble));
            }
            let leader = (status.term, status.leader.ok_or_else(|| format!("{name} knows no leader"))?);
            if *leads.get_or_insert(leader) != leader {
                return Err(format!("{name} says that {leader:?} leads, another {leads:?}"));
            }
            for other in running.iter().filter(|other| *other != name) {
                let health = status.peers.iter().find(|peer| peer.name == *other).map(|peer| peer.health);
                if health != Some(Health::Alive) {
                    return Err(format!("{name} sees {other} as {health:?}"));
                }
            }
            let ghost = status.peers.iter().find(|peer| peer.health == Health::Alive && !running.contains(&peer.name));
            if let Some(ghost) = ghost {
                return Err(format!("{name} believes {} alive, which is not running", ghost.name));
            }
        }
        let (_, leader) = leads.ok_or("nothing runs")?;
        self.voters_missing(&running, leader).await
    }

    async fn voters_missing(&self, running: &[String], leader: NodeId) -> Result<(), String> {
        let client = self.client(&running[0]).map_err(|e| e.to_string())?;
        let view = client.leader().await.map_err(|problem| problem.to_string())?;
        if view.node != leader {
            return Err(format!("{} leads, no longer {leader}", view.node));
        }
        let nodes = client.nodes().await.map_err(|problem| problem.to_string())?;
        let names: Vec<&str> = nodes.iter().filter(|node| view.voters.contains(&node.node)).map(|node| node.name.as_str()).collect();
        if let Some(idle) = nodes.iter().find(|node| running.contains(&node.name) && node.executors.is_empty()) {
            return Err(format!("the worker of {} is not connected", idle.name));
        }
        let wanted = match running.len() {
            0..3 => 1,
            3..7 => 3,
            7..15 => 5,
            _ => 7,
        };
        if names.len() != wanted || names.iter().any(|name| !running.iter().any(|other| other == name)) {
            return Err(format!("{names:?} vote, of {wanted} that should"));
        }
        Ok(())
    }

    /// Fails when a daemon has written what no healthy one writes.
    ///
    /// # Errors
    /// The lines.
    pub fn quiet(&mut self) -> anyhow::Result<()> {
        let lines: Vec<String> = self.hosts.iter_mut().flat_map(Host::complaints).collect();
        ensure!(lines.is_empty(), "in the logs: {}", lines.join("\n"));
        Ok(())
    }
}
