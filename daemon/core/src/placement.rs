//! Which node next, and a reason for every node passed over. Pure: what a node offers and holds comes in, numbers come out.
//!
//! A node is a place for a task when membership calls it alive, its worker is connected, it is open for work, its config enables the
//! executor, its labels match, and its capacity is enough. Then two things bound how many tasks it may be given now:
//! - **resources**: capacity minus the requests of what it holds and does not merely keep waiting;
//! - **window**: the attempts that its worker holds at once, running and waiting.
//!
//! **Spread.** Work goes where the largest fraction is free, counted in tasks of the kind at hand, until all fractions are equal
//! (water filling); what cannot be divided goes round. So tasks that need nothing spread by window, and an array is cut into one range
//! a node, in proportion. **Ahead of time.** A node may also be given tasks that wait for its resources, but only once no node that
//! could run them now is left: work that waits at a busy node while another is idle is what users of such systems curse most.
//!
//! **Near.** Where a task needs much data, nodes that have it come before those to which it would have to be brought, as long as they
//! can run it now.
//!
//! A node of which membership has heard nothing yet counts as alive when its worker is connected: the stream is the better evidence,
//! and a node that just joined gets work at once.

use std::{cmp::Ordering, time::Duration};

use swarm_proto::{
    Digest, NodeId,
    api::{Health, Reason},
    ledger::Schedule,
    limits,
    peer::NodeMeta,
    spec::{JobSpec, Resources, Work},
};

/// Tasks longer than this are never given to a node that cannot start them now.
pub const SHORT: Duration = Duration::from_secs(1);
/// How much work, in time, a node is kept ahead: a few commits and round trips of a slow mesh. Longer would be hoarding.
pub const AHEAD: Duration = Duration::from_millis(50);

/// Bytes that are worth going where they are: what takes longer to bring than to start a task.
const HEAVY: u64 = 4 << 20;

/// A node at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    pub node: NodeId,
    pub health: Health,
    /// Whether its worker has a stream to the leader.
    pub is_connected: bool,
    pub schedule: Schedule,
    /// What it offers; `None` until its worker reported in this term.
    pub meta: Option<&'a NodeMeta>,
    /// Requests of the attempts that it runs.
    pub used: &'a Resources,
    /// Attempts that it holds, waiting ones included, and how many of them wait.
    pub held: u32,
    pub waiting: u32,
    /// Attempts that it will hold at once.
    pub window: u32,
}

/// How many tasks of one kind a node may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub node: NodeId,
    /// Now, to run.
    pub free: u32,
    /// If it held nothing; at least 1.
    pub total: u32,
    /// Now, beyond `free`, to wait there.
    pub ahead: u32,
    /// Whether it has what is heavy of the job's files.
    pub is_near: bool,
}

/// Files of a job that are worth a detour, by their manifests: those of which a task needs at least [`HEAVY`].
pub(crate) fn heavy(spec: &JobSpec) -> [Option<Digest>; 2] {
    let inputs = spec.inputs.filter(|tree| tree.bytes >= HEAVY);
    let each = spec.each.filter(|tree| tree.bytes / u64::from(tree.files.max(1)) >= HEAVY);
    [inputs, each].map(|tree| tree.map(|tree| tree.manifest))
}

/// A part of what was shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub node: NodeId,
    pub count: u32,
    /// Whether it exceeds what the node can run now.
    pub waits: bool,
}

/// The name of the executor that a job's tasks need.
pub const fn executor(work: &Work) -> &'static str {
    match work {
        Work::Noop => "noop",
        Work::Exec(_) => "exec",
    }
}

/// What a node offers that runs processes only for those who sign what they ask for.
pub const SIGNED_EXEC: &str = "exec:signed";

/// Whether one of these executors takes it.
pub(crate) fn has_executor(spec: &JobSpec, executors: &[String]) -> bool {
    let is_signed = spec.signed.is_some() && matches!(spec.work, Work::Exec(_));
    executors.iter().any(|name| name == executor(&spec.work) || (is_signed && name == SIGNED_EXEC))
}

fn is_alive(at: &Standing) -> bool {
    match at.health {
        Health::Alive => true,
        Health::Unknown => at.is_connected,
        Health::Suspect | Health::Down | Health::Left => false,
    }
}

