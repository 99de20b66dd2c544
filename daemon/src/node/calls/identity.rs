//! Calls about who may come in. Secrets are made here, at the leader, from the machine's own randomness, and go to the caller only.

use std::sync::Arc;

use swarm_core::ledger::Ledger;
use swarm_proto::{
    ClusterId, Code, Millis, NodeId, Problem, RootId,
    api::{Call, Health, PassRequest, Reply, RootView, RotateRequest, TokenLine, TokenRequest, UserRequest},
    identity::{Change, Invite, Kind, NewToken, Secret},
    ledger::Command,
    limits,
    token::{ADDRESSES, Token, pin, root_id},
};
use swarm_transport::{Ca, SecretKey};

use super::{Desk, Node, change, named, read};

/// How long a token lives unless it is said.
const LIFE: u64 = 15 * 60 * 1_000;
/// How long one that is shown with requests lives unless it is said.
const PASS_LIFE: u64 = 24 * 3_600 * 1_000;

/// Answers a call about identity at the desk of this node.
pub(super) async fn answer(node: &Arc<Node>, desk: &Desk, submitter: &str, call: Call) -> Result<Reply, Problem> {
    match call {
        Call::CreateToken(request) => create_token(node, desk, submitter, request).await,
        Call::CreatePass(request) => create_pass(node, desk, submitter, request).await,
        Call::CreateUser(request) => create_user(node, desk, submitter, request).await,
        Call::RevokeToken { token } => make(desk, Change::RevokeToken { token }).await,
        Call::RevokeUser { name } => make(desk, Change::RevokeUser { name }).await,
        Call::Revoke { node: name } => {
            let id = read(node, desk, move |sight| named(sight.ledger, &name).map(|record| record.id)).await??;
            if id == node.me {
                return Err(Problem::new(Code::Conflict, format!("{id} is not revoked"), "it leads, and cannot close itself out")
                    .hint("`swarmctl leader resign` first"));
            }
            spare_majority(node, id, "revoked")?;
            make(desk, Change::Revoke { node: id }).await
        }
        Call::Leave { node: id } => {
            spare_majority(node, id, "let go")?;
            change(desk, Command::Leave { node: id }).await
        }
        Call::RotateCa(request) => rotate(node, desk, request).await,
        Call::Tokens => read(node, desk, |sight| Reply::Tokens(sight.ledger.tokens().map(Into::into).collect())).await,
        Call::Users => {
            read(node, desk, |sight| Reply::Users(sight.ledger.users().filter(|user| !user.is_gone).map(Into::into).collect())).await
        }
        Call::Authorities => authorities(node, desk).await,
        other @ (Call::Jobs { .. }
        | Call::Job { .. }
        | Call::CancelJob { .. }
        | Call::Tasks { .. }
        | Call::Task { .. }
        | Call::Explain { .. }
        | Call::CancelTask { .. }
        | Call::RetryJob { .. }
        | Call::RetryTask { .. }
        | Call::Nodes
        | Call::Node { .. }
        | Call::Schedule { .. }
        | Call::Leader
        | Call::Resign
        | Call::Stats
        | Call::Settings
        | Call::Set { .. }
        | Call::Blobs { .. }
        | Call::Blob { .. }
        | Call::Events { .. }) => {
            Err(Problem::new(Code::Internal, "the call was not answered", format!("{other:?} is not about identity")))
        }
    }
}

async fn make(desk: &Desk, what: Change) -> Result<Reply, Problem> {
    change(desk, Command::Identity(Box::new(what))).await
}

