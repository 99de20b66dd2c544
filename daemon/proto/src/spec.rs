//! What a job asks for, as the log keeps it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Code, Millis, Problem, limits, signed::Signed};

/// One job's spec, shared by all its tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// For people; at most [`limits::NAME`] bytes.
    pub name: Option<String>,
    /// What each task does.
    pub work: Work,
    /// What one task needs while it runs.
    pub needs: Resources,
    /// Labels that a node must carry, each with this value. `os` and `arch` are labels by themselves.
    pub labels: BTreeMap<String, String>,
    /// Longest time one attempt may run.
    pub timeout: Option<Millis>,
    /// How many more attempts each cause of failure is worth.
    pub retries: Retries,
    /// What happens while a task's node cannot be reached.
    pub on_partition: OnPartition,
    /// Ends `lost` rather than run twice.
    pub at_most_once: bool,
    /// How long a node may be Down before its tasks are replaced; `None`: the preset's.
    pub patience: Option<Millis>,
    /// The submitter's own word for it, for nodes that demand one.
    pub signed: Option<Box<Signed>>,
}

/// What runs a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Nothing at all: measures the way there and back.
    Noop,
    /// A process.
    Exec(Exec),
}

/// A process to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments. `{}` stands for the item, `{{}}` for a literal `{}`.
    pub argv: Vec<String>,
    /// Added to the node's own small environment.
    pub env: BTreeMap<String, String>,
    /// Standard input.
    pub stdin: Bytes,
    /// Working directory; `None`: an empty one of its own, removed afterwards.
    pub cwd: Option<String>,
}

/// Amounts of what a node has or a task needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time in thousandths of a core.
    pub milli_cores: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk.
    pub disk: u64,
    /// Whole GPUs.
    pub gpus: u32,
    /// Anything else that is counted, by name (licences, ports, ...).
    pub named: BTreeMap<String, u64>,
}

/// What happens to an attempt whose node cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPartition {
    /// A new attempt once the node is Down; two may overlap, one result counts.
    #[default]
    Replace,
    /// The old attempt dies at its lease's end before a new one is granted; never two at once.
    Stop,
    /// Wait for the node.
    Wait,
}

/// Why an attempt did not succeed. The order is part of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A non-zero exit code.
    Exit,
    /// Ended by a signal.
    Signal,
    /// Ran longer than its timeout.
    Timeout,
    /// Could not be started.
    Spawn,
    /// Its node is gone.
    NodeLost,
    /// Its node is there but no longer has it (daemon and keeper restarted, lease ended).
    AttemptLost,
    /// The node refused to run it (executor not enabled, disk full).
    Refused,
}

impl Cause {
    /// All of them, in wire order.
    pub const ALL: [Self; 7] = [Self::Exit, Self::Signal, Self::Timeout, Self::Spawn, Self::NodeLost, Self::AttemptLost, Self::Refused];

    /// The word used in `--retries N:cause` and in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Timeout => "timeout",
            Self::Spawn => "spawn",
            Self::NodeLost => "node_lost",
            Self::AttemptLost => "attempt_lost",
            Self::Refused => "refused",
        }
    }
}

/// Further attempts granted by cause, indexed by [`Cause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries(pub [u16; 7]);

impl Default for Retries {
    /// Five for a lost node or attempt, none for what the task itself did.
    fn default() -> Self {
        Self([0, 0, 0, 0, 5, 5, 0])
    }
}

impl Retries {
    /// The budget of one cause.
    pub const fn of(&self, cause: Cause) -> u16 {
        self.0[cause as usize]
    }

    /// The same with `times` for `cause`.
    #[must_use]
    pub const fn with(mut self, cause: Cause, times: u16) -> Self {
        self.0[cause as usize] = times;
        self
    }
}

