//! The host's interfaces and their addresses.
//!
//! `getifaddrs` by way of `if-addrs`, because it works on Linux and Windows alike and is a system call or two; a netlink library
//! would add notices of change at the price of a second protocol that only Linux has. A look every few seconds does as well.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr},
};

use crate::Look;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// As the system calls it.
    pub name: String,
    /// Without link-local ones; IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Whether it leads nowhere but back.
    pub is_loopback: bool,
    /// Whether it is one of WireGuard's.
    pub is_wireguard: bool,
    /// Of a WireGuard interface: addresses of its peers, as far as `wg` may tell them.
    pub peers: Vec<IpAddr>,
}

pub(crate) fn all(look: &Look) -> io::Result<Vec<Interface>> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for one in if_addrs::get_if_addrs()? {
        let (address, is_loopback) = (one.ip(), one.is_loopback());
        let interface = found.entry(one.name).or_insert_with_key(|name| Interface {
            name: name.clone(),
            addresses: Vec::new(),
            is_loopback,
            is_wireguard: crate::wireguard::is_interface(look, name),
            peers: Vec::new(),
        });
        if !is_link_local(address) && !interface.addresses.contains(&address) {
            interface.addresses.push(address);
        }
    }
    for interface in found.values_mut() {
        interface.addresses.sort();
        if interface.is_wireguard {
            // a program that may not ask knows less, and is told so when it looks for members
            let peers = crate::wireguard::peers(look, &interface.name).unwrap_or_default();
            interface.peers = peers.into_iter().flat_map(|peer| peer.addresses).collect();
        }
    }
    Ok(found.into_values().collect())
}

/// Whether the host has this address now. Every loopback address is its own, listed or not.
///
/// # Errors
/// The system does not tell its interfaces.
pub fn is_own(address: IpAddr) -> io::Result<bool> {
    Ok(address.is_loopback() || if_addrs::get_if_addrs()?.iter().any(|one| one.ip() == address))
}

/// Addresses that say nothing without the name of an interface.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => is_unicast_link_local(v6),
    }
}

fn is_unicast_link_local(v6: Ipv6Addr) -> bool {
    v6.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there_and_its_own() {
        let all = all(&Look::default()).expect("the system tells its interfaces");
        let lo = all.iter().find(|interface| interface.is_loopback).expect("every host has one");
        assert!(lo.addresses.iter().all(IpAddr::is_loopback), "{lo:?}");
        assert!(!lo.is_wireguard);
        assert!(is_own(lo.addresses[0]).expect("as above") && is_own("127.0.0.77".parse().expect("an address")).expect("as above"));
        assert!(!is_own("192.0.2.1".parse().expect("an address")).expect("as above"), "an address for documentation is nobody's");
    }

    #[test]
    fn link_local_addresses_are_told_apart() {
        for (text, is) in [("fe80::1", true), ("febf::1", true), ("fec0::1", false), ("169.254.3.4", true), ("fd7a:115c:a1e0::1", false)] {
            assert_eq!(is_link_local(text.parse().expect("an address")), is, "{text}");
        }
    }
}
