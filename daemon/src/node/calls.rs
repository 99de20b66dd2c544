//! Calls of the API, answered at the leader's desk. Every read first has a majority confirm that this node still leads.

pub(crate) mod identity;

use std::{collections::BTreeSet, sync::Arc};

use swarm_core::{
    blobs::Known,
    dispatch::Dispatch,
    ledger::{Job, Ledger},
};
use swarm_proto::{
    Code, Digest, JobId, NodeId, Problem, TaskId,
    api::{BlobView, Call, HolderView, LeaderView, NodeView, Reply, SettingView, Stats, TaskView},
    ledger::{Applied, Command, NodeRecord, Submit, TaskState},
    limits,
    settings::{Key, Set},
    spec::Array,
};

use super::{
    Node,
    desk::{Desk, Sight, commit, inspect, no_leader},
    peers::Table,
    split,
};

/// Answers one call at the desk of this node.
pub(crate) async fn answer(node: &Arc<Node>, desk: &Desk, submitter: &str, call: Call) -> Result<Reply, Problem> {
    match call {
        Call::CancelJob { job } => change(desk, Command::CancelJob { job }).await,
        Call::CancelTask { task } => change(desk, Command::CancelTask { task }).await,
        Call::RetryJob { job, key } => retry(node, desk, submitter, job, None, key).await,
        Call::RetryTask { task, key } => retry(node, desk, submitter, task.job, Some(task.index), key).await,
        Call::Schedule { node: name, to } => {
            let id = read(node, desk, move |sight| named(sight.ledger, &name).map(|record| record.id)).await??;
            change(desk, Command::Schedule { node: id, to }).await
        }
        Call::Resign => resign(node).await,
        Call::Set { key, value } => change(desk, Command::Set(Set { key, value, by: submitter.to_owned() })).await,
        about_identity @ (Call::CreateToken(_)
        | Call::Tokens
        | Call::RevokeToken { .. }
        | Call::CreateUser(_)
        | Call::Users
        | Call::RevokeUser { .. }
        | Call::Revoke { .. }
        | Call::Leave { .. }
        | Call::Authorities
        | Call::RotateCa(_)
        | Call::CreatePass(_)) => identity::answer(node, desk, submitter, about_identity).await,
        read_only @ (Call::Jobs { .. }
        | Call::Job { .. }
        | Call::Tasks { .. }
        | Call::Task { .. }
        | Call::Explain { .. }
        | Call::Nodes
        | Call::Node { .. }
        | Call::Leader
        | Call::Stats
        | Call::Settings
        | Call::Events { .. }
        | Call::Blobs { .. }
        | Call::Blob { .. }) => look(node, desk, read_only).await,
    }
}

async fn look(node: &Arc<Node>, desk: &Desk, call: Call) -> Result<Reply, Problem> {
    let context = Context::of(node);
    read(node, desk, move |sight| context.reply(call, sight)).await?
}

/// A linearizable look at dispatch and ledger.
async fn read<T: Send + 'static>(node: &Arc<Node>, desk: &Desk, look: impl FnOnce(&Sight<'_>) -> T + Send + 'static) -> Result<T, Problem> {
    let consensus = node.consensus.as_ref().ok_or_else(|| no_leader("the call was not answered"))?;
    consensus.read_barrier().await.map_err(|_| no_leader("the call was not answered"))?;
    inspect(desk, look).await
}

async fn change(desk: &Desk, command: Command) -> Result<Reply, Problem> {
    match commit(desk, command).await?.1 {
        Applied::Refused(problem) => Err(problem),
        Applied::Accepted { job, is_new } => Ok(Reply::Accepted { job, is_new }),
        Applied::Done
        | Applied::Granted(_)
        | Applied::Finished { .. }
        | Applied::Stale
        | Applied::Admitted(_)
        | Applied::Reserved { .. } => Ok(Reply::Done),
    }
}

