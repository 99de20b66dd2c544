//! Which mesh is meant: a pure function of what the operator wrote and of what was seen.
//!
//! Two kinds of No. **Late**: nothing contradicts what was asked for, it is only not there yet, as at boot; ask again. **Refused**:
//! what was seen contradicts it, so that waiting would not help; the way out is named. Left alone (`kind = "auto"`) Tailscale
//! comes before WireGuard, and where Tailscale is installed it is waited for: a host must not be on one mesh after one boot and on
//! another after the next, depending on which came up first.

use std::net::IpAddr;

use crate::{Interface, Kind, Mesh, NoTailnet, Sighting, Tailnet};

/// What the operator asked for; all `None` is "whatever there is".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// `None`: find out.
    pub kind: Option<Kind>,
    /// This interface and no other.
    pub interface: Option<String>,
    /// This address and no other.
    pub address: Option<IpAddr>,
}

/// Why there is no mesh to be on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMesh {
    /// Not yet; what is waited for.
    #[error("{0}")]
    Late(String),
    /// Not ever, as things are.
    #[error("{what}")]
    Refused {
        /// What contradicts what, in one sentence.
        what: String,
        /// A way out.
        hint: String,
    },
}

fn late<T>(what: impl Into<String>) -> Result<T, NoMesh> {
    Err(NoMesh::Late(what.into()))
}

fn refused<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, NoMesh> {
    Err(NoMesh::Refused { what: what.into(), hint: hint.into() })
}

impl Wish {
    /// The mesh that is meant.
    ///
    /// # Errors
    /// [`NoMesh`].
    pub fn choose(&self, seen: &Sighting) -> Result<Mesh, NoMesh> {
        if let Some(address) = self.address {
            refuse_foreign(address, seen)?;
        }
        match self.kind {
            Some(Kind::Explicit) => self.explicit(seen),
            Some(Kind::Interface) => self.named(seen),
            Some(Kind::Wireguard) => self.wireguard(seen),
            Some(Kind::Tailscale) => self.tailscale(seen),
            None => self.whatever(seen),
        }
    }

    /// The operator answers for the address; it only has to be here.
    fn explicit(&self, seen: &Sighting) -> Result<Mesh, NoMesh> {
        let Some(address) = self.address else {
            return refused("kind = \"address\" without an address", "address = \"10.0.0.1\", this host's on the mesh");
        };
        let holder = holder_of(address, seen);
        if holder.is_none() && !address.is_loopback() {
            return late(nowhere(address, seen));
        }
        Ok(Mesh { kind: Kind::Explicit, interface: holder.map(|i| i.name.clone()), addresses: vec![address], domain: None })
    }

    fn named(&self, seen: &Sighting) -> Result<Mesh, NoMesh> {
        let Some(name) = &self.interface else {
            return refused("kind = \"interface\" without an interface", format!("interface = \"zt0\"; here are {}", list(seen)));
        };
        let Some(interface) = find(name, seen) else {
            return late(format!("there is no interface {name} yet (there are {})", list(seen)));
        };
        if interface.is_loopback {
            return refused(
                format!("{name} leads to no other host"),
                "the interface of the mesh; for a throw-away swarm on one machine kind = \"address\" and a loopback address",
            );
        }
        let addresses = self.narrow(interface, seen)?;
        Ok(Mesh { kind: Kind::Interface, interface: Some(name.clone()), addresses, domain: None })
    }

    fn wireguard(&self, seen: &Sighting) -> Result<Mesh, NoMesh> {
        let interface = match &self.interface {
            Some(name) => match find(name, seen) {
                Some(interface) if interface.is_wireguard => interface,
                Some(_) => return refused(format!("{name} is no WireGuard interface"), "kind = \"interface\" takes it as it is"),
                None => return late(format!("there is no interface {name} yet (there are {})", list(seen))),
            },
            None => match self.one_wireguard(seen)? {
                Some(interface) => interface,
                None => return late(format!("there is no WireGuard interface yet (there are {})", list(seen))),
            },
        };
        let addresses = self.narrow(interface, seen)?;
        Ok(Mesh { kind: Kind::Wireguard, interface: Some(interface.name.clone()), addresses, domain: None })
    }

