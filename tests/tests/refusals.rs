//! What a daemon is given that it cannot use: each is a clear error, and nothing is lost.

use std::process::Command;

use swarm_proto::{Code, ledger::TaskState};
use swarm_tests::{Rig, ctl, ended, program, shell, submit};

/// Runs `swarmd run` with a config and returns its exit code and what it said.
fn run(config: &std::path::Path) -> (Option<i32>, String) {
    let output = Command::new(program("swarmd")).args(["run", "--config"]).arg(config).output().expect("swarmd starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn config_of(rig: &Rig, name: &str) -> String {
    std::fs::read_to_string(rig.swarm.dir().join(format!("{name}.toml"))).expect("a config")
}

#[tokio::test]
async fn each_is_a_clear_error() {
    let rig = Rig::start(3).await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("swarmd.toml");
    let good = config_of(&rig, "dev1");
    let try_with = |text: &str| {
        std::fs::write(&path, text).expect("written");
        run(&path)
    };

    let (code, said) = try_with(&good);
    assert!(code != Some(0) && said.contains("another daemon uses the state directory"), "{said}");

    // a state directory of its own, with that node's identity: the ports are taken
    let own = dir.path().join("state");
    std::fs::create_dir(&own).expect("made");
    for file in ["cluster.toml", "node.key", "node.crt", "ca.crt"] {
        std::fs::copy(rig.swarm.dir().join("dev2").join(file), own.join(file)).expect("copied");
    }
    let state = rig.swarm.dir().join("dev1").display().to_string();
    let elsewhere = good.replace(&format!("\"{state}\""), &format!("\"{}\"", own.display())).replace("dev1.sock", "other.sock");
    let (code, said) = try_with(&elsewhere);
    assert!(code != Some(0) && said.contains("in use") && said.contains("try:"), "{said}");

    let (code, said) = try_with(&good.replace("state_dir", "state_dri"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("state_dri") && said.contains("state_dir"), "{said}");

    let file = dir.path().join("a-file");
    std::fs::write(&file, "").expect("written");
    let (code, said) = try_with(&good.replace(&format!("\"{state}\""), &format!("\"{}/below\"", file.display())));
    assert!(code != Some(0) && said.contains("cannot be used") && said.contains("try:"), "{said}");

    let address = rig.swarm.nodes()[0].control.ip().to_string();
    let (code, said) = try_with(&good.replace(&format!("\"{address}\""), "\"0.0.0.0\""));
    assert_eq!(code, Some(2), "{said}");

    // nothing was lost by all this
    let done = ctl(&rig.swarm.nodes()[0].socket, &["run", "--", "echo", "still here"]);
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stdout).as_ref()), (Some(0), "still here\n"));
    rig.swarm.stop().await;
}

#[tokio::test]
async fn a_request_that_no_entry_of_the_log_has_room_for_is_refused_and_holds_nobody_up() {
    let rig = Rig::start(3).await;
    let client = rig.client(1);
    let job = submit(&client, shell("exit 3")).await;
    assert_eq!(ended(&client, job).await.state, Some(TaskState::Failed));
    let problem = client.retry_job(job, Some(&"x".repeat(950_000))).await.expect_err("a key of 950,000 bytes");
    assert_eq!(problem.code, Code::BadRequest, "{problem}");
    // all that comes behind it
    assert_eq!(ended(&client, submit(&client, shell("true")).await).await.state, Some(TaskState::Succeeded));
    rig.swarm.stop().await;
}

#[tokio::test]
async fn a_node_of_another_swarm_is_not_let_in() {
    let (one, two) = (Rig::start(1).await, Rig::start(1).await);
    // the other swarm's identity and id at this swarm's door
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    std::fs::create_dir(&state).expect("made");
    for file in ["node.key", "node.crt", "ca.crt"] {
        std::fs::copy(two.swarm.dir().join("dev1").join(file), state.join(file)).expect("copied");
    }
    let cluster = std::fs::read_to_string(one.swarm.dir().join("dev1/cluster.toml")).expect("a cluster");
    let (_, cluster) = cluster.split_once('\n').expect("a line with its checksum");
    std::fs::write(state.join("cluster.toml"), cluster.replace("true", "false")).expect("written");
    let seed = one.swarm.nodes()[0].control;
    let text = format!(
        "[node]\nname = \"stranger\"\nstate_dir = \"{}\"\n[mesh]\nkind = \"address\"\naddress = \"127.0.0.9\"\ncontrol_port = {}\nbulk_port = {}\npeers = [\"{seed}\"]\n[api]\nsocket = \"{}\"\n",
        state.display(),
        seed.port(),
        seed.port() + 1,
        dir.path().join("s.sock").display()
    );
    let path = dir.path().join("swarmd.toml");
    std::fs::write(&path, text).expect("written");
    let mut child = Command::new(program("swarmd")).args(["run", "--end-with-parent", "--config"]).arg(&path).spawn().expect("starts");
    let client = swarm_client::Client::new(dir.path().join("s.sock"));
    let status = swarm_tests::eventually("the stranger answers", async || client.status().await.ok()).await;
    assert_eq!(status.node, None);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(client.status().await.expect("up").node, None, "a stranger was admitted");
    assert_eq!(one.client(0).nodes().await.expect("nodes").len(), 1);
    child.kill().expect("killed");
    child.wait().expect("gone");
    one.swarm.stop().await;
    two.swarm.stop().await;
}