/// A voter goes only while those who stay are a majority of the voters as they are now: without one nothing could be decided any
/// more, not even who votes instead.
fn spare_majority(node: &Node, leaving: NodeId, what: &str) -> Result<(), Problem> {
    let Some(consensus) = &node.consensus else { return Ok(()) };
    let voters = consensus.role().borrow().voters.clone();
    let is_there = |id: &NodeId| {
        let is_up = *id == node.me || node.peers.health(*id) == Health::Alive;
        *id != leaving && is_up && node.roster.member(*id).is_some()
    };
    let staying = voters.iter().filter(|id| is_there(id)).count();
    if !voters.contains(&leaving) || staying > voters.len() / 2 {
        return Ok(());
    }
    let why = format!("it votes, and of {} voters only {staying} others are up: without it there would be no majority", voters.len());
    Err(Problem::new(Code::Conflict, format!("{leaving} is not {what}"), why)
        .hint("bring the other voters back, or wait until others have taken their place: swarmctl node list"))
}

async fn create_token(node: &Arc<Node>, desk: &Desk, by: &str, request: TokenRequest) -> Result<Reply, Problem> {
    let TokenRequest { role, name, labels, uses, ttl_ms, addresses } = request;
    token(node, desk, by, Invite::Node { role, name, labels }, uses.unwrap_or(1), ttl_ms, addresses).await
}

async fn create_user(node: &Arc<Node>, desk: &Desk, by: &str, request: UserRequest) -> Result<Reply, Problem> {
    let UserRequest { name, role, ttl_ms, addresses } = request;
    if let Some(role) = role {
        make(desk, Change::SetUser { name: name.clone(), role }).await?;
    }
    token(node, desk, by, Invite::User { name }, 1, ttl_ms, addresses).await
}

/// Shown with each request; good for as long as its user is, and for no more than its user.
async fn create_pass(node: &Arc<Node>, desk: &Desk, by: &str, request: PassRequest) -> Result<Reply, Problem> {
    let PassRequest { user, role, ttl_ms, addresses } = request;
    let role = match role {
        Some(role) => role,
        None => {
            let name = user.clone();
            let own =
                read(node, desk, move |sight| sight.ledger.users().find(|user| user.name == name && !user.is_gone).map(|user| user.role));
            own.await?.ok_or_else(|| {
                Problem::new(Code::NotFound, format!("there is no user '{user}'"), "nobody of this name was made, or was revoked")
                    .hint("`swarmctl user list` shows them")
            })?
        }
    };
    token(node, desk, by, Invite::Pass { user, role }, 1, ttl_ms.or(Some(PASS_LIFE)), addresses).await
}

async fn token(
    node: &Arc<Node>,
    desk: &Desk,
    by: &str,
    invite: Invite,
    uses: u32,
    ttl_ms: Option<u64>,
    addresses: Vec<String>,
) -> Result<Reply, Problem> {
    let (cluster, certificate) = founded(node, desk).await?;
    let addresses = if addresses.is_empty() { places(node) } else { addresses };
    if addresses.len() > ADDRESSES || addresses.iter().any(|place| place.rsplit_once(':').is_none() || place.len() > limits::NAME) {
        let why = format!("it names 1 to {ADDRESSES} places, each as host:port");
        return Err(Problem::new(Code::BadRequest, "the token was not made", why));
    }
    let token = Token { kind: invite.kind(), cluster, pin: pin(&certificate), secret: random()?, addresses };
    let (id, key) = (token.id(), Secret(token.key().to_vec().into()));
    let life = Millis(ttl_ms.unwrap_or(LIFE));
    make(desk, Change::CreateToken(NewToken { id, key, invite, uses, life, by: by.to_owned() })).await?;
    let ends = read(node, desk, move |sight| sight.ledger.token(id).map(|token| token.ends)).await?.unwrap_or_default();
    Ok(Reply::Token(Box::new(TokenLine { token: id, line: token.to_string(), ends })))
}

/// The swarm's id and the certificate by which those who join know it.
async fn founded(node: &Arc<Node>, desk: &Desk) -> Result<(ClusterId, bytes::Bytes), Problem> {
    let found = read(node, desk, |sight| {
        let root = sight.ledger.authorities(Kind::Node).first().map(|authority| authority.certificate.clone());
        sight.ledger.cluster().zip(root)
    });
    found.await?.ok_or_else(|| Problem::new(Code::NotReady, "the token was not made", "this swarm has no authorities yet"))
}

