//! `exec` with real processes under a real keeper.
#![cfg(target_os = "linux")]

mod lease;
mod output;
mod rig;
mod run;
mod speed;
mod tree;
