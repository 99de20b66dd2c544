//! Gets a blob from peers: the driver of [`swarm_core::blobs::Fetch`], which decides.
//!
//! ```text
//!   outline and last segment from the first source that gives them --> room is taken, or it ends here
//!   Order::Ask --> a task with a stream: read a segment, check and write it off this thread, say so
//!   a source that has not all of it --> a task that hears what comes there
//! ```

mod ask;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, future, stream::FuturesUnordered};
use swarm_core::blobs::{AskId, Fetch, Order, SegmentSet, SourceView};
use swarm_proto::{
    Digest, NodeId,
    blob::{BlobPart, Claim, SegmentHeader, SegmentRange},
    limits,
};
use swarm_transport::{Connection, FrameRx};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use self::ask::{Answer, Here, Refused, answer, check, header, late};
use crate::{
    error::StoreError,
    lanes::Lanes,
    now,
    outline::{BadOutline, Outline},
    packing::{Landing, Landings},
    partial::{Partial, Written},
    store::{Begun, Store},
};

/// How long a source may give nothing of the outline before the next one is asked too.
const HEDGE: Duration = Duration::from_millis(400);
/// How long it may take to answer.
const OUTLINE: Duration = Duration::from_secs(5);
/// How long a source that is about to get it itself is waited for; nobody else is asked meanwhile for [`OUTLINE`].
const COMES: Duration = Duration::from_secs(60);
/// How long the rest of an outline may take: 3 MiB at most.
const OUTLINE_REST: Duration = Duration::from_secs(60);
/// A fetch to which nobody gives anything for so long has failed.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How often progress of a segment that comes slowly is said.
const SAID: Duration = Duration::from_millis(100);

/// Why a source is not asked again.
const NOT_IT: &str = "what it gives is not the blob";

/// A future of a connection to a node.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Connection, String>> + Send>>;

/// Reaches a node's bulk endpoint.
pub type Reach = Arc<dyn Fn(NodeId) -> Connecting + Send + Sync>;

/// Where a blob may be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceAt {
    /// Which node.
    pub node: NodeId,
    /// To be asked only where the others have nothing to give, nor the spares that are named before it.
    pub is_spare: bool,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Bytes that are here.
    pub have: u64,
    /// Bytes of the blob; 0 before that is known.
    pub size: u64,
    /// Who gives it.
    pub sources: Vec<SourceView>,
}

/// Why it did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody who was named could give it. Each with the reason.
    #[error("nobody gave it: {}", list(_0))]
    NoSource(Vec<(NodeId, String)>),
    /// It cannot be kept here.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not of the size that was promised.
    #[error("it has {got} bytes, and {promised} were promised")]
    Size {
        /// What it has.
        got: u64,
        /// What whoever named it said.
        promised: u64,
    },
}

fn list(failures: &[(NodeId, String)]) -> String {
    if failures.is_empty() {
        return "nobody was named who has it".to_owned();
    }
    failures.iter().map(|(node, why)| format!("{node}: {why}")).collect::<Vec<_>>().join("; ")
}

/// What gets a blob.
#[derive(Clone)]
pub struct Fetcher {
    /// Where it goes.
    pub store: Store,
    /// How the store's work is done.
    pub lanes: Lanes,
    /// How peers are reached.
    pub reach: Reach,
    /// Why this node may have what it gets.
    pub claim: Claim,
}

/// What happened to a stream or a source.
enum News {
    Bytes(AskId, u64),
    Kept(AskId, u32),
    Bad(AskId, u32),
    Ended(AskId, Option<Refused>),
    Has(NodeId, Vec<SegmentRange>),
    Comes(NodeId),
    Failed(StoreError),
}

