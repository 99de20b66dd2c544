//! Work that carries its submitter's signature, from the machine where it was asked for to the one that runs it.
//!
//! What is signed is not the JSON that travelled but what it means: the checked spec, the indices and items, the idempotency key, the
//! swarm, and a time after which it must not begin. Each is a digest or a fixed number of bytes behind a tag of its own, so no
//! two submissions have the same bytes. A node that demands signatures trusts nobody on the way: not the node that took the submission,
//! not the leader that granted it. It knows the submitter's key from the ledger's view, and remembers which job a key was for.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    ClusterId, Code, PeerKey, Problem, UnixMillis, limits,
    spec::{Array, JobSpec},
};

/// What the bytes begin with.
const TAG: &[u8] = b"swarm submit 1\0";
/// Bytes of an Ed25519 signature.
pub const SIGNATURE: usize = 64;

/// A signature, and what it covers beside the spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Whose signature.
    pub by: PeerKey,
    /// The idempotency key.
    pub key: String,
    /// All indices and items of the job.
    pub array: Array,
    /// No attempt begins after it.
    pub not_after: UnixMillis,
    /// Ed25519 (RFC 8032) over [`message`].
    pub signature: Bytes,
}

impl Signed {
    /// Whether its parts have the sizes that they must have.
    ///
    /// # Errors
    /// [`Code::BadRequest`] naming the part that has not.
    pub fn check(&self) -> Result<(), Problem> {
        let bad = |why: String| Err(Problem::new(Code::BadRequest, "the signature is not acceptable", why));
        if self.signature.len() != SIGNATURE {
            return bad(format!("it has {} bytes, not {SIGNATURE}", self.signature.len()));
        }
        if !(1..=limits::NAME).contains(&self.key.len()) {
            return bad(format!("it is for a key of {} bytes; a key has 1 to {}", self.key.len(), limits::NAME));
        }
        self.array.check()
    }
}

/// The bytes that are signed. A signature that the spec carries already is not a part of them.
pub fn message(cluster: &ClusterId, spec: &JobSpec, key: &str, array: &Array, not_after: UnixMillis) -> Vec<u8> {
    let bare = JobSpec { signed: None, ..spec.clone() };
    let digest = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
    let of = |encoded: postcard::Result<Vec<u8>>| digest(&encoded.expect("a submission is plain data"));
    let (spec, array) = (of(postcard::to_stdvec(&bare)), of(postcard::to_stdvec(array)));
    [TAG, &cluster.0, &spec, &array, &digest(key.as_bytes()), &not_after.0.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SubmitRequest;

    #[test]
    fn every_part_changes_the_bytes_and_the_signature_does_not() {
        let request = |argv: &str| SubmitRequest { argv: vec![argv.into()], key: Some("k".into()), ..SubmitRequest::default() };
        let (spec, array) = request("true").into_job("linux").expect("a job");
        let (other, _) = request("false").into_job("linux").expect("a job");
        let (cluster, at) = (ClusterId([1; 16]), UnixMillis(7));
        let signed = message(&cluster, &spec, "k", &array, at);
        let more = Array { count: 2, is_array: true, ..array.clone() };
        for changed in [
            message(&ClusterId([2; 16]), &spec, "k", &array, at),
            message(&cluster, &other, "k", &array, at),
            message(&cluster, &spec, "l", &array, at),
            message(&cluster, &spec, "k", &more, at),
            message(&cluster, &spec, "k", &array, UnixMillis(8)),
        ] {
            assert_ne!(changed, signed);
        }
        let signature =
            Signed { by: PeerKey([3; 32]), key: "k".into(), array: array.clone(), not_after: at, signature: vec![4; 64].into() };
        let carried = JobSpec { signed: Some(Box::new(signature)), ..spec };
        assert_eq!(message(&cluster, &carried, "k", &array, at), signed);
    }
}
