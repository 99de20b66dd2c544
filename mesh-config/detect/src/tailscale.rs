//! What tailscaled says: its LocalAPI first, the `tailscale` command where that does not answer.
//!
//! The API is HTTP on a local socket that every local user may read. What it tells admits nobody: it says where to knock, and who
//! the operator's tailnet thinks an address is.

#[cfg(unix)]
pub(crate) mod local_api;
pub(crate) mod wire;

use std::net::{IpAddr, SocketAddr};

use crate::{
    ANSWER, Look, Peer, TIME,
    command::{self, Silence},
};

/// tailscaled's socket.
#[cfg(not(windows))]
pub const SOCKET: &str = "/var/run/tailscale/tailscaled.sock";
/// Its pipe, which only its own program is asked to open.
#[cfg(windows)]
pub const SOCKET: &str = r"\\.\pipe\ProtectedPrefix\Administrators\Tailscale\tailscaled";
/// Where MagicDNS answers on every host of a tailnet, whatever resolv.conf says.
pub const RESOLVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(100, 100, 100, 100));
/// The state in which a tailnet carries packets.
const RUNNING: &str = "Running";

/// A tailnet, as this host's tailscaled sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tailnet {
    /// `Running`, `NeedsLogin`, `Stopped`, `Starting`, ..
    pub state: String,
    /// This host's own addresses (`Self.TailscaleIPs`).
    pub addresses: Vec<IpAddr>,
    /// Whether there is an interface that carries them; false in userspace mode.
    pub has_interface: bool,
    /// MagicDNS's domain.
    pub domain: Option<String>,
    /// Everybody else, by name.
    pub peers: Vec<Peer>,
}

impl Tailnet {
    /// Whether it carries packets.
    pub fn is_running(&self) -> bool {
        self.state == RUNNING
    }

    /// Who else has this address.
    pub fn owner_of(&self, address: IpAddr) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.addresses.contains(&address))
    }
}

/// Whom a tailnet thinks an address belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whois {
    /// The host's name, without a dot at the end.
    pub name: String,
    /// Its tags; a tagged host belongs to no user.
    pub tags: Vec<String>,
    /// Login name of its user; empty for a tagged one.
    pub user: String,
    /// Names of the capabilities that grants give it on this host.
    pub capabilities: Vec<String>,
}

/// Why tailscaled says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTailnet {
    /// Neither the socket nor the program is there.
    #[error("Tailscale is not installed here (no {socket}, no program tailscale)")]
    Absent {
        /// Where the socket should be.
        socket: String,
    },
    /// It is there and does not answer.
    #[error("tailscaled does not answer at {socket}: {why}")]
    Silent {
        /// Where it was asked.
        socket: String,
        /// What came of it.
        why: String,
    },
    /// It answers that it will not.
    #[error("tailscaled refuses: {status} {text}")]
    Refused {
        /// HTTP's status.
        status: u16,
        /// Its first line.
        text: String,
    },
    /// What it says cannot be read.
    #[error("tailscaled's answer cannot be read: {0}")]
    Garbled(String),
}

/// Asks for the state of the tailnet.
///
/// # Errors
/// [`NoTailnet`]; of several reasons that of the LocalAPI.
pub fn status(look: &Look) -> Result<Tailnet, NoTailnet> {
    let first = match get(look, "status").and_then(|body| wire::tailnet(&body)) {
        Ok(tailnet) => return Ok(tailnet),
        Err(why) => why,
    };
    match command::ask(&look.tailscale, &["status", "--json"], ANSWER, TIME) {
        Ok(said) => wire::tailnet(&said.out).map_err(|_| as_present(first)),
        Err(Silence::Missing) => Err(first),
        Err(Silence::Failed(_)) => Err(as_present(first)),
    }
}

/// Asks whom an address belongs to; `None`: nobody in the tailnet.
///
/// # Errors
/// [`NoTailnet`].
pub fn whois(look: &Look, addr: SocketAddr) -> Result<Option<Whois>, NoTailnet> {
    let escaped = addr.to_string().replace('[', "%5B").replace(']', "%5D").replace(':', "%3A");
    match get(look, &format!("whois?addr={escaped}")) {
        Ok(body) => wire::whois(&body).map(Some),
        Err(NoTailnet::Refused { status: 404, .. }) => Ok(None),
        Err(why) => Err(why),
    }
}

#[cfg(unix)]
fn get(look: &Look, what: &str) -> Result<Vec<u8>, NoTailnet> {
    local_api::get(&look.tailscale_socket, what)
}

/// Elsewhere the program knows the way to its daemon.
#[cfg(not(unix))]
fn get(look: &Look, _what: &str) -> Result<Vec<u8>, NoTailnet> {
    Err(NoTailnet::Absent { socket: look.tailscale_socket.display().to_string() })
}

/// The program is there, so Tailscale is installed, even where its socket is missing.
fn as_present(why: NoTailnet) -> NoTailnet {
    match why {
        NoTailnet::Absent { socket } => NoTailnet::Silent { socket, why: "the socket is not there; is tailscaled running?".into() },
        other @ (NoTailnet::Silent { .. } | NoTailnet::Refused { .. } | NoTailnet::Garbled(_)) => other,
    }
}