impl Fetcher {
    /// Gets a blob. Returns when all of it is here for good. Dropped half way, what came stays and is not fetched again.
    ///
    /// `size`: what whoever named the blob says of it, checked before room is taken. One call at a time for one blob.
    ///
    /// # Errors
    /// [`FetchError`]. What came stays.
    pub async fn fetch(
        &self,
        digest: Digest,
        size: Option<u64>,
        sources: &[SourceAt],
        progress: &watch::Sender<Progress>,
    ) -> Result<(), FetchError> {
        let store = self.store.clone();
        if self.lanes.run(move || store.size_of(digest)).await.is_some() {
            return Ok(());
        }
        let (outline, last, is_sealed) = self.outline(digest, size, sources, progress).await?;
        if outline.segments() == 1 {
            // all of it is here, and there is nothing to be gone on with later
            let store = self.store.clone();
            return Ok(self.lanes.run(move || store.keep_small(digest, &last, is_sealed)).await?);
        }
        let (store, begun) = (self.store.clone(), outline.clone());
        let partial = match self.lanes.run(move || store.begin(begun, is_sealed)).await? {
            Begun::Whole => return Ok(()),
            Begun::Partial(partial) => partial,
        };
        let end = self.fill(&partial, last, sources, progress).await;
        if end.is_err() {
            self.store.pause(&partial);
        }
        end
    }

    /// Gets what is missing, and keeps all of it for good.
    async fn fill(
        &self,
        partial: &Arc<Partial>,
        last: Vec<u8>,
        sources: &[SourceAt],
        progress: &watch::Sender<Progress>,
    ) -> Result<(), FetchError> {
        let (to, index) = (partial.clone(), partial.outline().segments() - 1);
        self.lanes.run(move || to.write(index, &last)).await?;
        if !partial.is_full() {
            Run::new(self, partial.clone(), progress).segments(sources).await?;
        }
        let (store, all) = (self.store.clone(), partial.clone());
        Ok(self.lanes.run(move || store.complete(&all)).await?)
    }

    /// From the first source whose last segment is what its outline says; and whether the blob is to be kept encrypted. Sources that give
    /// something else are in `progress` then.
    async fn outline(
        &self,
        digest: Digest,
        promised: Option<u64>,
        sources: &[SourceAt],
        progress: &watch::Sender<Progress>,
    ) -> Result<(Outline, Vec<u8>, bool), FetchError> {
        let mut failures = Vec::new();
        // spares last, in the order in which they were named
        let (spares, others): (Vec<&SourceAt>, Vec<&SourceAt>) = sources.iter().partition(|source| source.is_spare);
        let mut order = others.into_iter().chain(spares);
        let came = AtomicBool::new(false);
        let mut asked = FuturesUnordered::new();
        loop {
            // one that gives it slowly is waited for, one that gives nothing is not waited for alone
            if !came.swap(false, Ordering::Relaxed) {
                match order.next() {
                    Some(source) => asked.push(self.outline_of(digest, source.node, &came)),
                    None if asked.is_empty() => return Err(FetchError::NoSource(failures)),
                    None => {}
                }
            }
            let Ok(Some((node, given))) = timeout(HEDGE, asked.next()).await else { continue };
            match given {
                // the last segment fits, so the size is more than a claim
                Ok((outline, last, sealed)) => {
                    return match promised.filter(|promised| *promised != outline.size()) {
                        Some(promised) => Err(FetchError::Size { got: outline.size(), promised }),
                        None => Ok((outline, last, sealed)),
                    };
                }
                Err(Refused { why, is_lie, .. }) => {
                    if is_lie {
                        progress.send_modify(|progress| progress.sources.push(SourceView { node, bytes: 0, rate: 0.0, is_liar: true }));
                    }
                    failures.push((node, why));
                }
            }
        }
    }

