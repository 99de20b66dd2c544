//! Blobs: their bytes in and out as they are, everything else as JSON.

mod part;

use std::time::Duration;

use axum::{
    Json,
    body::{Body, BodyDataStream},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde::Deserialize;
use swarm_proto::{
    Code, Digest, Problem,
    api::{BlobCall, BlobLine, BlobPut, BlobReply, BlobView, Call, CollectRequest, Collected, PushRequest, Reply, StoreView, Verified},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    follow::{JSON_LINES, write_line},
    query::{self, Id, query},
    refusal::Refusal,
    router::{Api, misfit, reply},
};

/// How long the rest of a blob that was refused is read to nowhere, for whoever sends it to get to the reason: a connection that is
/// closed while they write takes it along.
const LINGER: Duration = Duration::from_secs(5);
const RAW: &str = "application/octet-stream";

/// Takes the pieces of a blob, `None` after the last one, and says what became of it. Dropped before that, nothing is put.
pub type BlobTaker = (mpsc::Sender<Option<Bytes>>, oneshot::Receiver<Result<BlobPut, Problem>>);

/// What a blob is given out as: the size of all of it, the bytes that were asked for in order, and their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobPiece {
    Size(u64),
    Bytes(Bytes),
    End,
}

/// The taker of a daemon that takes none.
pub fn refuse_put(problem: Problem) -> BlobTaker {
    let (reply, put) = oneshot::channel();
    let _ = reply.send(Err(problem));
    (mpsc::channel(1).0, put)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    after: Option<Digest>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutQuery {
    #[serde(default)]
    encrypt: bool,
}

pub(crate) async fn list(api: Api, uri: Uri) -> Result<Json<Vec<BlobView>>, Refusal> {
    let asked: ListQuery = query(&uri)?;
    reply!(api, Call::Blobs { after: asked.after, limit: query::page(asked.limit)? }, Reply::Blobs).map(Json)
}

pub(crate) async fn show(api: Api, Id(digest): Id) -> Result<Json<BlobView>, Refusal> {
    reply!(api, Call::Blob { digest: query::id(&digest)? }, Reply::Blob).map(Json)
}

pub(crate) async fn put(api: Api, uri: Uri, headers: HeaderMap, body: Body) -> Result<Json<BlobPut>, Refusal> {
    let PutQuery { encrypt } = query(&uri)?;
    let size = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let (pieces, mut put) = api.backend.put_blob(size, encrypt);
    let mut feeding = tokio::spawn(feed(body.into_data_stream(), pieces));
    let broken = |why: &str| Refusal::from(Problem::new(Code::BadRequest, "the blob was not put", why));
    // a blob that is refused half way is answered then, not after its last byte
    let fed = tokio::select! {
        biased;
        done = &mut put => return done.map_err(|_| broken("this daemon is stopping"))?.map(Json).map_err(Refusal::from),
        fed = &mut feeding => fed,
    };
    fed.unwrap_or_else(|e| Err(e.to_string())).map_err(|why| broken(&why))?;
    put.await.map_err(|_| broken("this daemon is stopping"))?.map(Json).map_err(Refusal::from)
}

async fn feed(mut body: BodyDataStream, pieces: mpsc::Sender<Option<Bytes>>) -> Result<(), String> {
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|e| format!("its bytes broke off: {e}"))?;
        if pieces.send(Some(piece)).await.is_err() {
            // it was refused, and why is told elsewhere
            let rest = async { while body.next().await.is_some_and(|piece| piece.is_ok()) {} };
            let _ = timeout(LINGER, rest).await;
            return Ok(());
        }
    }
    let _ = pieces.send(None).await;
    Ok(())
}

