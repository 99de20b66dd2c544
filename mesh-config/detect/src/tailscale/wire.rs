//! tailscaled's JSON. Every field may be null or missing, as they are in one version or another; what is not needed is not read.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Deserializer};

use super::{NoTailnet, Tailnet, Whois};
use crate::Peer;

#[derive(Deserialize)]
struct Status {
    #[serde(rename = "BackendState")]
    state: String,
    #[serde(rename = "TUN", default)]
    tun: Option<bool>,
    #[serde(rename = "Self", default)]
    own: Option<Node>,
    #[serde(rename = "MagicDNSSuffix", default, deserialize_with = "or_default")]
    suffix: String,
    #[serde(rename = "Peer", default, deserialize_with = "or_default")]
    peers: BTreeMap<String, Node>,
    #[serde(rename = "User", default, deserialize_with = "or_default")]
    users: BTreeMap<String, User>,
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "HostName", default, deserialize_with = "or_default")]
    host_name: String,
    #[serde(rename = "DNSName", default, deserialize_with = "or_default")]
    dns_name: String,
    #[serde(rename = "OS", default, deserialize_with = "or_default")]
    os: String,
    #[serde(rename = "TailscaleIPs", default, deserialize_with = "or_default")]
    addresses: Vec<String>,
    #[serde(rename = "Tags", default, deserialize_with = "or_default")]
    tags: Vec<String>,
    #[serde(rename = "Online", default)]
    is_online: Option<bool>,
    /// Where packets are sent without a relay; empty while they go through one, or while nothing is sent.
    #[serde(rename = "CurAddr", default, deserialize_with = "or_default")]
    current: String,
    /// The relay that is nearest to it.
    #[serde(rename = "Relay", default, deserialize_with = "or_default")]
    relay: String,
    #[serde(rename = "UserID", default, deserialize_with = "or_default")]
    user: u64,
}

#[derive(Deserialize)]
struct WhoisWire {
    #[serde(rename = "Node", default)]
    node: Option<WhoisNode>,
    #[serde(rename = "UserProfile", default)]
    user: Option<User>,
    #[serde(rename = "CapMap", default, deserialize_with = "or_default")]
    capabilities: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct WhoisNode {
    #[serde(rename = "Name", default, deserialize_with = "or_default")]
    name: String,
    #[serde(rename = "Tags", default, deserialize_with = "or_default")]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct User {
    #[serde(rename = "LoginName", default, deserialize_with = "or_default")]
    login: String,
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

pub(crate) fn tailnet(json: &[u8]) -> Result<Tailnet, NoTailnet> {
    let status: Status = serde_json::from_slice(json).map_err(|e| NoTailnet::Garbled(e.to_string()))?;
    let users = status.users;
    let mut peers: Vec<Peer> = status.peers.into_values().map(|node| peer(node, &users)).collect();
    peers.sort_by(|a, b| (&a.name, &a.addresses).cmp(&(&b.name, &b.addresses)));
    Ok(Tailnet {
        state: status.state,
        addresses: status.own.map(|own| addresses(&own.addresses)).unwrap_or_default(),
        has_interface: status.tun.unwrap_or(true),
        domain: Some(bare(&status.suffix)).filter(|domain| !domain.is_empty()),
        peers,
    })
}

pub(crate) fn whois(json: &[u8]) -> Result<Whois, NoTailnet> {
    let wire: WhoisWire = serde_json::from_slice(json).map_err(|e| NoTailnet::Garbled(e.to_string()))?;
    let node = wire.node.ok_or_else(|| NoTailnet::Garbled("it names no host".into()))?;
    // a tagged host answers with a stand-in for its user
    let user = wire.user.filter(|_| node.tags.is_empty()).map(|user| user.login).unwrap_or_default();
    Ok(Whois { name: bare(&node.name), tags: node.tags, user, capabilities: wire.capabilities.into_keys().collect() })
}

/// The name in DNS is unique, what the host calls itself is not.
fn peer(node: Node, users: &BTreeMap<String, User>) -> Peer {
    let name = if node.dns_name.is_empty() { node.host_name } else { bare(&node.dns_name) };
    let path = match (node.current.is_empty(), node.relay.is_empty()) {
        (false, _) => Some(format!("direct to {}", node.current)),
        (true, false) => Some(format!("relayed by {}", node.relay)),
        (true, true) => None,
    };
    // a tagged host has a stand-in for its user
    let user = users.get(&node.user.to_string()).filter(|_| node.tags.is_empty()).map(|user| user.login.clone()).unwrap_or_default();
    Peer { name, addresses: addresses(&node.addresses), tags: node.tags, is_online: node.is_online, os: node.os, path, user }
}

fn bare(name: &str) -> String {
    name.trim_end_matches('.').to_owned()
}

/// One that cannot be read spoils none of the others.
fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
