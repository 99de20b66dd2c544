//! What a batch's body is made of: records, one after the other, each in postcard.

use serde::{Deserialize, Serialize};

use super::content::Content;
use crate::wire;

/// One thing that the log remembers. The order of variants is the format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    /// The first record of every segment: what was true before it.
    State(State),
    Vote(wire::Vote),
    Entry(wire::Entry),
    /// Entries after this one are void.
    Truncate(Option<wire::LogId>),
    /// Entries up to this one are in a snapshot.
    Purge(wire::LogId),
    /// Entries up to this one were committed.
    Committed(wire::LogId),
}

/// What a segment needs to know of those before it, which may be gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    vote: Option<wire::Vote>,
    pub(super) purged: Option<wire::LogId>,
    last: Option<wire::LogId>,
    /// A hint, and as such not compared when a log is read back.
    committed: Option<wire::LogId>,
}

impl State {
    pub(super) fn of(content: &Content) -> Self {
        Self {
            vote: content.vote.as_ref().map(Into::into),
            purged: content.purged.as_ref().map(Into::into),
            last: content.last().as_ref().map(Into::into),
            committed: content.committed.as_ref().map(Into::into),
        }
    }

    /// A log of which only this is known.
    pub(super) fn content(&self) -> Content {
        let mut content = Content::after(self.last.map(Into::into));
        content.purged = self.purged.map(Into::into);
        content.vote = self.vote.map(Into::into);
        content.committed = self.committed.map(Into::into);
        content
    }

    /// Whether this is where `content` stands; takes the hint over.
    pub(super) fn continues(&self, content: &mut Content) -> bool {
        content.committed = self.committed.map(Into::into);
        *self == Self::of(content)
    }

    /// Follows the record.
    pub(super) fn note(&mut self, record: &Record) {
        match record {
            Record::State(state) => *self = *state,
            Record::Vote(vote) => self.vote = Some(*vote),
            Record::Entry(entry) => self.last = Some(entry.id),
            Record::Truncate(to) => {
                if to.map(index) < self.last.map(index) {
                    self.last = *to;
                }
            }
            Record::Purge(upto) => {
                for mark in [&mut self.purged, &mut self.last] {
                    if mark.map(index) < Some(upto.index()) {
                        *mark = Some(*upto);
                    }
                }
            }
            Record::Committed(id) => self.committed = Some(*id),
        }
    }
}

fn index(id: wire::LogId) -> u64 {
    id.index()
}

/// Splits a body into its records.
pub(super) fn decode(mut body: &[u8]) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let (record, rest) = postcard::take_from_bytes(body).map_err(|e| format!("a record does not decode: {e}"))?;
        records.push(record);
        body = rest;
    }
    Ok(records)
}

/// Adds a record to a body.
pub(super) fn encode(record: &Record, body: &mut Vec<u8>) {
    let bytes = std::mem::take(body);
    *body = postcard::to_extend(record, bytes).expect("a record has nothing that postcard cannot write");
}

/// Does to the content what the record says; why not, when it does not fit.
pub(super) fn replay(record: Record, content: &mut Content) -> Result<(), String> {
    match record {
        Record::State(_) => return Err("a segment begins in the middle of another".into()),
        Record::Vote(vote) => content.vote = Some(vote.into()),
        Record::Entry(entry) => {
            let entry = entry.into_engine()?;
            let (index, next) = (entry.log_id.index, content.next());
            if !content.push(entry) {
                return Err(format!("entry {index} where {next} belongs"));
            }
        }
        Record::Truncate(last) => content.truncate(last.map(Into::into)),
        Record::Purge(upto) => content.purge(upto.into()),
        Record::Committed(id) => content.committed = Some(id.into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn random_bodies_are_refused_or_replayed(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut content = Content::default();
            for record in decode(&body).unwrap_or_default() {
                let mut state = State::of(&content);
                state.note(&record);
                let _ = replay(record, &mut content);
            }
        }
    }
}
