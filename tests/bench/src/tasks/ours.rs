//! Ours: `swarmctl bench tasks`, the same that users have. It starts three daemons on the disk, measures, and ends them.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::{Figure, Measured, Stage};
use crate::swarm::beside;

/// Submissions that may be unanswered.
const IN_FLIGHT: u32 = 1_000;

/// What is taken of its answer.
#[derive(Debug, PartialEq, Deserialize)]
struct Report {
    tasks_per_s: f64,
    cpu_us_per_task: Option<f64>,
    ack_p50_ms: f64,
    rtt_p50_ms: f64,
    rtt_p99_ms: f64,
    spawn_per_s: Option<f64>,
}

pub(super) fn singles(stage: &Stage) -> anyhow::Result<Measured> {
    let report = bench(stage, stage.tasks, &["--in-flight", &IN_FLIGHT.to_string()])?;
    Ok(vec![
        (Figure::TasksPerS, report.tasks_per_s),
        (Figure::TasksCpu, report.cpu()?),
        (Figure::TaskAcknowledged, report.ack_p50_ms),
        (Figure::TaskTrip, report.rtt_p50_ms),
        (Figure::TaskTripP99, report.rtt_p99_ms),
    ])
}

/// What is in the leader's memory alone: only how long one takes.
pub(super) fn in_memory(stage: &Stage) -> anyhow::Result<Measured> {
    let report = bench(stage, IN_FLIGHT, &["--durability", "async"])?;
    Ok(vec![(Figure::AsyncAcknowledged, report.ack_p50_ms), (Figure::AsyncTrip, report.rtt_p50_ms)])
}

pub(super) fn array(stage: &Stage) -> anyhow::Result<Measured> {
    let report = bench(stage, stage.tasks, &["--array"])?;
    Ok(vec![(Figure::ArrayPerS, report.tasks_per_s), (Figure::ArrayCpu, report.cpu()?)])
}

pub(super) fn exec(stage: &Stage) -> anyhow::Result<Measured> {
    let report = bench(stage, stage.processes(), &["--kind", "exec"])?;
    let bare = report.spawn_per_s.context("swarmctl tells no bare spawns")?;
    Ok(vec![(Figure::ExecPerS, report.tasks_per_s), (Figure::SpawnsPerS, bare)])
}

/// One task at a time in a swarm that runs: the 99th percentile there and back, in milliseconds.
pub(super) fn trips(stage: &Stage, socket: &Path) -> anyhow::Result<f64> {
    let mut command = swarmctl(stage, 1)?;
    Ok(answer(command.arg("--socket").arg(socket))?.rtt_p99_ms)
}

fn bench(stage: &Stage, tasks: u32, more: &[&str]) -> anyhow::Result<Report> {
    beside("swarmd")?;
    let dir = stage.fresh("swarm")?;
    let mut command = swarmctl(stage, tasks)?;
    answer(command.args(["--throw-away", "--dir"]).arg(dir.path()).args(more))
}

fn swarmctl(stage: &Stage, tasks: u32) -> anyhow::Result<Command> {
    let mut command = stage.place.leader.command(beside("swarmctl")?);
    command.args(["bench", "tasks", "-o", "json", "-n", &tasks.to_string()]);
    Ok(command)
}

fn answer(command: &mut Command) -> anyhow::Result<Report> {
    let output = command.stderr(Stdio::piped()).output().context("swarmctl")?;
    ensure!(output.status.success(), "swarmctl bench tasks: {}", String::from_utf8_lossy(&output.stderr).trim());
    parse(&output.stdout)
}

fn parse(text: &[u8]) -> anyhow::Result<Report> {
    serde_json::from_slice(text).with_context(|| format!("swarmctl said '{}'", String::from_utf8_lossy(text).trim()))
}

impl Report {
    fn cpu(&self) -> anyhow::Result<f64> {
        self.cpu_us_per_task.context("swarmctl tells no CPU")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_another_one_is_shown() {
        let text =
            br#"{"tasks":10,"kind":"noop","tasks_per_s":5.5,"ack_p50_ms":1.0,"rtt_p50_ms":2.0,"rtt_p99_ms":3.0,"cpu_us_per_task":null}"#;
        let expected =
            Report { tasks_per_s: 5.5, cpu_us_per_task: None, ack_p50_ms: 1.0, rtt_p50_ms: 2.0, rtt_p99_ms: 3.0, spawn_per_s: None };
        assert_eq!(parse(text).unwrap(), expected);
        assert!(expected.cpu().is_err());
        assert_eq!(parse(b"oh\n").unwrap_err().to_string(), "swarmctl said 'oh'");
    }
}
