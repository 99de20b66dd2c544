//! The blobs of this node: what it holds, how it gets what it does not, and how it gives.
//!
//! ```text
//!   a client's bytes -> put -> store --what is here--> the leader's directory
//!   somebody needs one -> bring: who holds it? -> Fetcher on the bulk thread -> store
//!   push: brings it to nodes in a chain, each from the one before it, so that this one sends it about once
//!   asked for what is only coming -> says so, and gives it once it has its outline
//! ```
//! A blob is fetched once at a time, whoever waits for it. Disk work is done off the threads that speak.

pub(super) mod claims;
mod push;
pub(super) mod scrub;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use swarm_api::{BlobPiece, BlobTaker};
use swarm_blobstore::{Checked, Draft, FetchError, Fetcher, Lanes, Pin, Progress, Reach, Reader, Routes, SourceAt, Store, StoreError};
use swarm_proto::{
    Code, Digest, NodeId, Problem,
    access::{Caller, Operation},
    api::{BlobCall, BlobLine, BlobPut, BlobReply, BlobSource, BlobView, Call, Collected, Reply, StoreView, StoredView, Verified},
    blob::{BlobAnswer, BlobNews, BlobPart, BlobRequest, BringRequest, Claim, segment_start},
    limits,
};
use swarm_transport::{Connection, FrameTx, Plane, StreamError};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};

use super::{Node, env::Domains, gateway::forward};
pub(crate) use push::{hand_over, push};

/// Pieces of a blob under way to or from a client.
const DEPTH: usize = 16;
/// Whom a blob is asked of at once.
const SOURCES: usize = 8;
/// How often whoever asked for a blob that is about to come hears that it still is.
const STILL: Duration = Duration::from_millis(200);

/// What this node has of blobs, and how it gets more.
pub(crate) struct Blobs {
    pub(crate) store: Store,
    pub(crate) lanes: Lanes,
    /// How it gives.
    routes: Routes,
    /// Where what is large is driven.
    runtime: Handle,
    coming: Mutex<BTreeMap<Digest, watch::Receiver<Coming>>>,
    /// Why others may have what is here.
    known: claims::Known,
}

/// How far a fetch is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coming {
    pub(crate) progress: Progress,
    pub(crate) end: Option<Result<(), Problem>>,
}

impl Coming {
    fn news(&self) -> BlobNews {
        let Progress { have, size, sources } = &self.progress;
        match &self.end {
            None => BlobNews::Progress {
                have: *have,
                size: *size,
                sources: sources.iter().map(|source| (source.node, source.bytes, whole(source.rate))).collect(),
            },
            Some(Ok(())) => BlobNews::Held,
            Some(Err(problem)) => BlobNews::Failed(problem.clone()),
        }
    }
}

impl Blobs {
    /// `runtime`: that of the bulk endpoint.
    pub(crate) fn new(store: Store, routes: Routes, domains: Domains, runtime: Handle) -> Self {
        let lanes = match domains {
            Domains::Threads => Lanes::Threads,
            Domains::Inline => Lanes::Inline,
        };
        Self { store, lanes, routes, runtime, coming: Mutex::default(), known: claims::Known::default() }
    }

