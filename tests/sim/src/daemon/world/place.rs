//! A simulated host from outside: its disks, its keeper, its clock, its papers, and what was done to it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use swarm_blobstore::{KeyAt, Store, StoreError};
use swarm_consensus::Role;
use swarm_executors::{Events, Recovered};
use swarm_proto::{Cursor, LogIndex, NodeId, UnixMillis, api::Status};
use swarm_transport::{Identity, Validity};
use swarmd::node::Gateway;
use tokio::{runtime::Handle, sync::watch};

use super::{super::keeper::Keeper, Inner, World, mix};
use crate::{
    daemon::CLUSTER,
    disk::{Blow, Fuse, SimDisk},
    net,
};

/// One host.
pub(super) struct Place {
    pub(super) log: SimDisk,
    records: SimDisk,
    fuse: Fuse,
    /// Whether the power goes with the process when the fuse blows.
    is_power_fused: bool,
    pub(super) keeper: Keeper,
    life: u64,
    /// Whose key it has: its own number, but for a host that is a second one of another.
    pub(super) key: u64,
    identity: Arc<Identity>,
    /// Milliseconds that its wall clock is ahead of everybody's time.
    ahead: Arc<AtomicI64>,
    /// Whether it may still found the swarm.
    is_founder: bool,
    pub(super) id: Option<NodeId>,
    /// Every id that it had: a wiped host comes back as somebody new.
    pub(super) ids: BTreeSet<NodeId>,
    /// The id that went with its disks, while nobody has come back.
    pub(super) is_wiped: bool,
    /// How many times its disks gave way to empty ones, or to older copies of themselves.
    disks: u64,
    /// A copy of its disks and papers.
    copy: Option<(SimDisk, SimDisk, Arc<Identity>)>,
    /// The way in, and the runtime that all behind it runs in.
    pub(super) door: Option<(Gateway, Handle)>,
    stop: watch::Sender<bool>,
    /// The event that this life was asked for last.
    pub(super) cursor: Cursor,
    pub(super) look: Option<Look>,
    /// What its daemon said of itself last, in this life.
    pub(super) status: Option<Status>,
    /// Closed out by an operator.
    pub(super) is_out: bool,
    /// That, or about to be.
    is_closing: bool,
    /// Its daemon has begun and nobody has asked it to stop.
    pub(super) is_up: bool,
    /// What is sent to and from it waits.
    pub(super) is_held: bool,
    /// Its disk is full, fails or hardly answers, until it is calmed.
    is_disk_bad: bool,
    /// Until when a write of it may take that began while it hardly answered.
    pub(super) writes_until: Option<Duration>,
    /// Stands by to be the second one of another host.
    pub(super) is_spare: bool,
    /// What the disks that it was made a second one with had applied.
    pub(super) copied: Option<LogIndex>,
    /// Operations of its log's disk that had failed when this life was looked at last, and since when it goes on all the same.
    failed: u64,
    failing: Option<Duration>,
}

/// A node as it was seen last in its present life.
pub(super) struct Look {
    pub(super) role: Role,
    pub(super) applied: LogIndex,
    pub(super) hash: u64,
    /// Acknowledged jobs that it does not have, or that are open.
    pub(super) missing: usize,
    pub(super) open: usize,
    /// Who belongs to the swarm, by its ledger.
    pub(super) members: BTreeSet<NodeId>,
}

/// What a life of a daemon begins with.
pub(crate) struct Life {
    pub(crate) number: u64,
    pub(crate) log: SimDisk,
    pub(crate) records: SimDisk,
    pub(crate) identity: Arc<Identity>,
    pub(crate) is_founder: bool,
    pub(crate) stop: watch::Receiver<bool>,
}

/// A sync of an ordinary disk, a slow one and one that hardly answers.
pub(crate) const CALM: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(4));
pub(crate) const SLOW: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(300));
pub(crate) const STALLED: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(8));

/// How far the clock of each host is ahead of the one before, in milliseconds.
const SKEW: i64 = 1_700;
/// A daemon whose log cannot be made durable ends within this.
const ENDS: Duration = Duration::from_secs(2);

