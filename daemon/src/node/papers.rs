//! This node's certificates, kept in life; and those of others, which any voter issues.
//!
//! ```text
//!   two thirds of its life over, or another authority issues now
//!        |-- Plane::Renew to a voter, which takes a certificate that has ended
//!        '-- the leader, and a voter where no other answers: from its own ledger, which holds the authority
//!   on disk -> shown at every handshake from then on
//! ```
//! Time that counts here is wall time, and a host may sleep for days between two looks: so the question is asked again and
//! again, not waited for. A node that slept too long can do nothing else than ask; a swarm that slept as a whole wakes up, because
//! each voter issues to itself.

use std::{sync::Arc, time::Duration};

use swarm_proto::{
    Code, PeerKey, Problem, UnixMillis,
    identity::{Authority, Kind, Renewed},
    peer::Open,
    token::root_id,
};
use swarm_transport::{Ca, CloseCode, Identity, IdentityError, Plane, Validity};
use tokio::sync::watch;

use super::{Node, env::stopped};

/// Between two looks at the calendar, at most; a short life is looked at more often.
const LOOK: Duration = Duration::from_secs(30);
/// Looks in a certificate's life.
const LOOKS: u32 = 20;
/// Between two tries to renew, doubled up to the second figure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long one voter may take.
const ASK_TIME: Duration = Duration::from_secs(5);

/// Writes a renewed identity down.
pub type KeepIdentity = Arc<dyn Fn(&Identity) -> Result<(), IdentityError> + Send + Sync>;

/// The identity as it is now.
pub(crate) struct Papers {
    current: watch::Sender<Arc<Identity>>,
    keep: KeepIdentity,
}

impl Papers {
    pub(crate) fn new(identity: Arc<Identity>, keep: KeepIdentity) -> Self {
        Self { current: watch::Sender::new(identity), keep }
    }

