//! Three of etcd: what a durable write on a majority costs. Each member syncs its log before it answers.
//!
//! The client speaks gRPC as far as a put goes: one HTTP/2 stream each, a five-byte head, a message of two fields. No stub is
//! generated, because that would make everybody's build of this workspace longer.

mod put;

use std::{
    fs::File,
    net::IpAddr,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use self::put::Puts;
use super::{Cpu, Figure, Measured, Stage, block_on, quantile};
use crate::beside::place::Running;

pub(super) const PROGRAM: &str = "etcd";
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// How long the members may take to elect.
const READY: Duration = Duration::from_secs(60);
/// Puts one at a time: some to warm up, then those that count.
const WARM: u32 = 50;
const TRIPS: u32 = 500;
/// Puts at once, and over how many connections.
const IN_FLIGHT: u32 = 1_000;
const CONNECTIONS: usize = 8;
/// Most puts of one throughput.
const PUTS: u32 = 30_000;

pub(super) fn run(stage: &Stage) -> anyhow::Result<Measured> {
    let dir = stage.fresh("etcd")?;
    let (hosts, servers) = stage.three(CLIENT_PORT, |hosts, n| start(stage, dir.path(), hosts, n))?;
    block_on(load(&hosts, stage.tasks.min(PUTS), &servers))?
}

fn start(stage: &Stage, dir: &Path, hosts: &[IpAddr], n: usize) -> anyhow::Result<Running> {
    let log = File::create(dir.join(format!("{n}.log")))?;
    let all: Vec<String> = hosts.iter().enumerate().map(|(n, host)| format!("e{n}=http://{host}:{PEER_PORT}")).collect();
    let [client, peer] = [CLIENT_PORT, PEER_PORT].map(|port| format!("http://{}:{port}", hosts[n]));
    let mut command = stage.place.leader.command(super::program(PROGRAM).context(PROGRAM)?);
    command.args(["--name", &format!("e{n}"), "--data-dir"]).arg(dir.join(format!("e{n}")));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new", "--log-level", "error"]);
    Running::start(command.stdout(Stdio::null()).stderr(log))
}

async fn load(hosts: &[IpAddr], puts: u32, servers: &[Running]) -> anyhow::Result<Measured> {
    let mut connections = Vec::new();
    for n in 0..CONNECTIONS {
        connections.push(ready(hosts[n % hosts.len()]).await?);
    }
    at_once(&connections[..1], "warm", WARM, 1).await?;
    let mut trips = at_once(&connections[..1], "trip", TRIPS, 1).await?;
    let cpu = Cpu::start(servers);
    at_once(&connections, "many", puts, IN_FLIGHT).await?;
    let spent = cpu.stop();
    Ok(vec![
        (Figure::EtcdPut, quantile(&mut trips, 0.5)),
        (Figure::EtcdPutP99, quantile(&mut trips, 0.99)),
        (Figure::EtcdPerS, f64::from(puts) / spent.seconds),
        (Figure::EtcdCpu, spent.cpu * 1e6 / f64::from(puts)),
    ])
}

/// A connection to a member that takes puts: there is a leader.
async fn ready(host: IpAddr) -> anyhow::Result<Puts> {
    let (puts, give_up) = (Puts::connect(host, CLIENT_PORT).await?, Instant::now() + READY);
    while let Err(why) = puts.put("first").await {
        ensure!(Instant::now() < give_up, "{host} takes no put: {why:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(puts)
}

/// So many puts, of which so many are unanswered; how long each took, in seconds.
async fn at_once(connections: &[Puts], prefix: &'static str, count: u32, in_flight: u32) -> anyhow::Result<Vec<f64>> {
    let next = Arc::new(AtomicU32::new(0));
    let one = |puts: Puts, next: Arc<AtomicU32>| async move {
        let mut took = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return Ok::<_, anyhow::Error>(took);
            }
            let began = Instant::now();
            puts.put(&format!("{prefix}{n:010}")).await?;
            took.push(began.elapsed().as_secs_f64());
        }
    };
    let lanes = connections.iter().cycle().take(in_flight as usize);
    let lanes: Vec<_> = lanes.map(|puts| tokio::spawn(one(puts.clone(), next.clone()))).collect();
    let mut all = Vec::new();
    for lane in lanes {
        all.extend(lane.await??);
    }
    Ok(all)
}
