//! tailscaled's LocalAPI over a real socket: recorded answers, and servers that misbehave.
#![cfg(unix)]

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use mesh_detect::{ANSWER, Look, NoTailnet, TIME, tailscale};

/// Tailscale 1.98: two peers, one of them offline and untagged, nulls where it writes them.
const STATUS: &str = r#"{"Version":"1.98.9","TUN":true,"BackendState":"Running","HaveNodeKey":true,"AuthURL":"",
"TailscaleIPs":["100.64.0.1","fd7a:115c:a1e0::1"],
"Self":{"ID":"n1","PublicKey":"nodekey:aa","HostName":"h1","DNSName":"h1.tail1234.ts.net.","OS":"linux","UserID":1,
 "TailscaleIPs":["100.64.0.1","fd7a:115c:a1e0::1"],"Tags":["tag:swarm"],"Addrs":["10.0.0.1:41641"],"Online":true},
"Health":[],"MagicDNSSuffix":"tail1234.ts.net","CertDomains":null,
"Peer":{"nodekey:cc":{"HostName":"laptop","DNSName":"laptop-1.tail1234.ts.net.","OS":"windows","TailscaleIPs":["100.64.0.3"],
  "Addrs":null,"Online":false,"LastSeen":"2026-01-02T00:00:00Z"},
 "nodekey:bb":{"HostName":"h2","DNSName":"h2.tail1234.ts.net.","OS":"linux","TailscaleIPs":["100.64.0.2","nonsense","fd7a:115c:a1e0::2"],
  "Tags":["tag:swarm","tag:gpu"],"Addrs":null,"CurAddr":"10.0.0.2:41641","Online":true}},
"User":{"1":{"ID":1,"LoginName":"a@example.com"}},"ClientVersion":null}"#;

struct Server {
    dir: tempfile::TempDir,
}

impl Server {
    /// Answers every request by what `answer` makes of its head; the answer may go on for ever.
    fn new(answer: impl Fn(&str, &mut dyn FnMut(&[u8]) -> bool) + Send + 'static) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(dir.path().join("tailscaled.sock")).expect("bound");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    head.push(byte[0]);
                }
                answer(&String::from_utf8_lossy(&head), &mut |bytes| stream.write_all(bytes).is_ok());
            }
        });
        Self { dir }
    }

    fn of(body: &'static str) -> Self {
        Self::new(move |_, say| {
            say(format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        })
    }

    fn look(&self) -> Look {
        Look {
            tailscale_socket: self.dir.path().join("tailscaled.sock"),
            tailscale: self.dir.path().join("no-tailscale"),
            ..Look::default()
        }
    }
}

#[test]
fn a_tailnet_is_read() {
    let server = Server::of(STATUS);
    let tailnet = tailscale::status(&server.look()).expect("it answers");
    assert!(tailnet.is_running() && tailnet.has_interface);
    assert_eq!(tailnet.domain.as_deref(), Some("tail1234.ts.net"));
    assert_eq!(tailnet.addresses.len(), 2);
    let [h2, laptop] = &tailnet.peers[..] else { panic!("{:?}", tailnet.peers) };
    assert_eq!((h2.name.as_str(), h2.tags.len(), h2.is_online, h2.addresses.len()), ("h2.tail1234.ts.net", 2, Some(true), 2));
    assert_eq!(
        (laptop.name.as_str(), laptop.tags.len(), laptop.is_online),
        ("laptop-1.tail1234.ts.net", 0, Some(false)),
        "HostName is not unique"
    );
    assert_eq!(tailnet.owner_of("100.64.0.3".parse().expect("an address")).map(|peer| peer.os.as_str()), Some("windows"));
}

#[test]
fn nulls_and_missing_fields_are_nothing() {
    for body in [
        r#"{"BackendState":"NeedsLogin","Self":null,"Peer":null,"MagicDNSSuffix":null}"#,
        r#"{"BackendState":"NeedsLogin"}"#,
        r#"{"BackendState":"NeedsLogin","Self":{"TailscaleIPs":null,"Tags":null,"DNSName":null},"Peer":{}}"#,
    ] {
        let server = Server::of(body);
        let tailnet = tailscale::status(&server.look()).expect("it answers");
        assert!(!tailnet.is_running() && tailnet.peers.is_empty() && tailnet.addresses.is_empty() && tailnet.domain.is_none(), "{body}");
    }
}

#[test]
fn the_host_header_is_the_one_that_tailscaled_wants() {
    let server = Server::new(|head, say| {
        let host = head.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default();
        let is_right = host == "local-tailscaled.sock" && head.starts_with("GET /localapi/v0/status HTTP/1.0\r\n");
        let answer = match is_right {
            true => format!("HTTP/1.0 200 OK\r\n\r\n{STATUS}"),
            false => "HTTP/1.0 403 Forbidden\r\n\r\ninvalid localapi request\n".to_owned(),
        };
        say(answer.as_bytes());
    });
    assert!(tailscale::status(&server.look()).is_ok(), "an answer without a length ends with its connection");
}

