//! From nothing to a member that serves, and back: read top to bottom, this is what a daemon does.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use anyhow::Context as _;
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use rustls::crypto::CryptoProvider;
use swarm_api::{Pace, Rate};
use swarm_consensus::{Consensus, Fatal, RaftTiming, Spec, StartError};
use swarm_core::members;
use swarm_proto::{
    ClusterId, Code, LogIndex, NodeId, OLDEST_PROTOCOL, PROTOCOL, PeerKey, Problem, RaftDir,
    api::{Call, Health, Phase},
    identity::{Change, Found},
    ledger::{Admit, Command},
    limits,
    peer::{Hello, NodeMeta},
};
use swarm_transport::{BindSpec, Endpoint, EndpointEnd, HelloSource, Identity, Plane, Pool, Realm, WallClock};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    Domains, Env, Gateway, Holdings, Node,
    blobs::{self, Blobs},
    clock::SwarmClock,
    desk::{self, DeskWatch},
    door::Door,
    doorway,
    env::{OpenSocket, Workshop, stopped},
    files::Files,
    gossip,
    join::{self, Member},
    lead,
    links::Links,
    moves::{self, Mover, Rebind},
    papers::{self, Papers},
    peers::Peers,
    reach,
    rivals::Rivals,
    roster::Roster,
    settings, work,
};

/// How often one peer may ask.
const PEER_RATE: Rate = Rate::new(limits::PEER_REQUESTS.0, limits::PEER_REQUESTS.1);
/// How long a planned stop waits for another voter to take over.
const HANDOVER: Duration = Duration::from_secs(2);
/// How long the endpoints may take to say goodbye.
const FAREWELL: Duration = Duration::from_millis(300);
/// How often a part that waits for a state looks again.
const LOOK: Duration = Duration::from_millis(20);
/// The id that the first entry of a fresh ledger gives.
const FOUNDER: NodeId = NodeId(1);

/// A daemon that is a member.
pub struct Running {
    node: Arc<Node>,
    stop: watch::Sender<bool>,
    fatal: watch::Receiver<Option<String>>,
    control: Endpoint,
}

/// Starts every part and opens the gateway. Returns when this node is a member, however long nobody lets it in.
///
/// # Errors
/// A state directory that is damaged or belongs to another node, or an endpoint that cannot be bound.
pub async fn start(env: Env, holdings: Holdings, gateway: &Gateway) -> anyhow::Result<Running> {
    let mut rng = ChaCha12Rng::seed_from_u64(env.seed);
    let roster = Roster::load(env.records.clone(), &env.journal);
    let env = settings::at_start(env, &roster);
    let clock = SwarmClock::new(env.clocks.clone());
    let wall = clock.clone();
    let (pace, rivals) = (Pace::new(PEER_RATE), Rivals::default());
    let door = Arc::new(Door { cluster: env.realm.cluster, roster: roster.clone(), node: OnceLock::new(), pace, rivals });
    let life = rng.next_u64();
    // said from the first Hello on: a connection to a member that did not say who it is would stay a stranger's
    let known = known_member(&env)?;
    let me = watch::Sender::new(known.map(|member| member.node));
    let Holdings { open_socket: open, workshop, blobs, routes } = holdings;
    let meta = Arc::new(watch::Sender::new(env.settings.meta.clone()));
    let (stop, stopping) = watch::channel(false);
    let (fatal_tx, fatal) = watch::channel(None);

    let wiring = Wiring {
        identity: env.identity.clone(),
        realm: env.realm,
        crypto: env.crypto.clone(),
        wall: Arc::new(move || wall.now()),
        hello: hello_source(meta.subscribe(), env.realm.cluster, me.subscribe(), life),
        door: door.clone(),
        open,
    };
    let (control, (bulk, bulk_runtime)) = bind_both(&env, wiring, &meta, &mut rng, &stopping, &fatal_tx).await?;

    let key = env.identity.peer_key();
    let member = match known {
        Some(member) => member,
        None => become_member(&env, key, &control.pool(), &meta, &roster, &mut rng).await?,
    };
    me.send_replace(Some(member.node));
    [&control.pool(), &bulk].into_iter().for_each(Pool::introduce_again);

    let links = Arc::new(Links::new(roster.clone(), control.pool(), bulk.clone()));
    let (consensus, damage) = open_ledger(&env, member, &roster, links, rng.next_u64()).await?;
    let (desk_tx, desk_rx) = watch::channel(None);
    let (inbox, gossip_rx) = gossip::Inbox::new();
    let node = Arc::new(Node {
        me: member.node,
        cluster: env.realm.cluster,
        epoch: env.realm.epoch,
        seed: rng.next_u64(),
        settings: env.settings,
        clocks: env.clocks,
        clock,
        papers: Papers::new(env.identity, env.keep_identity),
        meta,
        roster,
        peers: Peers::new(),
        desk: DeskWatch(desk_rx),
        consensus,
        damage,
        control: control.pool(),
        bulk,
        gossip: inbox,
        outputs: workshop.outputs.clone(),
        blobs: Blobs::new(blobs, routes, env.domains, bulk_runtime),
        files: Files::default(),
        journal: env.journal,
        phase: watch::Sender::new(Phase::Joining),
        has_left: watch::Sender::new(false),
        runtime: tokio::runtime::Handle::current(),
        started: Instant::now(),
        outcast: Mutex::new(None),
        is_quiet: AtomicBool::new(true),
        streams: AtomicU64::new(0),
    });
    let _ = door.node.set(Arc::downgrade(&node));
    spawn_parts(&node, &control, desk_tx, gossip_rx, workshop, life, &stopping);
    watch_health(&node, &control, fatal_tx);
    gateway.open(node.clone());

    let admit = join::request(&node.settings, node.addrs(), key, member.raft);
    if env.is_founder {
        found(&node, &admit, env.found.as_ref()).await?;
    }
    tokio::spawn(moves::keep_announced(node.clone(), admit));
    let phase = if node.damage.is_empty() { Phase::Ready } else { Phase::Damaged };
    node.phase.send_replace(phase);
    node.journal.info(format!("{} is {}, {phase:?} at {}", node.settings.meta.name, node.me, node.addrs().control));
    Ok(Running { node, stop, fatal, control })
}