/// A new job of the tasks that did not succeed; of an array, each range of them would be its own job, so their items are listed.
async fn retry(
    node: &Arc<Node>,
    desk: &Desk,
    submitter: &str,
    job: JobId,
    index: Option<u32>,
    key: Option<String>,
) -> Result<Reply, Problem> {
    let submitter = submitter.to_owned();
    let submit = read(node, desk, move |sight| retry_of(sight.dispatch.book(sight.ledger, job), submitter, job, index, key)).await??;
    change(desk, Command::Submit(submit)).await
}

fn retry_of(ledger: &Ledger, submitter: String, job: JobId, index: Option<u32>, key: Option<String>) -> Result<Submit, Problem> {
    let original = ledger.job(job).ok_or_else(|| no_job(job))?;
    let indices: Vec<u32> = match index {
        Some(index) => vec![index],
        None => unsuccessful(ledger, job),
    };
    if let Some(index) = index.filter(|index| !failed(ledger, job, *index)) {
        let task = TaskId { job, index };
        let state = ledger.task_state(task).ok_or_else(|| no_task(task))?;
        return Err(Problem::new(
            Code::Conflict,
            format!("{task} is not tried again"),
            format!("it is {state:?}, and only what failed, was lost or was cancelled can be"),
        ));
    }
    if indices.is_empty() {
        return Err(Problem::new(
            Code::Conflict,
            format!("{job} is not tried again"),
            "none of its tasks failed, was lost or was cancelled",
        ));
    }
    let array = if original.array().is_array { subset(original.array(), &indices)? } else { Array::single() };
    let spec = original.spec().clone();
    if spec.signed.is_some() {
        return Err(Problem::new(
            Code::Conflict,
            format!("{job} is not tried again"),
            "its submitter signed it, and a signature is for one job",
        )
        .hint("submit it again, signed: swarmctl submit --sign"));
    }
    Ok(Submit { submitter, key, spec, array, retry_of: Some(job) })
}

fn unsuccessful(ledger: &Ledger, job: JobId) -> Vec<u32> {
    let states = [TaskState::Failed, TaskState::Lost, TaskState::Cancelled];
    let mut indices: Vec<u32> = states.into_iter().flat_map(|state| ledger.task_indices(job, Some(state), None, usize::MAX)).collect();
    indices.sort_unstable();
    indices
}

fn failed(ledger: &Ledger, job: JobId, index: u32) -> bool {
    match ledger.task_state(TaskId { job, index }) {
        Some(TaskState::Failed | TaskState::Lost | TaskState::Cancelled) => true,
        Some(TaskState::Pending | TaskState::Assigned | TaskState::Succeeded) | None => false,
    }
}

/// The chosen indices as an array of their own: with the same indices where they follow each other, else by their items.
fn subset(array: &Array, indices: &[u32]) -> Result<Array, Problem> {
    let (first, count) = (indices[0], u32::try_from(indices.len()).unwrap_or(u32::MAX));
    let is_range = indices[indices.len() - 1] - first + 1 == count;
    let is_listed = !(is_range && array.items.is_empty());
    // an item takes a byte at least: no list is made that cannot be taken
    if is_listed && indices.len() > limits::INLINE_INPUT {
        let why = format!("{count} of its tasks did not succeed, with others between them: a list of them would be too long");
        return Err(Problem::new(Code::BadRequest, "the job is not tried again", why).hint("single tasks can be: swarmctl task retry TASK"));
    }
    let items = if is_listed { indices.iter().map(|index| array.item(*index)).collect() } else { Vec::new() };
    let subset = Array { first: if is_range { first } else { 0 }, count, is_array: true, items };
    subset.check()?;
    Ok(subset)
}

