use std::path::PathBuf;

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
fn nothing_is_enough() {
    let config = parse("").unwrap();
    assert_eq!((config.mesh.kind, config.mesh.wish()), (None, mesh_detect::Wish::default()));
    let addrs = config.mesh.addrs_at("100.64.0.7".parse().unwrap());
    assert_eq!((addrs.control, addrs.bulk), ("100.64.0.7:4747".parse().unwrap(), "100.64.0.7:4748".parse().unwrap()));
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
kind = "tailscale"
interface = "tailscale0"
address = "fd7a::7"
control_port = 5000
bulk_port = 5001
peers = ["100.64.0.1:4747", "[fd7a::1]:4747", "pi4", "pi5.lan:5000", "fd7a::3"]
tag = "tag:swarm"
preset = "lan"
tailscale_socket = "/srv/tailscaled.sock"
certificate_life = "36h"

[exec]
enabled = true
sandbox = "none"
user = "swarm-task"
require_signed = true
stdout_limit = "2GiB"

[resources]
cores = 3.5
memory = "8GiB"
disk = 1_000
gpus = 2
named = { license = 4 }

[blobs]
quota = "50GiB"
send_rate = "10MiB"
send_rate_per_node = "2MiB"
key_file = "/media/key/blobs.key"
scrub_every = "36h"

[api]
socket = "/run/user/1000/swarmd.sock"
group = "swarm"
group_role = "operator"
port = 5002

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
        let is_string = ["node.name", "log.level", "mesh.interface", "mesh.tag"].contains(&explained.key);
        assert!(bad.is_err() || is_string, "{var} is read");
    }
}

