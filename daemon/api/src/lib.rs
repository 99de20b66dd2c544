//! The local API: HTTP/1.1 and JSON on a unix socket (a named pipe on Windows), for `swarmctl`, the Python client, curl and every script.
//!
//! The room parses, bounds, renders and streams; it decides nothing. What is asked goes to a [`Backend`], which the daemon
//! implements; what cannot be done comes back as one `Problem`. It runs on its own thread in `swarmd`, and as well inside a
//! current-thread runtime under a paused clock.
//!
//! The hot path is [`submit`](crate::submit): one request that carries any number of singly acknowledged submissions. All
//! other handlers are thin and cost what axum costs, 15 us or so a request.

mod backend;
mod blobs;
mod enroll;
mod events;
mod follow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod jobs;
mod logs;
mod mesh;
mod metrics;
mod nodes;
mod pace;
#[cfg(windows)]
mod pipe;
mod query;
mod refusal;
mod router;
mod server;
mod settings;
#[cfg(unix)]
mod socket;
mod submit;
mod tasks;
mod tls;

pub use backend::{Backend, BlobFuture, CallFuture, EnrollFuture, HostFuture};
pub use blobs::{BlobPiece, BlobTaker, refuse_put};
pub use pace::{Pace, Rate, too_often};
#[cfg(windows)]
pub use pipe::{ListenError, Socket};
pub use server::{Accept, Again, Bounds, GroupAccess, Visitor, serve, serve_within};
#[cfg(unix)]
pub use socket::{ListenError, Socket};
pub use tls::{Doorway, Judge, TlsSocket};
