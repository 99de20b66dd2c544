//! Coming in without a token, where the swarm has chosen to trust its tailnet: whom a host asks, and what the leader asks.
//!
//! ```text
//! swarmctl mesh join tag:swarm     this host's tailscaled: which hosts carry the tag?  -> knock there
//! the leader                       its own tailscaled: does the address that knocks carry the tag?  -> let it in
//! ```
//! WireGuard proves the addresses in both directions; what they are worth the tailnet's policy file says.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_config::Config;
use mesh_detect::{Look, Peer, tailscale};
use swarm_proto::{Code, Problem, admission::Rule};

use crate::node::AskTailnet;

/// Places that are knocked at.
const MOST: usize = 16;

/// How the leader asks this host's tailscaled.
pub(super) fn ask(look: Look) -> AskTailnet {
    Arc::new(move |ip| tailscale::whois(&look, SocketAddr::new(ip, 1)).map_err(|e| e.to_string()))
}

/// Where members of a swarm may be that lets in whoever meets the rule. `at` narrows that to hosts of the tailnet, by name or
/// address.
///
/// # Errors
/// Tailscale does not tell, or nobody is there.
pub(super) async fn places(config: &Config, rule: &Rule, at: &[String]) -> Result<Vec<String>, Problem> {
    let look = config.mesh.look();
    let seen = tokio::task::spawn_blocking(move || tailscale::status(&look)).await;
    let tailnet = seen.map_err(|e| e.to_string()).and_then(|seen| seen.map_err(|e| e.to_string()));
    let tailnet = tailnet.map_err(|why| nobody(why).hint("only a host of the tailnet can join so; any other needs a token"))?;
    if !tailnet.is_running() {
        return Err(nobody(format!("Tailscale is {}", tailnet.state)).hint("tailscale up"));
    }
    choose(&tailnet.peers, rule, at, config.api.port)
}

fn nobody(why: impl Into<String>) -> Problem {
    Problem::new(Code::NotFound, "this host did not join", why)
}

fn choose(peers: &[Peer], rule: &Rule, at: &[String], port: u16) -> Result<Vec<String>, Problem> {
    let is_fit = |peer: &&Peer| match rule {
        Rule::Tag(tag) => peer.tags.contains(tag),
        // no host knows what others are granted elsewhere
        Rule::Capability(_) => true,
    };
    if matches!(rule, Rule::Capability(_)) && at.is_empty() {
        return Err(Problem::new(Code::BadRequest, "this host did not join", "a capability does not say where the swarm is")
            .hint(format!("swarmctl mesh join {rule} --at HOST")));
    }
    for word in at {
        if !peers.iter().filter(is_fit).any(|peer| is_called(peer, word)) {
            return Err(nobody(format!("'{word}' is no other host of the tailnet that fits {rule}")).hint("tailscale status"));
        }
    }
    let mut fitting: Vec<&Peer> =
        peers.iter().filter(is_fit).filter(|peer| at.is_empty() || at.iter().any(|word| is_called(peer, word))).collect();
    fitting.sort_by_key(|peer| peer.is_online == Some(false));
    let addresses = fitting.iter().filter_map(|peer| peer.addresses.first());
    let places: Vec<String> = addresses.map(|ip| SocketAddr::new(*ip, port).to_string()).take(MOST).collect();
    if places.is_empty() { Err(nobody(format!("no other host of the tailnet carries {rule}"))) } else { Ok(places) }
}

/// By its full name, the first part of that, or an address.
fn is_called(peer: &Peer, word: &str) -> bool {
    let word = word.trim_end_matches('.');
    peer.name.eq_ignore_ascii_case(word)
        || peer.name.split('.').next().is_some_and(|first| first.eq_ignore_ascii_case(word))
        || word.parse::<IpAddr>().is_ok_and(|ip| peer.addresses.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, last: u8, tags: &[&str], is_online: bool) -> Peer {
        Peer {
            name: format!("{name}.tail1.ts.net"),
            addresses: vec![IpAddr::from([100, 64, 0, last])],
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            is_online: Some(is_online),
            ..Peer::default()
        }
    }

    #[test]
    fn who_carries_the_tag_is_asked_and_who_is_up_first() {
        let peers = [peer("a", 1, &["tag:swarm"], false), peer("b", 2, &["tag:other"], true), peer("c", 3, &["tag:swarm"], true)];
        let tag = Rule::Tag("tag:swarm".into());
        let places = |rule: &Rule, at: &[&str]| {
            let at: Vec<String> = at.iter().map(|&word| word.to_owned()).collect();
            choose(&peers, rule, &at, 4749).map_err(|problem| problem.code)
        };
        assert_eq!(places(&tag, &[]), Ok(vec!["100.64.0.3:4749".into(), "100.64.0.1:4749".into()]));
        assert_eq!(places(&tag, &["a"]), Ok(vec!["100.64.0.1:4749".into()]));
        assert_eq!(places(&tag, &["C.tail1.ts.net."]), Ok(vec!["100.64.0.3:4749".into()]));
        assert_eq!(places(&tag, &["b"]), Err(Code::NotFound), "it has another tag");
        assert_eq!(places(&tag, &["evil.example.com"]), Err(Code::NotFound), "only the tailnet's hosts are vouched for");
        assert_eq!(places(&Rule::Tag("tag:none".into()), &[]), Err(Code::NotFound));
        let capability = Rule::Capability("example.com/swarm".into());
        assert_eq!(places(&capability, &[]), Err(Code::BadRequest));
        assert_eq!(places(&capability, &["100.64.0.2"]), Ok(vec!["100.64.0.2:4749".into()]));
    }
}