    /// The WireGuard interface that is meant without being named.
    fn one_wireguard<'s>(&self, seen: &'s Sighting) -> Result<Option<&'s Interface>, NoMesh> {
        let has_it = |interface: &&Interface| self.address.is_none_or(|address| interface.addresses.contains(&address));
        let found: Vec<&Interface> = seen.interfaces.iter().filter(|interface| interface.is_wireguard).filter(has_it).collect();
        if let [first, _, ..] = found[..] {
            let names = found.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>().join(", ");
            return refused(
                format!("several WireGuard interfaces are here: {names}"),
                format!("interface = \"{}\" says which is meant", first.name),
            );
        }
        Ok(found.first().copied())
    }

    fn tailscale(&self, seen: &Sighting) -> Result<Mesh, NoMesh> {
        let tailnet = match &seen.tailscale {
            Ok(tailnet) => tailnet,
            Err(why) => return late(why.to_string()),
        };
        if !tailnet.is_running() {
            return late(format!("Tailscale is not up, but {} (`tailscale up`)", said(&tailnet.state)));
        }
        if !tailnet.has_interface {
            return late("tailscaled runs in userspace mode, where no address of the tailnet can be bound; it needs its interface");
        }
        let own = own_addresses(tailnet);
        if let Some(address) = self.address.filter(|address| !own.contains(address)) {
            return refused(
                format!("{address} is not this host's address in the tailnet ({})", join(&own)),
                "leave address out, or set it to one of those; kind says which mesh is meant",
            );
        }
        let (here, holders): (Vec<IpAddr>, Vec<&Interface>) =
            own.iter().filter_map(|address| Some((*address, holder_of(*address, seen)?))).unzip();
        let Some(holder) = holders.first() else {
            return late(format!("tailscaled names {}, but no interface carries that yet", join(&own)));
        };
        if let Some(name) = self.interface.as_ref().filter(|name| **name != holder.name) {
            return refused(
                format!("the tailnet is on {}, not on {name}", holder.name),
                format!("interface = \"{}\", or leave it out", holder.name),
            );
        }
        let addresses = first_wished(here, self.address);
        if self.address.is_some_and(|address| !addresses.contains(&address)) {
            return late(nowhere(addresses[0], seen));
        }
        Ok(Mesh { kind: Kind::Tailscale, interface: Some(holder.name.clone()), addresses, domain: tailnet.domain.clone() })
    }

    /// Nothing says which kind of mesh.
    fn whatever(&self, seen: &Sighting) -> Result<Mesh, NoMesh> {
        if let Some(name) = &self.interface {
            return match find(name, seen) {
                Some(interface) if interface.is_wireguard && !is_of_tailnet(interface, seen) => self.wireguard(seen),
                Some(interface) if is_of_tailnet(interface, seen) => self.tailscale(seen),
                Some(_) | None => self.named(seen),
            };
        }
        if let Some(address) = self.address {
            return self.at_address(address, seen);
        }
        match &seen.tailscale {
            Ok(_) => self.tailscale(seen),
            Err(NoTailnet::Silent { .. } | NoTailnet::Refused { .. } | NoTailnet::Garbled(_)) => {
                self.tailscale(seen).or_else(|no| late(format!("{no}; kind = \"wireguard\" passes Tailscale over")))
            }
            Err(NoTailnet::Absent { .. }) => match self.one_wireguard(seen)? {
                Some(_) => self.wireguard(seen),
                None => late(format!(
                    "there is neither Tailscale nor a WireGuard interface yet (there are {}); of another mesh [mesh] interface = \"..\" names the interface",
                    list(seen)
                )),
            },
        }
    }

    /// An address alone must be on a mesh: one that is on the host's ordinary network is refused, for it may be open to anybody.
    fn at_address(&self, address: IpAddr, seen: &Sighting) -> Result<Mesh, NoMesh> {
        if address.is_loopback() {
            return refused(
                format!("no other host can reach {address}"),
                "for a throw-away swarm on one machine write kind = \"address\" beside it",
            );
        }
        if let Ok(tailnet) = &seen.tailscale
            && tailnet.addresses.contains(&address)
        {
            return self.tailscale(seen);
        }
        match holder_of(address, seen) {
            Some(interface) if interface.is_wireguard => self.wireguard(seen),
            Some(interface) => refused(
                format!("{address} is on {}, which is neither Tailscale's nor WireGuard's", interface.name),
                format!("if {0} is a mesh, say interface = \"{0}\" or kind = \"address\"; else leave address out", interface.name),
            ),
            None => late(nowhere(address, seen)),
        }
    }

    /// The addresses of an interface, the wished one first.
    fn narrow(&self, interface: &Interface, seen: &Sighting) -> Result<Vec<IpAddr>, NoMesh> {
        match self.address {
            Some(address) if !interface.addresses.contains(&address) => match holder_of(address, seen) {
                Some(other) => refused(
                    format!("{address} is on {}, not on {}", other.name, interface.name),
                    format!("leave address out, or say interface = \"{}\"", other.name),
                ),
                None => late(nowhere(address, seen)),
            },
            None if interface.addresses.is_empty() => late(format!("{} has no address yet", interface.name)),
            wished => Ok(first_wished(interface.addresses.clone(), wished)),
        }
    }
}

