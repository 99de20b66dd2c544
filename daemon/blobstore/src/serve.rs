//! Gives a blob, or what is here of it, to a peer. Nothing is checked here: whoever gets it does, and says so where it is not the blob.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use swarm_core::blobs::SegmentSet;
use swarm_proto::{
    Code, Digest, Problem,
    blob::{BlobAnswer, BlobPart, BlobRequest, SegmentRange},
    limits,
};
use swarm_transport::{FrameTx, StreamError};

use crate::{
    error::StoreError, lanes::Lanes, outline::Outline, packing::Parcel, partial::Partial, reader::Reader, route::Route, store::Store,
};

/// Who gets nothing more of a blob for so long does not get it any more.
const QUIET: Duration = Duration::from_secs(60);
/// How long an ask is kept for what is not here yet.
const KEPT: Duration = Duration::from_secs(5);

const NOT_GIVEN: &str = "the blob cannot be given";

/// Answers one request, no faster than the route to the peer lets it, and as small as pays on it.
///
/// # Errors
/// The stream's: the peer knows then that it has not got everything. A disk that fails ends the stream in the same way.
pub async fn serve(store: Store, lanes: Lanes, request: BlobRequest, route: Route, tx: FrameTx) -> Result<(), StreamError> {
    let digest = request.digest;
    let from = store.clone();
    let reader = match lanes.run(move || from.reader_again(digest)).await {
        Ok(Some(reader)) => Arc::new(reader),
        Ok(None) => return refuse(tx, missing(digest)).await,
        Err(error) => return refuse_unread(&store, digest, &error, tx).await,
    };
    let giver = Giver { store, reader, lanes, route, takes_zstd: request.takes_zstd };
    match request.part {
        BlobPart::Outline => giver.give_outline(tx).await,
        BlobPart::Segments(ranges) if ranges.len() > limits::BLOB_RANGES => {
            let why = format!("{} ranges, at most {} are taken", ranges.len(), limits::BLOB_RANGES);
            refuse(tx, Problem::new(Code::BadRequest, NOT_GIVEN, why)).await
        }
        BlobPart::Segments(ranges) => giver.give_segments(ranges, tx).await,
        BlobPart::Follow => tell_segments(&giver.reader, tx).await,
        BlobPart::Doubt(index) => giver.judge(index, tx).await,
    }
}

fn missing(digest: Digest) -> Problem {
    Problem::new(Code::NotFound, NOT_GIVEN, format!("nothing of {digest} is here"))
}

async fn refuse(mut tx: FrameTx, problem: Problem) -> Result<(), StreamError> {
    tx.send(&BlobAnswer::Refused(problem)).await?;
    tx.finish()
}

/// What could not be read may be damaged.
async fn refuse_unread(store: &Store, digest: Digest, error: &StoreError, tx: FrameTx) -> Result<(), StreamError> {
    store.suspect(digest, error);
    refuse(tx, error.problem(NOT_GIVEN)).await
}

fn here(reader: &Reader) -> BlobAnswer {
    BlobAnswer::Here {
        size: reader.outline().size(),
        whole: reader.as_partial().is_none_or(|partial| partial.is_full()),
        sealed: reader.is_sealed(),
    }
}

/// A blob of one segment needs none: its name is its value.
fn values(outline: &Outline) -> Bytes {
    if outline.segments() == 1 { Bytes::new() } else { Bytes::copy_from_slice(outline.bytes()) }
}

/// Gives of one blob to one peer.
struct Giver {
    store: Store,
    reader: Arc<Reader>,
    lanes: Lanes,
    route: Route,
    takes_zstd: bool,
}

impl Giver {
    /// A segment as it goes out; `None`: it is not here.
    async fn parcel(&self, index: u32) -> Result<Option<Parcel>, StoreError> {
        let (from, route, takes_zstd) = (self.reader.clone(), self.route.clone(), self.takes_zstd);
        let work = move || {
            let data = from.unchecked_in(route.spare().take(), index)?;
            Ok(data.map(|data| match (takes_zstd, route.spare().lend(data)) {
                (true, data) => route.pack(from.outline().digest(), index, data),
                (false, data) => Parcel::plain(index, data),
            }))
        };
        self.lanes.run(work).await
    }

    /// Answers how many bytes were only handed over.
    async fn send(&self, tx: &mut FrameTx, Parcel { header, bytes }: Parcel) -> Result<u64, StreamError> {
        tx.send_bytes(Bytes::copy_from_slice(&header.encode())).await?;
        self.store.carried().give(bytes.len());
        self.route.send(tx, bytes).await
    }

    /// The last segment comes with it, so a partial blob without that has no outline to give yet.
    async fn give_outline(&self, mut tx: FrameTx) -> Result<(), StreamError> {
        let outline = self.reader.outline();
        let last = match self.parcel(outline.segments() - 1).await {
            Ok(Some(last)) => last,
            Ok(None) => return refuse(tx, missing(outline.digest())).await,
            Err(error) => return refuse_unread(&self.store, outline.digest(), &error, tx).await,
        };
        // whoever waits for it cannot begin before
        tx.hurry();
        tx.feed(&here(&self.reader))?;
        tx.send_bytes(values(outline)).await?;
        let handed = self.send(&mut tx, last).await?;
        self.end(tx, handed).await
    }

    async fn give_segments(&self, ranges: Vec<SegmentRange>, mut tx: FrameTx) -> Result<(), StreamError> {
        // what was asked for first is whole first and can be passed on, and the next request is on its way while the rest still comes
        tx.queue();
        tx.feed(&here(&self.reader))?;
        tx.flush().await?;
        let end = self.reader.outline().segments();
        let mut handed = 0;
        let until = tokio::time::Instant::now() + KEPT;
        for range in ranges {
            for index in range.first..range.end().unwrap_or(end).min(end) {
                self.wait_for(index, until, &tx).await;
                match self.parcel(index).await {
                    Ok(Some(parcel)) => handed += self.send(&mut tx, parcel).await?,
                    // it did not come here in time: whoever asked sees what did not come
                    Ok(None) => {}
                    Err(error) => {
                        let digest = self.reader.outline().digest();
                        tracing::warn!(%digest, index, %error, "a segment cannot be given");
                        self.store.suspect(digest, &error);
                        return self.end(tx, handed).await;
                    }
                }
            }
        }
        self.end(tx, handed).await
    }

    /// Looks at a segment that somebody found wrong.
    async fn judge(&self, index: u32, mut tx: FrameTx) -> Result<(), StreamError> {
        let from = self.reader.clone();
        if let Err(error) = self.lanes.run(move || from.checked(index)).await {
            return refuse_unread(&self.store, self.reader.outline().digest(), &error, tx).await;
        }
        tx.send(&here(&self.reader)).await?;
        tx.finish()
    }

    /// What is on its way here is passed on when it comes, to whoever has asked for it by then.
    async fn wait_for(&self, index: u32, until: tokio::time::Instant, tx: &FrameTx) {
        let Some(partial) = self.reader.as_partial() else { return };
        let mut news = partial.news();
        let comes = async { while !partial.has(index) && news.changed().await.is_ok() {} };
        tokio::select! {
            biased;
            () = comes => {}
            () = tx.stopped() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    async fn end(&self, mut tx: FrameTx, handed: u64) -> Result<(), StreamError> {
        tx.finish()?;
        self.route.deliver(&mut tx, handed).await;
        Ok(())
    }
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
