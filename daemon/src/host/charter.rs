//! This host's papers: how it founds a swarm, joins one, and leaves it for good.
//!
//! ```text
//! nobody's   --init-->  key, authorities, certificate, cluster.toml        then the node starts as founder
//! nobody's   --join-->  key, enrolment over TLS, id, view, cluster.toml    then the node starts as a member
//! a member's --leave->  the ledger says so, everything is removed          then nobody's again
//! ```
//! `cluster.toml` is written last and removed first: it alone says that the directory belongs to a swarm. A key that was made for
//! an enrolment whose answer was lost is used again, so that the same token lets the same host in.

use std::{path::Path, sync::Arc};

use mesh_config::Config;
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use swarm_client::Invitation;
use swarm_consensus::{DirDisk, Disk, Lanes};
use swarm_proto::{
    ClusterId, Code, Problem, RaftDir, UnixMillis, admission::Rule, api::Belonging, identity::Applicant, ledger::Admit, token::Token,
};
use swarm_transport::{Identity, IdentityError, NODE_KEY, SecretKey, Validity};

use super::{ClusterFile, StateDir, finder, founding, tailnet};
use crate::node::{self, Journal};

fn failed(what: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::NotReady, what, why.to_string())
}

/// Founds a swarm in an empty state directory.
///
/// # Errors
/// What could not be made or written.
pub(super) fn init(config: &Config, dir: &Path, now: UnixMillis) -> Result<(ClusterFile, Belonging), Problem> {
    let what = "the swarm was not founded";
    // an earlier try to join may have left another swarm's
    remove_dirs(dir)?;
    let mut id = [0; 16];
    ChaCha12Rng::from_os_rng().fill_bytes(&mut id);
    let cluster = ClusterId(id);
    let make = || -> Result<_, IdentityError> {
        let (mut found, ca) = founding::make(cluster)?;
        let key = key_of(dir)?;
        found.first.push(key.peer_key());
        ca.identity(key, Validity::of(now, config.mesh.certificate_life))?.save(dir)?;
        Ok(found)
    };
    let found = make().map_err(|e| failed(what, &e))?;
    founding::save(dir, &found)?;
    let file = ClusterFile { cluster, founder: true, epoch: 0, recover: false };
    file.save(dir).map_err(|e| failed(what, &e))?;
    Ok((file, Belonging { cluster, node: None, name: config.node.name.clone() }))
}