impl Place {
    pub(super) fn new(seed: u64, host: u64, is_spare: bool, papers: u64) -> Self {
        let place = Self {
            log: SimDisk::new(mix(&[seed, host, 1])),
            records: SimDisk::new(mix(&[seed, host, 2])),
            fuse: Fuse::default(),
            is_power_fused: false,
            keeper: Keeper::new(seed),
            life: 0,
            key: host,
            identity: net::identity_for(seed, CLUSTER, host, validity(papers, 0)),
            ahead: Arc::new(AtomicI64::new(skew(host))),
            is_founder: host == 1,
            id: None,
            ids: BTreeSet::new(),
            is_wiped: false,
            disks: 0,
            copy: None,
            door: None,
            stop: watch::channel(false).0,
            cursor: Cursor::default(),
            look: None,
            status: None,
            is_out: false,
            is_closing: false,
            is_up: false,
            is_held: false,
            is_disk_bad: false,
            writes_until: None,
            is_spare,
            copied: None,
            failed: 0,
            failing: None,
        };
        place.log.set_fuse(&place.fuse);
        place.records.set_fuse(&place.fuse);
        place.pace(CALM);
        place
    }

    /// Whether its process has died in the midst of an operation of its disks.
    pub(super) fn is_blown(&self) -> bool {
        self.fuse.is_blown()
    }

    /// Whether what it writes gets onto its disk, and soon.
    pub(super) fn has_good_disk(&self) -> bool {
        !self.is_disk_bad && !self.is_blown() && self.log.failed() == self.failed
    }

    /// Whether its wall clock is what it was in the beginning.
    pub(super) fn is_on_time(&self, host: u64) -> bool {
        self.ahead.load(Ordering::Relaxed) == skew(host)
    }

    /// Since when it goes on although its log's disk failed, once that is longer than it may. Says so once.
    pub(super) fn overdue(&mut self, now: Duration) -> Option<Duration> {
        if self.log.failed() == self.failed {
            return None;
        }
        let since = *self.failing.get_or_insert(now);
        (now > since + ENDS).then(|| {
            self.failed = self.log.failed();
            since
        })
    }

    fn pace(&self, sync: (Duration, Duration)) {
        self.log.set_faults(|faults| faults.sync = sync);
        self.records.set_faults(|faults| faults.sync = sync);
    }
}

fn skew(host: u64) -> i64 {
    i64::try_from(host).unwrap_or_default() * SKEW
}

/// Of papers that are made now.
fn validity(papers: u64, now_ms: u64) -> Validity {
    match papers {
        0 => Validity::CENTURY,
        seconds => Validity::of(UnixMillis(net::epoch().0 + now_ms), Duration::from_secs(seconds)),
    }
}

impl World {
    /// The blobs of a host, as its last life left them.
    pub(crate) fn blobs(&self, host: u64) -> Result<Store, StoreError> {
        const QUOTA: u64 = 64 << 20;
        let dir = self.lock().blobs.path().join(format!("h{host}"));
        let key = KeyAt::Own(dir.join("blobs.key"));
        Store::open(dir, QUOTA, key)
    }

    /// What the life that begins has; `None`: this host stands by.
    pub(crate) fn begin_life(&self, host: u64) -> Option<Life> {
        let mut inner = self.lock();
        let this = inner.host(host);
        if this.is_spare && this.copied.is_none() {
            return None;
        }
        this.life += 1;
        this.is_up = true;
        this.stop.send_replace(false);
        (this.failed, this.failing) = (this.log.failed(), None);
        Some(Life {
            number: this.life,
            log: this.log.clone(),
            records: this.records.clone(),
            identity: this.identity.clone(),
            is_founder: this.is_founder,
            stop: this.stop.subscribe(),
        })
    }

    pub(crate) fn power_on(&self, host: u64) -> Duration {
        self.lock().host(host).keeper.power_on
    }

    // ---- its daemon

    pub(crate) fn set_gateway(&self, host: u64, gateway: Gateway) {
        self.lock().host(host).door = Some((gateway, Handle::current()));
    }

    pub(crate) fn gateway(&self, host: u64) -> Option<Gateway> {
        self.door(host).map(|(gateway, _)| gateway)
    }

