//! Which segments of a blob are wanted, from whom, in which order.
//!
//! ```text
//!   sources (who has what) --.                              .--> Ask{source, segments}: a stream each
//!   segments that came -------+--> Fetch: one blob --poll---+--> Cancel: that stream is of no use any more
//!   streams that ended ------'                              '--> wake me then
//! ```
//! **Shares follow speed.** A source is asked for as much as it delivers in [`AHEAD`], so a fast one gets more and a slow one holds
//! little; what a slow one still holds at the end is asked of a faster one too. **Rarest first** (Cohen, BitTorrent, 2003): what the
//! fewest sources have is asked first, so that receivers have something for each other; among equally common segments the lowest.
//! **A stall costs under a second**: a source that delivers nothing for [`STALL`] while others could is left alone for a while, and
//! what it held is asked of them. **A lie costs one segment**: a source whose segment is not what it should be is not asked again.
//! **Spares** are asked only where the others have nothing to give, the first of them first: in a chain that is whoever stands before
//! the one before, whose link is free when that one is gone, and then the origin, which so sends each segment about once.
//! **Standing asks**: of a source that is still getting the blob itself, the next [`STANDING`] segments that nobody else could give are
//! asked before it has them; it keeps the asks and sends each the moment it has it. What comes through a chain so waits at no hop for
//! the news of it and the asking. (A giver that pushes unasked would save the same, and would have to be told what came from others.)
//! Such an ask is nothing under way until its source has the segment: it is no stall of that source, which itself waits, and whoever may
//! be asked and has the segment takes its place. A source that does not keep them is asked in this way no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use swarm_proto::{NodeId, blob::SegmentRange, limits};

mod claims;
mod directory;
mod owed;
mod packing;
mod seal;
mod segments;
#[cfg(test)]
mod tests;

pub use claims::{Claims, Standing};
pub use directory::{Directory, Known};
pub use owed::{KeepOrder, Owed, Owner, rendezvous};
pub use packing::{Link, SAMPLE as PACKING_SAMPLE, Shrink, Speed, Verdict, choose_packing};
pub use seal::{Cipher, SALT, SEAL, StoreKey};
pub use segments::SegmentSet;

/// How much is asked ahead of a source: what it delivers in this time.
pub const AHEAD: Duration = Duration::from_millis(500);
/// A source that delivers nothing for so long, while others could, is given a rest.
pub const STALL: Duration = Duration::from_millis(800);
/// Its first rest; each one after it is twice as long, up to [`LONGEST_REST`].
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(32);
/// A source that gave no segment at so many tries in a row, half a minute in all, is taken for gone.
const TRIES: u32 = 5;
/// Streams to one source at a time.
const STREAMS: usize = 4;
/// Segments that are asked of a source before it has them.
pub const STANDING: usize = 3;
/// A standing ask that ends as soon as this is not kept by its source.
const KEPT: Duration = Duration::from_secs(1);
/// Segments in one ask, and under way from one source.
const ASK: u32 = 8;
const UNDER_WAY: u32 = 32;
/// What is under way from a source whose speed is not known yet.
const UNKNOWN: u32 = 4;
/// How long a rate is measured before it counts.
const SAMPLE: Duration = Duration::from_millis(200);
/// How much faster a source must be before it is asked for what another one already sends.
const FASTER: f64 = 2.0;

/// One stream to one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ask a source for these segments.
    Ask {
        /// To be named when something of it comes.
        id: AskId,
        /// Whom.
        source: NodeId,
        /// For what, ascending.
        ranges: Vec<SegmentRange>,
    },
    /// Nothing of it is wanted any more.
    Cancel(AskId),
}

/// How a source is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceView {
    /// Which.
    pub node: NodeId,
    /// Bytes that it gave.
    pub bytes: u64,
    /// Bytes a second, lately.
    pub rate: f64,
    /// It gave what was not the blob.
    pub is_liar: bool,
}

