//! Configurations that cannot be used, each alone: said at once, by key and line, with what is wanted.

use std::{
    path::Path,
    process::{Command, Output},
};

use swarm_tests::program;

/// One mistake: where it stands, and what is said about it.
struct Bad {
    text: String,
    /// The key that is named.
    key: &'static str,
    /// The line that is named; 0: what is missing has none.
    line: usize,
    /// A part of what is wanted.
    wanted: &'static str,
}

fn bad(text: impl Into<String>, key: &'static str, line: usize, wanted: &'static str) -> Bad {
    Bad { text: text.into(), key, line, wanted }
}

fn names() -> Vec<Bad> {
    let labels: String = (0..63).map(|n| format!("l{n} = 'x'\n")).collect();
    vec![
        bad("[node]\nnmae = 'a'", "node.nmae", 2, "name"),
        bad("[node]\nname = ''", "node.name", 2, "1 to 63 letters"),
        bad("[node]\nname = 'pi 4'", "node.name", 2, "1 to 63 letters"),
        bad("[node]\nname = 'n3'", "node.name", 2, "node-3"),
        bad(format!("[node]\nname = '{}'", "a".repeat(64)), "node.name", 2, "1 to 63 letters"),
        bad("[node]\nname = 4", "node.name", 2, "a string is wanted"),
        bad("[node]\nstate_dir = 'state'", "node.state_dir", 2, "absolute path"),
        bad("[node]\nstate_dir = ''", "node.state_dir", 2, "absolute path"),
        bad("[node]\nvoter = 'always'", "node.voter", 2, "\"auto\" or \"never\""),
        bad("[node]\nvoter = false", "node.voter", 2, "\"auto\" or \"never\""),
        bad("[node]\nlabels = 'zone=a'", "node.labels", 2, "is wanted"),
        bad("[node]\nlabels = { os = 'linux' }", "node.labels", 2, "by itself"),
        bad("[node.labels]\n'a b' = 'c'", "node.labels", 1, "1 to 63 letters"),
        bad(format!("[node.labels]\n{labels}"), "node.labels", 1, "at most 62"),
        bad("[node]\nzone = 'attic'", "node.zone", 2, "[node.labels]"),
    ]
}

