//! What a task is, needs and may do: the flags that `run` and `submit` share.

use std::{io::Read as _, time::Duration};

use clap::Args;
use swarm_proto::{
    api::Text,
    limits,
    spec::{Cause, Durability, OnPartition},
};

use crate::{
    failure::{Failure, Outcome},
    plan::Job,
    words::{
        pair, retries,
        source::{self, Source},
        span,
    },
};

/// As typed.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "What each task is")]
pub struct SpecArgs {
    /// What people call the job
    #[arg(long)]
    pub name: Option<String>,
    /// Longest time one attempt may run, such as 30s; it is killed then [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    pub timeout: Option<Duration>,
    /// Further attempts, for every cause or those named: 3, or 3:exit,timeout (repeatable)
    ///
    /// Causes: exit, signal, timeout, spawn, node_lost, attempt_lost, refused, input, output. Without this flag: 5 for node_lost,
    /// attempt_lost and input, 0 for the others.
    #[arg(long, value_name = "N[:CAUSES]", value_parser = parse_retries)]
    pub retries: Vec<RetriesWord>,
    /// What happens while the node of a task cannot be reached [default: replace]
    #[arg(long, value_name = "WHAT")]
    pub on_partition: Option<OnPartitionWord>,
    /// How long a node may be down before its tasks are replaced [default: 0s with preset lan, 30s with wan, which is Tailscale's]
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    pub patience: Option<Duration>,
    /// End as lost rather than run twice
    #[arg(long)]
    pub at_most_once: bool,
    /// What it means that the job was accepted [default: majority]
    ///
    /// async is for short jobs that you would submit again: it is refused with --at-most-once, --on-partition stop, --sign, --input, --each
    /// and arrays of more than 64 tasks. What was lost is reported as not found.
    #[arg(long, value_name = "WHAT")]
    pub durability: Option<DurabilityWord>,
    /// Cores, such as 0.5 [default: 1]
    #[arg(long, value_name = "N", help_heading = "What each task needs")]
    pub cores: Option<f64>,
    /// Memory, such as 512MiB
    #[arg(long, value_name = "SIZE", value_parser = mesh_config::parse_bytes, help_heading = "What each task needs")]
    pub memory: Option<u64>,
    /// Disk, such as 8GiB
    #[arg(long, value_name = "SIZE", value_parser = mesh_config::parse_bytes, help_heading = "What each task needs")]
    pub disk: Option<u64>,
    /// Whole GPUs
    #[arg(long, value_name = "N", help_heading = "What each task needs")]
    pub gpus: Option<u32>,
    /// Anything else that nodes count (repeatable)
    #[arg(long = "resource", value_name = "NAME=N", value_parser = pair::count, help_heading = "What each task needs")]
    pub resources: Vec<(String, u64)>,
    /// A label that the node must carry (repeatable)
    ///
    /// os is this host's unless it is given.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair::text, help_heading = "What each task needs")]
    pub labels: Vec<(String, String)>,
    /// A variable of its environment (repeatable)
    #[arg(long = "env", short = 'e', value_name = "NAME=VALUE", value_parser = pair::text)]
    pub env: Vec<(String, String)>,
    /// What it reads from standard input, at most 64 KiB; - is our own
    #[arg(long, value_name = "FILE")]
    pub stdin: Option<String>,
    /// Where it runs, on the node [default: an empty directory, removed afterwards]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// A file or directory that each task finds in its own directory (repeatable)
    ///
    /// It is called what PATH is called, or NAME: the last = divides. PATH/ and PATH=. bring what is in a directory without the
    /// directory's own name. Links are refused.
    #[arg(long = "input", value_name = "PATH[=NAME]", value_parser = source::parse)]
    pub inputs: Vec<Source>,
    /// Keep the files that are put for it encrypted on the disk of each node that has them
    ///
    /// Of its arguments, environment and standard input none is a file; nor is what it leaves encrypted.
    #[arg(long)]
    pub encrypt: bool,
    /// A file or directory below the task's own directory, kept when it has ended (repeatable)
    ///
    /// {} stands for the item. They are had with: swarmctl job results
    #[arg(long = "output", value_name = "PATH")]
    pub outputs: Vec<String>,
}

/// One `--retries`.
pub type RetriesWord = std::sync::Arc<std::collections::BTreeMap<Cause, u16>>;

fn parse_retries(text: &str) -> Result<RetriesWord, String> {
    retries::parse(text).map(Into::into)
}

/// `--on-partition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnPartitionWord {
    /// A new attempt once the node is down; two may overlap, one result counts
    Replace,
    /// The old attempt dies before a new one is granted
    Stop,
    /// Wait for the node
    Wait,
}

impl From<OnPartitionWord> for OnPartition {
    fn from(word: OnPartitionWord) -> Self {
        match word {
            OnPartitionWord::Replace => Self::Replace,
            OnPartitionWord::Stop => Self::Stop,
            OnPartitionWord::Wait => Self::Wait,
        }
    }
}

/// `--durability`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DurabilityWord {
    /// A majority of voters has it on disk
    #[default]
    Majority,
    /// It is in the leader's memory, runs at once, and is lost with the leader
    Async,
}

impl From<DurabilityWord> for Durability {
    fn from(word: DurabilityWord) -> Self {
        match word {
            DurabilityWord::Majority => Self::Majority,
            DurabilityWord::Async => Self::Async,
        }
    }
}

