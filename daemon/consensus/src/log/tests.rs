//! The log on a disk that forgets, fails and fills up.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{
    EntryPayload, RaftLogReader as _, StorageError,
    storage::{IOFlushed, RaftLogStorage as _},
    testing::log::{StoreBuilder, Suite},
    type_config::{TypeConfigExt as _, alias::OneshotReceiverOf},
};
use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use super::{Content, Sound, Store, recover::Segment};
use crate::{
    DirDisk, Disk, Lanes, StartError,
    engine::{Data, Entry, LogId, Rt, Types, Vote, log_id},
    health::{Fatal, Vitals},
    machine::Machine,
    testing::disk::SimDisk,
};

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(Rt::scope(1, test))
}

fn entry(term: u64, index: u64, size: usize) -> Entry {
    let payload = EntryPayload::Normal(Data::of(Bytes::from(vec![index as u8; size])));
    Entry { log_id: log_id(term, index), payload }
}

fn open_with(disk: &SimDisk, segment: usize) -> Result<(Store, Arc<Vitals>), StartError> {
    let vitals = Arc::new(Vitals::new());
    let sound = Sound::check(disk.mount())?;
    Ok((sound.open(segment, &Lanes::Tasks, vitals.clone())?, vitals))
}

fn open(disk: &SimDisk) -> (Store, Arc<Vitals>) {
    open_with(disk, 8 << 10).unwrap()
}

type Flushed = OneshotReceiverOf<Types, std::io::Result<()>>;

async fn append(store: &mut Store, entries: Vec<Entry>) -> Flushed {
    let (tx, rx) = Types::oneshot();
    store.append(entries, IOFlushed::signal(tx)).await.unwrap();
    rx
}

/// What a log says, in a form that can be compared; the committed hint apart.
fn said(content: &Content) -> (Option<Vote>, Option<LogId>, Option<LogId>, Vec<String>) {
    let entries = content.range(0..u64::MAX).map(|e| format!("{e:?}")).collect();
    (content.vote, content.purged, content.last(), entries)
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Append { count: usize, size: usize },
    NewTerm,
    Truncate { back: u64 },
    Purge { part: u64 },
    Commit { back: u64 },
    Wait { ms: u64 },
    PowerCut,
    Kill,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1usize..4, prop_oneof![0usize..40, 400usize..3_000]).prop_map(|(count, size)| Op::Append { count, size }),
        2 => Just(Op::NewTerm),
        1 => (0u64..5).prop_map(|back| Op::Truncate { back }),
        1 => (0u64..4).prop_map(|part| Op::Purge { part }),
        1 => (0u64..3).prop_map(|back| Op::Commit { back }),
        5 => (0u64..12).prop_map(|ms| Op::Wait { ms }),
        1 => Just(Op::PowerCut),
        1 => Just(Op::Kill),
        1 => Just(Op::Close),
    ]
}

