//! Those who were let in and are closed out: what they hold ends within two seconds on every node, and nothing brings them back.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use swarm_client::{Client, Place, Remote, login};
use swarm_proto::{
    Code, LogIndex, NodeId, PROTOCOL, Problem, RaftDir,
    api::SubmitRequest,
    http::FollowLine,
    identity::Renewed,
    ledger::{Admit, View},
    peer::{Joined, Open},
};
use swarm_tests::{
    Host, Hosts, eventually,
    intruder::{Intruder, Raw, Shown, addrs, hello, place, realm},
};
use swarm_transport::{CloseCode, Connection, DialError, Ended, Identity, Plane, StreamCode, StreamError};
use tokio::task::JoinSet;

/// What the design allows, from the word on.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A client on each plane of one node that keeps every ticket it is given.
struct Hoarder {
    plane: Plane,
    at: usize,
    raw: Raw,
}

fn hoarders(hosts: &[Host], identity: &Identity, realm: swarm_transport::Realm) -> Vec<Hoarder> {
    let shown = Shown::new(identity.chain().swap_remove(0), &identity.key().pkcs8());
    let all = (0..hosts.len()).flat_map(|at| Plane::ALL.map(|plane| (at, plane)));
    all.map(|(at, plane)| Hoarder { plane, at, raw: Raw::new(Some(shown.clone()), plane.alpn(PROTOCOL, realm)) }).collect()
}

/// Waits for the end of connections, each on its own: how long it took since then, and how it ended.
async fn ends(connections: Vec<Connection>, since: Instant) -> Vec<(Connection, Duration, Ended)> {
    let mut waiting = JoinSet::new();
    for connection in connections {
        waiting.spawn(async move {
            let ended = tokio::time::timeout(Duration::from_secs(10), connection.closed()).await;
            (connection, since.elapsed(), ended.expect("it is closed at all"))
        });
    }
    waiting.join_all().await
}

