//! Tasks: list, show (and wait), explain, cancel, retry. What they wrote: `logs`.

use axum::{Json, body::Body};
use http::{StatusCode, Uri};
use serde::Deserialize;
use swarm_proto::{
    JobId, TaskId,
    api::{Call, Explain, Reply, TaskView},
    http::{Accepted, RetryRequest},
    ledger::TaskState,
    peer::Target,
};

use crate::{
    follow, jobs,
    query::{self, Id, query},
    refusal::Refusal,
    router::{Api, reply},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    job: Option<JobId>,
    state: Option<TaskState>,
    after: Option<String>,
    limit: Option<u32>,
}

pub(crate) async fn list(api: Api, uri: Uri) -> Result<Json<Vec<TaskView>>, Refusal> {
    let asked: ListQuery = query(&uri)?;
    let after = asked.after.as_deref().map(query::id).transpose()?;
    let call = Call::Tasks { job: asked.job, state: asked.state, after, limit: query::page(asked.limit)? };
    reply!(api, call, Reply::Tasks).map(Json)
}

/// With `?wait=SECONDS` not before the task has ended or that time is over; the answer says which.
pub(crate) async fn show(api: Api, Id(id): Id, uri: Uri) -> Result<Json<Box<TaskView>>, Refusal> {
    let task: TaskId = query::id(&id)?;
    let wait = query::wait(query::<jobs::ShowQuery>(&uri)?.wait)?;
    let view = reply!(api, Call::Task { task }, Reply::Task)?;
    let Some(wait) = wait.filter(|_| !view.state.is_terminal()) else { return Ok(Json(view)) };
    follow::until_end(&api, Target::Task(task), wait).await;
    reply!(api, Call::Task { task }, Reply::Task).map(Json)
}

pub(crate) async fn explain(api: Api, Id(id): Id) -> Result<Json<Box<Explain>>, Refusal> {
    reply!(api, Call::Explain { task: query::id(&id)? }, Reply::Explain).map(Json)
}

pub(crate) async fn cancel(api: Api, Id(id): Id, body: Body) -> Result<StatusCode, Refusal> {
    query::nothing(body).await?;
    api.order(Call::CancelTask { task: query::id(&id)? }).await
}

pub(crate) async fn retry(api: Api, Id(id): Id, body: Body) -> Result<Json<Accepted>, Refusal> {
    let RetryRequest { key } = query::json_or_default(body).await?;
    jobs::accepted(&api, Call::RetryTask { task: query::id(&id)?, key }).await
}
