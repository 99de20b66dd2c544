//! `job list|show|wait|results|cancel|retry`

mod results;

use std::time::Duration;

use clap::Subcommand;
use swarm_client::JobsQuery;
use swarm_proto::{
    JobId, Problem,
    api::JobView,
    http::{Accepted, FollowLine},
    ledger::TaskState,
    limits,
};

use super::{
    waits::{self, Awaited},
    watch,
};
use crate::{
    args::{ListArgs, WaitArgs},
    failure::{FAILED, Failure, Outcome},
    output::{self, Out},
    progress::Progress,
    session::{Session, patiently, random_key, within},
};

/// The longest single wait; the next one follows at once.
pub(super) const LONG_POLL: Duration = Duration::from_secs(60);

/// `job ..`
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Jobs, newest first
    List(ListJobs),
    /// One job
    Show(Args),
    /// Wait for its end; exit code 1 unless all of its tasks succeeded
    Wait(WaitJob),
    /// The files that its tasks left; exit code 1 unless all of them have succeeded
    Results(results::Args),
    /// End all of its tasks that have not ended
    Cancel(Many),
    /// A new job of its tasks that did not succeed; prints its id
    Retry(Args),
}

/// `job list`.
#[derive(clap::Args, Debug)]
pub struct ListJobs {
    /// Only those that have not ended
    #[arg(long)]
    pub open: bool,
    /// Those older than this one
    #[arg(long, value_name = "JOB")]
    pub before: Option<JobId>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// Which job.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Its id, such as j17
    pub job: JobId,
}

/// Which jobs.
#[derive(clap::Args, Debug)]
pub struct Many {
    /// Their ids, such as j17
    #[arg(required = true)]
    pub jobs: Vec<JobId>,
}

/// `job wait`.
#[derive(clap::Args, Debug)]
pub struct WaitJob {
    /// Its id, such as j17
    pub job: JobId,
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Show how far it is, on a terminal
    #[arg(long)]
    pub progress: bool,
}

pub(super) async fn call(session: &Session, verb: Verb) -> Outcome {
    let client = &session.client;
    match verb {
        Verb::List(args) => list(session, args).await,
        Verb::Show(args) => Ok(session.out.one(&client.job(args.job).await?)?),
        Verb::Wait(args) => wait(session, &args).await,
        Verb::Results(args) => results::call(session, &args).await,
        Verb::Cancel(args) => {
            for job in args.jobs {
                client.cancel_job(job).await?;
            }
            Ok(())
        }
        Verb::Retry(args) => {
            let key = random_key()?;
            let accepted = patiently(async || client.retry_job(args.job, Some(&key)).await).await?;
            show_accepted(&session.out, accepted)
        }
    }
}

/// The id of a new job.
pub(super) fn show_accepted(out: &Out, accepted: Accepted) -> Outcome {
    Ok(out.either(&accepted, |_| format!("{}\n", accepted.job))?)
}

async fn list(session: &Session, args: ListJobs) -> Outcome {
    let query = JobsQuery { before: args.before, limit: None, open_only: args.open };
    let name = |job: &JobView| job.job.to_string();
    watch::list(&session.out, args.list.watch.watch, name, async || pages(session, query, args.list.limit).await).await
}

async fn pages(session: &Session, mut query: JobsQuery, limit: u32) -> Result<Vec<JobView>, Problem> {
    let mut jobs: Vec<JobView> = Vec::new();
    loop {
        let left = (limit as usize).saturating_sub(jobs.len());
        let wanted = left.min(limits::PAGE);
        query.limit = u32::try_from(wanted).ok();
        let page = session.client.jobs(query).await?;
        let is_last = page.len() < wanted || page.len() == left;
        query.before = page.last().map(|job| job.job);
        jobs.extend(page);
        if is_last {
            return Ok(jobs);
        }
    }
}

async fn wait(session: &Session, args: &WaitJob) -> Outcome {
    let what = format!("{} has not ended", args.job);
    let ended = async { if args.progress { watched_end(session, args.job).await } else { end(session, args.job).await } };
    let ended = waits::explained(&session.client, || Some(Awaited::Job(args.job)).filter(|_| !args.progress), ended);
    let job = within(args.wait.timeout, &what, ended).await?;
    session.out.list(std::slice::from_ref(&job))?;
    if job.state == Some(TaskState::Succeeded) { Ok(()) } else { Err(Failure::Code(FAILED)) }
}

async fn end(session: &Session, job: JobId) -> Outcome<JobView> {
    loop {
        let view = patiently(async || session.client.wait_job(job, LONG_POLL).await).await?;
        if view.state.is_some() {
            return Ok(view);
        }
    }
}

/// The same with a bar. The stream of progress may break; the end is asked for by itself.
async fn watched_end(session: &Session, job: JobId) -> Outcome<JobView> {
    let mut progress = Progress::new(true);
    loop {
        let mut lines = patiently(async || session.client.follow_job(job).await).await?;
        while let Ok(Some(line)) = lines.next().await {
            match line {
                FollowLine::Progress { job, counts } => progress.update(job, counts),
                FollowLine::JobEnded(_) | FollowLine::TaskEnded(_) => return end(session, job).await,
                FollowLine::Failed(problem) => progress.beside(|| output::note(&format!("{}: {}", problem.what, problem.why))),
            }
        }
        let view = patiently(async || session.client.wait_job(job, crate::session::AGAIN).await).await?;
        if view.state.is_some() {
            return Ok(view);
        }
    }
}
