//! The house rules that no compiler holds: which room may know which, and what stands at the top level.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

fn root() -> PathBuf {
    PathBuf::from(env!("SWARM_ROOT"))
}

/// Room, its directory, and the rooms its `[dependencies]` may name.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("swarm-proto", "daemon/proto", &[]),
    ("swarm-core", "daemon/core", &["swarm-proto"]),
    ("swarm-transport", "daemon/transport", &["swarm-proto", "swarm-core"]),
    ("swarm-consensus", "daemon/consensus", &["swarm-proto", "swarm-core", "swarm-transport"]),
    ("swarm-blobstore", "daemon/blobstore", &["swarm-proto", "swarm-core", "swarm-transport"]),
    ("swarm-executors", "daemon/executors", &["swarm-proto", "swarm-core", "swarm-win32"]),
    ("swarm-api", "daemon/api", &["swarm-proto", "swarm-core", "swarm-win32"]),
    ("base2histogram", "daemon/consensus/histogram", &[]),
    ("swarm-linux", "daemon/linux", &[]),
    ("swarm-win32", "daemon/win32", &[]),
    (
        "swarmd",
        "daemon",
        &[
            "swarm-proto",
            "swarm-core",
            "swarm-transport",
            "swarm-consensus",
            "swarm-blobstore",
            "swarm-executors",
            "swarm-api",
            "swarm-client",
            "mesh-config",
            "swarm-linux",
            "swarm-win32",
            "mesh-detect",
        ],
    ),
    ("swarm-client", "ctl/client", &["swarm-proto"]),
    ("swarmctl", "ctl", &["swarm-proto", "swarm-client", "mesh-config", "mesh-detect", "swarm-win32"]),
    ("mesh-config", "mesh-config", &["swarm-proto", "mesh-detect"]),
    ("mesh-detect", "mesh-config/detect", &[]),
];

/// What would bring a clock, a socket, a file or a runtime into the room of decisions.
const NOT_IN_CORE: &[&str] = &["tokio", "quinn", "rustix", "tokio-util", "futures-util", "hyper", "sysinfo", "openraft", "tracing"];

fn dependencies(dir: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join(dir).join("Cargo.toml")).expect("every room has a manifest");
    let manifest: toml::Table = text.parse().expect("a manifest is TOML");
    let mut names = BTreeSet::new();
    collect(&manifest, &mut names);
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        targets.values().filter_map(toml::Value::as_table).for_each(|target| collect(target, &mut names));
    }
    names
}

fn collect(table: &toml::Table, names: &mut BTreeSet<String>) {
    for section in ["dependencies", "build-dependencies"] {
        if let Some(list) = table.get(section).and_then(toml::Value::as_table) {
            names.extend(list.keys().cloned());
        }
    }
}

#[test]
fn every_arrow_points_the_way_of_the_design() {
    let rooms: BTreeSet<&str> = ARROWS
        .iter()
        .map(|(name, ..)| *name)
        .chain(["swarm-tests", "swarm-sim", "swarm-lab", "swarm-bench", "swarm-mutations", "swarm-fuzz"])
        .collect();
    for (name, dir, allowed) in ARROWS {
        let found: Vec<String> =
            dependencies(dir).into_iter().filter(|dep| rooms.contains(dep.as_str()) && !allowed.contains(&dep.as_str())).collect();
        assert!(found.is_empty(), "{name} must not depend on {found:?}");
    }
}

#[test]
fn every_room_is_in_the_list() {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace has a manifest");
    let manifest: toml::Table = text.parse().expect("a manifest is TOML");
    let members: BTreeSet<&str> =
        manifest["workspace"]["members"].as_array().expect("a list").iter().filter_map(toml::Value::as_str).collect();
    let listed: BTreeSet<&str> = ARROWS
        .iter()
        .map(|(_, dir, _)| *dir)
        .chain(["packaging/xtask", "tests", "tests/sim", "tests/lab", "tests/bench", "tests/mutations", "tests/fuzz"])
        .collect();
    assert_eq!(members, listed);
}

#[test]
fn decisions_do_not_touch_a_machine() {
    let found: Vec<String> = dependencies("daemon/core").into_iter().filter(|dep| NOT_IN_CORE.contains(&dep.as_str())).collect();
    assert!(found.is_empty(), "swarm-core must not depend on {found:?}");
    for (file, text) in sources("daemon/core/src") {
        // tests may begin at the time that it is
        let is_test = file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
        let text = if is_test { "" } else { text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default() };
        for word in ["Instant::now", "SystemTime", "std::fs", "std::net::Tcp", "std::net::Udp", "std::thread", "rand::rng(", "std::process"]
        {
            assert!(!text.contains(word), "{} holds '{word}'", file.display());
        }
    }
}

fn sources(dir: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).expect("readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.insert(path.clone(), std::fs::read_to_string(&path).expect("readable"));
            }
        }
    }
    found
}

#[test]
fn files_stay_readable() {
    for dir in ["daemon", "ctl", "mesh-config", "packaging", "tests"] {
        for (file, text) in sources(dir) {
            let lines = text.lines().count();
            assert!(lines <= 600, "{} has {lines} lines; two nouns would read better than one", file.display());
            assert!(file.file_name().is_none_or(|name| name != "mod.rs"), "{}: foo.rs and foo/, not mod.rs", file.display());
        }
    }
}

#[test]
fn the_top_level_is_fixed() {
    let allowed = ["Cargo.toml", "Cargo.lock", "README.md", "LICENSE", "daemon", "ctl", "mesh-config", "tests", "packaging", "target"];
    for entry in std::fs::read_dir(root()).expect("readable").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()), "'{name}' does not belong at the top level");
    }
}
