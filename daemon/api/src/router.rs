//! The routes, made from the table of operations ([`swarm_proto::access`]): what does not stand there does not exist.
//!
//! Each operation has one handler, each handler stands behind the judge of its own operation, and the only thing by which a handler
//! can reach the daemon is an [`Api`], which only the judge lets pass. A call that goes to the leader is judged once more for
//! what it is, whichever route it came from.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{FromRequestParts, Request},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use http::{Uri, request::Parts};
use swarm_proto::{
    Code, Problem,
    access::{self, Caller, Method, Operation},
    api::{Call, LeaderView, Phase, Reply, Stats, Status},
};

use crate::{
    Backend, Bounds, Pace, blobs, events, follow, identity, jobs, logs, metrics, nodes, refusal::Refusal, settings, submit, tasks,
    too_often,
};

/// Methods that any path takes at all.
pub(crate) const METHODS: [http::Method; 3] = [http::Method::GET, http::Method::HEAD, http::Method::POST];

/// Asks, and takes the one variant of [`Reply`] that fits.
macro_rules! reply {
    ($api:expr, $call:expr, $variant:path) => {{
        let reply = $api.ask($call).await?;
        if let $variant(value) = reply { Ok(value) } else { Err($crate::router::misfit(&reply)) }
    }};
}
pub(crate) use reply;

/// What the routes stand on.
#[derive(Clone)]
pub(crate) struct Shared {
    backend: Arc<dyn Backend>,
    bounds: Bounds,
}

/// What every handler has. There is no way to one but through [`judge`], which knows the caller and the operation.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) bounds: Bounds,
    pub(crate) caller: Caller,
}

/// That a request's caller may do what its route does.
#[derive(Clone)]
struct Allowed(Caller);

impl FromRequestParts<Shared> for Api {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Refusal> {
        let Allowed(caller) = parts.extensions.remove::<Allowed>().ok_or_else(nobody)?;
        Ok(Self { backend: Arc::clone(&shared.backend), bounds: shared.bounds, caller })
    }
}

impl Api {
    /// Asks the daemon, if the caller may do what is asked; of another's job that can be more than the route needs.
    pub(crate) async fn ask(&self, call: Call) -> Result<Reply, Refusal> {
        let operation = Operation::of(&call);
        self.caller.may(operation)?;
        if let Some(job) = access::job_changed(&call).filter(|_| self.caller.role < operation.needs_for_others()) {
            let reply = self.backend.call(&self.caller, Call::Job { job }).await?;
            let Reply::Job(view) = reply else { return Err(misfit(&reply)) };
            self.caller.may_of(operation, job, &view.submitter)?;
        }
        Ok(self.backend.call(&self.caller, call).await?)
    }

    /// A call that has nothing to answer.
    pub(crate) async fn order(&self, call: Call) -> Result<http::StatusCode, Refusal> {
        let reply = self.ask(call).await?;
        if matches!(reply, Reply::Done) { Ok(http::StatusCode::NO_CONTENT) } else { Err(misfit(&reply)) }
    }
}

pub(crate) fn misfit(reply: &impl std::fmt::Debug) -> Refusal {
    let mut kind = format!("{reply:?}");
    kind.truncate(kind.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(kind.len()));
    tracing::error!(reply = kind, "the daemon answered an API call with something else");
    Problem::new(Code::Internal, "the call was answered with something else", format!("a reply '{kind}' does not fit")).into()
}

pub(crate) fn build(backend: Arc<dyn Backend>, bounds: Bounds) -> Router {
    let mut router = Router::new();
    let pace = Arc::new(Pace::new(bounds.requests));
    for operation in Operation::ALL {
        let pace = Arc::clone(&pace);
        let judged = handler(*operation).route_layer(from_fn(move |request, next| judge(*operation, Arc::clone(&pace), request, next)));
        router = router.route(operation.path(), judged);
    }
    router.fallback(unknown).method_not_allowed_fallback(wrong_method).with_state(Shared { backend, bounds })
}

