//! One voter goes on alone: what an operator does who knows that the majority is lost for ever.
//!
//! Everything that this log holds is taken for true, what was never acknowledged included: a voter cannot tell the two apart any
//! more, and to throw away what was acknowledged would be worse. What others acknowledged and this one never heard of is lost.
//! Nothing here keeps the lost voters from going on as the old swarm, should they come back: that is the epoch's work, and
//! whoever calls this has begun a new one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use openraft::{EmptyNode, storage::RaftLogStorage as _};
use swarm_proto::{LogIndex, NodeId};

use crate::{
    Disk, Lanes, SEGMENT, StartError,
    engine::{LogId, Membership, StoredMembership},
    health::Vitals,
    log::Sound,
    machine::Machine,
};

/// Makes `me` the only voter of the log in this directory. It must not be in use. Done twice, it is done once more.
///
/// # Errors
/// A log that is damaged or was never used, or a disk that fails. What was there is as it was.
pub async fn recover(disk: Arc<dyn Disk>, lanes: &Lanes, me: NodeId) -> Result<LogIndex, StartError> {
    let vitals = Arc::new(Vitals::new());
    let log = Sound::check(disk.clone())?;
    let machine = Machine::open(disk, lanes.clone(), vitals.clone())?;
    let damaged = |why: &str| StartError::Damaged { file: "log".into(), offset: 0, why: why.into() };
    if log.is_fresh() {
        return Err(damaged("there is none: this node never held the ledger"));
    }
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| StartError::Io { what, source }
    };
    let next = machine.applied().map_or(0, |id| id.index + 1);
    let rest: Vec<_> = log.content().range(next..u64::MAX).cloned().collect();
    for entry in rest {
        machine.take(entry).map_err(io("an entry of the log cannot be applied"))?;
    }
    let last = machine.applied().ok_or_else(|| damaged("it holds no entry"))?;
    let id = LogId { leader_id: last.leader_id, index: last.index + 1 };
    let nodes = BTreeMap::from([(me.0, EmptyNode {})]);
    let alone = Membership::new(vec![BTreeSet::from([me.0])], nodes).map_err(|e| StartError::Engine(e.to_string()))?;
    machine.stand_alone(id, StoredMembership::new(Some(id), alone), me).map_err(io("the snapshot cannot be written"))?;
    let mut store = log.open(SEGMENT, lanes, vitals)?;
    store.purge(id).await.map_err(io("the log cannot be written"))?;
    store.close().await;
    Ok(crate::engine::ledger_index(&id))
}
