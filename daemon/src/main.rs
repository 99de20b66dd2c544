//! `swarmd`: the daemon, and throw-away swarms of it.

use std::process::ExitCode;

use clap::Parser as _;
use swarmd::{
    args::{Args, Verb},
    demo, dev, host, raw,
};

fn main() -> ExitCode {
    end_on_panic();
    let done = match Args::parse().verb() {
        Verb::Run(run) => host::run(&run),
        Verb::Dev(args) => dev::main(args),
        Verb::Demo(args) => demo::main(args),
        #[cfg(windows)]
        Verb::Service(run) => host::service(run),
        Verb::Keeper(args) => host::keeper(args),
        Verb::StockQuic(args) => raw::main(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            complain(&problem);
            ExitCode::from(problem.code.exit_code())
        }
    }
}

/// The one place where this program prints what went wrong.
#[expect(clippy::print_stderr, reason = "the one place that prints an error")]
fn complain(problem: &swarm_proto::Problem) {
    eprintln!("{problem}");
}

/// A panic in any task would leave a daemon that is up and deaf: the whole process ends instead, and is started again.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