#[derive(Debug)]
struct Source {
    has: SegmentSet,
    rank: u32,
    is_liar: bool,
    /// It gets what it has not, and keeps what is asked of it until then.
    is_coming: bool,
    under_way: u32,
    bytes: u64,
    rate: f64,
    /// Bytes since, while something was under way.
    sample: Option<(Instant, u64)>,
    heard: Instant,
    rests: u32,
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct Asked {
    source: NodeId,
    open: BTreeSet<u32>,
    /// Since when it stands, where its source does not have it yet.
    stands: Option<Instant>,
}

/// The fetching of one blob.
#[derive(Debug)]
pub struct Fetch {
    missing: SegmentSet,
    sources: BTreeMap<NodeId, Source>,
    asks: BTreeMap<AskId, Asked>,
    /// How often each segment is under way; asks that stand do not count.
    copies: Vec<u8>,
    /// How many sources have each segment.
    holders: Vec<u16>,
    next: u64,
    cancels: Vec<AskId>,
    /// Since when nothing has come.
    quiet_since: Instant,
    /// Up to which rank sources may be asked, whatever the others are: one more each time that nothing has come for a while, and back
    /// to that of whatever gives something.
    depth: u32,
    /// Since when nothing has come from those who may be asked.
    waits_since: Instant,
    now: Instant,
}

impl Fetch {
    /// Wants everything that is not in `have`.
    pub fn new(have: &SegmentSet, now: Instant) -> Self {
        let len = have.len();
        let mut missing = SegmentSet::full(len);
        for index in have.iter() {
            missing.remove(index);
        }
        Self {
            missing,
            sources: BTreeMap::new(),
            asks: BTreeMap::new(),
            copies: vec![0; len as usize],
            holders: vec![0; len as usize],
            next: 0,
            cancels: Vec::new(),
            quiet_since: now,
            depth: 0,
            waits_since: now,
            now,
        }
    }

    /// Whether everything came.
    pub const fn is_done(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether some segment is missing that no source has.
    pub fn wants_sources(&self) -> bool {
        self.missing.iter().any(|index| self.holders[index as usize] == 0)
    }

    /// How long nothing has come from anybody.
    pub fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.quiet_since)
    }

    /// How each source is doing.
    pub fn sources(&self) -> Vec<SourceView> {
        let view = |(node, source): (&NodeId, &Source)| SourceView {
            node: *node,
            bytes: source.bytes,
            rate: source.rate,
            is_liar: source.is_liar,
        };
        self.sources.iter().map(view).collect()
    }

    /// A source, of which nothing is known yet but that it may have some. One of a higher rank is asked only where those of lower ones
    /// have nothing to give.
    pub fn handle_source(&mut self, node: NodeId, rank: u32, now: Instant) {
        self.now = now;
        self.sources.entry(node).or_insert_with(|| Source {
            has: SegmentSet::empty(self.missing.len()),
            rank,
            is_liar: false,
            is_coming: false,
            under_way: 0,
            bytes: 0,
            rate: 0.0,
            sample: None,
            heard: now,
            rests: 0,
            rests_until: None,
        });
    }

    /// A source has these, besides what it had.
    pub fn handle_has(&mut self, node: NodeId, has: impl IntoIterator<Item = SegmentRange>, now: Instant) {
        self.now = now;
        let Some(source) = self.sources.get_mut(&node).filter(|source| !source.is_liar) else { return };
        for range in has {
            for index in range.first..range.end().unwrap_or(u32::MAX).min(self.missing.len()) {
                if source.has.insert(index) {
                    self.holders[index as usize] = self.holders[index as usize].saturating_add(1);
                }
            }
        }
        let has = &source.has;
        let is_there = |ask: &Asked| ask.source == node && ask.stands.is_some() && ask.open.iter().all(|index| has.contains(*index));
        let begun: Vec<AskId> = self.asks.iter().filter(|(_, ask)| is_there(ask)).map(|(id, _)| *id).collect();
        begun.into_iter().for_each(|id| self.begin(id));
    }

    /// A source is getting the blob itself, and will have what it has not.
    pub fn handle_coming(&mut self, node: NodeId, now: Instant) {
        self.now = now;
        self.sources.entry(node).and_modify(|source| source.is_coming = true);
    }

    /// A source that cannot be reached any more.
    pub fn handle_gone(&mut self, node: NodeId, now: Instant) {
        self.now = now;
        self.release(node);
        if let Some(source) = self.sources.remove(&node) {
            self.lose_holder(&source.has);
        }
    }

