//! Says on stderr why what somebody waits for does not begin.

use std::{convert::Infallible, time::Duration};

use swarm_client::Client;
use swarm_proto::{JobId, Problem, TaskId};
use tokio::time::sleep;

use crate::{output, view};

/// What begins as soon as this needs no word.
const SOON: Duration = Duration::from_secs(2);
/// Between two looks. Only what is new is said.
const LOOK: Duration = Duration::from_secs(15);

/// What somebody waits for.
#[derive(Clone, Copy)]
pub(super) enum Awaited {
    Job(JobId),
    Task(TaskId),
}

/// Waits, and says why nothing begins meanwhile of what `awaited` names, where nothing does.
pub(super) async fn explained<T>(client: &Client, awaited: impl Fn() -> Option<Awaited>, wait: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        answer = wait => answer,
        never = explain(client, awaited) => match never {},
    }
}

/// To be dropped when the wait is over.
pub(super) async fn explain(client: &Client, awaited: impl Fn() -> Option<Awaited>) -> Infallible {
    let mut said = None;
    sleep(SOON).await;
    loop {
        let Some(awaited) = awaited() else {
            sleep(SOON).await;
            continue;
        };
        // whether the daemon answers is for the wait to say
        if let Ok(Some(why)) = why(client, awaited).await
            && said.as_ref() != Some(&why)
        {
            output::note(&why);
            said = Some(why);
        }
        sleep(LOOK).await;
    }
}

/// Why none of it has begun; `None` where some has, or is about to.
async fn why(client: &Client, awaited: Awaited) -> Result<Option<String>, Problem> {
    let task = match awaited {
        Awaited::Task(task) => task,
        Awaited::Job(job) => {
            let view = client.job(job).await?;
            if view.counts.pending < view.tasks.into() {
                return Ok(None);
            }
            TaskId { job, index: view.first }
        }
    };
    Ok(view::why_not(&client.explain(task).await?))
}
