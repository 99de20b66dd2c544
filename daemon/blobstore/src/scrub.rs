//! Looks for bytes that changed on the disk while nobody asked for them.

use std::time::Duration;

use swarm_proto::Digest;

use crate::{lanes::Lanes, store::Store};

/// After each segment: at most 20 MiB a second, which a disk that has other work hardly notices.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a whole blob still is what it should be; one that is not here is. It does not count as used by this.
pub async fn is_sound(store: &Store, lanes: Lanes, digest: Digest) -> bool {
    let looked = store.clone();
    let reader = match lanes.run(move || looked.inspect(digest)).await {
        Ok(Some(reader)) => std::sync::Arc::new(reader),
        Ok(None) => return true,
        Err(_) => return false,
    };
    for index in 0..reader.outline().segments() {
        let read = reader.clone();
        // a sector that cannot be read is no better than one that changed
        if lanes.run(move || read.checked(index)).await.is_err() {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
    true
}
