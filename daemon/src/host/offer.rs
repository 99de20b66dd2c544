//! What this host offers to tasks, and how it is doing.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, path::PathBuf, sync::Arc};

use mesh_config::Config;
use swarm_proto::{
    peer::{Load, NodeMeta},
    spec::Resources,
};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// What an executor is offered as: to everybody, or to those who sign.
pub(crate) fn name_of(executor: &str, require_signed: bool) -> String {
    if require_signed && executor == "exec" { swarm_core::placement::SIGNED_EXEC.into() } else { executor.into() }
}

/// The node's metadata: what the config says, and where it says nothing, what the host has. Its address is not known yet.
pub(crate) fn of(config: &Config, executors: Vec<String>, version: u64) -> NodeMeta {
    let os = std::env::consts::OS.to_owned();
    let arch = std::env::consts::ARCH.to_owned();
    let mut labels: BTreeMap<String, String> = config.node.labels.clone();
    labels.insert("os".into(), os.clone());
    labels.insert("arch".into(), arch.clone());
    NodeMeta {
        version,
        name: config.node.name.clone(),
        software: env!("CARGO_PKG_VERSION").into(),
        protocol: swarm_proto::PROTOCOL,
        addrs: config.mesh.addrs_at(Ipv4Addr::UNSPECIFIED.into()),
        os,
        arch,
        capacity: capacity(config),
        memory: memory(),
        labels,
        executors,
    }
}

fn capacity(config: &Config) -> Resources {
    let wanted = &config.resources;
    let system = ram();
    let milli_cores = wanted.cores.map_or_else(all_cores, |cores| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the config bounds cores")]
        let milli = (cores * 1000.0).round() as u64;
        milli
    });
    Resources {
        milli_cores,
        memory: wanted.memory.unwrap_or_else(|| system.total_memory()),
        disk: wanted.disk.unwrap_or_else(|| disk_of(&config.node.state_dir).map_or(0, |(total, _)| total)),
        gpus: wanted.gpus.unwrap_or_else(gpus),
        named: wanted.named.clone(),
    }
}

/// What is known of the memory, as it is now.
fn ram() -> System {
    System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()))
}

/// What the host has, or less where the daemon is held to less.
fn memory() -> u64 {
    let system = ram();
    #[cfg(target_os = "linux")]
    let held_to = swarm_linux::memory_limit().unwrap_or(u64::MAX);
    #[cfg(not(target_os = "linux"))]
    let held_to = u64::MAX;
    system.total_memory().min(held_to)
}

fn all_cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64) * 1000
}

/// Cards that the NVIDIA driver shows; others are named in the config.
fn gpus() -> u32 {
    let cards = std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count);
    u32::try_from(cards).unwrap_or(u32::MAX)
}

/// Total and free bytes of the disk that holds `path`.
#[cfg(windows)]
pub(crate) fn disk_of(path: &Path) -> Option<(u64, u64)> {
    swarm_win32::space_of(path).ok().map(|space| (space.total, space.free))
}

/// Total and free bytes of the disk that holds `path`.
#[cfg(unix)]
pub(crate) fn disk_of(path: &Path) -> Option<(u64, u64)> {
    let path = path.canonicalize().ok()?;
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let holding = disks.iter().filter(|disk| path.starts_with(disk.mount_point()));
    holding.max_by_key(|disk| disk.mount_point().as_os_str().len()).map(|disk| (disk.total_space(), disk.available_space()))
}

/// Reads free space and load; called every few seconds.
pub(crate) fn load_of(state_dir: PathBuf) -> Arc<dyn Fn() -> Load + Send + Sync> {
    Arc::new(move || {
        let system = ram();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a load average is small and not negative")]
        let milli_load = (System::load_average().one * 1000.0) as u64;
        Load {
            disk_free: disk_of(&state_dir).map_or(0, |(_, free)| free),
            memory_free: system.available_memory(),
            milli_load,
            ..Load::default()
        }
    })
}