    /// From one source. `came` is set whenever some of it has come.
    async fn outline_of(&self, digest: Digest, node: NodeId, came: &AtomicBool) -> (NodeId, Result<(Outline, Vec<u8>, bool), Refused>) {
        let given = async {
            let asked = now();
            let opened = timeout(OUTLINE, self.open(digest, BlobPart::Outline, node)).await;
            let mut rx = opened.unwrap_or_else(|_| Err(late(OUTLINE)))?;
            let Here { rx, size, sealed, .. } = loop {
                match timeout(OUTLINE, answer(rx)).await.unwrap_or_else(|_| Err(late(OUTLINE)))? {
                    Answer::Here(here) => break here,
                    Answer::Coming(more) => {
                        let waited = now().saturating_duration_since(asked);
                        if waited >= COMES {
                            return Err(Refused::new(format!("it was about to get it for {} s", COMES.as_secs())));
                        }
                        // two that wait for each other must not do so for ever
                        came.store(waited < OUTLINE, Ordering::Relaxed);
                        rx = more;
                    }
                }
            };
            let rest = timeout(OUTLINE_REST, self.rest_of_outline((digest, size), node, rx, came)).await;
            rest.unwrap_or_else(|_| Err(late(OUTLINE_REST))).map(|(outline, last)| (outline, last, sealed))
        };
        (node, given.await)
    }

    async fn rest_of_outline(
        &self,
        (digest, size): (Digest, u64),
        node: NodeId,
        mut rx: FrameRx,
        came: &AtomicBool,
    ) -> Result<(Outline, Vec<u8>), Refused> {
        let say = |_| came.store(true, Ordering::Relaxed);
        let count = swarm_proto::blob::segments(size).ok_or(BadOutline::TooLarge(size))?;
        let mut values = vec![[0; 32]; if count == 1 { 0 } else { count as usize }];
        rx.read_exact(values.as_flattened_mut(), say).await?;
        if count == 1 {
            values.push(digest.0);
        }
        let outline = Outline::new(digest, size, values)?;
        let header = header(&mut rx).await?.filter(|header| header.index == count - 1);
        let Some(header) = header else { return Err(Refused::new("it does not give the last segment with the outline")) };
        check(header, &outline)?;
        let mut landing = Landing::default();
        rx.read_exact(landing.room(header), |count| {
            self.store.carried().take(count);
            say(count);
        })
        .await?;
        let judge = outline.clone();
        let work = move || landing.segment(header).filter(|data| judge.fits(count - 1, data)).map(<[u8]>::to_vec);
        let data = self.lanes.run(work).await.ok_or_else(|| {
            self.doubt(digest, count - 1, node);
            Refused::lie(NOT_IT)
        });
        Ok((outline, data?))
    }
}

/// The segments of one blob on their way.
struct Run<'a> {
    fetcher: &'a Fetcher,
    partial: Arc<Partial>,
    decides: Fetch,
    /// Everything that was started; it ends when this is dropped.
    tasks: JoinSet<()>,
    streams: BTreeMap<AskId, (NodeId, AbortHandle)>,
    landings: Landings,
    news: (mpsc::UnboundedSender<News>, mpsc::UnboundedReceiver<News>),
    progress: &'a watch::Sender<Progress>,
    failures: BTreeMap<NodeId, String>,
}

impl<'a> Run<'a> {
    fn new(fetcher: &'a Fetcher, partial: Arc<Partial>, progress: &'a watch::Sender<Progress>) -> Self {
        let decides = Fetch::new(&partial.have(), now());
        let (streams, failures) = (BTreeMap::new(), BTreeMap::new());
        let (tasks, landings, news) = (JoinSet::new(), Landings::default(), mpsc::unbounded_channel());
        Self { fetcher, partial, decides, tasks, streams, landings, news, progress, failures }
    }

