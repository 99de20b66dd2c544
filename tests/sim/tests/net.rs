//! Endpoints in the simulated network: they work there, and the same seed gives the same trace.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use swarm_proto::{
    ClusterId, LogIndex, NodeId, PROTOCOL, PeerKey, Problem,
    ledger::Addrs,
    peer::{Hello, Open},
};
use swarm_sim::net::{self, Sent};
use swarm_transport::{BindSpec, Dial, Doorkeeper, Endpoint, FrameRx, FrameTx, Peer, Plane};

const CLUSTER: ClusterId = ClusterId([3; 16]);
const NODES: u64 = 3;
const PORT: u16 = 4747;

/// What happened, in order, one line each.
#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    fn say(&self, line: impl fmt::Display) {
        self.0.lock().unwrap().push(line.to_string());
    }

    fn count(&self, word: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.contains(word)).count()
    }
}

/// Lets every node of the world in, answers calls, and sends datagrams back once.
struct Keeper {
    me: u64,
    members: BTreeMap<PeerKey, NodeId>,
    trace: Trace,
}

impl Doorkeeper for Keeper {
    fn admit(&self, key: &PeerKey, _: &Hello, _: Plane) -> Result<Option<NodeId>, Problem> {
        Ok(self.members.get(key).copied())
    }

    fn stream(&self, _: Peer, _: Open, mut tx: FrameTx, mut rx: FrameRx) {
        tokio::spawn(async move {
            while let Ok(Some(number)) = rx.recv::<u64>().await {
                if tx.send(&(number + 1)).await.is_err() {
                    return;
                }
            }
            let _ = tx.finish();
        });
    }

    fn datagram(&self, peer: &Peer, data: Bytes) {
        self.trace.say(format_args!("n{} heard {data:?} from {:?}", self.me, peer.node));
        if data.starts_with(b"ping") {
            peer.connection.send_datagram(Bytes::from_static(b"pong"));
        }
    }
}

fn addr(node: u64) -> SocketAddr {
    SocketAddr::new(turmoil::lookup(format!("n{node}")), PORT)
}

async fn node(seed: u64, me: u64, life: u64, trace: Trace) -> turmoil::Result {
    let key = |node| net::identity(seed, CLUSTER, node).peer_key();
    let members = (1..=NODES).map(|node| (key(node), NodeId(node))).collect();
    let tap = trace.clone();
    let socket = net::socket(
        addr(me),
        Some(Arc::new(move |Sent { at, from, to, contents }| tap.say(format_args!("{at:?} {from}>{to} {contents:x?}")))),
    )?;
    let at = addr(me);
    let hello = Hello {
        protocol: PROTOCOL,
        cluster: CLUSTER,
        node: Some(NodeId(me)),
        name: format!("n{me}"),
        addrs: Addrs { control: at, bulk: at },
        life: 1,
    };
    let spec = BindSpec {
        socket,
        runtime: Arc::new(quinn::TokioRuntime),
        identity: net::identity(seed, CLUSTER, me),
        realm: swarm_transport::Realm { cluster: CLUSTER, epoch: 0 },
        protocols: PROTOCOL..=PROTOCOL,
        crypto: net::crypto(),
        seed: net::life_seed(seed, me, life),
        planes: vec![Plane::Control, Plane::Raft],
        wall: net::wall_clock(),
    };
    let endpoint = Endpoint::bind(spec, Arc::new(move || hello.clone()), Arc::new(Keeper { me, members, trace: trace.clone() }))?;
    for round in 0u64.. {
        for other in (1..=NODES).filter(|other| *other != me) {
            let to = Dial { node: Some(NodeId(other)), key: Some(key(other)), addr: addr(other) };
            let plane = if round % 2 == 0 { Plane::Control } else { Plane::Raft };
            trace.say(format_args!("n{me} {}", ask(&endpoint, plane, &to, round).await));
        }
        endpoint.drain().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A datagram, and a question on a stream.
async fn ask(endpoint: &Endpoint, plane: Plane, to: &Dial, round: u64) -> String {
    let connection = match endpoint.pool().get(plane, to).await {
        Ok(connection) => connection,
        Err(error) => return format!("no {plane} connection: {error}"),
    };
    connection.send_datagram(Bytes::from(format!("ping {round}")));
    let asking = async {
        let (mut tx, mut rx) = connection.open(&Open::View { after: LogIndex(round) }).await?;
        tx.send(&round).await?;
        rx.recv::<u64>().await
    };
    match tokio::time::timeout(Duration::from_secs(1), asking).await {
        Ok(Ok(answer)) => format!("answered {answer:?} by {connection:?} in {:?}", connection.rtt()),
        Ok(Err(error)) => format!("failed: {error}"),
        Err(_) => "no answer in time".to_owned(),
    }
}

/// Ten seconds with a crash, a restart, and a cut.
fn run(seed: u64) -> Trace {
    let trace = Trace::default();
    let mut builder = net::builder(seed);
    builder.min_message_latency(Duration::from_millis(1)).max_message_latency(Duration::from_millis(8)).fail_rate(0.01).repair_rate(0.3);
    let mut sim = builder.simulation_duration(Duration::from_secs(60)).build();
    for me in 1..=NODES {
        let (trace, lives) = (trace.clone(), AtomicU64::new(0));
        sim.host(format!("n{me}"), move || node(seed, me, lives.fetch_add(1, Ordering::Relaxed), trace.clone()));
    }
    for step in 0..10_000 {
        match step {
            2_000 => sim.crash("n2"),
            3_500 => sim.bounce("n2"),
            5_000 => sim.partition("n1", "n3"),
            6_500 => sim.repair("n1", "n3"),
            _ => {}
        }
        sim.step().unwrap();
    }
    drop(sim);
    trace
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2] {
        let (first, second) = (run(seed), run(seed));
        let (a, b) = (first.0.lock().unwrap(), second.0.lock().unwrap());
        let differs = a.iter().zip(b.iter()).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| (at, &a[at], &b[at])), None, "seed {seed} of {} lines", a.len());
        assert_eq!(a.len(), b.len());
    }
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(*run(1).0.lock().unwrap(), *run(2).0.lock().unwrap());
}

#[test]
fn nodes_talk_through_crash_and_cut() {
    let trace = run(7);
    assert!(trace.count("answered Some") > 300, "{} answers", trace.count("answered Some"));
    assert!(trace.count("heard b\"pong\"") > 100, "{} pongs", trace.count("heard b\"pong\""));
    let last = trace.0.lock().unwrap().iter().rev().take(400).filter(|line| line.contains("answered Some")).count();
    assert!(last > 10, "they talk at the end, after everything was repaired: {last}");
}
