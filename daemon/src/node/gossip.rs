//! Drives membership: datagrams in and out, pulls over streams, dials where a probe found no connection.
//!
//! Everything that has arrived is handled before any timer: a node that was paused first hears what it missed, and only then
//! judges others.

use std::sync::Arc;

use bytes::Bytes;
use swarm_core::members::{Event, Members, Settings};
use swarm_proto::{
    Code, NodeId,
    peer::{NodeMeta, Open},
};
use swarm_transport::{DialError, Endpoint, Plane};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{Node, door::NOT_LET_IN, env::stopped, join};

/// Datagrams that may wait; what comes beyond is lost, as on any network.
const INBOX: usize = 4_096;

/// One thing for the membership task.
pub(crate) enum Input {
    Datagram {
        from: NodeId,
        data: Bytes,
    },
    SyncRequest {
        from: NodeId,
        request: Bytes,
        reply: oneshot::Sender<Bytes>,
    },
    SyncReply {
        from: NodeId,
        reply: Bytes,
    },
    /// There is a connection that a probe had asked for.
    Linked {
        node: NodeId,
    },
    Leave,
}

/// The way to the membership task.
#[derive(Clone)]
pub(crate) struct Inbox(mpsc::Sender<Input>);

impl Inbox {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Input>) {
        let (tx, rx) = mpsc::channel(INBOX);
        (Self(tx), rx)
    }

    /// Never waits: a full inbox loses the datagram.
    pub(crate) fn datagram(&self, from: NodeId, data: Bytes) {
        let _ = self.0.try_send(Input::Datagram { from, data });
    }

    pub(crate) async fn ask(&self, make: impl FnOnce(oneshot::Sender<Bytes>) -> Input) -> Option<Bytes> {
        let (reply, answer) = oneshot::channel();
        self.0.send(make(reply)).await.ok()?;
        answer.await.ok()
    }

    pub(crate) async fn send(&self, input: Input) {
        let _ = self.0.send(input).await;
    }
}

struct Gossip {
    node: Arc<Node>,
    members: Members,
    inbox: mpsc::Receiver<Input>,
    /// Emptied before any timer runs.
    endpoint: Endpoint,
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Runs membership until the node stops.
pub(crate) async fn run(
    node: Arc<Node>,
    endpoint: Endpoint,
    inbox: mpsc::Receiver<Input>,
    settings: Settings,
    stop: watch::Receiver<bool>,
) {
    let mut members = Members::new(node.me, settings, node.seed ^ 0x6d65_6d62, now());
    members.set_meta_version(node.meta.borrow().version);
    members.handle_view(&node.roster.current(), now());
    Gossip { node, members, inbox, endpoint }.run(stop).await;
}

impl Gossip {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut view = self.node.roster.changes();
        let mut leader = self.node.peers.leader_changes();
        let mut meta = self.node.meta.subscribe();
        loop {
            self.carry_out();
            let due = self.members.poll_timeout().map(|(due, _)| Instant::from_std(due));
            tokio::select! {
                biased;
                Some(input) = self.inbox.recv() => self.drain(input),
                changed = view.changed() => {
                    if changed.is_err() { return }
                    let current = view.borrow_and_update().clone();
                    self.members.handle_view(&current, now());
                }
                Ok(()) = leader.changed() => {
                    if let (term, Some(leader)) = *leader.borrow_and_update() {
                        self.members.set_leader_hint(leader, term);
                    }
                }
                Ok(()) = meta.changed() => self.members.set_meta_version(meta.borrow_and_update().version),
                () = stopped(&mut stop) => return self.carry_out(),
                () = async { tokio::time::sleep_until(due.expect("guarded")).await }, if due.is_some() => self.handle_due().await,
            }
        }
    }

    /// What has arrived is heard first; the timers that are then due are about what really did not come.
    async fn handle_due(&mut self) {
        self.endpoint.drain().await;
        while let Ok(input) = self.inbox.try_recv() {
            self.handle(input);
        }
        self.members.handle_timeout(now());
    }

