//! Connections: who may speak, how many at once, how large a request may be, and how it all ends.
//!
//! ```text
//! accept -> caller known? -> connection free? -> hyper (HTTP/1.1) -> guard -> router -> judge -> handler -> Backend
//!               403              429                               403, 405, 431  404  403, 429
//! ```
//! The guard stands outside the router and denies what it does not know, so that a forgotten route or method is closed.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use swarm_proto::{
    Code, Millis, Problem,
    access::{Caller, How, Role},
    limits,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tower::ServiceExt as _;

use crate::{Backend, enroll, mesh, pace::Rate, refusal::Refusal, router};

/// How long requests in flight may go on after the shutdown was asked for.
const GRACE: Duration = Duration::from_secs(1);
/// How long a connection may be idle, or take to send a head.
const IDLE: Duration = Duration::from_secs(60);
/// How often it is asked whether somebody who is served still is who they were.
const LOOK: Duration = Duration::from_secs(1);
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

/// Who is at the other end of a connection.
#[derive(Clone)]
pub enum Visitor {
    /// The kernel vouches for them, for as long as they are connected.
    Local(Caller),
    /// The owner of a user's certificate. Who that is may change, so it is asked at each request and while one is served.
    Certified(Again),
    /// Showed no certificate over TLS: may enrol, or show a token with the request. The exporter of the session.
    Unnamed { exporter: [u8; 32], from: IpAddr },
    /// Nobody, and why that is so.
    Stranger(String),
}

/// Says who somebody is now.
pub type Again = Arc<dyn Fn() -> Result<Caller, Problem> + Send + Sync>;

/// Where connections come from.
pub trait Accept: Send {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and who made it. An error is waited out and tried again.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Visitor)>> + Send;
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
    let places = Places::new(bounds.connections);
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
                Ok((stream, visitor)) => {
                    if let Some(access) = places.admit(visitor) {
                        connections.spawn(connection(stream, access, served.clone(), is_closing.clone()));
                    }
                }
            },
        }
    }
    drop(listener);
    let _ = closing.send(true);
    let _ = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

/// What a connection may do, and the place that it takes up.
#[derive(Clone)]
struct Access {
    visitor: Result<Visitor, Problem>,
    seat: Seat,
}

/// What answers.
#[derive(Clone)]
struct Served {
    router: Router,
    backend: Arc<dyn Backend>,
}

/// How many connections of a kind there may be: of people who are known, of those who are not yet, and of those who are not.
struct Places {
    known: Arc<Semaphore>,
    unnamed: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

/// A connection's place, and who was let do something on it.
#[derive(Clone)]
struct Seat {
    taken: Arc<Mutex<Taken>>,
    known: Arc<Semaphore>,
}

struct Taken {
    _permit: OwnedSemaphorePermit,
    who: Option<(Again, Caller)>,
}

impl Places {
    fn new(connections: usize) -> Self {
        let of = |n| Arc::new(Semaphore::new(n));
        Self { known: of(connections), unnamed: of(limits::API_HANDSHAKES), refused: of(REFUSED_AT_ONCE) }
    }

    /// `None`: even those who only wait to be refused are too many, and the connection is closed without a word.
    fn admit(&self, visitor: Visitor) -> Option<Access> {
        let free = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let (places, busy) = match &visitor {
            Visitor::Local(_) | Visitor::Certified(_) => (&self.known, true),
            Visitor::Unnamed { .. } => (&self.unnamed, false),
            Visitor::Stranger(_) => (&self.refused, false),
        };
        let (permit, visitor) = match free(places) {
            Some(permit) => (permit, Ok(visitor)),
            None if busy => (free(&self.refused)?, Err(too_many())),
            None => return None,
        };
        let taken = Arc::new(Mutex::new(Taken { _permit: permit, who: None }));
        Some(Access { visitor, seat: Seat { taken, known: Arc::clone(&self.known) } })
    }
}

fn too_many() -> Problem {
    Problem::new(Code::Busy, "the connection was refused", "as many are open as this daemon takes")
        .hint("share one connection, or come back")
        .retry_after(Millis(1_000))
}

impl Seat {
    /// Somebody proved with a request who they are: they make room for others who have not.
    fn move_up(&self) -> Result<(), Problem> {
        let permit = Arc::clone(&self.known).try_acquire_owned().map_err(|_| too_many())?;
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)._permit = permit;
        Ok(())
    }

    fn let_in(&self, again: Again, caller: Caller) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).who = Some((again, caller));
    }

    /// Returns when whoever was let do something here is not who they were.
    async fn until_gone(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let who = self.taken.lock().unwrap_or_else(PoisonError::into_inner).who.clone();
            if who.is_some_and(|(again, caller)| !mesh::is_still(&*again, &caller)) {
                return;
            }
        }
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    access: Access,
    served: Served,
    mut is_closing: watch::Receiver<bool>,
) {
    let is_known = matches!(access.visitor, Ok(Visitor::Local(_) | Visitor::Certified(_)));
    let (seat, is_local) = (access.seat.clone(), matches!(access.visitor, Ok(Visitor::Local(_))));
    let service = hyper::service::service_fn(move |request| answer(served.clone(), access.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if is_known { IDLE } else { limits::HANDSHAKE_TIME })
        .max_buf_size(HEAD_BUFFER)
        .keep_alive(is_known)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! { biased;
        ended = connection.as_mut() => ended,
        () = seat.until_gone(), if !is_local => return,
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
    let Access { visitor, seat } = access;
    if let Ok(Visitor::Unnamed { exporter, from }) = &visitor
        && !request.headers().contains_key(header::AUTHORIZATION)
    {
        return Ok(enroll::answer(&served.backend, *exporter, *from, request).await);
    }
    match guard(&request).and_then(|()| Ok(name(visitor, &seat, &request, &served.backend)?)) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            served.router.oneshot(request.map(Body::new)).await
        }
        Err(refusal) => Ok(axum::response::IntoResponse::into_response(refusal)),
    }
}

/// Who asks.
fn name(
    visitor: Result<Visitor, Problem>,
    seat: &Seat,
    request: &Request<Incoming>,
    backend: &Arc<dyn Backend>,
) -> Result<Caller, Problem> {
    let again: Again = match visitor? {
        Visitor::Local(caller) => return Ok(caller),
        Visitor::Stranger(why) => {
            return Err(Problem::new(Code::Denied, "the connection was refused", why)
                .hint("run it as root, as the daemon's user, or as a member of the group in [api] group"));
        }
        Visitor::Certified(again) => again,
        Visitor::Unnamed { .. } => {
            let header = request.headers().get(header::AUTHORIZATION);
            let token = mesh::token(header.unwrap_or(&HeaderValue::from_static("")))?;
            let backend = Arc::clone(backend);
            Arc::new(move || backend.bearer(&token))
        }
    };
    mesh::check(request, backend)?;
    let caller = again()?;
    if caller.how == How::Bearer {
        seat.move_up()?;
    }
    seat.let_in(again, caller.clone());
    Ok(caller)
}

/// Denies everything that is not plainly allowed, before any handler sees it.
pub(crate) fn guard<B>(request: &Request<B>) -> Result<(), Refusal> {
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
    Ok(())
}

/// Bytes of the head as it is usually sent: request line, one line a header, empty line.
fn head_size<B>(request: &Request<B>) -> usize {
    let line = request.method().as_str().len() + request.uri().to_string().len() + " HTTP/1.1\r\n".len() + 1;
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    line + headers + "\r\n".len()
}