fn meshes() -> Vec<Bad> {
    vec![
        bad("[mesh]\nadress = '10.0.0.1'", "mesh.adress", 2, "address"),
        bad("[mesh]\naddress = '0.0.0.0'", "mesh.address", 2, "this host's address on the mesh"),
        bad("[mesh]\naddress = '::'", "mesh.address", 2, "this host's address on the mesh"),
        bad("[mesh]\naddress = '224.0.0.1'", "mesh.address", 2, "this host's address on the mesh"),
        bad("[mesh]\naddress = '255.255.255.255'", "mesh.address", 2, "this host's address on the mesh"),
        bad("[mesh]\naddress = 'fe80::1'", "mesh.address", 2, "this host's address on the mesh"),
        bad("[mesh]\naddress = '127.0.0.1'", "mesh.address", 2, "kind = \"address\""),
        bad("[mesh]\naddress = '100.64.0.300'", "mesh.address", 2, "IP address"),
        bad("[mesh]\naddress = 'pi4'", "mesh.address", 2, "IP address"),
        bad("[mesh]\naddress = '100.64.0.1:4747'", "mesh.address", 2, "IP address"),
        bad("[mesh]\nkind = 'zerotier'", "mesh.kind", 2, "\"tailscale\", \"wireguard\", \"interface\" or \"address\""),
        bad("[mesh]\nkind = 'address'", "mesh.kind", 2, "address = \"100.64.0.1\" beside it"),
        bad("[mesh]\nkind = 'interface'", "mesh.kind", 2, "interface = \"zt0\" beside it"),
        bad("[mesh]\ninterface = 'a/b'", "mesh.interface", 2, "such as wg0"),
        bad("[mesh]\ninterface = ''", "mesh.interface", 2, "such as wg0"),
        bad("[mesh]\nkind = 'address'\naddress = '10.0.0.1'\ninterface = 'wg0'", "mesh.interface", 4, "leave one of them out"),
        bad("[mesh]\ncontrol_port = 0", "mesh.control_port", 2, "1 to 65535"),
        bad("[mesh]\ncontrol_port = 65536", "mesh.control_port", 2, "1 to 65535"),
        bad("[mesh]\ncontrol_port = '4747'", "mesh.control_port", 2, "is wanted"),
        bad("[mesh]\nbulk_port = -1", "mesh.bulk_port", 2, "1 to 65535"),
        bad("[mesh]\nbulk_port = 4747", "mesh.bulk_port", 2, "bulk_port = 4748"),
        bad("[mesh]\ncontrol_port = 4748", "mesh.control_port", 2, "control_port = 4747"),
        bad("[mesh]\npeers = '100.64.0.1'", "mesh.peers", 2, "is wanted"),
        bad("[mesh]\npeers = [\n  '100.64.0.1',\n  '100.64.0.300',\n]", "mesh.peers", 2, "neither a name nor an address"),
        bad("[mesh]\npeers = ['http://pi4']", "mesh.peers", 2, "ends with no port"),
        bad("[mesh]\npeers = ['pi4:0']", "mesh.peers", 2, "nowhere to dial"),
        bad("[mesh]\nseeds = ['pi4']", "mesh.seeds", 2, "peers"),
        bad("[mesh]\ntag = 'swarm'", "mesh.tag", 2, "tag:swarm"),
        bad("[mesh]\nkind = 'wireguard'\ntag = 'tag:swarm'", "mesh.tag", 3, "only a tailnet has tags"),
        bad("[mesh]\npreset = 'fast'", "mesh.preset", 2, "\"lan\" or \"wan\""),
        bad("[mesh]\ntailscale_socket = 'tailscaled.sock'", "mesh.tailscale_socket", 2, "absolute path"),
        bad("[mesh]\ncertificate_life = '5s'", "mesh.certificate_life", 2, "between 10s and a year"),
        bad("[mesh]\ncertificate_life = '400d'", "mesh.certificate_life", 2, "between 10s and a year"),
        bad("[mesh]\ncertificate_life = 24", "mesh.certificate_life", 2, "is wanted"),
        bad("[mesh]\ncertificate_life = 'a day'", "mesh.certificate_life", 2, "24h"),
    ]
}

fn others() -> Vec<Bad> {
    let named: String = (0..65).map(|n| format!("r{n} = 1\n")).collect();
    vec![
        bad("[exec]\nenabled = 'yes'", "exec.enabled", 2, "true or false is wanted"),
        bad("[exec]\nenabled = true", "exec.enabled", 2, "sandbox = \"none\" beside it"),
        bad("[exec]\nsandbox = 'jail'", "exec.sandbox", 2, "\"none\""),
        bad("[exec]\nuser = 'root'", "exec.user", 2, "swarm-task"),
        bad("[exec]\nuser = '0'", "exec.user", 2, "swarm-task"),
        bad("[exec]\nuser = 1000", "exec.user", 2, "a string is wanted"),
        bad("[exec]\nrequire_signed = 1", "exec.require_signed", 2, "true or false is wanted"),
        bad("[resources]\ncores = -1", "resources.cores", 2, "cores above 0"),
        bad("[resources]\ncores = 'all'", "resources.cores", 2, "is wanted"),
        bad("[resources]\nmemory = '8 XiB'", "resources.memory", 2, "KiB, MiB, GiB"),
        bad("[resources]\nmemory = -8", "resources.memory", 2, "begin with a number"),
        bad("[resources]\ndisk = 'much'", "resources.disk", 2, "begin with a number"),
        bad("[resources]\ngpus = 1.5", "resources.gpus", 2, "a whole number from 0 on is wanted"),
        bad("[resources]\nnamed = { license = -1 }", "resources.named", 2, "a whole number from 0 on"),
        bad(format!("[resources.named]\n{named}"), "resources.named", 1, "at most"),
        bad("[api]\nsocket = 'swarmd.sock'", "api.socket", 2, "absolute path"),
        bad(format!("[api]\nsocket = '/{}'", "s".repeat(108)), "api.socket", 2, "107"),
        bad("[api]\nport = 0", "api.port", 2, "1 to 65535"),
        bad("[api]\ngroup = 'a b'", "api.group", 2, "group = \"swarm\""),
        bad("[api]\ngroup_role = 'root'", "api.group_role", 2, "\"observer\", \"submitter\", \"operator\" or \"admin\""),
        bad("[log]\nlevel = 'loud'", "log.level", 2, "off, error, warn, info, debug, trace"),
        bad("[log]\nformat = 'xml'", "log.format", 2, "\"text\" or \"json\""),
        bad("[exce]\nenabled = true", "exce", 1, "[exec]"),
        bad("name = 'a'", "name", 1, "[node]"),
        bad("node = 'a'", "node", 1, "[node]"),
        bad("[mesh", "", 1, "expected `]`"),
        bad("[node]\nname = 'a'\nname = 'b'", "", 3, "duplicate key"),
    ]
}

