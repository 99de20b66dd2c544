//! `task list|show|explain|logs|result|wait|cancel|retry`

pub(in crate::verb) mod logs;
pub(in crate::verb) mod result;

use clap::Subcommand;
use swarm_client::TasksQuery;
use swarm_proto::{JobId, Problem, TaskId, api::TaskView, ledger::TaskState, limits};

use super::{
    job::{LONG_POLL, show_accepted},
    waits::{self, Awaited},
    watch,
};
use crate::{
    args::{ListArgs, WaitArgs},
    failure::{FAILED, Failure, Outcome},
    session::{Session, patiently, random_key, within},
    view,
};

/// `task ..`
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Tasks by id
    List(ListTasks),
    /// One task
    Show(Args),
    /// Why it is, or is not, running
    Explain(Args),
    /// What it writes: its stdout to stdout, its stderr to stderr
    Logs(logs::Args),
    /// All that it wrote to stdout, once it has succeeded
    Result(result::Args),
    /// Wait for its end; exit code 1 unless it succeeded
    Wait(WaitTask),
    /// End it
    Cancel(Many),
    /// A new job of this one task; prints its id
    Retry(Args),
}

/// `task list`.
#[derive(clap::Args, Debug)]
pub struct ListTasks {
    /// Only those of this job
    pub job: Option<JobId>,
    /// Only those in this state
    #[arg(long)]
    pub state: Option<StateWord>,
    /// Those after this one
    #[arg(long, value_name = "TASK")]
    pub after: Option<TaskId>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// `--state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StateWord {
    Pending,
    /// Given to a node: waits there, or runs
    Assigned,
    Succeeded,
    Failed,
    Cancelled,
    Lost,
}

impl From<StateWord> for TaskState {
    fn from(word: StateWord) -> Self {
        match word {
            StateWord::Pending => Self::Pending,
            StateWord::Assigned => Self::Assigned,
            StateWord::Succeeded => Self::Succeeded,
            StateWord::Failed => Self::Failed,
            StateWord::Cancelled => Self::Cancelled,
            StateWord::Lost => Self::Lost,
        }
    }
}

/// Which task.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Its id, such as j17.3; j17 is j17.0
    pub task: TaskId,
}

/// Which tasks.
#[derive(clap::Args, Debug)]
pub struct Many {
    /// Their ids, such as j17.3; j17 is j17.0
    #[arg(required = true)]
    pub tasks: Vec<TaskId>,
}

/// `task wait`.
#[derive(clap::Args, Debug)]
pub struct WaitTask {
    /// Its id, such as j17.3; j17 is j17.0
    pub task: TaskId,
    #[command(flatten)]
    pub wait: WaitArgs,
}

pub(super) async fn call(session: &Session, verb: Verb) -> Outcome {
    let (client, out) = (&session.client, &session.out);
    match verb {
        Verb::List(args) => list(session, args).await,
        Verb::Show(args) => Ok(out.one(&client.task(args.task).await?)?),
        Verb::Explain(args) => {
            let explain = client.explain(args.task).await?;
            Ok(out.either(&explain, |_| view::explain(&explain, out.is_coloured))?)
        }
        Verb::Logs(args) => logs::call(session, &args).await,
        Verb::Result(args) => result::call(session, &args).await,
        Verb::Wait(args) => wait(session, &args).await,
        Verb::Cancel(args) => {
            for task in args.tasks {
                client.cancel_task(task).await?;
            }
            Ok(())
        }
        Verb::Retry(args) => {
            let key = random_key()?;
            let accepted = patiently(async || client.retry_task(args.task, Some(&key)).await).await?;
            show_accepted(out, accepted)
        }
    }
}

async fn list(session: &Session, args: ListTasks) -> Outcome {
    let query = TasksQuery { job: args.job, state: args.state.map(Into::into), after: args.after, limit: None };
    let name = |task: &TaskView| task.task.to_string();
    watch::list(&session.out, args.list.watch.watch, name, async || pages(session, query, args.list.limit).await).await
}

async fn pages(session: &Session, mut query: TasksQuery, limit: u32) -> Result<Vec<TaskView>, Problem> {
    let mut tasks: Vec<TaskView> = Vec::new();
    loop {
        let left = (limit as usize).saturating_sub(tasks.len());
        let wanted = left.min(limits::PAGE);
        query.limit = u32::try_from(wanted).ok();
        let page = session.client.tasks(query).await?;
        let is_last = page.len() < wanted || page.len() == left;
        query.after = page.last().map(|task| task.task);
        tasks.extend(page);
        if is_last {
            return Ok(tasks);
        }
    }
}

async fn wait(session: &Session, args: &WaitTask) -> Outcome {
    let what = format!("{} has not ended", args.task);
    let ended = async {
        loop {
            let view = patiently(async || session.client.wait_task(args.task, LONG_POLL).await).await?;
            if view.state.is_terminal() {
                return Ok(view);
            }
        }
    };
    let ended = waits::explained(&session.client, || Some(Awaited::Task(args.task)), ended);
    let task = within(args.wait.timeout, &what, ended).await?;
    session.out.list(std::slice::from_ref(&task))?;
    if task.state == TaskState::Succeeded { Ok(()) } else { Err(Failure::Code(FAILED)) }
}