fn seed_of(rng: &mut ChaCha12Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}

/// What this node says of itself at each new connection; its id once it has one.
fn hello_source(meta: watch::Receiver<Arc<NodeMeta>>, cluster: ClusterId, me: watch::Receiver<Option<NodeId>>, life: u64) -> HelloSource {
    Arc::new(move || {
        let meta = meta.borrow().clone();
        Hello { protocol: PROTOCOL, cluster, node: *me.borrow(), name: meta.name.clone(), addrs: meta.addrs, life }
    })
}

/// What both endpoints are made of.
struct Wiring {
    identity: Arc<Identity>,
    realm: Realm,
    crypto: Arc<CryptoProvider>,
    wall: WallClock,
    hello: HelloSource,
    door: Arc<Door>,
    open: OpenSocket,
}

impl Wiring {
    fn bind(&self, addr: SocketAddr, planes: Vec<Plane>, seed: [u8; 32]) -> anyhow::Result<Endpoint> {
        let spec = BindSpec {
            socket: (self.open)(addr)?,
            runtime: Arc::new(quinn::TokioRuntime),
            identity: self.identity.clone(),
            realm: self.realm,
            protocols: OLDEST_PROTOCOL..=PROTOCOL,
            crypto: self.crypto.clone(),
            seed,
            planes,
            wall: self.wall.clone(),
        };
        Ok(Endpoint::bind(spec, self.hello.clone(), self.door.clone())?)
    }
}

/// Opens both endpoints, and has them go where the host goes.
async fn bind_both(
    env: &Env,
    wiring: Wiring,
    meta: &Arc<watch::Sender<Arc<NodeMeta>>>,
    rng: &mut ChaCha12Rng,
    stopping: &watch::Receiver<bool>,
    fatal: &watch::Sender<Option<String>>,
) -> anyhow::Result<(Endpoint, (Pool, Handle))> {
    let (addrs, open) = (env.settings.meta.addrs, wiring.open.clone());
    let control = wiring.bind(addrs.control, vec![Plane::Control, Plane::Raft, Plane::Renew], seed_of(rng))?;
    let (rebind, rebinds) = mpsc::channel(1);
    let rebinding = Rebinding { addr: addrs.bulk, rebinds, stopping: stopping.clone(), fatal: fatal.clone() };
    let bulk = bind_bulk(env.domains, wiring, rebinding, seed_of(rng)).await?;
    let mover = Mover {
        whereabouts: env.settings.whereabouts.clone(),
        meta: meta.clone(),
        control: control.clone(),
        bulk: rebind,
        open,
        wall: env.clocks.wall.clone(),
        journal: env.journal.clone(),
    };
    tokio::spawn(mover.run(stopping.clone()));
    Ok((control, bulk))
}

