//! Members that are in other hands, and floods: what they may cost, and what they cannot do.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use swarm_proto::{
    ClusterId, LogIndex, NodeId, PROTOCOL, Term,
    api::{Health, SubmitRequest},
    gossip::{Claim, Head, Kind, Mood, Packet, Standing, Update, Writer, You},
    ledger::Submit,
    limits,
    peer::{Answer, FromSubmitDesk, FromWorker, NodeMeta, Numbered, Open, Report, ToSubmitDesk, ToWorker},
    spec::{Array, JobSpec, Resources, Work},
};
use swarm_tests::{
    Footprints, Host, Hosts, done_in, eventually,
    intruder::{Intruder, Raw, Shown, addrs, hello, place, realm},
    submit,
};
use swarm_transport::{CloseCode, FrameRx, FrameTx, Identity, Plane, StreamError};
use tokio::net::UdpSocket;

const MIB: u64 = 1 << 20;
/// Handshakes on one endpoint that are begun and not gone on with: more than it has room for. And the ports that they come from.
const HELD: usize = limits::HANDSHAKES + limits::HANDSHAKES / 2;
const WAYS: usize = 8;
/// As many at once as are answered without asking for the sender's address first.
const FEW: usize = limits::HANDSHAKES / 4;

/// Three hosts of one swarm, of which the third is in other hands: its daemon is gone, its papers are not.
struct Taken {
    hosts: Hosts,
    own: NodeId,
    cluster: ClusterId,
}

impl Taken {
    async fn start() -> Self {
        let mut hosts = Hosts::start(3, |_| ()).await;
        hosts.unite().await;
        let status = hosts.list[2].answers().await;
        hosts.list[2].kill();
        Self { hosts, own: status.node.expect("an id"), cluster: status.cluster }
    }

    fn honest(&self) -> &[Host] {
        &self.hosts.list[..2]
    }

    fn ip(&self) -> IpAddr {
        self.hosts.list[2].ip
    }

    /// Speaks as the node does, with the house's own transport.
    fn intruder(&self) -> Intruder {
        Intruder::with_papers_of(&self.hosts.list[2].state, hello(self.cluster, Some(self.own), self.ip()))
    }

    /// Has the node's papers and no manners.
    fn raw(&self, plane: Plane) -> Raw {
        let identity = Identity::load(&self.hosts.list[2].state).expect("the papers");
        let shown = Shown::new(identity.chain().swap_remove(0), &identity.key().pkcs8());
        Raw::new(Some(shown), plane.alpn(PROTOCOL, realm(self.cluster)))
    }

    fn footprints(&self) -> Footprints {
        Footprints::of(self.honest().iter().map(|host| host.pid().as_raw_nonzero().get().cast_unsigned()))
    }

    /// Both honest nodes are well in each other's eyes, the same one leads, and there is work done.
    async fn is_undisturbed(&self, term: Term) {
        for host in self.honest() {
            let nodes = host.client().nodes().await.expect("nodes");
            let ill = nodes.iter().find(|node| node.node != self.own && node.health != Health::Alive);
            assert!(ill.is_none(), "{ill:?}");
            assert_eq!(host.client().leader().await.expect("a leader").term, term);
            assert_eq!(host.ok(&["run", "--", "echo", "undisturbed"]), "undisturbed\n");
        }
    }

    async fn term(&self) -> Term {
        eventually("one of the two leads", async || self.honest()[0].client().leader().await.ok().filter(|status| status.name != "host3"))
            .await
            .term
    }
}

