//! `swarm-bench beside`: one file from host to host by real daemons, and by what else people use for it, in turn and in one run.
//!
//! Every result is hashed and compared. Nothing is measured while something else uses a processor. The figures are medians over the
//! rounds; on a shared machine the ratios are what can be trusted.

pub(crate) mod place;
mod tools;

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde::Serialize;
use swarm_proto::Digest;

use self::{
    place::{Kind, Place},
    tools::{Cargo, Ran, Tool},
};
use crate::{median, quiet, swarm::Swarm};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Bytes of the file
    #[arg(long, default_value = "1GiB", value_parser = mesh_config::parse_bytes)]
    size: u64,
    /// Rounds of each
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Kind::Loopback, Kind::Veth, Kind::Limited])]
    over: Vec<Kind>,
    /// Of the limited link, as tc reads it
    #[arg(long, default_value = "400mbit")]
    rate: String,
    /// Bytes of the file over the limited link
    #[arg(long, default_value = "256MiB", value_parser = mesh_config::parse_bytes)]
    limited_size: u64,
    /// These tools alone
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Tool::ALL)]
    tools: Vec<Tool>,
    /// A real disk with room for the file six times
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// All figures.
#[derive(Serialize)]
pub(crate) struct Told {
    places: Vec<Figures>,
    /// What was not measured, and why.
    left_out: Vec<String>,
}

/// Those of one place.
#[derive(Serialize)]
struct Figures {
    over: String,
    size: u64,
    rounds: usize,
    tools: Vec<Row>,
}

/// Those of one tool. Medians, but for `seconds`, which are all rounds.
#[derive(Serialize)]
struct Row {
    tool: &'static str,
    median_s: f64,
    gbit_s: f64,
    /// What the disk took to have the result for good after the tool had ended, where there is a result.
    disk_s: Option<f64>,
    /// Swarm's time, from store to store, beside this one's.
    swarm_times: Option<f64>,
    seconds: Vec<f64>,
}

/// Of one run.
struct Seconds {
    took: f64,
    disk: Option<f64>,
}

/// Measures all that is possible here.
///
/// # Errors
/// Something else uses a processor, or a tool fails or does not carry what it was given.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Told> {
    let (mut places, mut left_out, mut tools) = (Vec::new(), Vec::new(), Vec::new());
    for tool in &options.tools {
        match tool.missing().as_slice() {
            [] => tools.push(*tool),
            missing => left_out.push(format!("{}: {} missing (tests/bench/setup)", tool.name(), missing.join(", "))),
        }
    }
    for kind in &options.over {
        match place::missing(*kind) {
            None => places.push(over(*kind, options, &tools).await?),
            Some(why) => left_out.push(format!("{}: {why}", kind.name(&options.rate))),
        }
    }
    Ok(Told { places, left_out })
}

impl Kind {
    fn name(self, rate: &str) -> String {
        match self {
            Self::Loopback => "the loopback".into(),
            Self::Veth => "two hosts joined by a veth pair".into(),
            Self::Limited => format!("two hosts joined at {rate}"),
        }
    }
}

async fn over(kind: Kind, options: &Options, tools: &[Tool]) -> anyhow::Result<Figures> {
    let place = Place::make(kind, &options.dir, &options.rate)?;
    let swarm = Swarm::start(&place, 1).await?;
    let size = if kind == Kind::Limited { options.limited_size } else { options.size };
    let file = place.dir.join("file");
    let mut written = File::create(&file)?;
    crate::generate(size, |piece| written.write_all(piece))?;
    written.sync_all()?;
    let digest = digest_of(&file)?;
    let cargo = Cargo { place: &place, swarm: &swarm, file, size, digest };
    let mut ran: Vec<(Tool, Vec<Seconds>)> = tools.iter().map(|tool| (*tool, Vec::new())).collect();
    for _ in 0..options.rounds.max(1) {
        for (tool, runs) in &mut ran {
            quiet::wait()?;
            let Ran { took, result } = cargo.carry(*tool).await?;
            let disk = result.map(|path| checked(*tool, &path, digest)).transpose()?;
            runs.push(Seconds { took: took.as_secs_f64(), disk: disk.map(|disk| disk.as_secs_f64()) });
        }
    }
    ensure!(swarm.through_leader().await? == 0, "a blob passed through the leader");
    let ours = ran.iter().find(|(tool, _)| *tool == Tool::Swarm).map(|(_, runs)| median(runs.iter().map(|run| run.took).collect()));
    let tools = ran.into_iter().map(|(tool, runs)| Row::new(tool, size, &runs, ours)).collect();
    Ok(Figures { over: kind.name(&options.rate), size, rounds: options.rounds.max(1), tools })
}

