//! One life of a daemon on a simulated host.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mesh_config::Preset;
use swarm_api::Backend as _;
use swarm_consensus::{Consensus, Lanes};
use swarm_executors::{Executor, Noop};
use swarm_proto::{
    Fence, TaskId, UnixMillis,
    ledger::Addrs,
    peer::{Load, NodeMeta, OutputChunk, OutputRequest},
    spec::Resources,
};
use swarm_transport::Realm;
use swarmd::node::{self, Clocks, Domains, Env, Gateway, Holdings, Journal, Left, OpenSocket, Outputs, Settings, Whereabouts, Workshop};
use tokio::{sync::mpsc, time::sleep};

use super::{
    CLUSTER,
    keeper::SimExec,
    world::{Life, World},
};
use crate::net;

const CONTROL: u16 = 4747;
const BULK: u16 = 4748;
/// Between two looks at a node that says nothing, and looks to a thorough one.
const LOOK: Duration = Duration::from_millis(50);
const THOROUGH: u64 = 20;

pub(super) fn name(host: u64) -> String {
    format!("h{host}")
}

/// How long a certificate is issued for where the plan says nothing.
const DAY: u64 = 24 * 3_600;

fn addr(host: u64, port: u16) -> SocketAddr {
    SocketAddr::new(turmoil::lookup(name(host)), port)
}

/// Nothing is kept of what simulated tasks write.
pub struct NoOutputs;

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

fn settings(host: u64, life: u64, nodes: u64, papers: u64) -> Settings {
    let addrs = Addrs { control: addr(host, CONTROL), bulk: addr(host, BULK) };
    let labels = BTreeMap::from([("os".into(), "linux".into()), ("arch".into(), "sim".into())]);
    let capacity = Resources { milli_cores: 4_000, memory: 1 << 30, disk: 1 << 30, ..Resources::default() };
    let meta = NodeMeta {
        memory: 1 << 40,
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
        scrub_every: mesh_config::SCRUB_EVERY,
        ask_tailnet: Arc::new(|_| Err("there is no tailnet here".into())),
        set_log_level: Arc::new(|_| {}),
        load: Arc::new(Load::default),
        api_port: 4749,
        certificate_life: Duration::from_secs(if papers == 0 { DAY } else { papers }),
    }
}

fn clocks(world: &World, host: u64) -> Clocks {
    let (wall, ahead, power_on) = (net::wall_clock(), world.clock(host), world.power_on(host));
    Clocks {
        wall: Arc::new(move || UnixMillis(wall().0.saturating_add_signed(ahead.load(Ordering::Relaxed)))),
        boot: Arc::new(move || turmoil::sim_elapsed().unwrap_or_default().saturating_sub(power_on)),
    }
}

fn sockets(world: &World) -> OpenSocket {
    let (tap, weather) = (world.clone(), world.weather());
    Arc::new(move |addr| {
        let tap = tap.clone();
        net::socket_in(addr, Some(Arc::new(move |sent| tap.sent(sent))), Some(weather.clone()))
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
    let Some(life) = world.begin_life(host) else { return Ok(()) };
    let mut stop = life.stop.clone();
    let settings = settings(host, life.number, world.nodes(), world.papers());
    let gateway = Gateway::new(&settings, CLUSTER);
    let (env, holdings) = prepare(&world, host, &life, settings)?;
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
            ended(&world, host, &format!("does not start: {error:#}"));
            return Ok(());
        }
    };
    if running.is_founded() {
        world.stands(host);
    }
    match running.consensus() {
        Some(consensus) => drop(tokio::spawn(watch(world.clone(), host, consensus.clone()))),
        None => world.violate(format_args!("h{host} found its log damaged")),
    }
    tokio::spawn(report(world.clone(), host, gateway));
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        why = running.failed() => {
            // nothing is put in order: this is the process's end
            ended(&world, host, &why);
            return Ok(());
        }
    }
    world.leave(host);
    running.stop().await;
    Ok(())
}

/// A daemon ended by itself, which it may where its disk is at fault.
fn ended(world: &World, host: u64, why: &str) {
    if world.has_bad_disk(host) {
        world.say(format_args!("h{host} ends: {why}"));
    } else {
        world.violate(format_args!("h{host}: {why}"));
    }
    world.leave(host);
}

fn prepare(world: &World, host: u64, life: &Life, settings: Settings) -> anyhow::Result<(Env, Holdings)> {
    let seed = net::life_seed(world.seed(), host, life.number);
    let clocks = clocks(world, host);
    let (workshop, blobs) = (workshop(world, host, &clocks), world.blobs(host)?);
    let holdings = Holdings { open_socket: sockets(world), workshop, blobs, routes: swarm_blobstore::Routes::default() };
    let keeps = world.clone();
    let env = Env {
        settings,
        identity: life.identity.clone(),
        keep_identity: Arc::new(move |identity| {
            keeps.keep_identity(host, identity);
            Ok(())
        }),
        realm: Realm { cluster: CLUSTER, epoch: 0 },
        crypto: net::crypto(),
        is_founder: life.is_founder,
        found: life.is_founder.then(|| net::found(world.seed(), CLUSTER, world.nodes())),
        journal: Journal::new(clocks.wall.clone()),
        clocks,
        seed: u64::from_le_bytes(seed[..8].try_into()?),
        disk: life.log.mount(),
        records: life.records.mount(),
        log: swarm_consensus::Settings { segment: 64 << 10, snapshot_every: 200, keep: 40, ..swarm_consensus::Settings::default() },
        domains: Domains::Inline,
        lanes: Lanes::Tasks,
    };
    Ok((env, holdings))
}

/// Takes down what the node says of itself, by its own clock: outside of its runtime there is none.
async fn report(world: World, host: u64, gateway: Gateway) {
    loop {
        let status = gateway.status();
        if let Some(id) = status.node {
            world.is(host, id);
        }
        world.says(host, status);
        sleep(LOOK).await;
    }
}

/// Looks at the node at each change of its role or ledger, and now and then.
async fn watch(world: World, host: u64, consensus: Consensus) {
    let mut role = consensus.role();
    for n in 0u64.. {
        let now = role.borrow_and_update().clone();
        consensus.with_ledger(|ledger| world.look(host, &now, ledger, n.is_multiple_of(THOROUGH)));
        if let Some(fatal) = consensus.health().fatal {
            if !world.has_bad_disk(host) {
                world.violate(format_args!("h{host}: {fatal}"));
            }
            return;
        }
        tokio::select! {
            biased;
            changed = role.changed() => if changed.is_err() { return },
            () = sleep(LOOK) => {}
        }
    }
}
