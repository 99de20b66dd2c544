//! Those who were never let in, at the doors of real daemons: other people's papers, papers of other places, and none.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use swarm_client::Credentials;
use swarm_proto::{
    ClusterId, Code, NodeId, PROTOCOL, Problem, RaftDir,
    identity::{Kind, Renewed},
    ledger::Admit,
    peer::{Joined, Open},
};
use swarm_tests::{
    Host, Hosts, eventually,
    intruder::{Intruder, Raw, Shown, addrs, hello, place, realm},
    program,
};
use swarm_transport::{Ca, DialError, Identity, Plane, SecretKey, Validity};

/// A QUIC client that shows a certificate and signs with a key, on one plane.
fn shows(identity: &Identity, key: &SecretKey, plane: Plane, cluster: ClusterId) -> Raw {
    let shown = Shown::new(identity.chain().swap_remove(0), &key.pkcs8());
    Raw::new(Some(shown), plane.alpn(PROTOCOL, realm(cluster)))
}

async fn member(host: &Host) -> (NodeId, ClusterId) {
    let status = host.answers().await;
    (status.node.expect("an id"), status.cluster)
}

/// The handshake itself fails, by what TLS has to say about certificates.
async fn is_refused_by_tls(raw: &Raw, host: &Host, plane: Plane, alerts: &[u64]) {
    let nobody = hello(ClusterId([0; 16]), None, host.ip);
    let said = match raw.shake_hands(place(host, plane)).await {
        // a client holds its handshake for complete before the server has judged it
        Ok(connection) => match tokio::time::timeout(Duration::from_secs(5), connection.closed()).await {
            Ok(ended) => ended,
            Err(_) => panic!("{plane}: let in; the Hello is answered by {:?}", raw.knock(place(host, plane), &nobody).await.map(drop)),
        },
        Err(error) => error,
    };
    let quinn::ConnectionError::ConnectionClosed(close) = &said else { panic!("{plane}: {said}") };
    let alert = u64::from(close.error_code).checked_sub(0x100).expect("an alert of TLS");
    assert!(alerts.contains(&alert), "{plane}: alert {alert}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_certificate_is_nothing_without_its_key() {
    let hosts = Hosts::start(2, |_| ()).await;
    hosts.unite().await;
    let (a, b) = (&hosts.list[0], &hosts.list[1]);
    let (id, cluster) = member(b).await;
    let stolen = Identity::load(&b.state).expect("the papers");
    let thief = SecretKey::generate().expect("a key");
    for plane in Plane::ALL {
        // 51: the signature does not fit the certificate
        is_refused_by_tls(&shows(&stolen, &thief, plane, cluster), a, plane, &[51]).await;
        // with its key it is let in: the certificate was good
        let own = shows(&stolen, stolen.key(), plane, cluster);
        own.knock(place(a, plane), &hello(cluster, Some(id), b.ip)).await.unwrap_or_else(|why| panic!("{plane}: {why}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_cannot_say_that_it_is_another() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let ((first, cluster), (second, _), (own, _)) =
        (member(&hosts.list[0]).await, member(&hosts.list[1]).await, member(&hosts.list[2]).await);
    hosts.list[2].kill();
    let (a, c) = (&hosts.list[0], &hosts.list[2]);
    // another member, the very node that is dialled, one that is nobody yet
    for claimed in [second, first, NodeId(99)] {
        let liar = Intruder::with_papers_of(&c.state, hello(cluster, Some(claimed), c.ip));
        for plane in Plane::ALL {
            let refused = liar.dial(a, plane).await.expect_err("let in as somebody else");
            let DialError::Refused(problem) = &refused else { panic!("{plane}: {refused}") };
            assert!(problem.why.contains(&claimed.to_string()), "{plane}: {problem}");
        }
    }
    let honest = Intruder::with_papers_of(&c.state, hello(cluster, Some(own), c.ip));
    for plane in Plane::ALL {
        honest.dial(a, plane).await.unwrap_or_else(|e| panic!("{plane}: {e}"));
    }
    assert_eq!(hosts.list[1].ok(&["run", "--", "echo", "undisturbed"]), "undisturbed\n");
    assert_eq!(member(&hosts.list[1]).await.0, second);
}

/// Who asks to join must hold the key that is to be let in; a member relays others' questions, and may not make them up.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_in_the_name_of_another_key() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let ((second, cluster), (own, _)) = (member(&hosts.list[1]).await, member(&hosts.list[2]).await);
    hosts.list[2].kill();
    let (a, b, c) = (&hosts.list[0], &hosts.list[1], &hosts.list[2]);
    let victim = Identity::load(&b.state).expect("the papers").peer_key();
    let raft = RaftDir([7; 16]);
    let admit = Admit { key: victim, raft, name: "host2".into(), addrs: addrs(c.ip), may_vote: true };
    for claims in [None, Some(own)] {
        let intruder = Intruder::with_papers_of(&c.state, hello(cluster, claims, c.ip));
        for host in [a, b] {
            let Ok(connection) = intruder.dial(host, Plane::Control).await else { continue };
            if let Ok(Ok(joined)) = connection.call::<Result<Joined, Problem>>(&Open::Join(admit.clone())).await {
                panic!("{claims:?} made {second} into {}", joined.node);
            }
        }
    }
    assert_eq!(member(b).await.0, second);
    let nodes = a.client().nodes().await.expect("nodes");
    assert!(nodes.iter().any(|node| node.node == second), "{nodes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_a_certificate_of_this_swarm_gets_past_tls() {
    let (hosts, others) = (Hosts::start(2, |_| ()).await, Hosts::start(1, |_| ()).await);
    hosts.unite().await;
    others.unite().await;
    let a = &hosts.list[0];
    let (_, cluster) = member(a).await;
    let foreign = Identity::load(&others.list[0].state).expect("the papers");
    let own_key = || SecretKey::generate().expect("a key");
    let self_made = Ca::create(cluster, own_key()).expect("a CA").identity(own_key(), Validity::CENTURY).expect("an identity");
    let line = a.ok(&["user", "create", "ann", "--role", "admin"]);
    let ann = swarm_client::login(line.trim(), &hosts.dir().join("ann")).await.expect("logged in").own().expect("a certificate");
    for plane in Plane::ALL {
        let alpn = plane.alpn(PROTOCOL, realm(cluster));
        // 116: none was shown; 48: of an unknown authority
        is_refused_by_tls(&Raw::new(None, alpn.clone()), a, plane, &[116]).await;
        is_refused_by_tls(&shows(&foreign, foreign.key(), plane, cluster), a, plane, &[48]).await;
        is_refused_by_tls(&shows(&self_made, self_made.key(), plane, cluster), a, plane, &[48]).await;
        let person = Shown::new(ann.certificate.clone().into(), &ann.key.clone().into());
        is_refused_by_tls(&Raw::new(Some(person), alpn), a, plane, &[48]).await;
        // another swarm's word for the plane is not even spoken here: 120
        let (_, elsewhere) = member(&others.list[0]).await;
        is_refused_by_tls(&shows(&foreign, foreign.key(), plane, elsewhere), a, plane, &[120]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_certificate_that_has_ended_is_good_for_a_new_one_alone() {
    let mut hosts = Hosts::start(2, |config| config.mesh.certificate_life = Duration::from_secs(10)).await;
    hosts.unite().await;
    let (id, cluster) = member(&hosts.list[1]).await;
    hosts.list[1].kill();
    let (a, b) = (&hosts.list[0], &hosts.list[1]);
    let late = Intruder::with_papers_of(&b.state, hello(cluster, Some(id), b.ip));
    Host::pause(Duration::from_secs(11)).await;
    for plane in [Plane::Control, Plane::Raft, Plane::Bulk] {
        let refused = late.dial(a, plane).await.expect_err("let in");
        let DialError::Refused(problem) = &refused else { panic!("{plane}: {refused}") };
        assert!(problem.code == Code::Denied && problem.why.contains("certificate ended"), "{plane}: {problem}");
    }
    let renewing = late.dial(a, Plane::Renew).await.expect("renewal stays open");
    let renewed = renewing.call::<Result<Renewed, Problem>>(&Open::Renew).await.expect("an answer").expect("a certificate");
    let ends = swarm_transport::certificate_end(&renewed.certificate.to_vec().into()).expect("a certificate");
    assert!(ends > renewed.now);
}

/// `swarmctl` on a machine whose login is what lies in `home`.
fn from(home: &Path, args: &[&str]) -> Output {
    let mut ctl = Command::new(program("swarmctl"));
    ctl.args(args).env("XDG_CONFIG_HOME", home);
    for name in ["SWARM_SOCKET", "SWARM_NODE", "SWARM_TOKEN"] {
        ctl.env_remove(name);
    }
    ctl.output().expect("swarmctl starts")
}

/// The one login in a home.
fn login_file(home: &Path) -> PathBuf {
    std::fs::read_dir(home.join("swarm")).expect("a login").next().expect("a file").expect("readable").path()
}

/// The DER in a PEM file, as base64: what stands between the first two lines of dashes.
fn pem_body(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a file");
    text.lines().skip_while(|line| !line.starts_with("-----")).skip(1).take_while(|line| !line.starts_with("-----")).collect()
}

/// A login for the swarm of `good`, which trusts that swarm and shows other papers.
fn forged(good: &Path, home: &Path, certificate: &str, key: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let text = std::fs::read(login_file(good)).expect("a login");
    let mut login: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    login["certificate"] = certificate.into();
    login["key"] = key.into();
    std::fs::create_dir_all(home.join("swarm")).expect("made");
    let path = home.join("swarm/forged.json");
    std::fs::write(&path, login.to_string()).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
    Credentials::load(&path).expect("a login that can be read");
}

/// What swarmctl says to somebody who is refused: denied, and a way out.
fn is_denied(home: &Path, host: &Host, why: &str) {
    let output = from(home, &["--node", &host.ip.to_string(), "status"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains(why) && said.contains("try: ") && said.contains("login"), "{said}");
    assert!(output.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_no_user_of_this_swarm_is_told_so_by_its_api() {
    let (hosts, others) = (Hosts::start(2, |_| ()).await, Hosts::start(1, |_| ()).await);
    hosts.unite().await;
    others.unite().await;
    let home = |name: &str| hosts.dir().join(name);
    let (_, cluster) = member(&hosts.list[0]).await;
    for (from_host, name) in [(&hosts.list[0], "ann"), (&others.list[0], "eve")] {
        let line = from_host.ok(&["user", "create", name, "--role", "admin"]);
        let login = from(&home(name), &["login", line.trim()]);
        assert!(login.status.success(), "{}", String::from_utf8_lossy(&login.stderr));
    }
    for host in &hosts.list {
        eventually("the node knows ann", async || {
            from(&home("ann"), &["--node", &host.ip.to_string(), "status"]).status.success().then_some(())
        })
        .await;
    }
    let eve: serde_json::Value = serde_json::from_slice(&std::fs::read(login_file(&home("eve"))).expect("a login")).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    forged(&home("ann"), &home("foreign"), &text(&eve["certificate"]), &text(&eve["key"]));
    let key = || SecretKey::generate().expect("a key");
    let own = Ca::create_for(Kind::User, cluster, key()).expect("a CA");
    let ann = key();
    let certificate = own.issue_to_user("ann", &ann.peer_key(), Validity::CENTURY).expect("a certificate");
    std::fs::create_dir_all(home("papers")).expect("made");
    Identity::new(ann, certificate, own.root().clone()).expect("an identity").save(&home("papers")).expect("written");
    for (name, papers) in [("self-signed", home("papers")), ("node", hosts.list[1].state.clone())] {
        forged(&home("ann"), &home(name), &pem_body(&papers.join("node.crt")), &pem_body(&papers.join("node.key")));
    }
    for host in &hosts.list {
        for name in ["foreign", "self-signed", "node"] {
            is_denied(&home(name), host, "another authority");
        }
        // her certificate, and the key of somebody else
        let good: serde_json::Value = serde_json::from_slice(&std::fs::read(login_file(&home("ann"))).expect("a login")).expect("JSON");
        forged(&home("ann"), &home("thief"), &text(&good["certificate"]), &text(&eve["key"]));
        let thief = from(&home("thief"), &["--node", &host.ip.to_string(), "status"]);
        assert!(!thief.status.success() && thief.stdout.is_empty());
    }
}

#[tokio::test]
async fn a_login_that_has_ended_is_told_so() {
    let mut hosts = Hosts::start(1, |_| ()).await;
    hosts.list[0].kill();
    if !hosts.list[0].set_clock("-400d") {
        return swarm_tests::skip("there is no libfaketime");
    }
    hosts.list[0].run();
    hosts.list[0].answers().await;
    hosts.unite().await;
    let line = hosts.list[0].ok(&["user", "create", "ann", "--role", "admin"]);
    let home = hosts.dir().join("ann");
    let node = hosts.list[0].ip.to_string();
    let login = from(&home, &["login", line.trim()]);
    assert!(login.status.success(), "{}", String::from_utf8_lossy(&login.stderr));
    assert!(from(&home, &["--node", &node, "status"]).status.success(), "it is good while it lasts");
    // a year and a month later
    hosts.list[0].kill();
    hosts.list[0].env.clear();
    hosts.list[0].run();
    hosts.list[0].ready().await;
    eventually("the port is open", async || tokio::net::TcpStream::connect((hosts.list[0].ip, 4749)).await.ok()).await;
    is_denied(&home, &hosts.list[0], "the certificate has ended");
}

/// Another user of the machine, at the local socket of a real daemon.
mod local {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// What `swarmctl` hears as user and group 65534, with `groups` beside.
    fn nobody(tool: &Path, socket: &Path, groups: &[&str], args: &[&str]) -> (Option<i32>, String) {
        let mut ctl = Command::new("setpriv");
        ctl.args(["--reuid", "65534", "--regid", "65534"]);
        match groups {
            [] => ctl.arg("--clear-groups"),
            _ => ctl.args(["--groups", &groups.join(",")]),
        };
        let output = ctl.arg(tool).args(args).env("SWARM_SOCKET", socket).env("HOME", "/nonexistent").output().expect("setpriv starts");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    fn open_to_all(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    }

    #[tokio::test]
    async fn a_user_outside_the_group_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return swarm_tests::skip("it takes root to be another user");
        }
        // a group that every Debian has, and that the outsider is not in
        let hosts = Hosts::start(1, |config| config.api.group = Some("daemon".into())).await;
        hosts.unite().await;
        let host = &hosts.list[0];
        open_to_all(hosts.dir(), 0o755);
        let tool = hosts.dir().join("swarmctl");
        std::fs::copy(program("swarmctl"), &tool).expect("copied");
        let (socket, status) = (&host.socket, ["status"]);
        assert_eq!(nobody(&tool, socket, &["1"], &status).0, Some(0), "a member is heard");
        let (code, said) = nobody(&tool, socket, &["1"], &["node", "drain", "host1"]);
        assert!(code == Some(4) && said.contains("needs an operator"), "{code:?} {said}");
        for groups in [&[][..], &["100"]] {
            // the file lets nobody else connect
            let (code, said) = nobody(&tool, socket, groups, &status);
            assert!(code == Some(4) && said.contains("try: ") && said.contains("group"), "{code:?} {said}");
        }
        // as if somebody had opened the file to all
        open_to_all(socket, 0o666);
        for (groups, args) in [(&[][..], &status[..]), (&["100"], &["run", "--", "true"]), (&[], &["token", "create"])] {
            let (code, said) = nobody(&tool, socket, groups, args);
            assert!(code != Some(0) && said.contains("user id 65534 is neither the daemon's own nor root"), "{code:?} {said}");
        }
        // root is heard all the time
        assert_eq!(host.ok(&["run", "--", "echo", "root"]), "root\n");
    }

    #[tokio::test]
    async fn without_a_group_the_socket_is_its_users_alone() {
        if !rustix::process::geteuid().is_root() {
            return swarm_tests::skip("it takes root to be another user");
        }
        let hosts = Hosts::start(1, |_| ()).await;
        let host = &hosts.list[0];
        open_to_all(hosts.dir(), 0o755);
        let tool = hosts.dir().join("swarmctl");
        std::fs::copy(program("swarmctl"), &tool).expect("copied");
        // before it belongs to a swarm, too: nobody else founds or joins one here
        for args in [&["status"][..], &["mesh", "init"]] {
            let (code, said) = nobody(&tool, &host.socket, &[], args);
            assert!(code == Some(4) && said.contains("try: "), "{code:?} {said}");
        }
        open_to_all(&host.socket, 0o666);
        for args in [&["status"][..], &["mesh", "init"]] {
            let (code, said) = nobody(&tool, &host.socket, &[], args);
            assert!(code == Some(4) && said.contains("user id 65534"), "{code:?} {said}");
        }
        assert_eq!(host.answers().await.node, None);
    }
}
