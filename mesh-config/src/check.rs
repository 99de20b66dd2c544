//! What each key may say. Reads on after a fault, so that all are found at once.

mod mesh;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use swarm_proto::{NodeId, access::Role, limits};

use crate::{Api, Blobs, Config, Exec, Log, Node, Resources, read::Reader, setting::Bytes};

/// Longest name of a group (useradd's bound).
const GROUP_NAME: usize = 32;
/// Longest node name: one DNS label.
const NODE_NAME: usize = 63;
/// Longest name of a user of the host.
const USER_NAME: usize = 32;
/// Bytes a second below which a source counts as stalled.
const SLOWEST: u64 = 64 << 10;
/// Labels that every node has by itself.
const OWN_LABELS: [&str; 2] = ["os", "arch"];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `None` only with a fault noted.
pub(crate) fn config(reader: &mut Reader<'_>) -> Option<Config> {
    let name = node_name(reader);
    let state_dir = reader.take("node.state_dir");
    let labels = labels(reader);
    let voter = reader.take("node.voter");
    let mesh = mesh::read(reader);
    let exec = exec(reader);
    let resources = resources(reader);
    let blobs = blobs(reader);
    let api = api(reader);
    let log = log(reader);
    let default = Config::new(name?);
    let node =
        Node { state_dir: state_dir.unwrap_or(default.node.state_dir), labels, voter: voter.unwrap_or(default.node.voter), ..default.node };
    Some(Config { node, mesh, exec, resources, blobs, api, log, ..Config::new(String::new()) })
}

/// The shortest and the longest look at all blobs.
const SCRUBS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(366 * 24));

fn blobs(reader: &mut Reader<'_>) -> Blobs {
    let rate = |reader: &mut Reader<'_>, key: &'static str| {
        let rate = reader.take(key).map(|Bytes(bytes)| bytes);
        if rate.is_some_and(|rate| rate < SLOWEST) {
            reader.fault_in(key, "a node that gives less than 64 KiB a second is taken for one that gives nothing", "send_rate = \"1MiB\"");
        }
        rate
    };
    let scrub_every = reader.take("blobs.scrub_every");
    if let Some(every) = scrub_every.filter(|every| !(SCRUBS.0..=SCRUBS.1).contains(every)) {
        let what = format!("{} is not between 1s and a year", humantime::format_duration(every));
        reader.fault_in("blobs.scrub_every", what, "scrub_every = \"168h\"");
    }
    Blobs {
        quota: reader.take("blobs.quota").map(|Bytes(bytes)| bytes),
        send_rate: rate(reader, "blobs.send_rate"),
        send_rate_per_node: rate(reader, "blobs.send_rate_per_node"),
        key_file: reader.take("blobs.key_file"),
        scrub_every,
    }
}

