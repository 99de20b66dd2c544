//! How nodes speak: QUIC endpoints with mutual TLS, identities, the Hello, and the pool of connections.
//!
//! ```text
//!            control endpoint (own thread)                      bulk endpoint (own thread)
//!   Plane::Control: gossip datagrams, calls          Plane::Bulk: blobs, snapshots, live output
//!   Plane::Raft:    consensus, own connections
//!   Plane::Renew:   new certificates
//!        |                                                 |
//!     UDP socket ------------- mesh -------------------- UDP socket
//! ```
//! Each [`Endpoint`] owns one socket and serves the planes it was bound with, on the runtime in which it was bound. Planes
//! never share a connection. A connection exists for the rest of the house once its Hello was answered (`handshake.rs`
//! holds the order of things); who may stay, and what a stream or datagram means, is the [`Doorkeeper`]'s word. Every bound
//! stands in [`swarm_proto::limits`].
//!
//! **Socket before timers.** A probe's answer that already lies in the socket must be heard before the probe's timer may
//! accuse anybody. A driver that runs on the endpoint's own single-threaded runtime calls [`Endpoint::drain`] before it runs
//! due timers: on return, what had arrived when it was called has been given to [`Doorkeeper::datagram`].
//!
//! Everything here runs on tokio's clock, and takes its chance from the seed it is given, so the simulator runs the same code.

mod check;
mod close;
mod congestion;
mod connection;
mod dial;
mod endpoint;
mod frames;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod identity;
mod noise;
mod plane;
mod pool;
mod serve;
mod settings;
mod socket;
mod tls;

pub use check::{check, with_check};
pub use close::{CloseCode, Ended, StreamCode};
pub use connection::{Connection, Peer};
pub use dial::{Dial, DialError};
pub use endpoint::{BindSpec, Doorkeeper, Endpoint, EndpointEnd, HelloSource};
pub use frames::{FrameRx, FrameTx, StreamError};
pub use identity::{
    CA_CERTIFICATE, CA_KEY, Ca, Identity, IdentityError, LeafError, NODE_CERTIFICATE, NODE_KEY, SecretKey, Validity, certificate_end,
    peer_key,
};
pub use plane::{Plane, Realm};
pub use pool::Pool;
pub use socket::{BindError, udp_socket};
pub use tls::{SERVER_NAME, WallClock, api_server, crypto, machine_clock};
