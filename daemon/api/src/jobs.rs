//! Jobs: list, show (and wait), cancel, retry.

use axum::{Json, body::Body};
use http::{StatusCode, Uri};
use serde::Deserialize;
use swarm_proto::{
    JobId,
    api::{Call, JobView, Reply},
    http::{Accepted, RetryRequest},
    peer::Target,
};

use crate::{
    follow,
    query::{self, Id, query},
    refusal::Refusal,
    router::{Api, misfit, reply},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    before: Option<JobId>,
    limit: Option<u32>,
    state: Option<ListState>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum ListState {
    Open,
    Any,
}

pub(crate) async fn list(api: Api, uri: Uri) -> Result<Json<Vec<JobView>>, Refusal> {
    let asked: ListQuery = query(&uri)?;
    let call = Call::Jobs { before: asked.before, limit: query::page(asked.limit)?, open_only: asked.state == Some(ListState::Open) };
    reply!(api, call, Reply::Jobs).map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowQuery {
    pub(crate) wait: Option<f64>,
}

/// With `?wait=SECONDS` not before the job has ended or that time is over; the answer says which.
pub(crate) async fn show(api: Api, Id(id): Id, uri: Uri) -> Result<Json<Box<JobView>>, Refusal> {
    let job: JobId = query::id(&id)?;
    let wait = query::wait(query::<ShowQuery>(&uri)?.wait)?;
    let view = reply!(api, Call::Job { job }, Reply::Job)?;
    let Some(wait) = wait.filter(|_| view.state.is_none()) else { return Ok(Json(view)) };
    follow::until_end(&api, Target::Job(job), wait).await;
    reply!(api, Call::Job { job }, Reply::Job).map(Json)
}

pub(crate) async fn cancel(api: Api, Id(id): Id, body: Body) -> Result<StatusCode, Refusal> {
    query::nothing(body).await?;
    api.order(Call::CancelJob { job: query::id(&id)? }).await
}

pub(crate) async fn retry(api: Api, Id(id): Id, body: Body) -> Result<Json<Accepted>, Refusal> {
    let RetryRequest { key } = query::json_or_default(body).await?;
    accepted(&api, Call::RetryJob { job: query::id(&id)?, key }).await
}

pub(crate) async fn accepted(api: &Api, call: Call) -> Result<Json<Accepted>, Refusal> {
    let reply = api.ask(call).await?;
    if let Reply::Accepted { job, is_new } = reply { Ok(Json(Accepted { job, is_new })) } else { Err(misfit(&reply)) }
}