/// All of it, or the part that a `Range` asks for. A problem that comes first is an answer of its own; one that comes later breaks the
/// transfer off.
pub(crate) async fn read(api: Api, Id(digest): Id, method: Method, headers: HeaderMap) -> Result<Response, Refusal> {
    let digest: Digest = query::id(&digest)?;
    // bytes by name are the same wherever and whenever they are read
    let tag = format!("\"{digest}\"");
    let asked = part::asked(&headers, &tag).filter(|_| method == Method::GET);
    let mut pieces = api.backend.read_blob(&api.caller, digest, asked.clone().unwrap_or(0..u64::MAX));
    let broken = || Problem::new(Code::Internal, "the blob broke off", "whoever gave it went away");
    let size = match pieces.recv().await {
        Some(Ok(BlobPiece::Size(size))) => size,
        Some(Ok(BlobPiece::Bytes(_) | BlobPiece::End)) | None => return Err(broken().into()),
        Some(Err(problem)) => return Err(problem.into()),
    };
    let stream = stream::unfold(Some(pieces), move |pieces| async move {
        let mut pieces = pieces?;
        match pieces.recv().await {
            Some(Ok(BlobPiece::Bytes(data))) => Some((Ok(data), Some(pieces))),
            Some(Ok(BlobPiece::End)) => None,
            Some(Ok(BlobPiece::Size(_))) | None => Some((Err(broken()), None)),
            Some(Err(problem)) => Some((Err(problem), None)),
        }
    });
    let head = [(header::CONTENT_TYPE, RAW.to_owned()), (header::ACCEPT_RANGES, "bytes".to_owned()), (header::ETAG, tag)];
    let length = |length: u64| (header::CONTENT_LENGTH, length.to_string());
    let Some(asked) = asked else { return Ok((head, [length(size)], Body::from_stream(stream)).into_response()) };
    if asked.start >= size {
        let problem = Problem::new(Code::BadRequest, "the blob was not read", format!("it has {size} bytes, and none at {}", asked.start));
        let refusal = Refusal::with_status(StatusCode::RANGE_NOT_SATISFIABLE, problem);
        return Ok(([(header::CONTENT_RANGE, format!("bytes */{size}"))], refusal).into_response());
    }
    let end = asked.end.min(size);
    let range = (header::CONTENT_RANGE, format!("bytes {}-{}/{size}", asked.start, end - 1));
    Ok((StatusCode::PARTIAL_CONTENT, head, [length(end - asked.start), range], Body::from_stream(stream)).into_response())
}

pub(crate) async fn fetch(api: Api, Id(digest): Id, body: Body) -> Result<Response, Refusal> {
    query::nothing(body).await?;
    Ok(lines(api.backend.bring_blob(&api.caller, query::id(&digest)?, None)?))
}

pub(crate) async fn push(api: Api, Id(digest): Id, body: Body) -> Result<Response, Refusal> {
    let request: PushRequest = query::json(body).await?;
    if request.to.is_empty() {
        return Err(Refusal::bad("the blob is not pushed", "no node is named in \"to\""));
    }
    Ok(lines(api.backend.bring_blob(&api.caller, query::id(&digest)?, Some(request.to))?))
}

fn lines(lines: mpsc::Receiver<BlobLine>) -> Response {
    let stream = stream::unfold(lines, |mut lines| async {
        let line = lines.recv().await?;
        let mut text = Vec::new();
        write_line(&mut text, &line);
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), lines))
    });
    ([JSON_LINES], Body::from_stream(stream)).into_response()
}

/// Asks this node, and takes the one variant of [`BlobReply`] that fits.
macro_rules! own {
    ($api:expr, $call:expr, $variant:path) => {{
        let reply = $api.backend.blob(&$api.caller, $call).await?;
        if let $variant(value) = reply { Ok(value) } else { Err(misfit(&reply)) }
    }};
}

async fn order(api: &Api, call: BlobCall, body: Body) -> Result<StatusCode, Refusal> {
    query::nothing(body).await?;
    let reply = api.backend.blob(&api.caller, call).await?;
    if reply == BlobReply::Done { Ok(StatusCode::NO_CONTENT) } else { Err(misfit(&reply)) }
}

pub(crate) async fn pin(api: Api, Id(digest): Id, body: Body) -> Result<StatusCode, Refusal> {
    order(&api, BlobCall::Pin(query::id(&digest)?), body).await
}

pub(crate) async fn unpin(api: Api, Id(digest): Id, body: Body) -> Result<StatusCode, Refusal> {
    order(&api, BlobCall::Unpin(query::id(&digest)?), body).await
}

pub(crate) async fn verify(api: Api, Id(digest): Id, body: Body) -> Result<Json<Verified>, Refusal> {
    query::nothing(body).await?;
    own!(api, BlobCall::Verify(query::id(&digest)?), BlobReply::Verified).map(Json)
}

pub(crate) async fn store(api: Api) -> Result<Json<StoreView>, Refusal> {
    own!(api, BlobCall::Store, BlobReply::Store).map(Json)
}

pub(crate) async fn collect(api: Api, body: Body) -> Result<Json<Collected>, Refusal> {
    let CollectRequest { keep } = query::json_or_default(body).await?;
    own!(api, BlobCall::Collect { keep }, BlobReply::Collected).map(Json)
}
