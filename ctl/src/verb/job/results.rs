//! `job results`: what the tasks of a job left, below one directory.
//!
//! A job of one task leaves its files in the directory itself, an array each task's in a directory of its own, named by its index.
//! What is there already and is right stays, so the call can be made again: after it broke off, or when more tasks have succeeded.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use swarm_client::{Client, TasksQuery};
use swarm_proto::{
    Code, JobId, Problem, TaskId,
    api::{JobView, OutputView, Text},
    ledger::{Counts, TaskState},
    limits,
    manifest::Manifest,
};

use crate::{
    failure::Outcome,
    files,
    progress::Bar,
    session::{Session, patiently},
    verb::task::result::stdout,
    view,
};

/// Tasks whose files are brought at once.
const AT_ONCE: usize = 4;
/// What a task's standard output is called.
const STDOUT: &str = "stdout";

/// `job results`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Its id, such as j17
    pub job: JobId,
    /// A directory; of an array, each task gets one of its own in it, named by its index
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Put the files of all tasks into DIR itself; refused where two of them clash
    #[arg(long)]
    pub flat: bool,
    /// Each task's standard output too, as a file named stdout
    #[arg(long, conflicts_with = "flat")]
    pub stdout: bool,
}

/// What one task left; its standard output only where that is wanted.
struct Left {
    task: TaskId,
    output: OutputView,
}

/// What was written of it.
#[derive(Serialize)]
struct Written {
    task: TaskId,
    files: u64,
    bytes: u64,
}

pub(super) async fn call(session: &Session, args: &Args) -> Outcome {
    let client = &session.client;
    // asked before the tasks are: one that succeeds meanwhile may be left out, but then that is told
    let job = client.job(args.job).await?;
    let tasks = left(client, args).await?;
    if args.flat {
        refuse_clashes(client, &tasks).await?;
    }
    let bar = &Bar::new(Some(tasks.iter().map(Left::bytes).sum()));
    let is_indexed = job.is_array && !args.flat;
    let mut written = stream::iter(&tasks).map(|left| write(client, left, args, is_indexed, bar)).buffered(AT_ONCE);
    while let Some(written) = written.try_next().await? {
        let text = || format!("{}  {}", written.task, view::files(written.files, written.bytes));
        bar.0.suspend(|| session.out.line(&written, text))?;
    }
    complete(&job)
}

/// Of each task that has succeeded and left something.
async fn left(client: &Client, args: &Args) -> Result<Vec<Left>, Problem> {
    let mut query = TasksQuery { job: Some(args.job), state: Some(TaskState::Succeeded), after: None, limit: Some(limits::PAGE as u32) };
    let mut all = Vec::new();
    loop {
        let page = patiently(async || client.tasks(query).await).await?;
        let is_last = page.len() < limits::PAGE;
        query.after = page.last().map(|task| task.task);
        for task in page {
            let Some(mut output) = task.output else { continue };
            // there may be many tasks, and heads are not small
            output.stderr = Text::of(b"");
            if !args.stdout {
                (output.stdout, output.stdout_len) = (Text::of(b""), 0);
            }
            let left = Left { task: task.task, output };
            if left.bytes() > 0 || left.output.files.is_some_and(|tree| tree.files > 0) {
                all.push(left);
            }
        }
        if is_last {
            return Ok(all);
        }
    }
}

impl Left {
    fn bytes(&self) -> u64 {
        self.output.files.map_or(0, |tree| tree.bytes) + self.output.stdout_len
    }

    async fn manifest(&self, client: &Client) -> Result<Manifest, Problem> {
        match self.output.files {
            Some(tree) => patiently(async || files::manifest(client, tree.manifest).await).await,
            None => Ok(Manifest::default()),
        }
    }
}

/// Before anything is written.
async fn refuse_clashes(client: &Client, tasks: &[Left]) -> Result<(), Problem> {
    let refuse = |why: String| {
        Problem::new(Code::Conflict, "the files cannot go into one directory", why)
            .hint("without --flat each task has a directory of its own")
    };
    let (mut names, mut entries) = (BTreeMap::new(), Vec::new());
    let manifest = async |left: &Left| Ok((left.task, left.manifest(client).await?));
    let mut manifests = stream::iter(tasks).map(manifest).buffered(AT_ONCE);
    while let Some((task, manifest)) = manifests.try_next().await? {
        for file in manifest.files() {
            if let Some(other) = names.insert(file.path.clone(), task) {
                return Err(refuse(format!("both {other} and {task} left '{}'", file.path)));
            }
            entries.push(file.clone());
        }
    }
    Manifest::new(entries).map(drop).map_err(|problem| refuse(problem.why))
}

async fn write(client: &Client, left: &Left, args: &Args, is_indexed: bool, bar: &Bar) -> Result<Written, Problem> {
    let manifest = left.manifest(client).await?;
    let below = if is_indexed { left.task.index.to_string() } else { String::new() };
    files::make_dir(&args.to, &below)?;
    let dir = args.to.join(below);
    files::save_tree(client, &manifest, &dir, bar).await?;
    let mut written = Written { task: left.task, files: manifest.files().len() as u64, bytes: left.bytes() };
    if left.output.stdout_len > 0 {
        write_stdout(client, left, &manifest, &dir.join(STDOUT), bar).await?;
        written.files += 1;
    }
    Ok(written)
}

async fn write_stdout(client: &Client, left: &Left, manifest: &Manifest, to: &Path, bar: &Bar) -> Result<(), Problem> {
    let is_stdout = |path: &str| path.split('/').next().is_some_and(|first| first.eq_ignore_ascii_case(STDOUT));
    if manifest.files().iter().any(|file| is_stdout(&file.path)) {
        let why = format!("the task itself left something named '{STDOUT}'");
        return Err(Problem::new(Code::Conflict, format!("the output of {} was not written", left.task), why));
    }
    patiently(async || files::replace(&mut stdout(client, left.task, &left.output).await?, to, bar, |_| Ok(())).await).await
}

/// Whether all tasks have succeeded.
fn complete(job: &JobView) -> Outcome {
    let others = Counts { succeeded: 0, ..job.counts };
    if others.total() == 0 {
        return Ok(());
    }
    let what = format!("not every task of {} has succeeded", job.job);
    Err(Problem::new(Code::Conflict, what, view::counts(&others)).hint(format!("swarmctl task list {}", job.job)).into())
}
