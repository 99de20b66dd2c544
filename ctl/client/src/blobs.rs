//! Blobs: their bytes in and out, and what is asked of them.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use swarm_proto::{
    Digest, Problem,
    api::{BlobLine, BlobPut, BlobView, CollectRequest, Collected, PushRequest, StoreView, Verified},
};
use tokio::sync::mpsc;

use crate::{
    Client,
    connection::{Ask, broken_answer},
    outbox::RequestBody,
    streams::Lines,
};

/// Bytes of one piece of [`noise`].
const PIECE: usize = 1 << 20;
/// Pieces of it that wait to be sent.
const DEPTH: usize = 4;

/// So many bytes to put, made as they are sent: the same for the same seed, and nothing on the way can make them fewer. For
/// measurements. Needs a tokio runtime.
pub fn noise(seed: u64, size: u64) -> mpsc::Receiver<io::Result<Bytes>> {
    let (tx, pieces) = mpsc::channel(DEPTH);
    tokio::task::spawn_blocking(move || {
        let (mut stream, mut left) = (blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof(), size);
        while left > 0 {
            let mut piece = vec![0; usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
            stream.fill(&mut piece);
            left -= piece.len() as u64;
            if tx.blocking_send(Ok(piece.into())).is_err() {
                return;
            }
        }
    });
    pieces
}

/// How a blob gets to nodes.
pub struct BlobLines {
    lines: Lines,
}

impl BlobLines {
    /// The next line; `None` when of every node it is told whether the blob is there.
    ///
    /// # Errors
    /// The daemon went away, or says what cannot be understood.
    pub async fn next(&mut self) -> Result<Option<BlobLine>, Problem> {
        self.lines.next().await
    }
}

/// A blob, or the rest of one, on its way from a daemon, which has checked each segment.
pub struct BlobReader {
    /// Bytes of all of it.
    pub size: u64,
    body: Incoming,
    /// As far as it came, with what was not asked for.
    read: u64,
    /// Goes back to the client after the last byte.
    connection: Option<(Client, SendRequest<RequestBody>)>,
}

impl BlobReader {
    /// The next bytes; `None` after the last one.
    ///
    /// # Errors
    /// It broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.read += data.len() as u64;
                    return Ok(Some(data));
                }
                Some(Err(e)) => return Err(broken_answer(&e)),
                None if self.read == self.size => {
                    if let Some((client, sender)) = self.connection.take() {
                        client.keep(sender);
                    }
                    return Ok(None);
                }
                None => return Err(Problem::unreadable("the blob broke off", format!("{} of {} bytes came", self.read, self.size))),
            }
        }
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The size of all, where what comes is the rest from this byte on.
fn size_of_rest(headers: &HeaderMap, from: u64) -> Option<u64> {
    let (part, size) = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = part.split_once('-')?;
    let (first, last, size): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first == from && last.checked_add(1) == Some(size)).then_some(size)
}

const fn put_path(encrypt: bool) -> &'static str {
    if encrypt { "/v1/blobs?encrypt=true" } else { "/v1/blobs" }
}

/// Every method fails with what the daemon refused, or with `Code::NoDaemon` when there is none.
#[expect(clippy::missing_errors_doc, reason = "said once, above")]
impl Client {
    /// Puts a blob. `size`: how many bytes will come, where that is known; then more or fewer are refused. An error among the pieces
    /// ends it, and nothing is put. `encrypt`: it is kept encrypted on each node that has it.
    pub async fn put_blob(&self, size: Option<u64>, encrypt: bool, pieces: mpsc::Receiver<io::Result<Bytes>>) -> Result<BlobPut, Problem> {
        self.upload(put_path(encrypt), RequestBody::Streamed { pieces, size }).await
    }

    /// Puts a blob that is in memory, over a kept connection: what many small ones want.
    pub async fn put_bytes(&self, data: Bytes, encrypt: bool) -> Result<BlobPut, Problem> {
        self.json(&Ask::post(put_path(encrypt), data)).await
    }

    /// A blob's bytes. The daemon fetches it first where it does not have it.
    pub async fn read_blob(&self, digest: Digest) -> Result<BlobReader, Problem> {
        self.read_blob_from(digest, 0).await
    }

    /// A blob's bytes from this one on. `Code::BadRequest` where it has none there.
    pub async fn read_blob_from(&self, digest: Digest, from: u64) -> Result<BlobReader, Problem> {
        let ask = Ask { accept: "application/octet-stream", from, ..Ask::get(format!("/v1/blobs/{digest}/bytes")) };
        let (response, sender) = self.send(&ask).await?;
        let size = if from > 0 { size_of_rest(response.headers(), from) } else { length(response.headers()) };
        let size =
            size.ok_or_else(|| Problem::unreadable("swarmd's answer cannot be understood", "it does not say what part of a blob it is"))?;
        Ok(BlobReader { size, body: response.into_body(), read: from, connection: Some((self.clone(), sender)) })
    }

    /// Brings a blob to the daemon's node.
    pub async fn fetch_blob(&self, digest: Digest) -> Result<BlobLines, Problem> {
        self.blob_lines(format!("/v1/blobs/{digest}/fetch"), Bytes::new()).await
    }

    /// Brings a blob to nodes, by id or name; `all` is every member.
    pub async fn push_blob(&self, digest: Digest, to: &[String]) -> Result<BlobLines, Problem> {
        let body = serde_json::to_vec(&PushRequest { to: to.to_vec() }).expect("strings make JSON");
        self.blob_lines(format!("/v1/blobs/{digest}/push"), body.into()).await
    }

    async fn blob_lines(&self, path: String, body: Bytes) -> Result<BlobLines, Problem> {
        let (response, _connection) = self.send(&Ask { accept: "application/x-ndjson", ..Ask::post(path, body) }).await?;
        Ok(BlobLines { lines: Lines::new(response) })
    }

    /// Blobs by name, those after `after`.
    pub async fn blobs(&self, after: Option<Digest>, limit: Option<u32>) -> Result<Vec<BlobView>, Problem> {
        let mut path = format!("/v1/blobs?limit={}", limit.unwrap_or(100));
        if let Some(after) = after {
            path += &format!("&after={after}");
        }
        self.json(&Ask::get(path)).await
    }

    /// One blob and who has it.
    pub async fn blob(&self, digest: Digest) -> Result<BlobView, Problem> {
        self.json(&Ask::get(format!("/v1/blobs/{digest}"))).await
    }

    /// Keeps a blob on the daemon's node, or no longer.
    pub async fn pin_blob(&self, digest: Digest, is_pinned: bool) -> Result<(), Problem> {
        let verb = if is_pinned { "pin" } else { "unpin" };
        self.bytes(&Ask::post(format!("/v1/blobs/{digest}/{verb}"), Bytes::new())).await.map(drop)
    }

    /// Has the daemon read its copy again.
    pub async fn verify_blob(&self, digest: Digest) -> Result<Verified, Problem> {
        self.json(&Ask::post(format!("/v1/blobs/{digest}/verify"), Bytes::new())).await
    }

    /// The blobs of the daemon's node.
    pub async fn store(&self) -> Result<StoreView, Problem> {
        self.json(&Ask::get("/v1/store")).await
    }

    /// Removes what nobody needs on the daemon's node, until at most `keep` bytes are used.
    pub async fn collect_blobs(&self, keep: u64) -> Result<Collected, Problem> {
        let body = serde_json::to_vec(&CollectRequest { keep }).expect("a number makes JSON");
        self.json(&Ask::post("/v1/store/gc", body.into())).await
    }
}
