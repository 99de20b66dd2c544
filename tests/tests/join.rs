//! Founding, joining and leaving: one line lets a host in, and nothing else does.

use std::time::Duration;

use swarm_client::{Invitation, Trust, enroll};
use swarm_proto::{
    Code, LogIndex, NodeId, PROTOCOL, Problem, RaftDir,
    api::Phase,
    identity::Applicant,
    ledger::{Addrs, Admit, View, What},
    limits,
    peer::{FromWorker, NodeMeta, Open, Report, ToWorker},
    token::Token,
};
use swarm_tests::{
    Host, Hosts, eventually,
    intruder::{Intruder, addrs, hello},
};
use swarm_transport::{Identity, Plane, SecretKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn applicant(key: &SecretKey, n: u8) -> Applicant {
    let at = |port| ([127, 0, 0, 1], port).into();
    let admit = Admit {
        key: key.peer_key(),
        raft: RaftDir([n; 16]),
        name: format!("racer{n}"),
        addrs: Addrs { control: at(1), bulk: at(2) },
        may_vote: false,
    };
    Applicant::Node { admit, labels: Default::default() }
}

async fn knock(token: &Token, key: &SecretKey, n: u8) -> Result<Option<NodeId>, Problem> {
    let sign = |message: &[u8]| Ok(key.sign(message).expect("a key signs"));
    enroll(&Invitation::Token(token.clone()), &applicant(key, n), sign).await.map(|enrolled| enrolled.node)
}

/// Founds a swarm on a host, and makes a token for one more.
fn found(host: &Host) -> Token {
    host.ok(&["mesh", "init"]);
    host.ok(&["token", "create"]).trim().parse().expect("a token")
}

#[tokio::test]
async fn hosts_come_in_step_by_step_and_work() {
    let hosts = Hosts::start(3, |_| ()).await;
    let [a, b, c] = &hosts.list[..] else { panic!("three") };
    for host in &hosts.list {
        let status = host.answers().await;
        assert_eq!((status.phase, status.node), (Phase::Unjoined, None));
        assert!(status.trouble.contains("mesh init") && status.trouble.contains("mesh join"), "{}", status.trouble);
        assert!(host.refused(&["run", "--", "true"]).1.contains("belongs to no swarm"));
    }
    assert!(tokio::net::TcpStream::connect((a.ip, 4749)).await.is_err(), "nothing listens on the mesh yet");
    hosts.unite().await;
    let told: Vec<What> = a.events().await.into_iter().map(|event| event.what).collect();
    let founded = told.iter().position(|what| matches!(what, What::SwarmFounded { .. }));
    let admitted = told.iter().position(|what| matches!(what, What::NodeAdmitted { .. }));
    assert!(founded.is_some() && founded < admitted, "the founding comes before the first node: {told:?}");
    for (node, name) in [(NodeId(2), "host2"), (NodeId(3), "host3")] {
        let steps = [
            What::NodeRegistered { node, name: name.into() },
            What::NodeWelcomed { node },
            What::NodeSynced { node },
            What::NodeReady { node },
        ];
        let places: Vec<_> = steps.iter().map(|step| told.iter().position(|what| what == step)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{name}: {places:?} in {told:?}");
    }
    // each wrote its operator's choice down, and runs processes
    for (host, on) in [(b, "host2"), (c, "host3")] {
        let text = std::fs::read_to_string(&host.config).expect("a config");
        assert!(text.contains("enabled = true") && text.contains("sandbox = \"none\""), "{text}");
        let node = a.ok(&["node", "show", on, "-o", "json"]);
        assert!(node.contains("\"exec\""), "{node}");
    }
    assert_eq!(b.ok(&["run", "--", "echo", "hello"]), "hello\n");
    // a restart changes nothing
    let before = b.answers().await.node;
    let mut hosts = hosts;
    hosts.list[1].kill();
    hosts.list[1].run();
    assert_eq!(hosts.list[1].ready().await.node, before);
}

#[tokio::test]
async fn a_token_is_good_for_what_it_was_made_for_and_no_more() {
    let hosts = Hosts::start(2, |_| ()).await;
    let [a, b] = &hosts.list[..] else { panic!("two") };
    a.ok(&["mesh", "init"]);
    let line = a.ok(&["token", "create"]);
    let line = line.trim();
    // every letter counts: nothing but the line itself is even sent
    for at in (0..line.len()).step_by(7) {
        let mut letters: Vec<char> = line.chars().collect();
        letters[at] = if letters[at] == 'a' { 'b' } else { 'a' };
        let altered: String = letters.into_iter().collect();
        let (code, said) = b.refused(&["mesh", "join", &altered]);
        assert_eq!(code, 2, "letter {at}: {said}");
    }
    let token: Token = line.parse().expect("a token");
    // fifty race for one use
    let race: Vec<_> = (0..50)
        .map(|n| {
            let token = token.clone();
            tokio::spawn(async move { knock(&token, &SecretKey::generate().expect("a key"), n).await })
        })
        .collect();
    let mut won = 0;
    for one in race {
        match one.await.expect("no panic") {
            Ok(node) => won += u32::from(node.is_some()),
            Err(problem) => assert!(matches!(problem.code, Code::Denied | Code::NoDaemon), "{problem}"),
        }
    }
    assert_eq!(won, 1);
    // replayed
    let (code, said) = b.refused(&["mesh", "join", line]);
    assert!(code == 4 && said.contains("used up"), "{code} {said}");
    assert_eq!(b.answers().await.phase, Phase::Unjoined);
    // ended by time, and by hand
    // another token lives meanwhile, so that it is the token that is refused and not the port that is closed
    let living = a.ok(&["token", "create"]);
    let short = a.ok(&["token", "create", "--ttl", "2s"]);
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    assert!(tokio::net::TcpStream::connect((a.ip, 4749)).await.is_ok(), "the port is open");
    let (code, said) = b.refused(&["mesh", "join", short.trim()]);
    assert!(code == 4 && said.contains("the token has ended, was revoked, or never was"), "{code} {said}");
    let late = knock(&short.trim().parse().expect("a token"), &SecretKey::generate().expect("a key"), 1).await;
    assert_eq!(late.expect_err("it has ended").code, Code::Denied);
    a.ok(&["token", "revoke", &living.trim().parse::<Token>().expect("a token").id().to_string()]);
    let revoked = a.ok(&["token", "create"]);
    let id = revoked.trim().parse::<Token>().expect("a token").id().to_string();
    a.ok(&["token", "revoke", &id]);
    b.refused(&["mesh", "join", revoked.trim()]);
    // for another name
    let named = a.ok(&["token", "create", "--name", "pi4"]);
    let (code, said) = b.refused(&["mesh", "join", named.trim()]);
    assert!(code == 4 && said.contains("pi4"), "{said}");
    // the port closes once nobody is expected
    a.ok(&["token", "revoke", &named.trim().parse::<Token>().expect("a token").id().to_string()]);
    eventually("the port closes", async || {
        // the used token may be shown again by whoever used it, for a minute
        a.client().tokens().await.ok().filter(|tokens| tokens.iter().all(|token| token.uses_left == 0))
    })
    .await;
    assert_eq!(b.answers().await.phase, Phase::Unjoined);
    let config = std::fs::read_to_string(&b.config).expect("a config");
    assert!(!config.contains("enabled = true"), "what was refused leaves no trace: {config}");
}

/// SYNC is the hash of the whole view: whoever says another one is welcome, and gets no further.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_ready_with_another_view() {
    let hosts = Hosts::start(1, |_| ()).await;
    let a = &hosts.list[0];
    let token = found(a);
    let key = SecretKey::generate().expect("a key");
    let who = applicant(&key, 7);
    let sign = |message: &[u8]| Ok(key.sign(message).expect("a key signs"));
    let enrolled = enroll(&Invitation::Token(token), &who, sign).await.expect("let in");
    let (node, root) = (enrolled.node.expect("an id"), enrolled.roots.nodes[0].to_vec());
    let identity = Identity::new(key, enrolled.certificate.to_vec().into(), root.into()).expect("papers");
    let hash_of = |view: &View| *blake3::hash(&view.canonical()).as_bytes();
    let root = identity.root();
    let guest = Intruder::bind(identity, hello(enrolled.cluster, Some(node), a.ip));
    let connection = guest.dial(a, Plane::Control).await.expect("a member");
    let (mut to, mut from) = connection.open(&Open::Work).await.expect("a stream");
    let addrs = addrs(a.ip);
    let meta = NodeMeta {
        memory: 1 << 40,
        version: 1,
        name: "racer7".into(),
        software: "0".into(),
        protocol: PROTOCOL,
        addrs,
        os: "linux".into(),
        arch: "none".into(),
        capacity: Default::default(),
        labels: Default::default(),
        executors: vec![],
    };
    let report = Report { node, life: 1, meta: meta.into(), window: 1, held: vec![], last_grant: LogIndex(0), view: LogIndex(0) };
    to.send(&FromWorker::Report(report)).await.expect("sent");
    let mut view = View::default();
    while view.version == LogIndex(0) {
        if let ToWorker::Welcome { view: told, .. } = from.recv().await.expect("the stream lives").expect("an answer") {
            view = told;
        }
    }
    let told = async || a.events().await.into_iter().map(|event| event.what).collect::<Vec<_>>();
    eventually("WELCOME", async || told().await.contains(&What::NodeWelcomed { node }).then_some(())).await;
    let mut another = view.clone();
    another.nodes.get_mut(&node).expect("in the view").name.push('x');
    to.send(&FromWorker::Synced { version: LogIndex(u64::MAX), hash: hash_of(&another), root }).await.expect("sent");
    let warned = async || format!("{:?}", a.client().node_events(0).await).contains("has another view").then_some(());
    eventually("the leader says so", warned).await;
    assert!(!told().await.contains(&What::NodeSynced { node }));
    // its own step has changed the view since; what the leader sends makes it the same again
    let mut roster = view;
    loop {
        to.send(&FromWorker::Synced { version: roster.version, hash: hash_of(&roster), root }).await.expect("sent");
        if told().await.contains(&What::NodeReady { node }) {
            break;
        }
        if let Ok(Ok(Some(ToWorker::View(news)))) = tokio::time::timeout(Duration::from_millis(500), from.recv::<ToWorker>()).await {
            roster.merge(&news);
        }
    }
}

/// A stranger who sends slowly holds no place for ever.
#[tokio::test]
async fn a_petition_that_does_not_come_is_not_waited_for() {
    let hosts = Hosts::start(1, |_| ()).await;
    let a = &hosts.list[0];
    let token = found(a);
    let connect = async || swarm_client::connect(&token.addresses[0], &Trust::Pin(token.pin), None).await.ok();
    let mut halves = Vec::new();
    for said in ["", "POST /v1/enroll HTTP/1.1\r\nhost: swarm\r\ncontent-length: 100\r\n\r\nx"] {
        let mut session = eventually("the door opens", connect).await;
        session.stream.write_all(said.as_bytes()).await.expect("sent");
        halves.push(session.stream);
    }
    for mut stream in halves {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(2 * limits::HANDSHAKE_TIME, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "still open");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains("200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn whoever_joins_as_a_worker_never_votes() {
    let hosts = Hosts::start(3, |_| ()).await;
    let [a, b, c] = &hosts.list[..] else { panic!("three") };
    a.ok(&["mesh", "init"]);
    let (code, said) = a.refused(&["token", "create", "--role", "admin"]);
    assert!(code == 2 && said.contains("as worker"), "{code} {said}");
    let line = a.ok(&["token", "create", "--role", "worker", "--uses", "2"]);
    assert!(a.ok(&["token", "list"]).contains("any worker"));
    for host in [b, c] {
        host.ok(&["mesh", "join", line.trim(), "--allow", "exec"]);
    }
    hosts.whole(3).await;
    for (name, may_vote) in [("host1", true), ("host2", false), ("host3", false)] {
        assert_eq!(a.client().node(name).await.expect("a node").may_vote, may_vote, "{name}");
    }
    assert_eq!(a.client().leader().await.expect("a leader").voters, [NodeId(1)]);
    assert_eq!(b.ok(&["run", "--", "echo", "done"]), "done\n");
}

/// An answer that is lost on the way is asked for again, by the same key only.
#[tokio::test]
async fn a_lost_answer_is_not_a_lost_use() {
    let hosts = Hosts::start(1, |_| ()).await;
    let a = &hosts.list[0];
    let token = found(a);
    let key = SecretKey::generate().expect("a key");
    let first = knock(&token, &key, 1).await.expect("let in");
    assert_eq!(knock(&token, &key, 1).await.expect("told again"), first);
    assert!(knock(&token, &SecretKey::generate().expect("a key"), 2).await.is_err());
}

/// Whoever listens at the place a token names, and is not the swarm, gets nothing.
#[tokio::test]
async fn a_wrong_pin_is_sent_nothing() {
    let hosts = Hosts::start(1, |_| ()).await;
    let a = &hosts.list[0];
    let token = found(a);
    // a thief with a key and an authority of its own
    let ca = swarm_transport::Ca::create(token.cluster, SecretKey::generate().expect("a key")).expect("a CA");
    let identity = ca.identity(SecretKey::generate().expect("a key"), swarm_transport::Validity::CENTURY).expect("an identity");
    let config = swarm_transport::api_server(&identity, &[] as &[Vec<u8>]).expect("a server");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = listener.local_addr().expect("an address").to_string();
    let thief = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("somebody knocks");
        match tokio_rustls::TlsAcceptor::from(config).accept(stream).await {
            Ok(mut stream) => {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes).await;
                bytes.len()
            }
            Err(_) => 0,
        }
    });
    let lured = Token { addresses: vec![place], ..token.clone() };
    let problem = knock(&lured, &SecretKey::generate().expect("a key"), 1).await.expect_err("not the swarm");
    assert_eq!(problem.code, Code::Denied, "{problem}");
    assert_eq!(thief.await.expect("no panic"), 0, "bytes were sent");
    // and the other way round: a line with another pin does not trust the swarm
    let altered = Token { pin: [1; 32], ..token.clone() };
    assert!(knock(&altered, &SecretKey::generate().expect("a key"), 1).await.is_err());
    assert_eq!(a.client().tokens().await.expect("tokens")[0].uses_left, 1);
}

