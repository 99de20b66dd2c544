//! A daemon that is spoken to from elsewhere: by a login, by a token; what is set for the whole swarm; work that must be signed.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use swarm_client::{Client, Credentials, Place, Remote};
use swarm_proto::{
    UnixMillis,
    api::{SignedRequest, SubmitRequest, Text},
    signed::message,
};
use swarm_tests::{Host, Hosts, eventually, program};
use swarm_transport::machine_clock;

/// `swarmctl` as on a machine without a daemon, with a home of its own.
fn from(home: &Path, token: Option<&str>, args: &[&str]) -> Output {
    let mut ctl = std::process::Command::new(program("swarmctl"));
    ctl.args(args).env("XDG_CONFIG_HOME", home).env_remove("SWARM_SOCKET").env_remove("SWARM_NODE").env_remove("SWARM_TOKEN");
    if let Some(token) = token {
        ctl.env("SWARM_TOKEN", token);
    }
    ctl.output().expect("swarmctl starts")
}

/// Where `from` keeps the logins of `home`.
fn credentials(home: &Path) -> PathBuf {
    home.join("swarm")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Makes a user, and logs in from `home`; goes on when the node that is asked knows them.
async fn user(host: &Host, home: &Path, name: &str, role: &str) {
    let line = host.ok(&["user", "create", name, "--role", role]);
    let login = from(home, None, &["login", line.trim()]);
    assert!(login.status.success(), "{}", said(&login));
    let node = host.ip.to_string();
    eventually("the node knows the user", async || from(home, None, &["--node", &node, "status"]).status.success().then_some(())).await;
}

#[tokio::test]
async fn a_login_speaks_to_any_node_and_may_what_its_role_may() {
    let hosts = Hosts::start(2, |_| ()).await;
    hosts.unite().await;
    let (a, b) = (&hosts.list[0], &hosts.list[1]);
    let (ann, bob) = (hosts.dir().join("ann"), hosts.dir().join("bob"));
    user(a, &ann, "ann", "submitter").await;
    user(b, &bob, "bob", "submitter").await;
    for host in [a, b] {
        let node = format!("{}:4749", host.ip);
        let ran = from(&ann, None, &["--node", &node, "run", "--", "echo", "from afar"]);
        assert_eq!(said(&ran), "from afar\n");
    }
    let node = b.ip.to_string();
    let accepted = from(&ann, None, &["--node", &node, "submit", "--", "sleep", "600"]);
    let job = String::from_utf8_lossy(&accepted.stdout).trim().to_owned();
    assert!(accepted.status.success() && job.starts_with('j'), "{}", said(&accepted));
    let denied = from(&bob, None, &["--node", &node, "job", "cancel", &job]);
    assert!(denied.status.code() == Some(4) && said(&denied).contains("is ann's"), "{}", said(&denied));
    let denied = from(&ann, None, &["--node", &node, "node", "drain", "host1"]);
    assert!(denied.status.code() == Some(4) && said(&denied).contains("needs an operator"), "{}", said(&denied));
    assert!(from(&ann, None, &["--node", &node, "job", "cancel", &job]).status.success());
    let nobody = from(&hosts.dir().join("nobody"), None, &["--node", &node, "status"]);
    assert!(nobody.status.code() == Some(4) && said(&nobody).contains("swarmctl login LINE"), "{}", said(&nobody));

    // a token for programs: less than its user, and gone with one word
    let token = a.ok(&["user", "token", "ann", "--role", "observer"]);
    let token = token.trim();
    let nowhere = hosts.dir().join("nobody");
    eventually("the node knows the token", async || {
        from(&nowhere, Some(token), &["--node", &node, "status"]).status.success().then_some(())
    })
    .await;
    assert_eq!(from(&nowhere, Some(token), &["--node", &node, "run", "--", "true"]).status.code(), Some(125));
    let denied = from(&nowhere, Some(token), &["--node", &node, "submit", "--", "true"]);
    assert!(said(&denied).contains("'ann' is an observer"), "{}", said(&denied));
    assert!(!a.refused(&["user", "token", "ann", "--role", "admin"]).1.is_empty());
    let list = a.ok(&["token", "list", "-o", "json"]);
    // used-up lines are listed for a while too
    for id in list.split("\"token\": \"").skip(1).filter_map(|rest| rest.split('"').next()) {
        a.ctl(&["token", "revoke", id]);
    }
    eventually("the token is nothing", async || {
        (!from(&nowhere, Some(token), &["--node", &node, "status"]).status.success()).then_some(())
    })
    .await;

    a.ok(&["user", "revoke", "ann"]);
    eventually("ann is nobody", async || (from(&ann, None, &["--node", &node, "status"]).status.code() == Some(4)).then_some(())).await;
}

#[tokio::test]
async fn what_is_set_for_the_swarm_reaches_every_node() {
    let hosts = Hosts::start(2, |_| ()).await;
    hosts.unite().await;
    let [a, b] = &hosts.list[..] else { panic!("two") };
    b.ok(&["config", "set", "log.level", "debug"]);
    for host in [a, b] {
        let heard = async || {
            let events = host.client().node_events(0).await.ok()?;
            events.iter().any(|event| event.text.contains("what is logged follows the swarm's setting")).then_some(())
        };
        eventually("the node logs as the swarm says", heard).await;
        assert!(host.ok(&["config", "show", "-o", "json"]).contains("\"debug\""));
    }
    let preset = a.ctl(&["config", "set", "mesh.preset", "wan"]);
    assert!(preset.status.success() && said(&preset).contains("next start") && said(&preset).contains("restart them"), "{}", said(&preset));
    for (args, code) in [(["config", "set", "log.level", "loud"], 2), (["config", "set", "node.name", "x"], 3)] {
        assert_eq!(a.refused(&args).0, code, "{args:?}");
    }
    a.ok(&["config", "set", "log.level", "--default"]);
    assert!(!a.ok(&["config", "show", "-o", "json"]).contains("\"debug\""));
}

#[tokio::test]
async fn a_node_that_demands_signatures_runs_nothing_else_and_nothing_twice() {
    let exec = mesh_config::Exec { enabled: true, sandbox: Some(mesh_config::Sandbox::None), require_signed: true, ..Default::default() };
    let hosts = Hosts::start(1, |config| config.exec = exec.clone()).await;
    hosts.unite().await;
    let host = &hosts.list[0];
    let home = hosts.dir().join("ann");
    user(host, &home, "ann", "submitter").await;
    let node = host.ip.to_string();
    let signed = from(&home, None, &["--node", &node, "run", "--sign", "--", "echo", "my word"]);
    assert_eq!(said(&signed), "my word\n");
    let items = from(&home, None, &["--node", &node, "submit", "--sign", "--wait", "--array", "3-5", "--", "echo", "{}"]);
    assert!(items.status.success(), "{}", said(&items));
    let unsigned = host.ok(&["submit", "--", "echo", "nobody's word"]);
    let explained = host.ok(&["task", "explain", unsigned.trim()]);
    assert!(explained.contains("exec"), "{explained}");
    assert_eq!(host.client().job(unsigned.trim().parse().expect("a job id")).await.expect("known").counts.pending, 1);
    let nobody = host.refused(&["submit", "--sign", "--", "true"]);
    assert!(nobody.1.contains("not logged in"), "{nobody:?}");
    // what was signed once runs once: the same bytes again, whoever brings them, are the job that they were
    let bob = hosts.dir().join("bob");
    user(host, &bob, "bob", "submitter").await;
    let login = Credentials::all(&credentials(&home)).expect("readable").remove(0);
    let mark = hosts.dir().join("mark");
    let argv = ["sh", "-c", &format!("echo once >> {}; exit 3", mark.display())].map(String::from).to_vec();
    let mut request = SubmitRequest { id: "1".into(), argv, key: Some("k1".into()), ..SubmitRequest::default() };
    request.labels.insert("os".into(), std::env::consts::OS.into());
    let (spec, array) = request.clone().into_job(std::env::consts::OS).expect("a job");
    let not_after = UnixMillis(machine_clock()().0 + 60_000);
    let (by, signature) = login.sign(&message(&login.cluster, &spec, "k1", &array, not_after)).expect("signed");
    let (Text::Base64(signature) | Text::Utf8(signature)) = Text::base64(&signature);
    request.signed = Some(SignedRequest { by, not_after, signature });
    let mut jobs = Vec::new();
    for home in [&home, &home, &bob] {
        let client = Client::at(Place::Mesh(Box::new(Remote::find(&node, None, Some(&credentials(home))).expect("a login"))));
        let accepted = client.submit(&request).await.expect("accepted");
        jobs.push((accepted.job, accepted.is_new));
    }
    let job = jobs[0].0;
    assert_eq!(jobs, [(job, true), (job, false), (job, false)]);
    host.client().wait_job(job, Duration::from_secs(20)).await.expect("it ends");
    assert_eq!(std::fs::read_to_string(&mark).expect("it ran"), "once\n");
    let (code, why) = host.refused(&["job", "retry", &job.to_string()]);
    assert!(code != 0 && why.contains("a signature is for one job"), "{code} {why}");
    assert_eq!(std::fs::read_to_string(&mark).expect("it ran"), "once\n");
}
