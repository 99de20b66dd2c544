//! Lets in whoever holds a token, or is vouched for by the tailnet: the proofs are checked here, a token is used up in the ledger.
//!
//! ```text
//! applicant --TLS--> any node:  exporter of that session, petition
//!                        |      (relayed to the leader if this one does not lead)
//!                      leader:  signature by the new key, MAC by the token's key, both over exporter and request
//!                        |      (or, where the swarm has chosen that: what the leader's tailnet says of the address)
//!                        |
//!                      ledger:  token live? limits? -> node id or user key bound, token used up: one entry
//!                        |
//! applicant <-----------'       certificate, authorities, view, the leader's clock
//! ```
//! The exporter differs with every TLS session, so a petition that was seen elsewhere is worth nothing here.

use std::{net::IpAddr, sync::Arc, time::Duration};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use mesh_detect::tailscale::Whois;
use swarm_proto::{
    Code, LogIndex, Problem,
    admission::Rule,
    frame,
    identity::{Applicant, Change, Claim, Enroll, EnrollAnswer, Enrolled, Kind, Petition, Warrant},
    ledger::{Applied, Command},
    peer::Open,
};
use swarm_transport::Plane;
use tokio::time::Instant;

use super::{
    Node,
    desk::{Desk, commit, no_leader},
    papers, split,
};

/// How long a leader is looked for.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);
/// Longest request, encoded: a node's name and labels.
const LONGEST: usize = 32 << 10;

/// The ledger's own word.
const REFUSED: &str = "enrolment was refused";

fn refused(why: &str) -> Problem {
    Problem::new(Code::Denied, REFUSED, why).hint("ask an admin of the swarm for a new token")
}

/// Answers a petition that came to this node's API. Asked again, for the same key, it answers the same: so it is.
pub(crate) async fn answer(node: &Arc<Node>, exporter: [u8; 32], from: IpAddr, petition: Petition) -> EnrollAnswer {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match once(node, exporter, from, &petition).await {
            Err(problem) if matches!(problem.code, Code::NoLeader | Code::UnknownOutcome) && Instant::now() < give_up => {
                tokio::time::sleep(AGAIN).await;
            }
            answer => return answer,
        }
    }
}

async fn once(node: &Arc<Node>, exporter: [u8; 32], from: IpAddr, petition: &Petition) -> EnrollAnswer {
    if let Some(desk) = node.desk.current() {
        return at_desk(node, &desk, exporter, from, petition).await;
    }
    let none = || no_leader("nobody was enrolled");
    let leader = node.peers.leader().1.filter(|leader| *leader != node.me).ok_or_else(none)?;
    let dial = node.roster.dial_control(leader).ok_or_else(none)?;
    let connection = node.control.get(Plane::Control, &dial).await.map_err(|_| none())?;
    let open = Open::Enroll { exporter, from, petition: petition.clone() };
    tokio::time::timeout(PATIENCE, connection.call::<EnrollAnswer>(&open)).await.map_err(|_| none())?.map_err(|_| none())?
}

