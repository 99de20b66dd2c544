//! Our consensus with nothing on top: three voters, each on a thread with a runtime of its own, with the log and the transport of the
//! product, over loopback and the disk. No product can be faster than what it stands on; what is between the two is our own rooms.
//!
//! ```text
//!   load --propose--> voter 1 (leads) ==== raft plane, mutual TLS ==== voter 2, voter 3        each: segments, one sync a batch
//! ```
//! What is proposed changes nothing: the ledger answers that such an attempt is none of its own. One in flight is one command an entry.
//! A thousand in flight are one entry of a thousand commands after the other, which is what group commit makes of that many clients
//! of a leader with one entry on its way.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, OnceLock, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use swarm_consensus::{BoxFuture, Consensus, DirDisk, Lanes, Peers, RaftTiming, Settings, Spec, raft_dir};
use swarm_proto::{
    AttemptNo, ClusterId, Fence, JobId, LogIndex, NodeId, PROTOCOL, PeerKey, RaftDir, TaskId, UnixMillis,
    ledger::{Addrs, Applied, Batch, Command},
    peer::Hello,
    spec::Cause,
};
use swarm_sim::{door::Door, net};
use swarm_transport::{BindSpec, Connection, Dial, Endpoint, Plane, Pool, Realm, udp_socket};
use tokio::sync::oneshot;

use super::{Cpu, Figure, Measured, Stage, block_on, quantile};
use crate::beside::place::Host;

const CLUSTER: ClusterId = ClusterId([5; 16]);
const CONTROL: u16 = 4747;
const BULK: u16 = 4748;
/// Of the keys, which are nobody's.
const SEED: u64 = 1;
const VOTERS: u64 = 3;
/// Nobody is to be elected while it is measured, on a busy machine too.
const TIMING: RaftTiming =
    RaftTiming { heartbeat: Duration::from_millis(100), election_min: Duration::from_secs(1), election_max: Duration::from_millis(1_500) };
/// Commits one at a time: some to warm up, then those that count.
const WARM: usize = 50;
const TRIPS: usize = 500;
const IN_FLIGHT: u32 = 1_000;

/// Where the voters are.
#[derive(Clone)]
struct Map {
    first: Host,
}

/// A voter and its sockets.
struct Voter {
    consensus: Consensus,
    endpoints: [Endpoint; 2],
}

/// A voter on a thread of its own. It stops when this goes.
struct Follower {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

pub(super) fn run(stage: &Stage) -> anyhow::Result<Measured> {
    let dir = stage.fresh("floor")?;
    let map = Map { first: stage.place.leader.clone() };
    let _followers = (2..=VOTERS).map(|me| Follower::start(dir.path(), &map, me)).collect::<Result<Vec<_>, _>>()?;
    block_on(async {
        let leader = Voter::start(dir.path(), &map, 1).await?;
        let measured = measure(&leader.consensus, stage.tasks).await;
        leader.stop().await;
        measured
    })?
}

async fn measure(leader: &Consensus, commands: u32) -> anyhow::Result<Measured> {
    lead(leader).await?;
    commits(leader, WARM).await?;
    let mut trips = commits(leader, TRIPS).await?;
    let cpu = Cpu::start(&[]);
    let entries = commands.div_ceil(IN_FLIGHT);
    for _ in 0..entries {
        commit(leader, IN_FLIGHT).await?;
    }
    let (spent, count) = (cpu.stop(), f64::from(entries * IN_FLIGHT));
    Ok(vec![
        (Figure::FloorCommit, quantile(&mut trips, 0.5)),
        (Figure::FloorCommitP99, quantile(&mut trips, 0.99)),
        (Figure::FloorPerS, count / spent.seconds),
        (Figure::FloorCpu, spent.cpu * 1e6 / count),
    ])
}

/// Makes a leader of this one and voters of all.
async fn lead(leader: &Consensus) -> anyhow::Result<()> {
    leader.initialize().await?;
    leader.role().wait_for(|role| role.is_leader).await?;
    leader.read_barrier().await?;
    for me in 2..=VOTERS {
        leader.add_learner(NodeId(me)).await?;
        leader.change_voters((1..=me).map(NodeId).collect()).await?;
    }
    Ok(())
}

/// One after the other, each of one command; seconds.
async fn commits(leader: &Consensus, count: usize) -> anyhow::Result<Vec<f64>> {
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        commit(leader, 1).await?;
        took.push(began.elapsed().as_secs_f64());
    }
    Ok(took)
}

