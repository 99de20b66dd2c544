//! `swarmd service`: the daemon as a service of Windows.
//!
//! The service manager is told when the local API answers, and asks it to stop; what the daemon says goes to a file beside its
//! config.

use std::io::Write as _;

use swarm_proto::{Code, Problem};

use crate::args::Run;

/// What the installer calls it.
const NAME: &str = "swarmd";
/// Beside the config.
const LOG: &str = "swarmd.log";

/// Runs the daemon as the service manager wants it.
///
/// # Errors
/// The service manager did not start this process.
pub fn service(args: Run) -> Result<(), Problem> {
    let log = args.config.with_file_name(LOG);
    let work = move || {
        // a service without a log still serves
        let _ = swarm_win32::log_to(&log);
        match super::run(&args) {
            Ok(()) => 0,
            Err(problem) => {
                // there may be no log yet but the file itself
                let _ = writeln!(std::io::stderr(), "{problem}");
                u32::from(problem.code.exit_code())
            }
        }
    };
    swarm_win32::run_service(NAME, work).map_err(|e| {
        Problem::new(Code::BadRequest, "this is no service", e.to_string())
            .hint("the service manager starts it: sc start swarmd; in a terminal: swarmd run")
    })
}
