//! For `tests/fuzz`: a log's segments, made as the log makes them.

use super::{
    batch,
    record::{self, Record, State},
    recover::Segment,
};

/// The name of the segment that begins with that batch.
pub(crate) fn name(first: u64) -> String {
    Segment::name(first)
}

/// A batch as it lies on the disk.
pub(crate) fn batch(epoch: u64, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut sectors = Vec::new();
    batch::encode(epoch, sequence, body, &mut sectors);
    sectors
}

/// The record that a segment begins with where nothing came before it.
pub(crate) fn beginning() -> Vec<u8> {
    let mut body = Vec::new();
    record::encode(&Record::State(State::default()), &mut body);
    body
}
