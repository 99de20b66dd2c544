//! The ledger's events as one stream: from this node's own ledger where it holds one, else from the leader's.

use std::{sync::Arc, time::Duration};

use swarm_consensus::Consensus;
use swarm_proto::{
    Cursor, Problem,
    peer::{EventPage, Open},
};
use swarm_transport::{FrameTx, Plane};
use tokio::sync::mpsc;

use super::Node;

/// Pages under way to one reader.
const DEPTH: usize = 4;
/// Events in a page.
const PAGE: usize = 512;
/// Between two tries to find somebody who has the record.
const AGAIN: Duration = Duration::from_millis(200);

/// Streams events after a cursor for as long as the reader is there.
pub(crate) fn spawn(node: &Arc<Node>, after: Cursor) -> mpsc::Receiver<Result<EventPage, Problem>> {
    let (tx, rx) = mpsc::channel(DEPTH);
    let node = node.clone();
    let runtime = node.runtime.clone();
    runtime.spawn(async move {
        let mut after = after;
        while !tx.is_closed() {
            match holder(&node) {
                Some(consensus) => drop(read_own(&consensus, &mut after, &tx).await),
                None => drop(read_leader(&node, &mut after, &tx).await),
            }
            tokio::time::sleep(AGAIN).await;
        }
    });
    rx
}

/// This node's ledger, if it is a voter or a standby and so gets every entry.
fn holder(node: &Node) -> Option<Consensus> {
    let consensus = node.consensus.clone()?;
    let holds = {
        let role = consensus.role();
        let role = role.borrow();
        role.voters.contains(&node.me) || role.learners.contains(&node.me)
    };
    holds.then_some(consensus)
}

async fn read_own(consensus: &Consensus, after: &mut Cursor, tx: &mpsc::Sender<Result<EventPage, Problem>>) -> Option<()> {
    let mut role = consensus.role();
    let mut is_first = true;
    loop {
        role.borrow_and_update();
        let page = consensus.with_ledger(|ledger| EventPage {
            begins: ledger.events_begin(),
            events: ledger.events_after(*after, PAGE).cloned().collect(),
        });
        let is_full = page.events.len() == PAGE;
        if let Some(last) = page.events.last() {
            *after = last.cursor;
        }
        if is_first || !page.events.is_empty() {
            is_first = false;
            tx.send(Ok(page)).await.ok()?;
        }
        if !is_full {
            tokio::select! {
                biased;
                () = tx.closed() => return None,
                changed = role.changed() => changed.ok()?,
            }
        }
    }
}

async fn read_leader(node: &Arc<Node>, after: &mut Cursor, tx: &mpsc::Sender<Result<EventPage, Problem>>) -> Option<()> {
    let leader = node.peers.leader().1.filter(|leader| *leader != node.me)?;
    let connection = node.control.get(Plane::Control, &node.roster.dial_control(leader)?).await.ok()?;
    let (_ask, mut pages) = connection.open(&Open::Events { after: *after }).await.ok()?;
    let mut leaders = node.peers.leader_changes();
    let replaced = leaders.wait_for(|(_, now)| *now != Some(leader));
    tokio::pin!(replaced);
    loop {
        let page = tokio::select! {
            biased;
            // a reader that left gives its stream back at once, not with the next event
            () = tx.closed() => return None,
            page = pages.recv::<EventPage>() => page.ok()??,
            _ = &mut replaced => return None,
        };
        if let Some(last) = page.events.last() {
            *after = last.cursor;
        }
        tx.send(Ok(page)).await.ok()?;
    }
}

/// Serves another node's reader from this node's ledger.
pub(crate) async fn serve(node: Arc<Node>, after: Cursor, mut tx: FrameTx) {
    let Some(consensus) = holder(&node) else { return };
    let (pages, mut from) = mpsc::channel(DEPTH);
    tokio::spawn(async move {
        let mut after = after;
        read_own(&consensus, &mut after, &pages).await
    });
    let gone = tx.stopped();
    tokio::pin!(gone);
    loop {
        tokio::select! {
            biased;
            () = &mut gone => return,
            page = from.recv() => match page {
                Some(Ok(page)) if tx.send(&page).await.is_ok() => {}
                Some(_) | None => return,
            },
        }
    }
}
