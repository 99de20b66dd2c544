//! What the operator wrote: typed, validated, every value explainable.
//!
//! ```text
//! built-in defaults  <  swarmd.toml  <  environment (SWARM_<SECTION>_<KEY>)
//! ```
//!
//! The file is read as a tree of values that know their place, and each key of [`Config`] takes its own value out of it. That costs
//! a line per key where a derive would cost none, and buys what an operator needs at three in the morning: every fault at once, each
//! with its line, and [`Config::explain`], which says where a value came from. Nothing here asks the network or the machine; what
//! is left out under `[resources]` is measured by swarmd, and what is left out under `[mesh]` is found by `mesh-detect`.

mod check;
mod edit;
mod fault;
mod places;
mod preset;
mod read;
mod reference;
mod seed;
mod setting;
mod size;
mod source;
mod write;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use swarm_proto::ledger::Addrs;

pub use edit::{Edit, write};
pub use fault::{Fault, Place, problem};
pub use mesh_detect::Kind;
pub use places::{CONFIG_FILE, SOCKET, STATE_DIR};
pub use preset::{Preset, Timing};
pub use reference::{Described, commented, reference, variable};
pub use seed::{Host, Seed};
pub use size::{format_bytes, parse_bytes};
pub use source::{Env, Source};
pub use swarm_proto::access::Role;
pub use write::Explained;

/// Control endpoint.
pub const CONTROL_PORT: u16 = 4747;
/// What is logged. The consensus engine tells every step at its `info`.
pub const LOG_LEVEL: &str = "info,openraft=warn";
/// Bulk endpoint.
pub const BULK_PORT: u16 = 4748;
/// API on the mesh address.
pub const API_PORT: u16 = 4749;
/// Of a node.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// `blobs.scrub_every`, where it is not set.
pub const SCRUB_EVERY: Duration = Duration::from_hours(7 * 24);

/// The whole configuration of one daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[node]`
    pub node: Node,
    /// `[mesh]`
    pub mesh: Mesh,
    /// `[exec]`
    pub exec: Exec,
    /// `[resources]`
    pub resources: Resources,
    /// `[blobs]`
    pub blobs: Blobs,
    /// `[api]`
    pub api: Api,
    /// `[log]`
    pub log: Log,
    /// Keys that were set, and by what; all others are defaults.
    sources: BTreeMap<&'static str, Source>,
}

/// `[node]`: this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What people call it: 1 to 63 letters, digits, `.`, `-` or `_`, not of the form of a node id (`n3`). Default: the host's name.
    pub name: String,
    /// Identity, log, snapshots and kept output. Absolute. Default: [`STATE_DIR`].
    pub state_dir: PathBuf,
    /// At most [`swarm_proto::limits::LABELS`], without `os` and `arch`, which every node has by itself.
    pub labels: BTreeMap<String, String>,
    /// Whether its disk may count for the majority.
    pub voter: Voter,
}

/// Whether a node may become a voter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Voter {
    /// The leader decides.
    #[default]
    Auto,
    /// Not this one (laptops, SD cards).
    Never,
}

/// `[mesh]`: the address to be found at, and where to find others. All of it may be left out where there is Tailscale or one
/// WireGuard interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// What kind of mesh this host is on. `None` (`auto`): Tailscale, or else the one WireGuard interface.
    pub kind: Option<Kind>,
    /// The interface that carries it, where that must be said. It alone is enough for any mesh that is an interface.
    pub interface: Option<String>,
    /// The one address that is bound, where it must be said. Never the unspecified one, and a loopback one only with
    /// `kind = "address"`.
    pub address: Option<IpAddr>,
    /// Gossip, calls and consensus. Default: [`CONTROL_PORT`].
    pub control_port: u16,
    /// Snapshots and live output. Default: [`BULK_PORT`].
    pub bulk_port: u16,
    /// Members to ask first, by name or address. Needed only where the mesh does not tell who is on it.
    pub peers: Vec<Seed>,
    /// Only hosts of the tailnet with this tag are asked.
    pub tag: Option<String>,
    /// How patient this swarm is; the same on every node. `None`: [`Mesh::preset_on`] says.
    pub preset: Option<Preset>,
    /// Where tailscaled listens.
    pub tailscale_socket: PathBuf,
    /// How long the certificates live that this node issues; they are renewed after two thirds. 10 s to a year. Default:
    /// [`CERTIFICATE_LIFE`].
    pub certificate_life: Duration,
}

impl Mesh {
    /// What `mesh-detect` shall find.
    pub fn wish(&self) -> mesh_detect::Wish {
        mesh_detect::Wish { kind: self.kind, interface: self.interface.clone(), address: self.address }
    }

    /// Where it shall look.
    pub fn look(&self) -> mesh_detect::Look {
        mesh_detect::Look { tailscale_socket: self.tailscale_socket.clone(), ..mesh_detect::Look::default() }
    }