    async fn segments(mut self, sources: &[SourceAt]) -> Result<(), FetchError> {
        let mut following = 0;
        let mut spares = 0;
        for source in sources {
            spares += u32::from(source.is_spare);
            let rank = if source.is_spare { spares } else { 0 };
            self.decides.handle_source(source.node, rank, now());
            self.follow(source.node);
            following += 1;
        }
        for liar in self.progress.borrow().sources.iter().filter(|source| source.is_liar) {
            self.decides.handle_liar(liar.node);
        }
        self.say();
        while !self.decides.is_done() {
            while let Some(order) = self.decides.poll(now()) {
                self.carry_out(order);
            }
            let is_over = following == 0 && self.streams.is_empty() && self.decides.wants_sources();
            if is_over || self.decides.quiet(now()) >= GIVE_UP {
                return Err(FetchError::NoSource(self.failures.into_iter().collect()));
            }
            let wake = self.decides.poll_timeout().map(|(at, _)| at);
            let sleep = tokio::time::sleep_until(wake.map_or_else(|| tokio::time::Instant::now() + OUTLINE, Into::into));
            tokio::select! {
                biased;
                news = self.news.1.recv() => {
                    let Some(news) = news else { break };
                    if self.hear(news)? {
                        following -= 1;
                    }
                }
                () = sleep => {}
            }
            self.decides.handle_timeout(now());
            while self.tasks.try_join_next().is_some() {}
            self.say();
        }
        Ok(())
    }

    /// Answers whether a source has no more to say of what it has.
    fn hear(&mut self, news: News) -> Result<bool, FetchError> {
        match news {
            News::Bytes(id, bytes) => self.decides.handle_bytes(id, bytes, now()),
            News::Kept(id, index) => self.decides.handle_segment(id, index, now()),
            News::Bad(id, index) => {
                if let Some((node, _)) = self.streams.get(&id) {
                    let digest = self.partial.outline().digest();
                    tracing::warn!(%node, %digest, index, "a source gave what is not the blob; it is not asked again");
                    self.fetcher.doubt(digest, index, *node);
                    self.failures.insert(*node, NOT_IT.into());
                }
                self.decides.handle_bad(id, now());
            }
            News::Ended(id, why) => {
                let source = self.streams.remove(&id).map(|(node, _)| node);
                self.decides.handle_end(id, now());
                if let (Some(node), Some(Refused { why, is_final, .. })) = (source, why) {
                    self.failures.insert(node, why);
                    if is_final {
                        self.decides.handle_gone(node, now());
                    }
                }
            }
            News::Has(node, ranges) if ranges.is_empty() => {
                tracing::trace!(%node, "a source has told all that it has");
                return Ok(true);
            }
            News::Has(node, ranges) => self.decides.handle_has(node, ranges, now()),
            News::Comes(node) => self.decides.handle_coming(node, now()),
            News::Failed(error) => return Err(error.into()),
        }
        Ok(false)
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Ask { id, source, ranges } => {
                let (fetcher, partial, to) = (self.fetcher.clone(), self.partial.clone(), self.news.0.clone());
                let incoming = Incoming { fetcher, partial, id, landings: self.landings.clone(), to };
                let task = self.tasks.spawn(async move {
                    let why = incoming.take(source, ranges).await.err();
                    let _ = incoming.to.send(News::Ended(id, why));
                });
                self.streams.insert(id, (source, task));
            }
            Order::Cancel(id) => {
                if let Some((_, task)) = self.streams.remove(&id) {
                    task.abort();
                }
            }
        }
    }

    /// Hears what a source has, until it has all or is gone.
    fn follow(&mut self, node: NodeId) {
        let (fetcher, outline, to) = (self.fetcher.clone(), self.partial.outline().clone(), self.news.0.clone());
        self.tasks.spawn(async move {
            if let Err(Refused { why, .. }) = hear_of(&fetcher, &outline, node, &to).await {
                tracing::debug!(%node, why, "a source says no more of what it has");
            }
            let _ = to.send(News::Has(node, Vec::new()));
        });
    }

    fn say(&self) {
        let outline = self.partial.outline();
        let have = u64::from(self.partial.count()) * u64::from(limits::SEGMENT);
        let progress = Progress { have: have.min(outline.size()), size: outline.size(), sources: self.decides.sources() };
        self.progress.send_if_modified(|old| {
            let is_new = *old != progress;
            *old = progress;
            is_new
        });
    }
}

