//! Blobs, as clients see them.

use serde::{Deserialize, Serialize};

use crate::{Digest, NodeId, Problem};

/// One blob and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobView {
    /// Its name: the BLAKE3 of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// A node keeps it encrypted.
    pub encrypted: bool,
    /// Who has all of it.
    pub holders: Vec<HolderView>,
}

/// A node that has a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    pub node: NodeId,
    pub name: String,
}

/// A blob was put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPut {
    pub digest: Digest,
    pub size: u64,
}

/// What is asked of this one node about its blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobCall {
    /// Keep it here until it is unpinned; it is fetched if it is not here.
    Pin(Digest),
    Unpin(Digest),
    /// Read it again, and heal what has changed on the disk.
    Verify(Digest),
    /// Remove what nobody needs, until at most so many bytes are used.
    Collect {
        keep: u64,
    },
    /// What is here.
    Store,
}

/// What a [`BlobCall`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobReply {
    Done,
    Verified(Verified),
    Collected(Collected),
    Store(StoreView),
}

/// What reading a blob again has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    pub digest: Digest,
    /// Segments that had changed on the disk, or all of them where it could not be told which.
    pub damaged: u32,
    /// All of it is sound now.
    pub is_sound: bool,
}

/// What a collection has freed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    pub freed: u64,
    pub used: u64,
}

/// The blobs of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// Bytes that are used or set aside.
    pub used: u64,
    pub quota: u64,
    pub blobs: Vec<StoredView>,
}

/// One blob of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredView {
    pub digest: Digest,
    pub size: u64,
    /// It is kept encrypted here.
    pub encrypted: bool,
    /// Who needs it: `hand`, or a job.
    pub pins: Vec<String>,
}

/// To which nodes a blob is brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushRequest {
    /// Ids or names; `all`: every member.
    pub to: Vec<String>,
}

/// What is to be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CollectRequest {
    /// Bytes that may stay.
    pub keep: u64,
}

/// One line of how a blob gets to nodes. Of each node the last one is `held` or `failed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlobLine {
    Progress {
        node: String,
        have: u64,
        size: u64,
        sources: Vec<BlobSource>,
    },
    /// It is there for good.
    Held {
        node: String,
    },
    Failed {
        node: String,
        problem: Problem,
    },
}

/// Who gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobSource {
    pub node: String,
    /// Bytes so far.
    pub bytes: u64,
    /// Bytes a second, lately.
    pub rate: u64,
}
