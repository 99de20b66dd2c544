//! `swarmd demo`: the main job in one command.
//!
//! A throw-away swarm counts and hashes real files, one task a file. They are put at one node, and travel from there to those that run
//! the tasks. Half way the leader is killed with SIGKILL. The array finishes all the same; every file is accounted for, what each task
//! left is collected to a directory, a sample of the results is computed again here, and the figures are printed.

mod files;
mod report;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use swarm_client::{Client, TasksQuery, Told};
use swarm_proto::{
    Code, Cursor, Digest, JobId, Problem,
    api::{JobOutcome, SubmitLine, SubmitRequest, TaskView},
    ledger::{Event, TaskState, What},
    manifest::{Manifest, Tree},
};
use tokio::time::Instant;

use self::{files::Files, report::Report};
use crate::{
    dev::{Form, Options, Swarm},
    host::stop_asked,
};

/// What each task runs: size, lines and SHA-256 of one file, to standard output and to a file.
const SCRIPT: &str = r#"printf '%s %s %s\n' "$(wc -c < "$SWARM_ITEM")" "$(wc -l < "$SWARM_ITEM")" "$(sha256sum < "$SWARM_ITEM" | cut -d ' ' -f 1)" | tee result"#;
/// The file that each task leaves.
const RESULT: &str = "result";
/// Files on their way at once.
const AT_ONCE: usize = 16;
/// Results that are computed again here.
const SAMPLE: usize = 25;
/// How long the whole job may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Options of `swarmd demo`.
#[derive(clap::Args)]
pub struct Args {
    /// The files to work on: up to 500 below this directory. With fewer than 60, some are made up.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// How many daemons; from 3 on a leader can be lost.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// How the result is printed.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Runs the demo.
///
/// # Errors
/// The first thing that did not come true.
pub fn main(args: Args) -> Result<(), Problem> {
    if !(3..=20).contains(&args.nodes) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("the demo does not run with {} nodes", args.nodes),
            "it kills one: 3 to 20 are needed",
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Problem::new(Code::Internal, "the runtime does not start", e.to_string()))?;
    runtime.block_on(async {
        let stop = stop_asked();
        tokio::pin!(stop);
        let files = Files::choose(&args.dir)?;
        let mut swarm = Swarm::start(&Options { nodes: args.nodes, ..Options::default() })?;
        let outcome = tokio::select! {
            biased;
            signal = &mut stop => Err(Problem::new(Code::Internal, "the demo was interrupted", signal)),
            done = tokio::time::timeout(PATIENCE, work(&mut swarm, &files, args.output)) => {
                done.unwrap_or_else(|_| Err(Problem::new(Code::Timeout, "the demo did not finish", format!("it took more than {} s", PATIENCE.as_secs()))))
            }
        };
        swarm.stop().await;
        outcome
    })
}

fn failed(what: &str, why: impl Into<String>) -> Problem {
    Problem::new(Code::Internal, what, why)
}

async fn work(swarm: &mut Swarm, files: &Files, form: Form) -> Result<(), Problem> {
    let began = Instant::now();
    swarm.wait_ready().await?;
    report::say(
        form,
        &format!(
            "{} daemons are up after {:.1} s; {} files below {}",
            swarm.nodes().len(),
            began.elapsed().as_secs_f64(),
            files.len(),
            files.dir().display()
        ),
    );
    let leader = leader_of(swarm).await?;
    let survivor = swarm.client((leader + 1) % swarm.nodes().len());

    let each = files.put(&survivor).await?;
    report::say(form, &format!("put {} files at {}", each.files, swarm.nodes()[(leader + 1) % swarm.nodes().len()].name));
    let (mut sender, mut receiver) = survivor.submit_stream().await?;
    sender.send(&request(each)).await?;
    sender.finish();
    let job = accepted(&mut receiver).await?;
    report::say(form, &format!("accepted as {job}: {} tasks, on a majority of disks", files.len()));

    wait_half(&survivor, job, files.len()).await?;
    let name = swarm.nodes()[leader].name.clone();
    let seen = newest(&survivor).await?;
    let killed = Instant::now();
    swarm.kill(leader).await?;
    report::say(form, &format!("killed {name}, the leader, with SIGKILL"));
    let gap = first_commit_after(&survivor, seen, killed).await?;
    report::say(form, &format!("the next leader committed {} ms later", gap.as_millis()));

    let outcome = ended(&mut receiver).await?;
    let tasks = all_tasks(&survivor, job).await?;
    let checked = check(files, &tasks)?;
    let results = tempfile::Builder::new().prefix("swarm-results-").tempdir().map_err(|e| failed("nothing is collected", e.to_string()))?;
    let collected = collect(&survivor, &tasks, results.path()).await?;
    let report = Report::new(&outcome, &tasks, &survivor.nodes().await?, gap, began.elapsed(), (checked, collected), &name);
    report.print(form);
    report.verdict()
}

async fn leader_of(swarm: &Swarm) -> Result<usize, Problem> {
    let leader = swarm.client(0).leader().await?;
    swarm.nodes().iter().position(|node| node.name == leader.name).ok_or_else(|| failed("the leader is not found", leader.name))
}

