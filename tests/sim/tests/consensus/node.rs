//! A host that has a voter, makes everybody vote when it leads, and submits jobs.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use swarm_consensus::{BoxFuture, Consensus, Lanes, Peers, RaftTiming, Settings, Spec, raft_dir};
use swarm_proto::{
    ClusterId, NodeId, PROTOCOL, PeerKey, RaftDir, UnixMillis,
    ledger::{Addrs, Applied, Batch, Command, Submit},
    peer::Hello,
    spec::{Array, JobSpec, Work},
};
use swarm_sim::{door::Door, net};
use swarm_transport::{BindSpec, Connection, Dial, Endpoint, Plane, Pool};
use tokio::time::sleep;

use crate::world::World;

const CLUSTER: ClusterId = ClusterId([3; 16]);
const CONTROL: u16 = 4747;
const BULK: u16 = 4748;

fn addr(node: u64, port: u16) -> SocketAddr {
    SocketAddr::new(turmoil::lookup(format!("n{node}")), port)
}

fn key(world: &World, node: u64) -> PeerKey {
    net::identity(world.seed(), CLUSTER, node).peer_key()
}

struct Others {
    world: World,
    control: Pool,
    bulk: Pool,
}

impl Peers for Others {
    fn connection(&self, node: NodeId, plane: Plane) -> BoxFuture<io::Result<Connection>> {
        let (pool, port) = if plane == Plane::Bulk { (&self.bulk, BULK) } else { (&self.control, CONTROL) };
        let (pool, key) = (pool.clone(), key(&self.world, node.0));
        Box::pin(async move {
            let to = Dial { node: Some(node), key: Some(key), addr: addr(node.0, port) };
            pool.get(plane, &to).await.map_err(io::Error::other)
        })
    }
}

fn endpoint(world: &World, me: u64, life: u64, planes: Vec<Plane>, keeper: Arc<Door>) -> turmoil::Result<Endpoint> {
    let port = if planes.contains(&Plane::Bulk) { BULK } else { CONTROL };
    let tap = world.clone();
    let tap: net::Tap = Arc::new(move |sent| tap.say(format_args!("{:?} {}>{} {:x?}", sent.at, sent.from, sent.to, sent.contents)));
    let hello = Hello {
        protocol: PROTOCOL,
        cluster: CLUSTER,
        node: Some(NodeId(me)),
        name: format!("n{me}"),
        addrs: Addrs { control: addr(me, CONTROL), bulk: addr(me, BULK) },
        life,
    };
    let spec = BindSpec {
        socket: net::socket(addr(me, port), Some(tap))?,
        runtime: Arc::new(quinn::TokioRuntime),
        identity: net::identity(world.seed(), CLUSTER, me),
        realm: swarm_transport::Realm { cluster: CLUSTER, epoch: 0 },
        protocols: PROTOCOL..=PROTOCOL,
        crypto: net::crypto(),
        seed: net::life_seed(world.seed(), me, life),
        planes,
        wall: net::wall_clock(),
    };
    Ok(Endpoint::bind(spec, Arc::new(move || hello.clone()), keeper)?)
}

/// One life of a host.
pub(crate) async fn run(world: World, me: u64) -> turmoil::Result {
    let life = world.next_life(me);
    let cell = Arc::new(OnceLock::new());
    let voters = (1..=world.nodes()).map(|node| key(&world, node)).collect();
    let keeper = Arc::new(Door { voters, consensus: Arc::downgrade(&cell) });
    let control = endpoint(&world, me, life, vec![Plane::Control, Plane::Raft], keeper.clone())?;
    let bulk = endpoint(&world, me, life, vec![Plane::Bulk], keeper)?;
    let disk = world.disk(me).mount();
    let raft_dir = raft_dir(&*disk, RaftDir([me as u8; 16]))?;
    let consensus = Consensus::start(Spec {
        me: NodeId(me),
        cluster: CLUSTER,
        raft_dir,
        disk,
        timing: RaftTiming {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(200),
        },
        seed: u64::from_le_bytes(net::life_seed(world.seed(), me, life)[..8].try_into()?),
        peers: Arc::new(Others { world: world.clone(), control: control.pool(), bulk: bulk.pool() }),
        sync: Lanes::Tasks,
        settings: Settings { segment: 64 << 10, snapshot_every: 150, keep: 30, ..Settings::default() },
    })
    .await;
    let consensus = match consensus {
        Ok(consensus) => consensus,
        Err(error) => {
            world.failed(me, error);
            return Ok(());
        }
    };
    cell.set(consensus.clone()).map_err(|_| "started twice")?;
    if me == 1 && life == 1 {
        consensus.initialize().await?;
    }
    tokio::spawn(watch(world.clone(), me, consensus.clone()));
    tokio::spawn(make_voters(world.clone(), consensus.clone()));
    tokio::spawn(submit(world.clone(), me, life, consensus.clone()));
    let fatal = consensus.failed().await;
    world.failed(me, fatal);
    Ok(())
}

async fn watch(world: World, me: u64, consensus: Consensus) {
    let mut role = consensus.role();
    loop {
        let now = role.borrow_and_update().clone();
        world.role(me, &now, consensus.with_ledger(|l| (l.applied(), l.hash())));
        if role.changed().await.is_err() {
            return;
        }
    }
}

/// While this node leads, everybody becomes a voter, one after the other.
async fn make_voters(world: World, consensus: Consensus) {
    loop {
        sleep(Duration::from_millis(100)).await;
        let role = consensus.role().borrow().clone();
        let missing = (1..=world.nodes()).map(NodeId).find(|node| !role.voters.contains(node));
        if let Some(node) = missing.filter(|_| role.is_leader) {
            let mut voters: BTreeSet<NodeId> = role.voters;
            voters.insert(node);
            if consensus.add_learner(node).await.is_ok() {
                // whatever comes of it is seen in the role
                let _ = consensus.change_voters(voters).await;
            }
        }
    }
}

/// While this node leads: a job every 20 ms, tried again under the same key until it is known.
async fn submit(world: World, me: u64, life: u64, consensus: Consensus) {
    for n in 0u64.. {
        let key = format!("n{me}-{life}-{n}");
        loop {
            sleep(Duration::from_millis(20)).await;
            if world.are_clients_stopped() {
                sleep(Duration::from_millis(700)).await;
                return world.examine(me, &consensus);
            }
            if !consensus.role().borrow().is_leader {
                continue;
            }
            if let Ok((_, applied)) = consensus.propose(batch(&key)).await {
                match &applied[..] {
                    [Applied::Accepted { job, .. }] => world.acknowledge(key, *job),
                    other => world.failed(me, format_args!("{other:?}")),
                }
                break;
            }
        }
    }
}

fn batch(key: &str) -> Batch {
    let spec = JobSpec { labels: [("padding".to_owned(), "x".repeat(100))].into(), ..JobSpec::new(Work::Noop) };
    let submit = Submit { submitter: "sim".into(), key: Some(key.into()), spec: Arc::new(spec), array: Array::single(), retry_of: None };
    Batch { at: UnixMillis(1), commands: vec![Command::Submit(submit)] }
}
