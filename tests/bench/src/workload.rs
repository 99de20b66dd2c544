//! No-op tasks through a swarm of three in one process, in simulated time: the work that `swarm-bench instructions` counts.
//!
//! ```text
//!   load --Gateway::submit, 256 unanswered-> h1 (leads) ==== 1 ms of simulated network ==== h2, h3
//!                                            three whole daemons (swarmd::node): ledger, placement, consensus, QUIC with TLS, workers
//! ```
//! One thread, tokio's paused clock, real files, every chance from one seed: who runs it again runs the same, but for the keys that TLS
//! makes. What is not in it: the HTTP and the JSON of the API, the kernel, waiting for the disk, and the keeper that spawns processes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use mesh_config::Preset;
use swarm_api::Backend as _;
use swarm_blobstore::{KeyAt, Store};
use swarm_consensus::{DirDisk, Lanes};
use swarm_executors::Noop;
use swarm_proto::{
    ClusterId,
    access::Caller,
    ledger::{Addrs, Submit, TaskState},
    peer::{Answer, Load, NodeMeta, Numbered},
    spec::{Array, JobSpec, Resources, Work},
};
use swarm_sim::{daemon::NoOutputs, net};
use swarm_transport::Realm;
use swarmd::node::{self, Clocks, Domains, Env, Gateway, Holdings, Journal, Settings, Whereabouts, Workshop};
use tokio::{sync::mpsc, time::sleep};

const CLUSTER: ClusterId = ClusterId([6; 16]);
const SEED: u64 = 1;
const NODES: u64 = 3;
const CONTROL: u16 = 4747;
const BULK: u16 = 4748;
const LATENCY: Duration = Duration::from_millis(1);
/// In simulated time: how long all may take, and between two looks at a swarm that is not ready.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(100);
/// Submissions that may have no outcome yet.
const IN_FLIGHT: u64 = 256;

/// The ways into the nodes that are up.
type Ways = Arc<Mutex<BTreeMap<u64, Way>>>;

/// Into one node, and whether it leads three voters.
struct Way {
    gateway: Gateway,
    leads_all: bool,
}

/// Runs so many tasks, each submitted singly.
///
/// # Errors
/// A swarm that does not come up, a task that does not succeed.
pub(crate) fn run(tasks: u32) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ways = Ways::default();
    let mut sim = net::builder(SEED).min_message_latency(LATENCY).max_message_latency(LATENCY).simulation_duration(PATIENCE).build();
    for host in 1..=NODES {
        let (dir, ways) = (dir.path().join(name(host)), ways.clone());
        sim.host(name(host), move || daemon(host, dir.clone(), ways.clone()));
    }
    sim.client("load", async move { Ok(load(&ways, u64::from(tasks)).await?) });
    sim.run().map_err(|error| anyhow!("{error}"))
}

fn name(host: u64) -> String {
    format!("h{host}")
}

fn addr(host: u64, port: u16) -> SocketAddr {
    SocketAddr::new(turmoil::lookup(name(host)), port)
}

async fn load(ways: &Ways, tasks: u64) -> anyhow::Result<()> {
    let gateway = loop {
        let found = ways.lock().unwrap_or_else(PoisonError::into_inner).values().find(|way| way.leads_all).map(|way| way.gateway.clone());
        match found {
            Some(gateway) => break gateway,
            None => sleep(LOOK).await,
        }
    };
    let caller = Caller::local();
    let spec = Arc::new(JobSpec::new(Work::Noop));
    let submit = Submit { submitter: caller.name.clone(), key: None, spec, array: Array::single(), retry_of: None };
    let (tx, mut answers) = gateway.submit(&caller);
    let (mut sent, mut ended) = (0, 0);
    while ended < tasks {
        let more: Vec<Numbered> =
            (sent..tasks.min(ended + IN_FLIGHT)).map(|seq| Numbered { seq, submit: submit.clone(), follow: true }).collect();
        sent += more.len() as u64;
        if !more.is_empty() {
            tx.send(more).await.map_err(|_| anyhow!("the stream of submissions ended"))?;
        }
        for answer in answers.recv().await.context("the stream of answers ended")? {
            match answer {
                Answer::JobEnded(outcome) => {
                    ensure!(outcome.state == TaskState::Succeeded, "{} ended {:?}", outcome.job, outcome.state);
                    ended += 1;
                }
                Answer::Refused { problem, .. } => bail!("{problem}"),
                Answer::Unknown(target) => bail!("{target:?} is unknown"),
                Answer::Accepted { .. } | Answer::Progress { .. } | Answer::TaskEnded(_) => {}
            }
        }
    }
    Ok(())
}

