//! Brings a blob to many nodes in a chain: each gets it from the one before it while that one still gets it itself, so that the link
//! of whoever pushes carries it about once. They are all asked before the first of them has anything of it, because later every
//! question waits behind segments; the chain is in the order in which they were reached. Where one of the chain fails, the one behind
//! it asks the one before it, whose link is free then, and this node where that one has nothing to give either.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use swarm_proto::{
    Code, Digest, NodeId, Problem,
    access::Caller,
    api::BlobLine,
    blob::{BlobNews, BringRequest, Claim},
    peer::Open,
};
use swarm_transport::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Blobs, DEPTH, arrived, bring, claim_of, claims::offer, connect, line, named};
use crate::node::Node;

/// How all members are meant at once.
const ALL: &str = "all";

/// Brings a blob to these nodes, by id or name, and says how far each is. This node gets it first.
pub(crate) fn push(node: &Arc<Node>, caller: &Caller, digest: Digest, to: Vec<String>) -> mpsc::Receiver<BlobLine> {
    let (tx, rx) = mpsc::channel(DEPTH);
    let (node, claim) = (node.clone(), claim_of(caller));
    tokio::spawn(async move { run(&node, digest, claim, to, &tx).await });
    rx
}

/// Has another node get a blob from this one.
///
/// # Errors
/// It could not be asked, or did not get it.
pub(crate) async fn hand_over(node: &Arc<Node>, target: NodeId, digest: Digest, size: u64) -> Result<(), Problem> {
    let _offered = offer(node, digest, target);
    // nobody watches
    let ((takes, _), (tx, _)) = (oneshot::channel(), mpsc::channel(1));
    let request = BringRequest { digest, size, from: vec![node.me], spares: Vec::new(), claim: Claim::Offer };
    follow(node, target, connect(node, target).await, request, takes, &tx).await
}

async fn run(node: &Arc<Node>, digest: Digest, claim: Claim, to: Vec<String>, tx: &mpsc::Sender<BlobLine>) {
    let targets = targets(node, to, tx).await;
    let size = match held(node, digest, claim.clone()).await {
        Ok(size) => size,
        Err(problem) => {
            for target in targets {
                let _ = tx.send(BlobLine::Failed { node: node.roster.name(target), problem: problem.clone() }).await;
            }
            return;
        }
    };
    let (here, others): (Vec<NodeId>, Vec<NodeId>) = targets.into_iter().partition(|target| *target == node.me);
    for target in here {
        let _ = tx.send(BlobLine::Held { node: node.roster.name(target) }).await;
    }
    let mut chain = vec![node.me];
    let mut reached: FuturesUnordered<_> = others.into_iter().map(async |target| (target, connect(node, target).await)).collect();
    while let Some((target, connection)) = reached.next().await {
        let name = node.roster.name(target);
        let request = request(digest, size, &chain, claim.clone());
        let (takes, taken) = oneshot::channel();
        let (node, tx) = (node.clone(), tx.clone());
        tokio::spawn(async move {
            let line = match follow(&node, target, connection, request, takes, &tx).await {
                Ok(()) => BlobLine::Held { node: name },
                Err(problem) => BlobLine::Failed { node: name, problem },
            };
            let _ = tx.send(line).await;
        });
        // the next one asks this one, which must know by then that it gets it; one that failed is left out
        if taken.await.is_ok() {
            chain.push(target);
        }
    }
}

/// Whoever stands last in the chain is asked; spares are who stands before that one, and this node, which is the first.
fn request(digest: Digest, size: u64, chain: &[NodeId], claim: Claim) -> BringRequest {
    let mut nearest = chain.iter().rev().copied();
    let from = nearest.by_ref().take(1).collect();
    let mut spares: Vec<NodeId> = nearest.by_ref().take(1).collect();
    spares.extend(nearest.last());
    BringRequest { digest, size, from, spares, claim }
}

/// The members that are meant; whoever is none is told at once.
async fn targets(node: &Arc<Node>, to: Vec<String>, tx: &mpsc::Sender<BlobLine>) -> Vec<NodeId> {
    let mut targets = Vec::new();
    for name in to {
        if name == ALL {
            targets.extend(node.roster.current().nodes.values().filter(|record| !record.is_gone).map(|record| record.id));
        } else if let Some(id) = named(node, &name) {
            targets.push(id);
        } else {
            let problem = Problem::new(Code::NotFound, format!("there is no node '{name}'"), "no member has this name or id")
                .hint("`swarmctl node list` shows the members");
            let _ = tx.send(BlobLine::Failed { node: name, problem }).await;
        }
    }
    targets.sort_unstable();
    targets.dedup();
    targets
}

/// Its size, once it is here.
async fn held(node: &Arc<Node>, digest: Digest, claim: Claim) -> Result<u64, Problem> {
    arrived(bring(node, digest, claim, None)).await?;
    let Blobs { store, lanes, .. } = &node.blobs;
    let store = store.clone();
    let size = lanes.run(move || store.size_of(digest)).await;
    size.ok_or_else(|| Problem::new(Code::Conflict, "the blob was not pushed", "it was removed meanwhile"))
}

/// Asks one node to get it. `takes` is told when that node knows that it does.
async fn follow(
    node: &Arc<Node>,
    target: NodeId,
    connection: Result<Connection, String>,
    request: BringRequest,
    takes: oneshot::Sender<()>,
    tx: &mpsc::Sender<BlobLine>,
) -> Result<(), Problem> {
    let what = || format!("the blob did not get to {}", node.roster.name(target));
    let gone = |why: String| Problem::new(Code::NotReady, what(), why);
    let (mut ask, mut news) = connection.map_err(gone)?.open(&Open::Bring(request)).await.map_err(|e| gone(e.to_string()))?;
    let _ = ask.finish();
    let mut takes = Some(takes);
    loop {
        let news = match news.recv::<BlobNews>().await.map_err(|e| gone(e.to_string()))? {
            None => return Err(gone("it said nothing to the end".into())),
            Some(BlobNews::Failed(problem)) => return Err(Problem { what: what(), ..problem }),
            Some(news) => news,
        };
        takes.take().map(|takes| takes.send(()));
        if news == BlobNews::Held {
            return Ok(());
        }
        // a client that reads slowly must not slow the blob down
        let _ = tx.try_send(line(node, node.roster.name(target), news));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_asks_the_one_before_it_and_has_two_to_fall_back_on() {
        let asked = |chain: &[u64]| {
            let chain: Vec<NodeId> = chain.iter().copied().map(NodeId).collect();
            let request = request(Digest([0; 32]), 0, &chain, Claim::local());
            let ids = |list: Vec<NodeId>| list.into_iter().map(|node| node.0).collect::<Vec<_>>();
            (ids(request.from), ids(request.spares))
        };
        assert_eq!(asked(&[7]), (vec![7], vec![]));
        assert_eq!(asked(&[7, 1]), (vec![1], vec![7]));
        assert_eq!(asked(&[7, 1, 2]), (vec![2], vec![1, 7]));
        assert_eq!(asked(&[7, 1, 2, 3, 4]), (vec![4], vec![3, 7]));
    }
}
