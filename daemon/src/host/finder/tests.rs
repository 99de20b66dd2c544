//! Real names from a real server on the loopback, a real LocalAPI socket, real interfaces.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use mesh_config::{Config, Kind, Seed};
use swarm_proto::{UnixMillis, api::Origin};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UdpSocket, UnixListener},
};

use super::*;

/// How the server of names behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Sound,
    Drops,
    Fails,
}

/// A name server for as long as the test runs: UDP, A and AAAA, ten minutes to live as MagicDNS says.
#[derive(Clone)]
struct Dns {
    addr: SocketAddr,
    records: Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<Mutex<u64>>,
}

impl Dns {
    async fn start(records: &[(&str, &[&str])]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let dns = Self {
            addr: socket.local_addr().expect("bound"),
            records: Arc::default(),
            mood: Arc::new(Mutex::new(Mood::Sound)),
            asked: Arc::default(),
        };
        records.iter().for_each(|(name, addresses)| dns.set(name, addresses));
        let server = dns.clone();
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut query).await {
                *server.asked.lock().expect("whole") += 1;
                let mood = *server.mood.lock().expect("whole");
                if mood != Mood::Drops {
                    let answer = server.answer(&query[..len], mood == Mood::Fails);
                    socket.send_to(&answer, from).await.expect("sent");
                }
            }
        });
        dns
    }

    fn set(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        self.records.lock().expect("whole").insert(name.to_owned(), addresses);
    }

    fn behave(&self, mood: Mood) {
        *self.mood.lock().expect("whole") = mood;
    }

    fn asked(&self) -> u64 {
        *self.asked.lock().expect("whole")
    }

    fn names(&self) -> Names {
        let mut connection = ConnectionConfig::udp();
        connection.port = self.addr.port();
        let server = NameServerConfig::new(self.addr.ip(), true, vec![connection]);
        Names::of(ResolverConfig::from_parts(None, Vec::new(), vec![server]))
    }

    /// RFC 1035, as much as one question needs.
    fn answer(&self, query: &[u8], is_broken: bool) -> Vec<u8> {
        let (mut name, mut at) = (Vec::new(), 12);
        while query[at] > 0 {
            let len = usize::from(query[at]);
            name.push(String::from_utf8_lossy(&query[at + 1..=at + len]).to_lowercase());
            at += len + 1;
        }
        let question = &query[12..at + 5];
        let wants_v6 = query[at + 2] == 28;
        let records = self.records.lock().expect("whole");
        let found = records.get(&name.join("."));
        let code = if is_broken {
            2
        } else if found.is_some() {
            0
        } else {
            3
        };
        let addresses: Vec<IpAddr> = found.into_iter().flatten().filter(|ip| !is_broken && ip.is_ipv6() == wants_v6).copied().collect();
        let mut answer = [&query[..2], &[0x84, 0x80 | code, 0, 1, 0, u8::try_from(addresses.len()).expect("few"), 0, 0, 0, 0]].concat();
        answer.extend_from_slice(question);
        for address in addresses {
            answer.extend_from_slice(&[0xc0, 0x0c, 0, if wants_v6 { 28 } else { 1 }, 0, 1, 0, 0, 0x02, 0x58]);
            match address {
                IpAddr::V4(v4) => answer.extend([&[0, 4][..], &v4.octets()].concat()),
                IpAddr::V6(v6) => answer.extend([&[0, 16][..], &v6.octets()].concat()),
            }
        }
        answer
    }
}

fn mesh(kind: Kind, own: &str) -> mesh_detect::Mesh {
    mesh_detect::Mesh {
        kind,
        interface: Some("wg0".into()),
        addresses: vec![own.parse().expect("an address")],
        domain: Some("tail1234.ts.net".into()),
    }
}

fn settings(peers: &[&str]) -> Mesh {
    let peers: Vec<Seed> = peers.iter().map(|text| text.parse().expect("a seed")).collect();
    Mesh { peers, ..Config::new("h1").mesh }
}

