//! `exec` with real processes under a real keeper.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod files;
mod lease;
mod output;
mod rig;
mod run;
mod speed;
mod tree;
mod user;
