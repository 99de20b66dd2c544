//! How much the ledger holds. Fixed in the product; a test makes them small.

use swarm_proto::{limits, settings::LEDGER_MEMORY};

#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) open_jobs: usize,
    /// Assigned or waiting for a retry.
    pub(super) open_tasks: usize,
    /// Numbers that are reserved and not recorded. A leader has no more jobs in memory, and asks for more before it runs out.
    pub(super) reserved: u64,
    pub(super) keys: usize,
    /// Nodes that are not gone; as many gone ones are remembered.
    pub(super) members: usize,
    pub(super) events: usize,
    pub(super) ended_jobs: usize,
    /// Ended tasks with details.
    pub(super) kept_tasks: usize,
    /// Bytes of output.
    pub(super) output: u64,
    /// Bytes of specs, items and cells.
    pub(super) held: u64,
    pub(super) tokens: usize,
    /// Users; as many who were closed out are remembered.
    pub(super) users: usize,
}

impl Bounds {
    pub(super) const STANDARD: Self = Self {
        open_jobs: limits::OPEN_JOBS,
        open_tasks: limits::OPEN_TASKS,
        reserved: 2 * limits::ASYNC_JOBS as u64,
        keys: limits::KEYS,
        members: limits::MEMBERS,
        events: limits::EVENTS,
        ended_jobs: 100_000,
        kept_tasks: 1_000_000,
        output: 64 << 20,
        held: 256 << 20,
        tokens: limits::TOKENS,
        users: limits::USERS,
    };

    /// Of jobs in the leader's memory, a tenth of the others. What has ended stays until it is recorded, and counts until then.
    pub(super) const MEMORY: Self = Self {
        open_jobs: limits::ASYNC_JOBS,
        open_tasks: limits::ASYNC_JOBS,
        // a job's key goes when the job goes; places of these may be twice as many
        keys: 4 * limits::ASYNC_JOBS,
        // they stay until they are read, which is at once
        events: usize::MAX,
        kept_tasks: limits::ASYNC_JOBS,
        output: 16 << 20,
        held: 32 << 20,
        ..Self::STANDARD
    };
}

impl Bounds {
    /// The part of these that fits into so many MiB, of the 1,024 that the standard ones come to. What is left still serves somebody.
    pub(super) fn within(self, mebibytes: Option<u32>) -> Self {
        let (part, whole) = (mebibytes.unwrap_or(LEDGER_MEMORY.1) as usize, LEDGER_MEMORY.1 as usize);
        let scaled = |bound: usize, least: usize| (bound / whole * part + bound % whole * part / whole).max(bound.min(least));
        let bytes = |bound: u64| scaled(usize::try_from(bound).unwrap_or(usize::MAX), 1 << 20) as u64;
        Self {
            open_jobs: scaled(self.open_jobs, 1_000),
            open_tasks: scaled(self.open_tasks, 1_000),
            keys: scaled(self.keys, 1_000),
            events: scaled(self.events, 1_000),
            ended_jobs: scaled(self.ended_jobs, 1_000),
            kept_tasks: scaled(self.kept_tasks, 1_000),
            output: bytes(self.output),
            held: bytes(self.held),
            ..self
        }
    }
}

/// The reason of an end that a worker sent is cut here.
pub(super) const REASON: usize = 512;
