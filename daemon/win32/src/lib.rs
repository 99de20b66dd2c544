//! What Windows has and neither std nor a safe crate offers: jobs, access lists, services, a clock that counts suspend, threads that go first.
//!
//! A room of its own because its manifest, like that of `swarm-linux`, does not forbid `unsafe`: every call here that the compiler
//! cannot check is in one of these small files, each with the reason why it holds, and everything that is exported is safe.
//! On other systems it is empty.
#![cfg(windows)]

mod access;
mod clock;
mod disk;
mod job;
mod pipe;
mod process;
mod service;
mod text;
mod thread;

pub use self::{
    access::make_private,
    clock::since_boot,
    disk::{Space, space_of},
    job::Job,
    pipe::listen,
    process::{ask_to_stop, resume},
    service::{log_to, run_service, service_is_stopping, service_is_up, service_stop_asked},
    thread::go_first,
};
