//! What can go wrong with a blob.

use std::{io, path::PathBuf};

use swarm_proto::{Code, Digest, Problem, limits};

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The quota leaves no room, whatever else is given up.
    #[error("{needs} bytes more are needed and {free} of the quota of {quota} are free")]
    Full {
        /// Bytes that were asked for.
        needs: u64,
        /// Bytes that could be had.
        free: u64,
        /// The quota.
        quota: u64,
    },
    /// The disk is full.
    #[error("the disk is full: {0}")]
    DiskFull(io::Error),
    /// More than a blob may have.
    #[error("{0} bytes, and a blob has at most {max}", max = limits::BLOB)]
    TooLarge(u64),
    /// What is on the disk is not the blob; nothing of it was given out.
    #[error("{} of blob {digest} changed on the disk", parts(segments))]
    Damaged {
        /// Which blob.
        digest: Digest,
        /// Which segments; none: it cannot be told which.
        segments: Vec<u32>,
    },
    /// A blob that is not here.
    #[error("blob {0} is not here")]
    Missing(Digest),
    /// It is kept encrypted, or shall be, and the key is not there.
    #[error("the key of encrypted blobs, {}, cannot be used: {why}", path.display())]
    NoKey {
        /// Where the key should be.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A blob that was encrypted with another key than this node's.
    #[error("blob {0} is encrypted with another key than the one that is here")]
    Locked(Digest),
    /// Whoever put it went away before its end.
    #[error("its bytes broke off before their end")]
    Abandoned,
    /// The disk failed.
    #[error("{what} cannot be read or written: {source}")]
    Io {
        /// What was at hand.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

fn parts(segments: &[u32]) -> String {
    if segments.is_empty() { "something".to_owned() } else { format!("{} segments", segments.len()) }
}

impl StoreError {
    /// As somebody is told who asked for something.
    pub fn problem(&self, what: &str) -> Problem {
        let code = match self {
            Self::Full { .. } | Self::DiskFull(_) => Code::NoSpace,
            Self::TooLarge(_) | Self::Abandoned => Code::BadRequest,
            Self::Missing(_) => Code::NotFound,
            Self::NoKey { .. } | Self::Locked(_) => Code::NotReady,
            Self::Damaged { .. } | Self::Io { .. } => Code::Internal,
        };
        let problem = Problem::new(code, what, self.to_string());
        match self {
            Self::Full { .. } => problem.hint("free some with `swarmctl blob gc`, or raise [blobs] quota"),
            Self::DiskFull(_) => problem.hint("make room on the disk of the state directory"),
            Self::NoKey { .. } | Self::Locked(_) => {
                problem.hint("put the key back where it was ([blobs] key_file), and start the daemon again")
            }
            Self::TooLarge(_) | Self::Abandoned | Self::Missing(_) | Self::Damaged { .. } | Self::Io { .. } => problem,
        }
    }

    /// Whether another copy may be better: a sector that cannot be read is no better than one that changed.
    pub const fn is_rot(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Io { .. })
    }

    pub(crate) fn io(what: &'static str, source: io::Error) -> Self {
        let is_full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if is_full { Self::DiskFull(source) } else { Self::Io { what, source } }
    }
}
