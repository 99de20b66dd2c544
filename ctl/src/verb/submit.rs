//! `submit FILE | -- CMD..`: jobs onto a majority of disks, and with `--wait` to their end.

use std::{cell::Cell, collections::BTreeSet, future::Future, path::PathBuf};

use serde::Serialize;
use swarm_proto::{
    JobId, Problem,
    api::{JobOutcome, SubmitLine, SubmitRequest},
    ledger::TaskState,
};

use super::{
    desk::{Desk, Told},
    waits::{self, Awaited},
};
use crate::{
    failure::{FAILED, Failure, Outcome},
    job_file,
    output::{self, Format, Out},
    plan::{Job, Plan, Trees},
    progress::Progress,
    session::{Session, random_key, unless_interrupted},
    spec::SpecArgs,
    view,
    words::{
        array,
        source::{self, Source},
    },
};

/// `submit`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = job_file::HELP, override_usage = "swarmctl submit [OPTIONS] FILE\n       swarmctl submit [OPTIONS] -- COMMAND..")]
pub struct Args {
    /// A job file in TOML, JSON or JSON lines; - reads standard input
    #[arg(required_unless_present = "command", conflicts_with = "command")]
    pub file: Option<PathBuf>,
    /// Program and arguments; {} stands for the item
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Many tasks: 0-999, or @FILE with one item a line
    #[arg(long, value_name = "RANGE|@FILE", value_parser = array::parse)]
    pub array: Option<array::Word>,
    /// One task for each file, which finds it in its own directory; {} is the file's path there (repeatable)
    ///
    /// A directory stands for all files in it. Names are made as those of --input.
    #[arg(long, value_name = "PATH[=NAME]", value_parser = source::parse, conflicts_with = "array")]
    pub each: Vec<Source>,
    /// Wait for the end; exit code 1 unless all tasks succeeded
    #[arg(long)]
    pub wait: bool,
    /// Wait, and show how far it is on a terminal
    #[arg(long)]
    pub progress: bool,
    /// Idempotency key: the same key is the same job for 24 h
    #[arg(long)]
    pub key: Option<String>,
    /// Sign it with this machine's login, for nodes that demand that
    #[arg(long)]
    pub sign: bool,
    #[command(flatten)]
    pub spec: SpecArgs,
}

pub(super) async fn call<F: Future<Output = Outcome<Session>>>(args: Args, session: impl FnOnce() -> F) -> Outcome {
    let (is_wait, has_bar) = (args.wait || args.progress, args.progress);
    let mut report = Report::new(args.progress, is_wait);
    let is_signed = args.sign;
    let plans = plans(args)?;
    report.ids = plans.iter().map(|plan| plan.request.id.clone()).collect();
    report.jobs = plans.iter().map(|_| Known::default()).collect();
    let session = session().await?;
    let (mut requests, mut trees) = (Vec::new(), Trees::new());
    for plan in plans {
        requests.push(plan.put(&session.client, &mut trees).await?);
    }
    if is_signed {
        super::sign::sign(&session, &mut requests).await?;
    }
    let mut desk = Desk::new(requests, is_wait);
    let goes_on = "interrupted; what was accepted goes on: swarmctl job list --open";
    let awaited = Cell::new(None);
    let driven = desk.drive(&session.client, |n, told| {
        report.take(&session.out, n, told)?;
        awaited.set(report.open.first().copied().filter(|_| is_wait && !has_bar).map(Awaited::Job));
        Ok(())
    });
    unless_interrupted(|| goes_on.into(), waits::explained(&session.client, || awaited.get(), driven)).await?;
    report.finish(&session.out)
}