/// How long the disk takes to have it for good; then it is read again, and removed where it is no store's.
fn checked(tool: Tool, path: &Path, digest: Digest) -> anyhow::Result<Duration> {
    let began = Instant::now();
    File::open(path)?.sync_all()?;
    let took = began.elapsed();
    ensure!(digest_of(path)? == digest, "{} has carried something else", tool.name());
    if tool != Tool::Swarm {
        fs::remove_file(path)?;
    }
    Ok(took)
}

fn digest_of(path: &Path) -> anyhow::Result<Digest> {
    Ok(Digest(blake3::Hasher::new().update_reader(File::open(path)?)?.finalize().into()))
}

impl Row {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn new(tool: Tool, size: u64, runs: &[Seconds], ours: Option<f64>) -> Self {
        let median_s = median(runs.iter().map(|run| run.took).collect());
        let disk: Vec<f64> = runs.iter().filter_map(|run| run.disk).collect();
        Self {
            tool: tool.name(),
            median_s,
            gbit_s: size as f64 * 8.0 / median_s / 1e9,
            disk_s: (!disk.is_empty()).then(|| median(disk)),
            swarm_times: ours.filter(|_| tool != Tool::Swarm).map(|ours| ours / median_s),
            seconds: runs.iter().map(|run| run.took).collect(),
        }
    }
}

/// Tables for people: the ratios, and what they are made of.
pub(crate) fn table(told: &Told) -> String {
    let mut text = String::new();
    for Figures { over, size, rounds, tools } in &told.places {
        text += &format!("over {over}: {} MiB, medians of {rounds} rounds in turn, every result verified\n", size >> 20);
        for Row { tool, swarm_times, .. } in tools {
            if let Some(times) = swarm_times {
                text += &format!("  swarm's time is {times:5.2} x that of {tool}\n");
            }
        }
        for Row { tool, median_s, gbit_s, disk_s, seconds, .. } in tools {
            let all: Vec<String> = seconds.iter().map(|seconds| format!("{seconds:.2}")).collect();
            let disk = disk_s.map_or_else(|| format!("{:22}", ""), |seconds| format!(", the disk {seconds:4.2} s more"));
            text += &format!("  {tool:<30} {median_s:7.2} s {gbit_s:7.2} Gbit/s{disk}  ({})\n", all.join(", "));
        }
    }
    for what in &told.left_out {
        text += &format!("left out: {what}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_stand_above_what_they_are_made_of() {
        let run = |took: f64, disk| Seconds { took, disk };
        let rows = [
            Row::new(Tool::Swarm, 1 << 30, &[run(1.5, Some(0.0)), run(1.0, Some(0.0)), run(1.25, Some(0.0))], Some(1.25)),
            Row::new(Tool::Quinn, 1 << 30, &[run(1.0, None)], Some(1.25)),
            Row::new(Tool::Nc, 1 << 30, &[run(2.5, Some(0.5))], Some(1.25)),
        ];
        let places = vec![Figures { over: Kind::Loopback.name(""), size: 1 << 30, rounds: 3, tools: rows.into() }];
        let told = table(&Told { places, left_out: vec!["scp: sshd missing (tests/bench/setup)".into()] });
        let lines: Vec<&str> = told.lines().map(str::trim_end).collect();
        let expected = [
            "over the loopback: 1024 MiB, medians of 3 rounds in turn, every result verified",
            "  swarm's time is  1.25 x that of stock quinn, zeros to nowhere",
            "  swarm's time is  0.50 x that of nc",
            "  swarm, store to store             1.25 s    6.87 Gbit/s, the disk 0.00 s more  (1.50, 1.00, 1.25)",
            "  stock quinn, zeros to nowhere     1.00 s    8.59 Gbit/s                        (1.00)",
            "  nc                                2.50 s    3.44 Gbit/s, the disk 0.50 s more  (2.50)",
            "left out: scp: sshd missing (tests/bench/setup)",
        ];
        assert_eq!(lines, expected);
    }
}