#[test]
fn a_written_default_reads_back() {
    let mut config = Config::new("n-1");
    config.mesh.kind = Some(Kind::Explicit);
    config.mesh.address = Some("127.0.0.1".parse().unwrap());
    assert_eq!(parse(&config.to_toml()).unwrap().to_toml(), config.to_toml());
    config.exec = Exec { enabled: true, sandbox: Some(Sandbox::None), user: Some("swarm-task".into()), ..Exec::default() };
    assert_snapshot!(config.to_toml(), @r#"
[api]
group_role = "submitter"
port = 4749
socket = "/run/swarmd/swarmd.sock"

[exec]
enabled = true
require_signed = false
sandbox = "none"
user = "swarm-task"

[log]
format = "text"
level = "info,openraft=warn"

[mesh]
address = "127.0.0.1"
bulk_port = 4748
certificate_life = "24h"
control_port = 4747
kind = "address"
peers = []
tailscale_socket = "/var/run/tailscale/tailscaled.sock"

[node]
name = "n-1"
state_dir = "/var/lib/swarmd"
voter = "auto"
"#);
}

#[test]
fn every_value_says_where_it_came_from() {
    let vars = [("SWARM_STATE_DIR", "/tmp/s"), ("SWARM_NODE_LABELS", "zone=attic,ssd=yes"), ("SWARM_MESH_CONTROL_PORT", "5000")];
    let text = "[mesh]\naddress = '10.0.0.1'\ncontrol_port = 4000\n[resources]\nmemory = '512 MiB'";
    let config = Config::parse(Path::new("swarmd.toml"), text, &env(&vars)).unwrap();
    let lines: String = config.explain().iter().map(|e| format!("{} = {}  # {}\n", e.key, e.value, e.source)).collect();
    assert_snapshot!(lines, @r#"
node.name = "pi4"  # default
node.state_dir = "/tmp/s"  # SWARM_STATE_DIR
node.labels = { ssd = "yes", zone = "attic" }  # SWARM_NODE_LABELS
node.voter = "auto"  # default
mesh.kind = "auto"  # default
mesh.interface = (found)  # default
mesh.address = "10.0.0.1"  # swarmd.toml:2
mesh.control_port = 5000  # SWARM_MESH_CONTROL_PORT
mesh.bulk_port = 4748  # default
mesh.peers = []  # default
mesh.tag = (none)  # default
mesh.preset = (wan on Tailscale, else lan)  # default
mesh.tailscale_socket = "/var/run/tailscale/tailscaled.sock"  # default
mesh.certificate_life = "24h"  # default
exec.enabled = false  # default
exec.sandbox = (none)  # default
exec.user = (none)  # default
exec.require_signed = false  # default
exec.stdout_limit = (1GiB)  # default
resources.cores = (measured)  # default
resources.memory = "512MiB"  # swarmd.toml:5
resources.disk = (measured)  # default
resources.gpus = (measured)  # default
resources.named = (none)  # default
blobs.quota = (a quarter of the disk)  # default
blobs.send_rate = (no bound)  # default
blobs.send_rate_per_node = (no bound)  # default
blobs.key_file = (blobs.key in state_dir)  # default
blobs.scrub_every = (168h)  # default
api.socket = "/run/swarmd/swarmd.sock"  # default
api.port = 4749  # default
api.group = (none)  # default
api.group_role = "submitter"  # default
log.level = "info,openraft=warn"  # default
log.format = "text"  # default
"#);
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
kind = "zerotier"
peers = ["10.0.0.300", "pi4:4747", 3]
seeds = []
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
[api]
group_role = "root"
[log]
level = "loud"
"#;
    assert_snapshot!(faults(text, &[("SWARM_MESH_PRESET", "man"), ("SWARM_MESH_ADRESS", "10.0.0.1"), ("SWARM_TASK_ID", "j1.0")]), @r#"
swarmd.toml:2: name: this key belongs into [node]
    try: [node] above it
swarmd.toml:4: node.nmae: there is no such key
    try: name
swarmd.toml:5: node.zone: there is no such key
    try: write it as a label: [node.labels], zone = ".."
swarmd.toml:6: node.voter: 'maybe' is not "auto" or "never"
swarmd.toml:7: node.state_dir: 'relative' is not an absolute path
swarmd.toml:8: node.labels: 'a b' is not 1 to 63 letters, digits, '.', '-', '_' or '/'
swarmd.toml:8: node.labels: every node has 'os' by itself
    try: another name for it
swarmd.toml:10: mesh.adress: there is no such key
    try: address
swarmd.toml:11: mesh.control_port: '0' is not a port (1 to 65535)
swarmd.toml:12: mesh.bulk_port: '70000' is not a port (1 to 65535)
swarmd.toml:13: mesh.kind: 'zerotier' is not "auto", "tailscale", "wireguard", "interface" or "address"
swarmd.toml:14: mesh.peers: '10.0.0.300' is neither a name nor an address, with or without ":port"
swarmd.toml:15: mesh.seeds: there is no such key
    try: peers
swarmd.toml:16: mesh.preset: an integer where "lan" or "wan" is wanted
swarmd.toml:18: exec.enabled: a string where true or false is wanted
swarmd.toml:19: exce: there is no such section
    try: [exec]
swarmd.toml:22: resources.cores: '-1' is not a number of cores above 0, such as 4 or 0.5
swarmd.toml:23: resources.memory: 'XiB' is no unit; they are B, KiB, MiB, GiB, TiB, kB, MB, GB, TB
swarmd.toml:24: resources.gpus: a float where a whole number from 0 on is wanted
swarmd.toml:25: resources.socket: there is no such key
    try: it belongs into [api]
swarmd.toml:27: api.group_role: 'root' is not "observer", "submitter", "operator" or "admin"
swarmd.toml:29: log.level: 'loud' is not a level (off, error, warn, info, debug, trace) or a list such as info,quinn=warn
SWARM_MESH_ADRESS: there is no such setting
    try: SWARM_MESH_ADDRESS
SWARM_MESH_PRESET: mesh.preset: 'man' is not "lan" or "wan"
"#);
}

#[test]
fn a_key_is_somewhere_for_sure() {
    assert_snapshot!(faults("[blobs]\nkey_file = 'blobs.key'", &[]), @r#"
swarmd.toml:2: blobs.key_file: 'blobs.key' is not an absolute path
"#);
    #[cfg(unix)]
    assert_eq!(parse("[blobs]\nkey_file = '/k'").unwrap().blobs.key_file, Some("/k".into()));
}

#[test]
fn a_look_at_all_blobs_takes_its_time() {
    assert_snapshot!(faults("[blobs]\nscrub_every = '100ms'", &[]), @r#"
swarmd.toml:2: blobs.scrub_every: 100ms is not between 1s and a year
    try: scrub_every = "168h"
"#);
    assert_eq!(parse("[blobs]\nscrub_every = '2s'").unwrap().blobs.scrub_every, Some(std::time::Duration::from_secs(2)));
}

#[test]
fn a_rate_that_looks_like_a_stall_is_refused() {
    assert_snapshot!(faults("[blobs]\nsend_rate = '63KiB'\nsend_rate_per_node = '1B'", &[]), @r#"
swarmd.toml:2: blobs.send_rate: a node that gives less than 64 KiB a second is taken for one that gives nothing
    try: send_rate = "1MiB"
swarmd.toml:3: blobs.send_rate_per_node: a node that gives less than 64 KiB a second is taken for one that gives nothing
    try: send_rate = "1MiB"
"#);
    let blobs = parse("[blobs]\nsend_rate = '64KiB'").unwrap().blobs;
    assert_eq!((blobs.send_rate, blobs.send_rate_per_node), (Some(65_536), None));
}

#[test]
fn the_preset_follows_the_kind_of_mesh() {
    let explained = |text: &str| {
        let line = parse(text).unwrap().explain().into_iter().find(|e| e.key == "mesh.preset").unwrap();
        format!("{}  # {}", line.value, line.source)
    };
    assert_eq!(explained("[mesh]\nkind = 'tailscale'"), "\"wan\"  # default for this mesh.kind");
    assert_eq!(explained("[mesh]\nkind = 'wireguard'"), "\"lan\"  # default for this mesh.kind");
    assert_eq!(explained("[mesh]\nkind = 'tailscale'\npreset = 'lan'"), "\"lan\"  # swarmd.toml:3");
    let mesh = parse("").unwrap().mesh;
    assert_eq!((mesh.preset_on(Kind::Tailscale), mesh.preset_on(Kind::Interface)), (Preset::Wan, Preset::Lan));
}

#[test]
fn what_does_not_go_together_is_told() {
    assert_snapshot!(faults("[mesh]\nkind = 'address'", &[]), @r#"
swarmd.toml:2: mesh.kind: kind is "address", and there is none
    try: address = "100.64.0.1" beside it
"#);
    assert_snapshot!(faults("[mesh]\nkind = 'interface'", &[]), @r#"
swarmd.toml:2: mesh.kind: kind is "interface", and none is named
    try: interface = "zt0" beside it
"#);
    assert_snapshot!(faults("[mesh]\nkind = 'address'\naddress = '10.0.0.1'\ninterface = 'wg0'\ntag = 'tag:swarm'", &[]), @r#"
swarmd.toml:4: mesh.interface: with kind = "address" no interface is followed
    try: leave one of them out
swarmd.toml:5: mesh.tag: only a tailnet has tags
    try: leave it out, or kind = "tailscale"
"#);
    assert_snapshot!(faults("[mesh]\ninterface = 'a/b'\ntag = 'swarm'", &[]), @r#"
swarmd.toml:2: mesh.interface: 'a/b' is no name of an interface
    try: one that `ip addr` shows, such as wg0 or zt0
swarmd.toml:3: mesh.tag: 'swarm' is no tag
    try: tag = "tag:swarm"
"#);
    assert_snapshot!(faults("[mesh]\ntag = 'tag:a b'", &[]), @r#"
swarmd.toml:2: mesh.tag: 'tag:a b' is no tag
    try: tag = "tag:swarm"
"#);
}

#[test]
fn a_loopback_address_has_to_be_meant() {
    assert_snapshot!(faults("[mesh]\naddress = '127.0.0.9'", &[]), @r#"
swarmd.toml:2: mesh.address: no other host can reach 127.0.0.9
    try: for a throw-away swarm on one machine write kind = "address" beside it
"#);
    assert!(parse("[mesh]\nkind = 'address'\naddress = '127.0.0.9'").is_ok());
    assert_snapshot!(faults("[mesh]\naddress = 'fe80::1'", &[]), @r#"
swarmd.toml:2: mesh.address: fe80::1 means nothing without its interface
    try: address = "100.64.0.1", this host's address on the mesh (`tailscale ip -4`, `ip addr show wg0`)
"#);
}

#[test]
fn all_networks_are_refused_with_the_way_out() {
    assert_snapshot!(faults("[mesh]\naddress = '0.0.0.0'", &[]), @r#"
swarmd.toml:2: mesh.address: 0.0.0.0 would listen on every network, the internet included
    try: address = "100.64.0.1", this host's address on the mesh (`tailscale ip -4`, `ip addr show wg0`)
"#);
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'", &[("SWARM_MESH_ADDRESS", "::")]), @r#"
SWARM_MESH_ADDRESS: mesh.address: :: would listen on every network, the internet included
    try: address = "100.64.0.1", this host's address on the mesh (`tailscale ip -4`, `ip addr show wg0`)
"#);
    assert_snapshot!(faults("[mesh]\naddress = '224.0.0.1'", &[]), @r#"
swarmd.toml:2: mesh.address: 224.0.0.1 belongs to no single host
    try: address = "100.64.0.1", this host's address on the mesh (`tailscale ip -4`, `ip addr show wg0`)
"#);
}

#[test]
fn ports_differ() {
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'\nbulk_port = 4747", &[]), @"
swarmd.toml:3: mesh.bulk_port: control_port and bulk_port are both 4747
    try: bulk_port = 4748
");
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'\ncontrol_port = 4748", &[]), @"
swarmd.toml:3: mesh.control_port: control_port and bulk_port are both 4748
    try: control_port = 4747
");
}

#[test]
fn tasks_never_run_as_root() {
    for name in ["root", "0", "-x", "Ann", "a b", "", "über"] {
        let found = faults(&format!("[mesh]\naddress = '10.0.0.1'\n[exec]\nuser = '{name}'"), &[]);
        assert!(found.starts_with("swarmd.toml:4: exec.user: ") && found.contains("try: user = \"swarm-task\""), "{name}: {found}");
    }
}

#[test]
fn exec_without_a_sandbox_has_to_be_written_out() {
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'\n[exec]\nenabled = true", &[]), @r#"
swarmd.toml:4: exec.enabled: enabled without a word on the sandbox; there is none yet, so tasks may do all that their user may
    try: sandbox = "none" beside it, if that is what you want
"#);
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'\n[exec]\nenabled = true\nsandbox = 'jail'", &[]), @r#"swarmd.toml:5: exec.sandbox: 'jail' is not "none", the only sandbox there is"#);
}

#[test]
fn what_is_not_toml_hides_nothing_else() {
    assert_snapshot!(faults("[mesh\naddress = 10.0.0.1\n[node]\nnmae = 'x'", &[]), @"
swarmd.toml:1: this is not TOML: unclosed table, expected `]`
swarmd.toml:4: node.nmae: there is no such key
    try: name
");
}

#[test]
fn a_name_is_no_id_and_fits() {
    assert_snapshot!(faults("[mesh]\naddress = '10.0.0.1'\n[node]\nname = 'n3'", &[]), @r#"
swarmd.toml:4: node.name: 'n3' would be taken for a node id
    try: name = "node-3"
"#);
    for (len, fits) in [(0, false), (1, true), (62, true), (63, true), (64, false)] {
        let text = format!("[mesh]\naddress = '10.0.0.1'\n[node]\nname = '{}'", "a".repeat(len));
        assert_eq!(parse(&text).is_ok(), fits, "{len}");
    }
    let nameless = Config::parse(Path::new("swarmd.toml"), "[mesh]\naddress = '10.0.0.1'", &Env::default()).unwrap_err();
    assert_snapshot!(nameless[0], @r#"
swarmd.toml: node.name: the host has no name to take
    try: name = "pi4"
"#);
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
    assert_snapshot!(faults(text, &[("SWARM_SOCKET", "/a"), ("SWARM_API_SOCKET", "/b")]), @"
SWARM_API_SOCKET: api.socket: SWARM_SOCKET says '/a', this says '/b'
    try: set only one of them
");
    let config = Config::parse(Path::new("f"), text, &env(&[("SWARM_SOCKET", "/a"), ("SWARM_API_SOCKET", "/a")])).unwrap();
    assert_eq!(config.api.socket, PathBuf::from("/a"));
}

#[test]
fn a_file_that_is_not_there_is_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("swarmd.toml");
    let missing = Config::load(&path, &env(&[])).unwrap_err();
    assert!(missing[0].hint.contains("an empty one is enough"), "{missing:?}");
    std::fs::write(&path, FULL).unwrap();
    assert_eq!(Config::load(&path, &env(&[])).unwrap().node.name, "gpu-box");
}

#[test]
fn a_file_has_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("swarmd.toml");
    let most = usize::try_from(swarm_proto::limits::CONFIG).unwrap();
    let load = |len: usize| {
        std::fs::write(&path, format!("{FULL}#{}", "x".repeat(len - FULL.len() - 1))).unwrap();
        Config::load(&path, &env(&[]))
    };
    for len in [most - 1, most] {
        assert!(load(len).is_ok(), "{len}");
    }
    assert!(load(most + 1).unwrap_err()[0].what.ends_with("it is longer than 256 KiB"));
    std::fs::write(&path, b"\xff").unwrap();
    assert!(Config::load(&path, &env(&[])).unwrap_err()[0].what.contains("invalid utf-8"));
}

#[test]
fn faults_become_one_problem() {
    let faults = parse("[mesh]\naddress = '0.0.0.0'\nbulk_port = 4747").unwrap_err();
    assert_snapshot!(problem(&faults[..1]), @r#"
error: the configuration has a fault
  why: swarmd.toml:2: mesh.address: 0.0.0.0 would listen on every network, the internet included
  try: address = "100.64.0.1", this host's address on the mesh (`tailscale ip -4`, `ip addr show wg0`)
"#);
    assert_snapshot!(problem(&faults), @r#"
error: the configuration has 2 faults
  why: swarmd.toml:2: mesh.address: 0.0.0.0 would listen on every network, the internet included
         try: address = "100.64.0.1", this host's address on the mesh (`tailscale ip -4`, `ip addr show wg0`)
       swarmd.toml:3: mesh.bulk_port: control_port and bulk_port are both 4747
         try: bulk_port = 4748
"#);
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