/// Where the bulk endpoint begins, and what it is told later.
struct Rebinding {
    addr: SocketAddr,
    rebinds: mpsc::Receiver<Rebind>,
    stopping: watch::Receiver<bool>,
    fatal: watch::Sender<Option<String>>,
}

/// The bulk endpoint lives in a domain of its own, so that nothing large delays a probe or a heartbeat. What drives large things
/// runs there too.
async fn bind_bulk(domains: Domains, wiring: Wiring, rebinding: Rebinding, seed: [u8; 32]) -> anyhow::Result<(Pool, Handle)> {
    let (tx, rx) = oneshot::channel();
    let Rebinding { addr, mut rebinds, mut stopping, fatal } = rebinding;
    domains.spawn("bulk", move || async move {
        let endpoint = match wiring.bind(addr, vec![Plane::Bulk], seed) {
            Ok(endpoint) => endpoint,
            Err(error) => return drop(tx.send(Err(error))),
        };
        let _ = tx.send(Ok((endpoint.pool(), Handle::current())));
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stopping) => return endpoint.close().await,
                end = endpoint.closed() => {
                    if end == EndpointEnd::Failed {
                        fatal.send_replace(Some("the bulk endpoint failed".into()));
                    }
                    return;
                }
                Some((addr, reply)) = rebinds.recv() => drop(reply.send(moves::rebind(&endpoint, &wiring.open, addr))),
            }
        }
    });
    rx.await.context("the bulk endpoint ended before it was there")?
}

/// Who this node was when it last ran, unless its log is gone: what it voted for is gone too, so it comes back as somebody new.
fn known_member(env: &Env) -> anyhow::Result<Option<Member>> {
    let Some(member) = Member::load(&env.records)? else { return Ok(None) };
    // not from the one that everything else is drawn from, so that a run that never loses its log stays the run that it was
    let mut fresh = RaftDir::default();
    ChaCha12Rng::seed_from_u64(!env.seed).fill_bytes(&mut fresh.0);
    let is_gone = swarm_consensus::raft_dir(&*env.disk, fresh).is_ok_and(|raft| raft == fresh);
    if is_gone {
        env.journal.warn(format!("the log of {} is gone: this host asks to be let in as somebody new", member.node));
    }
    Ok((!is_gone).then_some(member))
}

/// Takes an id: the founder is the first there is, everybody else is admitted.
async fn become_member(
    env: &Env,
    key: PeerKey,
    pool: &Pool,
    meta: &watch::Sender<Arc<NodeMeta>>,
    roster: &Roster,
    rng: &mut ChaCha12Rng,
) -> anyhow::Result<Member> {
    let mut fresh = RaftDir::default();
    rng.fill_bytes(&mut fresh.0);
    let raft = swarm_consensus::raft_dir(&*env.disk, fresh)?;
    let node = if env.is_founder {
        FOUNDER
    } else {
        let joined =
            join::knock(pool, &env.settings, meta, roster, &join::request(&env.settings, env.settings.meta.addrs, key, raft), &env.journal)
                .await;
        roster.merge(&joined.view);
        joined.node
    };
    let member = Member { node, raft };
    member.save(&env.records)?;
    Ok(member)
}

