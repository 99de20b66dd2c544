//! `mesh init|join|leave`: this host's place in a swarm. `mesh show|whois`: who else is there.

mod members;

use clap::Subcommand;
pub(crate) use members::path_to;
use swarm_proto::api::{Belonging, Choices, JoinRequest, Phase, Status};
use tokio::time::{Instant, sleep};

use crate::{
    failure::Outcome,
    session::{AGAIN, PATIENCE, Session},
    words::pair,
};

/// `mesh ..`
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Found a swarm on this host
    Init(Host),
    /// Let this host join the swarm that a token is from
    Join(Join),
    /// Let this host leave its swarm for good
    Leave,
    /// Every member: address, round trip, path, largest packet, version
    Show(members::ShowArgs),
    /// Who has an address: a member of the swarm, or a host of the mesh
    Whois(members::WhoisArgs),
}

/// What the operator decides for this host; written into its config file.
#[derive(clap::Args, Debug, Default)]
pub struct Host {
    /// Let tasks run processes here: exec
    #[arg(long, value_name = "WHAT")]
    pub allow: Vec<String>,
    /// Whether its disk may count for the majority: never (laptops, SD cards), or auto
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "never"])]
    pub voter: String,
    /// A label of this host (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair::text)]
    pub label: Vec<(String, String)>,
}

/// `mesh join`
#[derive(clap::Args, Debug)]
pub struct Join {
    /// What `swarmctl token create` printed on a member; or tag:NAME or cap:NAME, where the swarm admits hosts of its tailnet
    pub token: String,
    /// Without a token: a host of the tailnet that is a member (repeatable)
    #[arg(long, value_name = "HOST")]
    pub at: Vec<String>,
    #[command(flatten)]
    pub host: Host,
}

impl Host {
    fn choices(self) -> Choices {
        Choices { allow: self.allow, never_vote: self.voter == "never", labels: self.label.into_iter().collect() }
    }
}

pub(super) async fn call(session: &Session, verb: Verb) -> Outcome {
    match verb {
        Verb::Init(host) => {
            let belonging = session.client.mesh_init(&host.choices()).await?;
            up(session, &belonging).await
        }
        Verb::Join(Join { token, at, host }) => {
            let belonging = session.client.mesh_join(&JoinRequest { token, at, choices: host.choices() }).await?;
            up(session, &belonging).await
        }
        Verb::Show(args) => members::show(session, args).await,
        Verb::Whois(args) => members::tell(session, &args).await,
        Verb::Leave => {
            let belonging = session.client.mesh_leave().await?;
            let until = Instant::now() + PATIENCE;
            while session.client.status().await?.phase != Phase::Unjoined && Instant::now() < until {
                sleep(AGAIN).await;
            }
            Ok(session.out.either(&belonging, |_| format!("this host has left swarm {}\n", belonging.cluster))?)
        }
    }
}

/// Waits until the node is up, as far as it gets in time; what keeps it is in the status.
async fn up(session: &Session, belonging: &Belonging) -> Outcome {
    let until = Instant::now() + PATIENCE;
    let mut status = session.client.status().await?;
    while !is_up(&status) && Instant::now() < until {
        sleep(AGAIN).await;
        status = session.client.status().await?;
    }
    Ok(session.out.either(&status, |_| words(belonging, &status))?)
}

fn is_up(status: &Status) -> bool {
    matches!(status.phase, Phase::Ready | Phase::Damaged) && status.leader.is_some()
}

fn words(belonging: &Belonging, status: &Status) -> String {
    let node = status.node.map_or_else(|| status.name.clone(), |node| format!("{node} ({})", status.name));
    let mut text = format!("{node} belongs to swarm {}\n", belonging.cluster);
    if !status.trouble.is_empty() {
        text += &format!("not ready yet: {}\n", status.trouble);
    }
    if belonging.node.is_none() {
        text += "let others in: swarmctl token create\n";
    }
    text
}