/// Why a task of this job would not go to this node now, or [`Reason::Fits`]. What no time can change is named first.
pub fn reason(spec: &JobSpec, at: &Standing) -> Reason {
    if let Some(never) = at.meta.and_then(|meta| mismatch(spec, meta)) {
        return never;
    }
    if !is_alive(at) {
        return Reason::NotAlive(at.health);
    }
    let Some(meta) = at.meta.filter(|_| at.is_connected) else {
        return Reason::NotConnected;
    };
    match at.schedule {
        Schedule::Open => {}
        Schedule::Cordoned => return Reason::Cordoned,
        Schedule::Draining => return Reason::Draining,
    }
    for (resource, need, has, used) in amounts(&spec.needs, &meta.capacity, at.used) {
        let free = has.saturating_sub(used);
        if need > free {
            return Reason::Full { resource: resource.to_owned(), need, free };
        }
    }
    if at.held >= at.window { Reason::WindowFull { window: at.window } } else { Reason::Fits }
}

/// What keeps a node from ever running it as the node is now.
fn mismatch(spec: &JobSpec, meta: &NodeMeta) -> Option<Reason> {
    if !has_executor(spec, &meta.executors) {
        return Some(Reason::ExecutorOff { executor: executor(&spec.work).to_owned() });
    }
    if let Some((key, want)) = spec.labels.iter().find(|(key, want)| meta.labels.get(*key) != Some(*want)) {
        return Some(Reason::Label { key: key.clone(), want: want.clone(), has: meta.labels.get(key).cloned() });
    }
    amounts(&spec.needs, &meta.capacity, &Resources::default())
        .find(|(_, need, has, _)| need > has)
        .map(|(resource, need, has, _)| Reason::TooSmall { resource: resource.to_owned(), need, has })
}

