//! Idempotency keys: which job a (submitter, key) made, and of which content, for a day of log time.
//!
//! Names and contents are kept as 16 bytes of BLAKE3 each, so a key costs about 90 bytes whatever its length. Keys leave in the
//! order in which they came, a few with every entry, so that no entry pays for a day's worth at once; one that is over its
//! time counts as gone even while it is still here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_proto::{JobId, PeerKey, UnixMillis, ledger::Submit, limits, spec::JobSpec};

use super::queue::Queue;

/// So many places of forgotten names may stay beside as many as there are names.
const SLACK: usize = 1_024;
/// Expired keys dropped with each log entry.
const DROPPED_AN_ENTRY: usize = 256;

/// One remembered key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    pub(super) at: UnixMillis,
    pub(super) name: u128,
    pub(super) content: u128,
    pub(super) job: JobId,
}

impl KeyRecord {
    const fn is_over(&self, now: UnixMillis) -> bool {
        now.0.saturating_sub(self.at.0) as u128 >= limits::KEY_LIFE.as_millis()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Keys {
    records: Queue<KeyRecord>,
    /// Number of the first record; the map holds numbers, so that it need not change when records leave.
    base: u64,
    by_name: BTreeMap<u128, u64>,
}

fn short(hasher: &blake3::Hasher) -> u128 {
    let digest = hasher.finalize();
    u128::from_le_bytes(*digest.as_bytes().first_chunk().expect("a digest has 32 bytes"))
}

/// Names a (submitter, key).
pub(super) fn name_of(submitter: &str, key: &str) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(submitter.len() as u64).to_le_bytes()).update(submitter.as_bytes()).update(key.as_bytes());
    short(&hasher)
}

/// Names the key of something signed: it is its signer's, whoever hands it in.
fn name_of_signed(by: &PeerKey, key: &str) -> u128 {
    let mut hasher = blake3::Hasher::new();
    // no submitter's name is as long
    hasher.update(&u64::MAX.to_le_bytes()).update(&by.0).update(key.as_bytes());
    short(&hasher)
}

/// Names the key of a submission, if it has one.
pub(super) fn name_of_submit(submit: &Submit) -> Option<u128> {
    let key = submit.key.as_ref()?;
    Some(match &submit.spec.signed {
        Some(signed) => name_of_signed(&signed.by, key),
        None => name_of(&submit.submitter, key),
    })
}

/// Names what is submitted. A second signature over the same is the same.
pub(super) fn content_of(submit: &Submit) -> u128 {
    let bare = submit.spec.signed.is_some().then(|| JobSpec { signed: None, ..(*submit.spec).clone() });
    let spec = bare.as_ref().unwrap_or(&submit.spec);
    let encoded = postcard::to_stdvec(&(spec, &submit.array, submit.retry_of)).expect("a submission is plain data");
    let mut hasher = blake3::Hasher::new();
    hasher.update(&encoded);
    short(&hasher)
}

impl Keys {
    /// The record of a name, if it is not over.
    pub(super) fn find(&self, name: u128, now: UnixMillis) -> Option<&KeyRecord> {
        let number = self.by_name.get(&name)?;
        let record = self.records.get(usize::try_from(number - self.base).ok()?)?;
        (!record.is_over(now)).then_some(record)
    }

    pub(super) fn insert(&mut self, record: KeyRecord) {
        self.by_name.insert(record.name, self.base + self.records.len() as u64);
        self.records.push_back(record);
    }

    /// Forgets a name before its time. Its place is given back with others: a few steps each, one with another.
    pub(super) fn forget(&mut self, name: u128) {
        if self.by_name.remove(&name).is_none() || self.records.len() < 2 * self.by_name.len() + SLACK {
            return;
        }
        let all = std::mem::take(&mut self.records);
        let (base, by_name) = (self.base, std::mem::take(&mut self.by_name));
        for (number, record) in (base..).zip(all.iter()) {
            if by_name.get(&record.name) == Some(&number) {
                self.insert(*record);
            }
        }
    }

    /// Drops some of those that are over.
    pub(super) fn expire(&mut self, now: UnixMillis) {
        for _ in 0..DROPPED_AN_ENTRY {
            if !self.drop_first(now) {
                return;
            }
        }
    }

    /// Whether one more can be taken; makes room if the oldest is over.
    pub(super) fn has_room(&mut self, bound: usize, now: UnixMillis) -> bool {
        self.records.len() < bound || self.drop_first(now)
    }

    fn drop_first(&mut self, now: UnixMillis) -> bool {
        let Some(record) = self.records.front().copied().filter(|record| record.is_over(now)) else { return false };
        self.records.pop_front();
        // the name may have been used again since
        if self.by_name.get(&record.name) == Some(&self.base) {
            self.by_name.remove(&record.name);
        }
        self.base += 1;
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All as they are now, the oldest first.
    pub(super) fn records(&self) -> Queue<KeyRecord> {
        self.records.clone()
    }

    pub(super) fn sanity_check(&self) -> Result<(), String> {
        if self.by_name.len() > self.records.len() {
            return Err(format!("{} names for {} keys", self.by_name.len(), self.records.len()));
        }
        for (at, record) in self.records.iter().enumerate() {
            let number = self.by_name.get(&record.name).copied().unwrap_or(0);
            if number < self.base + at as u64 {
                return Err(format!("key {at} of {} is not found by its name", record.job));
            }
        }
        let is_sorted = self.records.iter().zip(self.records.from(1)).all(|(one, next)| one.at <= next.at);
        if is_sorted { Ok(()) } else { Err("keys are not in the order of their time".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: u128) -> KeyRecord {
        KeyRecord { at: UnixMillis(1), name, content: 0, job: JobId(1) }
    }

    /// One that stays in front of all others does not keep their places.
    #[test]
    fn forgotten_names_leave_no_places_behind() {
        let mut keys = Keys::default();
        keys.insert(record(0));
        for name in 1..10_000 {
            keys.insert(record(name));
            assert!(keys.find(name, UnixMillis(1)).is_some());
            keys.forget(name);
            assert!(keys.find(name, UnixMillis(1)).is_none() && keys.find(0, UnixMillis(1)).is_some());
            assert!(keys.records.len() <= SLACK + 4, "{} places", keys.records.len());
        }
        keys.forget(0);
        keys.forget(0);
        assert!(keys.find(0, UnixMillis(1)).is_none() && keys.by_name.is_empty());
    }
}
