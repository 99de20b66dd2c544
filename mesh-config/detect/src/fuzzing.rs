//! For `tests/fuzz`: what tailscaled and wg say, given as bytes.

use crate::{
    NoTailnet, Peer,
    tailscale::{Tailnet, Whois, local_api, wire},
    wireguard,
};

/// What tailscaled says of itself and its tailnet.
///
/// # Errors
/// Why it cannot be understood.
pub fn tailnet(json: &[u8]) -> Result<Tailnet, NoTailnet> {
    wire::tailnet(json)
}

/// What tailscaled says of an address.
///
/// # Errors
/// Why it cannot be understood.
pub fn whois(json: &[u8]) -> Result<Whois, NoTailnet> {
    wire::whois(json)
}

/// The body of an answer of tailscaled.
///
/// # Errors
/// Why there is none.
pub fn answer(http: &[u8]) -> Result<Vec<u8>, NoTailnet> {
    local_api::Answer::of(http).into_body()
}

/// The peers of an interface, from what `wg show all allowed-ips` says.
///
/// # Errors
/// What it says instead.
pub fn wireguard(text: &str, interface: &str) -> Result<Vec<Peer>, String> {
    wireguard::parse_all(text, interface)
}
