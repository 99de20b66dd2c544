mod identity;
mod limits;
mod model;
mod random;
mod rules;
mod snapshots;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use swarm_proto::{
    ClusterId, Fence, JobId, LogIndex, NodeId, PeerKey, RaftDir, TaskId, UnixMillis,
    identity::{Authority, Found, Secret},
    ledger::{Addrs, Admit, Applied, Assign, Batch, Command, End, Finish, Grant, JobRef, Outcome, Submit},
    spec::{Array, JobSpec, Work},
};

use super::{Ledger, bounds::Bounds};

fn noop() -> JobSpec {
    JobSpec::new(Work::Noop)
}

fn admit(key: u8, raft: u8, name: &str) -> Admit {
    let addr = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let addrs = Addrs { control: addr(4747), bulk: addr(4748) };
    Admit { key: PeerKey([key; 32]), raft: RaftDir([raft; 16]), name: name.into(), addrs, may_vote: true }
}

/// A new swarm's first change.
fn founding() -> Found {
    let authority = |byte: u8| Authority { certificate: vec![byte; 40].into(), key: Secret(vec![byte; 48].into()) };
    let first = [1, 2, 3, 4].map(|key| PeerKey([key; 32])).into();
    Found { cluster: ClusterId([1; 16]), nodes: authority(0), users: authority(100), first }
}

fn submit(spec: &Arc<JobSpec>, array: Array) -> Command {
    Command::Submit(Submit { submitter: "local".into(), key: None, spec: Arc::clone(spec), array, retry_of: None })
}

fn keyed(key: &str, spec: &Arc<JobSpec>) -> Command {
    let submit =
        Submit { submitter: "local".into(), key: Some(key.into()), spec: Arc::clone(spec), array: Array::single(), retry_of: None };
    Command::Submit(submit)
}

fn array(first: u32, count: u32) -> Array {
    Array { first, count, is_array: true, items: Vec::new() }
}

fn assign(job: u64, first: u32, count: u32) -> Command {
    Command::Assign(Assign { job: JobRef::Known(JobId(job)), first, count, node: NodeId(1) })
}

fn task(job: u64, index: u32) -> TaskId {
    TaskId { job: JobId(job), index }
}

fn finish(task: TaskId, fence: Fence, end: End) -> Command {
    Command::Finish(Finish { task, fence, outcome: Outcome { end, started: UnixMillis(5), ended: UnixMillis(6), output: None } })
}

/// A ledger with one node, applied entry by entry.
struct Desk {
    ledger: Ledger,
    now: u64,
}

impl Desk {
    fn new() -> Self {
        Self::with(Bounds::STANDARD)
    }

    fn with(bounds: Bounds) -> Self {
        let mut desk = Self { ledger: Ledger::with_bounds(bounds), now: 1_000 };
        assert_eq!(desk.one(Command::Admit(admit(1, 1, "desk"))), Applied::Admitted(NodeId(1)));
        desk
    }

    fn all(&mut self, commands: Vec<Command>) -> Vec<Applied> {
        let index = LogIndex(self.ledger.applied().0 + 1);
        let applied = self.ledger.apply(index, &Batch { at: UnixMillis(self.now), commands });
        self.ledger.sanity_check().unwrap();
        applied
    }

    fn one(&mut self, command: Command) -> Applied {
        self.all(vec![command]).remove(0)
    }

    fn granted(&mut self, command: Command) -> Vec<Grant> {
        let applied = self.one(command);
        let Applied::Granted(grants) = applied else { panic!("not granted: {applied:?}") };
        grants
    }

    fn fence(&self, task: TaskId) -> Fence {
        self.ledger.current_fence(task).expect("it is assigned").1
    }

    /// Ends the current attempt.
    fn end(&mut self, task: TaskId, end: End) -> Applied {
        let fence = self.fence(task);
        self.one(finish(task, fence, end))
    }
}