/// One of our programs, with nothing of this environment but where it counts what it ran.
fn alone(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
    command
}

fn check(path: &Path) -> Output {
    alone("swarmctl").args(["config", "check"]).arg(path).output().expect("swarmctl starts")
}

/// What is wrong with an answer about one mistake, if anything is.
fn complaint(bad: &Bad, output: &Output, path: &Path) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let place = format!("{}:{}: ", path.display(), bad.line);
    let about = if bad.key.is_empty() { place.clone() } else { format!("{place}{}: ", bad.key) };
    let wrong = if output.status.code() != Some(2) {
        format!("exit code {:?}", output.status.code())
    } else if !said.starts_with("error: ") {
        "no error is named".into()
    } else if !said.contains(&about) {
        format!("not about '{about}'")
    } else if !said.contains(bad.wanted) {
        format!("does not say '{}'", bad.wanted)
    } else if said.contains("faults") {
        "more than one fault".into()
    } else if !output.stdout.is_empty() {
        "something on stdout, which is for data".into()
    } else {
        return None;
    };
    Some(format!("{wrong}\n{}\n{said}", bad.text))
}

#[test]
fn every_mistake_alone_is_named_with_its_line_and_what_is_wanted() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("swarmd.toml");
    let all: Vec<Bad> = names().into_iter().chain(meshes()).chain(others()).collect();
    assert!(all.len() >= 40, "{}", all.len());
    let mut wrong = Vec::new();
    for bad in &all {
        std::fs::write(&path, &bad.text).expect("written");
        wrong.extend(complaint(bad, &check(&path), &path));
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    // and what has no mistake has none
    std::fs::write(&path, "[node]\nname = 'pi4'\n[mesh]\nkind = 'address'\naddress = '127.0.0.9'\n").expect("written");
    assert_eq!(check(&path).status.code(), Some(0));
}

/// The daemon itself starts with none of them, and leaves nothing behind.
#[test]
fn the_daemon_refuses_them_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("swarmd.toml");
    let all: Vec<Bad> = names().into_iter().chain(meshes()).chain(others()).collect();
    let mut wrong = Vec::new();
    for bad in all.iter().step_by(7) {
        std::fs::write(&path, &bad.text).expect("written");
        let output = alone("swarmd").args(["run", "--config"]).arg(&path).output().expect("swarmd starts");
        wrong.extend(complaint(bad, &output, &path));
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("nowhere.toml");
    let rubbish = dir.path().join("rubbish.toml");
    std::fs::write(&rubbish, [0xff, 0xfe, 0x00]).expect("written");
    for path in [&missing, &rubbish, &dir.path().to_path_buf()] {
        let output = check(path);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&path.display().to_string()), "{said}");
    }
}
