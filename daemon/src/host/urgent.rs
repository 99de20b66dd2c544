//! The threads that others wait for go before the tasks of this host, where it allows that.
//!
//! A commit is a chain of short steps over several hosts. With every core taken by tasks each step waits for a time slice, and what
//! takes half a millisecond takes ten or more; so does a heartbeat, and a leader is suspected that only has no processor.

use std::sync::Arc;

use swarm_consensus::Lanes;

#[cfg(target_os = "linux")]
use swarm_linux::go_first;
#[cfg(windows)]
use swarm_win32::go_first;

/// Has the calling thread, the one that will run the control plane, go first; says once if it may not.
pub(super) fn control() {
    match go_first() {
        Ok(()) => tracing::debug!("control and log threads go before tasks"),
        Err(error) => {
            tracing::info!(%error, "control and log threads share the processor with tasks: commits are slower while these take all of it")
        }
    }
}

/// The log's lanes: what an acknowledgement waits for goes first, what prepares for later does not.
pub(super) fn lanes() -> Lanes {
    Lanes::Threads(Arc::new(|lane| {
        if lane == "log" {
            // what is not allowed was said for the control thread
            let _ = go_first();
        }
    }))
}
