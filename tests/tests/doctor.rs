//! What a host says of itself: `doctor` at a real daemon and without one, and a clock that is days behind.

use std::{collections::BTreeMap, net::TcpListener, time::Duration};

use serde_json::Value;
use swarm_tests::{Host, Hosts, eventually};

/// All that has to be looked at while a daemon of a swarm is up.
const CHECKS: [&str; 14] = [
    "daemon",
    "leader",
    "versions",
    "clocks",
    "config",
    "clock",
    "time",
    "mesh",
    "ports",
    "space",
    "disk",
    "certificate",
    "peers",
    "firewall",
];

/// What was found by check: the worst level, and every line.
type Found = BTreeMap<String, Vec<(String, String, String)>>;

/// Runs `doctor` on a host; its lines, each with what to do unless all is well.
fn doctor(host: &Host) -> Found {
    let output = host.ctl(&["doctor", "--config", &host.config.display().to_string(), "-o", "json"]);
    let lines: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut found = Found::new();
    for line in &lines {
        let word = |key: &str| line[key].as_str().expect("text").to_owned();
        let (check, level, what, fix) = (word("check"), word("level"), word("what"), word("fix"));
        assert!(["ok", "warn", "fail"].contains(&level.as_str()), "{line}");
        assert!(!what.is_empty() && (level == "ok") == fix.is_empty(), "{line}");
        found.entry(check).or_default().push((level, what, fix));
    }
    let fails = found.values().flatten().any(|(level, ..)| level == "fail");
    assert_eq!(output.status.code(), Some(i32::from(fails)), "{found:?}");
    found
}

/// That one check has that level, and says this.
#[track_caller]
fn says(found: &Found, check: &str, level: &str, part: &str) {
    let lines = found.get(check).unwrap_or_else(|| panic!("no line about {check}: {found:?}"));
    let is_said = lines.iter().any(|(at, what, fix)| at == level && (what.contains(part) || fix.contains(part)));
    assert!(is_said, "{check} is not {level} with '{part}': {lines:?}");
}

#[tokio::test]
async fn doctor_looks_at_everything_and_has_a_way_out_of_each() {
    let mut hosts = Hosts::start(2, |_| ()).await;
    let fresh = doctor(&hosts.list[0]);
    says(&fresh, "daemon", "warn", "mesh init");
    says(&fresh, "certificate", "warn", "mesh join");
    hosts.unite().await;
    hosts.list[0].ok(&["user", "create", "ann", "--role", "observer"]);
    eventually("the API's port is open", async || tokio::net::TcpStream::connect((hosts.list[0].ip, 4749)).await.ok()).await;
    let well = doctor(&hosts.list[0]);
    for check in CHECKS {
        let lines = well.get(check).unwrap_or_else(|| panic!("nothing about {check}: {well:?}"));
        // what the machine under the test is like is not the swarm's to say
        let is_ours = !["disk", "space", "time", "firewall", "leader"].contains(&check);
        assert!(!is_ours || lines.iter().all(|(level, ..)| level == "ok"), "{check}: {lines:?}");
    }
    says(&well, "ports", "ok", "udp 4747 and 4748 and tcp 4749 are swarmd's");
    says(&well, "peers", "ok", "packets of");
    // for people the same lines, and no colours without a terminal
    let text = hosts.list[0].ok(&["doctor", "--config", &hosts.list[0].config.display().to_string()]);
    assert!(CHECKS.iter().all(|check| text.contains(check)) && !text.contains('\u{1b}'), "{text}");

    // a peer's daemon is killed: nobody listens where it was
    hosts.list[1].kill();
    let alone = doctor(&hosts.list[0]);
    says(&alone, "peers", "fail", "systemctl start swarmd");
    // its own daemon is down: what the host has is still looked at
    let down = doctor(&hosts.list[1]);
    says(&down, "daemon", "fail", "swarmd");
    says(&down, "ports", "ok", "udp 4747 and 4748 and tcp 4749 are free");
    says(&down, "certificate", "ok", "good for");
    // another program took a port, the API's among them
    for port in [4747, 4748, 4749] {
        let at = (hosts.list[1].ip, port);
        let taken = if port == 4749 {
            (Some(TcpListener::bind(at).expect("free")), None)
        } else {
            (None, Some(std::net::UdpSocket::bind(at).expect("free")))
        };
        let found = doctor(&hosts.list[1]);
        says(&found, "ports", "fail", &format!("sport = :{port}"));
        drop(taken);
    }
    // the certificate's file is damaged
    let path = hosts.list[1].state.join("node.crt");
    let kept = std::fs::read(&path).expect("a certificate");
    std::fs::write(&path, "rubbish").expect("written");
    says(&doctor(&hosts.list[1]), "certificate", "fail", "join again");
    std::fs::write(&path, kept).expect("written");
    // the config is
    let text = std::fs::read_to_string(&hosts.list[1].config).expect("a config");
    std::fs::write(&hosts.list[1].config, text.replace("control_port", "contro1_port")).expect("written");
    says(&doctor(&hosts.list[1]), "config", "fail", "swarmctl config check");
}