async fn hear_of(fetcher: &Fetcher, outline: &Outline, node: NodeId, to: &mpsc::UnboundedSender<News>) -> Result<(), Refused> {
    let Here { mut rx, whole, .. } = fetcher.ask(outline.digest(), BlobPart::Follow, node).await?;
    if whole {
        let all = SegmentRange { first: 0, count: outline.segments() };
        let _ = to.send(News::Has(node, vec![all]));
        return Ok(());
    }
    let _ = to.send(News::Comes(node));
    // each segment is told once, so that there is an end to what can be told
    let mut told = SegmentSet::empty(outline.segments());
    while let Some(ranges) = rx.recv::<Vec<SegmentRange>>().await? {
        for range in &ranges {
            let end = range.end().filter(|end| range.count > 0 && *end <= outline.segments());
            let is_new = end.is_some_and(|end| (range.first..end).all(|index| told.insert(index)));
            if !is_new {
                return Err(Refused::new("it tells what it has wrongly"));
            }
        }
        if !ranges.is_empty() && to.send(News::Has(node, ranges)).is_err() {
            break;
        }
    }
    Ok(())
}

/// A segment that came and is not judged yet.
struct Came {
    header: SegmentHeader,
    landing: Landing,
}

/// What one stream brings.
struct Incoming {
    fetcher: Fetcher,
    partial: Arc<Partial>,
    id: AskId,
    landings: Landings,
    to: mpsc::UnboundedSender<News>,
}

impl Incoming {
    /// Takes it. A segment is judged and written while the next one comes.
    async fn take(&self, node: NodeId, ranges: Vec<SegmentRange>) -> Result<(), Refused> {
        let outline = self.partial.outline();
        let mut wanted: BTreeSet<u32> = ranges.iter().flat_map(|range| range.first..range.end().unwrap_or(range.first)).collect();
        let Here { mut rx, size, .. } = self.fetcher.ask(outline.digest(), BlobPart::Segments(ranges), node).await?;
        if size != outline.size() {
            return Err(Refused::new(format!("it says that the blob has {size} bytes, and it has {}", outline.size())));
        }
        let mut came = None;
        loop {
            let ((), next) = future::join(self.keep(came), self.land(&mut rx, &mut wanted)).await;
            came = next?;
            if came.is_none() {
                return Ok(());
            }
        }
    }

    /// The next segment; `None` at the end of the stream.
    async fn land(&self, rx: &mut FrameRx, wanted: &mut BTreeSet<u32>) -> Result<Option<Came>, Refused> {
        let Some(header) = header(rx).await? else { return Ok(None) };
        let index = header.index;
        if let Err(refused) = check(header, self.partial.outline()) {
            let _ = self.to.send(News::Bad(self.id, index));
            return Err(refused);
        }
        if !wanted.remove(&index) {
            return Err(Refused::new(format!("it sends segment {index}, which it was not asked for")));
        }
        let mut landing = self.landings.take();
        let (mut got, mut told, mut said) = (0, 0, now());
        rx.read_exact(landing.room(header), |count| {
            self.fetcher.store.carried().take(count);
            got += count as u64;
            if now().saturating_duration_since(said) >= SAID {
                let _ = self.to.send(News::Bytes(self.id, header.share(got) - told));
                (told, said) = (header.share(got), now());
            }
        })
        .await?;
        let _ = self.to.send(News::Bytes(self.id, u64::from(header.len) - told));
        Ok(Some(Came { header, landing }))
    }

    /// Judges a segment, writes it and says so.
    async fn keep(&self, came: Option<Came>) {
        let Some(Came { header, mut landing }) = came else { return };
        let (partial, index) = (self.partial.clone(), header.index);
        let work = move || {
            let written = landing.segment(header).map_or(Ok(Written::Bad), |data| partial.write(index, data));
            (written, landing)
        };
        let (written, landing) = self.fetcher.lanes.run(work).await;
        self.landings.give_back(landing);
        let news = match written {
            Ok(Written::New | Written::Known) => News::Kept(self.id, index),
            Ok(Written::Bad) => News::Bad(self.id, index),
            Err(error) => News::Failed(error),
        };
        let _ = self.to.send(news);
    }
}