    /// Some bytes of an ask came.
    pub fn handle_bytes(&mut self, id: AskId, bytes: u64, now: Instant) {
        self.now = now;
        (self.quiet_since, self.waits_since) = (now, now);
        self.begin(id);
        let Some(source) = self.asks.get(&id).and_then(|ask| self.sources.get_mut(&ask.source)) else { return };
        self.depth = self.depth.min(source.rank);
        source.bytes += bytes;
        source.heard = now;
        let (since, sum) = source.sample.get_or_insert((now, 0));
        *sum += bytes;
        let span = now.saturating_duration_since(*since);
        if span >= SAMPLE {
            #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
            let rate = *sum as f64 / span.as_secs_f64();
            source.rate = if source.rate > 0.0 { f64::midpoint(source.rate, rate) } else { rate };
            source.sample = Some((now, 0));
        }
    }

    /// A segment came whole and is what it should be. It may come twice.
    pub fn handle_segment(&mut self, id: AskId, index: u32, now: Instant) {
        self.now = now;
        if let Some(source) = self.asks.get(&id).and_then(|ask| self.sources.get_mut(&ask.source)) {
            // not for less: one whose streams all break off in a segment would be asked for ever
            source.rests = 0;
        }
        self.close(id, index);
        if !self.missing.remove(index) {
            return;
        }
        // others that send the same need not go on with it; an ask that has nothing else to give ends
        let others: Vec<AskId> = self.asks.iter().filter(|(_, ask)| ask.open.contains(&index)).map(|(id, _)| *id).collect();
        for other in others {
            self.close(other, index);
            if self.asks.get(&other).is_some_and(|ask| ask.open.is_empty()) {
                self.asks.remove(&other);
                self.cancels.push(other);
            }
        }
    }

    /// A segment is not what it should be: its source is not asked again.
    pub fn handle_bad(&mut self, id: AskId, now: Instant) {
        self.now = now;
        let Some(node) = self.asks.get(&id).map(|ask| ask.source) else { return };
        self.release(node);
        self.handle_liar(node);
    }

    /// A source gave what is not the blob: it is not asked again.
    pub fn handle_liar(&mut self, node: NodeId) {
        let Some(source) = self.sources.get_mut(&node) else { return };
        source.is_liar = true;
        let had = std::mem::replace(&mut source.has, SegmentSet::empty(self.missing.len()));
        self.lose_holder(&had);
    }

    /// Somebody does not have these any more.
    fn lose_holder(&mut self, of: &SegmentSet) {
        of.iter().for_each(|index| self.holders[index as usize] = self.holders[index as usize].saturating_sub(1));
    }

    /// A stream ended. What it did not bring is asked again; its source does not have it, or could not give it now.
    pub fn handle_end(&mut self, id: AskId, now: Instant) {
        self.now = now;
        let Some(ask) = self.asks.remove(&id) else { return };
        if let Some(since) = ask.stands {
            let is_kept = now.saturating_duration_since(since) >= KEPT;
            self.sources.entry(ask.source).and_modify(|source| source.is_coming &= is_kept);
            return;
        }
        for index in &ask.open {
            self.copies[*index as usize] -= 1;
        }
        let Some(source) = self.sources.get_mut(&ask.source) else { return };
        source.under_way -= u32::try_from(ask.open.len()).unwrap_or(u32::MAX);
        source.sample = source.sample.filter(|_| source.under_way > 0);
        if !ask.open.is_empty() {
            self.rest(ask.source);
        }
    }

    /// What to do next; ask until there is nothing.
    pub fn poll(&mut self, now: Instant) -> Option<Order> {
        self.now = now;
        if let Some(id) = self.cancels.pop() {
            return Some(Order::Cancel(id));
        }
        let mut nodes: Vec<NodeId> = self.sources.keys().copied().collect();
        // whoever is faster chooses first
        nodes.sort_by(|a, b| self.sources[b].rate.total_cmp(&self.sources[a].rate));
        nodes.into_iter().find_map(|node| self.ask(node))
    }