/// Days behind or ahead: in it comes, does its work, renews its certificate, and says that its clock is wrong.
#[tokio::test]
async fn a_host_whose_clock_is_days_behind_joins_works_and_says_so() {
    a_clock_that_is_off("-3d", 1.0, "behind").await;
}

#[tokio::test]
async fn a_host_whose_clock_is_days_ahead_joins_works_and_says_so() {
    a_clock_that_is_off("+3d", -1.0, "ahead of").await;
}

async fn a_clock_that_is_off(offset: &str, sign: f64, way: &str) {
    let mut hosts = Hosts::start(2, |config| {
        config.mesh.certificate_life = Duration::from_secs(20);
        config.node.labels.insert("host".into(), config.node.name.clone());
    })
    .await;
    hosts.list[1].kill();
    if !hosts.list[1].set_clock(offset) {
        return swarm_tests::skip("there is no libfaketime");
    }
    hosts.list[1].run();
    hosts.list[1].answers().await;
    hosts.unite().await;
    let is_off = async |host: &Host| {
        eventually("it knows that its clock is wrong", async || {
            #[expect(clippy::cast_precision_loss, reason = "a few days")]
            let days = host.answers().await.clock_ahead_ms as f64 / 86_400_000.0;
            (2.99..3.01).contains(&(sign * days)).then_some(())
        })
        .await;
    };
    let (a, b) = (&hosts.list[0], &hosts.list[1]);
    let status = b.ready().await;
    is_off(b).await;
    assert_eq!(a.answers().await.clock_ahead_ms, 0, "the other one is right");
    let text = b.ok(&["status"]);
    let said = format!("{way} the swarm");
    assert!(text.lines().any(|line| line.starts_with("clock:") && line.contains(&said)), "{text}");
    assert!(!a.ok(&["status"]).contains("clock:"));
    says(&doctor(b), "clocks", "warn", &said);
    let events = b.client().node_events(0).await.expect("its journal");
    assert!(events.iter().any(|event| event.text.contains(&said)), "{events:?}");
    // it works, asked there and asked elsewhere
    assert_eq!(b.ok(&["run", "--", "echo", "on time"]), "on time\n");
    assert_eq!(a.ok(&["run", "--label", "host=host2", "--", "echo", "there"]), "there\n");
    // and outlives its first certificate
    let first = status.certificate_ends.expect("a certificate");
    eventually("its certificate is another", async || (b.answers().await.certificate_ends > Some(first)).then_some(())).await;
    hosts.list[1].kill();
    hosts.list[1].run();
    hosts.list[1].ready().await;
    is_off(&hosts.list[1]).await;
    hosts.whole(2).await;
    // somebody sets it
    hosts.list[1].kill();
    hosts.list[1].env.clear();
    hosts.list[1].run();
    hosts.list[1].ready().await;
    hosts.whole(2).await;
    assert_eq!(hosts.list[1].answers().await.clock_ahead_ms, 0);
    assert!(!hosts.list[1].ok(&["status"]).contains("clock:"));
}
