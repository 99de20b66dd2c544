//! Reads every blob of this node again, slowly and for ever, and heals what has changed on the disk from another node.

use std::{sync::Arc, time::Duration};

use swarm_blobstore::is_sound;
use swarm_proto::blob::Claim;
use tokio::sync::watch;

use super::verify;
use crate::node::{Node, env::stopped};

/// How long one look at everything takes, unless there is more than a disk can be read for in the background.
const ROUND: Duration = Duration::from_hours(7 * 24);
/// Between two blobs: the shortest and the longest pause.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_hours(1));

/// Runs until the node stops.
pub(crate) async fn run(node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        () = stopped(&mut stop) => {}
        () = rounds(&node) => {}
    }
}

async fn rounds(node: &Arc<Node>) {
    loop {
        let blobs = node.blobs.store.list();
        let pause = (ROUND / u32::try_from(blobs.len().max(1)).unwrap_or(u32::MAX)).clamp(PAUSE.0, PAUSE.1);
        // a host that is never up for a week still sees all of it, in time
        let first = usize::try_from(node.seed).unwrap_or_default() % blobs.len().max(1);
        tokio::time::sleep(pause).await;
        for blob in blobs.iter().cycle().skip(first).take(blobs.len()) {
            if !is_sound(&node.blobs.store, node.blobs.lanes, blob.digest).await
                && let Err(problem) = verify(node, Claim::local(), blob.digest).await
            {
                node.journal.warn(format!("{}: {}", problem.what, problem.why));
            }
            tokio::time::sleep(pause).await;
        }
    }
}
