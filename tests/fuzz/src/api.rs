//! What clients send over HTTP, and what they are answered.

use http::Uri;
use serde::{Serialize, de::DeserializeOwned};
use swarm_api::fuzzing;
use swarm_proto::{
    Problem,
    api::{
        BlobLine, Choices, CollectRequest, JobOutcome, JobView, JoinRequest, NodeView, PassRequest, PushRequest, RotateRequest, Stats,
        Status, SubmitLine, SubmitRequest, TaskView, TokenRequest, UserRequest,
    },
    http::{LogLine, RetryRequest, SetRequest},
    ledger::Event,
};

use crate::input::Input;

/// The first byte of an input says which of these the rest is. The order is part of the corpus: append.
pub(crate) const KINDS: &[fn(&[u8])] = &[
    lines,
    submit,
    same::<TokenRequest>,
    same::<UserRequest>,
    same::<PassRequest>,
    same::<RotateRequest>,
    same::<Choices>,
    same::<JoinRequest>,
    same::<PushRequest>,
    same::<CollectRequest>,
    same::<RetryRequest>,
    same::<SetRequest>,
    same::<SubmitLine>,
    same::<BlobLine>,
    same::<LogLine>,
    same::<JobOutcome>,
    same::<JobView>,
    same::<TaskView>,
    same::<NodeView>,
    same::<Stats>,
    same::<Status>,
    same::<Event>,
    same::<Problem>,
    query,
];

pub(crate) fn bodies(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    KINDS[usize::from(*kind) % KINDS.len()](body);
}

/// A stream of submissions, cut where its first byte says.
fn lines(bytes: &[u8]) {
    let mut input = Input(bytes);
    let piece = usize::from(input.byte()) + 1;
    let body = input.rest();
    let count = fuzzing::lines(body, piece);
    assert_eq!(count, fuzzing::lines(body, body.len()), "where a body is cut makes a difference");
}

fn submit(body: &[u8]) {
    same::<SubmitRequest>(body);
    let Ok(request) = serde_json::from_slice::<SubmitRequest>(body) else { return };
    if let Ok((spec, array)) = request.into_job("linux") {
        assert_eq!((spec.check(), spec.check_array(&array)), (Ok(()), Ok(())), "a job that is taken and not acceptable");
    }
}

/// What is read is written, and read the same again.
fn same<T: Serialize + DeserializeOwned>(body: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(body) else { return };
    let written = serde_json::to_vec(&value).expect("what was read is written");
    let again: T = serde_json::from_slice(&written).expect("what was written is read");
    assert_eq!(serde_json::to_vec(&again).expect("written"), written, "a body that changes");
}

fn query(text: &[u8]) {
    if let Ok(uri) = Uri::try_from([b"/?", text].concat()) {
        let _ = fuzzing::wait(&uri);
    }
}