    pub(crate) fn current(&self) -> Arc<Identity> {
        self.current.borrow().clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Identity>> {
        self.current.subscribe()
    }
}

/// Looks after this node's certificate until it stops.
pub(crate) async fn run(node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    let mut view = node.roster.changes();
    let (mut wait, mut is_told) = (AGAIN.0, false);
    loop {
        view.mark_unchanged();
        believe(&node);
        let mut pause = LOOK.min(super::settings::certificate_life(&node) / LOOKS);
        if is_due(&node) {
            match renew(&node).await {
                Ok(()) => (wait, is_told) = (AGAIN.0, false),
                Err(problem) => {
                    if !std::mem::replace(&mut is_told, true) {
                        node.journal.warn(format!("the certificate is not renewed yet: {}", problem.why));
                    }
                    pause = pause.min(wait);
                    wait = (2 * wait).min(AGAIN.1);
                }
            }
        }
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            changed = view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Believes the authorities of the view. One that issued all that this node can show is believed until it has something better.
fn believe(node: &Node) {
    let view = node.roster.current();
    let identity = node.papers.current();
    if view.roots.nodes.is_empty() || identity.believes(&view.roots.nodes) {
        return;
    }
    match identity.renewed(None, &view.roots.nodes) {
        Ok(identity) => drop(adopt(node, identity).inspect_err(|problem| node.journal.warn(problem.why.clone()))),
        Err(error) => tracing::debug!(%error, "the new authority is not enough to go on with"),
    }
}

/// What is not on disk is not shown either: the authority that issued the old one would be dropped, and a restart would find
/// only that.
fn adopt(node: &Node, identity: Identity) -> Result<(), Problem> {
    (node.papers.keep)(&identity).map_err(|e| unusable(&e))?;
    node.control.adopt(&identity).and_then(|()| node.bulk.adopt(&identity)).map_err(|e| unusable(&e))?;
    node.papers.current.send_replace(Arc::new(identity));
    Ok(())
}

fn is_due(node: &Node) -> bool {
    let identity = node.papers.current();
    let view = node.roster.current();
    let issuer = view.roots.nodes.first().map(|root| root_id(root));
    is_old(identity.validity(), node.clock.now()) || issuer.is_some_and(|issuer| issuer != identity.root())
}

/// Two thirds of its life are over. A beginning in the future is the mistake of a clock, not the certificate's.
const fn is_old(Validity { from, until }: Validity, now: UnixMillis) -> bool {
    now.0 >= from.0 + until.0.saturating_sub(from.0) / 3 * 2
}

async fn renew(node: &Arc<Node>) -> Result<(), Problem> {
    let identity = node.papers.current();
    // another voter's clock may be right where this one's is wrong; only the leader's is everybody's
    let own = || issue(node, &identity.peer_key());
    let renewed = if node.desk.current().is_some() {
        own()?
    } else {
        match ask(node).await {
            Ok(renewed) => {
                node.hear_clock(renewed.now);
                renewed
            }
            Err(problem) => own().map_err(|_| problem)?,
        }
    };
    let certificate = renewed.certificate.to_vec().into();
    let identity = identity.renewed(Some(certificate), &renewed.roots.nodes).map_err(|e| unusable(&e))?;
    tracing::info!(until = identity.validity().until.0, "the certificate is renewed");
    adopt(node, identity)
}

fn unusable(error: &IdentityError) -> Problem {
    Problem::new(Code::Internal, "the certificate cannot be used", error.to_string())
}

/// Asks one voter after the other.
async fn ask(node: &Arc<Node>) -> Result<Renewed, Problem> {
    let mut last = "no voter is known".to_owned();
    for voter in node.roster.current().voters.iter().copied().filter(|voter| *voter != node.me) {
        let Some(dial) = node.roster.dial_control(voter) else { continue };
        let asked = async {
            let connection = node.control.get(Plane::Renew, &dial).await.map_err(|e| e.to_string())?;
            let answer = connection.call::<Result<Renewed, Problem>>(&Open::Renew).await;
            connection.close(CloseCode::Stopping, "renewed");
            answer.map_err(|e| e.to_string())?.map_err(|problem| problem.why)
        };
        match tokio::time::timeout(ASK_TIME, asked).await {
            Ok(Ok(renewed)) => return Ok(renewed),
            Ok(Err(why)) => last = format!("{voter}: {why}"),
            Err(_) => last = format!("{voter} does not answer"),
        }
    }
    Err(Problem::new(Code::NotReady, "the certificate is not renewed", last))
}

/// A new certificate for a member's key, from this node's own ledger.
///
/// # Errors
/// [`Code::NotReady`] where there is no authority here, [`Code::Denied`] for a key that is no member's.
pub(crate) fn issue(node: &Node, key: &PeerKey) -> Result<Renewed, Problem> {
    let refused = |code, why: &str| Problem::new(code, "no certificate is issued", why);
    let none = || refused(Code::NotReady, "this node does not hold the authority");
    let consensus = node.consensus.as_ref().ok_or_else(none)?;
    let (authority, roots) = consensus.with_ledger(|ledger| {
        let authority = ledger.authorities(Kind::Node).first().cloned().ok_or_else(none)?;
        ledger.node_by_key(key).ok_or_else(|| refused(Code::Denied, "the key is no member's"))?;
        Ok::<_, Problem>((authority, ledger.view(ledger.applied()).roots))
    })?;
    let certificate = issue_node(node, &authority, key)?;
    Ok(Renewed { certificate, roots, now: node.clock.now() })
}

/// A node's certificate from an authority.
pub(crate) fn issue_node(node: &Node, authority: &Authority, key: &PeerKey) -> Result<bytes::Bytes, Problem> {
    let validity = Validity::of(node.clock.now(), super::settings::certificate_life(node));
    let issued = Ca::from_authority(authority).and_then(|ca| ca.issue(key, validity));
    issued.map(|certificate| certificate.to_vec().into()).map_err(|e| unusable(&e))
}

/// What a person's certificate is good for: the ledger decides from day to day, so it need not end soon.
const USER_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A person's certificate from an authority.
pub(crate) fn issue_user(node: &Node, authority: &Authority, name: &str, key: &PeerKey) -> Result<bytes::Bytes, Problem> {
    let validity = Validity::of(node.clock.now(), USER_LIFE);
    let issued = Ca::from_authority(authority).and_then(|ca| ca.issue_to_user(name, key, validity));
    issued.map(|certificate| certificate.to_vec().into()).map_err(|e| unusable(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_once_two_thirds_of_its_life_are_over() {
        let (from, day) = (UnixMillis(1_795_219_200_000), 86_400_000);
        for life in [10_000, 3_600_000, day, 366 * day] {
            let validity = Validity { from, until: UnixMillis(from.0 + life) };
            let due = life / 3 * 2;
            for (after, is_due) in [(0, false), (life / 2, false), (due - 1, false), (due, true), (life, true), (30 * life, true)] {
                assert_eq!(is_old(validity, UnixMillis(from.0 + after)), is_due, "{after} of {life} ms");
            }
            // by a clock that is behind it is young
            assert!(!is_old(validity, UnixMillis(0)));
        }
    }
}
