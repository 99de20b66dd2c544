//! How long one task takes while every core is kept busy by others: three real daemons, first idle, then with as many spinning tasks
//! on each of them as the machine has cores.

use swarm_proto::JobId;

use super::{Figure, Measured, Stage, block_on, ours};
use crate::{
    failover::{arena::Arena, calm},
    swarm::told,
};

pub(super) fn run(stage: &Stage) -> anyhow::Result<Measured> {
    let dir = stage.fresh("busy")?;
    block_on(async {
        let mut arena = Arena::start(dir.path()).await?;
        let measured = measure(stage, &mut arena).await;
        arena.swarm.stop().await;
        measured
    })?
}

async fn measure(stage: &Stage, arena: &mut Arena) -> anyhow::Result<Measured> {
    let (leader, _) = arena.leader(0).await?;
    let socket = arena.swarm.nodes()[leader].socket.clone();
    let idle = ours::trips(stage, &socket)?;
    let client = arena.swarm.client(leader);
    let spins: JobId = calm::spin(arena, &client, calm::every_core()).await?;
    let busy = ours::trips(stage, &socket);
    client.cancel_job(spins).await.map_err(told)?;
    Ok(vec![(Figure::IdleTripP99, idle), (Figure::BusyTripP99, busy?)])
}
