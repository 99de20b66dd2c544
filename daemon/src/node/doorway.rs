//! When the API's port on the mesh is open, and whose certificate counts there.
//!
//! It is open while a token lives, a user exists, or hosts of a tailnet need no token, as the view says: a swarm that expects nobody
//! has nothing to knock at.

use std::{sync::Arc, time::Duration};

use swarm_proto::{
    Code, Problem, UnixMillis,
    access::{Caller, How},
    ledger::View,
    token::Token,
};
use swarm_transport::{api_server, certificate_end, peer_key};
use tokio::sync::watch;

use super::{Node, env::stopped};

/// Between two looks at the clock: how long the port may stay open beyond the last token.
const LOOK: Duration = Duration::from_secs(1);

/// What the port is opened with; `None`: it is closed.
pub(crate) type Config = Option<Arc<rustls::ServerConfig>>;

/// Opens and closes until the node stops.
pub(crate) async fn run(node: Arc<Node>, door: watch::Sender<Config>, mut stop: watch::Receiver<bool>) {
    let (mut view, mut papers) = (node.roster.changes(), node.papers.changes());
    while !*stop.borrow() {
        view.mark_unchanged();
        papers.mark_unchanged();
        settle(&node, &door);
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            changed = view.changed() => if changed.is_err() { break },
            changed = papers.changed() => if changed.is_err() { break },
            () = turned(&node, &door) => {}
        }
    }
    door.send_replace(None);
}

/// Until time alone has opened or closed the port.
async fn turned(node: &Node, door: &watch::Sender<Config>) {
    while door.borrow().is_some() == is_wanted(node) {
        tokio::time::sleep(LOOK).await;
    }
}

fn is_wanted(node: &Node) -> bool {
    let view = node.roster.current();
    node.clock.now() < view.enrol_until || view.users.values().any(|user| !user.is_gone) || super::settings::admit(&view).is_some()
}

fn settle(node: &Node, door: &watch::Sender<Config>) {
    let config = is_wanted(node).then(|| api_server(&node.papers.current(), &node.roster.current().roots.users));
    match config.transpose() {
        Ok(config) => drop(door.send_replace(config)),
        Err(error) => node.journal.warn(format!("the API's port on the mesh is not opened: {error}")),
    }
}

/// Who the owner of a certificate is now.
///
/// # Errors
/// Why it is nobody.
pub(crate) fn judge(node: &Node, certificate: &[u8]) -> Result<Caller, String> {
    let certificate = certificate.to_vec().into();
    let key = peer_key(&certificate).map_err(|e| e.to_string())?;
    let ends = certificate_end(&certificate).map_err(|e| e.to_string())?;
    if ends <= node.clock.now() {
        return Err("the certificate has ended: log in again".into());
    }
    let view = node.roster.current();
    let user = view.users.values().find(|user| user.keys.contains(&key));
    let user = user.ok_or("the certificate's owner is no user of this swarm, or was revoked")?;
    Ok(Caller { name: user.name.clone(), role: user.role, how: How::Certificate })
}

/// Who somebody is that shows a token with a request.
///
/// # Errors
/// Why it is nobody.
pub(crate) fn bearer(node: &Node, token: &Token) -> Result<Caller, Problem> {
    let view = node.roster.current();
    judge_token(&view, token, node.clock.now()).map_err(|why| {
        Problem::new(Code::Denied, "the request was refused", why).hint("ask an admin of the swarm for another: swarmctl user token NAME")
    })
}

fn judge_token(view: &View, token: &Token, now: UnixMillis) -> Result<Caller, String> {
    let key = token.key();
    let pass = view.passes.iter().find(|pass| pass.id == token.id() && pass.key.0[..] == key);
    let pass = pass.ok_or("the token was revoked, has ended, or is for something else")?;
    if pass.ends <= now {
        return Err("the token has ended".into());
    }
    let user = view.users.get(&pass.user).filter(|user| !user.is_gone).ok_or("the token's user was revoked")?;
    Ok(Caller { name: user.name.clone(), role: pass.role.min(user.role), how: How::Bearer })
}

#[cfg(test)]
mod tests {
    use swarm_proto::{
        ClusterId,
        access::Role,
        identity::{Kind, Pass, Secret, UserRecord},
    };

    use super::*;

    #[test]
    fn a_token_is_worth_what_it_says_and_no_more_than_its_user() {
        let token = |secret| Token { kind: Kind::User, cluster: ClusterId([1; 16]), pin: [2; 32], secret: [secret; 20], addresses: vec![] };
        let mut view = View::default();
        let pass = |token: &Token, role| Pass {
            id: token.id(),
            key: Secret(token.key().to_vec().into()),
            user: "ann".into(),
            role,
            ends: UnixMillis(1_000),
        };
        let (weak, strong) = (token(1), token(2));
        view.passes = vec![pass(&weak, Role::Observer), pass(&strong, Role::Operator)];
        let who = |view: &View, token: &Token, now| judge_token(view, token, UnixMillis(now)).map(|caller| (caller.name, caller.role)).ok();
        assert_eq!(who(&view, &weak, 1), None, "its user was never made");
        let user =
            UserRecord { name: "ann".into(), role: Role::Submitter, keys: vec![], is_gone: false, changed: swarm_proto::LogIndex(1) };
        view.users.insert("ann".into(), user);
        assert_eq!(who(&view, &weak, 999), Some(("ann".into(), Role::Observer)));
        assert_eq!(who(&view, &strong, 999), Some(("ann".into(), Role::Submitter)), "a user's role was lowered since");
        assert_eq!(who(&view, &weak, 1_000), None, "it has ended");
        assert_eq!(who(&view, &token(3), 1), None);
        view.passes[0].key = view.passes[1].key.clone();
        assert_eq!(who(&view, &weak, 1), None, "the id alone opens nothing");
        view.users.get_mut("ann").expect("just made").is_gone = true;
        assert_eq!(who(&view, &strong, 1), None);
    }
}
