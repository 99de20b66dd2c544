//! `status`: the daemon that is spoken to, the figures of the swarm, and the peers.

use serde::Serialize;
use swarm_proto::api::{Phase, Stats, Status};

use crate::{failure::Outcome, session::Session, view};

#[derive(Serialize)]
struct Glance<'a> {
    status: &'a Status,
    /// `null` where no leader gave them.
    stats: Option<&'a Stats>,
}

/// Shows what is known even without a leader; the exit code then says that there is none. A host that belongs to no swarm yet has
/// none to look for.
pub(super) async fn call(session: &Session) -> Outcome {
    let status = session.client.status().await?;
    let stats = session.client.stats().await;
    let glance = Glance { status: &status, stats: stats.as_ref().ok() };
    session.out.either(&glance, |_| view::status(&status, glance.stats, session.out.is_coloured))?;
    if status.phase == Phase::Unjoined { Ok(()) } else { stats.map(drop).map_err(Into::into) }
}