fn head(incarnation: u64) -> Head {
    Head {
        kind: Kind::Gossip,
        incarnation,
        meta: 1,
        mood: Mood::Well,
        you: You { incarnation: u64::MAX, standing: Standing::Down },
        digest: [7; 8],
        roster: LogIndex(0),
        term: Term(0),
        leader: NodeId(0),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lies_about_everybody_changes_nothing() {
    let taken = Taken::start().await;
    let term = taken.term().await;
    let before = taken.footprints();
    let intruder = taken.intruder();
    let mut ways = Vec::new();
    for host in taken.honest() {
        ways.push(intruder.dial(host, Plane::Control).await.expect("a member gets in"));
    }
    let lies = |incarnation: u64| {
        let mut packet = Writer::packet(&head(9));
        for node in (1..=4).map(NodeId).filter(|node| *node != taken.own) {
            for claim in [Claim::Down { by: taken.own }, Claim::Left, Claim::Suspect { by: taken.own }] {
                packet.push(&Update { node, incarnation, meta: u64::MAX, claim });
            }
        }
        packet.finish()
    };
    let said: Vec<Bytes> = [u64::MAX, u64::MAX - 1, u64::MAX / 2, 1 << 20].map(lies).to_vec();
    assert!(said.iter().all(|bytes| Packet::decode(bytes).is_ok()));
    // garbage, too short, and as long as a datagram may be
    let noise: Vec<Bytes> = [1, 40, limits::GOSSIP_PACKET].map(|len| Bytes::from(vec![0xa5; len])).to_vec();
    // each of them again and again: a replayed datagram is one more of these
    let until = Instant::now() + Duration::from_secs(3);
    let mut sent = 0;
    while Instant::now() < until {
        for way in &ways {
            sent += said.iter().chain(&noise).filter(|bytes| way.send_datagram((*bytes).clone())).count();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        if sent % 700 < 14 {
            let nodes = taken.honest()[0].client().nodes().await.expect("nodes");
            assert!(nodes.iter().all(|node| node.node == taken.own || node.health == Health::Alive), "{nodes:?}");
        }
    }
    assert!(sent > 1_000, "{sent} were sent");
    taken.is_undisturbed(term).await;
    before.have_grown_at_most(32 * MIB, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_says_too_much_of_itself_is_not_heard() {
    let taken = Taken::start().await;
    let term = taken.term().await;
    let before = taken.footprints();
    let intruder = taken.intruder();
    let report = |label: usize| {
        let meta = NodeMeta {
            memory: 1 << 40,
            version: 99,
            name: "host3".into(),
            software: String::new(),
            protocol: PROTOCOL,
            addrs: addrs(taken.ip()),
            os: "linux".into(),
            arch: String::new(),
            capacity: Resources::default(),
            labels: [("much".to_owned(), "m".repeat(label))].into(),
            executors: Vec::new(),
        };
        let (node, window) = (taken.own, 1);
        FromWorker::Report(Report {
            node,
            life: 1,
            meta: meta.into(),
            window,
            held: Vec::new(),
            last_grant: LogIndex(0),
            view: LogIndex(0),
        })
    };
    let leader = taken.honest()[0].client().leader().await.expect("a leader").name;
    let leader = &taken.honest()[usize::from(leader != "host1")];
    let control = intruder.dial(leader, Plane::Control).await.expect("a member gets in");
    for (label, is_heard) in [(limits::NODE_META - 256, true), (limits::NODE_META + 1, false), (limits::CONTROL_FRAME - 1_024, false)] {
        let (mut tx, mut rx) = control.open(&Open::Work).await.expect("a stream");
        tx.send(&report(label)).await.expect("it fits a frame");
        let said = tokio::time::timeout(Duration::from_secs(10), rx.recv::<ToWorker>()).await.expect("an answer or an end");
        assert_eq!(matches!(said, Ok(Some(ToWorker::Welcome { .. }))), is_heard, "{label}: {said:?}");
    }
    // over the bound of a frame: the stream ends before anything of it is kept
    let (mut tx, mut rx) = control.open(&Open::Work).await.expect("a stream");
    let long = u32::try_from(limits::CONTROL_FRAME + 1).expect("it fits");
    tx.send_bytes(Bytes::copy_from_slice(&long.to_le_bytes())).await.expect("its head is sent");
    let _ = tx.send_bytes(vec![0; 64 << 10].into()).await;
    let said = tokio::time::timeout(Duration::from_secs(10), rx.recv::<ToWorker>()).await.expect("an end");
    assert!(matches!(said, Ok(None) | Err(StreamError::Reset(_) | StreamError::Lost(_))), "{said:?}");
    taken.is_undisturbed(term).await;
    before.have_grown_at_most(32 * MIB, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_under_the_same_authority_is_another_cluster() {
    let taken = Taken::start().await;
    let term = taken.term().await;
    let other = ClusterId([9; 16]);
    let stranger = Intruder::with_papers_of(&taken.hosts.list[2].state, hello(other, Some(taken.own), taken.ip()));
    for plane in Plane::ALL {
        let refused = stranger.dial(&taken.honest()[0], plane).await.expect_err("let in from another cluster");
        assert!(!refused.to_string().is_empty(), "{plane}: {refused}");
        // the handshake of this one, the words of the other
        let said = taken.raw(plane).knock(place(&taken.honest()[0], plane), &hello(other, Some(taken.own), taken.ip())).await;
        let why = said.map(drop).expect_err("let in by its words");
        assert!(why.contains("swarm"), "{plane}: {why}");
    }
    taken.is_undisturbed(term).await;
}

/// Frames of which hardly anything comes, in as many streams as there may be; and streams whose answers nobody reads.
#[tokio::test(flavor = "multi_thread")]
async fn slow_writers_and_deaf_readers_cost_little() {
    let taken = Taken::start().await;
    let term = taken.term().await;
    let host = &taken.honest()[0];
    let before = taken.footprints();
    let claims = hello(taken.cluster, Some(taken.own), taken.ip());
    let raw = taken.raw(Plane::Control);
    let connection = raw.knock(place(host, Plane::Control), &claims).await.expect("a member gets in");
    let mut slow = Vec::new();
    while let Ok(opened) = tokio::time::timeout(Duration::from_millis(200), connection.open_bi()).await {
        let (mut tx, rx) = opened.expect("the connection lives");
        let whole = u32::try_from(limits::CONTROL_FRAME).expect("it fits");
        tx.write_all(&whole.to_le_bytes()).await.expect("written");
        slow.push((tx, rx));
    }
    assert!(slow.len() >= limits::STREAMS as usize / 2, "{} streams", slow.len());
    // one byte of each at a time, for longer than a stream may take to say what it is for
    let until = Instant::now() + limits::HANDSHAKE_TIME + Duration::from_secs(1);
    let mut refused = 0;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
        for (tx, _) in &mut slow {
            refused += usize::from(tx.write_all(&[0]).await.is_err());
        }
        before.have_grown_at_most(32 * MIB, 16);
    }
    assert!(refused >= slow.len(), "streams that never say what they are for are kept: {refused} refusals");
    drop(connection);

    let deaf = taken.intruder().dial(host, Plane::Control).await.expect("a member gets in");
    let mut unread = Vec::new();
    for _ in 0..limits::STREAMS / 2 {
        for open in [Open::View { after: LogIndex(0) }, Open::Events { after: swarm_proto::Cursor { index: LogIndex(0), sub: 0 } }] {
            if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), deaf.open(&open)).await {
                unread.push(stream);
            }
        }
    }
    // there is something to say on each of them
    for _ in 0..20 {
        host.ok(&["run", "--", "true"]);
    }
    before.have_grown_at_most(48 * MIB, 16);
    taken.is_undisturbed(term).await;
}

/// Somewhere to send to: it is passed on to a daemon from one port, and what comes back is thrown away.
async fn one_way(target: SocketAddr) -> SocketAddr {
    let way = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let there = way.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        loop {
            let Ok((len, from)) = way.recv_from(&mut buffer).await else { continue };
            if from != target {
                let _ = way.send_to(&buffer[..len], target).await;
            }
        }
    });
    there
}

/// First packets of handshakes that nobody goes on with: so many at once, from several ports.
async fn half_open(target: SocketAddr, raw: &Raw, count: usize) -> Vec<quinn::Connecting> {
    let mut ways = Vec::new();
    for _ in 0..WAYS {
        ways.push(one_way(target).await);
    }
    (0..count).map(|n| raw.begin(ways[n % WAYS])).collect()
}

/// Handshakes to their end, by nobody who is let in.
async fn handshakes(target: SocketAddr, raw: &Raw) {
    loop {
        let _ = tokio::time::timeout(Duration::from_secs(1), raw.shake_hands(target)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Datagrams that are nothing.
async fn garbage(target: SocketAddr) {
    let way = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let mut bytes = vec![0xc3; 1_200];
    for round in 0u8.. {
        bytes[1..9].fill(round);
        for _ in 0..10 {
            let _ = way.send_to(&bytes, target).await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        if round == u8::MAX {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_leave_others_half_their_rate_at_least() {
    let taken = Taken::start().await;
    let term = taken.term().await;
    let host = &taken.honest()[0];
    let before = taken.footprints();
    let [control, bulk] = [Plane::Control, Plane::Bulk].map(|plane| place(host, plane));
    let nobody = |plane: Plane| Raw::new(None, plane.alpn(PROTOCOL, realm(taken.cluster)));
    let (at_control, at_bulk) = (nobody(Plane::Control), nobody(Plane::Bulk));
    let (client, mut calm, mut flooded) = (host.client(), 0, 0);
    // in turn, so that both see the same host
    for _ in 0..4 {
        calm += done_in(&client, Duration::from_millis(700)).await;
        // whoever makes the flood is on the same processors: more of these at once are another test's
        let _held = [half_open(control, &at_control, FEW).await, half_open(bulk, &at_bulk, FEW).await];
        let flood = async {
            tokio::join!(handshakes(control, &at_control), handshakes(bulk, &at_bulk), garbage(control), garbage(bulk));
        };
        flooded += tokio::select! {
            done = done_in(&client, Duration::from_millis(700)) => done,
            () = flood => unreachable!("it has no end"),
        };
    }
    assert!(calm > 20 && 2 * flooded >= calm, "{calm} jobs in calm, {flooded} under the flood");
    before.have_grown_at_most(64 * MIB, 16);
    taken.is_undisturbed(term).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_half_open_handshakes_keep_nobody_out() {
    let taken = Taken::start().await;
    let term = taken.term().await;
    let host = &taken.honest()[0];
    let (client, before, mut served) = (host.client(), taken.footprints(), 0);
    let nobody = |plane: Plane| Raw::new(None, plane.alpn(PROTOCOL, realm(taken.cluster)));
    let (at_control, at_bulk) = (nobody(Plane::Control), nobody(Plane::Bulk));
    let held = [half_open(place(host, Plane::Control), &at_control, HELD).await, half_open(place(host, Plane::Bulk), &at_bulk, HELD).await];
    // for longer than a handshake may take
    let until = Instant::now() + limits::HANDSHAKE_TIME + Duration::from_secs(2);
    while Instant::now() < until {
        for plane in Plane::ALL {
            // somebody whom nobody has an address of yet
            let newcomer = taken.intruder();
            let entry = tokio::time::timeout(Duration::from_secs(10), newcomer.dial(host, plane)).await;
            entry.expect("a member does not wait").expect("a member gets in");
        }
        served += done_in(&client, Duration::from_millis(200)).await;
        before.have_grown_at_most(48 * MIB, 16);
    }
    assert_eq!([at_control.open(), at_bulk.open()], held.each_ref().map(Vec::len), "handshakes that are half open");
    assert!(served > 20, "{served} jobs");
    drop(held);
    taken.is_undisturbed(term).await;
}

/// Between a member and a daemon: passes on what they send, and keeps what went to the daemon.
struct Relay {
    front: UdpSocket,
    back: UdpSocket,
    kept: Mutex<Vec<Vec<u8>>>,
}

impl Relay {
    async fn to(target: SocketAddr) -> Arc<Self> {
        let bind = async || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let relay = Arc::new(Self { front: bind().await, back: bind().await, kept: Mutex::default() });
        relay.back.connect(target).await.expect("an address");
        tokio::spawn(relay.clone().pass());
        relay
    }

    fn addr(&self) -> SocketAddr {
        self.front.local_addr().expect("bound")
    }

    async fn pass(self: Arc<Self>) {
        let (mut there, mut here, mut member) = ([0; 2_048], [0; 2_048], None);
        loop {
            tokio::select! {
                Ok((len, from)) = self.front.recv_from(&mut there) => {
                    member = Some(from);
                    self.kept.lock().expect("nobody panics with it").push(there[..len].to_vec());
                    let _ = self.back.send(&there[..len]).await;
                }
                Ok(len) = self.back.recv(&mut here) => {
                    if let Some(member) = member {
                        let _ = self.front.send_to(&here[..len], member).await;
                    }
                }
                else => {}
            }
        }
    }

    /// Sends all of it again, and again, from where it came from and from elsewhere.
    async fn replay(&self, times: usize) -> usize {
        let kept = self.kept.lock().expect("nobody panics with it").clone();
        let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let target = self.back.peer_addr().expect("connected");
        for _ in 0..times {
            for datagram in &kept {
                let _ = self.back.send(datagram).await;
                let _ = elsewhere.send_to(datagram, target).await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        kept.len()
    }
}

/// A submission without a key, which would be another job each time that it came; which one it is.
async fn submitted(tx: &mut FrameTx, rx: &mut FrameRx) -> u64 {
    let spec = Arc::new(JobSpec::new(Work::Noop));
    let submit = Submit { submitter: "local".into(), key: None, spec, array: Array::single(), retry_of: None };
    tx.send(&ToSubmitDesk::Submit(vec![Numbered { seq: 1, submit, follow: false }])).await.expect("sent");
    let said = tokio::time::timeout(Duration::from_secs(10), rx.recv::<FromSubmitDesk>()).await.expect("an answer");
    let Ok(Some(FromSubmitDesk::Answers(answers))) = said else { panic!("{said:?}") };
    let [Answer::Accepted { job, .. }] = answers[..] else { panic!("{answers:?}") };
    job.0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_sent_changes_nothing_when_it_comes_again() {
    let taken = Taken::start().await;
    let term = taken.term().await;
    let before = taken.footprints();
    let leader = taken.honest()[0].client().leader().await.expect("a leader").name;
    let leader = &taken.honest()[usize::from(leader != "host1")];
    let relay = Relay::to(place(leader, Plane::Control)).await;
    let control = taken.intruder();
    let control = control.dial_at(relay.addr(), Plane::Control).await.expect("a member gets in");
    let (mut tx, mut rx) = control.open(&Open::Submit { submitter: "local".into() }).await.expect("a stream");
    let mut last = 0;
    for _ in 0..5 {
        last = submitted(&mut tx, &mut rx).await;
    }
    // while the connection lives: handshake, words and all
    assert!(relay.replay(200).await >= 10, "hardly anything was recorded");
    assert_eq!(submitted(&mut tx, &mut rx).await, last + 1, "something was submitted again");
    control.close(CloseCode::Stopping, "it is done");
    relay.replay(200).await;
    assert_eq!(submit(&leader.client(), SubmitRequest { noop: true, ..SubmitRequest::default() }).await.0, last + 2);
    taken.is_undisturbed(term).await;
    before.have_grown_at_most(32 * MIB, 16);
}
