//! Gives a blob, or what is here of it, to a peer. Nothing is checked here: whoever gets it does.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use swarm_core::blobs::SegmentSet;
use swarm_proto::{
    Code, Digest, Problem,
    blob::{BlobAnswer, BlobPart, BlobRequest, SegmentHeader, SegmentRange},
    limits,
};
use swarm_transport::{FrameTx, StreamError};

use crate::{lanes::Lanes, outline::Outline, pace::Pace, partial::Partial, reader::Reader, store::Store};

/// Sent at a time where the rate is bounded.
const PIECE: usize = 16 << 10;

/// Who gets nothing more of a blob for so long does not get it any more.
const QUIET: Duration = Duration::from_secs(60);

/// Answers one request, no faster than each of `paces` lets it.
///
/// # Errors
/// The stream's: the peer knows then that it has not got everything. A disk that fails ends the stream in the same way.
pub async fn serve(store: Store, lanes: Lanes, request: BlobRequest, paces: Vec<Arc<Pace>>, tx: FrameTx) -> Result<(), StreamError> {
    let digest = request.digest;
    let opened = lanes.run(move || store.reader(digest)).await;
    let reader = match opened {
        Ok(Some(reader)) => Arc::new(reader),
        Ok(None) => return refuse(tx, missing(digest)).await,
        Err(error) => return refuse(tx, error.problem("the blob cannot be given")).await,
    };
    match request.part {
        BlobPart::Outline => give_outline(reader, lanes, &paces, tx).await,
        BlobPart::Segments(ranges) if ranges.len() > limits::BLOB_RANGES => {
            let why = format!("{} ranges, at most {} are taken", ranges.len(), limits::BLOB_RANGES);
            refuse(tx, Problem::new(Code::BadRequest, "the blob cannot be given", why)).await
        }
        BlobPart::Segments(ranges) => give_segments(reader, lanes, ranges, &paces, tx).await,
        BlobPart::Follow => tell_segments(&reader, tx).await,
    }
}

fn missing(digest: Digest) -> Problem {
    Problem::new(Code::NotFound, "the blob cannot be given", format!("nothing of {digest} is here"))
}

async fn refuse(mut tx: FrameTx, problem: Problem) -> Result<(), StreamError> {
    tx.send(&BlobAnswer::Refused(problem)).await?;
    tx.finish()
}

fn here(reader: &Reader) -> BlobAnswer {
    BlobAnswer::Here { size: reader.outline().size(), whole: reader.as_partial().is_none_or(|partial| partial.is_full()) }
}

/// The last segment comes with it, so a partial blob without that has no outline to give yet.
async fn give_outline(reader: Arc<Reader>, lanes: Lanes, paces: &[Arc<Pace>], mut tx: FrameTx) -> Result<(), StreamError> {
    let outline = reader.outline().clone();
    let last = outline.segments() - 1;
    let from = reader.clone();
    let data = match lanes.run(move || from.unchecked(last)).await {
        Ok(Some(data)) => data,
        Ok(None) => return refuse(tx, missing(outline.digest())).await,
        Err(error) => return refuse(tx, error.problem("the blob cannot be given")).await,
    };
    // whoever waits for it cannot begin before
    tx.hurry();
    tx.feed(&here(&reader))?;
    tx.send_bytes(values(&outline)).await?;
    send(&mut tx, last, data, paces).await?;
    tx.finish()
}

/// A blob of one segment needs none: its name is its value.
fn values(outline: &Outline) -> Bytes {
    if outline.segments() == 1 { Bytes::new() } else { Bytes::copy_from_slice(outline.bytes()) }
}

async fn give_segments(
    reader: Arc<Reader>,
    lanes: Lanes,
    ranges: Vec<SegmentRange>,
    paces: &[Arc<Pace>],
    mut tx: FrameTx,
) -> Result<(), StreamError> {
    tx.feed(&here(&reader))?;
    tx.flush().await?;
    let end = reader.outline().segments();
    for range in ranges {
        for index in range.first..range.end().unwrap_or(end).min(end) {
            let from = reader.clone();
            match lanes.run(move || from.unchecked(index)).await {
                Ok(Some(data)) => send(&mut tx, index, data, paces).await?,
                // not here yet: whoever asked sees what did not come
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(digest = %reader.outline().digest(), index, %error, "a segment cannot be given");
                    return tx.finish();
                }
            }
        }
    }
    tx.finish()
}

async fn send(tx: &mut FrameTx, index: u32, data: Vec<u8>, paces: &[Arc<Pace>]) -> Result<(), StreamError> {
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    tx.send_bytes(Bytes::copy_from_slice(&SegmentHeader { index, len }.encode())).await?;
    let mut data = Bytes::from(data);
    if paces.is_empty() {
        return tx.send_bytes(data).await;
    }
    while !data.is_empty() {
        let piece = data.split_to(PIECE.min(data.len()));
        for pace in paces {
            pace.pass(piece.len()).await;
        }
        tx.send_bytes(piece).await?;
    }
    Ok(())
}

/// Says what is here, and what comes, until all is here or the peer has gone.
async fn tell_segments(reader: &Reader, mut tx: FrameTx) -> Result<(), StreamError> {
    // what is new must not wait behind segments: whoever hears of it late asks late, and this node's link idles
    tx.hurry();
    tx.send(&here(reader)).await?;
    let Some(partial) = reader.as_partial() else { return tx.finish() };
    let (mut news, gone) = (partial.news(), tx.stopped());
    tokio::pin!(gone);
    let mut told = SegmentSet::empty(partial.outline().segments());
    while !told.is_full() {
        let new = untold(partial, &mut told);
        if !new.is_empty() {
            tx.send(&new).await?;
            continue;
        }
        tokio::select! {
            biased;
            () = &mut gone => return Ok(()),
            changed = tokio::time::timeout(QUIET, news.changed()) => if !matches!(changed, Ok(Ok(()))) { break },
        }
    }
    tx.finish()
}

/// What is here and was not told, and is told now.
fn untold(partial: &Partial, told: &mut SegmentSet) -> Vec<SegmentRange> {
    let have = partial.have();
    let new = SegmentRange::gather(have.beyond(told));
    *told = have;
    new
}
