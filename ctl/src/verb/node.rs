//! `node list|show|cordon|uncordon|drain|revoke`

use clap::Subcommand;
use swarm_proto::{api::NodeView, ledger::Schedule};
use tokio::time::sleep;

use super::watch;
use crate::{
    args::{WaitArgs, WatchArgs},
    failure::Outcome,
    session::{AGAIN, Session, patiently, unless_interrupted, within},
};

/// `node ..`
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// All nodes
    List(WatchArgs),
    /// One node
    Show(Args),
    /// Give a node no new work
    Cordon(Args),
    /// Give it work again
    Uncordon(Args),
    /// Give it no new work, and wait until it has none
    Drain(DrainArgs),
    /// Close a node out for good: its connections end, its key never comes back
    Revoke(Args),
}

/// Which node.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Its id (n3) or name
    pub node: String,
}

/// `node drain`.
#[derive(clap::Args, Debug)]
pub struct DrainArgs {
    /// Its id (n3) or name
    pub node: String,
    /// Return at once
    #[arg(long, conflicts_with = "timeout")]
    pub no_wait: bool,
    #[command(flatten)]
    pub wait: WaitArgs,
}

pub(super) async fn call(session: &Session, verb: Verb) -> Outcome {
    let client = &session.client;
    match verb {
        Verb::List(args) => {
            watch::list(&session.out, args.watch, |node: &NodeView| node.node.to_string(), async || client.nodes().await).await
        }
        Verb::Show(args) => Ok(session.out.one(&client.node(&args.node).await?)?),
        Verb::Cordon(args) => Ok(client.schedule(&args.node, Schedule::Cordoned).await?),
        Verb::Uncordon(args) => Ok(client.schedule(&args.node, Schedule::Open).await?),
        Verb::Revoke(args) => Ok(session.client.revoke_node(&args.node).await?),
        Verb::Drain(args) => drain(session, &args).await,
    }
}

async fn drain(session: &Session, args: &DrainArgs) -> Outcome {
    let node = &args.node;
    session.client.schedule(node, Schedule::Draining).await?;
    if args.no_wait {
        return Ok(());
    }
    let stays = || format!("{node} stays draining; to undo: swarmctl node uncordon {node}");
    let what = format!("{node} still has work");
    unless_interrupted(stays, within(args.wait.timeout, &what, until_idle(session, node))).await
}

async fn until_idle(session: &Session, node: &str) -> Outcome {
    while patiently(async || session.client.node(node).await).await?.assigned > 0 {
        sleep(AGAIN).await;
    }
    Ok(())
}
