//! What peers send in frames.

use serde::{Serialize, de::DeserializeOwned};
use swarm_proto::{
    Problem,
    api::{Call, Reply},
    blob::{BlobAnswer, BlobNews, BlobRequest, BringRequest, SegmentRange},
    frame::{self, HEADER},
    identity::{Applicant, EnrollAnswer, Petition, Renewed},
    ledger::{Batch, Command, Submit, View},
    peer::{EventPage, FromSubmitDesk, FromWorker, Hello, Joined, NodeMeta, Open, OutputChunk, ToSubmitDesk, ToWorker},
};
use swarm_transport::fuzzing;

use crate::input::Input;

/// The first byte of an input says which of these the rest is. The order is part of the corpus: append.
pub(crate) const KINDS: &[fn(&[u8])] = &[
    |body| drop(read::<Open>(body)),
    |body| drop(read::<Hello>(body)),
    |body| drop(read::<Result<Joined, Problem>>(body)),
    |body| drop(read::<NodeMeta>(body)),
    |body| drop(read::<FromWorker>(body)),
    |body| drop(read::<ToWorker>(body)),
    submissions,
    |body| drop(read::<FromSubmitDesk>(body)),
    |body| drop(read::<EventPage>(body)),
    |body| drop(read::<OutputChunk>(body)),
    view,
    |body| drop(read::<BlobRequest>(body)),
    |body| drop(read::<BlobAnswer>(body)),
    |body| drop(read::<BlobNews>(body)),
    |body| drop(read::<BringRequest>(body)),
    ranges,
    |body| drop(read::<Petition>(body)),
    |body| drop(read::<Applicant>(body)),
    |body| drop(read::<EnrollAnswer>(body)),
    |body| drop(read::<Result<Renewed, Problem>>(body)),
    |body| drop(read::<Call>(body)),
    |body| drop(read::<Result<Reply, Problem>>(body)),
    |body| drop(read::<Batch>(body)),
    |body| drop(read::<Command>(body)),
    |body| drop(read::<Result<Hello, Problem>>(body)),
];

/// A stream, with the bound on its frames and the length of the pieces in which it comes before it. What is cut out of it is what
/// somebody sees who has all of it at once.
pub(crate) fn frames(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (limit, piece) = (input.number() as usize, usize::from(input.byte()) + 1);
    let stream = input.rest();
    let (mut bodies, mut rest, mut is_long) = (Vec::new(), stream, false);
    while let Some((header, behind)) = rest.split_first_chunk::<HEADER>() {
        let len = u32::from_le_bytes(*header) as usize;
        is_long = len > limit;
        let Some(body) = behind.get(..len).filter(|_| !is_long) else { break };
        bodies.push(body);
        rest = &behind[len..];
    }
    let mut cut = 0;
    let left = fuzzing::frames(stream, piece, limit, |body| {
        assert_eq!(bodies.get(cut), Some(&body), "the frame {cut} is another one");
        cut += 1;
    });
    assert_eq!((cut, left.ok()), (bodies.len(), (!is_long).then_some(rest.len())));
}

pub(crate) fn messages(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    KINDS[usize::from(*kind) % KINDS.len()](body);
}

/// What decodes is written back in no more bytes, weighs what it has, and reads the same.
fn read<T: Serialize + DeserializeOwned>(body: &[u8]) -> Option<T> {
    let message = frame::decode::<T>(body).ok()?;
    let again = frame::encode(&message, body.len()).expect("what was read is written in no more bytes");
    assert_eq!(frame::weight(&message), again.len() - HEADER, "a message weighs what it has");
    let twice = frame::encode(&frame::decode::<T>(&again[HEADER..]).expect("what was written is read"), body.len());
    assert_eq!(twice.as_ref(), Ok(&again), "a message that changes");
    Some(message)
}

fn submissions(body: &[u8]) {
    let Some(ToSubmitDesk::Submit(list)) = read(body) else { return };
    for Submit { spec, array, .. } in list.into_iter().map(|numbered| numbered.submit) {
        if spec.check().is_ok() && spec.check_array(&array).is_ok() {
            let _ = (array.item(array.first), array.item(array.last()), spec.owings().count());
        }
    }
}

fn view(body: &[u8]) {
    if let Some(view) = read::<View>(body) {
        let _ = view.canonical();
    }
}

fn ranges(body: &[u8]) {
    for range in read::<Vec<SegmentRange>>(body).unwrap_or_default() {
        let _ = range.end();
    }
}