/// An address that the tailnet gives to somebody else.
fn refuse_foreign(address: IpAddr, seen: &Sighting) -> Result<(), NoMesh> {
    if let Some(interface) = seen.interfaces.iter().find(|interface| interface.peers.contains(&address))
        && holder_of(address, seen).is_none()
    {
        return refused(
            format!("{address} belongs to a peer of {}, not to this host", interface.name),
            match interface.addresses.first() {
                Some(own) => format!("address = \"{own}\", or leave it out"),
                None => "leave address out".into(),
            },
        );
    }
    let Ok(tailnet) = &seen.tailscale else { return Ok(()) };
    match tailnet.owner_of(address) {
        Some(peer) if holder_of(address, seen).is_none() => refused(
            format!("{address} belongs to {}, not to this host", peer.name),
            match own_addresses(tailnet).first() {
                Some(own) => format!("address = \"{own}\", or leave it out"),
                None => "leave address out".into(),
            },
        ),
        Some(_) | None => Ok(()),
    }
}

fn find<'s>(name: &str, seen: &'s Sighting) -> Option<&'s Interface> {
    seen.interfaces.iter().find(|interface| interface.name == name)
}

fn holder_of(address: IpAddr, seen: &Sighting) -> Option<&Interface> {
    seen.interfaces.iter().find(|interface| interface.addresses.contains(&address))
}

fn is_of_tailnet(interface: &Interface, seen: &Sighting) -> bool {
    seen.tailscale.as_ref().is_ok_and(|tailnet| tailnet.addresses.iter().any(|address| interface.addresses.contains(address)))
}

/// IPv4 first: every host of a tailnet has both, and IPv4 costs twenty bytes less a packet.
fn own_addresses(tailnet: &Tailnet) -> Vec<IpAddr> {
    let mut own = tailnet.addresses.clone();
    own.sort();
    own
}

fn first_wished(mut addresses: Vec<IpAddr>, wished: Option<IpAddr>) -> Vec<IpAddr> {
    if let Some(at) = addresses.iter().position(|address| Some(*address) == wished) {
        addresses[..=at].rotate_right(1);
    }
    addresses
}

fn nowhere(address: IpAddr, seen: &Sighting) -> String {
    format!("no interface has {address}: its mesh is not up yet, or it is another host's (here are {})", list(seen))
}

/// The interfaces for a person to choose from.
fn list(seen: &Sighting) -> String {
    let named = seen.interfaces.iter().filter(|interface| !interface.is_loopback).map(|interface| match interface.addresses.first() {
        Some(address) => format!("{} {address}", interface.name),
        None => interface.name.clone(),
    });
    let text = named.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "none but the loopback".into() } else { text }
}

fn join(addresses: &[IpAddr]) -> String {
    if addresses.is_empty() {
        return "it has none".into();
    }
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

fn said(state: &str) -> String {
    if state.is_empty() { "in no state that it tells".into() } else { format!("\"{state}\"") }
}

#[cfg(test)]
mod tests;