/// Somebody who has a session of their own can do nothing with what another one sent.
#[tokio::test]
async fn a_petition_belongs_to_its_session() {
    let hosts = Hosts::start(1, |_| ()).await;
    let a = &hosts.list[0];
    let token = found(a);
    let place = &token.addresses[0];
    // the door opens with the token, as soon as the node has seen it
    let connect = async || swarm_client::connect(place, &Trust::Pin(token.pin), None).await.ok();
    let (one, two) = (eventually("the door opens", connect).await, eventually("the door is open", connect).await);
    assert_ne!(one.exporter, two.exporter);
    assert_ne!(one.exporter, [0; 32]);
    drop((one, two));
}

#[tokio::test]
async fn a_host_that_left_is_nobodys_and_may_come_back_as_somebody_new() {
    let hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let [a, b, _] = &hosts.list[..] else { panic!("three") };
    let before = b.answers().await.node;
    b.ok(&["mesh", "leave"]);
    let status = b.answers().await;
    assert_eq!((status.phase, status.node), (Phase::Unjoined, None));
    for gone in ["cluster.toml", "node.key", "log", "records"] {
        assert!(!b.state.join(gone).exists(), "{gone}");
    }
    let nodes = a.client().nodes().await.expect("nodes");
    assert!(nodes.iter().all(|node| Some(node.node) != before), "{nodes:?}");
    let token = a.ok(&["token", "create"]);
    b.ok(&["mesh", "join", token.trim()]);
    hosts.whole(3).await;
    assert!(b.ready().await.node > before);
    let (code, said) = b.refused(&["mesh", "init"]);
    assert!(code == 1 && said.contains("mesh leave"), "{code} {said}");
}
