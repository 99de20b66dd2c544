//! `swarm-bench memory`: what daemons take of memory while a blob moves from one to the others, for several sizes.

use std::path::Path;

use anyhow::ensure;
use serde::Serialize;
use swarm_proto::Digest;

use crate::{
    beside::place::{Kind, Place},
    swarm::{Swarm, alarms, told},
};

/// Of one size. Peaks of resident memory, in bytes.
#[derive(Serialize)]
pub(crate) struct Peaks {
    size: u64,
    /// Of the one that gives, while it took the blob from a client.
    put: u64,
    /// While the blob moved.
    send: u64,
    /// Of the one of those that got it that took most.
    recv: u64,
    /// How often one of them was suspected while it moved, by any other; none was called down.
    suspected: usize,
}

/// Measures each size in turn, between the same daemons: one that gives, and so many that get.
pub(crate) async fn measure(sizes: &[u64], receivers: u8, parent: &Path) -> anyhow::Result<Vec<Peaks>> {
    let place = Place::make(Kind::Loopback, parent, "")?;
    let swarm = Swarm::start(&place, receivers).await?;
    let mut all = Vec::new();
    for size in sizes {
        swarm.from.forget_peak()?;
        let digest = put(&swarm, *size).await?;
        let put = swarm.from.memory("VmHWM")?;
        for daemon in swarm.receivers().iter().chain([&swarm.from]) {
            daemon.forget_peak()?;
        }
        let before = alarms(swarm.clients()).await?;
        swarm.push(digest).await?;
        let after = alarms(swarm.clients()).await?;
        ensure!(after.0 == before.0, "{} were called down while a blob moved", after.0 - before.0);
        let mut recv = 0;
        for daemon in swarm.receivers() {
            recv = recv.max(daemon.memory("VmHWM")?);
        }
        all.push(Peaks { size: *size, put, send: swarm.from.memory("VmHWM")?, recv, suspected: after.1 - before.1 });
        for daemon in swarm.receivers().iter().chain([&swarm.from]) {
            daemon.clear().await?;
        }
    }
    ensure!(swarm.through_leader().await? == 0, "a blob passed through the leader");
    Ok(all)
}

/// From memory: no file of that size is needed beside the stores'.
async fn put(swarm: &Swarm, size: u64) -> anyhow::Result<Digest> {
    Ok(swarm.from.client().put_blob(Some(size), false, swarm_client::noise(size, size)).await.map_err(told)?.digest)
}

/// A table for people.
pub(crate) fn table(all: &[Peaks]) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let mut text = format!("{:>12} {:>14} {:>14} {:>14} {:>10}\n", "blob, MiB", "put, MiB", "send, MiB", "receive, MiB", "suspected");
    for Peaks { size, put, send, recv, suspected } in all {
        text += &format!("{:>12} {:>14} {:>14} {:>14} {suspected:>10}\n", mib(*size), mib(*put), mib(*send), mib(*recv));
    }
    text
}
