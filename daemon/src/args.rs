//! What can be typed. The man page is made from the same words.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{demo, dev};

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
        self.verb.unwrap_or_else(|| Verb::Run(Run { config: mesh_config::CONFIG_FILE.into(), end_with_parent: false }))
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
    /// Holds the tasks of one daemon; started by it.
    #[command(hide = true)]
    Keeper {
        #[arg(long)]
        dir: PathBuf,
    },
}

/// `run`.
#[derive(clap::Args)]
pub struct Run {
    /// The config file.
    #[arg(long, value_name = "FILE", default_value = mesh_config::CONFIG_FILE)]
    pub config: PathBuf,
    /// End when the process that started this one ends.
    #[arg(long, hide = true)]
    pub end_with_parent: bool,
}