    /// The way in; none where there is no daemon, or one that is closed out.
    pub(crate) fn door(&self, host: u64) -> Option<(Gateway, Handle)> {
        let mut inner = self.lock();
        let this = inner.host(host);
        this.door.clone().filter(|_| !this.is_out)
    }

    /// Which of its disks a host has: what was put on the ones before may be gone.
    pub(crate) fn disks(&self, host: u64) -> u64 {
        self.lock().host(host).disks
    }

    pub(crate) fn is_out(&self, host: u64) -> bool {
        self.lock().host(host).is_out
    }

    pub(crate) fn ask_to_stop(&self, host: u64) {
        let mut inner = self.lock();
        let this = inner.host(host);
        this.is_up = false;
        this.stop.send_replace(true);
    }

    /// Its daemon is about to go: nobody outside may hold a part of it.
    pub(crate) fn leave(&self, host: u64) {
        let mut inner = self.lock();
        let this = inner.host(host);
        this.is_up = false;
        let door = this.door.take();
        drop(inner);
        drop(door);
    }

    /// Lets go of what holds this in turn. After that nothing does but whoever asks, or something of a daemon has outlived its host.
    pub(crate) fn release(&self) {
        let mut inner = self.lock();
        inner.hosts.iter_mut().for_each(|place| place.keeper.hang_up());
        let doors: Vec<_> = inner.hosts.iter_mut().filter_map(|place| place.door.take()).collect();
        drop(inner);
        drop(doors);
        if Arc::strong_count(&self.0) > 1 {
            self.violate(format_args!("{} parts of daemons outlive their hosts", Arc::strong_count(&self.0) - 1));
        }
    }

    /// Its daemon is gone.
    pub(crate) fn went(&self, host: u64, has_power: bool, now: Duration) {
        let mut inner = self.lock();
        let this = inner.host(host);
        (this.cursor, this.look, this.status, this.failing) = (Cursor::default(), None, None, None);
        this.is_up = false;
        this.fuse.renew();
        if has_power {
            this.log.kill();
            this.records.kill();
            this.keeper.daemon_is_gone(now);
        } else {
            this.log.cut_power();
            this.records.cut_power();
            this.keeper.cut_power(now);
        }
        inner.hear(host);
    }

    /// A daemon took its id: the same in every life, unless its disks were lost.
    pub(crate) fn is(&self, host: u64, id: NodeId) {
        let mut inner = self.lock();
        let is_somebodys = inner.hosts.iter().any(|place| place.ids.contains(&id));
        let this = inner.host(host);
        let before = this.id.replace(id);
        let is_wiped = std::mem::take(&mut this.is_wiped);
        let is_first = this.ids.insert(id);
        let is_right = match before {
            // an id is never given again; of two that were wiped either may hear of its own first
            Some(before) if is_wiped => id != before && !is_somebodys,
            Some(before) => before == id,
            None => is_first,
        };
        if !is_right && !this.is_spare {
            inner.violate(&format_args!("the node on h{host} was {before:?} and is {id}"));
        }
    }

    pub(crate) fn says(&self, host: u64, status: Status) {
        self.lock().host(host).status = Some(status);
    }

    /// The swarm stands on a ledger: this host must never begin another one.
    pub(crate) fn stands(&self, host: u64) {
        self.lock().host(host).is_founder = false;
    }

    pub(crate) fn keep_identity(&self, host: u64, identity: &Identity) {
        self.lock().host(host).identity = Arc::new(identity.clone());
    }

    // ---- its clock

    /// What its wall clock is ahead by.
    pub(crate) fn clock(&self, host: u64) -> Arc<AtomicI64> {
        self.lock().host(host).ahead.clone()
    }

    pub(crate) fn set_clock(&self, host: u64, by_seconds: i64) {
        self.lock().host(host).ahead.fetch_add(by_seconds.saturating_mul(1_000), Ordering::Relaxed);
    }

