//! Who answers on the mesh: the daemon's peers, or what is written or remembered while it is down.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use mesh_config::Host as SeedHost;
use swarm_proto::{
    api::{Health, PeerStatus},
    frame,
    ledger::View,
};
use tokio::task::JoinSet;

use super::{
    Finding, Level,
    daemon::Daemon,
    host::Host,
    probe::{LEAST, Probed, probe},
};
use crate::verb::mesh::path_to;

/// Peers that are probed: a swarm of a thousand is judged by a part of it.
const MOST: usize = 64;
/// Of those that are well, so many get a line of their own.
const SHOWN: usize = 8;
/// With less than this, the mesh takes more from a packet than any known one.
const COMMON: usize = 1_232;

/// Somebody to ask.
#[derive(Clone, Debug)]
struct Peer {
    label: String,
    addr: SocketAddr,
    /// What the daemon sees; `None` while it is down.
    seen: Option<(Health, bool)>,
    /// How packets get there, as far as the mesh tells.
    path: Option<String>,
}

pub(super) async fn examine(daemon: &Daemon, host: Option<&Host>) -> Vec<Finding> {
    let mut peers = match (&daemon.status, host) {
        (Some(status), _) => status.peers.iter().map(of_status).collect(),
        (None, Some(host)) => written(host).await,
        (None, None) => return vec![Finding::warn("peers", "none are known without a configuration or a daemon", "mend those first")],
    };
    if peers.is_empty() {
        let finding = match daemon.status {
            Some(_) => Finding::ok("peers", "this is the only member so far"),
            None => Finding::warn("peers", "none are written down or remembered", "start swarmd: it finds those that its mesh tells"),
        };
        return vec![finding];
    }
    let hidden = peers.len().saturating_sub(MOST);
    peers.truncate(MOST);
    let paths = paths(host).await;
    let mut probes = JoinSet::new();
    for mut peer in peers {
        peer.path = paths.get(&peer.addr.ip()).cloned();
        probes.spawn(async move {
            let is_gone = matches!(peer.seen, Some((Health::Down | Health::Left, _)));
            let probed = probe(peer.addr, !is_gone).await;
            (peer, probed)
        });
    }
    let mut judged: Vec<Finding> = probes.join_all().await.iter().map(|(peer, probed)| judge(peer, *probed)).collect();
    judged.sort_by(|a, b| (b.level, &a.what).cmp(&(a.level, &b.what)));
    summed(judged, hidden)
}

fn of_status(peer: &PeerStatus) -> Peer {
    Peer { label: format!("{} ({})", peer.node, peer.name), addr: peer.addr, seen: Some((peer.health, peer.connected)), path: None }
}

/// What the operator wrote and what the node remembers.
async fn written(host: &Host) -> Vec<Peer> {
    let own = host.mesh.as_ref().map(|mesh| host.config.mesh.addrs_at(mesh.address()).control);
    let mut found = BTreeMap::new();
    for record in remembered(&host.config.node.state_dir).nodes.into_values().filter(|record| !record.is_gone) {
        found.insert(record.addrs.control, format!("{} ({})", record.id, record.name));
    }
    for seed in &host.config.mesh.peers {
        let port = seed.port.unwrap_or(host.config.mesh.control_port);
        match &seed.host {
            SeedHost::Ip(ip) => {
                found.entry(SocketAddr::new(*ip, port)).or_insert_with(|| "a peer of the config".into());
            }
            SeedHost::Name(name) => {
                let addrs = tokio::net::lookup_host((name.as_str(), port)).await.into_iter().flatten();
                for addr in addrs {
                    found.entry(addr).or_insert_with(|| name.clone());
                }
            }
        }
    }
    let others = found.into_iter().filter(|(addr, _)| Some(*addr) != own);
    others.map(|(addr, label)| Peer { label, addr, seen: None, path: None }).collect()
}

/// The members that the node knew when it last ran.
fn remembered(state_dir: &Path) -> View {
    let bytes = std::fs::read(state_dir.join("records").join("view"));
    bytes.ok().and_then(|bytes| frame::decode(&bytes).ok()).unwrap_or_default()
}

async fn paths(host: Option<&Host>) -> BTreeMap<std::net::IpAddr, String> {
    let Some(host) = host else { return BTreeMap::new() };
    let (look, Some(mesh)) = (host.config.mesh.look(), host.mesh.clone()) else { return BTreeMap::new() };
    let told = tokio::task::spawn_blocking(move || look.peers(&mesh).unwrap_or_default()).await.unwrap_or_default();
    told.iter()
        .filter_map(|peer| Some((path_to(peer)?, peer)))
        .flat_map(|(path, peer)| peer.addresses.iter().map(move |ip| (*ip, path.clone())))
        .collect()
}

