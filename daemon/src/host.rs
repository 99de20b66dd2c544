//! The real machine under a node: its directory, sockets, clocks, threads and what it offers to tasks.

mod access;
mod blobs;
mod charter;
mod clocks;
mod finder;
pub(crate) mod founding;
mod keeper;
#[cfg(target_os = "linux")]
mod notify;
#[cfg(windows)]
mod notify {
    pub(crate) fn ready(_status: &str) {
        swarm_win32::service_is_up();
    }
    pub(crate) use swarm_win32::service_is_stopping as stopping;
}
mod offer;
mod orders;
mod run;
#[cfg(windows)]
mod service;
mod signals;
mod state;
mod tailnet;
mod urgent;
mod workshop;

#[cfg(windows)]
pub use self::service::service;
pub(crate) use self::{
    founding::{make as make_authorities, save as save_founding},
    signals::{end_with_parent, stop_asked},
    state::make_private,
};
pub use self::{
    keeper::keeper,
    run::run,
    state::{ClusterFile, StateDir},
};
