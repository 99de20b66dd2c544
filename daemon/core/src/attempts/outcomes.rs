//! Outcomes on their way into the ledger: sent in batches, repeated on a new stream, forgotten when taken.

use std::collections::btree_map::Entry;

use swarm_proto::{
    ledger::{End, Finish},
    peer::FromWorker,
    spec::Work,
};

use super::{Attempts, GATHER, Key, Output, State};

/// Encoded bytes of outcomes that one message carries at most; a control frame holds twice as much.
const OUTCOMES_BYTES: usize = 512 << 10;

impl Attempts {
    /// An ended attempt is of no more use here. One that was granted once without its job, and then with it, has an end and runs.
    pub(super) fn remove(&mut self, key: Key) {
        let Entry::Occupied(held) = self.attempts.entry(key) else { return };
        if held.get().state != State::Ended {
            return;
        }
        let attempt = held.remove();
        if attempt.was_started && attempt.spec.work != Work::Noop {
            self.outputs.push_back(Output::Forget { task: key.0, fence: key.1 });
        }
    }

    /// Something has begun or ended: unless it waited for that, it is told at once, with all that was gathered.
    pub(super) fn gather(&mut self, has_waited: bool) {
        let is_first = self.started.is_empty() && self.unsent.is_empty();
        self.gathering = match self.gathering {
            _ if !has_waited => None,
            None if is_first => Some(self.now + GATHER),
            since_before => since_before,
        };
    }

    pub(super) fn is_gathering(&self) -> bool {
        !self.is_draining && !self.queue.is_empty() && self.gathering.is_some_and(|until| self.now < until)
    }

    pub(super) fn taken(&mut self, seq: u64) {
        while self.untaken.front().is_some_and(|(sent, _)| *sent <= seq) {
            let Some((_, finish)) = self.untaken.pop_front() else { return };
            self.remove((finish.task, finish.fence));
        }
    }

    pub(super) fn outcomes(&mut self) -> FromWorker {
        self.outcome_seq += 1;
        let seq = self.outcome_seq;
        let (mut list, mut bytes) = (Vec::new(), 0);
        while let Some(finish) = self.unsent.front() {
            bytes += finish_bytes(finish);
            if bytes > OUTCOMES_BYTES && !list.is_empty() {
                break;
            }
            let Some(finish) = self.unsent.pop_front() else { break };
            self.untaken.push_back((seq, finish.clone()));
            list.push(finish);
        }
        FromWorker::Outcomes { seq, list }
    }
}

/// An upper bound of a finish's encoded size.
fn finish_bytes(finish: &Finish) -> usize {
    let output = finish.outcome.output.as_ref().map_or(0, |o| o.stdout.len() + o.stderr.len() + 128);
    let reason = match &finish.outcome.end {
        End::Spawn(why) | End::Refused(why) | End::Input(why) | End::Output(why) => why.len(),
        End::Succeeded | End::Exit(_) | End::Signal(_) | End::Timeout | End::Cancelled | End::Lost => 0,
    };
    96 + output + reason
}