/// A log and what it must come back as: the state after the last change that was acknowledged, or after any later one.
struct Model {
    disk: SimDisk,
    store: Store,
    term: u64,
    /// States since the last restart, one after each change.
    states: Vec<Content>,
    /// Who waits for a change to be durable, and the state it makes.
    waiting: Vec<(usize, Flushed)>,
    acknowledged: usize,
    /// The committed hint as this life of the log knows it.
    hint: Option<LogId>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        disk.set_faults(|f| f.sync = (Duration::ZERO, Duration::from_millis(6)));
        let store = open(&disk).0;
        Self { disk, store, term: 1, states: vec![Content::default()], waiting: Vec::new(), acknowledged: 0, hint: None }
    }

    fn now(&self) -> Content {
        self.states.last().unwrap().clone()
    }

    fn collect(&mut self) {
        self.waiting.retain_mut(|(state, flushed)| match flushed.try_recv() {
            Ok(result) => {
                result.unwrap();
                self.acknowledged = self.acknowledged.max(*state);
                false
            }
            Err(_) => true,
        });
    }

    async fn step(&mut self, op: Op) {
        let mut content = self.now();
        match op {
            Op::Append { count, size } => {
                let entries: Vec<Entry> = (0..count as u64).map(|i| entry(self.term, content.next() + i, size)).collect();
                entries.iter().for_each(|e| assert!(content.push(e.clone())));
                let flushed = append(&mut self.store, entries).await;
                self.states.push(content);
                self.waiting.push((self.states.len() - 1, flushed));
            }
            Op::NewTerm => {
                self.term += 1;
                let vote = Vote::new(self.term, 1);
                content.vote = Some(vote);
                self.states.push(content);
                self.store.save_vote(&vote).await.unwrap();
                self.acknowledged = self.states.len() - 1;
            }
            Op::Truncate { back } => {
                let floor = content.committed.or(content.purged).map_or(0, |id| id.index + 1);
                let keep = content.next().saturating_sub(back).max(floor);
                let last = content.range(0..keep).last().map(|e| e.log_id).or(content.purged);
                content.truncate(last);
                self.store.truncate_after(last).await.unwrap();
                self.states.push(content);
            }
            Op::Purge { part } => {
                let upto = content.committed.and_then(|c| {
                    let first = content.purged.map_or(0, |p| p.index + 1);
                    content.range(first..c.index + 1).nth((c.index + 1 - first) as usize * part as usize / 4).map(|e| e.log_id)
                });
                if let Some(upto) = upto {
                    content.purge(upto);
                    self.store.purge(upto).await.unwrap();
                    self.states.push(content);
                }
            }
            Op::Commit { back } => {
                let id = content.range(0..content.next().saturating_sub(back)).last().map(|e| e.log_id);
                if let Some(id) = id.filter(|id| Some(*id) > content.committed) {
                    // a part of the log's promise is that what is committed is durable somewhere; here it is here
                    self.flush().await;
                    content.committed = Some(id);
                    self.hint = Some(id);
                    self.store.save_committed(Some(id)).await.unwrap();
                    *self.states.last_mut().unwrap() = content;
                }
            }
            Op::Wait { ms } => sleep(Duration::from_millis(ms)).await,
            Op::PowerCut => {
                self.collect();
                self.disk.cut_power();
                self.restart();
            }
            Op::Kill => {
                self.collect();
                self.disk.kill();
                self.restart();
            }
            Op::Close => {
                self.store.close().await;
                self.acknowledged = self.states.len() - 1;
                self.disk.kill();
                let hint = self.hint;
                self.restart();
                assert_eq!(self.hint, hint, "an orderly end keeps the hint");
            }
        }
        self.collect();
        assert_eq!(self.store.with(said), said(&self.now()), "readable at once");
    }

    async fn flush(&mut self) {
        for (state, flushed) in self.waiting.drain(..) {
            flushed.await.unwrap().unwrap();
            self.acknowledged = self.acknowledged.max(state);
        }
    }

    fn restart(&mut self) {
        let allowed = self.states.split_off(self.acknowledged);
        self.waiting.clear();
        self.store = open(&self.disk).0;
        let found = self.store.with(said);
        let at = allowed.iter().rposition(|state| said(state) == found);
        let at = at.unwrap_or_else(|| panic!("found {found:?}\nallowed {:#?}", allowed.iter().map(said).collect::<Vec<_>>()));
        let mut state = allowed[at].clone();
        let hint = self.store.with(|c| c.committed);
        assert!(hint <= state.committed, "a hint from the future: {hint:?} of {:?}", state.committed);
        // what is committed stays known to the model, as a leader would tell it again
        state.committed = state.committed.max(hint);
        (self.states, self.acknowledged, self.hint) = (vec![state], 0, hint);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_log_comes_back_as_it_was_acknowledged_or_later(seed: u64, ops in proptest::collection::vec(op(), 1..120)) {
        run(async {
            let mut model = Model::new(seed);
            for op in ops {
                model.step(op).await;
            }
            model.step(Op::PowerCut).await;
        });
    }
}

/// A log of several segments with votes, a truncation and a purge, closed in order.
async fn long_log() -> (SimDisk, Content) {
    let disk = SimDisk::new(5);
    let (mut store, _) = open(&disk);
    for i in 0..60 {
        append(&mut store, vec![entry(1, i, 700)]).await.await.unwrap().unwrap();
    }
    store.save_vote(&Vote::new(2, 3)).await.unwrap();
    store.truncate_after(Some(log_id(1, 50))).await.unwrap();
    for i in 51..70 {
        append(&mut store, vec![entry(2, i, 700)]).await.await.unwrap().unwrap();
    }
    store.save_committed(Some(log_id(2, 60))).await.unwrap();
    store.purge(log_id(1, 25)).await.unwrap();
    append(&mut store, vec![entry(2, 70, 10)]).await.await.unwrap().unwrap();
    store.close().await;
    let content = store.with(Clone::clone);
    (disk, content)
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.names().into_iter().filter(|n| n.ends_with(".log")).collect()
}

