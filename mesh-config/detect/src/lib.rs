//! What the host has: its interfaces, the Tailscale or WireGuard mesh on them, and who else is on that mesh.
//!
//! ```text
//! Look::see()  -> Sighting         interfaces with their addresses, and what tailscaled says of itself
//! Wish::choose(&Sighting) -> Mesh  the one mesh that the operator means, or why there is none (yet)
//! Look::peers(&Mesh) -> Vec<Peer>  who else is there, as far as the mesh tells
//! ```
//! Seeing touches the machine; choosing is pure, so that every case of it is a test without a machine. Nothing here is cached,
//! and nothing here waits longer than [`TIME`]: callers ask again. The calls block, for they are rare and local; a caller with a
//! runtime to keep lively makes them on another thread.
//!
//! The proof that an address is the host's own is that an interface carries it; that it is the mesh's, that tailscaled names it
//! (`Self.TailscaleIPs`) or that a WireGuard interface has it. Address ranges prove nothing and are not looked at.

mod choose;
mod command;
#[cfg(all(feature = "fuzzing", unix))]
#[doc(hidden)]
pub mod fuzzing;
mod interface;
#[cfg(unix)]
mod socket;
pub mod tailscale;
mod wireguard;

use std::{net::IpAddr, path::PathBuf, time::Duration};

pub use self::{
    choose::{NoMesh, Wish},
    interface::{Interface, is_own},
    tailscale::{NoTailnet, Tailnet},
};

/// The longest that one question to another program may take.
pub const TIME: Duration = Duration::from_secs(3);
/// The most that is read of an answer: a tailnet of ten thousand hosts fits.
pub const ANSWER: usize = 32 << 20;

/// What kind of mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A tailnet, known by its LocalAPI.
    Tailscale,
    /// A WireGuard interface.
    Wireguard,
    /// Any other interface that the operator named.
    Interface,
    /// No interface, but an address that the operator named.
    Explicit,
}

impl Kind {
    /// As the operator writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tailscale => "tailscale",
            Self::Wireguard => "wireguard",
            Self::Interface => "interface",
            Self::Explicit => "address",
        }
    }
}

/// A mesh that this host is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// What it is.
    pub kind: Kind,
    /// Which interface carries its addresses, as far as one does.
    pub interface: Option<String>,
    /// This host's addresses there, at least one; the first is the one to bind.
    pub addresses: Vec<IpAddr>,
    /// The domain that short names of its hosts live in.
    pub domain: Option<String>,
}

impl Mesh {
    /// The address to bind.
    pub fn address(&self) -> IpAddr {
        *self.addresses.first().expect("a mesh has at least one address of this host")
    }
}

/// Another host of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// What the mesh calls it, without a dot at the end; empty where it has no names.
    pub name: String,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// Tailscale's tags, such as `tag:swarm`.
    pub tags: Vec<String>,
    /// Whether the mesh says that it is there; `None` where it does not say.
    pub is_online: Option<bool>,
    /// Operating system, as the mesh writes it; empty where it does not.
    pub os: String,
    /// How packets get there, in words; `None` where the mesh does not say.
    pub path: Option<String>,
    /// Login name of its user; empty where it has none.
    pub user: String,
}

/// Where to look, and by which programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// tailscaled's socket.
    pub tailscale_socket: PathBuf,
    /// The program that is asked when the socket does not answer.
    pub tailscale: PathBuf,
    /// The program that knows a WireGuard interface's peers.
    pub wg: PathBuf,
    /// Where a service of this host runs that program for whoever may connect, so that the daemon needs no power over the network.
    pub wireguard_door: PathBuf,
    /// Where WireGuard programs outside the kernel keep one socket an interface.
    pub wireguard_sockets: PathBuf,
    /// Where Linux describes its interfaces.
    pub class_net: PathBuf,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            tailscale_socket: tailscale::SOCKET.into(),
            tailscale: "tailscale".into(),
            wg: "wg".into(),
            wireguard_door: "/run/swarmd-wg.sock".into(),
            wireguard_sockets: "/var/run/wireguard".into(),
            class_net: "/sys/class/net".into(),
        }
    }
}

/// What was seen at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Those with an address other than a link-local one, and those without any.
    pub interfaces: Vec<Interface>,
    /// What tailscaled says.
    pub tailscale: Result<Tailnet, NoTailnet>,
}

impl Look {
    /// Looks once.
    ///
    /// # Errors
    /// The system does not tell its interfaces.
    pub fn see(&self) -> std::io::Result<Sighting> {
        Ok(Sighting { interfaces: interface::all(self)?, tailscale: tailscale::status(self) })
    }

    /// Who else is on a mesh, as far as it tells: all of a tailnet; of WireGuard those peers that are one host. Of other meshes
    /// nothing is known.
    ///
    /// # Errors
    /// Why the mesh does not tell, in a sentence.
    pub fn peers(&self, mesh: &Mesh) -> Result<Vec<Peer>, String> {
        match (mesh.kind, &mesh.interface) {
            (Kind::Tailscale, _) => tailscale::status(self).map(|tailnet| tailnet.peers).map_err(|e| e.to_string()),
            (Kind::Wireguard, Some(interface)) => wireguard::peers(self, interface),
            (Kind::Wireguard | Kind::Interface | Kind::Explicit, _) => Ok(Vec::new()),
        }
    }
}