    /// Where certificates end soon, a clock that is wrong for ever shuts its host out for ever: they are set right.
    pub(crate) fn mend_clocks(&self) {
        let inner = self.lock();
        if inner.papers > 0 {
            (1..).zip(&inner.hosts).for_each(|(host, place)| place.ahead.store(skew(host), Ordering::Relaxed));
        }
    }

    // ---- its disks

    pub(crate) fn pace_disk(&self, host: u64, sync: (Duration, Duration)) {
        let mut inner = self.lock();
        let this = inner.host(host);
        if sync == STALLED {
            this.is_disk_bad = true;
            this.writes_until = Some(Duration::MAX);
        }
        this.pace(sync);
    }

    pub(crate) fn fill_disk(&self, host: u64) {
        let mut inner = self.lock();
        let this = inner.host(host);
        this.is_disk_bad = true;
        this.log.set_faults(|faults| faults.is_full = true);
        this.records.set_faults(|faults| faults.is_full = true);
    }

    pub(crate) fn break_disk(&self, host: u64, syncs: bool) {
        let mut inner = self.lock();
        let this = inner.host(host);
        this.is_disk_bad = true;
        this.log.set_faults(|faults| if syncs { faults.sync_fails = true } else { faults.write_fails = true });
    }

    pub(crate) fn calm_disk(&self, host: u64, now: Duration) {
        let mut inner = self.lock();
        let this = inner.host(host);
        if this.writes_until == Some(Duration::MAX) {
            this.writes_until = Some(now + STALLED.1);
        }
        this.is_disk_bad = false;
        this.pace(CALM);
        for disk in [&this.log, &this.records] {
            disk.set_faults(|faults| (faults.is_full, faults.sync_fails, faults.write_fails) = (false, false, false));
        }
        if !this.fuse.is_blown() {
            this.fuse.renew();
        }
    }

    pub(crate) fn set_fuse(&self, host: u64, more: u64, blow: Blow, has_power: bool) {
        let mut inner = self.lock();
        let this = inner.host(host);
        this.is_power_fused = !has_power;
        this.fuse.set(more, blow);
    }

    /// Whether its process has died in the midst of an operation of its disks, and if so whether the host has power.
    pub(crate) fn blown(&self, host: u64) -> Option<bool> {
        let mut inner = self.lock();
        let this = inner.host(host);
        this.fuse.is_blown().then_some(!this.is_power_fused)
    }

    /// Whether something is wrong with its disks that a daemon may end of.
    pub(crate) fn has_bad_disk(&self, host: u64) -> bool {
        let mut inner = self.lock();
        let this = inner.host(host);
        this.fuse.is_blown() || this.log.failed() > this.failed
    }

    /// A daemon whose log failed ends, and soon.
    pub(crate) fn check_failing(&self, now: Duration) {
        let mut inner = self.lock();
        for host in 1..=inner.hosts.len() as u64 {
            let this = inner.host(host);
            if this.door.is_none() {
                continue;
            }
            if let Some(since) = this.overdue(now) {
                inner.violate(&format_args!("h{host} goes on although its log's disk failed at {since:?}"));
            }
        }
    }

    // ---- what is done to it

    /// A host may lose its disks while no other one has, or is closed out, whose place nobody has taken yet: more is not promised.
    pub(crate) fn may_lose(&self, host: u64) -> bool {
        let inner = self.lock();
        let voters = &inner.voters.1;
        let is_lost = inner.lost.iter().any(|id| voters.contains(id));
        let is_closed = inner.hosts.iter().any(|place| place.is_closing && place.ids.iter().any(|id| voters.contains(id)));
        let is_owed = is_lost || is_closed;
        let place = inner.place(host);
        voters.len() >= 3 && !is_owed && !place.is_out && !place.is_wiped && place.id.is_some()
    }

    /// All that was on its disks is gone; the host gets papers anew, and a key that it had.
    pub(crate) fn wipe(&self, host: u64, now: Duration) {
        let mut inner = self.lock();
        let (seed, papers) = (inner.seed, inner.papers);
        let this = inner.host(host);
        this.log.replace_with(&SimDisk::new(0));
        this.records.replace_with(&SimDisk::new(0));
        let now = u64::try_from(now.as_millis()).unwrap_or_default();
        this.identity = net::identity_for(seed, CLUSTER, this.key, validity(papers, now));
        (this.is_wiped, this.is_founder) = (true, false);
        this.disks += 1;
        let id = this.id;
        inner.lost.extend(id);
    }