    /// When to look again though nothing came, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let stalls = self.sources.values().filter(|source| source.under_way > 0).map(|source| (source.heard + STALL, "a source stalls"));
        let rests = self.sources.values().filter_map(|source| source.rests_until.map(|until| (until, "a source had its rest")));
        let spares = self.has_deeper().then_some((self.waits_since + STALL, "spares may be asked"));
        let later = |(at, _): &(Instant, &str)| *at > self.now;
        stalls.chain(rests).chain(spares).filter(later).min_by_key(|(at, _)| *at).filter(|_| !self.is_done())
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if now.saturating_duration_since(self.waits_since) >= STALL && self.has_deeper() {
            (self.depth, self.waits_since) = (self.depth + 1, now);
        }
        self.withdraw(|fetch, ask| fetch.is_left(ask.source));
        for source in self.sources.values_mut() {
            source.rests_until = source.rests_until.filter(|until| *until > now);
        }
        let is_late = |source: &Source| source.under_way > 0 && now.saturating_duration_since(source.heard) >= STALL;
        let late: Vec<NodeId> = self.sources.iter().filter(|(_, source)| is_late(source)).map(|(node, _)| *node).collect();
        for node in late {
            if self.others_could(node) {
                self.release(node);
                self.rest(node);
                // what it gave once is no reason to ask it for much when it is tried again
                self.sources.entry(node).and_modify(|source| source.rate = 0.0);
            }
        }
    }

    /// Leaves a source alone for a while, or for good when that was no help.
    fn rest(&mut self, node: NodeId) {
        let Some(source) = self.sources.get_mut(&node) else { return };
        if source.rests_until.is_some_and(|until| until > self.now) {
            // several of its streams ended for one reason
            return;
        }
        if source.rests >= TRIES {
            return self.handle_gone(node, self.now);
        }
        source.rests_until = Some(self.now + REST.saturating_mul(1 << source.rests).min(LONGEST_REST));
        source.rests += 1;
    }

    /// Whether somebody else, who is doing well, has something of what this one holds.
    fn others_could(&self, node: NodeId) -> bool {
        let held = || self.asks.values().filter(|ask| ask.source == node && ask.stands.is_none()).flat_map(|ask| &ask.open);
        let is_well = |source: &Source| source.rests_until.is_none() && self.now.saturating_duration_since(source.heard) < STALL;
        self.sources.iter().any(|(other, source)| {
            let is_idle = source.under_way == 0 && source.rests_until.is_none();
            *other != node && (is_well(source) || is_idle) && held().any(|index| source.has.contains(*index))
        })
    }

    /// Takes back what a source holds.
    fn release(&mut self, node: NodeId) {
        let ids: Vec<AskId> = self.asks.iter().filter(|(_, ask)| ask.source == node).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(ask) = self.asks.remove(&id) else { continue };
            if ask.stands.is_none() {
                ask.open.iter().for_each(|index| self.copies[*index as usize] -= 1);
            }
            self.cancels.push(id);
        }
        if let Some(source) = self.sources.get_mut(&node) {
            source.under_way = 0;
            source.sample = None;
        }
    }

    /// An ask no longer holds a segment.
    fn close(&mut self, id: AskId, index: u32) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        if ask.open.remove(&index) && ask.stands.is_none() {
            self.copies[index as usize] -= 1;
            if let Some(source) = self.sources.get_mut(&ask.source) {
                source.under_way -= 1;
                source.sample = source.sample.filter(|_| source.under_way > 0);
            }
        }
    }

    /// Nothing came of a source for so long that others were turned to: no ask stands there until it gives something again.
    fn is_left(&self, node: NodeId) -> bool {
        let is_left = |source: &Source| self.now.saturating_duration_since(source.heard) >= STALL && self.waits_since > source.heard;
        self.sources.get(&node).is_none_or(is_left)
    }

    /// What a standing ask is for is on its way.
    fn begin(&mut self, id: AskId) {
        let Some(ask) = self.asks.get_mut(&id).filter(|ask| ask.stands.is_some()) else { return };
        ask.stands = None;
        let (node, open) = (ask.source, ask.open.clone());
        self.count(node, &open);
    }

    /// These are under way from a source.
    fn count(&mut self, node: NodeId, open: &BTreeSet<u32>) {
        open.iter().for_each(|index| self.copies[*index as usize] += 1);
        let Some(source) = self.sources.get_mut(&node) else { return };
        if source.under_way == 0 {
            source.heard = self.now;
            source.sample = Some((self.now, 0));
        }
        source.under_way += u32::try_from(open.len()).unwrap_or(u32::MAX);
    }

    /// Asks that stand are cancelled where `is_over` says so.
    fn withdraw(&mut self, is_over: impl Fn(&Self, &Asked) -> bool) {
        let over: Vec<AskId> = self.asks.iter().filter(|(_, ask)| ask.stands.is_some() && is_over(self, ask)).map(|(id, _)| *id).collect();
        for id in over {
            self.asks.remove(&id);
            self.cancels.push(id);
        }
    }

    /// Whether there are sources of a rank that may not be asked yet.
    fn has_deeper(&self) -> bool {
        self.sources.values().any(|source| source.rank > self.depth)
    }

    /// Whether sources of a rank may be asked: nobody of a lower one is there who is doing well.
    fn may_ask(&self, rank: u32) -> bool {
        let is_use = |source: &Source| source.rank < rank && !source.is_liar && source.rests_until.is_none();
        rank <= self.depth || !self.sources.values().any(is_use)
    }

    /// The next ask of a source, if it has room for one and something to give.
    fn ask(&mut self, node: NodeId) -> Option<Order> {
        let source = &self.sources[&node];
        if source.rests_until.is_some_and(|until| until > self.now) || !self.may_ask(source.rank) {
            return None;
        }
        let streams = self.asks.values().filter(|ask| ask.source == node && ask.stands.is_none()).count();
        let room = window(source.rate).saturating_sub(source.under_way);
        if streams >= STREAMS || room == 0 {
            return None;
        }
        // an ask is a part of what may be under way, so that the next one is there before this one ends
        let size = room.min(window(source.rate).div_ceil(u32::try_from(STREAMS).unwrap_or(1))).min(ASK);
        let here = self.rarest(source, size).or_else(|| self.slowest(node, source));
        let stands = here.is_none().then_some(self.now);
        let chosen = here.or_else(|| self.ahead(node, source))?;
        let id = AskId(self.next);
        self.next += 1;
        if stands.is_none() {
            // somebody is asked who has them: no ask for one of them stands any more
            self.withdraw(|_, ask| !ask.open.is_disjoint(&chosen));
            self.count(node, &chosen);
        }
        let ranges = SegmentRange::gather(chosen.iter().copied());
        self.asks.insert(id, Asked { source: node, open: chosen, stands });
        Some(Order::Ask { id, source: node, ranges })
    }

    /// The next segment that a source will have and nobody could give now.
    fn ahead(&self, node: NodeId, source: &Source) -> Option<BTreeSet<u32>> {
        let standing: Vec<&Asked> = self.asks.values().filter(|ask| ask.stands.is_some()).collect();
        if !source.is_coming || self.is_left(node) || standing.iter().filter(|ask| ask.source == node).count() >= STANDING {
            return None;
        }
        let could_give = |other: &Source, index| other.has.contains(index) && other.rests_until.is_none() && self.may_ask(other.rank);
        let is_free = |index: &u32| {
            self.copies[*index as usize] == 0
                && !standing.iter().any(|ask| ask.open.contains(index))
                && !self.sources.values().any(|other| could_give(other, *index))
        };
        self.missing.iter().find(is_free).map(|index| BTreeSet::from([index]))
    }

    /// Segments that nobody sends yet: those that the fewest have, the lowest of them first, and what follows it.
    fn rarest(&self, source: &Source, size: u32) -> Option<BTreeSet<u32>> {
        let is_open = |index: &u32| self.copies[*index as usize] == 0 && source.has.contains(*index);
        let first = self.missing.iter().filter(is_open).min_by_key(|index| self.holders[*index as usize])?;
        let end = first.saturating_add(size).min(self.missing.len());
        let is_alike = |index: &u32| self.holders[*index as usize] == self.holders[first as usize];
        Some((first..end).take_while(|index| self.missing.contains(*index) && is_open(index) && is_alike(index)).collect())
    }

    /// When everything is under way: one segment of the slowest source that this one would outrun.
    fn slowest(&self, node: NodeId, source: &Source) -> Option<BTreeSet<u32>> {
        let may_help = |ask: &&Asked| {
            let other = self.sources.get(&ask.source);
            ask.source != node && ask.stands.is_none() && other.is_some_and(|other| source.rate > other.rate * FASTER)
        };
        let is_use = |index: &&u32| self.copies[**index as usize] == 1 && source.has.contains(**index);
        let rate = |ask: &&Asked| self.sources.get(&ask.source).map_or(0.0, |source| source.rate);
        let mut slow: Vec<&Asked> = self.asks.values().filter(may_help).collect();
        slow.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
        // the last of an ask is the one that it would come to last
        slow.into_iter().find_map(|ask| ask.open.iter().rev().find(is_use)).map(|index| BTreeSet::from([*index]))
    }
}

/// Segments that may be under way from a source of this rate.
fn window(rate: f64) -> u32 {
    if rate <= 0.0 {
        return UNKNOWN;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a small range")]
    let segments = (rate * AHEAD.as_secs_f64() / f64::from(limits::SEGMENT)).ceil().clamp(2.0, f64::from(UNDER_WAY)) as u32;
    segments
}