#[test]
fn purging_removes_whole_segments_and_only_those() {
    run(async {
        let (disk, content) = long_log().await;
        let names = segments(&disk);
        assert!(!names.contains(&Segment::name(0)) && names.len() > 4, "{names:?}");
        let back = Sound::check(disk.mount()).unwrap();
        assert_eq!(said(back.content()), said(&content));
        assert_eq!(back.content().committed, Some(log_id(2, 60)));
    });
}

#[test]
fn no_flipped_bit_goes_unseen_and_nothing_is_written_then() {
    run(async {
        let (disk, content) = long_log().await;
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let names = segments(&disk);
        for round in 0..1_500 {
            let copy = disk.copy(round);
            let name = &names[rng.random_range(0..names.len())];
            let bit = rng.random_range(0..copy.read(name).unwrap().len() * 8);
            copy.damage(name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let before: Vec<_> = copy.names().iter().map(|n| copy.read(n)).collect();
            let found = open_with(&copy, 8 << 10);
            assert!(matches!(found, Err(StartError::Damaged { .. })), "bit {bit} of {name}");
            let after: Vec<_> = copy.names().iter().map(|n| copy.read(n)).collect();
            assert_eq!(before, after);
        }
        assert_eq!(said(Sound::check(disk.mount()).unwrap().content()), said(&content));
    });
}

#[test]
fn a_missing_segment_is_damage() {
    run(async {
        let (disk, _) = long_log().await;
        let names = segments(&disk);
        for name in &names[..names.len() - 1] {
            let copy = disk.copy(1);
            copy.mount().remove(name).unwrap();
            assert!(matches!(open_with(&copy, 8 << 10), Err(StartError::Damaged { .. })), "{name}");
        }
        let copy = disk.copy(1);
        copy.damage(&names[1], |bytes| bytes.fill(0));
        assert!(matches!(open_with(&copy, 8 << 10), Err(StartError::Damaged { .. })));
    });
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    run(async {
        let disk = SimDisk::new(1);
        let (mut store, _) = open(&disk);
        append(&mut store, vec![entry(1, 0, 30_000)]).await.await.unwrap().unwrap();
        append(&mut store, vec![entry(1, 1, 10), entry(1, 2, 20_000)]).await.await.unwrap().unwrap();
        disk.cut_power();
        assert_eq!(open(&disk).0.with(said), store.with(said));
    });
}

#[test]
fn what_waits_shares_a_sync() {
    run(async {
        let disk = SimDisk::new(1);
        let (mut store, _) = open_with(&disk, 1 << 20).unwrap();
        sleep(Duration::from_secs(1)).await;
        disk.set_faults(|f| f.sync = (Duration::from_millis(10), Duration::from_millis(10)));
        let before = disk.syncs();
        let mut flushed = Vec::new();
        for i in 0..100 {
            flushed.push(append(&mut store, vec![entry(1, i, 50)]).await);
            tokio::task::yield_now().await;
        }
        for f in flushed {
            f.await.unwrap().unwrap();
        }
        let syncs = disk.syncs() - before;
        assert!((2..=3).contains(&syncs), "{syncs} syncs for 100 appends");
    });
}

#[test]
fn a_full_disk_acknowledges_nothing_until_there_is_room() {
    run(async {
        let disk = SimDisk::new(1);
        let (mut store, vitals) = open(&disk);
        sleep(Duration::from_secs(1)).await;
        disk.set_faults(|f| f.is_full = true);
        let mut flushed = Vec::new();
        for i in 0..40 {
            flushed.push(append(&mut store, vec![entry(1, i, 700)]).await);
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_secs(30)).await;
        let health = vitals.health();
        assert!(health.disk_full && health.fatal.is_none() && health.stalled.is_none(), "{health:?}");
        let done = flushed.iter_mut().filter_map(|f| f.try_recv().ok()).count();
        assert!((5..35).contains(&done), "the segment and the one ahead have room, then it ends: {done}");
        assert_eq!(store.try_get_log_entries(0..40).await.unwrap().len(), 40, "readable all the same");
        disk.set_faults(|f| f.is_full = false);
        flushed.pop().unwrap().await.unwrap().unwrap();
        assert!(!vitals.health().disk_full);
        disk.cut_power();
        assert_eq!(open(&disk).0.with(said), store.with(said));
    });
}

#[test]
fn after_a_failed_sync_nothing_is_ever_durable_again() {
    run(async {
        let disk = SimDisk::new(1);
        let (mut store, vitals) = open(&disk);
        append(&mut store, vec![entry(1, 0, 10)]).await.await.unwrap().unwrap();
        disk.set_faults(|f| f.sync_fails = true);
        assert!(append(&mut store, vec![entry(1, 1, 10)]).await.await.unwrap().is_err());
        disk.set_faults(|f| f.sync_fails = false);
        assert!(append(&mut store, vec![entry(1, 2, 10)]).await.await.unwrap().is_err(), "the disk says yes again, the log does not");
        assert!(store.save_vote(&Vote::new(9, 9)).await.is_err());
        assert!(matches!(vitals.health().fatal, Some(Fatal::Disk(_))));
        store.close().await;
    });
}

#[test]
fn a_segment_that_cannot_be_made_ends_it_before_it_is_wanted() {
    run(async {
        let disk = SimDisk::new(1);
        let (_store, vitals) = open(&disk);
        disk.set_faults(|f| f.sync_fails = true);
        sleep(Duration::from_secs(1)).await;
        assert!(matches!(vitals.health().fatal, Some(Fatal::Disk(_))));
    });
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_written_again_before_it_counts() {
    for seed in 0..16 {
        run(async {
            let disk = SimDisk::new(seed);
            let (mut store, _) = open(&disk);
            append(&mut store, vec![entry(1, 0, 10)]).await.await.unwrap().unwrap();
            disk.set_faults(|f| f.sync_fails = true);
            assert!(append(&mut store, vec![entry(1, 1, 3_000)]).await.await.unwrap().is_err());
            disk.set_faults(|f| f.sync_fails = false);
            disk.kill();
            // the next life reads it, counts on it, and goes on behind it
            let (mut store, _) = open(&disk);
            assert_eq!(store.try_get_log_entries(0..9).await.unwrap().len(), 2);
            append(&mut store, vec![entry(1, 2, 10)]).await.await.unwrap().unwrap();
            let known = store.with(said);
            disk.cut_power();
            assert_eq!(open(&disk).0.with(said), known, "seed {seed}");
        });
    }
}

#[test]
fn frames_hold_one_entry_or_a_frame_full() {
    run(async {
        let (mut store, _) = open_with(&SimDisk::new(1), 4 << 20).unwrap();
        let entries = [1 << 20, 400 << 10, 400 << 10, 400 << 10, 10].into_iter().enumerate();
        let entries = entries.map(|(i, size)| entry(1, i as u64, size)).collect();
        append(&mut store, entries).await.await.unwrap().unwrap();
        let mut count = async |start| store.limited_get_log_entries(start, 5).await.unwrap().len();
        assert_eq!([count(0).await, count(1).await, count(3).await, count(4).await], [1, 2, 2, 1]);
    });
}

struct Builder<F>(F);

impl<F, G> StoreBuilder<Types, Store, Machine, G> for Builder<F>
where
    F: Fn() -> (G, Arc<dyn Disk>, Lanes) + Send + Sync,
    G: Send + Sync,
{
    async fn build(&self) -> Result<(G, Store, Machine), StorageError<Types>> {
        let (guard, disk, lanes) = self.0();
        let vitals = Arc::new(Vitals::new());
        let store = Sound::check(disk.clone()).unwrap().open(64 << 10, &lanes, vitals.clone()).unwrap();
        Ok((guard, store, Machine::open(disk, lanes, vitals).unwrap()))
    }
}

#[test]
fn the_engines_own_suite_passes_on_a_simulated_disk() {
    run(Suite::test_all(Builder(|| {
        let disk = SimDisk::new(1);
        disk.set_faults(|f| f.sync = (Duration::from_millis(1), Duration::from_millis(5)));
        let disk: Arc<dyn Disk> = disk.mount();
        ((), disk, Lanes::Tasks)
    })))
    .unwrap();
}

#[test]
fn the_engines_own_suite_passes_on_a_directory() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let suite = Suite::test_all(Builder(|| {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir.path()).unwrap());
        (dir, disk, Lanes::threads())
    }));
    runtime.block_on(Rt::scope(1, suite)).unwrap();
}