    fn drain(&mut self, first: Input) {
        self.handle(first);
        while let Ok(input) = self.inbox.try_recv() {
            self.handle(input);
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Datagram { from, data } => {
                if let Err(error) = self.members.handle_packet(from, &data, now()) {
                    tracing::debug!(%from, %error, "a gossip packet was refused");
                }
            }
            Input::SyncRequest { from, request, reply } => match self.members.handle_sync_request(from, &request, now()) {
                Ok(answer) => drop(reply.send(answer)),
                Err(error) => tracing::debug!(%from, %error, "a gossip pull was refused"),
            },
            Input::SyncReply { from, reply } => {
                if let Err(error) = self.members.handle_sync_reply(from, &reply, now()) {
                    tracing::debug!(%from, %error, "the answer to a gossip pull was refused");
                }
            }
            Input::Linked { node } => self.members.handle_linked(node, now()),
            Input::Leave => self.members.leave(now()),
        }
    }

    fn carry_out(&mut self) {
        while let Some((to, packet)) = self.members.poll_transmit() {
            match self.node.control.existing(Plane::Control, to) {
                // one that is lost on the way or for want of room is a probe that gets no answer
                Some(connection) => drop(connection.send_datagram(packet)),
                None => {
                    self.members.handle_unsent(to, now());
                    self.dial(to);
                }
            }
        }
        while let Some(from) = self.members.poll_sync() {
            self.pull(from, self.members.sync_request());
        }
        while let Some(event) = self.members.poll_event() {
            self.handle_event(event);
        }
    }

    fn handle_event(&self, event: Event) {
        match event {
            Event::HealthChanged { node, health } => {
                self.node.journal.info(format!("{} ({node}) is {health:?}", self.node.roster.name(node)));
                self.node.peers.set_health(node, health);
            }
            Event::LeaderHint { node, term } => self.node.peers.hint_leader(term, node),
            Event::MetaStale { node, .. } => self.pull_meta(node),
            Event::ViewStale { from, .. } => {
                let node = self.node.clone();
                tokio::spawn(async move {
                    // the leader's word before that of whoever says to know more
                    if !join::refresh_view(&node).await {
                        join::pull_view(&node, from).await;
                    }
                });
            }
            Event::Refuted { incarnation } => {
                self.node.journal.info(format!("others doubted this node; it answered with incarnation {incarnation}"))
            }
            Event::HasLeft => drop(self.node.has_left.send_replace(true)),
            Event::HeldDeaf(is_deaf) => {
                if is_deaf {
                    self.node.journal.warn("this node hears too few of its peers: it holds itself deaf and judges nobody");
                } else {
                    self.node.journal.info("this node hears its peers again");
                }
            }
        }
    }

    /// Makes a connection for the next probe; the pool keeps one dial at a time and backs off.
    fn dial(&self, to: NodeId) {
        let Some(dial) = self.node.roster.dial_control(to) else { return };
        let node = self.node.clone();
        tokio::spawn(async move {
            let made = node.control.get(Plane::Control, &dial).await;
            if let Err(DialError::Refused(problem)) = &made
                && problem.what == NOT_LET_IN
                && matches!(problem.code, Code::Conflict | Code::Denied)
            {
                node.set_outcast(problem.why.clone());
            }
            let is_made = made.is_ok();
            // one that was made before the peer knew its own id is not yet the member's: to try it again at once would never end
            if is_made && node.control.existing(Plane::Control, to).is_some() {
                node.gossip.send(Input::Linked { node: to }).await;
            }
        });
    }

    fn pull(&self, from: NodeId, request: Bytes) {
        let node = self.node.clone();
        tokio::spawn(async move {
            let ask = async {
                let connection = node.control.get(Plane::Control, &node.roster.dial_control(from)?).await.ok()?;
                connection.call::<Bytes>(&Open::GossipSync(request)).await.ok()
            };
            // membership asks again by itself
            if let Some(reply) = ask.await {
                node.gossip.send(Input::SyncReply { from, reply }).await;
            }
        });
    }

    fn pull_meta(&self, from: NodeId) {
        let node = self.node.clone();
        tokio::spawn(async move {
            let Some(dial) = node.roster.dial_control(from) else { return };
            let Ok(connection) = node.control.get(Plane::Control, &dial).await else { return };
            match connection.call::<NodeMeta>(&Open::Meta).await {
                Ok(meta) if meta.is_bounded() => node.peers.set_meta(from, meta),
                Ok(_) => tracing::warn!(node = %from, "says more of itself than is kept: it is passed over"),
                Err(error) => tracing::debug!(node = %from, %error, "does not say what it is"),
            }
        });
    }
}
