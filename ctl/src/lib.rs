//! swarmctl: typed words into calls, answers into tables, JSON or lines.
//!
//! ```text
//! args    what was typed            words   the little grammars in it
//! verb    what it means: one file per verb, talking to the daemon through swarm-client
//! plan    a job before it is submitted              files   what is put for it, and what comes back
//! view    how an answer looks       output  where it goes, in which form
//! failure how a call ends badly     main    the one place that prints it
//! ```

pub mod args;
pub mod failure;
pub mod files;
pub mod job_file;
pub mod output;
pub mod plan;
pub mod progress;
pub mod session;
pub mod spec;
pub mod verb;
pub mod view;
pub mod words;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    args::{Cli, Command},
    failure::Failure,
};

/// Parses the command line, does what it says, and tells how it ended.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout and is no failure; clap knows which is which.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let is_run = matches!(cli.command, Command::Run(_));
    match block_on(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&failure);
            ExitCode::from(if is_run { failure.run_exit_code() } else { failure.exit_code() })
        }
    }
}

fn block_on(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| {
        let why = e.to_string();
        swarm_proto::Problem::new(swarm_proto::Code::Internal, "the host gives no event loop", why)
    })?;
    let ended = runtime.block_on(verb::call(cli));
    // A read of stdin that never ends must not keep the process.
    runtime.shutdown_background();
    ended
}

/// The one place where a failure is printed.
fn tell(failure: &Failure) {
    match failure {
        Failure::Problem(problem) => output::error_bytes(format!("{problem}\n").as_bytes()),
        Failure::Interrupted(note) if !note.is_empty() => output::note(note),
        Failure::Code(_) | Failure::Interrupted(_) | Failure::NobodyReads => {}
    }
}
