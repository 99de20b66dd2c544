//! `swarm-sim`: worlds by hand.
//!
//! ```text
//! swarm-sim replay FILE [--datagrams]   runs a kept plan again and shows it step by step
//! swarm-sim seed N [--datagrams]        the same for a seed
//! swarm-sim plan N                      the plan of a seed
//! swarm-sim shrink FILE                 makes a failing plan smaller
//! swarm-sim hunt N                      runs N seeds from where the last hunt ended, on every core; keeps what fails
//! ```
//!
//! With `RUST_LOG` set (`RUST_LOG=openraft=debug`) the daemons' own log lines stand between what is shown.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::{path::Path, process::ExitCode, thread};

use swarm_sim::{
    daemon::{Plan, Show, run_showing, shrink},
    hunt,
};
use tracing_subscriber::EnvFilter;

const USAGE: &str = "swarm-sim replay FILE [--datagrams] | seed N [--datagrams] | plan N | shrink FILE | hunt N";
/// Worlds that `shrink` runs at most.
const SHRINKING: usize = 300;

fn main() -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).without_time().init();
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["replay", file] => load(file).map(|plan| replay(&plan, Show::Events)),
        ["replay", file, "--datagrams"] => load(file).map(|plan| replay(&plan, Show::Datagrams)),
        ["seed", seed] => number(seed).map(|seed| replay(&Plan::of(seed), Show::Events)),
        ["seed", seed, "--datagrams"] => number(seed).map(|seed| replay(&Plan::of(seed), Show::Datagrams)),
        ["plan", seed] => number(seed).map(|seed| {
            print!("{}", Plan::of(seed));
            true
        }),
        ["shrink", file] => load(file).map(|plan| make_smaller(&plan)),
        ["hunt", seeds] => number(seeds).and_then(chase),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("'{word}' is no number"))
}

fn load(file: &str) -> Result<Plan, String> {
    hunt::load(Path::new(file)).map_err(|error| error.to_string())
}

/// Whether nothing was wrong.
fn replay(plan: &Plan, show: Show) -> bool {
    println!("{plan}");
    let outcome = run_showing(plan, show);
    println!("\n{outcome}");
    outcome.violations.iter().for_each(|violation| println!("VIOLATION {violation}"));
    outcome.violations.is_empty()
}

fn make_smaller(plan: &Plan) -> bool {
    let Some(shrunk) = shrink(plan, SHRINKING) else {
        eprintln!("it does not fail");
        return false;
    };
    shrunk.violations.iter().for_each(|violation| println!("# {}", violation.lines().next().unwrap_or_default()));
    print!("{}", shrunk.plan);
    eprintln!("{} faults of {}, after {} runs", shrunk.plan.acts.len(), plan.acts.len(), shrunk.runs);
    true
}

fn chase(seeds: u64) -> Result<bool, String> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let bag = hunt::hunt(seeds, threads, |line| println!("{line}")).map_err(|error| error.to_string())?;
    println!("\n{bag}");
    bag.failed.iter().for_each(|failed| println!("{failed}"));
    Ok(bag.failed.is_empty())
}