fn judge(peer: &Peer, probed: Probed) -> Finding {
    let Peer { label, addr, seen, path } = peer;
    let way = path.as_ref().map_or_else(String::new, |path| format!(", {path}"));
    let who = format!("{label} at {addr}");
    match probed {
        Probed::Answered { rtt, largest } => {
            let what = format!("{who} answers in {:.1} ms, packets of {largest} bytes{way}", rtt.as_secs_f64() * 1e3);
            if largest < COMMON {
                Finding::warn("peers", format!("{what}: the path takes no more"), "set the MTU of the mesh interface to 1280 on both hosts")
            } else if seen.is_some_and(|(health, is_connected)| health != Health::Alive && !is_connected) {
                let fix = "does it belong to this swarm still? journalctl -u swarmd, there and here";
                Finding::warn("peers", format!("{what}, but not to the swarm"), fix)
            } else {
                Finding::ok("peers", what)
            }
        }
        Probed::Refused => {
            Finding::fail("peers", format!("{who} is up, but nobody listens there"), format!("systemctl start swarmd, on {label}"))
        }
        Probed::Silent => {
            let fix =
                format!("is it on? its firewall must let in udp {} and the port above; the path must take {LEAST} bytes", addr.port());
            let what = format!("{who} does not answer{way}");
            match seen {
                // the swarm knows, and works without it
                Some((Health::Down | Health::Left, _)) => Finding::warn("peers", format!("{what}, and is down for the swarm too"), fix),
                Some((Health::Unknown | Health::Alive | Health::Suspect, _)) | None => Finding::fail("peers", what, fix),
            }
        }
        Probed::NoRoute => {
            Finding::fail("peers", format!("this host has no way to {who}"), format!("is the mesh up? ip route get {}", addr.ip()))
        }
    }
}

/// All that is wrong, and some of what is well.
fn summed(judged: Vec<Finding>, hidden: usize) -> Vec<Finding> {
    let well = judged.iter().filter(|finding| finding.level == Level::Ok).count();
    let mut shown = 0;
    let mut list: Vec<Finding> = judged
        .into_iter()
        .filter(|finding| {
            shown += usize::from(finding.level == Level::Ok);
            finding.level != Level::Ok || shown <= SHOWN
        })
        .collect();
    if well > SHOWN {
        list.push(Finding::ok("peers", format!("{} more answer", well - SHOWN)));
    }
    if hidden > 0 {
        list.push(Finding::ok("peers", format!("{hidden} more were not asked: {MOST} are enough to judge by")));
    }
    list
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn level(seen: Option<(Health, bool)>, probed: Probed) -> Level {
        let peer = Peer { label: "n2 (pi4)".into(), addr: ([100, 64, 0, 2], 4747).into(), seen, path: Some("relayed by fra".into()) };
        let finding = judge(&peer, probed);
        assert!(finding.level == Level::Ok || !finding.fix.is_empty(), "{finding:?}");
        finding.level
    }

    #[test]
    fn a_peer_is_judged_by_its_answer_and_by_what_the_swarm_knows() {
        let answered = |largest| Probed::Answered { rtt: Duration::from_millis(3), largest };
        assert_eq!(level(Some((Health::Alive, true)), answered(1_252)), Level::Ok);
        assert_eq!(level(None, answered(1_232)), Level::Ok);
        assert_eq!(level(Some((Health::Alive, true)), answered(1_200)), Level::Warn);
        assert_eq!(level(Some((Health::Down, false)), answered(1_252)), Level::Warn);
        assert_eq!(level(Some((Health::Down, false)), Probed::Silent), Level::Warn);
        assert_eq!(level(Some((Health::Alive, true)), Probed::Silent), Level::Fail);
        assert_eq!(level(None, Probed::Refused), Level::Fail);
        assert_eq!(level(None, Probed::NoRoute), Level::Fail);
    }

    #[test]
    fn of_many_that_are_well_some_are_shown_and_of_the_others_all() {
        let mut judged = vec![Finding::fail("peers", "bad", "x"); 20];
        judged.extend(vec![Finding::ok("peers", "good"); 20]);
        let list = summed(judged, 936);
        assert_eq!(list.len(), 20 + SHOWN + 2);
        assert!(list[list.len() - 2].what.starts_with("12 more answer") && list[list.len() - 1].what.starts_with("936 more"));
    }
}
