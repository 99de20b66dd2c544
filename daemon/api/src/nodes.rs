//! Nodes, by id or name: list, show, and whether they are given work.

use axum::{Json, body::Body};
use http::StatusCode;
use swarm_proto::{
    api::{Call, NodeView, Reply},
    ledger::Schedule,
};

use crate::{
    query::{self, Id},
    refusal::Refusal,
    router::{Api, reply},
};

pub(crate) async fn list(api: Api) -> Result<Json<Vec<NodeView>>, Refusal> {
    reply!(api, Call::Nodes, Reply::Nodes).map(Json)
}

pub(crate) async fn show(api: Api, Id(node): Id) -> Result<Json<Box<NodeView>>, Refusal> {
    reply!(api, Call::Node { node }, Reply::Node).map(Json)
}

async fn schedule(api: &Api, node: String, to: Schedule, body: Body) -> Result<StatusCode, Refusal> {
    query::nothing(body).await?;
    api.order(Call::Schedule { node, to }).await
}

pub(crate) async fn cordon(api: Api, Id(node): Id, body: Body) -> Result<StatusCode, Refusal> {
    schedule(&api, node, Schedule::Cordoned, body).await
}

pub(crate) async fn uncordon(api: Api, Id(node): Id, body: Body) -> Result<StatusCode, Refusal> {
    schedule(&api, node, Schedule::Open, body).await
}

pub(crate) async fn drain(api: Api, Id(node): Id, body: Body) -> Result<StatusCode, Refusal> {
    schedule(&api, node, Schedule::Draining, body).await
}
