//! The real machine under a node: its directory, sockets, clocks, threads and what it offers to tasks.

mod access;
mod clocks;
mod keeper;
#[cfg(target_os = "linux")]
mod notify;
#[cfg(not(target_os = "linux"))]
mod notify {
    pub(crate) fn ready(_status: &str) {}
    pub(crate) fn stopping() {}
}
mod offer;
mod run;
mod signals;
mod state;
mod workshop;

pub use self::{
    keeper::keeper,
    run::run,
    state::{ClusterFile, StateDir},
};
pub(crate) use self::{signals::stop_asked, state::make_private};
