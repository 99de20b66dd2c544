//! Endpoints on real UDP sockets of the loopback interface.
#![expect(clippy::unwrap_used, reason = "tests")]

mod life;
mod pool;
mod refusals;
mod streams;
mod support;