    /// Where what is large is driven.
    pub(crate) const fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// Gives a peer what it asks for, if it may have it.
pub(crate) async fn serve(node: Arc<Node>, peer: NodeId, request: BlobRequest, mut tx: FrameTx) {
    if let Err(problem) = claims::check(&node, peer, request.digest, &request.claim).await {
        tracing::info!(%peer, digest = %request.digest, why = %problem.why, "a peer does not get a blob");
        if tx.send(&BlobAnswer::Refused(problem)).await.is_ok() {
            let _ = tx.finish();
        }
        return;
    }
    if matches!(request.part, BlobPart::Outline | BlobPart::Follow) && wait_until_it_comes(&node, request.digest, &mut tx).await.is_err() {
        return;
    }
    let Blobs { store, lanes, routes, .. } = &node.blobs;
    if let Err(error) = swarm_blobstore::serve(store.clone(), *lanes, request, routes.to(peer), tx).await {
        tracing::debug!(%error, "a peer took no more of a blob");
    }
}

/// Where a blob is about to come, until it begins to or does not: so the nodes of a chain are asked all at once.
async fn wait_until_it_comes(node: &Arc<Node>, digest: Digest, tx: &mut FrameTx) -> Result<(), StreamError> {
    let coming = node.blobs.coming.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
    let Some(mut coming) = coming else { return Ok(()) };
    let has_begun = |coming: &Coming| coming.progress.size > 0 || coming.end.is_some();
    loop {
        let begins = coming.wait_for(has_begun);
        if tokio::time::timeout(STILL, begins).await.is_ok() {
            return Ok(());
        }
        tx.send(&BlobAnswer::Coming).await?;
    }
}

/// Gets a blob that another node wants to be here, and tells it how far that is.
pub(crate) async fn serve_bring(node: Arc<Node>, request: BringRequest, mut tx: FrameTx) {
    if let Err(problem) = may_push(&node, &request.claim).await {
        if tx.send(&BlobNews::Failed(problem)).await.is_ok() {
            let _ = tx.finish();
        }
        return;
    }
    let at = |is_spare| move |node| SourceAt { node, is_spare };
    let (from, spares) = (request.from.into_iter().take(SOURCES), request.spares.into_iter().take(SOURCES));
    let sources = from.map(at(false)).chain(spares.map(at(true))).collect();
    let mut coming = bring(&node, request.digest, request.claim, Some((request.size, sources)));
    let gone = tx.stopped();
    tokio::pin!(gone);
    loop {
        let seen = coming.borrow_and_update().clone();
        if tx.send(&seen.news()).await.is_err() || seen.end.is_some() {
            let _ = tx.finish();
            return;
        }
        tokio::select! {
            biased;
            () = &mut gone => return,
            changed = coming.changed() => if changed.is_err() { return },
        }
    }
}

/// What is offered is taken, within the store's bounds; what somebody wants to be here is if they may want that.
async fn may_push(node: &Arc<Node>, claim: &Claim) -> Result<(), Problem> {
    match claim {
        Claim::Offer => Ok(()),
        Claim::Caller(name) => claims::check_caller(node, name, Operation::PushBlob).await,
        Claim::Job { .. } | Claim::Keep(_) => {
            Err(Problem::new(Code::Denied, "the blob is not fetched", "what the leader wants here, the leader says"))
        }
    }
}

/// The same news as a client is told them, of the node that they are about.
fn line(node: &Node, at: String, news: BlobNews) -> BlobLine {
    let source = |(from, bytes, rate)| BlobSource { node: node.roster.name(from), bytes, rate };
    match news {
        BlobNews::Progress { have, size, sources } => {
            BlobLine::Progress { node: at, have, size, sources: sources.into_iter().map(source).collect() }
        }
        BlobNews::Held => BlobLine::Held { node: at },
        BlobNews::Failed(problem) => BlobLine::Failed { node: at, problem },
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is small and not negative")]
fn whole(rate: f64) -> u64 {
    rate as u64
}

/// Gets a blob here, from the sources that are named or from those that the leader knows. Joins a fetch that is under way. `claim`: why
/// this node may have it.
pub(crate) fn bring(node: &Arc<Node>, digest: Digest, claim: Claim, from: Option<(u64, Vec<SourceAt>)>) -> watch::Receiver<Coming> {
    let mut coming = node.blobs.coming.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = coming.get(&digest) {
        return running.clone();
    }
    let (tx, rx) = watch::channel(Coming::default());
    coming.insert(digest, rx.clone());
    drop(coming);
    let node = node.clone();
    node.blobs.runtime.clone().spawn(async move {
        let end = fetch(&node, digest, &claim, from, &tx).await;
        // first it is no longer under way, so that nobody joins what has ended
        node.blobs.coming.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        if let Err(problem) = &end {
            tracing::info!(%digest, why = %problem.why, "a blob did not come");
        }
        tx.send_modify(|coming| coming.end = Some(end));
    });
    rx
}

async fn fetch(
    node: &Arc<Node>,
    digest: Digest,
    claim: &Claim,
    from: Option<(u64, Vec<SourceAt>)>,
    tx: &watch::Sender<Coming>,
) -> Result<(), Problem> {
    let Blobs { store, lanes, .. } = &node.blobs;
    let known = store.clone();
    if lanes.run(move || known.size_of(digest)).await.is_some() {
        return Ok(());
    }
    let is_named = from.is_some();
    let (size, sources) = match from {
        Some(named) => named,
        None => holders(node, digest).await?,
    };
    match fetch_from(node, digest, claim, size, &sources, tx).await {
        // others may have it by now
        Err(FetchError::NoSource(_)) if is_named => {
            let (size, sources) = holders(node, digest).await?;
            fetch_from(node, digest, claim, size, &sources, tx).await
        }
        end => end,
    }
    .map_err(|error| not_fetched(digest, &error))
}

async fn fetch_from(
    node: &Arc<Node>,
    digest: Digest,
    claim: &Claim,
    size: u64,
    sources: &[SourceAt],
    tx: &watch::Sender<Coming>,
) -> Result<(), FetchError> {
    let Blobs { store, lanes, .. } = &node.blobs;
    let fetcher = Fetcher { store: store.clone(), lanes: *lanes, reach: reach(node), claim: claim.clone() };
    let progress = watch::Sender::new(Progress::default());
    let mut liars = BTreeSet::new();
    let mut seen = progress.subscribe();
    let fetching = fetcher.fetch(digest, Some(size), sources, &progress);
    tokio::pin!(fetching);
    loop {
        let end = tokio::select! {
            biased;
            end = &mut fetching => Some(end),
            Ok(()) = seen.changed() => None,
        };
        let progress = seen.borrow_and_update().clone();
        for source in progress.sources.iter().filter(|source| source.is_liar) {
            if liars.insert(source.node) {
                let name = node.roster.name(source.node);
                node.journal.warn(format!("{name} gave what is not blob {digest}, and is not asked for the rest of it"));
            }
        }
        tx.send_modify(|coming| coming.progress = progress);
        if let Some(end) = end {
            return end;
        }
    }
}

fn not_fetched(digest: Digest, error: &FetchError) -> Problem {
    let what = format!("blob {digest} did not come");
    match error {
        FetchError::Store(error) => error.problem(&what),
        FetchError::NoSource(_) => Problem::new(Code::NotFound, what, error.to_string()),
        FetchError::Size { .. } => Problem::new(Code::Conflict, what, error.to_string()),
    }
}

/// Who has it, by the leader's directory.
async fn holders(node: &Arc<Node>, digest: Digest) -> Result<(u64, Vec<SourceAt>), Problem> {
    let view = show(node, digest).await?;
    let others = view.holders.iter().map(|holder| holder.node).filter(|holder| *holder != node.me);
    let sources: Vec<SourceAt> = others.take(SOURCES).map(|node| SourceAt { node, is_spare: false }).collect();
    Ok((view.size, sources))
}

pub(crate) async fn show(node: &Arc<Node>, digest: Digest) -> Result<BlobView, Problem> {
    let reply = forward(node, "local".to_owned(), Call::Blob { digest }).await?;
    if let Reply::Blob(view) = reply {
        return Ok(view);
    }
    Err(Problem::new(Code::Internal, "the blob was not shown", format!("unexpected answer {reply:?}")))
}

fn reach(node: &Arc<Node>) -> Reach {
    let node = node.clone();
    Arc::new(move |to| {
        let node = node.clone();
        Box::pin(async move { connect(&node, to).await })
    })
}

/// A connection to a member's bulk endpoint.
pub(super) async fn connect(node: &Node, to: NodeId) -> Result<Connection, String> {
    let dial = node.roster.dial_bulk(to).ok_or_else(|| format!("{to} is no member any more"))?;
    node.bulk.get(Plane::Bulk, &dial).await.map_err(|e| e.to_string())
}

/// Why this node may have what somebody here asks for.
pub(crate) fn claim_of(caller: &Caller) -> Claim {
    Claim::Caller(caller.name.clone())
}

/// Takes a blob from a client of this node. `size`: what it says of it, if anything. `encrypt`: it is kept encrypted.
pub(crate) fn put(node: &Arc<Node>, size: Option<u64>, encrypt: bool) -> BlobTaker {
    let (tx, pieces) = mpsc::channel(DEPTH);
    let (reply, put) = oneshot::channel();
    let (store, lanes) = (node.blobs.store.clone(), node.blobs.lanes);
    tokio::spawn(async move {
        let begin = move || {
            let mut draft = if encrypt { store.sealed_draft() } else { store.draft() }?;
            draft.expect(size.unwrap_or(0)).map(|()| draft)
        };
        let _ = reply.send(take(begin, lanes, pieces).await.map_err(|error| error.problem("the blob was not put")));
    });
    (tx, put)
}

async fn take(
    begin: impl FnOnce() -> Result<Draft, StoreError> + Send + 'static,
    lanes: Lanes,
    mut pieces: mpsc::Receiver<Option<Bytes>>,
) -> Result<BlobPut, StoreError> {
    let mut draft = lanes.run(begin).await?;
    let mut gathered = Vec::new();
    while pieces.recv_many(&mut gathered, DEPTH).await > 0 {
        let is_end = gathered.iter().any(Option::is_none);
        let list = std::mem::take(&mut gathered);
        draft = lanes
            .run(move || {
                list.into_iter().flatten().try_for_each(|piece| draft.write(&piece))?;
                Ok::<_, StoreError>(draft)
            })
            .await?;
        if is_end {
            let outline = lanes.run(move || draft.finish()).await?;
            return Ok(BlobPut { digest: outline.digest(), size: outline.size() });
        }
    }
    Err(StoreError::Abandoned)
}

/// Gives a client these bytes of a blob, as far as it has them; it is brought here first where it is not. The first message is the size
/// of all of it.
pub(crate) fn read(node: &Arc<Node>, caller: &Caller, digest: Digest, part: Range<u64>) -> mpsc::Receiver<Result<BlobPiece, Problem>> {
    let (tx, rx) = mpsc::channel(DEPTH);
    let (node, claim) = (node.clone(), claim_of(caller));
    tokio::spawn(async move {
        if let Err(problem) = give(&node, digest, claim, part, &tx).await {
            let _ = tx.send(Err(problem)).await;
        }
    });
    rx
}

async fn give(
    node: &Arc<Node>,
    digest: Digest,
    claim: Claim,
    part: Range<u64>,
    tx: &mpsc::Sender<Result<BlobPiece, Problem>>,
) -> Result<(), Problem> {
    arrived(bring(node, digest, claim.clone(), None)).await?;
    let mut reader = match open(node, digest).await {
        Err(error) if error.is_rot() => {
            verify(node, claim.clone(), digest).await?;
            open(node, digest).await
        }
        opened => opened,
    }
    .map_err(|error| error.problem(UNREADABLE))?;
    let size = reader.outline().size();
    let mut first = Some(BlobPiece::Size(size));
    for index in segments_of(part.start..part.end.min(size)) {
        let data = match segment(node, &reader, index).await {
            Err(error) if error.is_rot() => {
                verify(node, claim.clone(), digest).await?;
                reader = open(node, digest).await.map_err(|error| error.problem(UNREADABLE))?;
                segment(node, &reader, index).await
            }
            read => read,
        };
        let data = data.map_err(|error| error.problem(UNREADABLE))?;
        let within = |place: u64| usize::try_from(place.saturating_sub(segment_start(index))).unwrap_or(usize::MAX).min(data.len());
        let data = data.slice(within(part.start)..within(part.end));
        // told once it is known that something follows: what cannot be read is then an answer of its own
        for piece in first.take().into_iter().chain([BlobPiece::Bytes(data)]) {
            if tx.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
    }
    for piece in first.into_iter().chain([BlobPiece::End]) {
        let _ = tx.send(Ok(piece)).await;
    }
    Ok(())
}

const UNREADABLE: &str = "the blob cannot be read";

async fn open(node: &Node, digest: Digest) -> Result<Arc<Reader>, StoreError> {
    let store = node.blobs.store.clone();
    let reader = node.blobs.lanes.run(move || store.reader(digest)).await?;
    reader.map(Arc::new).ok_or(StoreError::Missing(digest))
}

async fn segment(node: &Node, reader: &Arc<Reader>, index: u32) -> Result<Bytes, StoreError> {
    let from = reader.clone();
    let data = node.blobs.lanes.run(move || from.checked(index)).await?;
    data.map(Bytes::from).ok_or_else(|| StoreError::Missing(reader.outline().digest()))
}

/// The segments in which these bytes are.
fn segments_of(part: Range<u64>) -> Range<u32> {
    let segment = |place: u64| u32::try_from(place / u64::from(limits::SEGMENT)).unwrap_or(u32::MAX);
    if part.is_empty() { 0..0 } else { segment(part.start)..segment(part.end - 1) + 1 }
}

/// Waits for the end of a fetch.
pub(crate) async fn arrived(mut coming: watch::Receiver<Coming>) -> Result<(), Problem> {
    let ended = coming.wait_for(|coming| coming.end.is_some()).await.map(|coming| coming.end.clone());
    ended.ok().flatten().unwrap_or_else(|| Err(Problem::new(Code::NotReady, "the blob did not come", "this daemon is stopping")))
}

/// Brings a blob here, and says how far it is.
pub(crate) fn fetch_here(node: &Arc<Node>, caller: &Caller, digest: Digest) -> mpsc::Receiver<BlobLine> {
    let (tx, rx) = mpsc::channel(DEPTH);
    let (node, mut coming) = (node.clone(), bring(node, digest, claim_of(caller), None));
    tokio::spawn(async move {
        let here = node.settings.meta.name.clone();
        loop {
            let seen = coming.borrow_and_update().clone();
            if tx.send(line(&node, here.clone(), seen.news())).await.is_err() || seen.end.is_some() || coming.changed().await.is_err() {
                return;
            }
        }
    });
    rx
}

/// Answers what is asked of this node's own blobs.
pub(crate) async fn answer(node: &Arc<Node>, claim: Claim, call: BlobCall) -> Result<BlobReply, Problem> {
    let Blobs { store, lanes, .. } = &node.blobs;
    let store = store.clone();
    match call {
        BlobCall::Pin(digest) => {
            // first the pin: what comes must not go again at once
            let pins = store.clone();
            lanes.run(move || pins.pin(digest, Pin::Hand)).await.map_err(|error| error.problem("the blob was not pinned"))?;
            if let Err(problem) = arrived(bring(node, digest, claim, None)).await {
                let _ = lanes.run(move || store.unpin(digest, Pin::Hand)).await;
                return Err(problem);
            }
            Ok(BlobReply::Done)
        }
        BlobCall::Unpin(digest) => {
            lanes.run(move || store.unpin(digest, Pin::Hand)).await.map_err(|error| error.problem("the blob was not unpinned"))?;
            Ok(BlobReply::Done)
        }
        BlobCall::Verify(digest) => verify(node, claim, digest).await.map(BlobReply::Verified),
        BlobCall::Collect { keep } => Ok(lanes
            .run(move || {
                let freed = store.collect(keep);
                BlobReply::Collected(Collected { freed, used: store.room().0 })
            })
            .await),
        BlobCall::Store => Ok(lanes.run(move || BlobReply::Store(store_view(&store))).await),
    }
}

fn store_view(store: &Store) -> StoreView {
    let (used, quota) = store.room();
    let word = |pin: Pin| match pin {
        Pin::Hand => "hand".to_owned(),
        Pin::Job(job) => job.to_string(),
        Pin::Task(task) => task.to_string(),
        Pin::Owed(_) => "owed".to_owned(),
    };
    let view = |held: swarm_blobstore::Held| StoredView {
        digest: held.digest,
        size: held.size,
        encrypted: held.is_sealed,
        pins: held.pins.into_iter().map(word).collect(),
    };
    StoreView { used, quota, blobs: store.list().into_iter().map(view).collect() }
}

/// Reads a blob of this node again; what has changed on the disk is fetched from others.
async fn verify(node: &Arc<Node>, claim: Claim, digest: Digest) -> Result<Verified, Problem> {
    let store = node.blobs.store.clone();
    let checked = node.blobs.lanes.run(move || store.check(digest)).await.map_err(|error| error.problem("the blob was not verified"))?;
    let damaged = match &checked {
        Checked::Sound => return Ok(Verified { digest, damaged: 0, is_sound: true }),
        Checked::Partial(segments) => u32::try_from(segments.len()).unwrap_or(u32::MAX),
        Checked::Removed => u32::MAX,
    };
    node.journal.warn(format!("blob {digest} had changed on the disk and is fetched again"));
    arrived(bring(node, digest, claim, None)).await.map_err(|mut problem| {
        problem.what = format!("blob {digest} had changed on the disk, and cannot be healed");
        problem
    })?;
    Ok(Verified { digest, damaged, is_sound: true })
}

/// A member by id or name.
fn named(node: &Node, name: &str) -> Option<NodeId> {
    let view = node.roster.current();
    let mut members = view.nodes.values().filter(|record| !record.is_gone);
    members.find(|record| record.name == name || record.id.to_string() == name).map(|record| record.id)
}
