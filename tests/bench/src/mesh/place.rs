//! Where the daemons are that are watched: all on loopback, or each on a host of a lab.

use std::path::PathBuf;

use swarm_client::Client;
use swarm_lab::{Finding, Lab, Preset, Spec};
use swarmd::dev::{self, Swarm};

use crate::swarm::{beside, told};

/// Daemons by number, from 0 on; each keeps its number and its name.
pub(super) enum Place {
    Loopback(Swarm),
    Lab { lab: Box<Lab>, names: Vec<String> },
}

impl Place {
    /// Starts so many on loopback, with their state below `dir`.
    pub(super) fn loopback(nodes: usize, dir: PathBuf) -> anyhow::Result<Self> {
        let program = Some(beside("swarmd")?);
        let options = dev::Options { nodes, program, state_dir: Some(dir), ..dev::Options::default() };
        Swarm::start(&options).map(Self::Loopback).map_err(told)
    }

    /// Starts so many in a lab, without WireGuard: its processes would take more of a processor than the daemons.
    pub(super) async fn lab(hosts: usize) -> anyhow::Result<Self> {
        let (finding, program) = (Finding::Names, beside("swarmd")?);
        let spec = Spec { name: "bench".into(), hosts, ttl: 600, preset: Preset::Lan, finding, is_plain: true, program };
        let lab = Box::new(Lab::up(&spec).await?);
        let names = lab.running();
        Ok(Self::Lab { lab, names })
    }

    /// Waits until all are members; a hundred on two cores take more than the minute that is enough for a few.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Loopback(swarm) => {
                for _ in 0..swarm.nodes().len() / 32 {
                    if swarm.wait_ready().await.is_ok() {
                        return Ok(());
                    }
                }
                swarm.wait_ready().await.map_err(told)
            }
            Self::Lab { lab, .. } => lab.whole().await,
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Self::Loopback(swarm) => swarm.nodes().len(),
            Self::Lab { names, .. } => names.len(),
        }
    }

    pub(super) fn name(&self, n: usize) -> &str {
        match self {
            Self::Loopback(swarm) => &swarm.nodes()[n].name,
            Self::Lab { names, .. } => &names[n],
        }
    }

    pub(super) fn client(&self, n: usize) -> anyhow::Result<Client> {
        match self {
            Self::Loopback(swarm) => Ok(swarm.client(n)),
            Self::Lab { lab, names } => lab.client(&names[n]),
        }
    }

    pub(super) fn pid(&self, n: usize) -> anyhow::Result<u32> {
        match self {
            Self::Loopback(swarm) => Ok(swarm.nodes()[n].pid),
            Self::Lab { lab, names } => lab.pid(&names[n]),
        }
    }

    pub(super) async fn kill(&mut self, n: usize) -> anyhow::Result<()> {
        match self {
            Self::Loopback(swarm) => swarm.kill(n).await.map_err(told),
            Self::Lab { lab, names } => lab.kill(&names[n]).await,
        }
    }

    pub(super) fn restart(&mut self, n: usize) -> anyhow::Result<()> {
        match self {
            Self::Loopback(swarm) => swarm.restart(n).map_err(told),
            Self::Lab { lab, names } => lab.start(&names[n]),
        }
    }

    pub(super) async fn stop(self) {
        match self {
            Self::Loopback(swarm) => swarm.stop().await,
            Self::Lab { lab, .. } => drop(lab),
        }
    }
}
