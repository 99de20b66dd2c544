//! Requests and the connections they travel on.
//!
//! A call takes an idle connection or opens one, and gives it back when its answer is read. A kept connection may turn out to be
//! dead: what was certainly not sent is sent again on a fresh one, and so is any GET; a POST that may have arrived is not, its
//! caller is told that the outcome is unknown.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use swarm_proto::{Code, Problem};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Place, connect, dial,
    outbox::{Outbox, RequestBody},
};

/// Idle connections that are kept.
const KEPT: usize = 8;
/// The largest answer that is read as a whole.
const LARGEST: usize = 256 << 20;

/// A client of one daemon. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    place: Place,
    idle: Mutex<Vec<SendRequest<RequestBody>>>,
}

/// A request that can be made again.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) accept: &'static str,
    /// Only what is from this byte on; 0 is all of it.
    pub(crate) from: u64,
}

/// What a sent request came to.
enum Sent {
    Answered(Response<Incoming>, SendRequest<RequestBody>),
    /// The connection was dead; `certainly` when not a byte can have been read.
    Broken {
        certainly: bool,
        why: String,
    },
    /// The other side does not take the certificate that it was shown.
    Unknown(rustls::AlertDescription),
}

impl Client {
    /// A client of the daemon at `socket`; nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::at(Place::Socket(socket.into()))
    }

    /// A client of the daemon at a place; nothing is opened yet.
    pub fn at(place: Place) -> Self {
        Self { shared: Arc::new(Shared { place, idle: Mutex::default() }) }
    }

    /// A client whose first connection is open.
    ///
    /// # Errors
    /// [`Code::NoDaemon`] when nobody listens there.
    pub async fn connect(socket: impl Into<PathBuf>) -> Result<Self, Problem> {
        Self::connect_to(Place::Socket(socket.into())).await
    }

    /// A client of the daemon at a place, whose first connection is open.
    ///
    /// # Errors
    /// [`Code::NoDaemon`] when nobody listens there, [`Code::Denied`] when it is not the swarm that was meant.
    pub async fn connect_to(place: Place) -> Result<Self, Problem> {
        let client = Self::at(place);
        let first = client.open().await?;
        client.keep(first);
        Ok(client)
    }

    /// Where the daemon is.
    pub fn place(&self) -> &Place {
        &self.shared.place
    }

    async fn open(&self) -> Result<SendRequest<RequestBody>, Problem> {
        match &self.shared.place {
            Place::Socket(path) => {
                let stream = dial::dial(path).await.map_err(|e| dial::problem(path, &e))?;
                self.shake_hands(stream).await
            }
            Place::Mesh(remote) => {
                let mut other = None;
                for papers in remote.papers() {
                    match connect(remote.address(), &papers.trust, papers.own.as_ref()).await {
                        Ok(session) => return self.shake_hands(session.stream).await,
                        Err(problem) if problem.code == Code::Denied => other = Some(problem),
                        Err(problem) => return Err(problem),
                    }
                }
                Err(other.unwrap_or_else(|| Problem::new(Code::Denied, "nothing was asked", "there is no login to ask with")))
            }
        }
    }

    async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
    ) -> Result<SendRequest<RequestBody>, Problem> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.went_away(&Method::GET, &e.to_string()))?;
        // Its errors reach whoever waits for an answer on it.
        tokio::spawn(connection);
        Ok(sender)
    }

    pub(crate) fn keep(&self, sender: SendRequest<RequestBody>) {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !sender.is_closed() && idle.len() < KEPT {
            idle.push(sender);
        }
    }

    /// A kept connection that can take a request now.
    async fn kept(&self) -> Option<SendRequest<RequestBody>> {
        loop {
            let mut sender = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn went_away(&self, method: &Method, why: &str) -> Problem {
        let at = self.shared.place.name();
        if *method == Method::GET {
            Problem::new(Code::NoDaemon, format!("swarmd at {at} went away before it answered"), why)
                .hint("look at it: systemctl status swarmd")
        } else {
            Problem::new(Code::UnknownOutcome, format!("swarmd at {at} went away before it answered"), why)
                .hint("it may have happened: look before you ask again")
        }
    }

    /// Nothing was heard of the request: it is the login that is not taken.
    fn unknown(&self, alert: rustls::AlertDescription) -> Problem {
        let why = if alert == rustls::AlertDescription::UnknownCA {
            "the login's certificate comes from another authority than those of the swarm's users".into()
        } else {
            format!("the login's certificate is not taken ({alert:?})")
        };
        Problem::new(Code::Denied, format!("swarmd at {} does not know who asks", self.shared.place.name()), why)
            .hint("swarmctl login LINE; an admin gets the line from: swarmctl user create NAME --role ROLE")
    }

    /// Sends and gives the answer's head, with the connection it came on. Refusals are problems.
    pub(crate) async fn send(&self, ask: &Ask) -> Result<(Response<Incoming>, SendRequest<RequestBody>), Problem> {
        if let Some(sender) = self.kept().await {
            match transmit(sender, ask.request(self.shared.place.bearer())).await {
                Sent::Answered(response, sender) => return self.judged(response, sender).await,
                Sent::Broken { certainly, .. } if certainly || ask.method == Method::GET => {}
                Sent::Broken { why, .. } => return Err(self.went_away(&ask.method, &why)),
                Sent::Unknown(alert) => return Err(self.unknown(alert)),
            }
        }
        match transmit(self.open().await?, ask.request(self.shared.place.bearer())).await {
            Sent::Answered(response, sender) => self.judged(response, sender).await,
            Sent::Broken { why, .. } => Err(self.went_away(&ask.method, &why)),
            Sent::Unknown(alert) => Err(self.unknown(alert)),
        }
    }

    async fn judged(
        &self,
        response: Response<Incoming>,
        sender: SendRequest<RequestBody>,
    ) -> Result<(Response<Incoming>, SendRequest<RequestBody>), Problem> {
        if response.status().is_success() {
            return Ok((response, sender));
        }
        let status = response.status();
        let body = whole(response).await?;
        self.keep(sender);
        Err(serde_json::from_slice(&body)
            .unwrap_or_else(|e| Problem::unreadable(format!("swarmd answered {status}"), format!("and the reason cannot be read: {e}"))))
    }

    /// One request, its whole answer.
    pub(crate) async fn bytes(&self, ask: &Ask) -> Result<Bytes, Problem> {
        let (response, sender) = self.send(ask).await?;
        let body = whole(response).await?;
        self.keep(sender);
        Ok(body)
    }

    /// One request, its whole answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, ask: &Ask) -> Result<T, Problem> {
        let body = self.bytes(ask).await?;
        serde_json::from_slice(&body).map_err(|e| Problem::unreadable(format!("swarmd's answer to {} cannot be understood", ask.path), e))
    }

    /// A POST whose body comes in pieces, on a connection of its own; its whole answer as JSON.
    pub(crate) async fn upload<T: DeserializeOwned>(&self, path: &'static str, body: RequestBody) -> Result<T, Problem> {
        let request =
            head(&Method::POST, path, "application/json", self.shared.place.bearer()).body(body).expect("a constant path makes a request");
        match transmit(self.open().await?, request).await {
            Sent::Answered(response, sender) => {
                let (response, _connection) = self.judged(response, sender).await?;
                let body = whole(response).await?;
                serde_json::from_slice(&body).map_err(|e| Problem::unreadable(format!("swarmd's answer to {path} cannot be understood"), e))
            }
            Sent::Broken { why, .. } => Err(self.went_away(&Method::POST, &why)),
            Sent::Unknown(alert) => Err(self.unknown(alert)),
        }
    }

    /// A POST whose body is written while its answer is read, on a connection of its own.
    pub(crate) async fn duplex(&self, path: &'static str) -> Result<(Outbox, Response<Incoming>), Problem> {
        let (outbox, body) = Outbox::new();
        let request = head(&Method::POST, path, "application/x-ndjson", self.shared.place.bearer())
            .body(body)
            .expect("a constant path makes a request");
        match transmit(self.open().await?, request).await {
            Sent::Answered(response, sender) => Ok((outbox, self.judged(response, sender).await?.0)),
            Sent::Broken { why, .. } => Err(self.went_away(&Method::POST, &why)),
            Sent::Unknown(alert) => Err(self.unknown(alert)),
        }
    }
}

