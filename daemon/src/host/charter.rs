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
use swarm_consensus::{DirDisk, Disk, Lanes};
use swarm_proto::{
    ClusterId, Code, Problem, RaftDir, UnixMillis,
    api::Belonging,
    identity::{Applicant, Kind},
    ledger::Admit,
    token::Token,
};
use swarm_transport::{Identity, IdentityError, NODE_KEY, SecretKey, Validity};

use super::{ClusterFile, StateDir, finder, founding};
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
    let mut id = [0; 16];
    ChaCha12Rng::from_os_rng().fill_bytes(&mut id);
    let cluster = ClusterId(id);
    let make = || -> Result<_, IdentityError> {
        let (found, ca) = founding::make(cluster)?;
        let identity = ca.identity(key_of(dir)?, Validity::of(now, config.mesh.certificate_life))?;
        identity.save(dir)?;
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

/// Joins the swarm of a token, from an empty state directory.
///
/// # Errors
/// A token that is none, a swarm that does not answer or refuses, or what could not be written.
pub(super) async fn join(config: &Config, dir: &Path, token: &Token) -> Result<(ClusterFile, Belonging), Problem> {
    let what = "this host did not join";
    if token.kind != Kind::Node {
        return Err(Problem::new(Code::BadRequest, what, "this line is for a person").hint("swarmctl login LINE"));
    }
    let key = key_of(dir).map_err(|e| failed(what, &e))?;
    let (log, records) = (disk(dir, "log")?, disk(dir, "records")?);
    let mut fresh = RaftDir::default();
    ChaCha12Rng::from_os_rng().fill_bytes(&mut fresh.0);
    let raft = swarm_consensus::raft_dir(&*log, fresh).map_err(|e| failed(what, &e))?;
    let admit = Admit {
        key: key.peer_key(),
        raft,
        name: config.node.name.clone(),
        addrs: config.mesh.addrs_at(finder::here(&config.mesh).await?),
        may_vote: config.node.voter == mesh_config::Voter::Auto,
    };
    let who = Applicant::Node { admit, labels: config.node.labels.clone() };
    let sign = |message: &[u8]| key.sign(message).map_err(|e| failed(what, &e));
    let enrolled = swarm_client::enroll(token, &who, sign).await?;
    let refused = |why: &str| Problem::new(Code::Denied, what, why);
    let node = enrolled.node.ok_or_else(|| refused("the swarm gave it no id"))?;
    let root = enrolled.roots.nodes.first().ok_or_else(|| refused("the swarm named no authority"))?;
    let certificate = enrolled.certificate.to_vec().into();
    let identity = Identity::new(key, certificate, root.to_vec().into()).map_err(|e| failed(what, &e))?;
    let identity = identity.renewed(None, &enrolled.roots.nodes).map_err(|e| failed(what, &e))?;
    node::remember(&records, node, raft, &enrolled.view).map_err(|e| failed(what, &e))?;
    identity.save(dir).map_err(|e| failed(what, &e))?;
    let file = ClusterFile { cluster: token.cluster, founder: false, epoch: enrolled.epoch, recover: false };
    file.save(dir).map_err(|e| failed(what, &e))?;
    Ok((file, Belonging { cluster: token.cluster, node: Some(node), name: config.node.name.clone() }))
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
    let gone = |result: std::io::Result<()>, name: &str| match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(&format!("{} is not removed", dir.join(name).display()), &e)),
        Ok(()) | Err(_) => Ok(()),
    };
    for name in ["cluster.toml", NODE_KEY, "node.crt", "ca.crt", "founding"] {
        gone(std::fs::remove_file(dir.join(name)), name)?;
    }
    for name in ["log", "records"] {
        gone(std::fs::remove_dir_all(dir.join(name)), name)?;
    }
    Ok(())
}
