//! People, certificates that end, and those who are closed out.

use std::time::{Duration, Instant};

use swarm_client::{Credentials, connect};
use swarm_proto::{Code, access::Role};
use swarm_tests::{Host, Hosts, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Logs in with a line, as on a machine of its own.
async fn login(hosts: &Hosts, line: &str, machine: &str) -> Result<Credentials, swarm_proto::Problem> {
    swarm_client::login(line.trim(), &hosts.dir().join(machine)).await
}

/// One request over TLS with a user's certificate; the status line.
async fn ask(host: &Host, credentials: &Credentials, request: &str) -> String {
    let place = format!("{}:4749", host.ip);
    let (trust, own) = (credentials.trust().expect("roots"), credentials.own().expect("a key"));
    let session = match connect(&place, &trust, Some(&own)).await {
        Ok(session) => session,
        Err(problem) => return problem.to_string(),
    };
    let mut stream = session.stream;
    let request = format!("{request} HTTP/1.1\r\nhost: swarm\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return "closed".into();
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).lines().next().unwrap_or("closed").to_owned()
}

#[tokio::test]
async fn a_person_logs_in_by_one_line_and_is_closed_out_again() {
    let hosts = Hosts::start(2, |_| ()).await;
    hosts.unite().await;
    let [a, b] = &hosts.list[..] else { panic!("two") };
    let line = a.ok(&["user", "create", "ann", "--role", "observer"]);
    let ann = login(&hosts, &line, "laptop").await.expect("logged in");
    assert_eq!((ann.user.as_str(), ann.role), ("ann", Role::Observer));
    assert_eq!(login(&hosts, &line, "thief").await.expect_err("used").code, Code::Denied);
    let file = std::fs::read_dir(hosts.dir().join("laptop")).expect("a directory").next().expect("a file").expect("readable").path();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("set");
        assert!(Credentials::load(&file).expect_err("open to others").why.contains("0644"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
    }
    // at any node, with the role that the ledger has now
    for host in [a, b] {
        eventually("the node knows ann", async || ask(host, &ann, "GET /v1/status").await.contains("200").then_some(())).await;
        assert!(ask(host, &ann, "GET /v1/users").await.contains("403"), "an observer lists no users");
    }
    let second = a.ok(&["user", "create", "ann", "--role", "admin"]);
    for host in [a, b] {
        eventually("the role is another", async || ask(host, &ann, "GET /v1/users").await.contains("200").then_some(())).await;
    }
    let desk = login(&hosts, &second, "desktop").await.expect("logged in");
    assert!(a.ok(&["user", "list", "-o", "json"]).contains("admin"));
    a.ok(&["user", "revoke", "ann"]);
    for host in [a, b] {
        for credentials in [&ann, &desk] {
            eventually("ann is nobody", async || (!ask(host, credentials, "GET /v1/status").await.contains("200")).then_some(())).await;
        }
    }
    // a node's token lets no person in, and a person's line no node
    let token = a.ok(&["token", "create"]);
    assert_eq!(login(&hosts, &token, "laptop").await.expect_err("a node's").code, Code::BadRequest);
    let line = a.ok(&["user", "create", "bob", "--role", "observer"]);
    assert!(b.refused(&["mesh", "join", line.trim()]).1.contains("belongs to swarm"));
}

#[tokio::test]
async fn certificates_end_and_renew_by_themselves() {
    let hosts = Hosts::start(3, |config| config.mesh.certificate_life = Duration::from_secs(10)).await;
    hosts.unite().await;
    let ends = async |host: &Host| host.answers().await.certificate_ends.expect("a certificate");
    let [a, b, c] = &hosts.list[..] else { panic!("three") };
    for host in [a, b, c] {
        let first = ends(host).await;
        eventually("the certificate is another", async || (ends(host).await > first).then_some(())).await;
    }
    hosts.whole(3).await;
    // one sleeps beyond its certificate's end, and is back without a word from anybody
    let asleep = rustix::process::Signal::STOP;
    rustix::process::kill_process(c.pid(), asleep).expect("stopped");
    Host::pause(Duration::from_secs(13)).await;
    rustix::process::kill_process(c.pid(), rustix::process::Signal::CONT).expect("woken");
    hosts.whole(3).await;
    // the swarm as a whole sleeps
    for host in [a, b, c] {
        rustix::process::kill_process(host.pid(), asleep).expect("stopped");
    }
    Host::pause(Duration::from_secs(13)).await;
    for host in [a, b, c] {
        rustix::process::kill_process(host.pid(), rustix::process::Signal::CONT).expect("woken");
    }
    hosts.whole(3).await;
    assert_eq!(b.ok(&["run", "--", "echo", "awake"]), "awake\n");
    // nobody was admitted anew
    assert_eq!(a.client().nodes().await.expect("nodes").len(), 3);
}

#[tokio::test]
async fn a_swarm_that_was_off_for_too_long_starts_again() {
    let mut hosts = Hosts::start(3, |config| config.mesh.certificate_life = Duration::from_secs(10)).await;
    hosts.unite().await;
    for host in &mut hosts.list {
        host.kill();
    }
    Host::pause(Duration::from_secs(12)).await;
    for host in &mut hosts.list {
        host.run();
    }
    hosts.whole(3).await;
}

#[tokio::test]
async fn a_revoked_node_is_out_within_two_seconds_and_stays_out() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let gone = hosts.list[2].answers().await.node.expect("an id");
    hosts.list[0].ok(&["node", "revoke", "host3"]);
    let since = Instant::now();
    for host in &hosts.list[..2] {
        eventually("the connection is closed", async || {
            let status = host.answers().await;
            status.peers.iter().all(|peer| peer.node != gone || !peer.connected).then_some(())
        })
        .await;
    }
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    // it tries to come back, restarted or not
    for _ in 0..2 {
        Host::pause(Duration::from_secs(1)).await;
        for host in &hosts.list[..2] {
            assert!(host.answers().await.peers.iter().all(|peer| peer.node != gone || !peer.connected));
        }
        hosts.list[2].kill();
        hosts.list[2].run();
        hosts.list[2].answers().await;
    }
    assert_eq!(hosts.list[0].client().nodes().await.expect("nodes").len(), 2);
    // nor under another raft directory
    hosts.list[2].kill();
    for name in ["log", "records"] {
        std::fs::remove_dir_all(hosts.list[2].state.join(name)).expect("removed");
    }
    hosts.list[2].run();
    Host::pause(Duration::from_secs(2)).await;
    assert_eq!(hosts.list[2].answers().await.node, None);
    assert_eq!(hosts.list[0].client().nodes().await.expect("nodes").len(), 2);
}

#[tokio::test]
async fn a_wiped_directory_under_the_old_key_is_another_node() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let host = &mut hosts.list[1];
    let before = host.answers().await.node.expect("an id");
    host.kill();
    for name in ["log", "records"] {
        std::fs::remove_dir_all(host.state.join(name)).expect("removed");
    }
    let seeds = format!("peers = [\"{}:4747\"]", hosts.list[0].ip);
    let host = &mut hosts.list[1];
    let text = std::fs::read_to_string(&host.config).expect("a config").replace("peers = []", &seeds);
    std::fs::write(&host.config, text).expect("written");
    host.run();
    hosts.whole(3).await;
    let after = hosts.list[1].ready().await.node.expect("an id");
    assert!(after > before, "{after} after {before}");
    let voters = hosts.list[0].client().leader().await.expect("a leader").voters;
    assert!(!voters.contains(&before), "{voters:?}");
}

