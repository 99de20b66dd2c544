//! The routes, on one page. What does not stand here does not exist.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    response::IntoResponse,
    routing::{get, post},
};
use http::{Method, Uri};
use swarm_proto::{
    Code, Problem,
    api::{Call, LeaderView, Phase, Reply, Stats, Status},
};

use crate::{Backend, Bounds, events, follow, jobs, logs, metrics, nodes, refusal::Refusal, submit, tasks};

/// Methods that any path takes at all.
pub(crate) const METHODS: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];
/// Who speaks on a socket that only the daemon's user and root can use.
const SUBMITTER: &str = "local";

/// What every handler has.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) bounds: Bounds,
}

impl Api {
    pub(crate) fn submitter(&self) -> String {
        SUBMITTER.to_owned()
    }

    pub(crate) async fn ask(&self, call: Call) -> Result<Reply, Refusal> {
        self.backend.call(self.submitter(), call).await.map_err(Refusal::from)
    }

    /// A call that has nothing to answer.
    pub(crate) async fn order(&self, call: Call) -> Result<http::StatusCode, Refusal> {
        let reply = self.ask(call).await?;
        if matches!(reply, Reply::Done) { Ok(http::StatusCode::NO_CONTENT) } else { Err(misfit(&reply)) }
    }
}

/// Asks, and takes the one variant of [`Reply`] that fits.
macro_rules! reply {
    ($api:expr, $call:expr, $variant:path) => {{
        let reply = $api.ask($call).await?;
        if let $variant(value) = reply { Ok(value) } else { Err($crate::router::misfit(&reply)) }
    }};
}
pub(crate) use reply;

pub(crate) fn misfit(reply: &Reply) -> Refusal {
    let mut kind = format!("{reply:?}");
    kind.truncate(kind.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(kind.len()));
    tracing::error!(reply = kind, "the daemon answered an API call with something else");
    Problem::new(Code::Internal, "the call was answered with something else", format!("a reply '{kind}' does not fit")).into()
}

pub(crate) fn build(backend: Arc<dyn Backend>, bounds: Bounds) -> Router {
    Router::new()
        .route("/v1/submit", post(submit::submit))
        .route("/v1/jobs", get(jobs::list))
        .route("/v1/jobs/{id}", get(jobs::show))
        .route("/v1/jobs/{id}/follow", get(follow::job))
        .route("/v1/jobs/{id}/cancel", post(jobs::cancel))
        .route("/v1/jobs/{id}/retry", post(jobs::retry))
        .route("/v1/tasks", get(tasks::list))
        .route("/v1/tasks/{id}", get(tasks::show))
        .route("/v1/tasks/{id}/follow", get(follow::task))
        .route("/v1/tasks/{id}/explain", get(tasks::explain))
        .route("/v1/tasks/{id}/logs", get(logs::logs))
        .route("/v1/tasks/{id}/result", get(logs::result))
        .route("/v1/tasks/{id}/cancel", post(tasks::cancel))
        .route("/v1/tasks/{id}/retry", post(tasks::retry))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{id}", get(nodes::show))
        .route("/v1/nodes/{id}/cordon", post(nodes::cordon))
        .route("/v1/nodes/{id}/uncordon", post(nodes::uncordon))
        .route("/v1/nodes/{id}/drain", post(nodes::drain))
        .route("/v1/leader", get(leader))
        .route("/v1/leader/resign", post(resign))
        .route("/v1/events", get(events::events))
        .route("/v1/node-events", get(events::node_events))
        .route("/v1/status", get(status))
        .route("/v1/stats", get(stats))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics::metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Api { backend, bounds })
}

async fn unknown(uri: Uri) -> Refusal {
    Problem::new(Code::NotFound, format!("there is no {}", uri.path()), "no such route").into()
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let takes_post = ["/submit", "/cancel", "/retry", "/cordon", "/uncordon", "/drain", "/resign"];
    let allow = if takes_post.iter().any(|end| uri.path().ends_with(end)) { "POST" } else { "GET, HEAD" };
    Refusal::method(&method, allow)
}

async fn leader(State(api): State<Api>) -> Result<Json<LeaderView>, Refusal> {
    reply!(api, Call::Leader, Reply::Leader).map(Json)
}

async fn resign(State(api): State<Api>) -> Result<http::StatusCode, Refusal> {
    api.order(Call::Resign).await
}

async fn stats(State(api): State<Api>) -> Result<Json<Box<Stats>>, Refusal> {
    reply!(api, Call::Stats, Reply::Stats).map(Json)
}

async fn status(State(api): State<Api>) -> Json<Status> {
    Json(api.backend.status())
}

async fn ready(State(api): State<Api>) -> Result<impl IntoResponse, Refusal> {
    let status = api.backend.status();
    if status.phase == Phase::Ready {
        return Ok("ready\n");
    }
    let word = serde_json::to_string(&status.phase).unwrap_or_default();
    let why = if status.trouble.is_empty() { format!("its phase is {word}") } else { status.trouble };
    Err(Problem::new(Code::NotReady, "this node is not ready", why).into())
}
