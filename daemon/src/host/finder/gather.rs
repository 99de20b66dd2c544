//! Where members may be, from every source there is.

use std::net::{IpAddr, SocketAddr};

use mesh_config::{Host, Mesh, Seed};
use mesh_detect::{Kind, Look, Peer};
use swarm_proto::api::{Candidate, Missed, Origin};

use super::names::Names;

/// Hosts of a tailnet that cannot run the daemon.
const NO_HOSTS: [&str; 4] = ["iOS", "android", "tvOS", "js"];
/// The most that one look finds, so that a lying resolver or a huge tailnet costs no more.
const MOST: usize = 1_024;

/// What one look found and did not find.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) candidates: Vec<Candidate>,
    pub(super) missed: Vec<Missed>,
}

/// What is known without asking DNS: addresses that the operator wrote, then the mesh's own list.
pub(super) fn at_once(settings: &Mesh, look: &Look, mesh: &mesh_detect::Mesh) -> Gathered {
    let mut gathered = Gathered::default();
    for seed in &settings.peers {
        if let Host::Ip(ip) = &seed.host {
            gathered.add(settings, mesh, Origin::Seed, "", &[*ip], seed.port.unwrap_or(settings.control_port));
        }
    }
    gathered.ask_mesh(settings, look, mesh);
    gathered
}

impl Gathered {
    /// Adds what DNS says of the names that the operator wrote. A server that is silent takes its time.
    pub(super) async fn ask_names(&mut self, settings: &Mesh, names: &Names, mesh: &mesh_detect::Mesh) {
        let name_of = |seed: &'_ Seed| match &seed.host {
            Host::Name(name) => Some((name.clone(), seed.port.unwrap_or(settings.control_port))),
            Host::Ip(_) => None,
        };
        let wanted: Vec<(String, u16)> = settings.peers.iter().filter_map(name_of).collect();
        let answers = names.resolve(wanted.iter().map(|(name, _)| name.as_str()), mesh).await;
        for ((name, port), answer) in wanted.into_iter().zip(answers) {
            match answer {
                Ok(addresses) => self.add(settings, mesh, Origin::Dns, &name, &addresses, port),
                Err(why) => self.miss(Origin::Dns, &name, why),
            }
        }
    }

    fn ask_mesh(&mut self, settings: &Mesh, look: &Look, mesh: &mesh_detect::Mesh) {
        let (origin, what) = match mesh.kind {
            Kind::Tailscale => (Origin::Tailscale, settings.tag.as_deref().unwrap_or("the tailnet")),
            Kind::Wireguard => (Origin::Wireguard, mesh.interface.as_deref().unwrap_or_default()),
            Kind::Interface | Kind::Explicit => return,
        };
        let peers = match look.peers(mesh) {
            Ok(peers) => fit(peers, settings.tag.as_deref()),
            Err(why) => return self.miss(origin, what, why),
        };
        if peers.is_empty() {
            let why = if settings.tag.is_some() { "no other host has this tag" } else { "no other host is known there" };
            return self.miss(origin, what, why.into());
        }
        for peer in &peers {
            self.add(settings, mesh, origin, short(&peer.name, mesh.domain.as_deref()), &peer.addresses, settings.control_port);
        }
    }

    /// Takes those addresses that the bound socket can reach and that are not this daemon's own. Another daemon of this host may share
    /// its address, at other ports: so lives a throw-away swarm where the loopback is one address.
    fn add(&mut self, settings: &Mesh, mesh: &mesh_detect::Mesh, origin: Origin, name: &str, addresses: &[IpAddr], port: u16) {
        let own = mesh.address();
        let is_ours = |ip: &IpAddr| mesh.addresses.contains(ip) && port == settings.control_port;
        let is_of_use = |ip: &&IpAddr| ip.is_ipv4() == own.is_ipv4() && !is_ours(ip) && is_host(**ip, own);
        let fitting: Vec<IpAddr> = addresses.iter().filter(is_of_use).copied().collect();
        if fitting.is_empty() && origin == Origin::Dns {
            return self.miss(origin, name, useless(addresses, mesh));
        }
        for ip in fitting {
            let addr = SocketAddr::new(ip, port);
            let is_known = self.candidates.iter().any(|candidate| candidate.addr == addr);
            if !is_known && self.candidates.len() < MOST {
                self.candidates.push(Candidate { addr, origin, name: name.to_owned(), knocks: 0, why: String::new() });
            }
        }
    }

    fn miss(&mut self, origin: Origin, what: &str, why: String) {
        self.missed.push(Missed { origin, what: what.to_owned(), why });
    }
}

/// An address that one host can have. A loopback one is somebody's only in a swarm that lives on the loopback: Debian, for one,
/// resolves a host's own name to 127.0.1.1.
fn is_host(ip: IpAddr, own: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && (!ip.is_loopback() || own.is_loopback())
}

/// Why none of the addresses of a name is of use.
fn useless(addresses: &[IpAddr], mesh: &mesh_detect::Mesh) -> String {
    let list = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let own = mesh.address();
    if addresses.iter().all(|ip| mesh.addresses.contains(ip) || ip.is_loopback()) {
        format!("it resolves to {list}, which is this host")
    } else {
        let family = if own.is_ipv4() { "IPv4" } else { "IPv6" };
        format!("it resolves to {list}, none of which is another host's {family} address as {own} is")
    }
}

/// Those who may be members, the likeliest first.
fn fit(peers: Vec<Peer>, tag: Option<&str>) -> Vec<Peer> {
    let has_tag = |peer: &Peer| tag.is_none_or(|tag| peer.tags.iter().any(|own| own == tag));
    let mut fitting: Vec<Peer> = peers.into_iter().filter(|peer| has_tag(peer) && !NO_HOSTS.contains(&peer.os.as_str())).collect();
    // the mesh may say wrongly that one is away, so it is only asked later
    fitting.sort_by_key(|peer| peer.is_online == Some(false));
    fitting
}

fn short<'n>(name: &'n str, domain: Option<&str>) -> &'n str {
    domain.and_then(|domain| name.strip_suffix(domain)?.strip_suffix('.')).unwrap_or(name)
}