    /// How patient the swarm is on a mesh of this kind. Tailscale's paths go dark for seconds on healthy hosts, so it starts as
    /// [`Preset::Wan`].
    pub fn preset_on(&self, kind: Kind) -> Preset {
        self.preset.unwrap_or(match kind {
            Kind::Tailscale => Preset::Wan,
            Kind::Wireguard | Kind::Interface | Kind::Explicit => Preset::Lan,
        })
    }

    /// Both endpoints of a host of this swarm.
    pub const fn addrs_at(&self, address: IpAddr) -> Addrs {
        Addrs { control: SocketAddr::new(address, self.control_port), bulk: SocketAddr::new(address, self.bulk_port) }
    }
}

/// `[blobs]`: what is kept here of what tasks read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blobs {
    /// Bytes. Default: a quarter of the disk that holds `state_dir`.
    pub quota: Option<u64>,
    /// Bytes a second that are given to other nodes, all together. Default: as fast as it goes.
    pub send_rate: Option<u64>,
    /// The same for each other node.
    pub send_rate_per_node: Option<u64>,
    /// A file of 32 random bytes that opens what is kept encrypted here. Default: `blobs.key` in `state_dir`, made when it is needed.
    pub key_file: Option<PathBuf>,
    /// How long one look at every blob for bytes that changed on the disk takes. Default: [`SCRUB_EVERY`]. Between a second and a year.
    pub scrub_every: Option<Duration>,
}

/// `[exec]`: whether this host runs processes for the swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// Default: no.
    pub enabled: bool,
    /// What stands between a task and the host. `Some` whenever `enabled`.
    pub sandbox: Option<Sandbox>,
    /// As whom tasks run: a user of this host, never root. Default: as the daemon does, so that a task may read the node's key.
    pub user: Option<String>,
    /// Run only what its submitter has signed. Default: no.
    pub require_signed: bool,
    /// Most bytes that are kept of what one task writes to its standard output, on this host's disk until it ends, then as a blob.
    /// Default: 1 GiB. Never less than 10 MiB.
    pub stdout_limit: Option<u64>,
}

/// What stands between a task and the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// Nothing: a task may do all that its user may ([`Exec::user`]).
    None,
}

/// `[resources]`: what is offered to tasks; `None` is measured by swarmd.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// Cores, such as 3.5.
    pub cores: Option<f64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes.
    pub disk: Option<u64>,
    /// Whole GPUs.
    pub gpus: Option<u32>,
    /// Anything else that is counted, by name.
    pub named: BTreeMap<String, u64>,
}

/// `[api]`: where clients on this host find the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Absolute, at most 107 bytes (the kernel's bound). Default: [`SOCKET`].
    pub socket: PathBuf,
    /// Whose members may use the socket too. Default: nobody but root and the daemon's own user.
    pub group: Option<String>,
    /// What members of that group may do. Default: submit, and cancel what they submitted.
    pub group_role: Role,
    /// TCP port on the mesh address where nodes and people enrol, and people with a certificate ask. Bound only while somebody
    /// may. Default: [`API_PORT`].
    pub port: u16,
}

/// `[log]`: what the daemon writes about itself, to standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level, or a list such as `info,quinn=warn`. Default: [`LOG_LEVEL`].
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

impl Config {
    /// Defaults, for a host of this name. What it is given is not checked; [`Config::load`] of what [`Config::to_toml`] wrote
    /// does that.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            node: Node { name: name.into(), state_dir: STATE_DIR.into(), labels: BTreeMap::new(), voter: Voter::Auto },
            mesh: Mesh {
                kind: None,
                interface: None,
                address: None,
                control_port: CONTROL_PORT,
                bulk_port: BULK_PORT,
                peers: Vec::new(),
                tag: None,
                preset: None,
                tailscale_socket: mesh_detect::tailscale::SOCKET.into(),
                certificate_life: CERTIFICATE_LIFE,
            },
            exec: Exec::default(),
            resources: Resources::default(),
            blobs: Blobs::default(),
            api: Api { socket: SOCKET.into(), group: None, group_role: Role::Submitter, port: API_PORT },
            log: Log { level: LOG_LEVEL.into(), format: LogFormat::Text },
            sources: BTreeMap::new(),
        }
    }

    /// Reads `path`, lets `env` override it, and checks everything.
    ///
    /// # Errors
    /// Every fault that was found, in the order of the file, those of the environment after them.
    pub fn load(path: &Path, env: &Env) -> Result<Self, Vec<Fault>> {
        match read::file(path) {
            Ok(text) => Self::parse(path, &text, env),
            Err(error) => Err(vec![fault::unreadable(path, &error)]),
        }
    }

    /// The same for a text that was read already; `path` only names it in faults.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str, env: &Env) -> Result<Self, Vec<Fault>> {
        read::config(path, text, env)
    }

    /// The failure domain: label `zone`.
    pub fn zone(&self) -> Option<&str> {
        self.node.labels.get("zone").map(String::as_str)
    }
}

#[cfg(test)]
mod tests;
