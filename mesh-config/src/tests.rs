use std::{net::Ipv4Addr, path::PathBuf};

use insta::assert_snapshot;
use proptest::prelude::*;

use super::*;

fn env(vars: &[(&str, &str)]) -> Env {
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Env { vars, host_name: Some("pi4".into()) }
}

fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    Config::parse(Path::new("swarmd.toml"), text, &env(&[]))
}

fn faults(text: &str, vars: &[(&str, &str)]) -> String {
    let faults = Config::parse(Path::new("swarmd.toml"), text, &env(vars)).expect_err("it has faults");
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

#[test]
fn an_address_is_enough() {
    let config = parse("[mesh]\naddress = '100.64.0.7'").unwrap();
    assert_eq!(config.control_addr(), "100.64.0.7:4747".parse().unwrap());
    assert_eq!(config.bulk_addr(), "100.64.0.7:4748".parse().unwrap());
    assert_eq!((config.node.name.as_str(), config.node.voter), ("pi4", Voter::Auto));
    assert_eq!((config.node.state_dir, config.api.socket), (PathBuf::from(STATE_DIR), PathBuf::from(SOCKET)));
    assert!(!config.exec.enabled);
    assert_eq!(config.resources, Resources::default());
}

const FULL: &str = r#"
[node]
name = "gpu-box"
state_dir = "/srv/swarm"
voter = "never"
labels = { zone = "attic", gpu = "3090" }

[mesh]
address = "fd7a::7"
control_port = 5000
bulk_port = 5001
seeds = ["100.64.0.1:4747", "[fd7a::1]:4747"]
preset = "wan"

[exec]
enabled = true
sandbox = "none"

[resources]
cores = 3.5
memory = "8GiB"
disk = 1_000
gpus = 2
named = { license = 4 }

[api]
socket = "/run/user/1000/swarmd.sock"

[log]
level = "info,quinn=warn"
format = "json"
"#;

#[test]
fn every_key_is_read_explained_and_written_back() {
    let config = parse(FULL).unwrap();
    assert!(config.explain().iter().all(|e| matches!(e.source, Source::File { .. })), "{:?}", config.explain());
    assert_eq!(config.zone(), Some("attic"));
    assert_eq!(config.resources.disk, Some(1000));
    let again = parse(&config.to_toml()).unwrap();
    assert_eq!(Config { sources: BTreeMap::new(), ..again }, Config { sources: BTreeMap::new(), ..config.clone() });
    for explained in config.explain() {
        let var = read::var_name(explained.key);
        let bad = Config::parse(Path::new("f"), FULL, &env(&[(&var, "\u{1}")]));
        let is_string = ["node.name", "log.level"].contains(&explained.key);
        assert!(bad.is_err() || is_string, "{var} is read");
    }
}

#[test]
fn a_written_default_reads_back() {
    let mut config = Config::new("n-1", Ipv4Addr::LOCALHOST.into());
    assert_eq!(parse(&config.to_toml()).unwrap().to_toml(), config.to_toml());
    config.exec = Exec { enabled: true, sandbox: Some(Sandbox::None) };
    assert_snapshot!(config.to_toml(), @"");
}

#[test]
fn every_value_says_where_it_came_from() {
    let vars = [("SWARM_STATE_DIR", "/tmp/s"), ("SWARM_NODE_LABELS", "zone=attic,ssd=yes"), ("SWARM_MESH_CONTROL_PORT", "5000")];
    let text = "[mesh]\naddress = '10.0.0.1'\ncontrol_port = 4000\n[resources]\nmemory = '512 MiB'";
    let config = Config::parse(Path::new("swarmd.toml"), text, &env(&vars)).unwrap();
    let lines: String = config.explain().iter().map(|e| format!("{} = {}  # {}\n", e.key, e.value, e.source)).collect();
    assert_snapshot!(lines, @"");
}

#[test]
fn every_fault_is_told_at_once() {
    let text = r#"
name = "top"
[node]
nmae = "x"
zone = "attic"
voter = "maybe"
state_dir = "relative"
labels = { os = "linux", "a b" = "c" }
[mesh]
adress = "10.0.0.1"
control_port = 0
bulk_port = 70000
seeds = ["10.0.0.2", "pi4:4747", 3]
preset = 5
[exec]
enabled = "yes"
[exce]
enabled = true
[resources]
cores = -1
memory = "8 XiB"
gpus = 1.5
socket = "/x"
[log]
level = "loud"
"#;
    assert_snapshot!(faults(text, &[("SWARM_MESH_PRESET", "man"), ("SWARM_MESH_ADRESS", "10.0.0.1"), ("SWARM_TASK_ID", "j1.0")]), @"");
}

#[test]
fn an_empty_file_names_what_is_missing() {
    assert_snapshot!(faults("", &[]), @"");
}

#[test]
fn all_networks_are_refused_with_the_way_out() {
    assert_snapshot!(faults("[mesh]\naddress = '0.0.0.0'", &[]), @"");
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'", &[("SWARM_MESH_ADDRESS", "::")]), @"");
    assert_snapshot!(faults("[mesh]\naddress = '224.0.0.1'", &[]), @"");
}

#[test]
fn ports_differ() {
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'\nbulk_port = 4747", &[]), @"");
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'\ncontrol_port = 4748", &[]), @"");
}

#[test]
fn exec_without_a_sandbox_has_to_be_written_out() {
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'\n[exec]\nenabled = true", &[]), @"");
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'\n[exec]\nenabled = true\nsandbox = 'jail'", &[]), @"");
}

#[test]
fn what_is_not_toml_hides_nothing_else() {
    assert_snapshot!(faults("[mesh\naddress = 10.0.0.1\n[node]\nnmae = 'x'", &[]), @"");
}

#[test]
fn a_name_is_no_id_and_fits() {
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'\n[node]\nname = 'n3'", &[]), @"");
    for (len, fits) in [(0, false), (1, true), (62, true), (63, true), (64, false)] {
        let text = format!("[mesh]\naddress = '10.0.0.1'\n[node]\nname = '{}'", "a".repeat(len));
        assert_eq!(parse(&text).is_ok(), fits, "{len}");
    }
    let nameless = Config::parse(Path::new("swarmd.toml"), "[mesh]\naddress = '10.0.0.1'", &Env::default()).unwrap_err();
    assert_snapshot!(nameless[0], @"");
}

#[test]
fn labels_and_socket_have_bounds() {
    for (count, fits) in [(61, true), (62, true), (63, false)] {
        let labels: String = (0..count).map(|i| format!("l{i} = 'x'\n")).collect();
        assert_eq!(parse(&format!("[mesh]\naddress = '10.0.0.1'\n[node.labels]\n{labels}")).is_ok(), fits, "{count}");
    }
    for (len, fits) in [(106, true), (107, true), (108, false)] {
        let text = format!("[mesh]\naddress = '10.0.0.1'\n[api]\nsocket = '/{}'", "s".repeat(len - 1));
        assert_eq!(parse(&text).is_ok(), fits, "{len}");
    }
}

#[test]
fn two_names_of_one_setting_agree() {
    let text = "[mesh]\naddress = '10.0.0.1'";
    assert_snapshot!(faults(text, &[("SWARM_SOCKET", "/a"), ("SWARM_API_SOCKET", "/b")]), @"");
    let config = Config::parse(Path::new("f"), text, &env(&[("SWARM_SOCKET", "/a"), ("SWARM_API_SOCKET", "/a")])).unwrap();
    assert_eq!(config.api.socket, PathBuf::from("/a"));
}

#[test]
fn a_file_that_is_not_there_is_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("swarmd.toml");
    let missing = Config::load(&path, &env(&[])).unwrap_err();
    assert!(missing[0].hint.contains("[mesh]"), "{missing:?}");
    std::fs::write(&path, FULL).unwrap();
    assert_eq!(Config::load(&path, &env(&[])).unwrap().node.name, "gpu-box");
}

#[test]
fn faults_become_one_problem() {
    let faults = parse("[mesh]\naddress = '0.0.0.0'\nbulk_port = 4747").unwrap_err();
    assert_snapshot!(problem(&faults), @"");
}

proptest! {
    #[test]
    fn any_text_is_a_config_or_faults(text in "(\\[(node|mesh|exec|log)\\]\n)?[a-z_]{0,8} ?= ?.{0,20}\n.{0,40}") {
        match parse(&text) {
            Ok(_) => {}
            Err(faults) => prop_assert!(!faults.is_empty()),
        }
    }

    #[test]
    fn any_environment_is_a_config_or_faults(value in ".{0,30}", key in 0..read::KEYS.len()) {
        let vars = [(read::var_name(read::KEYS[key]), value)];
        let vars = vars.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>();
        let _ = Config::parse(Path::new("f"), FULL, &env(&vars));
    }
}
