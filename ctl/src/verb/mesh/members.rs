//! `mesh show|whois`: who is on the mesh, and how they are reached from the daemon that is spoken to.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use mesh_config::{CONFIG_FILE, Config, Env};
use serde::Serialize;
use swarm_proto::{
    Code, NodeId, Problem,
    api::{Health, Status},
};

use crate::{
    failure::Outcome,
    output::{Card, Look, Row, View, table::text},
    session::Session,
    view,
};

/// `mesh show`.
#[derive(clap::Args, Debug)]
pub struct ShowArgs {
    /// The daemon's config file: it says which mesh to ask for paths
    #[arg(long, env = "SWARM_CONFIG", default_value = CONFIG_FILE, value_name = "FILE")]
    pub config: PathBuf,
}

/// `mesh whois`.
#[derive(clap::Args, Debug)]
pub struct WhoisArgs {
    /// An address, with or without a port; or the name or id of a node
    pub who: String,
    /// The daemon's config file: it says which mesh to ask
    #[arg(long, env = "SWARM_CONFIG", default_value = CONFIG_FILE, value_name = "FILE")]
    pub config: PathBuf,
}

/// A member, as the daemon reaches it.
#[derive(Clone, Debug, Serialize)]
struct Member {
    node: Option<NodeId>,
    name: String,
    health: Health,
    control: SocketAddr,
    /// `null` where there is no connection now.
    rtt_us: Option<u64>,
    mtu: Option<u16>,
    /// How packets get there, as far as the mesh tells; empty where it does not.
    path: String,
    software: String,
}

/// Whom an address belongs to.
#[derive(Clone, Debug, Default, Serialize)]
struct Owner {
    address: Option<IpAddr>,
    /// `null` where it is no member of the swarm.
    member: Option<Member>,
    /// What the mesh calls the host; empty where it has no names.
    mesh_name: String,
    /// Login name of its user on the mesh.
    mesh_user: String,
    tags: Vec<String>,
}

/// `mesh show`.
pub(super) async fn show(session: &Session, args: ShowArgs) -> Outcome {
    let status = session.client.status().await?;
    Ok(session.out.list(&members(&status, &hosts(args.config).await))?)
}

/// `mesh whois`.
pub(super) async fn tell(session: &Session, args: &WhoisArgs) -> Outcome {
    let status = session.client.status().await?;
    Ok(session.out.one(&whois(&status, args).await?)?)
}

/// The mesh's own hosts, where this machine is on it too; none where that cannot be told.
async fn hosts(config: PathBuf) -> Vec<mesh_detect::Peer> {
    let look = move || {
        let config = Config::load(&config, &Env::of_process()).ok()?;
        let look = config.mesh.look();
        let mesh = config.mesh.wish().choose(&look.see().ok()?).ok()?;
        look.peers(&mesh).ok()
    };
    tokio::task::spawn_blocking(look).await.ok().flatten().unwrap_or_default()
}

/// The daemon itself first, then its peers by id.
fn members(status: &Status, hosts: &[mesh_detect::Peer]) -> Vec<Member> {
    let own = Member {
        node: status.node,
        name: status.name.clone(),
        health: Health::Alive,
        control: status.addrs.control,
        rtt_us: None,
        mtu: None,
        path: "this node".into(),
        software: status.software.clone(),
    };
    let peers = status.peers.iter().map(|peer| Member {
        node: Some(peer.node),
        name: peer.name.clone(),
        health: peer.health,
        control: peer.addr,
        rtt_us: peer.rtt_us,
        mtu: peer.mtu,
        path: owner(hosts, peer.addr.ip()).and_then(path_to).unwrap_or_default(),
        software: peer.software.clone(),
    });
    std::iter::once(own).chain(peers).collect()
}

fn owner(hosts: &[mesh_detect::Peer], address: IpAddr) -> Option<&mesh_detect::Peer> {
    hosts.iter().find(|host| host.addresses.contains(&address))
}

/// How packets get to a host of the mesh, in words; `None` where the mesh does not say.
pub(crate) fn path_to(host: &mesh_detect::Peer) -> Option<String> {
    host.path.clone()
}

