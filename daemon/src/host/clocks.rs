//! The host's clocks.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use swarm_proto::UnixMillis;

use crate::node::Clocks;

/// Wall time for people, and the clock that goes on while the host sleeps.
pub(crate) fn real() -> Clocks {
    Clocks { wall: Arc::new(wall), boot: Arc::new(boot) }
}

/// Wall time of this host.
pub(crate) fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(unix)]
fn boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

#[cfg(windows)]
fn boot() -> Duration {
    swarm_win32::since_boot()
}