/// Stands before every handler: lets pass who may do the one thing that the route does, and does not ask too often.
async fn judge(operation: Operation, pace: Arc<Pace<String>>, mut request: Request, next: Next) -> Response {
    let judged = request.extensions_mut().remove::<Caller>().ok_or_else(nobody).and_then(|caller| {
        pace.take(&caller.name).map_err(|wait| too_often("the request was refused", format_args!("'{}'", caller.name), wait))?;
        caller.may(operation)?;
        Ok(Allowed(caller))
    });
    match judged {
        Ok(allowed) => {
            request.extensions_mut().insert(allowed);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// A request that came past the door without a name.
fn nobody() -> Refusal {
    Problem::new(Code::Denied, "the request was refused", "it is not known who asks").into()
}

/// What does each operation. There is no other way to be served.
fn handler(operation: Operation) -> MethodRouter<Shared> {
    match operation {
        Operation::Submit => post(submit::submit),
        Operation::ListJobs => get(jobs::list),
        Operation::ShowJob => get(jobs::show),
        Operation::FollowJob => get(follow::job),
        Operation::CancelJob => post(jobs::cancel),
        Operation::RetryJob => post(jobs::retry),
        Operation::ListTasks => get(tasks::list),
        Operation::ShowTask => get(tasks::show),
        Operation::FollowTask => get(follow::task),
        Operation::ExplainTask => get(tasks::explain),
        Operation::ReadLogs => get(logs::logs),
        Operation::ReadResult => get(logs::result),
        Operation::CancelTask => post(tasks::cancel),
        Operation::RetryTask => post(tasks::retry),
        Operation::ListNodes => get(nodes::list),
        Operation::ShowNode => get(nodes::show),
        Operation::Cordon => post(nodes::cordon),
        Operation::Uncordon => post(nodes::uncordon),
        Operation::Drain => post(nodes::drain),
        Operation::ShowLeader => get(leader),
        Operation::Resign => post(resign),
        Operation::ReadEvents => get(events::events),
        Operation::NodeEvents => get(events::node_events),
        Operation::ShowStatus => get(status),
        Operation::ShowStats => get(stats),
        Operation::Health => get(health),
        Operation::Readiness => get(ready),
        Operation::Metrics => get(metrics::metrics),
        Operation::InitMesh => post(identity::init),
        Operation::JoinMesh => post(identity::join),
        Operation::LeaveMesh => post(identity::leave),
        Operation::CreateToken => post(identity::create_token),
        Operation::ListTokens => get(identity::tokens),
        Operation::RevokeToken => post(identity::revoke_token),
        Operation::CreateUser => post(identity::create_user),
        Operation::ListUsers => get(identity::users),
        Operation::RevokeUser => post(identity::revoke_user),
        Operation::RevokeNode => post(identity::revoke_node),
        Operation::ShowCa => get(identity::authorities),
        Operation::RotateCa => post(identity::rotate),
        Operation::CreatePass => post(identity::create_pass),
        Operation::ListSet => get(settings::list),
        Operation::Set => post(settings::set),
        Operation::PutBlob => post(blobs::put),
        Operation::ListBlobs => get(blobs::list),
        Operation::ShowBlob => get(blobs::show),
        Operation::ReadBlob => get(blobs::read),
        Operation::FetchBlob => post(blobs::fetch),
        Operation::PushBlob => post(blobs::push),
        Operation::PinBlob => post(blobs::pin),
        Operation::UnpinBlob => post(blobs::unpin),
        Operation::VerifyBlob => post(blobs::verify),
        Operation::ShowStore => get(blobs::store),
        Operation::Collect => post(blobs::collect),
    }
}

async fn unknown(uri: Uri) -> Refusal {
    Problem::new(Code::NotFound, format!("there is no {}", uri.path()), "no such route").into()
}

async fn wrong_method(method: http::Method, uri: Uri) -> Refusal {
    let takes_post = Operation::ALL.iter().any(|operation| operation.method() == Method::Post && operation.is_at(uri.path()));
    Refusal::method(&method, if takes_post { "POST" } else { "GET, HEAD" })
}

async fn health(_: Api) -> &'static str {
    "ok\n"
}

async fn leader(api: Api) -> Result<Json<LeaderView>, Refusal> {
    reply!(api, Call::Leader, Reply::Leader).map(Json)
}

async fn resign(api: Api) -> Result<http::StatusCode, Refusal> {
    api.order(Call::Resign).await
}

async fn stats(api: Api) -> Result<Json<Box<Stats>>, Refusal> {
    reply!(api, Call::Stats, Reply::Stats).map(Json)
}

async fn status(api: Api) -> Json<Status> {
    Json(api.backend.status())
}

async fn ready(api: Api) -> Result<impl IntoResponse, Refusal> {
    let status = api.backend.status();
    if status.phase == Phase::Ready {
        return Ok("ready\n");
    }
    let word = serde_json::to_string(&status.phase).unwrap_or_default();
    let why = if status.trouble.is_empty() { format!("its phase is {word}") } else { status.trouble };
    Err(Problem::new(Code::NotReady, "this node is not ready", why).into())
}
