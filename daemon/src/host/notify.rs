//! What the service manager is told (`Type=notify`). Without one, nothing is said.
//!
//! Ready is said when the local API answers, not when this node is a member: a mesh that is late, or a swarm that is asleep, is
//! nothing that a restart would help.

use sd_notify::NotifyState;

/// The local API answers.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It is on its way out, and may take a moment to hand over.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