    pub(crate) fn copy_disks(&self, host: u64) {
        let mut inner = self.lock();
        let seed = mix(&[inner.seed, host, 3]);
        let this = inner.host(host);
        this.copy = this.id.map(|_| (this.log.copy(seed), this.records.copy(seed), this.identity.clone()));
    }

    /// Puts the copy back, if there is one.
    pub(crate) fn restore(&self, host: u64) {
        let mut inner = self.lock();
        let this = inner.host(host);
        if let Some((log, records, identity)) = &this.copy {
            this.log.replace_with(log);
            this.records.replace_with(records);
            this.identity = identity.clone();
            this.disks += 1;
        }
    }

    /// The spare host becomes a second one of this one. Whether it can.
    pub(crate) fn make_second(&self, host: u64) -> bool {
        let mut inner = self.lock();
        let seed = mix(&[inner.seed, host, 4]);
        let this = inner.host(host);
        let (log, records, identity) = (this.log.copy(seed), this.records.copy(seed), this.identity.clone());
        let (id, copied) = (this.id, this.look.as_ref().map(|look| look.applied));
        let Some(spare) = inner.hosts.last_mut().filter(|_| id.is_some() && copied.is_some()) else { return false };
        spare.log.replace_with(&log);
        spare.records.replace_with(&records);
        // what is in the log and not applied yet, it applies when it starts
        (spare.identity, spare.key, spare.copied) = (identity, host, copied.map(|copied| LogIndex(copied.0 + AHEAD)));
        true
    }

    pub(crate) fn unmake_second(&self) {
        let mut inner = self.lock();
        if let Some(spare) = inner.hosts.last_mut() {
            spare.copied = None;
        }
    }

    /// Whether this host votes, as far as anybody has seen.
    pub(crate) fn is_voter(&self, host: u64) -> bool {
        let inner = self.lock();
        inner.place(host).id.is_some_and(|id| inner.voters.1.contains(&id))
    }

    /// The id by which an operator names it, if it may be closed out: the others are three at least, none is closed out yet, and none has
    /// lost its disks whose place nobody has taken.
    pub(crate) fn to_revoke(&self, host: u64) -> Option<NodeId> {
        let mut inner = self.lock();
        let is_owed = inner.lost.iter().any(|id| inner.voters.1.contains(id));
        let is_enough = inner.hosts.iter().filter(|place| !place.is_spare).count() > 3;
        let is_first = !inner.hosts.iter().any(|place| place.is_out);
        let id = inner.place(host).id.filter(|_| is_enough && is_first && !is_owed);
        inner.host(host).is_closing = id.is_some();
        id
    }

    /// It is not closed out after all.
    pub(crate) fn is_kept(&self, host: u64) {
        self.lock().host(host).is_closing = false;
    }

    // ---- its keeper

    pub(crate) fn with_keeper(&self, host: u64, act: impl FnOnce(&mut Keeper, Duration)) {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        let mut inner = self.lock();
        act(&mut inner.host(host).keeper, now);
        inner.hear(host);
    }

    pub(crate) fn greet_keeper(&self, host: u64, events: Events) -> Vec<Recovered> {
        self.lock().host(host).keeper.greet(events)
    }

    pub(crate) fn advance_keepers(&self, now: Duration) {
        let mut inner = self.lock();
        for host in 1..=inner.hosts.len() as u64 {
            inner.host(host).keeper.advance(now);
            inner.hear(host);
        }
    }

    /// Writes, syncs and changes of names on its disks so far.
    pub(crate) fn operations(&self, host: u64) -> u64 {
        self.lock().host(host).fuse.operations()
    }
}

/// Entries that a copy may hold beyond what was applied when it was made.
const AHEAD: u64 = 64;

impl Inner {
    pub(super) fn place(&self, host: u64) -> &Place {
        &self.hosts[usize::try_from(host).unwrap_or_default() - 1]
    }
}
