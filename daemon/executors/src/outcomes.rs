//! How attempts ended: told to the daemon at once, and again to each that comes, until one says that it need not be kept.
//!
//! The same on every system; how an attempt is started, watched and ended is not.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use swarm_core::attempts::{Boot, Recovered};
use swarm_proto::{
    UnixMillis,
    ledger::{End, Outcome, Output},
    limits::{INLINE_RESULT, KEPT_OUTPUT},
    peer::Stream,
    spec::JobSpec,
};

use crate::{
    host::{boot_now, wall_now},
    link::Link,
    output::{
        kept::{self, Written},
        record::Record,
    },
    protocol::{FromKeeper, Key, STREAMS},
};

/// What an attempt runs, and since when.
pub(crate) struct Life {
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) started: UnixMillis,
    pub(crate) started_boot: Boot,
}

impl Life {
    /// It begins now, or would have.
    pub(crate) fn begun(spec: &Arc<JobSpec>) -> Self {
        Self { spec: Arc::clone(spec), started: wall_now(), started_boot: boot_now() }
    }

    /// As a daemon hears of it.
    pub(crate) fn told(&self, (task, fence): Key, lease_until: Boot) -> Recovered {
        let Self { started, started_boot, .. } = *self;
        Recovered { task, fence, spec: Arc::clone(&self.spec), started, started_boot, lease_until, outcome: None }
    }
}

/// Those that no daemon has put where they belong.
pub(crate) struct Outcomes {
    outputs: PathBuf,
    kept: BTreeMap<Key, (Recovered, [Written; 2])>,
}

impl Outcomes {
    /// What attempts write is kept in `outputs`.
    pub(crate) const fn new(outputs: PathBuf) -> Self {
        Self { outputs, kept: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(crate) fn holds(&self, key: Key) -> bool {
        self.kept.contains_key(&key)
    }

    pub(crate) fn forget(&mut self, keys: &[Key]) {
        keys.iter().for_each(|key| drop(self.kept.remove(key)));
    }

    /// For what an attempt writes to its standard output, of which so much is kept, and to its standard error.
    pub(crate) fn records(&self, key: Key, stdout_limit: u64) -> [Record; 2] {
        STREAMS.map(|stream| {
            let limit = match stream {
                Stream::Stdout => stdout_limit.max(KEPT_OUTPUT),
                Stream::Stderr => KEPT_OUTPUT,
            };
            Record::new(kept::path(&self.outputs, key, stream), limit)
        })
    }

    /// Tells a daemon that has just come all of them.
    pub(crate) fn tell_all<S: Read + Write>(&self, link: &mut Link<S>) {
        for (ended, written) in self.kept.values() {
            link.say(&FromKeeper::Recovered(ended.clone(), *written));
        }
    }

    /// The whole tree of an attempt is gone, and all that it wrote is in its records.
    pub(crate) fn conclude<S: Read + Write>(
        &mut self,
        link: Option<&mut Link<S>>,
        attempt: Recovered,
        records: [&mut Record; 2],
        end: End,
    ) {
        let written = records.each_ref().map(|record| record.written());
        if written.iter().any(|of| of.kept_bytes < of.bytes || of.bytes > INLINE_RESULT as u64) {
            // without it, a later reader does not learn how much is missing, nor whether the rest is what was written
            let _ = kept::save_written(&self.outputs, (attempt.task, attempt.fence), written);
        }
        let [stdout, stderr] = records.map(|record| Bytes::from(record.take_head()));
        let [stdout_len, stderr_len] = written.map(|of| of.bytes);
        let output = (stdout_len + stderr_len > 0)
            .then(|| Box::new(Output { stdout, stderr, stdout_len, stderr_len, stdout_blob: None, files: None }));
        let outcome = Outcome { end, started: attempt.started, ended: wall_now(), output };
        self.tell(link, attempt, outcome, written);
    }

    /// The attempt never ran.
    pub(crate) fn end_unrun<S: Read + Write>(&mut self, link: Option<&mut Link<S>>, attempt: Recovered, end: End) {
        let outcome = Outcome { end, started: attempt.started, ended: attempt.started, output: None };
        self.tell(link, attempt, outcome, [Written::default(); 2]);
    }

    fn tell<S: Read + Write>(&mut self, link: Option<&mut Link<S>>, attempt: Recovered, outcome: Outcome, written: [Written; 2]) {
        let (task, fence) = (attempt.task, attempt.fence);
        if let Some(link) = link.filter(|link| link.is_greeted) {
            link.say(&FromKeeper::Ended { task, fence, outcome: outcome.clone(), written });
        }
        self.kept.insert((task, fence), (Recovered { outcome: Some(outcome), ..attempt }, written));
    }
}