#[tokio::test]
async fn authorities_are_replaced_under_everybodys_feet() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    // one is away while it happens
    hosts.list[2].kill();
    hosts.list[0].ok(&["ca", "rotate"]);
    let authorities = async |hosts: &Hosts| hosts.list[0].client().authorities().await.expect("authorities");
    eventually("all that are there have renewed", async || {
        let list = authorities(&hosts).await;
        let node: Vec<_> = list.iter().filter(|root| root.kind == swarm_proto::identity::Kind::Node).collect();
        (node.len() == 2 && node[0].awaited.len() == 1).then_some(())
    })
    .await;
    assert_eq!(hosts.list[0].refused(&["ca", "rotate"]).0, 1, "one at a time");
    hosts.list[2].run();
    eventually("the old one goes when the last has renewed", async || {
        let list = authorities(&hosts).await;
        (list.iter().filter(|root| root.kind == swarm_proto::identity::Kind::Node).count() == 1).then_some(())
    })
    .await;
    for host in &mut hosts.list {
        host.kill();
        host.run();
    }
    hosts.whole(3).await;
    // and others come in under the new one
    let token = hosts.list[1].ok(&["token", "create"]);
    assert!(token.starts_with("swarm1-"));
}

/// Both daemons run from one state directory's papers: neither takes the other's place for long, and the ledger is one.
#[tokio::test]
async fn a_copied_state_directory_is_noticed() {
    let mut hosts = Hosts::start(4, |_| ()).await;
    hosts.list[0].ok(&["mesh", "init", "--allow", "exec"]);
    let token = hosts.list[0].ok(&["token", "create", "--uses", "2"]);
    for host in &hosts.list[1..3] {
        host.ok(&["mesh", "join", token.trim()]);
    }
    hosts.whole(3).await;
    // the fourth host is given the third one's directory
    hosts.list[3].kill();
    let (from, to) = (hosts.list[2].state.clone(), hosts.list[3].state.clone());
    std::fs::remove_dir_all(&to).expect("removed");
    let copied = std::process::Command::new("cp").arg("-a").arg(&from).arg(&to).status().expect("cp");
    assert!(copied.success());
    let original = hosts.list[2].answers().await.node;
    hosts.list[3].run();
    hosts.list[3].answers().await;
    eventually("both are told", async || {
        let troubles = [hosts.list[2].answers().await.trouble, hosts.list[3].answers().await.trouble];
        troubles.iter().all(|trouble| trouble.contains("another daemon")).then_some(())
    })
    .await;
    // nothing of the ledger is lost by it
    let done = hosts.list[0].ok(&["run", "--", "echo", "intact"]);
    assert_eq!(done, "intact\n");
    assert_eq!(hosts.list[0].client().nodes().await.expect("nodes").len(), 3);
    assert!(original.is_some());
}

