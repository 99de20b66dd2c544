//! What nodes are told of tasks before they are theirs, so that files come while something else still runs there.
//!
//! Files of a whole job go to a few nodes that may run it next. Where each task has a file of its own, each node is told of one task:
//! it gets that one when it has room, as long as it is pending, and others go before it only where nothing else is left for them. That
//! is no grant: nothing waits for a node that is told of a task and does not take it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use swarm_proto::{
    Digest, JobId, NodeId, TaskId,
    ledger::{Assign, Command, JobRef, TaskState},
    manifest::Tree,
    peer::ToWorker,
};

use super::{
    Dispatch,
    queue::{GroupId, Slice},
    worker::Worker,
};
use crate::{ledger::Ledger, placement};

/// Nodes that are told of the files of one job, and how many such words are remembered.
const NODES: usize = 4;
const REMEMBERED: usize = 4_096;
/// Nodes that are told of a task in one pass.
const TASKS: usize = 64;

/// Who was told what.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// By manifest; forgotten as a whole when that is much.
    trees: BTreeSet<(NodeId, Digest)>,
    /// The next task of each, and whose next each of them is.
    tasks: BTreeMap<NodeId, TaskId>,
    nodes: BTreeMap<TaskId, NodeId>,
}

impl Hints {
    /// Whether a node was told of files of a job.
    pub(super) fn is_told(&self, node: NodeId, job: JobId, inputs: Option<Digest>) -> bool {
        inputs.is_some_and(|tree| self.trees.contains(&(node, tree))) || self.tasks.get(&node).is_some_and(|task| task.job == job)
    }

    fn promise(&mut self, node: NodeId, task: TaskId) {
        self.tasks.insert(node, task);
        self.nodes.insert(task, node);
    }

    /// The node needs another word: its task has gone somewhere, or it has.
    fn forget(&mut self, node: NodeId) {
        if let Some(task) = self.tasks.remove(&node) {
            self.nodes.remove(&task);
        }
    }

    /// These are granted to somebody.
    pub(super) fn granted(&mut self, job: JobId, first: u32, count: u32) {
        let (first, last) = (TaskId { job, index: first }, TaskId { job, index: first.saturating_add(count.saturating_sub(1)) });
        let told: Vec<NodeId> = self.nodes.range(first..=last).map(|(_, node)| *node).collect();
        told.into_iter().for_each(|node| self.forget(node));
    }

    /// Takes the node's task out of those that are handed out. It takes the place of the last one of its job where it is not among
    /// them. `None`: it is not to be had any more, or another job's turn.
    pub(super) fn take(&self, node: NodeId, slices: &mut VecDeque<Slice>, ledger: &Ledger) -> Option<Slice> {
        let task = *self.tasks.get(&node)?;
        let job = JobRef::Known(task.job);
        let holds = |slice: &Slice| slice.job == job && (slice.first..slice.first + slice.count).contains(&task.index);
        let (at, out) = match slices.iter().position(holds) {
            Some(at) => (at, task.index),
            None if ledger.task_state(task) == Some(TaskState::Pending) => {
                let last = slices.iter().rposition(|slice| slice.job == job)?;
                (last, slices[last].first + slices[last].count - 1)
            }
            None => return None,
        };
        let Slice { first, count, .. } = slices.remove(at)?;
        let rest = [(out + 1, first + count - out - 1), (first, out - first)];
        for (first, count) in rest.into_iter().filter(|(_, count)| *count > 0) {
            slices.insert(at, Slice { job, first, count });
        }
        Some(Slice { job, first: task.index, count: 1 })
    }
}

impl Dispatch {
    /// Tasks of this group wait for room. Nodes that may run them next can have their files brought meanwhile. `entry`: what is granted
    /// before.
    pub(super) fn hint(&mut self, group: GroupId, entry: &[Command], ledger: &Ledger) {
        let group = self.queue.group(group);
        let (Some(job), spec) = (group.next_job(), group.spec.clone()) else { return };
        let [inputs, each] = placement::heavy(&spec);
        if inputs.is_none() && each.is_none() {
            return;
        }
        let held = |(node, worker): (&NodeId, &Worker)| {
            let standing = worker.standing(*node);
            placement::room(&spec, None, &standing).map(|_| (standing.held, *node))
        };
        let mut nodes: Vec<(u32, NodeId)> = self.workers.iter().filter_map(held).collect();
        nodes.sort_unstable();
        let nodes: Vec<NodeId> = nodes.into_iter().map(|(_, node)| node).collect();
        if let Some(tree) = spec.inputs.filter(|_| inputs.is_some()) {
            self.hint_tree(job, tree, &nodes);
        }
        if let Some(tree) = spec.each.filter(|_| each.is_some()) {
            self.hint_tasks(job, tree, nodes, entry, ledger);
        }
    }

    fn hint_tree(&mut self, job: JobId, tree: Tree, nodes: &[NodeId]) {
        let holders: BTreeSet<NodeId> = self.directory.get(tree.manifest).map(|known| known.holders().collect()).unwrap_or_default();
        if self.hints.trees.len() > REMEMBERED {
            self.hints.trees.clear();
        }
        for node in nodes.iter().copied().filter(|node| !holders.contains(node)).take(NODES) {
            if self.hints.trees.insert((node, tree.manifest)) {
                self.say(node, ToWorker::Hint { job, tree, place: None });
            }
        }
    }

    fn hint_tasks(&mut self, job: JobId, tree: Tree, mut nodes: Vec<NodeId>, entry: &[Command], ledger: &Ledger) {
        let Some(of_job) = ledger.job(job) else { return };
        let is_pending = |task: TaskId| ledger.task_state(task) == Some(TaskState::Pending);
        let is_over = |(node, task): &(&NodeId, &TaskId)| !nodes.contains(node) || !is_pending(**task);
        let over: Vec<NodeId> = self.hints.tasks.iter().filter(is_over).map(|(node, _)| *node).collect();
        over.into_iter().for_each(|node| self.hints.forget(node));
        nodes.retain(|node| !self.hints.tasks.contains_key(node));
        nodes.truncate(TASKS);
        if nodes.is_empty() {
            return;
        }
        // the ledger does not know of these yet
        let range = |command: &Command| {
            let Command::Assign(Assign { job: JobRef::Known(of), first, count, .. }) = command else { return None };
            (*of == job).then_some((*first, *count))
        };
        let granted: Vec<(u32, u32)> = entry.iter().filter_map(range).collect();
        let told = self.hints.nodes.range(TaskId { job, index: 0 }..=TaskId { job, index: u32::MAX }).count();
        let beyond =
            granted.iter().fold(u32::try_from(told + nodes.len()).unwrap_or(u32::MAX), |sum, (_, count)| sum.saturating_add(*count));
        let is_free = |index: &u32| {
            let is_granted = granted.iter().any(|(first, count)| (*first..first + count).contains(index));
            !is_granted && !self.hints.nodes.contains_key(&TaskId { job, index: *index })
        };
        let pending = ledger.pending_ranges(job, beyond).into_iter().flat_map(|(first, count)| first..first + count);
        let free: Vec<u32> = pending.filter(is_free).take(nodes.len()).collect();
        let array = of_job.array();
        for (node, index) in nodes.into_iter().zip(free) {
            let place = if array.items.is_empty() { Some(index) } else { array.item(index).parse().ok() };
            self.hints.promise(node, TaskId { job, index });
            self.say(node, ToWorker::Hint { job, tree, place });
        }
    }
}
