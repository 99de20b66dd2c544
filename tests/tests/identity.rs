//! People, certificates that end, and those who are closed out.

use std::time::{Duration, Instant};

use swarm_client::{Credentials, Trust, connect};
use swarm_proto::{
    Code, JobId, RootId,
    access::Role,
    api::{Phase, SubmitRequest},
    identity::Kind,
};
use swarm_tests::{
    Host, Hosts, ended, eventually,
    intruder::{Raw, certificate_of, place, realm},
    shell,
};
use swarm_transport::Plane;
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

/// How old a certificate is, as a part of its life.
fn age(certificate: &[u8], now: Duration) -> f64 {
    let parsed = x509_parser::parse_x509_certificate(certificate).expect("a certificate").1;
    let at = |time: x509_parser::time::ASN1Time| f64::from(u32::try_from(time.timestamp()).expect("this century"));
    let (from, until) = (at(parsed.validity().not_before), at(parsed.validity().not_after));
    (now.as_secs_f64() - from) / (until - from)
}

/// A certificate that is only renewed when it ends has been shown old before; each that is shown here is young.
#[tokio::test(flavor = "multi_thread")]
async fn every_certificate_that_is_shown_is_renewed_at_two_thirds() {
    const LIFE: Duration = Duration::from_secs(15);
    // two thirds, a look at the calendar (a twentieth), whole seconds at both ends, and a loaded machine
    const OLDEST: f64 = 0.667 + 0.05 + 2.0 / 15.0;
    let hosts = Hosts::start(3, |config| config.mesh.certificate_life = LIFE).await;
    hosts.unite().await;
    // the port of the API is open while there is somebody to come in
    hosts.list[0].ok(&["user", "create", "ann", "--role", "observer"]);
    let cluster = hosts.list[0].answers().await.cluster;
    let since = Instant::now();
    let (mut shown, mut oldest) = (std::collections::BTreeSet::new(), 0.0_f64);
    while since.elapsed() < 2 * LIFE {
        for (n, host) in hosts.list.iter().enumerate() {
            let mut seen = Vec::new();
            for plane in Plane::ALL {
                // the server shows its certificate before it asks for ours
                let raw = Raw::new(None, plane.alpn(swarm_proto::PROTOCOL, realm(cluster)));
                if let Ok(connection) = raw.shake_hands(place(host, plane)).await {
                    seen.push(certificate_of(&connection).to_vec());
                }
            }
            let trust = Trust::Roots(hosts.list[0].client().authorities().await.map(|_| roots_of(host)).expect("authorities"));
            let session = connect(&format!("{}:4749", host.ip), &trust, None).await.expect("the API's port");
            seen.push(session.stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec());
            assert!(seen.len() >= 3, "only {} ends of {} were seen", seen.len(), host.ip);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            for certificate in seen {
                let age = age(&certificate, now);
                assert!(age < OLDEST, "host{} shows a certificate of which {:.0} % is over", n + 1, age * 100.0);
                oldest = oldest.max(age);
                shown.insert((n, certificate));
            }
        }
        Host::pause(Duration::from_millis(200)).await;
    }
    // nor too early: that would be a renewal at every look
    assert!(oldest > 0.6, "renewed at {:.0} %", oldest * 100.0);
    for n in 0..3 {
        let count = shown.iter().filter(|(of, _)| *of == n).count();
        assert!((3..=5).contains(&count), "host{} showed {count} certificates in two lives", n + 1);
    }
}

