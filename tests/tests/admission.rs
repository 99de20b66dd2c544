//! A swarm that lets in hosts of its tailnet without a token: whom tailscaled vouches for, and nobody else.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use swarm_tests::{Host, Hosts, eventually};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixListener,
};

/// Which tags an address carries, and with `cap:` which capabilities it is granted, as the tailnet's control server would have told
/// every host.
type Policy = Arc<Mutex<BTreeMap<IpAddr, Vec<&'static str>>>>;

/// Answers like tailscaled's LocalAPI (1.98), for as long as the test runs.
fn tailscaled(socket: &Path, host: usize, policy: Policy) {
    let listener = UnixListener::bind(socket).expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4_096];
            let len = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..len]).into_owned();
            let target = head.split_whitespace().nth(1).unwrap_or_default();
            let (status, body) = answer(target, host, &policy.lock().expect("whole"));
            let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
}

fn answer(target: &str, host: usize, policy: &BTreeMap<IpAddr, Vec<&'static str>>) -> (&'static str, String) {
    let name = |ip: &IpAddr| format!("h{}.tail1.ts.net.", ip.to_string().replace('.', "-"));
    if let Some(addr) = target.strip_prefix("/localapi/v0/whois?addr=") {
        let ip: Option<IpAddr> = addr.split("%3A").next().and_then(|ip| ip.parse().ok());
        return match ip.and_then(|ip| Some((ip, policy.get(&ip)?))) {
            Some((ip, tags)) => {
                let (granted, tags): (Vec<&str>, Vec<&str>) = tags.iter().partition(|what| what.starts_with("cap:"));
                let granted: BTreeMap<&str, Vec<()>> = granted.iter().map(|what| (&what["cap:".len()..], vec![])).collect();
                let node = serde_json::json!({ "Name": name(&ip), "Tags": tags });
                let user = serde_json::json!({ "LoginName": "tagged-devices" });
                ("200 OK", serde_json::json!({ "Node": node, "UserProfile": user, "CapMap": granted }).to_string())
            }
            None => ("404 Not Found", "no match for IP:port\n".into()),
        };
    }
    let peers: serde_json::Map<String, serde_json::Value> = policy
        .iter()
        .filter(|(ip, _)| !is_own(ip, host))
        .map(|(ip, tags)| {
            let peer = serde_json::json!({ "DNSName": name(ip), "TailscaleIPs": [ip], "Tags": tags, "Online": true, "OS": "linux" });
            (format!("nodekey:{ip}"), peer)
        })
        .collect();
    let status = serde_json::json!({
        "BackendState": "Running", "TUN": true, "MagicDNSSuffix": "tail1.ts.net",
        "Self": { "TailscaleIPs": [], "DNSName": "me.tail1.ts.net." }, "Peer": peers,
    });
    ("200 OK", status.to_string())
}

/// Addresses end in the host's number.
fn is_own(ip: &IpAddr, host: usize) -> bool {
    ip.to_string().ends_with(&format!(".{host}"))
}

/// Hosts on a tailnet whose policy the test decides; its sockets are in the directory.
async fn on_tailnet(count: usize) -> (tempfile::TempDir, Policy, Hosts) {
    let place = tempfile::tempdir().expect("a directory");
    let socket = |name: &str| place.path().join(format!("{name}.sock"));
    let policy = Policy::default();
    (1..=count).for_each(|host| tailscaled(&socket(&format!("host{host}")), host, policy.clone()));
    let hosts = Hosts::start(count, |config| config.mesh.tailscale_socket = socket(&config.node.name)).await;
    (place, policy, hosts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_lets_in_whoever_carries_it_once_the_swarm_says_so() {
    let (_sockets, policy, mut hosts) = on_tailnet(3).await;
    let tag = |host: &Host, tags| drop(policy.lock().expect("whole").insert(host.ip, tags));
    tag(&hosts.list[0], vec!["tag:swarm"]);
    tag(&hosts.list[1], vec!["tag:swarm", "tag:other"]);
    tag(&hosts.list[2], vec!["tag:other"]);
    let [first, second, third] = &hosts.list[..] else { panic!("three hosts") };
    first.ok(&["mesh", "init", "--allow", "exec"]);

    // nobody has said so yet: a swarm that expects nobody has no port to knock at
    let (code, why) = second.refused(&["mesh", "join", "tag:swarm"]);
    assert!(code == 5 && why.contains("cannot be reached"), "{code} {why}");

    first.ok(&["config", "set", "mesh.admit", "tag:swarm"]);
    eventually("the port is open", async || tokio::net::TcpStream::connect((first.ip, 4749)).await.ok()).await;
    let joined = second.ok(&["mesh", "join", "tag:swarm", "--allow", "exec"]);
    assert!(joined.contains("belongs to swarm"), "{joined}");
    hosts.whole(2).await;

    // another tag opens nothing, neither by asking for the swarm's nor by asking for its own
    let at = first.ip.to_string();
    let (code, why) = third.refused(&["mesh", "join", "tag:swarm", "--at", &at]);
    assert!(code == 4 && why.contains("does not say tag:swarm of"), "{code} {why}");
    let (code, why) = third.refused(&["mesh", "join", "tag:other", "--at", &at]);
    assert!(code == 3 && why.contains("fits tag:other"), "{code} {why}");
    // the tailnet's policy gives it the tag, and it is in
    tag(third, vec!["tag:swarm"]);
    third.ok(&["mesh", "join", "tag:swarm", "--at", &at]);
    hosts.whole(3).await;
    assert_eq!(first.ok(&["run", "--", "echo", "in"]), "in\n");

    // a key that was revoked stays out, whatever the tailnet says
    first.ok(&["node", "revoke", "host3"]);
    let third = &mut hosts.list[2];
    third.kill();
    for name in ["log", "records"] {
        std::fs::remove_dir_all(third.state.join(name)).expect("removed");
    }
    std::fs::remove_file(third.state.join("cluster.toml")).expect("removed");
    third.run();
    third.answers().await;
    let (code, why) = third.refused(&["mesh", "join", "tag:swarm"]);
    assert!(code == 4 && why.contains("was revoked"), "{code} {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_lets_in_whoever_has_it() {
    let (_sockets, policy, hosts) = on_tailnet(2).await;
    let [first, second] = &hosts.list[..] else { panic!("two hosts") };
    let rule = "cap:example.com/cap/swarm";
    let has = |host: &Host, what| drop(policy.lock().expect("whole").insert(host.ip, what));
    has(first, vec![]);
    has(second, vec!["tag:swarm", "cap:example.com/cap/other"]);
    first.ok(&["mesh", "init", "--allow", "exec"]);
    first.ok(&["config", "set", "mesh.admit", rule]);
    eventually("the port is open", async || tokio::net::TcpStream::connect((first.ip, 4749)).await.ok()).await;
    let at = first.ip.to_string();
    let (code, why) = second.refused(&["mesh", "join", rule, "--at", &at]);
    assert!(code == 4 && why.contains(&format!("does not say {rule} of")), "{code} {why}");
    has(second, vec![rule]);
    second.ok(&["mesh", "join", rule, "--at", &at]);
    hosts.whole(2).await;
}