/// What is asked for: name, need, capacity, used. Cores are in thousandths.
fn amounts<'a>(needs: &'a Resources, capacity: &'a Resources, used: &'a Resources) -> impl Iterator<Item = (&'a str, u64, u64, u64)> + 'a {
    let fixed = [
        ("milli_cores", needs.milli_cores, capacity.milli_cores, used.milli_cores),
        ("memory", needs.memory, capacity.memory, used.memory),
        ("disk", needs.disk, capacity.disk, used.disk),
        ("gpus", needs.gpus.into(), capacity.gpus.into(), used.gpus.into()),
    ];
    let of = |all: &Resources, name: &String| all.named.get(name).copied().unwrap_or(0);
    let named = needs.named.iter().map(move |(name, need)| (name.as_str(), *need, of(capacity, name), of(used, name)));
    fixed.into_iter().chain(named).filter(|(_, need, ..)| *need > 0)
}

/// How many times `needs` fits into what is left of `capacity`; `u32::MAX` when it asks for nothing.
pub fn multiples(needs: &Resources, capacity: &Resources, used: &Resources) -> u32 {
    let fewest = amounts(needs, capacity, used).map(|(_, need, has, used)| has.saturating_sub(used) / need).min();
    fewest.map_or(u32::MAX, |times| u32::try_from(times).unwrap_or(u32::MAX))
}

/// Adds `times` the request to what is used.
pub fn occupy(used: &mut Resources, needs: &Resources, times: u32) {
    let n = u64::from(times);
    used.milli_cores = used.milli_cores.saturating_add(needs.milli_cores.saturating_mul(n));
    used.memory = used.memory.saturating_add(needs.memory.saturating_mul(n));
    used.disk = used.disk.saturating_add(needs.disk.saturating_mul(n));
    used.gpus = used.gpus.saturating_add(needs.gpus.saturating_mul(times));
    for (name, need) in &needs.named {
        let all = used.named.entry(name.clone()).or_default();
        *all = all.saturating_add(need.saturating_mul(n));
    }
}

/// Takes it away again.
pub fn vacate(used: &mut Resources, needs: &Resources, times: u32) {
    let n = u64::from(times);
    used.milli_cores = used.milli_cores.saturating_sub(needs.milli_cores.saturating_mul(n));
    used.memory = used.memory.saturating_sub(needs.memory.saturating_mul(n));
    used.disk = used.disk.saturating_sub(needs.disk.saturating_mul(n));
    used.gpus = used.gpus.saturating_sub(needs.gpus.saturating_mul(times));
    for (name, need) in &needs.named {
        if let Some(all) = used.named.get_mut(name) {
            *all = all.saturating_sub(need.saturating_mul(n));
        }
    }
}

/// How many tasks of this job the node may be given. `longest`: how long such tasks lately took at most, `None` if not known; decides
/// what may wait there. `None`: not the place at all.
pub fn room(spec: &JobSpec, longest: Option<Duration>, at: &Standing) -> Option<Room> {
    let meta = at.meta.filter(|_| at.is_connected && at.schedule == Schedule::Open && is_alive(at))?;
    let matches = has_executor(spec, &meta.executors) && spec.labels.iter().all(|(key, want)| meta.labels.get(key) == Some(want));
    let runs_at_once = multiples(&spec.needs, &meta.capacity, &Resources::default());
    if !matches || runs_at_once == 0 {
        return None;
    }
    let left = at.window.saturating_sub(at.held);
    let free = multiples(&spec.needs, &meta.capacity, at.used).min(left);
    let ahead = ahead(longest, runs_at_once).saturating_sub(at.waiting).min(left - free);
    Some(Room { node: at.node, free, total: runs_at_once.min(at.window).max(1), ahead, is_near: true })
}

/// How many tasks may wait at a node that runs so many at once: as many as it ends in [`AHEAD`], at least one, none if they are long.
fn ahead(longest: Option<Duration>, runs_at_once: u32) -> u32 {
    let Some(longest) = longest.filter(|longest| *longest <= SHORT) else { return 0 };
    let in_time = AHEAD.as_millis().saturating_mul(runs_at_once.into()).div_ceil(longest.as_millis().max(1));
    u32::try_from(in_time).unwrap_or(u32::MAX).clamp(1, limits::PREFETCH)
}

/// Shares out at most `want` tasks: first what can run, then what may wait; of both first what is near. `turn` says who is first among
/// equals; raise it each time.
pub fn share(want: u32, rooms: &[Room], turn: u64) -> Vec<Share> {
    let mut shares = Vec::with_capacity(rooms.len());
    let mut left = want;
    for (waits, is_near) in [(false, true), (false, false), (true, true), (true, false)] {
        let count = |room: &Room| if waits { room.ahead } else { room.free };
        let of = |room: &Room| if room.is_near == is_near { count(room) } else { 0 };
        for (room, count) in rooms.iter().zip(fill(left, rooms, of, turn)) {
            if count > 0 {
                left -= count;
                shares.push(Share { node: room.node, count, waits });
            }
        }
        if left == 0 {
            break;
        }
    }
    shares
}

/// Water filling: takes from each room so that the fractions left over are as equal as whole tasks allow.
fn fill(want: u32, rooms: &[Room], of: impl Fn(&Room) -> u32, turn: u64) -> Vec<u32> {
    let most: u64 = rooms.iter().map(|room| u64::from(of(room))).sum();
    if most <= u64::from(want) {
        return rooms.iter().map(of).collect();
    }
    let count = rooms.len() as u64;
    let after_turn = |i: usize| (i as u64 + count - turn % count) % count;
    let emptier = |a: &usize, b: &usize| -> Ordering {
        let cross = |x: &Room, y: &Room| u64::from(of(x)) * u64::from(y.total);
        cross(&rooms[*b], &rooms[*a]).cmp(&cross(&rooms[*a], &rooms[*b])).then(after_turn(*a).cmp(&after_turn(*b)))
    };
    let mut order: Vec<usize> = (0..rooms.len()).collect();
    order.sort_unstable_by(emptier);
    let (keep, whole, take) = level(want, rooms, &of, &order);
    let mut taken = vec![0; rooms.len()];
    let mut left = want;
    for &i in &order[..take] {
        let stays = (u128::from(keep) * u128::from(rooms[i].total)).div_ceil(u128::from(whole));
        taken[i] = of(&rooms[i]).saturating_sub(u32::try_from(stays).unwrap_or(u32::MAX));
        left -= taken[i];
    }
    while left > 0 {
        for &i in order.iter().filter(|i| of(&rooms[**i]) > 0) {
            if left > 0 && taken[i] < of(&rooms[i]) {
                taken[i] += 1;
                left -= 1;
            }
        }
    }
    taken
}

/// The water's level as the fraction `keep / whole` that stays free, and how many of the emptiest rooms are above it.
fn level(want: u32, rooms: &[Room], of: &impl Fn(&Room) -> u32, order: &[usize]) -> (u64, u64, usize) {
    let (mut free, mut whole) = (0u64, 0u64);
    for (n, &i) in order.iter().enumerate() {
        free += u64::from(of(&rooms[i]));
        whole += u64::from(rooms[i].total);
        let keep = free.saturating_sub(u64::from(want));
        let is_level = order.get(n + 1).is_none_or(|&next| {
            let next = &rooms[next];
            u128::from(keep) * u128::from(next.total) >= u128::from(of(next)) * u128::from(whole)
        });
        if free >= u64::from(want) && is_level {
            return (keep, whole, n + 1);
        }
    }
    (0, whole.max(1), order.len())
}

#[cfg(test)]
mod tests;