async fn resign(node: &Arc<Node>) -> Result<Reply, Problem> {
    let consensus = node.consensus.as_ref().ok_or_else(|| no_leader("the leader does not resign"))?;
    let alive = |id: &NodeId| *id != node.me && node.peers.health(*id) == swarm_proto::api::Health::Alive;
    let heir = consensus.role().borrow().voters.iter().copied().find(alive);
    let Some(heir) = heir else {
        return Err(Problem::new(Code::Conflict, "the leader does not resign", "there is no other voter that is alive to take over")
            .hint("add nodes: from three on, three of them vote"));
    };
    consensus.transfer_leader(heir).await.map_err(|e| Problem::new(Code::Conflict, "the leader does not resign", e.to_string()))?;
    Ok(Reply::Done)
}

fn no_job(job: JobId) -> Problem {
    Problem::new(
        Code::NotFound,
        format!("there is no job {job}"),
        "it never was, it ended so long ago that it was forgotten, or it was in the memory of a leader that is gone (--durability async)",
    )
    .hint("`swarmctl job list` shows those that are known")
}

fn no_task(task: TaskId) -> Problem {
    Problem::new(Code::NotFound, format!("there is no task {task}"), "its job is not known, or the job has no such index")
        .hint("`swarmctl task list` shows those that are known")
}

fn no_blob(digest: Digest) -> Problem {
    Problem::new(Code::NotFound, format!("there is no blob {digest}"), "no node that is connected to the leader holds it")
        .hint("`swarmctl blob list` shows those that are known")
}

fn blob(ledger: &Ledger, digest: Digest, known: &Known) -> BlobView {
    let name = |node: NodeId| ledger.node(node).map_or_else(|| node.to_string(), |record| record.name.clone());
    let holders = known.holders().map(|node| HolderView { node, name: name(node) }).collect();
    BlobView { digest, size: known.size(), encrypted: known.is_sealed(), holders }
}

fn named<'a>(ledger: &'a Ledger, name: &str) -> Result<&'a NodeRecord, Problem> {
    ledger.node_named(name).ok_or_else(|| {
        Problem::new(Code::NotFound, format!("there is no node '{name}'"), "no member has this name or id")
            .hint("`swarmctl node list` shows the members")
    })
}

/// What a reply needs besides dispatch and ledger, taken before the look.
struct Context {
    me: NodeId,
    peers: Table,
    voters: Vec<NodeId>,
    standbys: Vec<NodeId>,
    warning: String,
    now: std::time::Instant,
}

impl Context {
    fn of(node: &Arc<Node>) -> Self {
        let (voters, standbys) = node.consensus.as_ref().map_or_else(Default::default, |consensus| {
            let role = consensus.role();
            let role = role.borrow();
            (role.voters.iter().copied().collect(), role.learners.iter().copied().collect())
        });
        Self {
            me: node.me,
            peers: node.peers.current(),
            voters,
            standbys,
            warning: super::voters::warning_of(node).unwrap_or_default(),
            now: tokio::time::Instant::now().into_std(),
        }
    }