/// Opens the log. A damaged one is not a reason to end: the node works on without a vote, and says so.
async fn open_ledger(
    env: &Env,
    member: Member,
    roster: &Roster,
    peers: Arc<Links>,
    seed: u64,
) -> anyhow::Result<(Option<Consensus>, String)> {
    let timing = &env.settings.timing;
    let spec = Spec {
        me: member.node,
        raft_dir: member.raft,
        cluster: env.realm.cluster,
        disk: env.disk.clone(),
        timing: RaftTiming { heartbeat: timing.heartbeat, election_min: timing.election_min, election_max: timing.election_max },
        seed,
        peers,
        sync: env.lanes.clone(),
        settings: env.log,
    };
    match Consensus::start(spec).await {
        Ok(consensus) => {
            if roster.version() == LogIndex(0) {
                // nothing is remembered, or nothing that can be believed
                roster.merge(&consensus.with_ledger(|ledger| ledger.view(LogIndex(0))));
            }
            Ok((Some(consensus), String::new()))
        }
        Err(error @ StartError::Damaged { .. }) => {
            env.journal.warn(format!("this node does not vote: {error}"));
            let way = format!("it votes again as somebody new: stop its daemon, remove {}, start it", env.disk.place(""));
            Ok((None, format!("{error}; {way}")))
        }
        Err(error) => Err(error.into()),
    }
}

fn spawn_parts(
    node: &Arc<Node>,
    control: &Endpoint,
    desk: watch::Sender<Option<desk::Desk>>,
    inbox: tokio::sync::mpsc::Receiver<gossip::Input>,
    workshop: Workshop,
    life: u64,
    stopping: &watch::Receiver<bool>,
) {
    let timing = &node.settings.timing;
    let settings = members::Settings::of(timing.probe_interval, timing.probe_timeout, timing.suspicion);
    tokio::spawn(gossip::run(node.clone(), control.clone(), inbox, settings, stopping.clone()));
    tokio::spawn(lead::run(node.clone(), desk));
    tokio::spawn(work::run(node.clone(), workshop, life, stopping.clone()));
    tokio::spawn(hint_from_role(node.clone()));
    tokio::spawn(review_connections(node.clone()));
    tokio::spawn(settings::run(node.clone()));
    tokio::spawn(papers::run(node.clone(), stopping.clone()));
    tokio::spawn(reach::run(node.clone(), stopping.clone()));
    node.blobs.runtime().spawn(blobs::scrub::run(node.clone(), stopping.clone()));
}

/// A member that is gone from the view loses its connections at once.
async fn review_connections(node: Arc<Node>) {
    let mut view = node.roster.changes();
    while view.changed().await.is_ok() {
        view.mark_unchanged();
        node.control.review();
        node.bulk.review();
    }
}

/// A voter knows who leads before gossip does.
async fn hint_from_role(node: Arc<Node>) {
    let Some(consensus) = node.consensus.clone() else { return };
    let mut role = consensus.role();
    loop {
        let seen = role.borrow_and_update().clone();
        if let Some(leader) = seen.leader {
            node.peers.hint_leader(seen.term, leader);
        }
        if role.changed().await.is_err() {
            return;
        }
    }
}

/// What no node can live with ends the process: a deaf endpoint, a disk that cannot be trusted.
fn watch_health(node: &Arc<Node>, control: &Endpoint, fatal: watch::Sender<Option<String>>) {
    let control = control.clone();
    let endpoint_fatal = fatal.clone();
    tokio::spawn(async move {
        if control.closed().await == EndpointEnd::Failed {
            endpoint_fatal.send_replace(Some("the control endpoint failed".into()));
        }
    });
    let Some(consensus) = node.consensus.clone() else { return };
    tokio::spawn(async move {
        match consensus.failed().await {
            // it works on, without a vote that could be wrong
            Fatal::Diverged { .. } => {}
            why @ (Fatal::Disk(_) | Fatal::Stalled(_) | Fatal::Engine(_)) => drop(fatal.send_replace(Some(why.to_string()))),
        }
    });
}

