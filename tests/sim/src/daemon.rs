//! The whole daemon by seed: nodes over QUIC in a simulated network, on disks that forget, with simulated keepers and clients.
//!
//! ```text
//! Plan (seed, size, faults by time)        plan, schedule     drawn from a seed, or read from a file
//! run(plan): turmoil                       stage              does to hosts, network and disks what the plan says
//!   h1..hN    swarmd::node::start on SimSocket, SimDisk, SimExec: crashed, cut, slowed, wiped, restarted
//!   hN+1      stands by to be a second daemon with the key of another
//!   clients   submit, get, list, cancel, follow through any node; never crashed
//!   operator  closes hosts out
//!   blobs     put, pushed and read through any node, where the plan says so
//!   World     what all of them have seen, and what must never be, asked at every change and every 50 ms
//! ```
//! First everything goes wrong (safety); then all is repaired, and within a minute everything must be quiet and stay so (liveness):
//! one leader, one configuration, one view of the members, nothing open, running or on its way, everybody told. Then the calls of
//! all clients are judged as one history. A life of a daemon ends with its process (its keeper and its host's cache live on), with
//! its host's power (they do not), or in order. A pause is the network's: what is sent to and from a host waits and then comes at
//! once; its clock goes on.

mod blobs;
mod client;
mod host;
mod keeper;
mod model;
mod operator;
mod plan;
mod schedule;
mod shrink;
mod stage;
mod world;

use std::{
    cell::Cell,
    fmt, panic,
    sync::Once,
    time::{Duration, Instant},
};

use swarm_proto::ClusterId;

use self::stage::Stage;
pub use self::{
    host::NoOutputs,
    plan::{Act, Plan},
    shrink::{Shrunk, shrink},
    world::Show,
};

const CLUSTER: ClusterId = ClusterId([7; 16]);

/// How it went.
#[derive(Debug)]
pub struct Outcome {
    /// Over every datagram, start, end, event and answer.
    pub trace: String,
    /// Jobs acknowledged.
    pub acknowledged: usize,
    /// Tasks that were tried more than once.
    pub reruns: usize,
    /// Terms in which somebody led.
    pub terms: usize,
    pub datagrams: usize,
    /// Calls of clients that were judged.
    pub calls: usize,
    /// Writes, syncs and changes of names on all disks.
    pub operations: u64,
    /// Faults by kind.
    pub faults: Vec<String>,
    /// What must never be and was.
    pub violations: Vec<String>,
    /// How long everything took to come to rest after the repair.
    pub rest: Duration,
    pub simulated: Duration,
    pub wall: Duration,
}

/// One line, without what must never be.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, acknowledged, reruns, terms, datagrams, calls, operations, faults, rest, simulated, wall, violations: _ } = self;
        write!(
            f,
            "trace {trace}: {acknowledged} jobs acknowledged, {reruns} tasks tried again, {terms} terms, {calls} calls judged, {datagrams} \
             datagrams, {operations} operations of disks; at rest after {rest:?}, {:.1} s of {:.1} s, {faults:?}",
            wall.as_secs_f64(),
            simulated.as_secs_f64(),
        )
    }
}

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Panics of tasks end those tasks and nothing else; here they count.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            before(info);
        }));
    });
    PANICS.with(|panics| panics.set(0));
}

/// Runs one world to its end.
pub fn run(plan: &Plan) -> Outcome {
    run_showing(plan, if std::env::var_os("TRACE").is_some() { Show::Events } else { Show::Nothing })
}

/// The same, and shows what happens while it does.
pub fn run_showing(plan: &Plan, show: Show) -> Outcome {
    count_panics();
    let began = Instant::now();
    let mut stage = Stage::new(plan, show);
    stage.storm();
    let rest = stage.come_to_rest();
    stage.stay_at_rest();
    let (world, faults, simulated, operations) = stage.end();
    world.check_rest();
    let panics = PANICS.with(Cell::get);
    if panics > 0 {
        world.violate(format_args!("{panics} tasks panicked"));
    }
    world.release();
    let [acknowledged, reruns, terms, datagrams, calls] = world.figures();
    Outcome {
        trace: world.trace(),
        acknowledged,
        reruns,
        terms,
        datagrams,
        calls,
        operations,
        faults,
        violations: world.violations(),
        rest,
        simulated,
        wall: began.elapsed(),
    }
}
