//! `completion SHELL`

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{args::Cli, failure::Outcome, output};

/// `completion`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// For this shell
    pub shell: Shell,
}

pub(super) fn call(args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "swarmctl", &mut script);
    Ok(output::bytes(&script)?)
}