    fn reply(&self, call: Call, sight: &Sight<'_>) -> Result<Reply, Problem> {
        let Sight { dispatch, ledger, .. } = *sight;
        Ok(match call {
            Call::Jobs { before, limit, open_only } => {
                let is_asked = |job: &&Job| before.is_none_or(|before| job.id() < before) && (!open_only || job.is_open());
                let some = |of: &Ledger| of.jobs().rev().filter(is_asked).take(page(limit)).map(Job::id).collect::<BTreeSet<JobId>>();
                let ids = &some(ledger) | &some(dispatch.memory());
                let views = ids.iter().rev().take(page(limit)).filter_map(|job| dispatch.book(ledger, *job).job_view(*job));
                Reply::Jobs(views.collect())
            }
            Call::Job { job } => Reply::Job(Box::new(dispatch.book(ledger, job).job_view(job).ok_or_else(|| no_job(job))?)),
            Call::Tasks { job, state, after, limit } => Reply::Tasks(self.tasks(dispatch, ledger, job, state, after, page(limit))?),
            Call::Task { task } => Reply::Task(Box::new(show(dispatch, ledger, task).ok_or_else(|| no_task(task))?)),
            Call::Explain { task } => {
                let mut explain = dispatch.explain(task, dispatch.book(ledger, task.job), self.now).ok_or_else(|| no_task(task))?;
                explain.inputs.iter_mut().for_each(|input| sight.owed.explain(input));
                Reply::Explain(Box::new(explain))
            }
            Call::Nodes => {
                Reply::Nodes(ledger.nodes().filter(|record| !record.is_gone).map(|record| self.node(dispatch, record)).collect())
            }
            Call::Node { node } => Reply::Node(Box::new(self.node(dispatch, named(ledger, &node)?))),
            Call::Leader => Reply::Leader(self.leader(sight)),
            Call::Settings => Reply::Settings(settings(ledger)),
            Call::Stats => Reply::Stats(Box::new(self.stats(sight))),
            Call::Events { after, limit } => Reply::Events {
                begins: ledger.events_begin(),
                events: ledger.events_after(after.unwrap_or_default(), page(limit)).cloned().collect(),
            },
            Call::Blobs { after, limit } => {
                let mut room = split::ROOM;
                let all = dispatch.directory().after(after).take(page(limit)).map(|(digest, known)| blob(ledger, *digest, known));
                // at least one, however many hold it; a page that ends early is followed by another one
                let fits = |blob: &BlobView| {
                    let is_first = room == split::ROOM;
                    room = room.saturating_sub(swarm_proto::frame::weight(blob));
                    is_first || room > 0
                };
                Reply::Blobs(all.take_while(fits).collect())
            }
            Call::Blob { digest } => Reply::Blob(blob(ledger, digest, dispatch.directory().get(digest).ok_or_else(|| no_blob(digest))?)),
            Call::CancelJob { .. }
            | Call::CancelTask { .. }
            | Call::RetryJob { .. }
            | Call::RetryTask { .. }
            | Call::Schedule { .. }
            | Call::Resign
            | Call::CreateToken(_)
            | Call::Tokens
            | Call::RevokeToken { .. }
            | Call::CreateUser(_)
            | Call::Users
            | Call::RevokeUser { .. }
            | Call::Revoke { .. }
            | Call::Leave { .. }
            | Call::Authorities
            | Call::RotateCa(_)
            | Call::CreatePass(_)
            | Call::Set { .. } => {
                return Err(Problem::new(Code::Internal, "the call was not answered", "a change was taken for a question"));
            }
        })
    }

