//! Lets in whoever holds a token: the proofs are checked here, the token is used up in the ledger.
//!
//! ```text
//! applicant --TLS--> any node:  exporter of that session, petition
//!                        |      (relayed to the leader if this one does not lead)
//!                      leader:  MAC by the token's key, signature by the new key, both over exporter and request
//!                        |
//!                      ledger:  token live? limits? -> node id or user key bound, token used up: one entry
//!                        |
//! applicant <-----------'       certificate, authorities, view, the leader's clock
//! ```
//! The exporter differs with every TLS session, so a petition that was seen elsewhere is worth nothing here.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use swarm_proto::{
    Code, LogIndex, Problem, frame,
    identity::{Applicant, Change, Enroll, EnrollAnswer, Enrolled, Kind, Petition},
    ledger::{Applied, Command},
    peer::Open,
};
use swarm_transport::Plane;
use tokio::time::Instant;

use super::{
    Node,
    desk::{Desk, commit, no_leader},
    papers,
};

/// How long a leader is looked for.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);
/// Longest request, encoded: a node's name and labels.
const LONGEST: usize = 32 << 10;

fn refused(why: &str) -> Problem {
    Problem::new(Code::Denied, "enrolment was refused", why).hint("ask an admin of the swarm for a new token")
}

/// Answers a petition that came to this node's API. Asked again, for the same key, it answers the same: so it is.
pub(crate) async fn answer(node: &Arc<Node>, exporter: [u8; 32], petition: Petition) -> EnrollAnswer {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match once(node, exporter, &petition).await {
            Err(problem) if matches!(problem.code, Code::NoLeader | Code::UnknownOutcome) && Instant::now() < give_up => {
                tokio::time::sleep(AGAIN).await;
            }
            answer => return answer,
        }
    }
}

async fn once(node: &Arc<Node>, exporter: [u8; 32], petition: &Petition) -> EnrollAnswer {
    if let Some(desk) = node.desk.current() {
        return at_desk(node, &desk, exporter, petition).await;
    }
    let none = || no_leader("nobody was enrolled");
    let leader = node.peers.leader().1.filter(|leader| *leader != node.me).ok_or_else(none)?;
    let dial = node.roster.dial_control(leader).ok_or_else(none)?;
    let connection = node.control.get(Plane::Control, &dial).await.map_err(|_| none())?;
    let open = Open::Enroll { exporter, petition: petition.clone() };
    tokio::time::timeout(PATIENCE, connection.call::<EnrollAnswer>(&open)).await.map_err(|_| none())?.map_err(|_| none())?
}

/// Answers at the leader's desk.
pub(crate) async fn at_desk(node: &Arc<Node>, desk: &Desk, exporter: [u8; 32], petition: &Petition) -> EnrollAnswer {
    let consensus = node.consensus.as_ref().ok_or_else(|| no_leader("nobody was enrolled"))?;
    let key = consensus.with_ledger(|ledger| ledger.token(petition.token).map(|token| token.key.clone()));
    let key = key.ok_or_else(|| refused("the token has ended, was revoked, or never was"))?;
    let who = check(&key.0, exporter, petition)?;
    let enroll = Enroll { token: petition.token, who: who.clone() };
    let id = match commit(desk, Command::Identity(Box::new(Change::Enroll(enroll)))).await?.1 {
        Applied::Admitted(id) => Some(id),
        Applied::Done => None,
        Applied::Refused(problem) => return Err(problem),
        other @ (Applied::Accepted { .. } | Applied::Granted(_) | Applied::Finished { .. } | Applied::Stale) => {
            return Err(Problem::new(Code::Internal, "enrolment was refused", format!("{other:?}")));
        }
    };
    let (view, authority, user) = consensus.with_ledger(|ledger| {
        let user = ledger.user_of_key(&who.key()).map(|user| (user.name.clone(), user.role));
        (ledger.view(LogIndex(0)), ledger.authorities(who.kind()).first().cloned(), user)
    });
    node.roster.merge(&view);
    let authority = authority.ok_or_else(|| refused("this swarm has no authority"))?;
    let roots = view.roots.clone();
    let (certificate, view, user) = match (who.kind(), user) {
        (Kind::Node, _) => (papers::issue_node(node, &authority, &who.key())?, view, None),
        (Kind::User, Some(user)) => (papers::issue_user(node, &authority, &user.0, &who.key())?, Default::default(), Some(user)),
        (Kind::User, None) => return Err(refused("the user was revoked a moment ago")),
    };
    Ok(Enrolled { node: id, user, certificate, roots, view, epoch: node.epoch, now: node.clock.now() })
}

/// That the applicant knows the token's secret and holds the new key, in this very session.
fn check(key: &[u8], exporter: [u8; 32], petition: &Petition) -> Result<Applicant, Problem> {
    let key: &[u8; 32] = key.try_into().map_err(|_| refused("the token cannot be used"))?;
    let mac: [u8; 32] = petition.mac[..].try_into().map_err(|_| refused("the proof of the token is none"))?;
    if petition.request.len() > LONGEST {
        return Err(refused("the request is too long"));
    }
    let signed = Petition::signed(&exporter, &petition.request);
    // BLAKE3's own comparison takes the same time wherever the bytes differ
    if blake3::keyed_hash(key, &signed) != blake3::Hash::from_bytes(mac) {
        return Err(refused("the proof of the token is wrong"));
    }
    let who: Applicant = frame::decode(&petition.request).map_err(|e| refused(&format!("the request cannot be understood: {e}")))?;
    UnparsedPublicKey::new(&ED25519, &who.key().0)
        .verify(&signed, &petition.signature)
        .map_err(|_| refused("the proof of the key is wrong"))?;
    Ok(who)
}

#[cfg(test)]
mod tests {
    use swarm_proto::{PeerKey, TokenId};
    use swarm_transport::SecretKey;

    use super::*;

    const EXPORTER: [u8; 32] = [5; 32];

    fn petition(key: &SecretKey, token_key: &[u8; 32], who: &Applicant) -> Petition {
        let request = postcard::to_stdvec(who).expect("plain data");
        let signed = Petition::signed(&EXPORTER, &request);
        let signature = key.sign(&signed).expect("a key signs").into();
        let mac = blake3::keyed_hash(token_key, &signed).as_bytes().to_vec().into();
        Petition { token: TokenId([1; 8]), request: request.into(), signature, mac }
    }

    #[test]
    fn both_proofs_and_the_session_count() {
        let key = SecretKey::from_seed(&[1; 32]).expect("a seed is a key");
        let who = Applicant::User { key: key.peer_key() };
        let good = petition(&key, &[7; 32], &who);
        assert_eq!(check(&[7; 32], EXPORTER, &good), Ok(who.clone()));
        assert!(check(&[8; 32], EXPORTER, &good).is_err(), "another token");
        assert!(check(&[7; 32], [6; 32], &good).is_err(), "another session");
        let stolen = petition(&key, &[7; 32], &Applicant::User { key: PeerKey([9; 32]) });
        assert!(check(&[7; 32], EXPORTER, &stolen).is_err(), "another's key");
        for part in 0..3 {
            for at in 0..32 {
                let mut bad = good.clone();
                let field = match part {
                    0 => &mut bad.request,
                    1 => &mut bad.signature,
                    _ => &mut bad.mac,
                };
                let mut bytes = field.to_vec();
                bytes[at] ^= 1;
                *field = bytes.into();
                assert!(check(&[7; 32], EXPORTER, &bad).is_err(), "part {part}, byte {at}");
            }
        }
    }
}