/// Where somebody may knock: this node, then others that are up.
fn places(node: &Node) -> Vec<String> {
    let own = node.addrs().control.ip();
    let view = node.roster.current();
    let others =
        view.nodes.values().filter(|record| !record.is_gone && record.id != node.me && node.peers.health(record.id) == Health::Alive);
    let all = std::iter::once(own).chain(others.map(|record| record.addrs.control.ip()));
    all.take(ADDRESSES).map(|ip| std::net::SocketAddr::new(ip, node.settings.api_port).to_string()).collect()
}

fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Problem::new(Code::Internal, "the host gives no randomness", "its source failed"))?;
    Ok(bytes)
}

async fn authorities(node: &Arc<Node>, desk: &Desk) -> Result<Reply, Problem> {
    let views = read(node, desk, |sight| {
        let of = |kind: Kind| {
            sight.ledger.authorities(kind).iter().enumerate().map(move |(at, authority)| {
                let root = root_id(&authority.certificate);
                let lacks = sight.ledger.nodes().filter(|record| !record.is_gone && record.root != root && kind == Kind::Node);
                let awaited = if at == 0 { lacks.map(|record| record.id).collect() } else { Vec::new() };
                RootView { kind, root, issues: at == 0, awaited }
            })
        };
        of(Kind::Node).chain(of(Kind::User)).collect()
    });
    Ok(Reply::Authorities(views.await?))
}

/// Another authority issues from now on. The old one goes when nobody needs it any more, which the leader looks after, or at once.
async fn rotate(node: &Arc<Node>, desk: &Desk, request: RotateRequest) -> Result<Reply, Problem> {
    let kind = if request.users { Kind::User } else { Kind::Node };
    let list = read(node, desk, move |sight| {
        sight.ledger.authorities(kind).iter().map(|authority| root_id(&authority.certificate)).collect::<Vec<_>>()
    })
    .await?;
    if list.len() < 2 {
        let (cluster, _) = founded(node, desk).await?;
        let made = SecretKey::generate().and_then(|key| Ca::create_for(kind, cluster, key));
        let ca = made.map_err(|e| Problem::new(Code::Internal, "the authority is not replaced", e.to_string()))?;
        make(desk, Change::AddRoot { kind, authority: ca.authority() }).await?;
    } else if !request.force {
        return Err(Problem::new(Code::Conflict, "the authority is not replaced", "it is being replaced already")
            .hint("`swarmctl ca show` names the nodes that are awaited; --force ends the wait"));
    }
    if request.force {
        drop_old(node, desk, kind).await?;
    }
    authorities(node, desk).await
}

async fn drop_old(node: &Arc<Node>, desk: &Desk, kind: Kind) -> Result<(), Problem> {
    let old = read(node, desk, move |sight| sight.ledger.authorities(kind).get(1).map(|authority| root_id(&authority.certificate)));
    if let Some(root) = old.await? {
        make(desk, Change::DropRoot { kind, root }).await?;
    }
    Ok(())
}

/// What the leader sees to: an authority that nobody needs any more is dropped. Nodes need theirs until each has a certificate of
/// the new one; people, who get another only when they log in again, for as long as anybody is logged in.
pub(crate) fn is_replaced(ledger: &Ledger) -> Option<Change> {
    let has_renewed = |new| ledger.nodes().filter(|record| !record.is_gone).all(|record| record.root == new);
    let nobody_is_in = |_| ledger.users().all(|user| user.is_gone || user.keys.is_empty());
    drop_if(ledger, Kind::Node, has_renewed).or_else(|| drop_if(ledger, Kind::User, nobody_is_in))
}

/// Drops the old one of two authorities, if it is not needed beside the new one.
fn drop_if(ledger: &Ledger, kind: Kind, is_enough: impl FnOnce(RootId) -> bool) -> Option<Change> {
    let [new, old] = ledger.authorities(kind) else { return None };
    is_enough(root_id(&new.certificate)).then(|| Change::DropRoot { kind, root: root_id(&old.certificate) })
}
