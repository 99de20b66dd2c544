//! What runs tasks: `noop`, which only measures, and `exec`, which runs processes under a keeper.
//!
//! ```text
//!   core::attempts --Start, Kill, LeaseUntil, Forget--> Executor --ExecEvent--> core::attempts
//!
//!   exec:  daemon [ Exec, OutputStore ] <--socket or pipe--> keeper [ tasks ]      attempts/*.stdout|stderr
//!                        ^ live chunks, outcomes             | appends ------------------^      |
//!                        '------------------------- kept output is read from the files ---------'
//! ```
//! The daemon never is the parent of a task: it may be upgraded or killed without its tasks noticing, for as long as the lease
//! lasts. The keeper is the same program started as `swarmd keeper`, and small enough that nothing in it needs to change often.

mod argv;
mod exec;
mod files;
#[cfg(all(feature = "fuzzing", target_os = "linux"))]
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod link;
#[cfg(target_os = "linux")]
mod linux;
mod noop;
mod outcomes;
mod output;
mod protocol;
#[cfg(windows)]
mod windows;

use swarm_proto::{Fence, TaskId, ledger::End};
use tokio::sync::mpsc;

pub use swarm_core::attempts::{Boot, ExecEvent, Recovered, Start};

#[cfg(target_os = "linux")]
use self::linux as host;
#[cfg(target_os = "linux")]
pub use self::linux::task_user::{TaskUser, TaskUserError};
#[cfg(windows)]
use self::windows as host;
pub use self::{
    exec::{Exec, ExecSettings, KeeperAt, OpenError},
    files::Shelves,
    host::{boot_now, keeper},
    noop::Noop,
    output::OutputStore,
};

/// Where executors say what happened. As many events are under way as attempts were started, so the window bounds it.
pub type Events = mpsc::UnboundedSender<ExecEvent>;

/// Runs tasks. No method blocks or fails: what goes wrong is the end of an attempt.
pub trait Executor: Send + Sync {
    /// The word in a node's config and in [`swarm_proto::peer::NodeMeta::executors`].
    fn name(&self) -> &'static str;
    /// Runs it; exactly one [`ExecEvent::Ended`] follows.
    fn start(&self, start: Start);
    /// Ends it and all that it started; its `Ended` then says `end`. Nothing happens when it has ended already.
    fn kill(&self, task: TaskId, fence: Fence, end: End);
    /// The worker's lease now lasts until then.
    fn lease_until(&self, until: Boot);
    /// The outcome is where it belongs.
    fn forget(&self, task: TaskId, fence: Fence);
}