#[test]
fn a_refusal_is_told() {
    let server = Server::new(|_, say| {
        say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 25\r\n\r\ninvalid localapi request\n");
    });
    let refused = tailscale::status(&server.look()).expect_err("it refuses");
    assert_eq!(refused, NoTailnet::Refused { status: 403, text: "invalid localapi request".into() });
}

#[test]
fn a_body_without_end_is_not_read_without_end() {
    let server = Server::new(|_, say| {
        let zeros = vec![b' '; 1 << 20];
        say(b"HTTP/1.1 200 OK\r\n\r\n{");
        while say(&zeros) {}
    });
    let start = Instant::now();
    let error = tailscale::status(&server.look()).expect_err("it never ends");
    assert!(
        matches!(&error, NoTailnet::Garbled(why) if why.contains(&ANSWER.to_string())) || error.to_string().contains("more than 3 s"),
        "{error}"
    );
    assert!(start.elapsed() < 2 * TIME);
}

#[test]
fn a_server_that_dribbles_or_says_nothing_is_given_up() {
    let silent = Server::new(|_, _| thread::sleep(Duration::from_secs(60)));
    let dribbling = Server::new(|_, say| {
        while say(b"H") {
            thread::sleep(Duration::from_millis(50))
        }
    });
    for server in [silent, dribbling] {
        let start = Instant::now();
        let error = tailscale::status(&server.look()).expect_err("it does not answer");
        assert!(matches!(&error, NoTailnet::Silent { why, .. } if why.contains("more than 3 s")), "{error}");
        assert!(start.elapsed() < 2 * TIME);
    }
}

#[test]
fn what_is_no_answer_is_garbled() {
    for answer in [
        "hello\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n[1]",
    ] {
        let server = Server::new(move |_, say| {
            say(answer.as_bytes());
        });
        let error = tailscale::status(&server.look()).expect_err("it is no answer");
        assert!(matches!(error, NoTailnet::Garbled(_)), "{answer:?}: {error}");
    }
}

#[test]
fn absent_dead_and_forbidden_sockets_are_told_apart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let look = |name: &str| Look { tailscale_socket: dir.path().join(name), tailscale: dir.path().join("none"), ..Look::default() };
    assert!(matches!(tailscale::status(&look("gone")), Err(NoTailnet::Absent { .. })));
    drop(UnixListener::bind(dir.path().join("dead")).expect("bound"));
    assert!(matches!(tailscale::status(&look("dead")), Err(NoTailnet::Silent { why, .. }) if why.contains("nobody listens")));
}

fn program(dir: &tempfile::TempDir, script: &str) -> PathBuf {
    let path = dir.path().join("tailscale");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

#[test]
fn the_command_answers_where_the_socket_does_not() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = format!("[ \"$*\" = 'status --json' ] || exit 2\ncat <<'E'\n{STATUS}\nE");
    let mut look = Look { tailscale_socket: dir.path().join("gone"), tailscale: program(&dir, &script), ..Look::default() };
    assert_eq!(tailscale::status(&look).expect("the command answers").peers.len(), 2);
    // installed, but its daemon is down: that is late, not absent
    look.tailscale = program(&dir, "echo 'failed to connect to local tailscaled' >&2; exit 1");
    assert!(matches!(tailscale::status(&look), Err(NoTailnet::Silent { .. })));
}

#[test]
fn whois_names_host_tags_and_grants() {
    let server = Server::new(|head, say| {
        let body = match head.split(' ').nth(1) {
            Some("/localapi/v0/whois?addr=100.64.0.2%3A4747" | "/localapi/v0/whois?addr=%5Bfd7a%3A%3A2%5D%3A4747") => {
                r#"{"Node":{"Name":"h2.tail1234.ts.net.","Tags":["tag:swarm"]},"UserProfile":{"LoginName":"tagged-devices"},"CapMap":{"example.com/cap/swarm":[{}]}}"#
            }
            Some("/localapi/v0/whois?addr=100.64.0.3%3A4747") => {
                r#"{"Node":{"Name":"laptop.tail1234.ts.net."},"UserProfile":{"LoginName":"a@example.com"},"CapMap":null}"#
            }
            _ => {
                say(b"HTTP/1.0 404 Not Found\r\n\r\nno match for IP:port\n");
                return;
            }
        };
        say(format!("HTTP/1.0 200 OK\r\n\r\n{body}").as_bytes());
    });
    let ask = |addr: &str| tailscale::whois(&server.look(), addr.parse().expect("an address")).expect("it answers");
    let tagged = ask("100.64.0.2:4747").expect("known");
    assert_eq!((tagged.name.as_str(), tagged.user.as_str(), tagged.tags.len()), ("h2.tail1234.ts.net", "", 1));
    assert_eq!(tagged.capabilities, ["example.com/cap/swarm"]);
    assert_eq!(ask("[fd7a::2]:4747").map(|found| found.name), Some("h2.tail1234.ts.net".into()));
    assert_eq!(ask("100.64.0.3:4747").map(|found| found.user), Some("a@example.com".into()));
    assert_eq!(ask("100.64.0.9:4747"), None);
}