impl Ask {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: Bytes::new(), accept: "application/json", from: 0 }
    }

    pub(crate) fn post(path: impl Into<String>, body: Bytes) -> Self {
        Self { method: Method::POST, path: path.into(), body, accept: "application/json", from: 0 }
    }

    fn request(&self, bearer: Option<&HeaderValue>) -> Request<RequestBody> {
        let body = RequestBody::whole(self.body.clone());
        let head = head(&self.method, &self.path, self.accept, bearer);
        let head = if self.from > 0 { head.header(header::RANGE, format!("bytes={}-", self.from)) } else { head };
        head.body(body).expect("paths are made of ids and escaped names")
    }
}

fn head(method: &Method, path: &str, accept: &'static str, bearer: Option<&HeaderValue>) -> http::request::Builder {
    let head = Request::builder().method(method).uri(path).header(header::HOST, "localhost").header(header::ACCEPT, accept);
    let head = if *method == Method::POST { head.header(header::CONTENT_TYPE, kind_of(accept)) } else { head };
    match bearer {
        Some(bearer) => head.header(header::AUTHORIZATION, bearer),
        None => head,
    }
}

/// What is sent is of the same kind as what is to come back, of what both can be.
fn kind_of(accept: &'static str) -> &'static str {
    if accept == "application/x-ndjson" { accept } else { "application/json" }
}

async fn transmit(mut sender: SendRequest<RequestBody>, request: Request<RequestBody>) -> Sent {
    match sender.try_send_request(request).await {
        Ok(response) => Sent::Answered(response, sender),
        Err(mut failed) => {
            let certainly = failed.take_message().is_some();
            let error = failed.into_error();
            match alert(&error) {
                Some(alert) => Sent::Unknown(alert),
                None => Sent::Broken { certainly, why: error.to_string() },
            }
        }
    }
}

/// What TLS said at the other side, which judges our certificate only after our side holds the handshake for complete.
fn alert(error: &hyper::Error) -> Option<rustls::AlertDescription> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref()) {
            return Some(*alert);
        }
        cause = error.source();
    }
    None
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Problem> {
    match Limited::new(response.into_body(), LARGEST).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) => Err(broken_answer(e.as_ref())),
    }
}

/// An answer that began and did not end.
pub(crate) fn broken_answer(error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::new(Code::NoDaemon, "swarmd's answer broke off", error.to_string())
        .hint("ask again; if it stays, look at: systemctl status swarmd")
}
