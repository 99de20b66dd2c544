//! Who may come in: this host's own place in a swarm, tokens, users, authorities.

use axum::{Json, body::Body};
use http::StatusCode;
use swarm_proto::api::{
    Belonging, Call, Choices, HostCall, JoinRequest, PassRequest, Reply, RootView, RotateRequest, TokenLine, TokenRequest, TokenView,
    UserRequest, UserView,
};

use crate::{
    query::{self, Id},
    refusal::Refusal,
    router::{Api, reply},
};

async fn host(api: &Api, call: HostCall) -> Result<Json<Belonging>, Refusal> {
    Ok(Json(api.backend.host(call).await?))
}

pub(crate) async fn init(api: Api, body: Body) -> Result<Json<Belonging>, Refusal> {
    host(&api, HostCall::Init(query::json_or_default::<Choices>(body).await?)).await
}

pub(crate) async fn join(api: Api, body: Body) -> Result<Json<Belonging>, Refusal> {
    host(&api, HostCall::Join(query::json::<JoinRequest>(body).await?)).await
}

pub(crate) async fn leave(api: Api, body: Body) -> Result<Json<Belonging>, Refusal> {
    query::nothing(body).await?;
    host(&api, HostCall::Leave).await
}

pub(crate) async fn create_token(api: Api, body: Body) -> Result<Json<Box<TokenLine>>, Refusal> {
    let request = query::json_or_default::<TokenRequest>(body).await?;
    reply!(api, Call::CreateToken(request), Reply::Token).map(Json)
}

pub(crate) async fn tokens(api: Api) -> Result<Json<Vec<TokenView>>, Refusal> {
    reply!(api, Call::Tokens, Reply::Tokens).map(Json)
}

pub(crate) async fn revoke_token(api: Api, Id(token): Id, body: Body) -> Result<StatusCode, Refusal> {
    query::nothing(body).await?;
    api.order(Call::RevokeToken { token: query::id(&token)? }).await
}

pub(crate) async fn create_user(api: Api, body: Body) -> Result<Json<Box<TokenLine>>, Refusal> {
    let request = query::json::<UserRequest>(body).await?;
    reply!(api, Call::CreateUser(request), Reply::Token).map(Json)
}

pub(crate) async fn create_pass(api: Api, body: Body) -> Result<Json<Box<TokenLine>>, Refusal> {
    let request = query::json::<PassRequest>(body).await?;
    reply!(api, Call::CreatePass(request), Reply::Token).map(Json)
}

pub(crate) async fn users(api: Api) -> Result<Json<Vec<UserView>>, Refusal> {
    reply!(api, Call::Users, Reply::Users).map(Json)
}

pub(crate) async fn revoke_user(api: Api, Id(name): Id, body: Body) -> Result<StatusCode, Refusal> {
    query::nothing(body).await?;
    api.order(Call::RevokeUser { name }).await
}

pub(crate) async fn revoke_node(api: Api, Id(node): Id, body: Body) -> Result<StatusCode, Refusal> {
    query::nothing(body).await?;
    api.order(Call::Revoke { node }).await
}

pub(crate) async fn authorities(api: Api) -> Result<Json<Vec<RootView>>, Refusal> {
    reply!(api, Call::Authorities, Reply::Authorities).map(Json)
}

pub(crate) async fn rotate(api: Api, body: Body) -> Result<Json<Vec<RootView>>, Refusal> {
    let request = query::json_or_default::<RotateRequest>(body).await?;
    reply!(api, Call::RotateCa(request), Reply::Authorities).map(Json)
}
