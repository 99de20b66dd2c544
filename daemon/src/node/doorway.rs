//! When the API's port on the mesh is open, and whose certificate counts there.
//!
//! It is open while a token lives or a user exists, as the view says: a swarm that expects nobody has nothing to knock at.

use std::{sync::Arc, time::Duration};

use swarm_proto::access::{Caller, How};
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
    loop {
        view.mark_unchanged();
        papers.mark_unchanged();
        settle(&node, &door);
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            changed = view.changed() => if changed.is_err() { break },
            changed = papers.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(LOOK) => {
                let (is_open, should_be) = (door.borrow().is_some(), is_wanted(&node));
                if is_open == should_be {
                    continue;
                }
            }
        }
    }
    door.send_replace(None);
}

fn is_wanted(node: &Node) -> bool {
    let view = node.roster.current();
    node.clock.now() < view.enrol_until || view.users.values().any(|user| !user.is_gone)
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
