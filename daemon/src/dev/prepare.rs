//! The directories of a throw-away swarm: authorities that only the first node is given, which enters them into the ledger, and for
//! each node a key, a certificate and a config.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
};

use mesh_config::{Config, Exec, Kind, Sandbox, Seed};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use swarm_proto::{ClusterId, Code, Problem, identity::Found};
use swarm_transport::{Ca, SecretKey, Validity, machine_clock};
use tempfile::TempDir;

use super::Options;
use crate::host::{ClusterFile, make_authorities, make_private, save_founding};

/// Tries to find ports that are free on every address of the swarm.
const TRIES: usize = 100;

/// One prepared node.
pub(crate) struct Prepared {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) control: SocketAddr,
}

pub(crate) fn failed(what: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, what, why.to_string())
}

/// The authorities of a throw-away swarm; its founder enters them into the ledger.
pub struct Authority {
    found: Found,
    ca: Ca,
}

impl Authority {
    /// A new swarm.
    ///
    /// # Errors
    /// The authorities are not made.
    pub fn create() -> Result<Self, Problem> {
        let mut cluster = ClusterId::default();
        ChaCha12Rng::from_os_rng().fill_bytes(&mut cluster.0);
        let (found, ca) = make_authorities(cluster).map_err(|e| failed("the throw-away authorities are not made", &e))?;
        Ok(Self { found, ca })
    }

    /// Makes the state directory of one of the first nodes: a key and a certificate, and the swarm that it belongs to.
    ///
    /// # Errors
    /// What could not be made or written.
    pub fn prepare(&mut self, dir: &Path) -> Result<(), Problem> {
        make_private(dir).map_err(|e| failed("a state directory is not made", &e))?;
        self.charter(dir, false)?;
        let validity = Validity::of((machine_clock())(), mesh_config::CERTIFICATE_LIFE);
        let identity = SecretKey::generate().and_then(|key| self.ca.identity(key, validity));
        let identity = identity.map_err(|e| failed("a certificate is not made", &e))?;
        identity.save(dir).map_err(|e| failed("a certificate is not written", &e))?;
        self.found.first.push(identity.peer_key());
        Ok(())
    }

    /// Makes a prepared node the founder; it lets in those that are prepared by now.
    ///
    /// # Errors
    /// What could not be written.
    pub fn found(&self, dir: &Path) -> Result<(), Problem> {
        save_founding(dir, &self.found)?;
        self.charter(dir, true)
    }

    fn charter(&self, dir: &Path, founder: bool) -> Result<(), Problem> {
        let file = ClusterFile { cluster: self.found.cluster, founder, epoch: 0, recover: false };
        file.save(dir).map_err(|e| failed("a state directory is not made", &e))
    }
}

/// Prepares all nodes below `dir`, their sockets in `sockets`.
pub(crate) fn all(dir: &Path, sockets: &Path, options: &Options) -> Result<Vec<Prepared>, Problem> {
    let mut rng = ChaCha12Rng::from_os_rng();
    let mut authority = Authority::create()?;
    let port = free_ports(options.nodes, &mut rng)?;
    let seeds: Vec<SocketAddr> = (0..options.nodes.min(3)).map(|n| control(n, port)).collect();
    let mut nodes = Vec::new();
    for n in 0..options.nodes {
        let node = Prepared {
            name: format!("dev{}", n + 1),
            dir: dir.join(format!("dev{}", n + 1)),
            config: dir.join(format!("dev{}.toml", n + 1)),
            socket: socket(sockets, n),
            control: control(n, port),
        };
        authority.prepare(&node.dir)?;
        let config = config_of(&node, n, &seeds, options);
        std::fs::write(&node.config, config.to_toml()).map_err(|e| failed("a config is not written", &e))?;
        nodes.push(node);
    }
    if let Some(founder) = nodes.first() {
        authority.found(&founder.dir)?;
    }
    Ok(nodes)
}

/// Another directory for the sockets of so many nodes, if their paths in `dir` would be longer than a socket's may be (108 bytes,
/// unix(7)).
///
/// # Errors
/// It is not made.
#[cfg(unix)]
pub(crate) fn shorter(dir: &Path, nodes: usize) -> Result<Option<TempDir>, Problem> {
    let is_short = std::os::unix::net::SocketAddr::from_pathname(socket(dir, nodes)).is_ok();
    (!is_short).then(new_dir).transpose().map_err(|e| failed("the sockets' directory is not made", &e))
}

#[cfg(unix)]
fn new_dir() -> std::io::Result<TempDir> {
    tempfile::Builder::new().prefix("swarm-").tempdir()
}

/// Pipes have no such bound.
#[cfg(windows)]
pub(crate) fn shorter(_dir: &Path, _nodes: usize) -> Result<Option<TempDir>, Problem> {
    Ok(None)
}

#[cfg(unix)]
fn socket(dir: &Path, n: usize) -> PathBuf {
    dir.join(format!("dev{}.sock", n + 1))
}

/// A pipe, which has no place in a directory; the directory's own name is nobody else's.
#[cfg(windows)]
fn socket(dir: &Path, n: usize) -> PathBuf {
    let swarm = dir.file_name().unwrap_or_default().to_string_lossy();
    format!(r"\\.\pipe\{swarm}-dev{}", n + 1).into()
}

/// Each node has an address of its own, but under Wine, which has only one.
fn address(n: usize) -> IpAddr {
    let last = if cfg!(windows) { 1 } else { u8::try_from(n + 1).unwrap_or(254) };
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

fn config_of(node: &Prepared, n: usize, seeds: &[SocketAddr], options: &Options) -> Config {
    let mut config = Config::new(node.name.clone());
    // no mesh leads through the loopback: whoever wants it has to say so
    config.mesh.kind = Some(Kind::Explicit);
    config.mesh.address = Some(node.control.ip());
    config.node.state_dir.clone_from(&node.dir);
    config.node.labels.insert("dev".into(), (n + 1).to_string());
    config.mesh.control_port = node.control.port();
    config.mesh.bulk_port = node.control.port() + 1;
    config.mesh.peers = seeds.iter().copied().filter(|seed| *seed != node.control).map(Seed::from).collect();
    config.exec = Exec { enabled: true, sandbox: Some(Sandbox::None), ..Exec::default() };
    config.resources = options.resources.clone();
    config.api.socket.clone_from(&node.socket);
    config.api.port = node.control.port() + 2;
    config.log.level.clone_from(&options.log);
    config
}

/// Each node has ports of its own, for the sake of hosts where all have one address.
fn control(n: usize, first: u16) -> SocketAddr {
    SocketAddr::new(address(n), first + 2 * u16::try_from(n).unwrap_or(0))
}

/// The first of ports that are free now, a pair for each node.
fn free_ports(nodes: usize, rng: &mut impl rand::Rng) -> Result<u16, Problem> {
    for _ in 0..TRIES {
        let port = rng.random_range(10_000..30_000) & !1;
        let is_free = |n: usize| {
            let first = control(n, port);
            let is_free_udp = [first.port(), first.port() + 1].into_iter().all(|port| UdpSocket::bind((first.ip(), port)).is_ok());
            is_free_udp && TcpListener::bind((first.ip(), first.port() + 2)).is_ok()
        };
        if (0..nodes).all(is_free) {
            return Ok(port);
        }
    }
    Err(failed("no free ports are found on 127.0.0.x", &format!("{TRIES} pairs between 10000 and 30000 were tried")))
}
