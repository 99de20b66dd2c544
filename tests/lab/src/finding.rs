//! How daemons find their mesh, and on it each other: what is typed into the config file, and on what kind of mesh.

use swarm_proto::api::Origin;

use crate::lab::Preset;

/// How a daemon finds its mesh and others on it. Nowhere in what is typed is an address, but where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Finding {
    /// The interface is named, and members' names are looked up in the mesh's DNS.
    Names,
    /// Tailscale's own list of hosts, of which those with one tag are meant.
    Tailnet,
    /// Plain WireGuard whose peers the daemon may not read, as with the package; the address of one member is written down.
    Seed,
    /// Plain WireGuard whose peers the daemon may read; nothing is written down.
    Peers,
    /// Another mesh, whose interface is named; the address of one member is written down.
    Interface,
}

impl Finding {
    /// What the operator writes under `[mesh]`.
    pub(crate) const fn config(self) -> &'static str {
        match self {
            Self::Names => "kind = \"interface\"\ninterface = \"wg0\"\npeers = [\"h1\", \"h2\", \"h3\"]\n",
            Self::Tailnet => "tag = \"tag:swarm\"\n",
            Self::Seed => "peers = [\"100.64.0.1\"]\n",
            Self::Peers => "",
            Self::Interface => "interface = \"zt0\"\npeers = [\"100.64.0.1\"]\n",
        }
    }

    /// What meshlab makes the mesh with.
    pub(crate) const fn mesh(self) -> &'static [&'static str] {
        match self {
            Self::Names | Self::Tailnet => &["--wireguard"],
            Self::Seed | Self::Peers => &["--wireguard", "--no-tailscale"],
            Self::Interface => &["--plain", "--no-tailscale", "--interface", "zt0"],
        }
    }

    /// Whether the daemon runs as the package has it: a user who may do nothing with the network.
    pub(crate) const fn is_unprivileged(self) -> bool {
        matches!(self, Self::Seed)
    }

    /// How patient a daemon on such a mesh is by itself.
    pub const fn preset(self) -> Preset {
        match self {
            Self::Tailnet => Preset::Wan,
            Self::Names | Self::Seed | Self::Peers | Self::Interface => Preset::Lan,
        }
    }

    /// What tells a daemon that has to look where others are.
    pub(crate) const fn origin(self) -> Origin {
        match self {
            Self::Names => Origin::Dns,
            Self::Tailnet => Origin::Tailscale,
            Self::Seed | Self::Interface => Origin::Seed,
            Self::Peers => Origin::Wireguard,
        }
    }
}