    fn tasks(
        &self,
        dispatch: &Dispatch,
        ledger: &Ledger,
        job: Option<JobId>,
        state: Option<TaskState>,
        after: Option<TaskId>,
        limit: usize,
    ) -> Result<Vec<TaskView>, Problem> {
        if let Some(job) = job.filter(|job| dispatch.book(ledger, *job).job(*job).is_none()) {
            return Err(no_job(job));
        }
        let from = after.map_or(JobId(0), |after| after.job);
        let is_asked = |known: &JobId| *known >= from && job.is_none_or(|job| job == *known);
        let mut in_memory = dispatch.memory().jobs().map(Job::id).filter(is_asked).peekable();
        let mut in_log = ledger.jobs().map(Job::id).filter(is_asked).peekable();
        // by id; one that is being recorded is in both
        let jobs = std::iter::from_fn(|| {
            let next = in_memory.peek().into_iter().chain(in_log.peek()).min().copied()?;
            in_memory.next_if_eq(&next);
            in_log.next_if_eq(&next);
            Some(next)
        });
        let mut found = Vec::new();
        for job in jobs {
            let after = after.filter(|after| after.job == job).map(|after| after.index);
            let indices = dispatch.book(ledger, job).task_indices(job, state, after, limit - found.len());
            found.extend(indices.into_iter().filter_map(|index| show(dispatch, ledger, TaskId { job, index })));
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    fn node(&self, dispatch: &Dispatch, record: &NodeRecord) -> NodeView {
        let figures = dispatch.node_figures(record.id);
        let meta = figures.meta.clone().or_else(|| self.peers.get(&record.id).and_then(|peer| peer.meta.clone()));
        let health = if record.id == self.me { swarm_proto::api::Health::Alive } else { figures.health };
        let of_meta = meta.as_deref();
        NodeView {
            node: record.id,
            name: record.name.clone(),
            health,
            is_leader: record.id == self.me,
            is_voter: self.voters.contains(&record.id),
            may_vote: record.may_vote,
            schedule: record.schedule,
            addrs: record.addrs,
            software: of_meta.map(|m| m.software.clone()).unwrap_or_default(),
            os: of_meta.map(|m| m.os.clone()).unwrap_or_default(),
            arch: of_meta.map(|m| m.arch.clone()).unwrap_or_default(),
            capacity: of_meta.map(|m| m.capacity.clone()).unwrap_or_default(),
            labels: of_meta.map(|m| m.labels.clone()).unwrap_or_default(),
            executors: of_meta.map(|m| m.executors.clone()).unwrap_or_default(),
            load: figures.load,
            assigned: figures.assigned,
            running: figures.running,
            key: record.key.to_string(),
        }
    }

    fn leader(&self, &Sight { term, ledger, .. }: &Sight<'_>) -> LeaderView {
        LeaderView {
            node: self.me,
            name: ledger.node(self.me).map(|record| record.name.clone()).unwrap_or_default(),
            term,
            voters: self.voters.clone(),
            standbys: self.standbys.clone(),
            warning: self.warning.clone(),
        }
    }

    fn stats(&self, sight: &Sight<'_>) -> Stats {
        let Sight { term, dispatch, ledger, throughput, .. } = *sight;
        let (counts, in_memory) = (ledger.counts(), dispatch.memory().counts());
        let nodes: Vec<NodeView> = ledger.nodes().filter(|record| !record.is_gone).map(|record| self.node(dispatch, record)).collect();
        let online = nodes.iter().filter(|node| node.health == swarm_proto::api::Health::Alive);
        let mut by_label = std::collections::BTreeMap::new();
        for node in online.clone() {
            for (key, value) in &node.labels {
                *by_label.entry(format!("{key}={value}")).or_insert(0) += 1;
            }
        }
        let ended = counts.succeeded + counts.failed + counts.cancelled + counts.lost;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people; 2^52 tasks are far away")]
        let success_rate = (ended > 0).then(|| counts.succeeded as f64 / ended as f64);
        Stats {
            nodes: nodes.len() as u64,
            nodes_online: online.clone().count() as u64,
            nodes_busy: online.filter(|node| node.assigned > 0).count() as u64,
            nodes_by_label: by_label,
            tasks_pending: counts.pending + in_memory.pending,
            tasks_assigned: counts.assigned + in_memory.assigned,
            tasks_running: dispatch.running(),
            tasks_succeeded: counts.succeeded,
            tasks_failed: counts.failed,
            tasks_cancelled: counts.cancelled,
            tasks_lost: counts.lost,
            success_rate,
            throughput,
            jobs_open: ledger.open_job_count() + dispatch.memory().open_job_count(),
            jobs_ended: ledger.jobs_ended(),
            results_refused: ledger.results_refused(),
            leader: Some(self.me),
            term,
            log_index: ledger.applied(),
        }
    }
}

/// Everything that can be set, and to what it is.
fn settings(ledger: &Ledger) -> Vec<SettingView> {
    let view = |key: Key| {
        let record = ledger.settings().get(key.word());
        SettingView {
            key: key.word().into(),
            value: record.map(|record| record.value.clone()),
            by: record.map(|record| record.by.clone()),
            at: record.map(|record| record.at),
            applies: key.applies(),
        }
    };
    Key::ALL.into_iter().map(view).collect()
}

fn page(limit: u32) -> usize {
    (limit as usize).clamp(1, limits::PAGE)
}

fn show(dispatch: &Dispatch, ledger: &Ledger, task: TaskId) -> Option<TaskView> {
    let mut view = dispatch.book(ledger, task.job).task_view(task)?;
    view.running = dispatch.is_running(task);
    Some(view)
}
