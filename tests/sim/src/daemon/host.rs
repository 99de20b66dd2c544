//! One life of a daemon on a simulated host.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use mesh_config::Preset;
use swarm_consensus::{Consensus, Lanes};
use swarm_executors::{Executor, Noop};
use swarm_proto::{
    ClusterId, Fence, TaskId, UnixMillis,
    ledger::Addrs,
    peer::{Load, NodeMeta, OutputChunk, OutputRequest},
    spec::Resources,
};
use swarm_transport::Realm;
use swarmd::node::{self, Clocks, Domains, Env, Gateway, Holdings, Journal, Left, OpenSocket, Outputs, Settings, Whereabouts, Workshop};
use tokio::{sync::mpsc, time::sleep};

use super::{keeper::SimExec, world::World};
use crate::net;

const CLUSTER: ClusterId = ClusterId([7; 16]);
const CONTROL: u16 = 4747;
const BULK: u16 = 4748;
/// How far the clock of each host is ahead of the one before.
const SKEW: u64 = 1_700;
/// Between two looks at a node that says nothing, and looks to a thorough one.
const LOOK: Duration = Duration::from_millis(50);
const THOROUGH: u64 = 20;

pub(super) fn name(host: u64) -> String {
    format!("h{host}")
}

fn addr(host: u64, port: u16) -> SocketAddr {
    SocketAddr::new(turmoil::lookup(name(host)), port)
}

/// Nothing is kept of what simulated tasks write.
struct NoOutputs;

impl Outputs for NoOutputs {
    fn read(&self, _: OutputRequest) -> mpsc::Receiver<OutputChunk> {
        let (tx, rx) = mpsc::channel(1);
        let _ = tx.try_send(OutputChunk::End);
        rx
    }

    fn left(&self, _: TaskId, _: Fence) -> Left {
        Left::default()
    }
}

fn settings(host: u64, life: u64, nodes: u64) -> Settings {
    let addrs = Addrs { control: addr(host, CONTROL), bulk: addr(host, BULK) };
    let labels = BTreeMap::from([("os".into(), "linux".into()), ("arch".into(), "sim".into())]);
    let capacity = Resources { milli_cores: 4_000, memory: 1 << 30, disk: 1 << 30, ..Resources::default() };
    let meta = NodeMeta {
        version: life,
        name: name(host),
        software: "sim".into(),
        protocol: swarm_proto::PROTOCOL,
        addrs,
        os: "linux".into(),
        arch: "sim".into(),
        capacity,
        labels,
        executors: vec!["noop".into(), "exec".into()],
    };
    Settings {
        preset: Preset::Lan,
        timing: Preset::Lan.timing(),
        whereabouts: Whereabouts::fixed((1..=nodes).filter(|other| *other != host).map(|other| addr(other, CONTROL))),
        may_vote: true,
        meta: Arc::new(meta),
        require_signed: false,
        ask_tailnet: Arc::new(|_| Err("there is no tailnet here".into())),
        set_log_level: Arc::new(|_| {}),
        load: Arc::new(Load::default),
        api_port: 4749,
        certificate_life: Duration::from_secs(24 * 3600),
    }
}

fn clocks(world: &World, host: u64) -> Clocks {
    let (wall, power_on) = (net::wall_clock(), world.power_on(host));
    Clocks {
        wall: Arc::new(move || UnixMillis(wall().0 + host * SKEW)),
        boot: Arc::new(move || turmoil::sim_elapsed().unwrap_or_default().saturating_sub(power_on)),
    }
}

fn sockets(world: &World) -> OpenSocket {
    let tap = world.clone();
    Arc::new(move |addr| {
        let tap = tap.clone();
        net::socket(addr, Some(Arc::new(move |sent| tap.sent(sent))))
    })
}

fn workshop(world: &World, host: u64, clocks: &Clocks) -> Workshop {
    let (tx, events) = mpsc::unbounded_channel();
    let recovered = world.greet_keeper(host, tx.clone());
    let wall = clocks.wall.clone();
    let noop: Arc<dyn Executor> = Arc::new(Noop::new(tx, move || wall()));
    let exec: Arc<dyn Executor> = Arc::new(SimExec { world: world.clone(), host });
    Workshop { executors: vec![noop, exec], events, recovered, outputs: Arc::new(NoOutputs) }
}

/// Runs the daemon until it is asked to stop; a crash just drops this.
pub(super) async fn run(world: World, host: u64) -> turmoil::Result {
    let (life, log, records, mut stop) = world.begin_life(host);
    let seed = net::life_seed(world.seed(), host, life);
    let clocks = clocks(&world, host);
    let settings = settings(host, life, world.nodes());
    let gateway = Gateway::new(&settings, CLUSTER);
    let (workshop, blobs) = (workshop(&world, host, &clocks), world.blobs(host)?);
    let holdings = Holdings { open_socket: sockets(&world), workshop, blobs, routes: swarm_blobstore::Routes::default() };
    let env = Env {
        settings,
        identity: net::identity(world.seed(), CLUSTER, host),
        keep_identity: Arc::new(|_| Ok(())),
        realm: Realm { cluster: CLUSTER, epoch: 0 },
        is_founder: host == 1,
        found: (host == 1).then(|| net::found(world.seed(), CLUSTER, world.nodes())),
        journal: Journal::new(clocks.wall.clone()),
        clocks,
        seed: u64::from_le_bytes(seed[..8].try_into()?),
        disk: log.mount(),
        records: records.mount(),
        log: swarm_consensus::Settings { segment: 64 << 10, snapshot_every: 200, keep: 40, ..swarm_consensus::Settings::default() },
        domains: Domains::Inline,
        lanes: Lanes::Tasks,
    };
    world.set_gateway(host, gateway.clone());
    let starting = node::start(env, holdings, &gateway);
    let started = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {
            world.leave(host);
            return Ok(());
        }
        started = starting => started,
    };
    let mut running = match started {
        Ok(running) => running,
        Err(error) => {
            world.violate(format_args!("h{host} does not start: {error:#}"));
            return Ok(());
        }
    };
    match running.consensus() {
        Some(consensus) => drop(tokio::spawn(watch(world.clone(), host, consensus.clone(), gateway))),
        None => world.violate(format_args!("h{host} found its log damaged")),
    }
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        why = running.failed() => world.violate(format_args!("h{host}: {why}")),
    }
    world.leave(host);
    running.stop().await;
    Ok(())
}

/// Looks at the node at each change of its role or ledger, and now and then.
async fn watch(world: World, host: u64, consensus: Consensus, gateway: Gateway) {
    use swarm_api::Backend as _;

    if let Some(id) = gateway.status().node {
        world.is(host, id);
    }
    let mut role = consensus.role();
    for n in 0u64.. {
        let now = role.borrow_and_update().clone();
        consensus.with_ledger(|ledger| world.look(host, &now, ledger, n.is_multiple_of(THOROUGH)));
        if let Some(fatal) = consensus.health().fatal {
            world.violate(format_args!("h{host}: {fatal}"));
            return;
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            () = sleep(LOOK) => {}
        }
    }
}
