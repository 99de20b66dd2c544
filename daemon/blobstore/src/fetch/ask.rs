//! What is asked of one source, and what it answers.

use std::time::Duration;

use swarm_proto::{
    Code, Digest, NodeId,
    blob::{BlobAnswer, BlobPart, BlobRequest, SegmentHeader},
    peer::Open,
};
use swarm_transport::{FrameRx, StreamError};
use tokio::time::timeout;

use super::{Fetcher, OUTLINE};
use crate::outline::{BadOutline, Outline};

impl Fetcher {
    /// Asks a node that has some of it, or is about to.
    pub(super) async fn ask(&self, digest: Digest, part: BlobPart, node: NodeId) -> Result<Here, Refused> {
        let mut rx = self.open(digest, part, node).await?;
        loop {
            match answer(rx).await? {
                Answer::Here(here) => return Ok(here),
                Answer::Coming(more) => rx = more,
            }
        }
    }

    pub(super) async fn open(&self, digest: Digest, part: BlobPart, node: NodeId) -> Result<FrameRx, Refused> {
        let connection = (self.reach)(node).await.map_err(Refused::new)?;
        let request = BlobRequest { digest, part, takes_zstd: true, claim: self.claim.clone() };
        let (mut tx, rx) = connection.open(&Open::Blob(request)).await?;
        // a finished half says nothing more; one that cannot be finished is a stream that has ended, which reading will tell
        let _ = tx.finish();
        Ok(rx)
    }

    /// Tells a source that a segment of it is not the blob's, so that it looks at its own copy. It is not waited for.
    pub(super) fn doubt(&self, digest: Digest, index: u32, node: NodeId) {
        let fetcher = self.clone();
        tokio::spawn(async move {
            let told = timeout(OUTLINE, fetcher.ask(digest, BlobPart::Doubt(index), node)).await;
            if let Ok(Ok(_)) = told {
                tracing::warn!(%node, %digest, index, "it finds its copy sound: it lies, or something between changes what it sends");
            }
        });
    }
}

/// What a node says that was asked.
pub(super) enum Answer {
    Here(Here),
    /// It has nothing yet, and will say more.
    Coming(FrameRx),
}

pub(super) async fn answer(mut rx: FrameRx) -> Result<Answer, Refused> {
    match rx.recv::<BlobAnswer>().await? {
        Some(BlobAnswer::Here { size, whole, sealed }) => Ok(Answer::Here(Here { rx, size, whole, sealed })),
        Some(BlobAnswer::Coming) => Ok(Answer::Coming(rx)),
        Some(BlobAnswer::Refused(problem)) => Err(Refused { is_final: problem.code == Code::NotFound, ..Refused::new(problem.why) }),
        None => Err(StreamError::NoAnswer.into()),
    }
}

pub(super) fn late(limit: Duration) -> Refused {
    Refused::new(format!("no answer within {} s", limit.as_secs()))
}

/// Of the segment that follows; `None` at the end of the stream.
pub(super) async fn header(rx: &mut FrameRx) -> Result<Option<SegmentHeader>, Refused> {
    let mut bytes = [0; SegmentHeader::LEN];
    Ok(rx.read_exact_or_end(&mut bytes).await?.then(|| SegmentHeader::decode(bytes)))
}

/// What follows a header is bounded by this before any of it is read.
pub(super) fn check(header: SegmentHeader, outline: &Outline) -> Result<(), Refused> {
    let SegmentHeader { index, len, wire } = header;
    if outline.len_of(index).is_some_and(|of| header.fits(of)) {
        return Ok(());
    }
    Err(Refused::new(format!("it sends {len} bytes in {wire} as segment {index}, which the blob does not have")))
}

/// What a node says that has some of it, and the stream on which the rest comes.
pub(super) struct Here {
    pub(super) rx: FrameRx,
    /// Bytes of all of it; a claim.
    pub(super) size: u64,
    /// It has all of it.
    pub(super) whole: bool,
    /// It is to be kept encrypted.
    pub(super) sealed: bool,
}

/// Why one source gave nothing.
pub(super) struct Refused {
    pub(super) why: String,
    /// It says that it has nothing of the blob: asked again it would say the same.
    pub(super) is_final: bool,
    /// What it gave is not the blob.
    pub(super) is_lie: bool,
}

impl Refused {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_final: false, is_lie: false }
    }

    pub(super) fn lie(why: impl Into<String>) -> Self {
        Self { is_lie: true, ..Self::new(why) }
    }
}

impl From<StreamError> for Refused {
    fn from(error: StreamError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<BadOutline> for Refused {
    fn from(error: BadOutline) -> Self {
        Self::lie(error.to_string())
    }
}
