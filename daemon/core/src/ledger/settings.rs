//! What is set for the whole swarm.

use std::collections::BTreeMap;

use swarm_proto::{
    Code, Problem,
    ledger::{Applied, What},
    limits,
    settings::{Key, Set, SettingRecord, mebibytes},
};

use super::Ledger;

impl Ledger {
    pub(super) fn set(&mut self, set: &Set) -> Result<Applied, Problem> {
        let key = Key::named(&set.key)?;
        if set.by.len() > limits::NAME {
            return Err(Problem::new(Code::BadRequest, format!("{} was not set", set.key), "nobody has a name as long as that"));
        }
        let encoded = postcard::to_stdvec(set).expect("a change is plain data");
        self.journal.hash.add_bytes(&encoded);
        let (at, changed) = (self.journal.now, self.journal.index);
        match &set.value {
            Some(value) => {
                key.check(value)?;
                if self.settings.get(key.word()).is_some_and(|record| record.value == *value) {
                    return Ok(Applied::Done);
                }
                let record = SettingRecord { value: value.clone(), by: set.by.clone(), at, changed };
                self.settings.insert(key.word().to_owned(), record);
            }
            None if self.settings.remove(key.word()).is_none() => return Ok(Applied::Done),
            None => {}
        }
        if key == Key::LedgerMemory {
            self.fit(self.memory_allowed());
        }
        self.touch_identity();
        self.journal.emit(What::SettingChanged { key: key.word().to_owned(), value: set.value.clone(), by: set.by.clone() });
        Ok(Applied::Done)
    }

    /// In MiB; `None`: nobody has set it.
    pub(super) fn memory_allowed(&self) -> Option<u32> {
        self.setting(Key::LedgerMemory).and_then(mebibytes)
    }

    /// Holds no more than so many MiB allow from now on. What has ended is forgotten for it; what is open stays, and nothing more is taken
    /// until there is room.
    pub(super) fn fit(&mut self, mebibytes: Option<u32>) {
        self.allow(mebibytes);
        self.journal.forget(self.bounds.events);
        self.forget_what_is_too_much();
    }

    /// From now on, without forgetting anything for it.
    pub(super) fn allow(&mut self, mebibytes: Option<u32>) {
        self.bounds = self.most.within(mebibytes);
        self.journal.capacity = self.bounds.events;
    }

    /// What is set for one key.
    pub fn setting(&self, key: Key) -> Option<&str> {
        self.settings.get(key.word()).map(|record| record.value.as_str())
    }

    /// What is set, by key.
    pub const fn settings(&self) -> &BTreeMap<String, SettingRecord> {
        &self.settings
    }
}