async fn gathered(settings: &Mesh, names: &Names, mesh: &mesh_detect::Mesh) -> gather::Gathered {
    let mut gathered = gather::at_once(settings, &settings.look(), mesh);
    gathered.ask_names(settings, names, mesh).await;
    gathered
}

fn found(gathered: &gather::Gathered) -> Vec<String> {
    gathered.candidates.iter().map(|c| format!("{} {} {}", c.addr, c.origin.word(), c.name)).collect()
}

fn missed(gathered: &gather::Gathered) -> Vec<String> {
    gathered.missed.iter().map(|m| format!("{} {}: {}", m.origin.word(), m.what, m.why)).collect()
}

#[tokio::test]
async fn short_names_are_found_in_the_domain_of_the_mesh() {
    let dns = Dns::start(&[
        ("h2.tail1234.ts.net", &["100.64.0.2", "fd7a:115c:a1e0::2"]),
        ("h3.lan", &["100.64.0.3"]),
        ("h4.tail1234.ts.net", &["fd7a:115c:a1e0::4"]),
    ])
    .await;
    let settings = settings(&["h2", "h3.lan:5000", "h4", "h9", "100.64.0.7", "100.64.0.2:4747"]);
    let gathered = gathered(&settings, &dns.names(), &mesh(Kind::Interface, "100.64.0.1")).await;
    assert_eq!(found(&gathered), ["100.64.0.7:4747 seed ", "100.64.0.2:4747 seed ", "100.64.0.3:5000 dns h3.lan"], "each once");
    let [h4, h9] = &missed(&gathered)[..] else { panic!("{:?}", missed(&gathered)) };
    assert!(h4.starts_with("dns h4: it resolves to fd7a:115c:a1e0::4") && h4.contains("IPv4"), "{h4}");
    assert_eq!(h9, "dns h9: DNS does not know the name");
}

#[tokio::test]
async fn an_address_of_ipv6_is_asked_for_and_taken() {
    let dns = Dns::start(&[("h2.tail1234.ts.net", &["100.64.0.2", "fd7a:115c:a1e0::2"])]).await;
    let gathered = gathered(&settings(&["h2:4800"]), &dns.names(), &mesh(Kind::Interface, "fd7a:115c:a1e0::1")).await;
    assert_eq!(found(&gathered), ["[fd7a:115c:a1e0::2]:4800 dns h2"]);
}

#[tokio::test]
async fn a_server_that_lies_that_fails_or_says_nothing_is_told_and_is_asked_again() {
    let dns = Dns::start(&[("h1.tail1234.ts.net", &["127.0.1.1"]), ("h2.tail1234.ts.net", &["0.0.0.0", "224.0.0.1", "100.64.0.1"])]).await;
    let (settings, mesh) = (settings(&["h1", "h2"]), mesh(Kind::Interface, "100.64.0.1"));
    let lies = gathered(&settings, &dns.names(), &mesh).await;
    assert!(found(&lies).is_empty());
    assert!(missed(&lies)[0].contains("127.0.1.1, which is this host"), "{:?}", missed(&lies));
    assert!(missed(&lies)[1].contains("0.0.0.0, 224.0.0.1, 100.64.0.1, none of which"), "{:?}", missed(&lies));
    for mood in [Mood::Fails, Mood::Drops] {
        dns.behave(mood);
        let start = std::time::Instant::now();
        let none = gathered(&settings, &dns.names(), &mesh).await;
        assert!(missed(&none).iter().all(|why| why.contains("DNS does not answer")), "{:?}", missed(&none));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
    dns.behave(Mood::Sound);
    dns.set("h2.tail1234.ts.net", &["100.64.0.2"]);
    assert_eq!(found(&gathered(&settings, &dns.names(), &mesh).await), ["100.64.0.2:4747 dns h2"]);
}

#[tokio::test]
async fn an_answer_of_ten_minutes_is_not_believed_for_longer_than_a_look() {
    let dns = Dns::start(&[("h2.tail1234.ts.net", &["100.64.0.2"])]).await;
    let (settings, names, mesh) = (settings(&["h2"]), dns.names(), mesh(Kind::Interface, "100.64.0.1"));
    assert_eq!(found(&gathered(&settings, &names, &mesh).await), ["100.64.0.2:4747 dns h2"]);
    dns.set("h2.tail1234.ts.net", &["100.64.0.22"]);
    assert_eq!(found(&gathered(&settings, &names, &mesh).await), ["100.64.0.22:4747 dns h2"]);
}

/// A LocalAPI whose answer can change.
struct LocalApi {
    dir: tempfile::TempDir,
    body: Arc<Mutex<String>>,
}

impl LocalApi {
    fn start(body: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(dir.path().join("tailscaled.sock")).expect("bound");
        let api = Self { dir, body: Arc::new(Mutex::new(body.to_owned())) };
        let body = api.body.clone();
        // what is asked blocks its thread, so whoever answers has another
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("memory");
            let listener = listener.into_std().expect("a listener");
            runtime.block_on(async move {
                let listener = UnixListener::from_std(listener).expect("a listener");
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let body = body.lock().expect("whole").clone();
                    let _ = stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes()).await;
                }
            });
        });
        api
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("tailscaled.sock")
    }

    fn say(&self, body: &str) {
        body.clone_into(&mut self.body.lock().expect("whole"));
    }
}

