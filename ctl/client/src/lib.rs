//! The one Rust client of the local API: typed words in, typed answers out, every failure a `Problem`.
//!
//! ```no_run
//! # async fn example() -> Result<(), swarm_proto::Problem> {
//! let client = swarm_client::Client::connect(swarm_client::default_socket()).await?;
//! let (mut sender, mut answers) = client.submit_stream().await?;
//! let request = swarm_proto::api::SubmitRequest { id: "1".into(), argv: vec!["true".into()], ..Default::default() };
//! sender.send(&request).await?;
//! sender.finish();
//! while let Some(line) = answers.next().await? {
//!     drop(line); // accepted, then ended
//! }
//! # Ok(()) }
//! ```
//! Calls share a few kept connections; each stream has one of its own. A clone shares them too. Everything runs on the caller's
//! tokio runtime, a current-thread one included.

mod blobs;
mod calls;
mod connection;
mod credentials;
mod dial;
mod enroll;
mod outbox;
mod place;
mod remote;
mod socket;
mod streams;
mod submit;

pub use blobs::{BlobLines, BlobReader, noise};
pub use calls::{JobsQuery, TasksQuery};
pub use connection::Client;
pub use credentials::{Credentials, credentials_dir, login};
pub use enroll::{Invitation, enroll};
pub use place::{Place, Remote};
pub use remote::{OwnCertificate, Session, Trust, connect};
pub use socket::default_socket;
pub use streams::{EventStream, FollowStream, LogStream, Told};
pub use submit::{SubmitReceiver, SubmitSender};
