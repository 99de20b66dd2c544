//! Reads every blob of this node again, slowly and for ever, and heals what has changed on the disk from another node: at once what
//! somebody found damaged.

use std::{sync::Arc, time::Duration};

use swarm_blobstore::is_sound;
use swarm_proto::{Digest, blob::Claim};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::verify;
use crate::node::{Node, env::stopped};

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
        // longer only where there is more than a disk can be read for in the background
        let pause = (node.settings.scrub_every / u32::try_from(blobs.len().max(1)).unwrap_or(u32::MAX)).clamp(PAUSE.0, PAUSE.1);
        // a host that is never up for a week still sees all of it, in time
        let first = usize::try_from(node.seed).unwrap_or_default() % blobs.len().max(1);
        rest(node, pause).await;
        for blob in blobs.iter().cycle().skip(first).take(blobs.len()) {
            if !is_sound(&node.blobs.store, node.blobs.lanes, blob.digest).await {
                heal(node, blob.digest).await;
            }
            rest(node, pause).await;
        }
    }
}

/// Waits, and heals meanwhile what is thought to be damaged.
async fn rest(node: &Arc<Node>, pause: Duration) {
    let until = Instant::now() + pause;
    while let Ok(digest) = timeout_at(until, node.blobs.store.suspected()).await {
        heal(node, digest).await;
    }
}

async fn heal(node: &Arc<Node>, digest: Digest) {
    if node.blobs.store.size_of(digest).is_none() {
        return;
    }
    if let Err(problem) = verify(node, Claim::local(), digest).await {
        node.journal.warn(format!("{}: {}", problem.what, problem.why));
    }
}