/// One daemon, to the end of the simulation.
async fn daemon(host: u64, dir: std::path::PathBuf, ways: Ways) -> turmoil::Result {
    let settings = settings(host);
    let gateway = Gateway::new(&settings, CLUSTER);
    let (env, holdings) = prepare(host, &dir, settings)?;
    let mut running = node::start(env, holdings, &gateway).await?;
    let consensus = running.consensus().context("the log is damaged")?.clone();
    let watch = async {
        let mut role = consensus.role();
        loop {
            let leads_all = {
                let role = role.borrow_and_update();
                role.is_leader && role.voters.len() as u64 == NODES
            };
            ways.lock().unwrap_or_else(PoisonError::into_inner).insert(host, Way { gateway: gateway.clone(), leads_all });
            if role.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        why = running.failed() => Err(why.into()),
        () = watch => Ok(()),
    }
}

fn settings(host: u64) -> Settings {
    let meta = NodeMeta {
        memory: 1 << 40,
        version: 1,
        name: name(host),
        software: "bench".into(),
        protocol: swarm_proto::PROTOCOL,
        addrs: Addrs { control: addr(host, CONTROL), bulk: addr(host, BULK) },
        os: "linux".into(),
        arch: "sim".into(),
        capacity: Resources { milli_cores: 4_000, memory: 1 << 30, disk: 1 << 30, ..Resources::default() },
        labels: BTreeMap::new(),
        executors: vec!["noop".into()],
    };
    Settings {
        preset: Preset::Lan,
        timing: Preset::Lan.timing(),
        whereabouts: Whereabouts::fixed((1..=NODES).filter(|other| *other != host).map(|other| addr(other, CONTROL))),
        may_vote: true,
        meta: Arc::new(meta),
        require_signed: false,
        scrub_every: mesh_config::SCRUB_EVERY,
        ask_tailnet: Arc::new(|_| Err("there is no tailnet here".into())),
        set_log_level: Arc::new(|_| {}),
        load: Arc::new(Load::default),
        api_port: 4749,
        certificate_life: Duration::from_secs(24 * 3_600),
    }
}

fn prepare(host: u64, dir: &Path, settings: Settings) -> anyhow::Result<(Env, Holdings)> {
    let wall = net::wall_clock();
    let clocks = Clocks { wall: wall.clone(), boot: Arc::new(|| turmoil::sim_elapsed().unwrap_or_default()) };
    let (events, ended) = mpsc::unbounded_channel();
    let noop = Noop::new(events, move || wall());
    let workshop = Workshop { executors: vec![Arc::new(noop)], events: ended, recovered: Vec::new(), outputs: Arc::new(NoOutputs) };
    let blobs = Store::open(dir.join("blobs"), 1 << 20, KeyAt::Own(dir.join("blobs.key")))?;
    let open_socket = Arc::new(|addr| net::socket(addr, None));
    let holdings = Holdings { open_socket, workshop, blobs, routes: swarm_blobstore::Routes::default() };
    let seed = net::life_seed(SEED, host, 1);
    let env = Env {
        settings,
        identity: net::identity(SEED, CLUSTER, host),
        keep_identity: Arc::new(|_| Ok(())),
        realm: Realm { cluster: CLUSTER, epoch: 0 },
        crypto: net::crypto(),
        is_founder: host == 1,
        found: (host == 1).then(|| net::found(SEED, CLUSTER, NODES)),
        journal: Journal::new(clocks.wall.clone()),
        clocks,
        seed: u64::from_le_bytes(seed[..8].try_into()?),
        disk: Arc::new(DirDisk::open(dir.join("raft"))?),
        records: Arc::new(DirDisk::open(dir.join("records"))?),
        log: swarm_consensus::Settings::default(),
        domains: Domains::Inline,
        lanes: Lanes::Tasks,
    };
    Ok((env, holdings))
}

#[cfg(test)]
mod tests {
    #[test]
    fn tasks_run_through_three_simulated_daemons() {
        super::run(200).unwrap();
    }
}
