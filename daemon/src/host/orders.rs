//! What is asked of this host about its place in a swarm: carried out here, one at a time.

use std::{net::Ipv4Addr, path::Path};

use mesh_config::{Config, Edit, Env};
use swarm_proto::{
    ClusterId, Code, Problem, UnixMillis,
    admission::Rule,
    api::{Belonging, Choices, HostCall, JoinRequest, Phase, Status},
    identity::Kind,
    token::Token,
};
use tokio::sync::mpsc;

use super::{ClusterFile, charter, charter::By};
use crate::node::HostOrder;

/// The status of a daemon that belongs to no swarm.
pub(super) fn unjoined(config: &Config) -> Status {
    let (name, addrs) = (config.node.name.clone(), config.mesh.addrs_at(Ipv4Addr::UNSPECIFIED.into()));
    Status {
        phase: Phase::Unjoined,
        trouble: "this host belongs to no swarm yet: `swarmctl mesh init` founds one, `swarmctl mesh join TOKEN` joins one".into(),
        ..Status::new(name, env!("CARGO_PKG_VERSION").into(), ClusterId::default(), addrs)
    }
}

/// Waits until the operator has this host found a swarm or join one.
pub(super) async fn admission(
    path: &Path,
    dir: &Path,
    now: impl Fn() -> UnixMillis,
    orders: &mut mpsc::Receiver<HostOrder>,
) -> ClusterFile {
    while let Some(HostOrder { call, reply }) = orders.recv().await {
        let made = match call {
            HostCall::Init(choices) => with_choices(path, &choices, async |config| charter::init(&config, dir, now())).await,
            HostCall::Join(request) => match read(&request) {
                Ok(by) => with_choices(path, &request.choices, async |config| charter::join(&config, dir, &by).await).await,
                Err(problem) => Err(problem),
            },
            HostCall::Leave => Err(Problem::new(Code::Conflict, "this host did not leave", "it belongs to no swarm")),
        };
        match made {
            Ok((file, belonging)) => {
                let _ = reply.send(Ok(belonging));
                return file;
            }
            Err(problem) => drop(reply.send(Err(problem))),
        }
    }
    std::future::pending().await
}

fn read(request: &JoinRequest) -> Result<By, Problem> {
    let bad = |why: String| Err(Problem::new(Code::BadRequest, "this host did not join", why));
    if let Ok(rule) = request.token.parse::<Rule>() {
        return Ok(By::Tailnet { rule, at: request.at.clone() });
    }
    if !request.at.is_empty() {
        return bad("a token says itself where to knock; --at goes with tag:NAME or cap:NAME".into());
    }
    match request.token.parse::<Token>() {
        Ok(token) if token.kind == Kind::Node => Ok(By::Token(token)),
        Ok(_) => Err(Problem::new(Code::BadRequest, "this host did not join", "this line is for a person").hint("swarmctl login LINE")),
        Err(e) => bad(format!("the token cannot be used: {e}")),
    }
}

/// Writes the operator's choices into the config file, then goes on with what the file says now. If that fails, the file is again
/// as it was.
async fn with_choices(
    path: &Path,
    choices: &Choices,
    then: impl AsyncFnOnce(Config) -> Result<(ClusterFile, Belonging), Problem>,
) -> Result<(ClusterFile, Belonging), Problem> {
    let edit = edit_of(choices)?;
    let unwritten = |why: String| {
        Problem::new(Code::Denied, format!("{} was not changed", path.display()), why)
            .hint("let the daemon's user write it, or set the keys by hand and leave the flags out")
    };
    let before = if edit.is_empty() { None } else { Some(edit.apply_to(path).map_err(unwritten)?) };
    let config = Config::load(path, &Env::of_process()).map_err(|faults| mesh_config::problem(&faults));
    let done = match config {
        Ok(config) => then(config).await,
        Err(problem) => Err(problem),
    };
    if let (Err(_), Some(before)) = (&done, before)
        && let Err(error) = mesh_config::write(path, &before)
    {
        tracing::warn!(%error, "the config file is not set back to what it was");
    }
    done
}

fn edit_of(choices: &Choices) -> Result<Edit, Problem> {
    let mut edit = Edit::default();
    for what in &choices.allow {
        if what != "exec" {
            let why = format!("'{what}' is nothing that can be allowed; there is: exec");
            return Err(Problem::new(Code::BadRequest, "the host's choices cannot be written", why));
        }
        edit = edit.set(&["exec", "enabled"], true).set(&["exec", "sandbox"], "none");
    }
    if choices.never_vote {
        edit = edit.set(&["node", "voter"], "never");
    }
    for (name, value) in &choices.labels {
        edit = edit.set(&["node", "labels", name], value.as_str());
    }
    Ok(edit)
}

/// Answers orders for a host that belongs to a swarm, until it is told to leave. The caller then answers that one.
pub(super) async fn leave_asked(file: &ClusterFile, orders: &mut mpsc::Receiver<HostOrder>) -> HostOrder {
    while let Some(order) = orders.recv().await {
        match order.call {
            HostCall::Leave => return order,
            HostCall::Init(_) | HostCall::Join(_) => {
                let problem = Problem::new(Code::Conflict, "this host stays where it is", format!("it belongs to swarm {}", file.cluster))
                    .hint("`swarmctl mesh leave` first");
                let _ = order.reply.send(Err(problem));
            }
        }
    }
    std::future::pending().await
}
