//! What is set for the whole swarm: list, set, set no more.

use axum::{Json, body::Body};
use http::StatusCode;
use swarm_proto::{
    api::{Call, Reply, SettingView},
    http::SetRequest,
};

use crate::{
    query::{self, Id},
    refusal::Refusal,
    router::{Api, reply},
};

pub(crate) async fn list(api: Api) -> Result<Json<Vec<SettingView>>, Refusal> {
    reply!(api, Call::Settings, Reply::Settings).map(Json)
}

pub(crate) async fn set(api: Api, Id(key): Id, body: Body) -> Result<StatusCode, Refusal> {
    let SetRequest { value } = query::json_or_default(body).await?;
    api.order(Call::Set { key, value }).await
}