/// The indices of a job, and what each one is given. A plain job is the array `0..1` with `is_array` off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Array {
    /// First index.
    pub first: u32,
    /// How many, 1 to [`limits::ARRAY`].
    pub count: u32,
    /// Whether the user asked for an array: its tasks then see `SWARM_INDEX` and `SWARM_ITEM`.
    pub is_array: bool,
    /// One item a task, in order; empty: the item is the index. At most [`limits::INLINE_INPUT`] bytes in all.
    pub items: Vec<String>,
}

impl Array {
    /// A plain job: one task of index 0.
    pub const fn single() -> Self {
        Self { first: 0, count: 1, is_array: false, items: Vec::new() }
    }

    /// The last index.
    pub const fn last(&self) -> u32 {
        self.first + (self.count - 1)
    }

    /// The item of one index.
    pub fn item(&self, index: u32) -> String {
        self.items.get((index - self.first) as usize).cloned().unwrap_or_else(|| index.to_string())
    }
}

fn refuse(what: &str, why: String) -> Problem {
    Problem::new(Code::BadRequest, format!("the job's {what} is not acceptable"), why)
}

fn at_most(what: &str, got: usize, limit: usize, unit: &str) -> Result<(), Problem> {
    if got > limit { Err(refuse(what, format!("{got} {unit}, at most {limit} are taken"))) } else { Ok(()) }
}

impl JobSpec {
    /// Checks every bound of [`limits`] that concerns a spec.
    ///
    /// # Errors
    /// [`Code::BadRequest`] naming the part and the bound.
    pub fn check(&self) -> Result<(), Problem> {
        self.signed.as_ref().map_or(Ok(()), |signed| signed.check())?;
        at_most("name", self.name.as_ref().map_or(0, String::len), limits::NAME, "bytes")?;
        at_most("labels", self.labels.len(), limits::LABELS, "labels")?;
        at_most("resources", self.needs.named.len(), limits::NAMED_RESOURCES, "named resources")?;
        if let Work::Exec(exec) = &self.work {
            exec.check()?;
        }
        if self.timeout == Some(Millis(0)) {
            return Err(refuse("timeout", "0 ms would end every attempt before it starts".into()));
        }
        let encoded = postcard::experimental::serialized_size(self).map_err(|e| refuse("spec", e.to_string()))?;
        at_most("spec", encoded, limits::TASK_SPEC, "bytes encoded")
    }
}

impl Exec {
    fn check(&self) -> Result<(), Problem> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(refuse("argv", "there is no program to run".into()));
        }
        at_most("argv", self.argv.iter().map(|a| a.len() + 1).sum(), limits::ARGV, "bytes")?;
        at_most("env", self.env.len(), limits::ENV_VARS, "variables")?;
        at_most("stdin", self.stdin.len(), limits::INLINE_INPUT, "bytes")?;
        for (name, value) in &self.env {
            at_most("env", name.len() + value.len() + 1, limits::ENV_VAR, "bytes in one variable")?;
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(refuse("env", format!("'{}' cannot be an environment variable", name.escape_debug())));
            }
        }
        if self.argv.iter().any(|a| a.contains('\0')) {
            return Err(refuse("argv", "an argument holds a NUL byte".into()));
        }
        Ok(())
    }
}

impl Array {
    /// Checks count, index range and items.
    ///
    /// # Errors
    /// [`Code::BadRequest`] naming the bound.
    pub fn check(&self) -> Result<(), Problem> {
        if self.count == 0 {
            return Err(refuse("array", "it has no index".into()));
        }
        at_most("array", self.count as usize, limits::ARRAY as usize, "tasks")?;
        if self.first.checked_add(self.count).is_none() {
            return Err(refuse("array", format!("its last index is beyond {}", u32::MAX - 1)));
        }
        if !self.items.is_empty() && self.items.len() != self.count as usize {
            return Err(refuse("array", format!("{} items for {} indices", self.items.len(), self.count)));
        }
        at_most("array", self.items.iter().map(|i| i.len() + 1).sum(), limits::INLINE_INPUT, "bytes of items")
    }
}
