//! Why a task is, or is not, running.

use std::time::Instant;

use swarm_proto::{
    Digest, NodeId, TaskId,
    api::{Explain, Health, InputKind, InputReason, NodeReason, Reason, Verdict},
    ledger::{End, TaskState},
    limits,
    manifest::Tree,
    spec::JobSpec,
};

use super::{Dispatch, loss, worker::Worker};
use crate::{
    ledger::{Job, Ledger},
    placement,
};

/// Earlier jobs that are counted; beyond this, `ahead` is "at least".
const JOBS_COUNTED: usize = 10_000;

impl Dispatch {
    /// The typed answer; `None` if there is no such task. One look a node and at most [`JOBS_COUNTED`] at earlier jobs.
    pub fn explain(&self, task: TaskId, ledger: &Ledger, now: Instant) -> Option<Explain> {
        let state = ledger.task_state(task)?;
        let job = ledger.job(task.job)?;
        if state.is_terminal() {
            let verdict = Verdict::Ended(state);
            return Some(Explain { task, state, verdict, nodes: Vec::new(), ahead: 0, inputs: Vec::new(), files: files_end(task, ledger) });
        }
        let nodes = self.reasons(job.spec(), ledger, now);
        let (verdict, ahead) = match ledger.current_fence(task).filter(|_| state == TaskState::Assigned) {
            Some((node, _)) => (self.whereabouts(task, node, job.spec(), now), 0),
            None => (outlook(&nodes), ahead(job, task, ledger)),
        };
        Some(Explain { task, state, verdict, nodes, ahead, inputs: self.inputs(job.spec()), files: files_end(task, ledger) })
    }

    /// What has to come to whoever runs it, and who has it.
    fn inputs(&self, spec: &JobSpec) -> Vec<InputReason> {
        let trees = [(InputKind::Inputs, spec.inputs), (InputKind::Each, spec.each)].into_iter().zip(placement::heavy(spec));
        let trees = trees.filter_map(|((kind, tree), heavy)| {
            let Tree { manifest, files, bytes } = tree?;
            Some(self.input(kind, manifest, (files, bytes), heavy.is_some()))
        });
        trees.chain(spec.items.map(|list| self.input(InputKind::Items, list.digest, (1, list.size), false))).collect()
    }

    fn input(&self, kind: InputKind, digest: Digest, (files, bytes): (u32, u64), is_preferred: bool) -> InputReason {
        let mut holders: Vec<NodeId> = self.directory.get(digest).map(|known| known.holders().collect()).unwrap_or_default();
        let held_by = u32::try_from(holders.len()).unwrap_or(u32::MAX);
        holders.truncate(limits::EXPLAINED);
        InputReason { kind, digest, files, bytes, holders, held_by, is_preferred, coming: Vec::new(), failed: Vec::new() }
    }

    fn reasons(&self, spec: &JobSpec, ledger: &Ledger, now: Instant) -> Vec<NodeReason> {
        let unseen = Worker::new(now);
        let members = ledger.nodes().filter(|record| !record.is_gone);
        let reason = |node| placement::reason(spec, &self.workers.get(&node).unwrap_or(&unseen).standing(node));
        members.map(|record| NodeReason { node: record.id, name: record.name.clone(), reason: reason(record.id) }).collect()
    }

    /// Where an assigned task is, and what happens if its node does not come back.
    fn whereabouts(&self, task: TaskId, node: NodeId, spec: &JobSpec, now: Instant) -> Verdict {
        let worker = self.workers.get(&node);
        if worker.is_some_and(|worker| worker.is_task_running(task) && is_reachable(worker)) {
            return Verdict::Running { node };
        }
        let Some(worker) = worker.filter(|worker| !is_reachable(worker)) else { return Verdict::WaitsAtNode { node } };
        let over = loss::lease_over(worker, &self.settings, self.began);
        // a node that is about to be called Down: at the earliest from now on
        let absence = match loss::absence(worker, &self.settings, self.began) {
            loss::Absence::None | loss::Absence::Lapsed(_) => loss::Absence::Down(now),
            absence @ (loss::Absence::Down(_) | loss::Absence::Left(_)) => absence,
        };
        let due = loss::due(spec, absence, over, self.settings.patience);
        let in_ms = due.map(|due| u64::try_from(due.at.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX));
        Verdict::NodeUnreachable { node, on_partition: spec.on_partition, in_ms }
    }
}

/// How its last attempt ended, where its files are why.
fn files_end(task: TaskId, ledger: &Ledger) -> Option<End> {
    ledger.task_view(task)?.end.filter(|end| matches!(end, End::Input(_) | End::Output(_)))
}

const fn is_reachable(worker: &Worker) -> bool {
    worker.stream.is_some() && !matches!(worker.health, Health::Down)
}

/// What all nodes' reasons come to for a pending task.
fn outlook(nodes: &[NodeReason]) -> Verdict {
    if nodes.is_empty() {
        Verdict::NoNodes
    } else if nodes.iter().any(|node| node.reason == Reason::Fits) {
        Verdict::Next
    } else if nodes.iter().any(|node| node.reason.is_passing()) {
        Verdict::NoRoomNow
    } else {
        Verdict::NobodyCan
    }
}

/// Pending tasks whose turn is earlier.
fn ahead(job: &Job, task: TaskId, ledger: &Ledger) -> u64 {
    let earlier = ledger.open_jobs().take_while(|id| *id < job.id()).take(JOBS_COUNTED);
    let of_earlier: u64 = earlier.filter_map(|id| ledger.job(id)).map(|job| job.counts().pending).sum();
    let ranges = ledger.pending_ranges(task.job, task.index.saturating_sub(job.array().first));
    let of_own: u64 = ranges.iter().map(|(first, count)| u64::from((*count).min(task.index.saturating_sub(*first)))).sum();
    of_earlier + of_own
}
