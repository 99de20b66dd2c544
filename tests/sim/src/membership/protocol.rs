//! What a host of the simulation runs: our [`Members`], or what it is measured beside.

use std::{fmt::Debug, time::Instant};

use bytes::Bytes;
use swarm_core::members::{Event, Members, Settings};
use swarm_proto::{NodeId, api::Health, ledger::View};

/// A membership protocol, without input and output of its own.
pub trait Protocol: Debug + Sized {
    /// Its timings.
    type Settings: Clone + Debug;
    /// Whether a packet needs a connection, which has to be dialled first.
    const DIALS: bool;
    /// Bytes around a packet's payload.
    const OVERHEAD: u64;
    /// Bytes of a packet that only acknowledges, which follows each packet that is not answered at once.
    const ACK_ONLY: u64;

    /// One that knows only itself.
    fn start(me: NodeId, settings: &Self::Settings, seed: u64, now: Instant) -> Self;
    /// Who belongs, as far as it lets others tell it that.
    fn handle_view(&mut self, view: &View, now: Instant);
    fn handle_packet(&mut self, from: NodeId, bytes: &[u8], now: Instant);
    /// Something came over a stream; the answer.
    fn handle_request(&mut self, from: NodeId, bytes: &[u8], now: Instant) -> Option<Bytes>;
    fn handle_reply(&mut self, from: NodeId, bytes: &[u8], now: Instant);
    fn handle_unsent(&mut self, node: NodeId, now: Instant);
    fn handle_linked(&mut self, node: NodeId, now: Instant);
    fn handle_timeout(&mut self, now: Instant);
    fn leave(&mut self, now: Instant);

    fn poll_transmit(&mut self) -> Option<(NodeId, Bytes)>;
    /// Something to be asked over a stream.
    fn poll_request(&mut self) -> Option<(NodeId, Bytes)>;
    fn poll_event(&mut self) -> Option<Event>;
    fn poll_timeout(&self) -> Option<Instant>;

    fn health(&self, node: NodeId) -> Health;
    fn incarnation(&self) -> u64;
    /// Every other member: its health and incarnation.
    fn members(&self) -> impl Iterator<Item = (NodeId, Health, u64)>;
}

impl Protocol for Members {
    type Settings = Settings;
    const DIALS: bool = true;
    // IPv4 and UDP headers 28, QUIC short header 11, frame header 3, tag 16
    const OVERHEAD: u64 = 58;
    const ACK_ONLY: u64 = 64;

    fn start(me: NodeId, settings: &Settings, seed: u64, now: Instant) -> Self {
        Self::new(me, settings.clone(), seed, now)
    }

    fn handle_view(&mut self, view: &View, now: Instant) {
        self.handle_view(view, now);
    }

    fn handle_packet(&mut self, from: NodeId, bytes: &[u8], now: Instant) {
        // a stranger's packet is dropped until the view has come
        drop(self.handle_packet(from, bytes, now));
    }

    fn handle_request(&mut self, from: NodeId, bytes: &[u8], now: Instant) -> Option<Bytes> {
        self.handle_sync_request(from, bytes, now).ok()
    }

    fn handle_reply(&mut self, from: NodeId, bytes: &[u8], now: Instant) {
        drop(self.handle_sync_reply(from, bytes, now));
    }

    fn handle_unsent(&mut self, node: NodeId, now: Instant) {
        self.handle_unsent(node, now);
    }

    fn handle_linked(&mut self, node: NodeId, now: Instant) {
        self.handle_linked(node, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout(now);
    }

    fn leave(&mut self, now: Instant) {
        self.leave(now);
    }

    fn poll_transmit(&mut self) -> Option<(NodeId, Bytes)> {
        self.poll_transmit()
    }

    fn poll_request(&mut self) -> Option<(NodeId, Bytes)> {
        let to = self.poll_sync()?;
        Some((to, self.sync_request()))
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.poll_event()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout().map(|(at, _)| at)
    }

    fn health(&self, node: NodeId) -> Health {
        self.health(node)
    }

    fn incarnation(&self) -> u64 {
        self.incarnation()
    }

    fn members(&self) -> impl Iterator<Item = (NodeId, Health, u64)> {
        self.members().map(|member| (member.node, member.health, member.incarnation))
    }
}
