//! Blobs on disk and on the wire: bytes named by their BLAKE3, kept once, checked whenever they come or go.
//!
//! ```text
//!   a client's bytes --> Draft ----name known----.
//!                                                 v
//!   peers' segments --> Partial --all there--> whole blob --> Reader --> peers, clients, tasks
//!                          '--> Reader (what is there already)
//! ```
//! What is on the disk under a blob's name is that blob, or it is found out: a segment is checked against the [`Outline`] before it is
//! written, and whoever reads for somebody who does not check reads through [`Reader::checked`]. A blob counts as here only once its
//! bytes and its name are durable. What is zeros is a hole in its file, and counts as if it were not. Everything here blocks; callers
//! bring a thread.
//!
//! Files, in the directory of the store:
//! ```text
//!   whole/ab/abcd...      a blob                        part/abcd...          what there is of one, at its place
//!   sealed/ab/abcd...     one that is kept encrypted
//!   outline/ab/abcd...    32 bytes a segment            part/abcd....outline  what it shall be
//!   draft/7               bytes whose name is not known part/abcd....map      which segments are there
//!   pins                  names that an operator pinned
//! ```

mod body;
mod books;
mod carried;
mod draft;
mod error;
mod fetch;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod lanes;
mod outline;
mod pace;
mod packing;
mod partial;
mod reader;
mod recent;
mod route;
mod scrub;
mod serve;
mod spare;
mod store;
#[cfg(test)]
mod tests;

pub use books::{Change, Held, Pin};
pub use carried::Carried;
pub use draft::Draft;
pub use error::StoreError;
pub use fetch::{Connecting, FetchError, Fetcher, Progress, Reach, SourceAt};
pub use keys::KeyAt;
pub use lanes::Lanes;
pub use outline::{BadOutline, Outline, Outliner};
pub use pace::Paces;
pub use partial::{Partial, Written};
pub use reader::Reader;
pub use route::{Route, Routes};
pub use scrub::is_sound;
pub use serve::serve;
pub use store::{Begun, Checked, Store};

/// tokio's clock, so that simulated time counts.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