async fn whois(status: &Status, args: &WhoisArgs) -> Result<Owner, Problem> {
    let hosts = hosts(args.config.clone()).await;
    let mut members = members(status, &hosts);
    let asked = args.who.parse::<IpAddr>().or_else(|_| args.who.parse::<SocketAddr>().map(|addr| addr.ip())).ok();
    let is_meant = |member: &Member| match asked {
        Some(address) => member.control.ip() == address,
        None => member.name == args.who || member.node.is_some_and(|node| node.to_string() == args.who),
    };
    let member = members.iter().position(is_meant).map(|index| members.swap_remove(index));
    let address = asked.or_else(|| member.as_ref().map(|member| member.control.ip()));
    let host = match address {
        Some(address) => owner(&hosts, address),
        None => hosts.iter().find(|host| host.name == args.who || host.name.split('.').next() == Some(&args.who)),
    };
    if member.is_none() && host.is_none() {
        let why = "no member of the swarm has it, and the mesh tells of no host that has";
        return Err(Problem::new(Code::NotFound, format!("nobody is known by '{}'", args.who), why).hint("swarmctl mesh show"));
    }
    let owner = Owner { address: address.or_else(|| host.and_then(|host| host.addresses.first().copied())), member, ..Owner::default() };
    let Some(host) = host else { return Ok(owner) };
    Ok(Owner { mesh_name: host.name.clone(), mesh_user: host.user.clone(), tags: host.tags.clone(), ..owner })
}

fn rtt(us: u64) -> String {
    format!("{}.{} ms", us / 1_000, us % 1_000 / 100)
}

impl View for Member {
    fn columns(_: bool) -> Vec<&'static str> {
        vec!["NODE", "NAME", "HEALTH", "ADDRESS", "RTT", "MTU", "PATH", "VERSION"]
    }

    fn row(&self, _: Look) -> Row {
        vec![
            text(self.node.map(|node| node.to_string()).unwrap_or_default()),
            text(&self.name),
            view::health(self.health),
            text(self.control.to_string()),
            text(self.rtt_us.map(rtt).unwrap_or_default()),
            text(self.mtu.map(|mtu| mtu.to_string()).unwrap_or_default()),
            text(&self.path),
            text(&self.software),
        ]
    }

    fn card(&self, _: Look) -> Card {
        Card::default()
            .some("node", self.node, |node| text(node.to_string()))
            .line("name", text(&self.name))
            .line("health", view::health(self.health))
            .line("control", text(self.control.to_string()))
            .some("rtt", self.rtt_us.map(rtt), text)
            .some("mtu", self.mtu.map(|mtu| mtu.to_string()), text)
            .line("path", text(&self.path))
            .line("version", text(&self.software))
    }
}

impl View for Owner {
    fn columns(_: bool) -> Vec<&'static str> {
        vec!["ADDRESS", "NODE", "NAME"]
    }

    fn row(&self, _: Look) -> Row {
        let node = self.member.as_ref().and_then(|member| member.node).map(|node| node.to_string());
        let address = self.address.map(|address| address.to_string()).unwrap_or_default();
        vec![text(address), text(node.unwrap_or_default()), text(&self.mesh_name)]
    }

    fn card(&self, look: Look) -> Card {
        let card = Card::default().some("address", self.address, |address| text(address.to_string()));
        let card = match &self.member {
            Some(member) => card.block(member.card(look).render(false)),
            None => card.line("member", text("no: the swarm does not know it")),
        };
        card.some("on the mesh", Some(&self.mesh_name).filter(|name| !name.is_empty()), text)
            .some("its user", Some(&self.mesh_user).filter(|user| !user.is_empty()), text)
            .some("tags", (!self.tags.is_empty()).then(|| self.tags.join(", ")), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::Format,
        view::samples::{self, shown_list},
    };

    #[test]
    fn members_and_how_they_are_reached() {
        let status = samples::status();
        let hosts = [mesh_detect::Peer {
            name: "pi4.tail1.ts.net".into(),
            addresses: vec![status.peers[0].addr.ip()],
            path: Some("relayed by fra".into()),
            ..mesh_detect::Peer::default()
        }];
        insta::assert_snapshot!(shown_list(&members(&status, &hosts), Format::Table), @"
NODE  NAME    HEALTH  ADDRESS          RTT     MTU   PATH            VERSION
n1    server  alive   100.64.0.1:4747  -       -     this node       0.1.0
n2    pi4     alive   100.64.0.2:4747  1.2 ms  1252  relayed by fra  0.1.0
n3    laptop  down    100.64.0.2:4747  -       -     relayed by fra  0.1.0
");
    }
}