/// One entry.
async fn commit(leader: &Consensus, commands: u32) -> anyhow::Result<()> {
    let fence = Fence { index: LogIndex(1), attempt: AttemptNo(1) };
    let nobody = |index| Command::Lose { task: TaskId { job: JobId(1), index }, fence, cause: Cause::NodeLost };
    let batch = Batch { at: UnixMillis(1), commands: (0..commands).map(nobody).collect() };
    let (_, applied) = leader.propose(batch).await?;
    ensure!(applied.len() == commands as usize && applied.iter().all(|applied| *applied == Applied::Stale), "{applied:?}");
    Ok(())
}

impl Map {
    fn addr(&self, node: u64, port: u16) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(self.first.next(u8::try_from(node)? - 1).ip, port))
    }
}

fn key(node: u64) -> PeerKey {
    net::identity(SEED, CLUSTER, node).peer_key()
}

/// Where the others are, and the connections to them.
struct Others {
    map: Map,
    control: Pool,
    bulk: Pool,
}

impl Peers for Others {
    fn connection(&self, node: NodeId, plane: Plane) -> BoxFuture<io::Result<Connection>> {
        let (pool, port) = if plane == Plane::Bulk { (&self.bulk, BULK) } else { (&self.control, CONTROL) };
        let (pool, addr) = (pool.clone(), self.map.addr(node.0, port));
        Box::pin(async move {
            let to = Dial { node: Some(node), key: Some(key(node.0)), addr: addr.map_err(io::Error::other)? };
            pool.get(plane, &to).await.map_err(io::Error::other)
        })
    }
}

fn endpoint(map: &Map, me: u64, port: u16, planes: Vec<Plane>, keeper: Arc<Door>) -> anyhow::Result<Endpoint> {
    let addrs = Addrs { control: map.addr(me, CONTROL)?, bulk: map.addr(me, BULK)? };
    let hello = Hello { protocol: PROTOCOL, cluster: CLUSTER, node: Some(NodeId(me)), name: format!("v{me}"), addrs, life: 1 };
    let spec = BindSpec {
        socket: udp_socket(map.addr(me, port)?)?,
        runtime: Arc::new(quinn::TokioRuntime),
        identity: net::identity(SEED, CLUSTER, me),
        realm: Realm { cluster: CLUSTER, epoch: 0 },
        protocols: PROTOCOL..=PROTOCOL,
        crypto: swarm_transport::crypto(),
        seed: net::life_seed(SEED, me, u64::from(port)),
        planes,
        // their certificates last for a century
        wall: Arc::new(net::epoch),
    };
    Ok(Endpoint::bind(spec, Arc::new(move || hello.clone()), keeper)?)
}

impl Voter {
    async fn start(dir: &Path, map: &Map, me: u64) -> anyhow::Result<Self> {
        let cell = Arc::new(OnceLock::new());
        let keeper = Arc::new(Door { voters: (1..=VOTERS).map(key).collect(), consensus: Arc::downgrade(&cell) });
        let control = endpoint(map, me, CONTROL, vec![Plane::Control, Plane::Raft], keeper.clone())?;
        let bulk = endpoint(map, me, BULK, vec![Plane::Bulk], keeper)?;
        let disk = Arc::new(DirDisk::open(dir.join(format!("v{me}")))?);
        let raft_dir = raft_dir(&*disk, RaftDir([u8::try_from(me)?; 16]))?;
        let consensus = Consensus::start(Spec {
            me: NodeId(me),
            cluster: CLUSTER,
            raft_dir,
            disk,
            timing: TIMING,
            seed: me,
            peers: Arc::new(Others { map: map.clone(), control: control.pool(), bulk: bulk.pool() }),
            sync: Lanes::threads(),
            settings: Settings::default(),
        })
        .await?;
        cell.set(consensus.clone()).map_err(|_| anyhow!("a voter is started once"))?;
        // streams are handed over for as long as the endpoints serve
        let keeps = cell;
        let served = control.clone();
        tokio::spawn(async move {
            served.closed().await;
            drop(keeps);
        });
        Ok(Self { consensus, endpoints: [control, bulk] })
    }

    async fn stop(&self) {
        self.consensus.shutdown().await;
        for endpoint in &self.endpoints {
            endpoint.close().await;
        }
    }
}

impl Follower {
    /// Returns when it serves.
    fn start(dir: &Path, map: &Map, me: u64) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (tx, started) = mpsc::channel();
        let (dir, map) = (dir.to_owned(), map.clone());
        let life = async move {
            match Voter::start(&dir, &map, me).await {
                Ok(voter) => {
                    let _ = tx.send(Ok(()));
                    // an error: whoever held the other end is gone, which is the same
                    let _ = stopped.await;
                    voter.stop().await;
                }
                Err(error) => drop(tx.send(Err(error))),
            }
        };
        let thread = std::thread::spawn(move || drop(block_on(life)));
        let follower = Self { stop: Some(stop), thread: Some(thread) };
        started.recv().with_context(|| format!("voter {me} did not start"))??;
        Ok(follower)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