/// A daemon that was killed comes back at another address, while the others still hold its old connections: it is let in, and nobody
/// takes it for a second one.
#[tokio::test]
async fn a_daemon_that_comes_back_elsewhere_is_no_double() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let before = hosts.list[2].ready().await.node;
    hosts.list[2].kill();
    hosts.list[2].readdress();
    hosts.list[2].run();
    assert_eq!(hosts.list[2].ready().await.node, before);
    eventually("the others know where it is", async || {
        let seen = hosts.list[0].answers().await.peers;
        seen.iter().find(|peer| Some(peer.node) == before).filter(|peer| peer.addr.ip() == hosts.list[2].ip && peer.connected).map(|_| ())
    })
    .await;
    hosts.whole(3).await;
    for host in &hosts.list {
        assert!(!host.log().contains("another daemon"), "{}", host.log());
    }
}

/// Two of three voters are gone for good: what the third one knows goes on, and what comes back of the others is not let in.
#[tokio::test]
async fn a_lost_majority_is_recovered_in_a_new_epoch() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    eventually("three vote", async || hosts.list[0].client().leader().await.ok().filter(|leader| leader.voters.len() == 3)).await;
    let job = swarm_tests::submit(&hosts.list[2].client(), swarm_tests::shell("true")).await;
    swarm_tests::ended(&hosts.list[2].client(), job).await;
    // the last word reaches everybody
    Host::pause(Duration::from_secs(1)).await;
    for host in &mut hosts.list {
        host.kill();
    }
    let state = hosts.list[2].state.display().to_string();
    let socket = hosts.list[2].socket.clone();
    let ctl = |args: &[&str]| swarm_tests::ctl(&socket, args);
    assert_eq!(ctl(&["recover", "--state-dir", &state]).status.code(), Some(2), "not without a yes");
    let done = ctl(&["recover", "--state-dir", &state, "--yes"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    hosts.list[2].run();
    hosts.list[2].ready().await;
    assert_eq!(ctl(&["recover", "--state-dir", &state, "--yes"]).status.code(), Some(1), "not while it runs");
    let known = hosts.list[2].client().job(job).await.expect("the job is known");
    assert!(known.ended.is_some());
    assert_eq!(hosts.list[2].ok(&["run", "--", "echo", "on"]), "on\n");
    let leader = hosts.list[2].client().leader().await.expect("it leads");
    assert_eq!(leader.voters, [leader.node]);
    // the old voters come back as the old swarm, and find nobody of it here
    for n in [0, 1] {
        hosts.list[n].run();
    }
    hosts.list[0].ready().await;
    Host::pause(Duration::from_secs(2)).await;
    let status = hosts.list[2].answers().await;
    assert!(status.peers.iter().all(|peer| !peer.connected), "{:?}", status.peers);
    assert_eq!(hosts.list[2].client().leader().await.expect("it leads").voters, [leader.node]);
    // one of them joins again
    hosts.list[0].kill();
    std::fs::remove_dir_all(&hosts.list[0].state).expect("removed");
    hosts.list[0].run();
    hosts.list[0].answers().await;
    let token = hosts.list[2].ok(&["token", "create"]);
    hosts.list[0].ok(&["mesh", "join", token.trim()]);
    assert!(hosts.list[0].ready().await.node > Some(swarm_proto::NodeId(3)));
}
