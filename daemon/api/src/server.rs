//! Connections: who may speak, how many at once, how large a request may be, and how it all ends.
//!
//! ```text
//! accept -> caller known? -> connection free? -> hyper (HTTP/1.1) -> guard -> router -> judge -> handler -> Backend
//!               403              429                               403, 405, 431  404  403, 429
//! ```
//! The guard stands outside the router and denies what it does not know, so that a forgotten route or method is closed.

use std::{convert::Infallible, future::Future, io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use swarm_proto::{
    Code, Millis, Problem,
    access::{Caller, Role},
    limits,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tower::ServiceExt as _;

use crate::{Backend, enroll, pace::Rate, refusal::Refusal, router};

/// How long requests in flight may go on after the shutdown was asked for.
const GRACE: Duration = Duration::from_secs(1);
/// How long a connection may be idle, or take to send a head.
const IDLE: Duration = Duration::from_secs(60);
/// Connections that are only told why they are refused.
const REFUSED_AT_ONCE: usize = 16;
/// A head larger than this is not even answered in our words; [`limits::HTTP_HEADER`] is judged exactly below it.
const HEAD_BUFFER: usize = 4 * limits::HTTP_HEADER;

/// A group whose members may speak, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupAccess {
    /// Its number.
    pub gid: u32,
    /// What its members may do.
    pub role: Role,
}

/// Somebody who is nobody here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// And why that is so.
    Unknown(String),
    /// But may enrol: the exporter of the TLS session.
    Applicant([u8; 32]),
}

/// Where connections come from.
pub trait Accept: Send {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and who made it. An error is waited out and tried again.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Result<Caller, Stranger>)>> + Send;
}

/// Bounds that tests set lower.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once.
    pub connections: usize,
    /// Submissions of one stream whose answers were not all sent.
    pub unanswered: usize,
    /// Requests of one caller.
    pub requests: Rate,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: limits::API_CONNECTIONS,
            unanswered: limits::SUBMIT_UNANSWERED,
            requests: Rate::new(limits::API_REQUESTS.0, limits::API_REQUESTS.1),
        }
    }
}

/// Serves the API until `shutdown`; requests in flight then have a second to end.
pub async fn serve<A: Accept>(listener: A, backend: Arc<dyn Backend>, shutdown: impl Future<Output = ()>) {
    serve_within(listener, backend, Bounds::default(), shutdown).await;
}

/// [`serve`] with other bounds.
pub async fn serve_within<A: Accept>(mut listener: A, backend: Arc<dyn Backend>, bounds: Bounds, shutdown: impl Future<Output = ()>) {
    let served = Served { router: router::build(Arc::clone(&backend), bounds), backend };
    let applicants = Arc::new(Semaphore::new(limits::API_HANDSHAKES));
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let refusals = Arc::new(Semaphore::new(REFUSED_AT_ONCE));
    let (closing, is_closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! { biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Err(e) => {
                    tracing::warn!(error = %e, "the API cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Ok((stream, caller)) => {
                    if let Some((access, permit)) = admit(caller, &slots, &refusals, &applicants) {
                        connections.spawn(connection(stream, access, permit, served.clone(), is_closing.clone()));
                    }
                }
            },
        }
    }
    drop(listener);
    let _ = closing.send(true);
    let _ = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

/// What a connection may do: what its caller may, or hear one problem.
#[derive(Clone)]
enum Access {
    Known(Caller),
    /// Nothing but to enrol.
    Enrol([u8; 32]),
    Refused(Problem),
}

/// What answers.
#[derive(Clone)]
struct Served {
    router: Router,
    backend: Arc<dyn Backend>,
}

/// `None`: even those who only wait to be refused are too many, and the connection is closed without a word.
fn admit(
    caller: Result<Caller, Stranger>,
    slots: &Arc<Semaphore>,
    refusals: &Arc<Semaphore>,
    applicants: &Arc<Semaphore>,
) -> Option<(Access, OwnedSemaphorePermit)> {
    let problem = match caller {
        Ok(caller) => match Arc::clone(slots).try_acquire_owned() {
            Ok(permit) => return Some((Access::Known(caller), permit)),
            Err(_) => Problem::new(Code::Busy, "the connection was refused", "as many are open as this daemon takes")
                .hint("share one connection, or come back")
                .retry_after(Millis(1_000)),
        },
        Err(Stranger::Applicant(exporter)) => {
            return Arc::clone(applicants).try_acquire_owned().ok().map(|permit| (Access::Enrol(exporter), permit));
        }
        Err(Stranger::Unknown(why)) => Problem::new(Code::Denied, "the connection was refused", why)
            .hint("run it as root, as the daemon's user, or as a member of the group in [api] group"),
    };
    Arc::clone(refusals).try_acquire_owned().ok().map(|permit| (Access::Refused(problem), permit))
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    access: Access,
    _slot: OwnedSemaphorePermit,
    served: Served,
    mut is_closing: watch::Receiver<bool>,
) {
    let keep_alive = matches!(access, Access::Known(_));
    let service = hyper::service::service_fn(move |request| answer(served.clone(), access.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD_BUFFER)
        .keep_alive(keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! { biased;
        ended = connection.as_mut() => ended,
        () = closed(&mut is_closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "an API connection ended early");
    }
}

async fn closed(is_closing: &mut watch::Receiver<bool>) {
    // An error means that the server itself is gone, which is the same.
    let _ = is_closing.wait_for(|closing| *closing).await;
}

async fn answer(served: Served, access: Access, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if let Access::Enrol(exporter) = access {
        return Ok(enroll::answer(&served.backend, exporter, request).await);
    }
    match guard(access, &request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            served.router.oneshot(request.map(Body::new)).await
        }
        Err(refusal) => Ok(axum::response::IntoResponse::into_response(refusal)),
    }
}

/// Denies everything that is not plainly allowed, before any handler sees it.
fn guard(access: Access, request: &Request<Incoming>) -> Result<Caller, Refusal> {
    let caller = match access {
        Access::Known(caller) => caller,
        Access::Enrol(_) => return Err(Problem::new(Code::Denied, "the request was refused", "it is not known who asks").into()),
        Access::Refused(problem) => return Err(problem.into()),
    };
    let head = head_size(request);
    if head > limits::HTTP_HEADER {
        let why = format!("its head has {head} bytes, at most {} are taken", limits::HTTP_HEADER);
        return Err(Refusal::with_status(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Problem::new(Code::BadRequest, "the request is too large", why),
        ));
    }
    if !router::METHODS.contains(request.method()) {
        return Err(Refusal::method(request.method(), "GET, HEAD, POST"));
    }
    Ok(caller)
}

/// Bytes of the head as it is usually sent: request line, one line a header, empty line.
fn head_size(request: &Request<Incoming>) -> usize {
    let line = request.method().as_str().len() + request.uri().to_string().len() + " HTTP/1.1\r\n".len() + 1;
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    line + headers + "\r\n".len()
}
