//! What can be typed. The man page is made from the same words.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{demo, dev, raw};

/// The peer daemon of the swarm.
#[derive(Parser)]
#[command(name = "swarmd", version, about, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

impl Args {
    /// What was asked for; without a verb, the daemon.
    pub fn verb(self) -> Verb {
        self.verb.unwrap_or_else(|| Verb::Run(Run { config: mesh_config::CONFIG_FILE.into(), keeper_socket: None, end_with_parent: false }))
    }
}

/// The verbs.
#[derive(Subcommand)]
pub enum Verb {
    /// Runs the daemon in the foreground (the default).
    Run(Run),
    /// Starts a throw-away swarm of real daemons on this machine.
    Dev(dev::Args),
    /// Shows the main job: work over real files, and the leader killed half way.
    Demo(demo::Args),
    /// Runs the daemon as the service that the service manager starts.
    #[cfg(windows)]
    Service(Run),
    /// Holds the tasks of one daemon; started by it, or as a service of its own.
    #[command(hide = true)]
    Keeper(Keeper),
    /// Sends zeros over stock QUIC from this process to itself, and prints how many seconds that took.
    #[command(hide = true)]
    StockQuic(raw::Args),
}

/// `keeper`. A service gives the socket as standard input, the daemon's config file, and the user: the daemon may write that file,
/// and must not choose by it as whom tasks run.
#[derive(clap::Args)]
pub struct Keeper {
    #[arg(long, value_name = "DIR", required_unless_present = "config", conflicts_with = "config")]
    pub dir: Option<PathBuf>,
    /// As whom tasks run.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `run`.
#[derive(clap::Args)]
pub struct Run {
    /// The config file.
    #[arg(long, value_name = "FILE", default_value = mesh_config::CONFIG_FILE)]
    pub config: PathBuf,
    /// Tasks run under a keeper that is a service and listens there, not under one that this daemon starts.
    #[arg(long, value_name = "PATH")]
    pub keeper_socket: Option<PathBuf>,
    /// End when the process that started this one ends.
    #[arg(long, hide = true)]
    pub end_with_parent: bool,
}