fn host(name: &str, ip: &str, rest: &str) -> String {
    format!(r#""nodekey:{name}":{{"HostName":"{name}","DNSName":"{name}.tail1234.ts.net.","TailscaleIPs":["{ip}","fd7a::1"]{rest}}}"#)
}

#[tokio::test]
async fn the_tailnet_names_its_hosts_by_tag_the_likely_ones_first() {
    let hosts = [
        host("away", "100.64.0.4", r#","Tags":["tag:swarm"],"Online":false"#),
        host("h2", "100.64.0.2", r#","Tags":["tag:other","tag:swarm"],"Online":true"#),
        host("printer", "100.64.0.3", r#","Tags":null,"Online":true"#),
        host("phone", "100.64.0.5", r#","Tags":["tag:swarm"],"OS":"iOS","Online":true"#),
    ];
    let api = LocalApi::start(&format!(r#"{{"BackendState":"Running","Peer":{{{}}}}}"#, hosts.join(",")));
    let mut settings = Mesh { tailscale_socket: api.socket(), tag: Some("tag:swarm".into()), ..settings(&[]) };
    let (names, mesh) = (Names::of_system(), mesh(Kind::Tailscale, "100.64.0.1"));
    let tagged = gathered(&settings, &names, &mesh).await;
    assert_eq!(found(&tagged), ["100.64.0.2:4747 tailscale h2", "100.64.0.4:4747 tailscale away"]);
    settings.tag = None;
    assert_eq!(gathered(&settings, &names, &mesh).await.candidates.len(), 3, "all but the phone");
    settings.tag = Some("tag:none".into());
    assert_eq!(missed(&gathered(&settings, &names, &mesh).await), ["tailscale tag:none: no other host has this tag"]);
}

fn journal() -> Journal {
    Journal::new(Arc::new(|| UnixMillis(0)))
}

/// What a condition on what is published comes to.
async fn until(whereabouts: &Whereabouts, is_so: impl Fn(&MeshStatus) -> bool) -> Arc<MeshStatus> {
    let mut changes = whereabouts.changes();
    let seen = tokio::time::timeout(Duration::from_secs(20), changes.wait_for(|seen| is_so(seen))).await;
    seen.expect("in time").expect("the finder lives").clone()
}

#[tokio::test]
async fn a_mesh_that_is_late_is_waited_for_and_what_is_waited_for_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let api = LocalApi::start(r#"{"BackendState":"Starting"}"#);
    let link = dir.path().join("late.sock");
    let settings = Mesh { kind: Some(Kind::Tailscale), tailscale_socket: link.clone(), ..settings(&[]) };
    let whereabouts = Whereabouts::default();
    let start = tokio::spawn(start(settings, whereabouts.clone(), journal()));
    // neither the socket nor the program is there, then the daemon starts, then the address is not here yet
    until(&whereabouts, |seen| seen.waits.contains("not installed") || seen.waits.contains("not answer")).await;
    std::os::unix::fs::symlink(api.socket(), &link).expect("linked");
    until(&whereabouts, |seen| seen.waits.contains("\"Starting\"")).await;
    api.say(r#"{"BackendState":"Running","Self":{"TailscaleIPs":["192.0.2.77"]}}"#);
    until(&whereabouts, |seen| seen.waits.contains("192.0.2.77")).await;
    // the loopback stands for the interface that comes up
    api.say(r#"{"BackendState":"Running","MagicDNSSuffix":"tail1234.ts.net","Self":{"TailscaleIPs":["127.0.0.1"]}}"#);
    let mesh = start.await.expect("it runs").expect("it is found");
    assert_eq!((mesh.kind, mesh.address()), (Kind::Tailscale, Ipv4Addr::LOCALHOST.into()));
    let seen = whereabouts.seen();
    assert_eq!((seen.kind.as_str(), seen.waits.as_str(), seen.address), ("tailscale", "", Some(Ipv4Addr::LOCALHOST.into())));
}

#[tokio::test]
async fn a_contradiction_ends_the_start_with_a_way_out() {
    let settings = Mesh { interface: Some("lo".into()), ..settings(&[]) };
    let problem = start(settings, Whereabouts::default(), journal()).await.expect_err("lo leads nowhere");
    assert_eq!(problem.code, Code::BadRequest);
    assert!(problem.hint.contains("kind = \"address\""), "{problem}");
}

#[tokio::test]
async fn nobody_is_asked_while_nobody_looks() {
    let dns = Dns::start(&[("h2", &["127.0.0.2"])]).await;
    let settings = Mesh { kind: Some(Kind::Explicit), address: Some(Ipv4Addr::LOCALHOST.into()), ..settings(&["h2"]) };
    let whereabouts = Whereabouts::default();
    let finder = Finder {
        look: settings.look(),
        mesh: settings,
        whereabouts: whereabouts.clone(),
        journal: journal(),
        names: dns.names(),
        seen: MeshStatus::default(),
    };
    let (tx, rx) = oneshot::channel();
    tokio::spawn(finder.run(tx));
    rx.await.expect("it runs").expect("the loopback is there");
    let looking = whereabouts.look();
    let seen = until(&whereabouts, |seen| !seen.candidates.is_empty()).await;
    assert_eq!((seen.candidates[0].addr, seen.candidates[0].origin), (SocketAddr::from(([127, 0, 0, 2], 4747)), Origin::Dns));
    // it goes on looking while somebody does
    dns.set("h2", &["127.0.0.3"]);
    until(&whereabouts, |seen| seen.candidates.iter().any(|c| c.addr.ip() == IpAddr::from([127, 0, 0, 3]))).await;
    drop(looking);
    let mut lookers = whereabouts.lookers();
    lookers.wait_for(|count| *count == 0).await.expect("the finder lives");
    // one look may have begun before
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = dns.asked();
    tokio::time::sleep(2 * LOOK.0 + GLANCE).await;
    assert_eq!(dns.asked(), asked, "DNS is not asked");
    dns.behave(Mood::Drops);
    assert!(!whereabouts.seen().candidates.is_empty(), "what was found stays");
}

#[test]
fn public_addresses_are_told_apart() {
    for (text, is) in [("100.64.0.1", false), ("100.128.0.1", true), ("10.0.0.1", false), ("8.8.8.8", true), ("127.0.0.9", false)] {
        assert_eq!(is_public(text.parse().expect("an address")), is, "{text}");
    }
    assert!(!is_public(Ipv6Addr::LOCALHOST.into()) && !is_public("fd7a::1".parse().expect("an address")));
    assert!(is_public("2001:db8::1".parse().expect("an address")));
}