impl SpecArgs {
    /// Lets the flags that were given win over what `job` says.
    pub fn apply(&self, job: &mut Job) -> Outcome {
        fn over<T: Clone>(flag: Option<&T>, field: &mut Option<T>) {
            if let Some(value) = flag {
                *field = Some(value.clone());
            }
        }
        job.inputs.extend(self.inputs.iter().cloned());
        job.encrypt |= self.encrypt;
        let request = &mut job.request;
        over(self.name.as_ref(), &mut request.name);
        over(self.cwd.as_ref(), &mut request.cwd);
        over(self.cores.as_ref(), &mut request.cores);
        over(self.memory.as_ref(), &mut request.memory);
        over(self.disk.as_ref(), &mut request.disk);
        over(self.gpus.as_ref(), &mut request.gpus);
        over(self.timeout.map(millis).as_ref(), &mut request.timeout_ms);
        over(self.patience.map(millis).as_ref(), &mut request.patience_ms);
        over(self.on_partition.map(OnPartition::from).as_ref(), &mut request.on_partition);
        over(self.durability.map(Durability::from).as_ref(), &mut request.durability);
        request.at_most_once |= self.at_most_once;
        request.env.extend(self.env.iter().cloned());
        request.labels.extend(self.labels.iter().cloned());
        request.resources.extend(self.resources.iter().cloned());
        request.outputs.extend(self.outputs.iter().cloned());
        for word in &self.retries {
            request.retries.extend(word.iter());
        }
        if let Some(path) = &self.stdin {
            request.stdin = Some(read_stdin(path)?);
        }
        Ok(())
    }
}

/// Whole milliseconds; a shorter span that is not zero counts as one.
pub fn millis(span: Duration) -> u64 {
    let whole = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    if whole == 0 && !span.is_zero() { 1 } else { whole }
}

/// A small file, or our own standard input for `-`, read to its end.
pub fn read_stdin(path: &str) -> Outcome<Text> {
    let unreadable = |e: std::io::Error| Failure::usage("the task's input cannot be read", format!("{path}: {e}"));
    let source: Box<dyn std::io::Read> =
        if path == "-" { Box::new(std::io::stdin()) } else { Box::new(std::fs::File::open(path).map_err(unreadable)?) };
    let mut data = Vec::new();
    source.take(limits::INLINE_INPUT as u64 + 1).read_to_end(&mut data).map_err(unreadable)?;
    if data.len() > limits::INLINE_INPUT {
        let name = if path == "-" { "standard input" } else { path };
        return Err(Failure::usage("the task's input is too large", format!("{name} has more than {} bytes", limits::INLINE_INPUT)));
    }
    Ok(Text::of(&data))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn job(words: &str) -> Job {
        let flags = Flags::try_parse_from(std::iter::once("x").chain(words.split(' '))).unwrap();
        let mut job = Job::default();
        (job.request.name, job.request.gpus) = (Some("file".into()), Some(1));
        flags.spec.apply(&mut job).unwrap();
        job
    }

    #[test]
    fn flags_win_over_what_was_there() {
        let Job { request, inputs, .. } = job(
            "--name n --timeout 30s --retries 1 --retries 3:exit --on-partition stop --at-most-once --cores 0.5 --memory 512MiB --disk 1GB \
             --resource licence=2 --label gpu=3090 --label zone=attic -e A=b=c --cwd /tmp --patience 1m --input a --input b=c --output d",
        );
        assert_eq!(request.name.as_deref(), Some("n"));
        assert_eq!((request.timeout_ms, request.patience_ms), (Some(30_000), Some(60_000)));
        assert_eq!((request.retries[&Cause::Exit], request.retries[&Cause::Signal]), (3, 1));
        assert_eq!((request.memory, request.disk, request.gpus), (Some(512 << 20), Some(1_000_000_000), Some(1)));
        assert_eq!((request.on_partition, request.at_most_once, request.cores), (Some(OnPartition::Stop), true, Some(0.5)));
        assert_eq!((request.env["A"].as_str(), request.labels.len(), request.resources["licence"]), ("b=c", 2, 2));
        assert_eq!((inputs.len(), inputs[1].name.as_str(), request.outputs), (2, "c", vec!["d".to_owned()]));
    }

    #[test]
    fn faulty_flags_say_why() {
        for words in [
            "--memory 8XiB",
            "--timeout 30",
            "--retries x",
            "--label gpu",
            "--resource a=b",
            "--on-partition die",
            "--cores many",
            "--input =a",
        ] {
            assert!(Flags::try_parse_from(std::iter::once("x").chain(words.split(' '))).is_err(), "{words}");
        }
    }

    #[test]
    fn input_has_at_most_64_kib() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("input");
        for (len, fits) in [(65_535, true), (65_536, true), (65_537, false)] {
            std::fs::write(&path, vec![b'x'; len]).unwrap();
            assert_eq!(read_stdin(path.to_str().unwrap()).is_ok(), fits, "{len}");
        }
        std::fs::write(&path, [0xff, 0]).unwrap();
        assert_eq!(read_stdin(path.to_str().unwrap()), Ok(Text::Base64("/wA=".into())));
        assert!(read_stdin("/nowhere").is_err());
    }

    #[test]
    fn a_moment_is_not_nothing() {
        assert_eq!([0, 1, 999_999, 1_000_000, 1_999_999].map(|ns| millis(Duration::from_nanos(ns))), [0, 1, 1, 1, 1]);
    }
}