/// Every plane of every node still says no, and says why.
async fn nobody_lets_in(hosts: &[Host], thief: &Intruder) {
    for host in hosts {
        for plane in Plane::ALL {
            let refused = thief.dial(host, plane).await.expect_err("let in again");
            let DialError::Refused(problem) = &refused else { panic!("{plane}: {refused}") };
            assert!(problem.code == Code::Denied && problem.why.contains("was revoked"), "{plane}: {problem}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_nodes_connections_end_on_every_node_and_no_ticket_brings_them_back() {
    let mut hosts = Hosts::start(4, |_| ()).await;
    hosts.unite().await;
    // the fourth's papers are in other hands, and the daemon is not there
    let status = hosts.list[3].answers().await;
    let (gone, cluster) = (status.node.expect("an id"), status.cluster);
    let revoked = hosts.list[3].state.clone();
    hosts.list[3].kill();
    let (rest, ip) = (&hosts.list[..3], hosts.list[3].ip);
    let identity = Identity::load(&revoked).expect("the papers");
    let thief = Intruder::with_papers_of(&revoked, hello(cluster, Some(gone), ip));
    let mut live = Vec::new();
    for host in rest {
        for plane in Plane::ALL {
            live.push(thief.dial(host, plane).await.unwrap_or_else(|e| panic!("{plane}: {e}")));
        }
    }
    let hoarders = hoarders(rest, &identity, realm(cluster));
    let claims = hello(cluster, Some(gone), ip);
    let mut kept = Vec::new();
    for Hoarder { plane, at, raw } in &hoarders {
        kept.push(raw.knock(place(&rest[*at], *plane), &claims).await.unwrap_or_else(|why| panic!("{plane}: {why}")));
    }
    assert!(live.iter().all(Connection::is_open) && kept.iter().all(|connection| connection.close_reason().is_none()));

    let said = Instant::now();
    rest[0].client().revoke_node(&gone.to_string()).await.expect("revoked");
    for (connection, took, ended) in ends(live, said).await {
        assert!(matches!(&ended, Ended::There(CloseCode::ClosedOut, why) if why.contains("revoked")), "{connection:?}: {ended}");
        assert!(took < AT_ONCE, "{connection:?} after {took:?}");
    }
    for connection in &kept {
        let ended = tokio::time::timeout(AT_ONCE.saturating_sub(said.elapsed()), connection.closed()).await.expect("within two seconds");
        assert!(matches!(ended, quinn::ConnectionError::ApplicationClosed(_)), "{ended}");
    }
    // they stay closed, with a session to resume or without
    let until = said + 2 * AT_ONCE;
    while Instant::now() < until {
        nobody_lets_in(rest, &thief).await;
        for Hoarder { plane, at, raw } in &hoarders {
            let refused = raw.knock(place(&rest[*at], *plane), &claims).await.map(drop).expect_err("let in again");
            assert!(refused.contains("was revoked"), "{plane}: {refused}");
        }
    }
    for Hoarder { plane, raw, .. } in &hoarders {
        assert_eq!(raw.tickets.given(), 0, "{plane}: sessions can be resumed");
    }
    // a node that starts anew knows it from its own disk
    let mut hosts = hosts;
    for n in [1, 2] {
        hosts.list[n].kill();
        hosts.list[n].run();
    }
    for host in &hosts.list[1..3] {
        host.ready().await;
    }
    nobody_lets_in(&hosts.list[..3], &thief).await;
}

/// It does not say who it was: then it may ask to join, and that is refused as all else is.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_that_hides_its_name_gets_nothing() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let status = hosts.list[2].answers().await;
    let (gone, cluster) = (status.node.expect("an id"), status.cluster);
    let revoked = hosts.list[2].state.clone();
    hosts.list[2].kill();
    hosts.list[0].client().revoke_node(&gone.to_string()).await.expect("revoked");
    let (rest, ip) = (&hosts.list[..2], hosts.list[2].ip);
    for host in rest {
        eventually("the node knows", async || host.client().nodes().await.ok().filter(|nodes| nodes.iter().all(|node| node.node != gone)))
            .await;
    }
    let key = Identity::load(&revoked).expect("the papers").peer_key();
    let stranger = Intruder::with_papers_of(&revoked, hello(cluster, None, ip));
    let hidden = |n: u8| Admit { key, raft: RaftDir([n; 16]), name: "somebody".into(), addrs: addrs(ip), may_vote: true };
    for (n, host) in rest.iter().enumerate() {
        // whether it gets a connection that it can only ask on, or none
        let Ok(connection) = stranger.dial(host, Plane::Control).await else { continue };
        for raft in [n as u8, 100] {
            let asked = connection.call::<Result<Joined, Problem>>(&Open::Join(hidden(raft))).await.expect("an answer");
            let refused = asked.expect_err("admitted under another raft directory");
            assert_eq!(refused.code, Code::Denied, "{refused}");
        }
        let view = connection.call::<View>(&Open::View { after: LogIndex(0) }).await;
        assert_eq!(view.expect_err("the view"), StreamError::Reset(StreamCode::NotAdmitted));
        let Ok(connection) = stranger.dial(host, Plane::Renew).await else { continue };
        match connection.call::<Result<Renewed, Problem>>(&Open::Renew).await {
            Ok(Ok(_)) => panic!("renewed"),
            Ok(Err(problem)) => assert_eq!(problem.code, Code::Denied, "{problem}"),
            Err(_) => {}
        }
    }
    assert_eq!(hosts.list[0].client().nodes().await.expect("nodes").len(), 2);
}

/// The daemon itself, restarted, and with its raft directory removed, knocks at everybody.
#[tokio::test]
async fn a_revoked_daemon_knocks_everywhere_and_stays_out() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let gone = hosts.list[2].answers().await.node.expect("an id");
    // somebody waits there for what does not end
    let job = hosts.list[0].ok(&["submit", "--label", "no=such", "--", "true"]).trim().to_owned();
    let mut told = hosts.list[2].client().follow_job(job.parse().expect("an id")).await.expect("a stream");
    hosts.list[0].ok(&["node", "revoke", "host3"]);
    eventually("it is told so", async || {
        let trouble = hosts.list[2].answers().await.trouble;
        trouble.contains("revoked").then_some(trouble)
    })
    .await;
    let over = async {
        while let Ok(Some(line)) = told.next().await {
            assert!(!matches!(line, FollowLine::JobEnded(_)), "{line:?}")
        }
    };
    tokio::time::timeout(Duration::from_secs(60), over).await.expect("nobody waits for ever where nothing is heard any more");
    let (_, said) = hosts.list[2].refused(&["job", "show", &job]);
    assert!(said.contains("others shut this node out") && said.contains("was revoked"), "{said}");
    let is_out = async |hosts: &Hosts| {
        for host in &hosts.list[..2] {
            let nodes = host.client().nodes().await.expect("nodes");
            assert!(nodes.len() == 2 && nodes.iter().all(|node| node.node != gone), "{nodes:?}");
        }
    };
    hosts.list[2].kill();
    hosts.list[2].run();
    eventually("it is told so again", async || hosts.list[2].answers().await.trouble.contains("revoked").then_some(())).await;
    is_out(&hosts).await;
    // under another raft directory, with everybody's address at hand
    hosts.list[2].kill();
    for name in ["log", "records"] {
        std::fs::remove_dir_all(hosts.list[2].state.join(name)).expect("removed");
    }
    hosts.knows_all(2);
    hosts.list[2].run();
    for n in [0, 1] {
        let at = addrs(hosts.list[n].ip).control;
        eventually("it knocks, and is refused", async || {
            let status = hosts.list[2].client().status().await.ok()?;
            let place = status.mesh.candidates.into_iter().find(|candidate| candidate.addr == at)?;
            (place.knocks > 0 && place.why.contains("revoked")).then_some(())
        })
        .await;
    }
    Host::pause(Duration::from_secs(1)).await;
    assert_eq!(hosts.list[2].answers().await.node, None);
    is_out(&hosts).await;
}

/// Somebody at a machine elsewhere, by login or by token.
fn client(host: &Host, token: Option<&str>, dir: &Path) -> Client {
    Client::at(Place::Mesh(Box::new(Remote::find(&host.ip.to_string(), token, Some(dir)).expect("a login"))))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_revoked_user_has_open_ends() {
    let hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let leader = hosts.list[0].client().leader().await.expect("a leader").node;
    let leads = |node: NodeId| node == leader;
    let mut followers = Vec::new();
    for host in &hosts.list {
        if !leads(host.answers().await.node.expect("an id")) {
            followers.push(host);
        }
    }
    let admin = hosts.list[0].client();
    let line = hosts.list[0].ok(&["user", "create", "ann", "--role", "submitter"]);
    let home = hosts.dir().join("ann");
    login(line.trim(), &home).await.expect("logged in");
    let token = hosts.list[0].ok(&["user", "token", "ann"]);
    let nowhere = hosts.dir().join("nowhere");
    let mut open = Vec::new();
    for host in &followers {
        for client in [client(host, None, &home), client(host, Some(token.trim()), &nowhere)] {
            eventually("the node knows her", async || client.status().await.ok()).await;
            let events = client.events(None).await.expect("an event stream");
            let (mut sender, mut answers) = client.submit_stream().await.expect("a submit stream");
            let long = SubmitRequest { id: "1".into(), argv: vec!["sleep".into(), "600".into()], ..SubmitRequest::default() };
            sender.send(&long).await.expect("sent");
            answers.next().await.expect("an answer").expect("accepted");
            open.push((client, events, sender, answers));
        }
    }
    let (mut waiting, mut clients) = (JoinSet::new(), Vec::new());
    let said = Instant::now();
    for (n, (client, mut events, sender, mut answers)) in open.into_iter().enumerate() {
        clients.push(client);
        waiting.spawn(async move {
            while let Ok(Some(_)) = events.next().await {}
            (format!("events {n}"), said.elapsed())
        });
        waiting.spawn(async move {
            while let Ok(Some(_)) = answers.next().await {}
            drop(sender);
            (format!("submissions {n}"), said.elapsed())
        });
    }
    // nothing ends by itself
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(waiting.try_join_next().is_none(), "a stream ended while she was somebody");
    let revoked = Instant::now();
    let before = revoked - said;
    admin.revoke_user("ann").await.expect("revoked");
    let all = tokio::time::timeout(Duration::from_secs(20), waiting.join_all()).await.expect("every stream ends");
    for (what, took) in all {
        assert!(took - before < AT_ONCE, "{what} after {:?}", took - before);
    }
    while revoked.elapsed() < 2 * AT_ONCE {
        for client in &clients {
            let refused = client.status().await.expect_err("she is nobody");
            assert!(refused.code == Code::Denied && refused.why.contains("revoked"), "{refused}");
        }
    }
    // what she began is still the swarm's
    assert!(!admin.jobs(Default::default()).await.expect("jobs").is_empty());
}

/// A login line that was not used yet is worth nothing once its user is revoked.
#[tokio::test]
async fn an_unused_line_of_a_revoked_user_is_worth_nothing() {
    let hosts = Hosts::start(1, |_| ()).await;
    hosts.unite().await;
    let line = hosts.list[0].ok(&["user", "create", "ann", "--role", "admin"]);
    hosts.list[0].ok(&["user", "create", "bob", "--role", "observer"]);
    hosts.list[0].ok(&["user", "revoke", "ann"]);
    let refused = login(line.trim(), &hosts.dir().join("ann")).await.expect_err("revoked");
    assert_eq!(refused.code, Code::Denied, "{refused}");
}
