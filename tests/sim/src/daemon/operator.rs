//! An operator, who closes hosts out when told to, through any node, until it is done or is not to be.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use swarm_api::Backend as _;
use swarm_proto::{Code, NodeId, access::Caller, api::Call};
use tokio::time::{sleep, timeout};

use super::world::{World, mix};

/// Between two looks for something to do, and two tries.
const LOOK: Duration = Duration::from_millis(100);
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does what is ordered until clients are to stop.
pub(super) async fn run(world: World) -> turmoil::Result {
    let mut rng = ChaCha8Rng::seed_from_u64(mix(&[world.seed(), 0x0b05]));
    while !world.are_clients_stopped() {
        match world.next_order().and_then(|host| world.to_revoke(host).map(|id| (host, id))) {
            Some((host, id)) => revoke(&world, &mut rng, host, id).await,
            None => sleep(LOOK).await,
        }
    }
    world.client_is_done();
    Ok(())
}

async fn revoke(world: &World, rng: &mut ChaCha8Rng, host: u64, id: NodeId) {
    while !world.are_clients_stopped() {
        let through = rng.random_range(1..=world.nodes());
        let Some(gateway) = world.gateway(through).filter(|_| through != host) else {
            sleep(LOOK).await;
            continue;
        };
        let answer = timeout(PATIENCE, gateway.call(&Caller::local(), Call::Revoke { node: id.to_string() })).await;
        drop(gateway);
        match answer {
            Ok(Ok(_)) => return world.say(format_args!("{:?} {id} on h{host} is closed out", turmoil::sim_elapsed().unwrap_or_default())),
            // it leads, or is needed
            Ok(Err(problem)) if problem.code == Code::Conflict => return world.is_kept(host),
            Ok(Err(problem))
                if matches!(problem.code, Code::NoLeader | Code::UnknownOutcome | Code::NotReady | Code::NotFound | Code::Busy) =>
            {
                sleep(LOOK).await;
            }
            Ok(Err(problem)) => return world.violate(format_args!("{id} is not closed out: {problem:?}")),
            Err(_) => return world.violate(format_args!("the call to close {id} out was never answered")),
        }
    }
}