/// The founder initialises an empty ledger, leads it, and enters first its authorities, then itself as the first member.
async fn found(node: &Arc<Node>, admit: &Admit, found: Option<&Found>) -> anyhow::Result<()> {
    let Some(consensus) = &node.consensus else { return Ok(()) };
    consensus.initialize().await?;
    let is_entered = || node.roster.member(node.me).is_some_and(|record| record.addrs == admit.addrs);
    while !is_entered() {
        if let Some(desk) = node.desk.current() {
            if let Some(found) = found.filter(|_| consensus.with_ledger(|ledger| ledger.cluster().is_none())) {
                let _ = desk::commit(&desk, Command::Identity(Box::new(Change::Found(found.clone())))).await;
            }
            let _ = desk::commit(&desk, Command::Admit(admit.clone())).await;
            node.roster.merge(&consensus.with_ledger(|ledger| ledger.view(LogIndex(0))));
        } else if node.peers.leader().1.is_some_and(|leader| leader != node.me) {
            // somebody else leads by now: this is a restart, and the founder is a node like any other
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

impl Running {
    /// This node's own replica, for whoever hosts it to look at; `None` when its log is damaged.
    pub fn consensus(&self) -> Option<&Consensus> {
        self.node.consensus.as_ref()
    }

    /// Where the API listens on the mesh; another place when the host has another address.
    pub fn api_addr(&self) -> watch::Receiver<SocketAddr> {
        let port = self.node.settings.api_port;
        let mut meta = self.node.meta.subscribe();
        let (tx, rx) = watch::channel(SocketAddr::new(self.node.addrs().control.ip(), port));
        tokio::spawn(async move {
            while meta.changed().await.is_ok() {
                tx.send_replace(SocketAddr::new(meta.borrow_and_update().addrs.control.ip(), port));
            }
        });
        rx
    }

    /// When the API's port on the mesh is open and with what, and who comes in by it.
    pub fn doorway(&self) -> (swarm_api::Doorway, swarm_api::Judge) {
        let (tx, rx) = watch::channel(None);
        tokio::spawn(doorway::run(self.node.clone(), tx, self.stop.subscribe()));
        let node = Arc::downgrade(&self.node);
        let judge = move |certificate: &[u8]| match node.upgrade() {
            Some(node) => doorway::judge(&node, certificate),
            None => Err("this daemon is stopping".into()),
        };
        (rx, Arc::new(judge))
    }

    /// Waits for something that this node cannot live with; says what.
    pub async fn failed(&mut self) -> String {
        match self.fatal.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether the swarm stands on a ledger that holds its authorities, as far as this node knows.
    pub fn is_founded(&self) -> bool {
        !self.node.roster.current().roots.nodes.is_empty()
    }

    /// Has the ledger say that this node leaves for good. It must be stopped afterwards.
    ///
    /// # Errors
    /// Why it stays: it is needed, or nobody leads.
    pub async fn leave(&self) -> Result<(), Problem> {
        let node = &self.node;
        let stays = |why: &str, hint: &str| Problem::new(Code::Conflict, "this host did not leave", why).hint(hint);
        let others = node.roster.current().nodes.values().filter(|record| !record.is_gone && record.id != node.me).count();
        if others == 0 {
            return Err(stays("it is the last member, and with it the swarm would end", "stop the daemon and remove its state directory"));
        }
        if let Some(consensus) = &node.consensus {
            let _ = tokio::time::timeout(HANDOVER, hand_over(node, consensus)).await;
            if consensus.role().borrow().is_leader {
                return Err(stays(
                    "it leads, and no other voter is there to take over",
                    "wait until another node votes: swarmctl leader show",
                ));
            }
        }
        super::gateway::forward(node, "local".into(), Call::Leave { node: node.me }).await.map(drop)
    }

    /// A planned stop: hands leadership over, says goodbye, and leaves nothing half done.
    pub async fn stop(self) {
        let node = self.node;
        node.phase.send_replace(Phase::Stopping);
        if let Some(consensus) = &node.consensus {
            let _ = tokio::time::timeout(HANDOVER, hand_over(&node, consensus)).await;
        }
        if node.is_quiet() {
            // with attempts under way a silent stop is better: a daemon that is back within the lease takes them up
            node.gossip.send(gossip::Input::Leave).await;
            let mut gone = node.has_left.subscribe();
            let _ = tokio::time::timeout(FAREWELL, gone.wait_for(|has_left| *has_left)).await;
        }
        self.stop.send_replace(true);
        if let Some(consensus) = &node.consensus {
            consensus.shutdown().await;
        }
        let _ = tokio::time::timeout(FAREWELL, self.control.close()).await;
    }
}

/// Gives leadership to another voter, if this node leads and there is one.
async fn hand_over(node: &Arc<Node>, consensus: &Consensus) {
    let mut role = consensus.role();
    loop {
        let seen = role.borrow_and_update().clone();
        if !seen.is_leader {
            return;
        }
        let heir = seen.voters.iter().find(|id| **id != node.me && node.peers.health(**id) == Health::Alive);
        let Some(heir) = heir else { return };
        if consensus.transfer_leader(*heir).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
        if role.changed().await.is_err() {
            return;
        }
    }
}