fn request(each: Tree) -> SubmitRequest {
    SubmitRequest {
        id: "demo".into(),
        key: Some(format!("demo-{}", std::process::id())),
        name: Some("count and hash files".into()),
        argv: vec!["sh".into(), "-c".into(), SCRIPT.into()],
        each: Some(each),
        outputs: vec![RESULT.into()],
        cores: Some(0.5),
        ..SubmitRequest::default()
    }
}

async fn accepted(lines: &mut swarm_client::SubmitReceiver) -> Result<JobId, Problem> {
    match lines.next().await? {
        Some(SubmitLine::Accepted { job, .. }) => Ok(job),
        Some(SubmitLine::Refused { problem, .. }) => Err(problem),
        other => Err(failed("the job was not accepted", format!("{other:?}"))),
    }
}

async fn ended(lines: &mut swarm_client::SubmitReceiver) -> Result<JobOutcome, Problem> {
    while let Some(line) = lines.next().await? {
        match line {
            SubmitLine::Ended { outcome, .. } => return Ok(*outcome),
            SubmitLine::Refused { problem, .. } => return Err(problem),
            SubmitLine::Accepted { .. } | SubmitLine::Progress { .. } => {}
        }
    }
    Err(failed("the job did not end", "the stream of answers ended before"))
}

/// Waits until half of the tasks have ended.
async fn wait_half(client: &Client, job: JobId, tasks: usize) -> Result<(), Problem> {
    loop {
        let counts = client.job(job).await?.counts;
        if 2 * (counts.total() - counts.open()) >= tasks as u64 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn newest(client: &Client) -> Result<Cursor, Problem> {
    Ok(Cursor { index: client.stats().await?.log_index, sub: u32::MAX })
}

/// Time from the kill to the first entry of a new term, as a survivor's event stream shows it.
async fn first_commit_after(client: &Client, seen: Cursor, killed: Instant) -> Result<Duration, Problem> {
    let mut events = client.events(Some(seen)).await?;
    while let Some(told) = events.next().await? {
        if let Told::Event(Event { what: What::LeaderElected { .. }, .. }) = told {
            return Ok(killed.elapsed());
        }
    }
    Err(failed("no new leader was seen", "the stream of events ended"))
}

async fn all_tasks(client: &Client, job: JobId) -> Result<Vec<TaskView>, Problem> {
    let mut all: Vec<TaskView> = Vec::new();
    loop {
        let page = client.tasks(TasksQuery { job: Some(job), after: all.last().map(|task| task.task), ..TasksQuery::default() }).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Writes what each task left to `dir`, and compares it with what the task said; answers how many there are.
async fn collect(client: &Client, tasks: &[TaskView], dir: &Path) -> Result<usize, Problem> {
    let one = async |task: &TaskView| -> Result<(), Problem> {
        let output = task.output.as_ref().ok_or_else(|| failed("a result is missing", format!("{} left nothing", task.task)))?;
        let tree = output.files.ok_or_else(|| failed("a result is missing", format!("{} left no file", task.task)))?;
        let manifest = Manifest::decode(&read(client, tree.manifest).await?)?;
        let entry = manifest.get(RESULT).ok_or_else(|| failed("a result is missing", format!("{} left another file", task.task)))?;
        let text = read(client, entry.digest).await?;
        if text != output.stdout.clone().into_bytes()? {
            return Err(failed("a result is wrong", format!("the file of {} is not what it said", task.task)));
        }
        std::fs::write(dir.join(task.task.index.to_string()), text).map_err(|e| failed("a result is not written", e.to_string()))
    };
    let done: Vec<&TaskView> = tasks.iter().filter(|task| task.state == TaskState::Succeeded).collect();
    stream::iter(&done).map(|task| one(task)).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(done.len())
}

async fn read(client: &Client, digest: Digest) -> Result<Vec<u8>, Problem> {
    let (mut reader, mut bytes) = (client.read_blob(digest).await?, Vec::new());
    while let Some(data) = reader.next().await? {
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Every file has one result, and a sample of them is what this process computes itself.
fn check(files: &Files, tasks: &[TaskView]) -> Result<usize, Problem> {
    if tasks.len() != files.len() {
        return Err(failed("not every file is accounted for", format!("{} results for {} files", tasks.len(), files.len())));
    }
    let step = (tasks.len() / SAMPLE).max(1);
    let mut checked = 0;
    for (task, item) in tasks.iter().zip(files.items()).step_by(step) {
        if task.state != TaskState::Succeeded {
            continue;
        }
        let told = task.output.as_ref().map(|output| output.stdout.clone().into_bytes()).transpose()?.unwrap_or_default();
        let own = files.compute(item)?;
        if String::from_utf8_lossy(&told).trim() != own {
            return Err(failed(
                "a result is wrong",
                format!("{item}: the task says '{}', here it is '{own}'", String::from_utf8_lossy(&told).trim()),
            ));
        }
        checked += 1;
    }
    Ok(checked)
}