/// What to submit, checked as far as that is possible here.
fn plans(args: Args) -> Outcome<Vec<Plan>> {
    let jobs = match &args.file {
        Some(file) => job_file::read(file)?,
        None => vec![Job { request: SubmitRequest { argv: args.command, ..SubmitRequest::default() }, ..Job::default() }],
    };
    if args.key.is_some() && jobs.len() > 1 {
        let why = format!("the file has {} jobs, and each needs a key of its own", jobs.len());
        return Err(Failure::usage("--key cannot be used here", why));
    }
    let array = args.array.map(array::Word::into_request).transpose().map_err(|why| Failure::usage("the array cannot be used", why))?;
    let plan = |mut job: Job| {
        args.spec.apply(&mut job)?;
        job.each.extend(args.each.iter().cloned());
        if let Some((array, items)) = array.clone() {
            (job.request.array, job.items) = (Some(array), items);
        }
        job.request.key = args.key.clone().or(job.request.key);
        if job.request.key.is_none() {
            job.request.key = Some(random_key()?);
        }
        job.plan()
    };
    jobs.into_iter().map(plan).collect()
}

/// What is known of one submission.
#[derive(Default, Serialize)]
struct Known {
    job: Option<JobId>,
    is_new: bool,
    outcome: Option<JobOutcome>,
    problem: Option<Problem>,
}

/// Tells what becomes of submissions: ids on stdout as they are accepted, in the order in which they are; ends on stderr.
struct Report {
    ids: Vec<String>,
    jobs: Vec<Known>,
    /// Accepted, and not ended.
    open: BTreeSet<JobId>,
    progress: Progress,
    is_wait: bool,
}

impl Report {
    fn new(is_progress: bool, is_wait: bool) -> Self {
        Self { ids: Vec::new(), jobs: Vec::new(), open: BTreeSet::new(), progress: Progress::new(is_progress), is_wait }
    }

    fn take(&mut self, out: &Out, n: usize, told: Told) -> Outcome {
        let id = self.ids[n].clone();
        let (line, text) = match told {
            Told::Accepted(job, is_new) => {
                (self.jobs[n].job, self.jobs[n].is_new) = (Some(job), is_new);
                self.open.insert(job);
                (SubmitLine::Accepted { id, job, is_new }, Text::Data(job.to_string()))
            }
            Told::Refused(problem) => {
                self.jobs[n].problem = Some(problem.clone());
                (SubmitLine::Refused { id, problem }, Text::Nothing)
            }
            Told::Progress(job, counts) => {
                self.progress.update(job, counts);
                (SubmitLine::Progress { id, job, counts }, Text::Nothing)
            }
            Told::Ended(outcome) => {
                self.jobs[n].outcome = Some((*outcome).clone());
                self.open.remove(&outcome.job);
                self.progress.update(outcome.job, outcome.counts);
                let text = Text::Note(view::outcome(&outcome));
                (SubmitLine::Ended { id, outcome }, text)
            }
        };
        self.progress.beside(|| match (out.format, text) {
            (Format::Jsonl, _) => output::write(&format!("{}\n", output::compact(&line))),
            (Format::Table | Format::Wide, Text::Data(text)) => output::write(&format!("{text}\n")),
            (Format::Table | Format::Wide, Text::Note(text)) => {
                output::note(&text);
                Ok(())
            }
            (Format::Table | Format::Wide, Text::Nothing) | (Format::Json, _) => Ok(()),
        })?;
        Ok(())
    }

    /// The exit code: the first refusal, or whether all of it succeeded.
    fn finish(mut self, out: &Out) -> Outcome {
        if out.format == Format::Json {
            match self.jobs.as_slice() {
                [job] => out.either(job, |_| String::new())?,
                jobs => out.either(&jobs, |_| String::new())?,
            }
        }
        let refused = self.jobs.iter().filter(|job| job.problem.is_some()).count();
        if let Some(problem) = self.jobs.iter_mut().find_map(|job| job.problem.take()) {
            if refused > 1 {
                output::note(&format!("{refused} of {} jobs were refused; the first:", self.jobs.len()));
            }
            return Err(problem.into());
        }
        let is_good = |job: &Known| job.outcome.as_ref().is_some_and(|outcome| outcome.state == TaskState::Succeeded);
        if self.is_wait && !self.jobs.iter().all(is_good) { Err(Failure::Code(FAILED)) } else { Ok(()) }
    }
}

