//! `task result`: all that a task wrote to standard output, from where it is kept.

use std::path::PathBuf;

use bytes::Bytes;
use swarm_client::Client;
use swarm_proto::{
    Code, Problem, TaskId,
    api::{OutputView, TaskView},
    ledger::TaskState,
};

use crate::{
    failure::Outcome,
    files::{self, Content, Download},
    progress::Bar,
    session::Session,
    view,
};

/// `task result`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Its id, such as j17.3; j17 is j17.0
    pub task: TaskId,
    /// Where to; - is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub to: PathBuf,
}

pub(super) async fn call(session: &Session, args: &Args) -> Outcome {
    let task = session.client.task(args.task).await?;
    if task.state != TaskState::Succeeded {
        return Err(no_result(&task).into());
    }
    let content = match &task.output {
        Some(output) => stdout(&session.client, task.task, output).await?,
        None => Content::Here(Bytes::new()),
    };
    let bar = Bar::new(task.output.map(|output| output.stdout_len));
    files::save(content, &args.to, &bar).await
}

fn no_result(task: &TaskView) -> Problem {
    let name = task.task;
    let end = task.end.as_ref().map(|end| format!(" ({})", view::end(end))).unwrap_or_default();
    let why = format!("it has not succeeded: its state is {}{end}", view::state_word(task.state));
    let next = if task.state.is_terminal() { "look at what it wrote: swarmctl task logs" } else { "wait for it: swarmctl task wait" };
    Problem::new(Code::Conflict, format!("{name} has no result"), why).hint(format!("{next} {name}"))
}

/// The standard output of a task that has ended: a blob, or the head that the ledger keeps, or what is at its node.
///
/// # Errors
/// It cannot be had, or not all of it was kept.
pub(in crate::verb) async fn stdout(client: &Client, task: TaskId, output: &OutputView) -> Result<Content, Problem> {
    if let Some(digest) = output.stdout_blob {
        let len = output.stdout_len;
        let download = Download::new(client, digest).checked(move |size| {
            let what = format!("the output of {task} cannot be given as it was");
            let problem = || Problem::new(Code::Conflict, what, format!("{size} of its {len} bytes were kept"));
            if size == len { Ok(()) } else { Err(problem().hint(format!("get what was kept: swarmctl blob get {digest} FILE"))) }
        });
        return Ok(Content::Coming(Box::new(download)));
    }
    let head = output.stdout.clone().into_bytes()?;
    if head.len() as u64 == output.stdout_len {
        return Ok(Content::Here(head.into()));
    }
    client.result(task).await.map(Content::Here)
}
