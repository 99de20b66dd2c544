//! What a job asks for, as the log keeps it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Code, Digest, Millis, Problem, limits,
    manifest::{Tree, check_path},
    peer::Owing,
    signed::Signed,
};

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
    /// Files that are in each task's own directory when it starts; read-only.
    pub inputs: Option<Tree>,
    /// Files of which each task gets one, in their order; its path is the item.
    pub each: Option<Tree>,
    /// Where the items are that were too many to travel inside the submission. Of this and of `each`: a task's place in the list is its
    /// index, or its item in the array where that has items (a job that tries some tasks of another one again).
    pub items: Option<ItemList>,
    /// Paths below a task's own directory, files or directories, which are kept when it has ended. `{}` stands for the item.
    pub outputs: Vec<String>,
    /// What `accepted` means.
    pub durability: Durability,
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

/// What is true of a job when it is told that it was accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// A majority of voters has it on disk: it is not lost while a majority of them survives.
    #[default]
    Majority,
    /// The leader has it in memory: it is offered at once, the log hears of it soon after its end, and until then it is lost with its leader.
    Async,
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
    /// Its files could not be brought to the node.
    Input,
    /// What it was to leave is not there, or could not be kept.
    Output,
}

impl Cause {
    /// All of them, in wire order.
    pub const ALL: [Self; 9] =
        [Self::Exit, Self::Signal, Self::Timeout, Self::Spawn, Self::NodeLost, Self::AttemptLost, Self::Refused, Self::Input, Self::Output];

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
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// Further attempts granted by cause, indexed by [`Cause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries(pub [u16; Cause::ALL.len()]);

impl Default for Retries {
    /// Five for a lost node or attempt and for files that did not come, none for what the task itself did.
    fn default() -> Self {
        Self([0, 0, 0, 0, 5, 5, 0, 5, 0])
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

/// Items that are too many to travel inside the submission: the lines of a blob, one a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemList {
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
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
    /// Asks for this work and for nothing beside it.
    pub fn new(work: Work) -> Self {
        Self {
            name: None,
            work,
            needs: Resources::default(),
            labels: BTreeMap::new(),
            timeout: None,
            retries: Retries::default(),
            on_partition: OnPartition::default(),
            at_most_once: false,
            patience: None,
            signed: None,
            inputs: None,
            each: None,
            items: None,
            outputs: Vec::new(),
            durability: Durability::default(),
        }
    }

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
        self.check_files()?;
        self.check_durability()?;
        if self.timeout == Some(Millis(0)) {
            return Err(refuse("timeout", "0 ms would end every attempt before it starts".into()));
        }
        let encoded = postcard::experimental::serialized_size(self).map_err(|e| refuse("spec", e.to_string()))?;
        at_most("spec", encoded, limits::TASK_SPEC, "bytes encoded")
    }
}

impl JobSpec {
    /// Whether what is promised of a job can be kept where only the leader's memory knows of it.
    fn check_durability(&self) -> Result<(), Problem> {
        if self.durability == Durability::Majority {
            return Ok(());
        }
        let why = if self.at_most_once {
            "a job that is lost with its leader is submitted again, and may then run twice: at-most-once needs a majority"
        } else if self.on_partition == OnPartition::Stop {
            "a new leader does not know of the old attempt, and cannot wait for its end: on_partition stop needs a majority"
        } else if self.signed.is_some() {
            "a signature is accepted once, and only the log remembers that: what is signed needs a majority"
        } else if self.owings().next().is_some() {
            "files and lists that only the leader's memory knows of would be nobody's to keep: they need a majority"
        } else {
            return Ok(());
        };
        Err(refuse("durability", why.into()))
    }

    /// What is put into a task's directory or taken out of it.
    fn check_files(&self) -> Result<(), Problem> {
        at_most("outputs", self.outputs.len(), limits::OUTPUTS, "paths")?;
        for path in &self.outputs {
            // an item can be anything: what it makes of the path is looked at where it is known
            check_path(&path.replace("{}", "0"))?;
        }
        let has_files = !self.outputs.is_empty() || self.trees().next().is_some();
        match &self.work {
            Work::Noop if has_files => Err(refuse("work", "a no-op has neither inputs nor outputs".into())),
            Work::Exec(Exec { cwd: Some(_), .. }) if has_files => {
                Err(refuse("cwd", "inputs and outputs are in the task's own directory, and this one names another".into()))
            }
            Work::Noop | Work::Exec(_) => Ok(()),
        }
    }

    /// Whether what each task is given fits the indices.
    ///
    /// # Errors
    /// [`Code::BadRequest`] saying how many there are of each.
    pub fn check_array(&self, array: &Array) -> Result<(), Problem> {
        array.check()?;
        if self.durability == Durability::Async && array.count > limits::ASYNC_TASKS {
            let why = format!(
                "{} tasks, at most {} are taken with durability async; an array is one entry of the log",
                array.count,
                limits::ASYNC_TASKS
            );
            return Err(refuse("array", why));
        }
        if self.each.is_none() && self.items.is_none() {
            return Ok(());
        }
        if self.each.is_some() && self.items.is_some() {
            return Err(refuse("array", "its items are either files or the lines of a list".into()));
        }
        if !array.is_array || array.first != 0 || !array.items.is_empty() {
            return Err(refuse("array", "what has a list of its items begins with index 0, and names none by itself".into()));
        }
        match self.each {
            Some(tree) if tree.files != array.count => Err(refuse("array", format!("{} files for {} indices", tree.files, array.count))),
            Some(_) | None => Ok(()),
        }
    }

    /// What must not be lost while the job is open.
    pub fn owings(&self) -> impl Iterator<Item = Owing> + use<> {
        let items = self.items.map(|list| Owing { digest: list.digest, is_tree: false });
        self.trees().map(|tree| Owing { digest: tree.manifest, is_tree: true }).chain(items)
    }

    /// The files that a node needs for its tasks.
    pub fn trees(&self) -> impl Iterator<Item = Tree> + use<> {
        self.inputs.into_iter().chain(self.each)
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