/// Answers at the leader's desk.
pub(crate) async fn at_desk(node: &Arc<Node>, desk: &Desk, exporter: [u8; 32], from: IpAddr, petition: &Petition) -> EnrollAnswer {
    let consensus = node.consensus.as_ref().ok_or_else(|| no_leader("nobody was enrolled"))?;
    let who = check(exporter, petition)?;
    let by = match &petition.claim {
        Claim::Token { id, mac } => {
            let key = consensus.with_ledger(|ledger| ledger.token(*id).map(|token| token.key.clone()));
            let key = key.ok_or_else(|| refused("the token has ended, was revoked, or never was"))?;
            check_mac(&key.0, &Petition::signed(&exporter, &petition.request), mac)?;
            Warrant::Token(*id)
        }
        Claim::Tailnet => Warrant::Tailnet(ask_tailnet(node, from, &who).await?),
    };
    let enroll = Enroll { by, who: who.clone() };
    let id = match commit(desk, Command::Identity(Box::new(Change::Enroll(enroll)))).await?.1 {
        Applied::Admitted(id) => Some(id),
        Applied::Done => None,
        Applied::Refused(problem) => return Err(problem),
        other @ (Applied::Accepted { .. } | Applied::Granted(_) | Applied::Finished { .. } | Applied::Stale | Applied::Reserved { .. }) => {
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
        (Kind::Node, _) => {
            let introduction = match id {
                Some(id) => view.introduction(id, split::ROOM),
                None => view,
            };
            (papers::issue_node(node, &authority, &who.key())?, introduction, None)
        }
        (Kind::User, Some(user)) => (papers::issue_user(node, &authority, &user.0, &who.key())?, Default::default(), Some(user)),
        (Kind::User, None) => return Err(refused("the user was revoked a moment ago")),
    };
    Ok(Enrolled { cluster: node.cluster, node: id, user, certificate, roots, view, epoch: node.epoch, now: node.clock.now() })
}

/// That this leader's tailnet says of the host what the swarm has chosen to ask for. The address is that of the connection, which
/// WireGuard has proved, and must be the one that the applicant will be a member under.
async fn ask_tailnet(node: &Arc<Node>, from: IpAddr, who: &Applicant) -> Result<Rule, Problem> {
    let denied = |why: String| Problem::new(Code::Denied, REFUSED, why).hint("join with a token: swarmctl mesh join TOKEN");
    let Applicant::Node { admit, .. } = who else { return Err(denied("a person needs a login line".into())) };
    let view = node.roster.current();
    let rule = super::settings::admit(&view).ok_or_else(|| denied("this swarm lets nobody in without a token".into()))?;
    if admit.addrs.control.ip() != from {
        return Err(denied(format!("it comes from {from} and says that it is at {}", admit.addrs.control.ip())));
    }
    let ask = node.settings.ask_tailnet.clone();
    let owner = tokio::task::spawn_blocking(move || ask(from)).await.unwrap_or_else(|e| Err(e.to_string()));
    let owner = owner.map_err(|why| denied(format!("the leader's tailnet does not say who {from} is: {why}")))?;
    let owner = owner.ok_or_else(|| denied(format!("{from} is no host of the leader's tailnet")))?;
    if is_met(&rule, &owner) { Ok(rule) } else { Err(denied(format!("the tailnet does not say {rule} of {}", owner.name))) }
}

fn is_met(rule: &Rule, owner: &Whois) -> bool {
    match rule {
        Rule::Tag(tag) => owner.tags.contains(tag),
        Rule::Capability(name) => owner.capabilities.contains(name),
    }
}

fn check_mac(key: &[u8], signed: &[u8], mac: &[u8]) -> Result<(), Problem> {
    let key: &[u8; 32] = key.try_into().map_err(|_| refused("the token cannot be used"))?;
    let mac: [u8; 32] = mac.try_into().map_err(|_| refused("the proof of the token is none"))?;
    // BLAKE3's own comparison takes the same time wherever the bytes differ
    if blake3::keyed_hash(key, signed) == blake3::Hash::from_bytes(mac) { Ok(()) } else { Err(refused("the proof of the token is wrong")) }
}

/// That the applicant holds the new key, in this very session.
fn check(exporter: [u8; 32], petition: &Petition) -> Result<Applicant, Problem> {
    if petition.request.len() > LONGEST {
        return Err(refused("the request is too long"));
    }
    let signed = Petition::signed(&exporter, &petition.request);
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
        Petition { claim: Claim::Token { id: TokenId([1; 8]), mac }, request: request.into(), signature }
    }

    /// As the desk does, with the token's key.
    fn judge(token_key: &[u8; 32], exporter: [u8; 32], petition: &Petition) -> Result<Applicant, Problem> {
        let who = check(exporter, petition)?;
        let Claim::Token { mac, .. } = &petition.claim else { panic!("it came with a token") };
        check_mac(token_key, &Petition::signed(&exporter, &petition.request), mac).map(|()| who)
    }

    #[test]
    fn both_proofs_and_the_session_count() {
        let key = SecretKey::from_seed(&[1; 32]).expect("a seed is a key");
        let who = Applicant::User { key: key.peer_key() };
        let good = petition(&key, &[7; 32], &who);
        assert_eq!(judge(&[7; 32], EXPORTER, &good), Ok(who.clone()));
        assert!(judge(&[8; 32], EXPORTER, &good).is_err(), "another token");
        assert!(judge(&[7; 32], [6; 32], &good).is_err(), "another session");
        let stolen = petition(&key, &[7; 32], &Applicant::User { key: PeerKey([9; 32]) });
        assert!(judge(&[7; 32], EXPORTER, &stolen).is_err(), "another's key");
        for part in 0..3 {
            for at in 0..32 {
                let mut bad = good.clone();
                let field = match (part, &mut bad.claim) {
                    (0, _) => &mut bad.request,
                    (1, _) => &mut bad.signature,
                    (_, Claim::Token { mac, .. }) => mac,
                    (_, Claim::Tailnet) => panic!("it came with a token"),
                };
                let mut bytes = field.to_vec();
                bytes[at] ^= 1;
                *field = bytes.into();
                assert!(judge(&[7; 32], EXPORTER, &bad).is_err(), "part {part}, byte {at}");
            }
        }
    }

    #[test]
    fn a_rule_is_met_by_what_the_tailnet_says_and_by_nothing_else() {
        let owner = Whois { tags: vec!["tag:swarm".into()], capabilities: vec!["example.com/swarm".into()], ..Whois::default() };
        for (rule, met) in [
            ("tag:swarm", true),
            ("tag:swar", false),
            ("cap:example.com/swarm", true),
            ("cap:tag:swarm", false),
            ("cap:example.com", false),
        ] {
            assert_eq!(is_met(&rule.parse().expect("a rule"), &owner), met, "{rule}");
        }
    }
}