/// The key that an earlier try left, or a new one.
fn key_of(dir: &Path) -> Result<SecretKey, IdentityError> {
    let path = dir.join(NODE_KEY);
    match SecretKey::load(&path) {
        Ok(key) => Ok(key),
        Err(IdentityError::File { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = SecretKey::generate()?;
            key.save(&path)?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

/// What a host comes in by.
pub(super) enum By {
    Token(Token),
    /// What the tailnet says of it; the members to knock at, where that is said.
    Tailnet {
        rule: Rule,
        at: Vec<String>,
    },
}

/// Joins a swarm, from an empty state directory.
///
/// # Errors
/// A swarm that does not answer or refuses, or what could not be written.
pub(super) async fn join(config: &Config, dir: &Path, by: &By) -> Result<(ClusterFile, Belonging), Problem> {
    let what = "this host did not join";
    let own = finder::here(&config.mesh).await?;
    let invitation = match by {
        By::Token(token) => Invitation::Token(token.clone()),
        By::Tailnet { rule, at } => Invitation::Tailnet { own, places: tailnet::places(config, rule, at).await? },
    };
    let key = key_of(dir).map_err(|e| failed(what, &e))?;
    let (log, records) = (disk(dir, "log")?, disk(dir, "records")?);
    let mut fresh = RaftDir::default();
    ChaCha12Rng::from_os_rng().fill_bytes(&mut fresh.0);
    let raft = swarm_consensus::raft_dir(&*log, fresh).map_err(|e| failed(what, &e))?;
    let admit = Admit {
        key: key.peer_key(),
        raft,
        name: config.node.name.clone(),
        addrs: config.mesh.addrs_at(own),
        may_vote: config.node.voter == mesh_config::Voter::Auto,
    };
    let who = Applicant::Node { admit, labels: config.node.labels.clone() };
    let sign = |message: &[u8]| key.sign(message).map_err(|e| failed(what, &e));
    let enrolled = swarm_client::enroll(&invitation, &who, sign).await?;
    let refused = |why: &str| Problem::new(Code::Denied, what, why);
    let node = enrolled.node.ok_or_else(|| refused("the swarm gave it no id"))?;
    let root = enrolled.roots.nodes.first().ok_or_else(|| refused("the swarm named no authority"))?;
    let certificate = enrolled.certificate.to_vec().into();
    let identity = Identity::new(key, certificate, root.to_vec().into()).map_err(|e| failed(what, &e))?;
    let identity = identity.renewed(None, &enrolled.roots.nodes).map_err(|e| failed(what, &e))?;
    node::remember(&records, node, raft, &enrolled.view).map_err(|e| failed(what, &e))?;
    identity.save(dir).map_err(|e| failed(what, &e))?;
    let cluster = enrolled.cluster;
    let file = ClusterFile { cluster, founder: false, epoch: enrolled.epoch, recover: false };
    file.save(dir).map_err(|e| failed(what, &e))?;
    Ok((file, Belonging { cluster, node: Some(node), name: config.node.name.clone() }))
}

/// Carries out what `swarmctl recover` asked for: this voter goes on alone, in a new epoch.
///
/// # Errors
/// A log that cannot be read, or a node that never held the ledger.
pub(super) async fn recover(state: &mut StateDir, file: ClusterFile, journal: &Journal) -> Result<ClusterFile, Problem> {
    if !file.recover {
        return Ok(file);
    }
    let what = "the swarm is not recovered";
    let records = disk(&state.path, "records")?;
    let me = node::remembered(&records).map_err(|e| failed(what, &e))?;
    let me = me.ok_or_else(|| failed(what, &"this node is no member"))?;
    let index = swarm_consensus::recover(disk(&state.path, "log")?, &Lanes::threads(), me).await.map_err(|e| {
        failed(what, &e).hint("choose a node that voted; set recover = false and the old epoch in cluster.toml to undo this")
    })?;
    let file = ClusterFile { recover: false, ..file };
    file.save(&state.path).map_err(|e| failed(what, &e))?;
    state.cluster = Some(file);
    journal
        .warn(format!("the swarm goes on with this voter alone, in epoch {}, from entry {}; all others join again", file.epoch, index.0));
    Ok(file)
}

fn disk(dir: &Path, name: &str) -> Result<Arc<dyn Disk>, Problem> {
    let path = dir.join(name);
    let disk = DirDisk::open(&path).map_err(|e| failed(&format!("{} cannot be used", path.display()), &e))?;
    Ok(Arc::new(disk))
}

/// Removes everything of a swarm from the state directory. What tasks wrote stays with the keeper.
///
/// # Errors
/// What cannot be removed; the directory then belongs to nobody all the same.
pub(super) fn wipe(dir: &Path) -> Result<(), Problem> {
    for name in ["cluster.toml", NODE_KEY, "node.crt", "ca.crt", "founding"] {
        let path = dir.join(name);
        gone(std::fs::remove_file(&path), &path)?;
    }
    remove_dirs(dir)
}

fn remove_dirs(dir: &Path) -> Result<(), Problem> {
    for name in ["log", "records"] {
        let path = dir.join(name);
        gone(std::fs::remove_dir_all(&path), &path)?;
    }
    Ok(())
}

fn gone(result: std::io::Result<()>, path: &Path) -> Result<(), Problem> {
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(&format!("{} is not removed", path.display()), &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether the ledger of a swarm knows this host as a member, as far as the host knows.
///
/// # Errors
/// A record that cannot be read.
pub(super) fn is_member(dir: &Path) -> Result<bool, Problem> {
    let what = "this host's place is not known";
    node::remembered(&disk(dir, "records")?).map(|node| node.is_some()).map_err(|e| failed(what, &e))
}

/// The swarm stands on its ledger from now on: a founder whose ledger is lost must never begin another under the same name.
///
/// # Errors
/// What could not be written.
pub(super) fn stands(state: &mut StateDir) -> Result<(), Problem> {
    if let Some(file) = state.cluster.filter(|file| file.founder) {
        let file = ClusterFile { founder: false, ..file };
        file.save(&state.path).map_err(|e| failed("the founding is not finished", &e))?;
        state.cluster = Some(file);
    }
    founding::remove(&state.path);
    Ok(())
}