enum Text {
    Data(String),
    Note(String),
    Nothing,
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use swarm_proto::{Code, UnixMillis, api::ArrayRequest};

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        args: Args,
    }

    fn requests_of(words: &[&str]) -> Outcome<Vec<SubmitRequest>> {
        let plans = plans(Flags::try_parse_from(std::iter::once("submit").chain(words.iter().copied())).unwrap().args)?;
        Ok(plans.into_iter().map(|plan| plan.request).collect())
    }

    #[test]
    fn a_command_becomes_a_request_with_a_key() {
        let request = requests_of(&["--array", "5-9", "--", "echo", "{}"]).unwrap().remove(0);
        assert_eq!(request.argv, ["echo", "{}"]);
        assert_eq!(request.array, Some(ArrayRequest { first: 5, count: Some(5), ..ArrayRequest::default() }));
        assert_eq!(request.key.map(|key| key.len()), Some(32));
        assert_eq!(requests_of(&["--key", "k", "--", "a"]).unwrap()[0].key.as_deref(), Some("k"));
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job.toml");
        std::fs::write(&path, "argv = ['a']\nkey = 'file'\narray = '0-3'\nname = 'file'").unwrap();
        let path = path.to_str().unwrap();
        let request = requests_of(&["--key", "flag", "--name", "flag", path]).unwrap().remove(0);
        assert_eq!((request.key.as_deref(), request.name.as_deref()), (Some("flag"), Some("flag")));
        assert_eq!(request.array.unwrap().count, Some(4));
        assert_eq!(requests_of(&["--array", "1-1", path]).unwrap()[0].array.as_ref().unwrap().first, 1);
        assert_eq!(requests_of(&[path]).unwrap()[0].key.as_deref(), Some("file"));
    }

    #[test]
    fn what_the_daemon_would_refuse_is_refused_here() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.jsonl");
        std::fs::write(&path, "{\"argv\": [\"a\"]}\n{\"argv\": [\"b\"]}").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(requests_of(&[path]).unwrap().len(), 2);
        assert_eq!(requests_of(&["--key", "k", path]).unwrap_err().exit_code(), 2);
        assert_eq!(requests_of(&["/nowhere/job.toml"]).unwrap_err().exit_code(), 2);
        assert_eq!(requests_of(&["--timeout", "0s", "--", "a"]).unwrap_err().exit_code(), 2);
        assert_eq!(requests_of(&["--array", "@/nowhere", "--", "a"]).unwrap_err().exit_code(), 2);
        assert_eq!(requests_of(&["--name", &"n".repeat(129), "--", "a"]).unwrap_err().exit_code(), 2);
    }

    fn finished(told: Vec<Told>, is_wait: bool) -> Outcome {
        let out = Out { format: Format::Table, is_coloured: false, now: UnixMillis(0) };
        let mut report = Report::new(false, is_wait);
        report.ids = told.iter().map(|_| String::new()).collect();
        report.jobs = told.iter().map(|_| Known::default()).collect();
        for (n, told) in told.into_iter().enumerate() {
            report.take(&out, n, told)?;
        }
        report.finish(&out)
    }

    #[test]
    fn the_exit_code_is_one_unless_all_succeeded() {
        let ended = |state| Told::Ended(Box::new(JobOutcome { state, ..view::samples::outcome() }));
        assert_eq!(finished(vec![ended(TaskState::Succeeded), ended(TaskState::Succeeded)], true), Ok(()));
        assert_eq!(finished(vec![ended(TaskState::Succeeded), ended(TaskState::Failed)], true), Err(Failure::Code(1)));
        assert_eq!(finished(vec![ended(TaskState::Cancelled)], true), Err(Failure::Code(1)));
        assert_eq!(finished(vec![Told::Accepted(JobId(1), true)], false), Ok(()));
        let refused = Told::Refused(Problem::new(Code::Unrunnable, "", ""));
        assert_eq!(finished(vec![refused], false).unwrap_err().exit_code(), 7);
    }
}
