//! How consensus reaches the other voters: connections of the pools, by member.

use std::io;

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, select_ok},
};
use swarm_proto::NodeId;
use swarm_transport::{Connection, Dial, Plane, Pool};

use super::roster::Roster;

/// The pools, and who is where.
pub(crate) struct Links {
    roster: Roster,
    control: Pool,
    bulk: Pool,
}

impl Links {
    pub(crate) const fn new(roster: Roster, control: Pool, bulk: Pool) -> Self {
        Self { roster, control, bulk }
    }
}

impl swarm_consensus::Peers for Links {
    fn connection(&self, node: NodeId, plane: Plane) -> BoxFuture<'static, io::Result<Connection>> {
        let (pool, dial) = match plane {
            Plane::Bulk => (self.bulk.clone(), self.roster.dial_bulk(node)),
            Plane::Control | Plane::Raft | Plane::Renew => (self.control.clone(), self.roster.dial_control(node)),
        };
        // where it said that it is, when it was last met; its record may be older where nobody leads who could change it
        let met = self.control.existing(Plane::Control, node).map(|connection| match plane {
            Plane::Bulk => connection.addrs().bulk,
            Plane::Control | Plane::Raft | Plane::Renew => connection.addrs().control,
        });
        async move {
            let dial = dial.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{node} is no member")))?;
            match met.filter(|addr| *addr != dial.addr) {
                None => pool.get(plane, &dial).await.map_err(io::Error::other),
                Some(addr) => {
                    let there = Dial { addr, ..dial };
                    let both = select_ok([pool.get(plane, &dial).boxed(), pool.get(plane, &there).boxed()]);
                    both.await.map(|(connection, _)| connection).map_err(io::Error::other)
                }
            }
        }
        .boxed()
    }
}
