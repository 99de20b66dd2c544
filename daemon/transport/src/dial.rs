//! Dialling: one at a time a target, with backoff, and the checks that the right peer answered.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use swarm_proto::{Code, NodeId, PeerKey, Problem, limits, peer::Hello};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    close::{self, CloseCode, Ended},
    connection::{Connection, Greeted},
    endpoint::Shared,
    frames::StreamError,
    handshake::{self, NoHello},
    plane::Plane,
    serve::{self, Registered},
    tls::SERVER_NAME,
};

/// Wait after the first failure; doubles with each further one ...
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// ... up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Targets remembered with their failures; beyond it those whose wait is over are forgotten.
const TARGETS: usize = 1_024;

/// Whom to reach, and where. What is known of the peer is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dial {
    /// Its id.
    pub node: Option<NodeId>,
    /// Its identity.
    pub key: Option<PeerKey>,
    /// Its endpoint for the plane.
    pub addr: SocketAddr,
}

impl Dial {
    /// Whoever answers there: a seed.
    pub const fn seed(addr: SocketAddr) -> Self {
        Self { node: None, key: None, addr }
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// A dial failed a moment ago; the next is tried at `next`.
    #[error("{addr} is dialled again in {} ms; last time: {why}", next.saturating_duration_since(Instant::now()).as_millis())]
    BackingOff {
        /// Where.
        addr: SocketAddr,
        /// When a `get` will dial again.
        next: Instant,
        /// What came of the last dial.
        why: String,
    },
    /// Nothing that can be dialled.
    #[error("{addr} cannot be dialled: {why}")]
    BadAddress {
        /// Where.
        addr: SocketAddr,
        /// Why.
        why: String,
    },
    /// Nobody answered, or not to the end.
    #[error("{addr} does not answer: {ended}")]
    Unreachable {
        /// Where.
        addr: SocketAddr,
        /// What was seen.
        ended: Ended,
    },
    /// TLS failed: another CA, swarm, version, or an expired certificate.
    #[error("{addr}: {why}")]
    Handshake {
        /// Where.
        addr: SocketAddr,
        /// The reason in words.
        why: String,
    },
    /// Another key answered than the one that was meant.
    #[error("at {addr} answers key {found}, not {expected}")]
    WrongKey {
        /// Where.
        addr: SocketAddr,
        /// Whom we meant.
        expected: PeerKey,
        /// Who it was.
        found: PeerKey,
    },
    /// Another node answered than the one that was meant.
    #[error("at {addr} answers {found}, not {expected}")]
    WrongNode {
        /// Where.
        addr: SocketAddr,
        /// Whom we meant.
        expected: NodeId,
        /// Who it was.
        found: NodeId,
    },
    /// It is this node itself.
    #[error("{addr} is this node itself")]
    Ourselves {
        /// Where.
        addr: SocketAddr,
    },
    /// The peer's answer, or this node's own doorkeeper, says no.
    #[error("{}: {}", .0.what, .0.why)]
    Refused(Problem),
    /// This endpoint does not serve the plane.
    #[error("this endpoint does not serve {0}")]
    NoPlane(Plane),
    /// The endpoint is closed.
    #[error("the endpoint is closed")]
    Closed,
}

impl From<DialError> for std::io::Error {
    fn from(error: DialError) -> Self {
        use std::io::ErrorKind;
        let kind = match &error {
            DialError::BackingOff { .. } | DialError::Unreachable { .. } => ErrorKind::HostUnreachable,
            DialError::BadAddress { .. } | DialError::NoPlane(_) => ErrorKind::InvalidInput,
            DialError::Handshake { .. } | DialError::WrongKey { .. } | DialError::WrongNode { .. } | DialError::Ourselves { .. } => {
                ErrorKind::ConnectionRefused
            }
            DialError::Refused(_) => ErrorKind::PermissionDenied,
            DialError::Closed => ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

pub(crate) type Answer = Result<Connection, DialError>;
pub(crate) type Target = (Plane, Dial);

/// Dials under way and dials that failed.
#[derive(Debug)]
pub(crate) struct Dials {
    slots: BTreeMap<Target, Slot>,
    chance: ChaCha8Rng,
}

#[derive(Debug)]
struct Slot {
    /// Those who wait for the dial under way; `None`: none is.
    waiting: Option<Vec<oneshot::Sender<Answer>>>,
    failures: u32,
    next: Instant,
    why: String,
}

/// What a `get` has to do.
pub(crate) enum Asked {
    /// Start the dial, then wait.
    Dial(oneshot::Receiver<Answer>),
    /// Somebody else's dial will answer.
    Wait(oneshot::Receiver<Answer>),
    /// Not now.
    No(DialError),
}

impl Dials {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { slots: BTreeMap::new(), chance: ChaCha8Rng::from_seed(seed) }
    }

    pub(crate) fn ask(&mut self, target: Target, now: Instant) -> Asked {
        let (tx, rx) = oneshot::channel();
        match self.slots.get_mut(&target) {
            Some(Slot { waiting: Some(waiting), .. }) => {
                waiting.push(tx);
                Asked::Wait(rx)
            }
            Some(slot) if now < slot.next => {
                Asked::No(DialError::BackingOff { addr: target.1.addr, next: slot.next, why: slot.why.clone() })
            }
            Some(slot) => {
                slot.waiting = Some(vec![tx]);
                Asked::Dial(rx)
            }
            None => {
                self.forget_old(now);
                self.slots.insert(target, Slot { waiting: Some(vec![tx]), failures: 0, next: now, why: String::new() });
                Asked::Dial(rx)
            }
        }
    }

    /// A dial ended: tells those who wait, and when the next may be tried.
    pub(crate) fn handle_end(&mut self, target: &Target, answer: &Answer, now: Instant) {
        let Some(slot) = self.slots.get_mut(target) else { return };
        let waiting = slot.waiting.take().unwrap_or_default();
        match answer {
            Ok(_) => {
                self.slots.remove(target);
            }
            Err(error) => {
                slot.next = now + wait(slot.failures, &mut self.chance);
                slot.failures = slot.failures.saturating_add(1);
                slot.why = error.to_string();
            }
        }
        for one in waiting {
            // whoever stopped waiting needs no answer
            let _ = one.send(answer.clone());
        }
    }

    /// A connection came about by other means: those who wait for that peer need not wait for their dial.
    pub(crate) fn handle_connected(&mut self, connection: &Connection, suits: impl Fn(&Target) -> bool) {
        for (_, slot) in self.slots.iter_mut().filter(|(target, _)| suits(target)) {
            for one in slot.waiting.iter_mut().flat_map(|waiting| waiting.drain(..)) {
                let _ = one.send(Ok(connection.clone()));
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.slots.clear();
    }

    fn forget_old(&mut self, now: Instant) {
        if self.slots.len() >= TARGETS {
            self.slots.retain(|_, slot| slot.waiting.is_some() || now < slot.next);
        }
    }
}

/// Doubles from [`FIRST_WAIT`]; between half and all of it by chance, so that two that fail together do not dial together.
fn wait(failures: u32, chance: &mut ChaCha8Rng) -> Duration {
    let full = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
    full.mul_f64(chance.random_range(0.5..=1.0))
}

/// Tells those who wait even when the dial's task dies.
struct Reporting<'a> {
    shared: &'a Shared,
    target: Target,
    answer: Option<Answer>,
}

impl Drop for Reporting<'_> {
    fn drop(&mut self) {
        let answer = self.answer.take().unwrap_or(Err(DialError::Closed));
        self.shared.pool().dials.handle_end(&self.target, &answer, Instant::now());
    }
}

/// One dial, in a task of its own: whoever asked for it may stop waiting.
pub(crate) async fn run(shared: Arc<Shared>, target: Target) {
    let mut reporting = Reporting { shared: &shared, target, answer: None };
    let limit = tokio::time::timeout(2 * limits::HANDSHAKE_TIME, dial(&shared, target));
    let dialled = limit.await.unwrap_or(Err(DialError::Unreachable { addr: target.1.addr, ended: Ended::Silent }));
    match &dialled {
        Ok(Registered { connection, .. }) => tracing::debug!(?connection, "connected"),
        Err(error) => tracing::debug!(plane = %target.0, addr = %target.1.addr, %error, "a dial failed"),
    }
    reporting.answer = Some(dialled.as_ref().map(|registered| registered.connection.clone()).map_err(Clone::clone));
    drop(reporting);
    if let Ok(registered) = dialled {
        serve::run(registered).await;
    }
}

async fn dial(shared: &Arc<Shared>, (plane, to): Target) -> Result<Registered, DialError> {
    let addr = to.addr;
    let config = shared.client(plane).ok_or(DialError::NoPlane(plane))?;
    let bad = |why: String| DialError::BadAddress { addr, why };
    if addr.ip().is_unspecified() || addr.port() == 0 {
        return Err(bad("it names no place".to_owned()));
    }
    let connecting = shared.quinn.connect_with(config, addr, SERVER_NAME).map_err(|e| bad(e.to_string()))?;
    let timed = tokio::time::timeout(limits::HANDSHAKE_TIME, connecting).await;
    let quinn = match timed {
        Ok(Ok(quinn)) => quinn,
        Ok(Err(e)) => return Err(lost(addr, close::explain(&e))),
        Err(_) => return Err(DialError::Unreachable { addr, ended: Ended::Silent }),
    };
    let result = greet(shared, &quinn, plane, to).await;
    match result {
        Ok(greeted) => Registered::new(shared, greeted).map_err(DialError::Refused),
        Err(error) => {
            let code = match &error {
                DialError::Refused(problem) if problem.code == Code::Version => CloseCode::Version,
                DialError::Refused(_) => CloseCode::Refused,
                DialError::WrongKey { .. } | DialError::WrongNode { .. } | DialError::Ourselves { .. } => CloseCode::WrongPeer,
                DialError::BackingOff { .. }
                | DialError::BadAddress { .. }
                | DialError::Unreachable { .. }
                | DialError::Handshake { .. }
                | DialError::NoPlane(_)
                | DialError::Closed => CloseCode::NoHello,
            };
            quinn.close(code.into(), error.to_string().as_bytes());
            Err(error)
        }
    }
}

/// Everything between the TLS handshake and the pool.
async fn greet(shared: &Shared, quinn: &quinn::Connection, plane: Plane, to: Dial) -> Result<Greeted, DialError> {
    let addr = to.addr;
    let (key, ends, agreed, protocol) = handshake::identify(quinn, &shared.tongue).map_err(|why| DialError::Handshake { addr, why })?;
    if agreed != plane {
        return Err(DialError::Handshake { addr, why: format!("asked for {plane}, got {agreed}") });
    }
    handshake::check_end(ends, plane, shared.now()).map_err(DialError::Refused)?;
    if key == shared.me {
        return Err(DialError::Ourselves { addr });
    }
    if let Some(expected) = to.key.filter(|expected| *expected != key) {
        return Err(DialError::WrongKey { addr, expected, found: key });
    }
    let ours = Hello { protocol, ..(shared.hello)() };
    let hello = match tokio::time::timeout(limits::HANDSHAKE_TIME, handshake::greet(quinn, &ours)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(NoHello::Refused(problem))) => return Err(DialError::Refused(problem)),
        Ok(Err(NoHello::Stream(StreamError::Lost(ended)))) => return Err(lost(addr, ended)),
        Ok(Err(NoHello::Stream(error))) => return Err(DialError::Handshake { addr, why: format!("no Hello: {error}") }),
        Err(_) => return Err(DialError::Unreachable { addr, ended: Ended::Silent }),
    };
    let node = shared.doorkeeper.admit(&key, &hello, plane).map_err(DialError::Refused)?;
    match (to.node, node) {
        (Some(expected), Some(found)) if expected != found => Err(DialError::WrongNode { addr, expected, found }),
        _ => Ok(Greeted { quinn: quinn.clone(), plane, key, hello, node, said: ours.node, is_dialled_here: true }),
    }
}

fn lost(addr: SocketAddr, ended: Ended) -> DialError {
    match ended {
        Ended::Handshake(why) => DialError::Handshake { addr, why },
        Ended::There(code @ (CloseCode::Refused | CloseCode::Version | CloseCode::NoHello), why) => {
            let code = if code == CloseCode::Version { Code::Version } else { Code::Denied };
            DialError::Refused(Problem::new(code, format!("{addr} refuses this node"), why))
        }
        ended @ (Ended::Here | Ended::There(..) | Ended::Silent | Ended::Restarted | Ended::Fault(_)) => {
            DialError::Unreachable { addr, ended }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        (Plane::Control, Dial::seed(([127, 0, 0, 1], 9).into()))
    }

    fn failed() -> Answer {
        Err(DialError::Closed)
    }

    #[test]
    fn waits_double_to_a_bound_and_vary_by_seed() {
        let mut chance = ChaCha8Rng::from_seed([1; 32]);
        for failures in 0..40u32 {
            let full = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
            let got = wait(failures, &mut chance);
            assert!(got >= full / 2 && got <= full, "{failures}: {got:?}");
        }
        let run = |seed| (0..8).map(|n| wait(n, &mut ChaCha8Rng::from_seed([seed; 32]))).collect::<Vec<_>>();
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn one_dial_at_a_time_and_then_backoff() {
        let now = Instant::now();
        let mut dials = Dials::new([5; 32]);
        let Asked::Dial(mut first) = dials.ask(target(), now) else { panic!("nobody dials yet") };
        let Asked::Wait(mut second) = dials.ask(target(), now) else { panic!("a dial is under way") };
        dials.handle_end(&target(), &failed(), now);
        assert!(first.try_recv().unwrap().is_err() && second.try_recv().unwrap().is_err());
        let Asked::No(DialError::BackingOff { next, .. }) = dials.ask(target(), now) else { panic!("backing off") };
        assert!(next > now && next <= now + FIRST_WAIT);
        assert!(matches!(dials.ask(target(), next), Asked::Dial(_)));
    }

    #[test]
    fn old_failures_are_forgotten() {
        let now = Instant::now();
        let mut dials = Dials::new([5; 32]);
        let at = |n: usize| (Plane::Raft, Dial::seed(([10, 0, (n >> 8) as u8, n as u8], 1).into()));
        for n in 0..TARGETS {
            assert!(matches!(dials.ask(at(n), now), Asked::Dial(_)));
            dials.handle_end(&at(n), &failed(), now);
        }
        assert!(matches!(dials.ask(at(TARGETS), now + LONGEST_WAIT), Asked::Dial(_)));
        assert_eq!(dials.slots.len(), 1);
    }
}
