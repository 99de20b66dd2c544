//! `run [--] CMD..`: one command on the swarm as if it ran here. Its input is ours, its output goes to ours, its exit code is ours.

mod copier;

use std::{future::Future, io::IsTerminal as _, time::Duration};

use swarm_client::Client;
use swarm_proto::{
    Code, JobId, Problem, TaskId,
    api::{JobOutcome, SubmitRequest, TaskView, Text},
    ledger::{End, TaskState},
};
use tokio::{sync::watch, time::timeout};

use self::copier::Copier;
use super::{
    desk::{Desk, Told},
    waits::{self, Awaited},
};
use crate::{
    failure::{Failure, Outcome},
    output,
    plan::{Job, Trees},
    session::{Session, interrupt, random_key},
    spec::{self, SpecArgs},
    view,
};

/// How long Ctrl-C waits for the cancellation to be on record; a second one does not.
const CANCEL: Duration = Duration::from_secs(5);

/// `run`.
#[derive(clap::Args, Debug)]
#[command(override_usage = "swarmctl run [OPTIONS] [--] COMMAND..")]
pub struct Args {
    /// Sign it with this machine's login, for nodes that demand that
    #[arg(long)]
    pub sign: bool,
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

pub(super) async fn call<F: Future<Output = Outcome<Session>>>(args: &Args, session: impl FnOnce() -> F) -> Outcome {
    let request = SubmitRequest { argv: args.command.clone(), key: Some(random_key()?), ..SubmitRequest::default() };
    let mut job = Job { request, ..Job::default() };
    args.spec.apply(&mut job)?;
    let mut plan = job.plan()?;
    let session = session().await?;
    if plan.request.stdin.is_none() && !std::io::stdin().is_terminal() {
        plan.request.stdin = Some(spec::read_stdin("-")?).filter(|input| *input != Text::Utf8(String::new()));
        plan.check()?;
    }
    let mut request = plan.put(&session.client, &mut Trees::new()).await?;
    if args.sign {
        super::sign::sign(&session, std::slice::from_mut(&mut request)).await?;
    }
    let client = &session.client;
    let (accepted, job) = watch::channel(None);
    let mut ended = Box::pin(follow(client, request, accepted));
    let mut copier = Copier::default();
    let outcome = tokio::select! {
        biased;
        outcome = &mut ended => outcome?,
        () = interrupt() => return Err(cancel(client, ended, job).await),
        failure = copy(&mut copier, client, job.clone()) => return Err(failure),
        never = waits::explain(client, || job.borrow().map(Awaited::Job)) => match never {},
    };
    let Some(task) = outcome.task else { return Err(odd(outcome.job)) };
    tokio::select! {
        biased;
        done = copier.finish(client, &task) => done?,
        () = interrupt() => return Err(Failure::Interrupted(format!("{} has ended; its output: swarmctl task logs {}", task.task, task.task))),
    }
    if let Some(tree) = task.output.as_ref().and_then(|output| output.files) {
        let files = view::files(tree.files.into(), tree.bytes);
        output::note(&format!("{} left {files}: swarmctl job results {} --to DIR", task.task, task.task.job));
    }
    end(&task)
}

/// Submits, says which job it became, and returns its end.
async fn follow(client: &Client, request: SubmitRequest, accepted: watch::Sender<Option<JobId>>) -> Outcome<JobOutcome> {
    let mut outcome = None;
    let mut desk = Desk::new(vec![request], true);
    let driven = desk.drive(client, |_, told| match told {
        Told::Accepted(job, _) => {
            accepted.send_replace(Some(job));
            Ok(())
        }
        Told::Refused(problem) => Err(problem.into()),
        Told::Progress(..) => Ok(()),
        Told::Ended(ended) => {
            outcome = Some(*ended);
            Ok(())
        }
    });
    let driven = driven.await;
    let job = *accepted.borrow();
    if let (Err(Failure::Problem(problem)), Some(job)) = (driven.clone(), job) {
        return Err((*problem).hint(format!("it was accepted and may go on: swarmctl job show {job}")).into());
    }
    driven?;
    outcome.ok_or_else(|| odd(job.unwrap_or_default()))
}

fn odd(job: JobId) -> Failure {
    Problem::new(Code::Internal, "the task's end is not known", format!("swarmd told none of {job}")).into()
}

/// Copies output as it is written; returns only when ours cannot be written any more.
async fn copy(copier: &mut Copier, client: &Client, mut job: watch::Receiver<Option<JobId>>) -> Failure {
    loop {
        let accepted = *job.borrow_and_update();
        if let Some(job) = accepted {
            return copier.follow(client, TaskId { job, index: 0 }).await;
        }
        if job.changed().await.is_err() {
            // Whoever knows the job is about to return.
            std::future::pending::<()>().await;
        }
    }
}

/// Takes the job back. It is known only once it was accepted, which is waited for: nothing must be left behind.
async fn cancel(client: &Client, ended: impl Future<Output = Outcome<JobOutcome>>, job: watch::Receiver<Option<JobId>>) -> Failure {
    let mut wait = job.clone();
    let accepted = async { wait.wait_for(Option::is_some).await.ok().and_then(|job| *job) };
    let cancelled = async {
        tokio::pin!(ended);
        let accepted = tokio::select! {
            biased;
            accepted = accepted => accepted,
            // It ended, or will never be.
            _ = &mut ended => None,
        };
        match accepted {
            None => Ok(()),
            Some(job) => client.cancel_job(job).await,
        }
    };
    let done = tokio::select! {
        biased;
        done = timeout(CANCEL, cancelled) => done.ok(),
        () = interrupt() => None,
    };
    let job = *job.borrow();
    Failure::Interrupted(match (done, job) {
        (Some(Ok(())), Some(job)) => format!("interrupted; {job} is cancelled"),
        (Some(Ok(())), None) => String::new(),
        (_, Some(job)) => format!("interrupted; {job} may go on: swarmctl job cancel {job}"),
        (_, None) => "interrupted; it may have been accepted: swarmctl job list".into(),
    })
}

/// The task's own exit code; what is no code of its own is said.
fn end(task: &TaskView) -> Outcome {
    if task.state == TaskState::Succeeded {
        return Ok(());
    }
    let name = task.task;
    let place = task.node.map(|node| format!(" on {node}")).unwrap_or_default();
    let (code, what, why) = match &task.end {
        Some(End::Exit(_) | End::Signal(_)) => return Err(Failure::Code(task.exit_code())),
        Some(End::Timeout) => (Code::Timeout, format!("{name} took too long{place}"), "its --timeout was over".to_owned()),
        Some(End::Spawn(why)) => (Code::Conflict, format!("{name} could not be started{place}"), why.clone()),
        Some(End::Input(why)) => (Code::Conflict, format!("{name} did not get its files{place}"), why.clone()),
        Some(End::Output(why)) => (Code::Conflict, format!("{name} did not leave its files{place}"), why.clone()),
        Some(End::Refused(why)) => (Code::Conflict, format!("{name} was refused{place}"), why.clone()),
        Some(End::Cancelled) => (Code::Conflict, format!("{name} was cancelled"), "somebody asked for it".into()),
        Some(End::Lost | End::Succeeded) | None => (Code::Conflict, format!("{name} is lost"), format!("its attempt is gone{place}")),
    };
    Err(Problem::new(code, what, why).hint(format!("swarmctl task show {name}")).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    fn code(state: TaskState, end_: Option<End>) -> Option<u8> {
        let task = TaskView { state, end: end_, ..samples::tasks().remove(0) };
        end(&task).err().map(|failure| failure.run_exit_code())
    }

    #[test]
    fn the_tasks_code_is_ours() {
        assert_eq!(code(TaskState::Succeeded, Some(End::Succeeded)), None);
        assert_eq!(code(TaskState::Failed, Some(End::Exit(3))), Some(3));
        assert_eq!(code(TaskState::Failed, Some(End::Exit(255))), Some(255));
        assert_eq!(code(TaskState::Failed, Some(End::Signal(9))), Some(137));
        assert_eq!(code(TaskState::Failed, Some(End::Timeout)), Some(124));
        assert_eq!(code(TaskState::Failed, Some(End::Spawn("no such file".into()))), Some(125));
        assert_eq!(code(TaskState::Failed, Some(End::Refused("off".into()))), Some(125));
        assert_eq!(code(TaskState::Cancelled, Some(End::Cancelled)), Some(125));
        assert_eq!(code(TaskState::Cancelled, None), Some(125));
        assert_eq!(code(TaskState::Lost, Some(End::Lost)), Some(125));
    }

    #[test]
    fn our_code_is_the_one_that_the_api_promises() {
        for end_ in [End::Exit(3), End::Signal(15), End::Timeout, End::Spawn(String::new()), End::Lost] {
            let task = TaskView { state: TaskState::Failed, end: Some(end_), ..samples::tasks().remove(0) };
            assert_eq!(end(&task).unwrap_err().run_exit_code(), task.exit_code());
        }
    }
}
