//! The mesh: drives `mesh/meshlab`, which makes hosts of network namespaces.

use std::{
    collections::BTreeMap,
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use tokio::process::Command;

/// Where the tool is: beside this file.
const MESHLAB: &str = concat!(env!("SWARM_ROOT"), "/tests/lab/mesh/meshlab");
/// What it and its neighbours need.
const PROGRAMS: [&str; 7] = ["python3", "ip", "tc", "nft", "unshare", "wireguard-go", "wg"];

/// A mesh that is up. It goes away when this is dropped, and also when this program is killed.
pub struct Mesh {
    name: String,
    interface: String,
    /// Takes the mesh away when its standard input ends; holds the lock until then.
    holder: Child,
}

#[derive(Deserialize)]
struct State {
    interface: String,
    hosts: BTreeMap<String, HostState>,
}

#[derive(Deserialize)]
struct HostState {
    v4: Ipv4Addr,
}

/// What an interface has carried, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Mesh {
    /// What this machine lacks for a mesh, if anything.
    pub fn missing() -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("network namespaces need root".into());
        }
        let paths: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        let is_here = |program: &&str| paths.iter().any(|dir| dir.join(program).exists());
        let absent: Vec<&str> = PROGRAMS.into_iter().filter(|program| !is_here(program)).collect();
        if !absent.is_empty() {
            return Some(format!("{} missing", absent.join(", ")));
        }
        (!Path::new("/dev/net/tun").exists()).then(|| "/dev/net/tun is missing".into())
    }

    /// Waits until no other run uses this name, takes away what a killed one left, and makes `hosts` hosts.
    ///
    /// # Errors
    /// What meshlab says.
    pub async fn up(name: &str, hosts: usize, ttl: u32, kind: &[&str]) -> anyhow::Result<Self> {
        let path = format!("/run/swarm-lab.{name}.lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).with_context(|| path.clone())?;
        tokio::task::spawn_blocking({
            let lock = lock.try_clone()?;
            move || flock(&lock, FlockOperation::LockExclusive)
        })
        .await?
        .with_context(|| path)?;
        let mut holder = std::process::Command::new(MESHLAB);
        holder.arg("hold").env("MESHLAB_NAME", name).stdin(Stdio::piped()).stdout(lock).process_group(0);
        let holder = holder.spawn().context("meshlab hold")?;
        let mut mesh = Self { name: name.to_owned(), interface: String::new(), holder };
        mesh.run(&["down"]).await?;
        let (hosts, ttl) = (hosts.to_string(), ttl.to_string());
        mesh.run(&[&["up", &hosts, "--ttl", &ttl], kind].concat()).await?;
        mesh.interface = mesh.state().await?.interface;
        Ok(mesh)
    }

    /// Runs meshlab; what it printed.
    ///
    /// # Errors
    /// What it says.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(MESHLAB).args(args).env("MESHLAB_NAME", &self.name).stdin(Stdio::null()).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "meshlab {}: {}", args.join(" "), said.trim());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A program on a host. Its process id is that of what is started.
    pub fn command(&self, host: &str, program: &Path) -> Command {
        let mut command = Command::new(MESHLAB);
        command.env("MESHLAB_NAME", &self.name).args(["exec", host]).arg(program);
        command
    }

    /// Hosts and their mesh addresses.
    ///
    /// # Errors
    /// As [`Mesh::run`].
    pub(crate) async fn addresses(&self) -> anyhow::Result<BTreeMap<String, IpAddr>> {
        let state = self.state().await?;
        Ok(state.hosts.into_iter().map(|(name, host)| (name, host.v4.into())).collect())
    }

    async fn state(&self) -> anyhow::Result<State> {
        Ok(serde_json::from_str(&self.run(&["status", "--json"]).await?)?)
    }

    /// Where a host has its `/run`.
    pub(crate) fn run_dir(&self, host: &str) -> PathBuf {
        PathBuf::from(format!("/run/meshlab.{}/{host}", self.name))
    }

    /// What a host's mesh interface has carried.
    pub(crate) async fn traffic(&self, host: &str) -> anyhow::Result<Traffic> {
        let namespace = format!("{}-{host}", self.name);
        let output = Command::new("ip").args(["-n", &namespace, "-s", "-j", "link", "show", &self.interface]).output().await?;
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| format!("counters of {host}"))?;
        let count = |way: &str| links[0]["stats64"][way]["bytes"].as_u64();
        match (count("tx"), count("rx")) {
            (Some(sent), Some(received)) => Ok(Traffic { sent, received }),
            _ => bail!("ip says nothing of the bytes of {host}"),
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