/// The authorities that a node believes.
fn roots_of(host: &Host) -> Vec<Vec<u8>> {
    let pem = std::fs::read(host.state.join("ca.crt")).expect("the authorities");
    x509_parser::pem::Pem::iter_from_buffer(&pem).map(|pem| pem.expect("PEM").contents).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_without_its_log_is_another_node_and_no_vote() {
    returns_as_another(1, &["log"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_without_its_log_and_memory_is_another_node_and_no_vote() {
    returns_as_another(1, &["log", "records"]).await;
}

/// It made the swarm once; it must not make it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_founder_without_its_log_founds_nothing() {
    returns_as_another(0, &["log", "records"]).await;
}

/// A voter that lost its log is not the voter it was: of three, one that sleeps and one that is not who it was leave one, and one
/// decides nothing.
async fn returns_as_another(loses: usize, wiped: &[&str]) {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let voters = async |host: &Host| host.client().leader().await.ok().map(|leader| leader.voters);
    eventually("all three vote", async || voters(&hosts.list[0]).await.filter(|voters| voters.len() == 3)).await;
    // somebody else leads
    let at = |name: &str| usize::from(name.as_bytes()[4] - b'1');
    let leads = eventually("another one leads", async || {
        let leads = at(&hosts.list[0].client().leader().await.ok()?.name);
        if leads == loses {
            let _ = hosts.list[leads].client().resign().await;
        }
        (leads != loses).then_some(leads)
    })
    .await;
    let sleeps = 3 - leads - loses;
    let before = hosts.list[loses].answers().await;
    assert!(before.is_voter);
    let before = before.node.expect("an id");
    hosts.list[loses].kill();
    for name in wiped {
        std::fs::remove_dir_all(hosts.list[loses].state.join(name)).expect("removed");
    }
    hosts.knows_all(loses);
    let lone = hosts.list[leads].client();
    let done = eventually("two of three decide", async || lone.submit(&shell("true")).await.ok()).await.job;
    ended(&lone, done).await;
    rustix::process::kill_process(hosts.list[sleeps].pid(), rustix::process::Signal::STOP).expect("stopped");
    hosts.list[loses].run();
    hosts.list[loses].answers().await;
    let asked = tokio::time::timeout(Duration::from_secs(12), lone.submit(&shell("true"))).await;
    assert!(!matches!(asked, Ok(Ok(_))), "{asked:?} by one voter and one that has lost its log");
    let status = hosts.list[loses].answers().await;
    assert!(!status.is_voter && status.phase != Phase::Ready && status.node != Some(before), "{status:?}");
    rustix::process::kill_process(hosts.list[sleeps].pid(), rustix::process::Signal::CONT).expect("woken");
    // with a majority of those who still are who they were it comes back, as somebody new
    let after = eventually("it is a member again", async || {
        let status = hosts.list[loses].answers().await;
        (status.phase == Phase::Ready).then_some(status.node).flatten()
    })
    .await;
    assert!(after > before, "{after} after {before}");
    // both are named while one takes the place of the other
    let as_new = async || voters(&hosts.list[sleeps]).await.filter(|voters| voters.contains(&after) && !voters.contains(&before));
    let now = eventually("it votes in the place of who it was", as_new).await;
    assert_eq!(now.len(), 3, "{now:?}");
    let known = hosts.list[loses].client().job(done).await.expect("the job is known");
    assert!(known.ended.is_some());
    assert_eq!(hosts.list[loses].client().nodes().await.expect("nodes").len(), 3);
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

/// The roots of a kind, the one that issues first.
async fn roots(host: &Host, kind: Kind) -> Vec<RootId> {
    let list = host.client().authorities().await.expect("authorities");
    list.into_iter().filter(|root| root.kind == kind).map(|root| root.root).collect()
}

#[tokio::test]
async fn an_authority_that_is_forced_out_leaves_those_who_were_away_outside() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let old = roots(&hosts.list[0], Kind::Node).await;
    hosts.list[2].kill();
    hosts.list[0].ok(&["ca", "rotate"]);
    let both = roots(&hosts.list[0], Kind::Node).await;
    assert!(both.len() == 2 && both[1] == old[0], "{both:?}");
    // those that are there have renewed; the third is awaited, until somebody says that it is not
    eventually("two have renewed", async || {
        let list = hosts.list[0].client().authorities().await.ok()?;
        list.iter().any(|root| root.kind == Kind::Node && root.awaited.len() == 1).then_some(())
    })
    .await;
    let refused = hosts.list[1].refused(&["ca", "rotate"]);
    assert!(refused.0 == 1 && refused.1.contains("--force"), "{refused:?}");
    hosts.list[1].ok(&["ca", "rotate", "--force"]);
    assert_eq!(roots(&hosts.list[0], Kind::Node).await, both[..1]);
    hosts.list[2].run();
    hosts.list[2].answers().await;
    Host::pause(Duration::from_secs(5)).await;
    let nodes = hosts.list[0].client().nodes().await.expect("nodes");
    let third = nodes.iter().find(|node| node.name == "host3").expect("still a member");
    assert_ne!(third.health, swarm_proto::api::Health::Alive, "what the old authority says is believed no more");
    let status = hosts.list[2].answers().await;
    assert!(!status.peers.is_empty() && status.peers.iter().all(|peer| !peer.connected), "{:?}", status.peers);
    // the other two go on, restarted or not
    hosts.list[1].kill();
    hosts.list[1].run();
    hosts.list[1].ready().await;
    assert_eq!(hosts.list[1].ok(&["run", "--", "echo", "on"]), "on\n");
}

#[tokio::test]
async fn the_users_authority_is_replaced_when_nobody_is_logged_in_by_it() {
    let hosts = Hosts::start(2, |_| ()).await;
    hosts.unite().await;
    let a = &hosts.list[0];
    // nobody ever logged in: there is nothing to wait for
    let first = roots(a, Kind::User).await;
    a.ok(&["ca", "rotate", "--users"]);
    let second = eventually("the old one goes by itself", async || {
        let now = roots(a, Kind::User).await;
        (now.len() == 1 && now != first).then_some(now)
    })
    .await;
    assert_eq!(roots(a, Kind::Node).await.len(), 1, "the nodes' authority is another one");
    // somebody did: the old one is believed for as long as she is who she is
    let line = a.ok(&["user", "create", "ann", "--role", "observer"]);
    let ann = login(&hosts, &line, "laptop").await.expect("logged in");
    a.ok(&["ca", "rotate", "--users"]);
    let both = roots(a, Kind::User).await;
    assert!(both.len() == 2 && both[1] == second[0], "{both:?}");
    Host::pause(Duration::from_secs(4)).await;
    assert_eq!(roots(a, Kind::User).await, both);
    for host in &hosts.list {
        eventually("ann is known", async || ask(host, &ann, "GET /v1/status").await.contains("200").then_some(())).await;
    }
    let refused = a.refused(&["ca", "rotate", "--users"]);
    assert!(refused.0 == 1 && refused.1.contains("--force"), "{refused:?}");
    // she goes: nobody needs the old one
    a.ok(&["user", "revoke", "ann"]);
    eventually("the old one goes by itself", async || (roots(a, Kind::User).await == both[..1]).then_some(())).await;
    let line = a.ok(&["user", "create", "bob", "--role", "observer"]);
    let bob = login(&hosts, &line, "desktop").await.expect("logged in");
    for host in &hosts.list {
        eventually("bob is known", async || ask(host, &bob, "GET /v1/status").await.contains("200").then_some(())).await;
    }
    // by force nobody is waited for
    a.ok(&["ca", "rotate", "--users", "--force"]);
    let forced = roots(a, Kind::User).await;
    assert!(forced.len() == 1 && forced != both[..1], "{forced:?}");
    for host in &hosts.list {
        eventually("bob is a stranger", async || (!ask(host, &bob, "GET /v1/status").await.contains("200")).then_some(())).await;
    }
    let line = a.ok(&["user", "create", "bob", "--role", "observer"]);
    let again = login(&hosts, &line, "desktop").await.expect("logged in again");
    for host in &hosts.list {
        eventually("bob is back", async || ask(host, &again, "GET /v1/status").await.contains("200").then_some(())).await;
    }
}

/// What two daemons with one identity must say, both of them; the journal keeps it when the status has moved on.
async fn has_noticed(host: &Host) -> bool {
    let (status, events) = (host.answers().await, host.client().node_events(0).await.unwrap_or_default());
    let says = |text: &str| text.contains("another daemon");
    says(&status.trouble) || events.iter().any(|event| says(&event.text)) || says(&host.log())
}

/// A state directory that is copied and started elsewhere: both daemons notice, and the ledger keeps its word to everybody who was
/// answered before, meanwhile and after.
#[tokio::test(flavor = "multi_thread")]
async fn a_copied_state_directory_is_noticed_by_both_and_loses_nothing() {
    let mut hosts = Hosts::start(4, |_| ()).await;
    hosts.list[0].ok(&["mesh", "init", "--allow", "exec"]);
    let token = hosts.list[0].ok(&["token", "create", "--uses", "2"]);
    for host in &hosts.list[1..3] {
        host.ok(&["mesh", "join", token.trim(), "--allow", "exec"]);
    }
    hosts.whole(3).await;
    let client = hosts.list[0].client();
    eventually("three vote", async || client.leader().await.ok().filter(|leader| leader.voters.len() == 3)).await;
    let original = hosts.list[2].answers().await.node;
    let runs = hosts.dir().join("runs");
    let steady = tokio::spawn(steadily(client.clone(), runs.clone()));
    Host::pause(Duration::from_secs(1)).await;
    // the fourth host is given the third one's directory, as a backup of a running host would
    hosts.list[3].kill();
    copy_state(&hosts.list[2], &hosts.list[3]);
    hosts.list[3].run();
    hosts.list[3].answers().await;
    for n in [2, 3] {
        eventually("it notices", async || has_noticed(&hosts.list[n]).await.then_some(())).await;
    }
    Host::pause(Duration::from_secs(5)).await;
    let status = hosts.list[0].client().nodes().await.expect("nodes");
    assert_eq!(status.len(), 3, "{status:?}");
    // the copy goes, and the original is well again
    hosts.list[3].kill();
    eventually("the trouble is over", async || hosts.list[2].answers().await.trouble.is_empty().then_some(())).await;
    Host::pause(Duration::from_secs(1)).await;
    steady.abort();
    let accepted = steady.await.unwrap_or_else(|_| accepted_in(&runs));
    assert!(accepted.len() > 10, "{}", accepted.len());
    accounts(&hosts.list[0].client(), &accepted, &runs).await;
    assert_eq!(hosts.list[2].answers().await.node, original);
    assert_eq!(hosts.list[0].ok(&["run", "--", "echo", "intact"]), "intact\n");
}

/// The same on the very host of the original, at other ports: the place says nothing, and both notice all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_on_the_same_host_is_noticed_too() {
    let mut hosts = Hosts::start(3, |_| ()).await;
    hosts.unite().await;
    let (from, dir) = (&hosts.list[2], hosts.dir().to_path_buf());
    let (state, socket, config) = (dir.join("copy"), dir.join("copy.sock"), dir.join("copy.toml"));
    let copied = std::process::Command::new("cp").arg("-a").arg(&from.state).arg(&state).status().expect("cp");
    assert!(copied.success());
    let text = std::fs::read_to_string(&from.config).expect("a config");
    let text = text
        .replace(&from.state.display().to_string(), &state.display().to_string())
        .replace(&from.socket.display().to_string(), &socket.display().to_string())
        .replace("control_port = 4747", "control_port = 5747")
        .replace("bulk_port = 4748", "bulk_port = 5748")
        .replace("port = 4749", "port = 5749");
    std::fs::write(&config, text).expect("written");
    let copy = &mut hosts.list[2];
    // a host of its own in the test's books, so that its daemon ends with it
    let mut copy = copy.sibling(config, socket, state);
    copy.run();
    copy.answers().await;
    for host in [&copy, &hosts.list[2]] {
        eventually("it notices", async || has_noticed(host).await.then_some(())).await;
    }
    assert_eq!(hosts.list[0].ok(&["run", "--", "echo", "intact"]), "intact\n");
    assert_eq!(hosts.list[0].client().nodes().await.expect("nodes").len(), 3);
    copy.kill();
    eventually("the trouble is over", async || hosts.list[2].answers().await.trouble.is_empty().then_some(())).await;
    hosts.whole(3).await;
}

fn copy_state(from: &Host, to: &Host) {
    std::fs::remove_dir_all(&to.state).expect("removed");
    let copied = std::process::Command::new("cp").arg("-a").arg(&from.state).arg(&to.state).status().expect("cp");
    assert!(copied.success());
}

/// Submits without end, each with a key of its own, and writes down what was acknowledged.
async fn steadily(client: swarm_client::Client, runs: std::path::PathBuf) -> Vec<JobId> {
    std::fs::create_dir_all(&runs).expect("made");
    let mut n = 0_u32;
    loop {
        n += 1;
        // each run of a task leaves a mark of its own
        let mark = runs.join(format!("{n}.$$"));
        let request = SubmitRequest { key: Some(format!("steady-{n}")), ..shell(&format!("touch {}", mark.display())) };
        if let Ok(accepted) = client.submit(&request).await {
            let line = format!("{} {n}\n", accepted.job);
            let mut book = std::fs::File::options().create(true).append(true).open(runs.join("accepted")).expect("the book");
            std::io::Write::write_all(&mut book, line.as_bytes()).expect("written");
        }
        Host::pause(Duration::from_millis(50)).await;
    }
}

fn accepted_in(runs: &std::path::Path) -> Vec<JobId> {
    let book = std::fs::read_to_string(runs.join("accepted")).expect("the book");
    book.lines().map(|line| line.split(' ').next().expect("a job").parse().expect("a job id")).collect()
}

/// Everything that was acknowledged has ended well, once in the ledger, and has really run.
async fn accounts(client: &swarm_client::Client, accepted: &[JobId], runs: &std::path::Path) {
    let book = std::fs::read_to_string(runs.join("accepted")).expect("the book");
    assert_eq!(accepted.iter().collect::<std::collections::BTreeSet<_>>().len(), accepted.len(), "a job was accepted twice");
    let entries = || book.lines().map(|line| line.split_once(' ').expect("two words"));
    for (job, _) in entries() {
        let view = ended(client, job.parse().expect("a job id")).await;
        assert_eq!((view.counts.succeeded, view.counts.failed + view.counts.lost), (1, 0), "{job}: {view:?}");
    }
    // the last of them may have run while the first were looked at
    let marks: Vec<String> =
        std::fs::read_dir(runs).expect("marks").map(|mark| mark.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    for (job, n) in entries() {
        assert!(marks.iter().any(|mark| mark.starts_with(&format!("{n}."))), "{job} never ran");
    }
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
