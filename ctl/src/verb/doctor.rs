//! `doctor`: everything that has to be right for a node to work, one line each, with what to do where it is not.
//!
//! ```text
//! host    what this machine has: config, mesh, ports, disk, clock, certificate, firewall     works while the daemon is down
//! daemon  what the daemon says: phase, trouble, leader, versions, the leader's clock
//! peers   who answers on the mesh, how fast, by which path, and how large a packet may be     needs no certificate
//! ```
//! A check never waits longer than a few seconds and never changes anything. What cannot be found out is a warning that says
//! what would find it out, never silence.

mod daemon;
mod firewall;
mod host;
mod peers;
mod probe;

use std::path::PathBuf;

use mesh_config::CONFIG_FILE;
use serde::Serialize;

use crate::{
    args::Global,
    failure::{FAILED, Failure, Outcome},
    output::{
        Out, Table,
        table::{Tone, text, toned},
    },
    session::place,
};

/// `doctor`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The daemon's config file
    #[arg(long, env = "SWARM_CONFIG", default_value = CONFIG_FILE, value_name = "FILE")]
    pub config: PathBuf,
}

/// How good or bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    /// It works, or may work, and somebody should look.
    Warn,
    /// It does not work.
    Fail,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    level: Level,
    what: String,
    /// What to do; empty where nothing is to be done.
    fix: String,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, what: what.into(), fix: String::new() }
    }

    fn warn(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, what: what.into(), fix: fix.into() }
    }

    fn fail(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, what: what.into(), fix: fix.into() }
    }
}

/// Exit code 1 when anything fails, 0 otherwise.
pub(super) async fn call(out: &Out, global: &Global, args: &Args) -> Outcome {
    let (daemon, mut findings) = daemon::ask(place(global)?).await;
    let (host, on_host) = host::examine(&args.config, daemon.status.is_some()).await;
    findings.extend(on_host);
    let reached = peers::examine(&daemon, host.as_ref()).await;
    let is_reached = reached.iter().all(|finding| finding.level == Level::Ok);
    findings.extend(reached);
    if let Some(host) = &host {
        findings.push(firewall::examine(host, is_reached).await);
    }
    out.either(&findings, |_| render(&findings, out.is_coloured))?;
    if findings.iter().any(|finding| finding.level == Level::Fail) { Err(Failure::Code(FAILED)) } else { Ok(()) }
}

fn render(findings: &[Finding], is_coloured: bool) -> String {
    let mut table = Table::new(&["CHECK", "", "FOUND"]);
    for Finding { check, level, what, fix } in findings {
        let level = match level {
            Level::Ok => toned("ok", Tone::Good),
            Level::Warn => toned("warn", Tone::Busy),
            Level::Fail => toned("FAIL", Tone::Bad),
        };
        table.add(vec![text(check), level, text(what)]);
        if !fix.is_empty() {
            table.add(vec![text(" "), text(" "), text(format!("try: {fix}"))]);
        }
    }
    table.render(is_coloured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_as_lines_with_their_fixes() {
        let findings = [
            Finding::ok("config", "/etc/swarmd/swarmd.toml is sound"),
            Finding::warn("clock", "nobody keeps it", "timedatectl set-ntp true"),
            Finding::fail("daemon", "swarmd cannot be reached", "systemctl start swarmd"),
        ];
        insta::assert_snapshot!(render(&findings, false), @"
CHECK         FOUND
config  ok    /etc/swarmd/swarmd.toml is sound
clock   warn  nobody keeps it
              try: timedatectl set-ntp true
daemon  FAIL  swarmd cannot be reached
              try: systemctl start swarmd
");
    }
}