fn node_name(reader: &mut Reader<'_>) -> Option<String> {
    let key = "node.name";
    let written: Option<String> = reader.take(key);
    let is_written = written.is_some();
    let Some(name) = written.or_else(|| reader.host_name()) else {
        if !reader.is_set(key) {
            reader.fault_in(key, "the host has no name to take", "name = \"pi4\"");
        }
        return None;
    };
    let fits = (1..=NODE_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let whose = if is_written { "" } else { "the host's name " };
    if !fits {
        reader.fault_in(
            key,
            format!("{whose}'{}' is not 1 to {NODE_NAME} letters, digits, '.', '-' or '_'", name.escape_debug()),
            "name = \"pi4\"",
        );
    } else if name.parse::<NodeId>().is_ok() {
        reader.fault_in(key, format!("{whose}'{name}' would be taken for a node id"), &format!("name = \"node-{}\"", &name[1..]));
    }
    Some(name)
}

fn labels(reader: &mut Reader<'_>) -> BTreeMap<String, String> {
    let key = "node.labels";
    let labels: BTreeMap<String, String> = reader.take(key).unwrap_or_default();
    let most = limits::LABELS - OWN_LABELS.len();
    if labels.len() > most {
        reader.fault_in(key, format!("{} labels; at most {most} are taken beside os and arch", labels.len()), "");
    }
    for (name, value) in &labels {
        if OWN_LABELS.contains(&name.as_str()) {
            reader.fault_in(key, format!("every node has '{name}' by itself"), "another name for it");
        } else if !is_label_name(name) {
            reader.fault_in(key, format!("'{}' is not 1 to {NODE_NAME} letters, digits, '.', '-', '_' or '/'", name.escape_debug()), "");
        } else if value.len() > limits::NAME || value.chars().any(char::is_control) {
            reader.fault_in(key, format!("the value of '{name}' is more than {} bytes, or holds control characters", limits::NAME), "");
        }
    }
    labels
}

fn is_label_name(name: &str) -> bool {
    (1..=NODE_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
}

fn exec(reader: &mut Reader<'_>) -> Exec {
    let exec = Exec {
        enabled: reader.take("exec.enabled").unwrap_or_default(),
        sandbox: reader.take("exec.sandbox"),
        user: task_user(reader),
        require_signed: reader.take("exec.require_signed").unwrap_or_default(),
        stdout_limit: reader.take("exec.stdout_limit").map(|Bytes(bytes)| bytes),
    };
    if exec.enabled && exec.sandbox.is_none() && !reader.is_set("exec.sandbox") {
        let what = "enabled without a word on the sandbox; there is none yet, so tasks may do all that their user may";
        reader.fault_in("exec.enabled", what, "sandbox = \"none\" beside it, if that is what you want");
    }
    exec
}

fn task_user(reader: &mut Reader<'_>) -> Option<String> {
    let user: String = reader.take("exec.user")?;
    let is_name = (1..=USER_NAME).contains(&user.len())
        && user.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
        && !user.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if user == "root" {
        reader.fault_in("exec.user", "tasks never run as root", "user = \"swarm-task\"");
    } else if !is_name {
        let what = format!("'{}' is not the name of a user", user.escape_debug());
        reader.fault_in("exec.user", what, "user = \"swarm-task\"");
    }
    Some(user)
}

fn resources(reader: &mut Reader<'_>) -> Resources {
    let resources = Resources {
        cores: reader.take("resources.cores"),
        memory: reader.take::<Bytes>("resources.memory").map(|b| b.0),
        disk: reader.take::<Bytes>("resources.disk").map(|b| b.0),
        gpus: reader.take("resources.gpus"),
        named: reader.take("resources.named").unwrap_or_default(),
    };
    if resources.named.len() > limits::NAMED_RESOURCES {
        reader.fault_in("resources.named", format!("{} of them; at most {} are taken", resources.named.len(), limits::NAMED_RESOURCES), "");
    }
    for name in resources.named.keys().filter(|name| !is_label_name(name)) {
        let what = format!("'{}' is not 1 to {NODE_NAME} letters, digits, '.', '-', '_' or '/'", name.escape_debug());
        reader.fault_in("resources.named", what, "");
    }
    resources
}

fn api(reader: &mut Reader<'_>) -> Api {
    let socket: PathBuf = reader.take("api.socket").unwrap_or_else(|| crate::SOCKET.into());
    if let Some((what, write)) = crate::places::socket_fault(&socket) {
        reader.fault_in("api.socket", what, write);
    }
    let (group, group_role) = (reader.take::<String>("api.group"), reader.take("api.group_role"));
    let is_name =
        |name: &str| (1..=GROUP_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if let Some(group) = group.as_deref().filter(|group| !is_name(group)) {
        let what = format!("'{}' is not the name of a group (1 to {GROUP_NAME} letters, digits, '.', '-' or '_')", group.escape_debug());
        reader.fault_in("api.group", what, "group = \"swarm\"");
    }
    let port = reader.take("api.port").unwrap_or(crate::API_PORT);
    Api { socket, group, group_role: group_role.unwrap_or(Role::Submitter), port }
}

fn log(reader: &mut Reader<'_>) -> Log {
    let level: String = reader.take("log.level").unwrap_or_else(|| crate::LOG_LEVEL.into());
    let is_level = |part: &str| LEVELS.contains(&part.rsplit('=').next().unwrap_or_default().trim());
    if !level.split(',').all(is_level) {
        let what = format!("'{}' is not a level ({}) or a list such as info,quinn=warn", level.escape_debug(), LEVELS.join(", "));
        reader.fault_in("log.level", what, "");
    }
    Log { level, format: reader.take("log.format").unwrap_or_default() }
}
