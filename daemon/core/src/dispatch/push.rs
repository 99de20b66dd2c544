//! What workers are sent: grants with what is needed to run them, cancellations, views.
//!
//! A job's spec goes with a grant unless the worker has an attempt of that job from this same stream: so a worker need not remember specs
//! of jobs of which it has nothing, and an array's spec is sent once as long as its tasks overlap. Messages are cut well below the frame
//! limit; a grant is cut only between tasks.

use std::collections::BTreeMap;

use swarm_proto::{
    JobId, LogIndex, NodeId, TaskId,
    ledger::{Grant, View},
    peer::{GrantedJob, ToWorker},
};

use super::{
    Dispatch, size,
    worker::{Key, Pushed, of_job},
};
use crate::ledger::{Job, Ledger};

/// Encoded bytes of grants in one message: with one more spec and its items it still fits a frame.
const PUSH_BYTES: usize = 512 << 10;
/// Attempts named in one cancellation: a quarter of a frame.
const CANCELS: usize = 8_192;

/// A message of grants in the making.
#[derive(Default)]
struct Parcel {
    jobs: Vec<GrantedJob>,
    /// Where in `jobs` an array is that may get further items.
    arrays: BTreeMap<JobId, usize>,
    grants: Vec<Grant>,
    bytes: usize,
}

impl Dispatch {
    /// Sends committed grants, in this order, if the worker is connected; otherwise its next report will ask for them.
    pub(super) fn push(&mut self, node: NodeId, grants: Vec<Grant>, ledger: &Ledger) {
        let mut parcel = Parcel::default();
        for grant in grants {
            if parcel.bytes >= PUSH_BYTES {
                self.send(node, std::mem::take(&mut parcel));
            }
            let Some(job) = self.memory.book(ledger, grant.job).job(grant.job) else { continue };
            let Some(worker) = self.workers.get_mut(&node) else { return };
            let Some(stream) = worker.stream.map(|stream| stream.number) else { return };
            let pushed = Pushed::To { life: worker.life, stream };
            let is_single = job.array().count == 1;
            let is_known = !is_single && worker.held.range(of_job(grant.job)).any(|(_, held)| held.pushed == pushed);
            for index in (0..grant.count).map(|n| grant.first + n) {
                if let Some(held) = worker.held.get_mut(&(TaskId { job: grant.job, index }, grant.fence)) {
                    held.pushed = pushed;
                }
            }
            parcel.add(grant, job, is_known);
        }
        self.send(node, parcel);
    }

    fn send(&mut self, node: NodeId, parcel: Parcel) {
        if !parcel.grants.is_empty() {
            self.say(node, ToWorker::Grants { jobs: parcel.jobs, grants: parcel.grants });
        }
    }

    /// Sends grants again that nobody received, oldest first: a worker that hears only some of them has then heard the oldest.
    pub(super) fn push_again(&mut self, node: NodeId, mut keys: Vec<Key>, ledger: &Ledger) {
        keys.sort_unstable_by_key(|(task, fence)| (*fence, *task));
        let mut grants: Vec<Grant> = Vec::new();
        for (TaskId { job, index }, fence) in keys {
            match grants.last_mut() {
                Some(last) if last.job == job && last.fence == fence && last.first + last.count == index => last.count += 1,
                _ => grants.push(Grant { job, first: index, count: 1, fence, node }),
            }
        }
        self.push(node, grants, ledger);
    }

    /// Has a connected worker kill these, if it has them.
    pub(super) fn cancel(&mut self, node: NodeId, keys: &[Key]) {
        if self.workers.get(&node).is_some_and(|worker| worker.stream.is_some()) {
            keys.chunks(CANCELS).for_each(|some| self.say(node, ToWorker::Cancel(some.to_vec())));
        }
    }

    /// Tells connected workers what is new about members and voters, if anything is.
    pub(super) fn push_views(&mut self, ledger: &Ledger) {
        let news = ledger.view(self.view);
        if news.nodes.is_empty() && news.voters == self.voters && ledger.identity_changed() <= self.view {
            return;
        }
        self.view = news.version;
        self.voters.clone_from(&news.voters);
        let mut deltas: BTreeMap<LogIndex, View> = BTreeMap::new();
        for (node, worker) in &mut self.workers {
            let Some(stream) = worker.stream.as_mut().filter(|stream| stream.view < news.version) else { continue };
            let view = deltas.entry(stream.view).or_insert_with(|| ledger.view(stream.view)).clone();
            stream.view = news.version;
            self.outputs.push_back(super::Output::ToWorker { node: *node, message: ToWorker::View(view) });
        }
    }
}

impl Parcel {
    fn add(&mut self, grant: Grant, job: &Job, is_known: bool) {
        let array = job.array();
        let indices = (0..grant.count).map(|n| grant.first + n);
        let items: BTreeMap<u32, String> =
            if array.items.is_empty() { BTreeMap::new() } else { indices.map(|index| (index, array.item(index))).collect() };
        self.bytes += size::SMALL + items.values().map(|item| item.len() + size::SMALL).sum::<usize>();
        self.grants.push(grant);
        if let Some(at) = self.arrays.get(&grant.job) {
            self.jobs[*at].items.extend(items);
        } else if !is_known || !items.is_empty() {
            if array.count > 1 {
                self.arrays.insert(grant.job, self.jobs.len());
            }
            self.bytes += size::spec(job.spec());
            self.jobs.push(GrantedJob { job: grant.job, spec: job.spec().clone(), is_array: array.is_array, items });
        }
    }
}
