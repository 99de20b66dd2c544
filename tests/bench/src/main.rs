//! Measures parts of swarm beside what they are made of, and beside what else does the same.
//!
//! ```text
//!   blob     the transfer alone, in this one process, a sender and a receiver each on a thread with a runtime of its own, over
//!            loopback, beside stock quinn sending zeros
//!   tasks    tasks through real daemons beside NATS, etcd, HyperQueue, bare spawns, the bare disk, and consensus with nothing on top
//!   instructions  what a task costs two commits of ours, in instructions: the same on a busy machine
//!   beside   real daemons beside nc, scp, rsync, sendme and stock quinn: over loopback, over a veth pair, over a limited link
//!   memory   what real daemons take of memory while a blob moves from one to others, for several sizes
//!   membership  what nodes think of each other when some die, split or stutter, in virtual time, beside SWIM as memberlist does it
//!   footprint  what real daemons take of a machine when there is nothing to do, and when very much waits
//!   load     no-op tasks near the peak, by many clients, beside slow disks, few and many
//!   mesh     real daemons that are killed or stutter, beside the simulation of the same
//!   failover how long real daemons are without a leader, a host or a task that is taken away
//! ```
//! `tests/bench/setup` installs what `beside` and `tasks` measure beside and `instructions` counts with. The figures are medians; the ratios are what can be trusted on a shared machine.
#![cfg(target_os = "linux")]

mod beside;
mod blob;
mod failover;
mod figures;
mod footprint;
mod instructions;
mod load;
mod membership;
mod memory;
mod mesh;
mod quiet;
mod swarm;
mod tasks;
mod usage;
mod workload;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use serde::Serialize;
use swarmd::raw;

use crate::usage::Meter;

/// Made and handed on at a time.
const PIECE: usize = 1 << 20;

/// Measures parts of swarm beside what they are made of, and beside what else does the same
#[derive(Parser)]
#[command(name = "swarm-bench")]
struct Cli {
    /// How data is shown: text, json
    #[arg(short, long, global = true, default_value = "text", value_parser = ["text", "json"])]
    output: String,
    #[command(subcommand)]
    verb: Verb,
}

/// What can be measured.
#[derive(Subcommand)]
enum Verb {
    /// A blob from file to file, beside stock quinn sending zeros
    Blob {
        /// Bytes of the blob
        #[arg(long, default_value = "1GiB", value_parser = mesh_config::parse_bytes)]
        size: u64,
        /// Rounds of each
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Tasks through real daemons, beside what else does the same, and beside what they are made of
    Tasks(tasks::Options),
    /// Instructions a task of two commits, under callgrind
    Instructions(instructions::Options),
    /// No-op tasks through a simulated swarm, as `instructions` runs it
    #[command(hide = true)]
    Workload {
        /// Tasks, each submitted singly
        tasks: u32,
    },
    /// A file from host to host, beside nc, scp, rsync, sendme and stock quinn
    Beside(beside::Options),
    /// Who is here, in virtual time, beside SWIM as memberlist does it
    Membership(membership::Options),
    /// Real daemons that are killed or stutter, beside the simulation of the same
    Mesh(mesh::Options),
    /// What daemons take when there is nothing to do, and when very much waits
    Footprint(footprint::Options),
    /// No-op tasks under load: near the peak, by ten clients, beside a slow disk, few and many
    Load(load::Options),
    /// A leader, a host, a task's process taken away: time until another one does its work
    Failover(failover::Options),
    /// Memory of daemons while a blob moves from one to the others
    Memory {
        /// Daemons that get it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
        receivers: u8,
        /// Bytes of the blobs
        #[arg(long, value_delimiter = ',', default_value = "256MiB,1GiB,4GiB", value_parser = mesh_config::parse_bytes)]
        sizes: Vec<u64>,
        /// A disk with room for the largest of them, once for each daemon
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
}

#[derive(Serialize)]
struct Told {
    size: u64,
    gbit_s: f64,
    raw_quic_gbit_s: f64,
    ratio: f64,
    /// Of both sides together.
    cpu_s_per_gib: f64,
    raw_quic_cpu_s_per_gib: f64,
    /// Of the first, what goes into checking that each segment is what it should be.
    verify_cpu_s_per_gib: f64,
    /// Every round, in the order in which they ran: ours, then stock quinn.
    rounds: Vec<(f64, f64)>,
}

/// One run.
#[derive(Clone, Copy)]
struct Run {
    seconds: f64,
    cpu: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes that differ, so that nothing on the way can make them fewer; in pieces, until one is not taken.
fn generate<E>(size: u64, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let (mut stream, mut left, mut piece) = (blake3::Hasher::new().finalize_xof(), size, vec![0; PIECE]);
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        stream.fill(&mut piece[..len]);
        take(&piece[..len])?;
        left -= len as u64;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn measure(size: u64, rounds: usize) -> anyhow::Result<Told> {
    let (mut ours, mut stock) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(1) {
        ours.push(blob::run(size)?);
        let meter = Meter::start();
        let took = raw::run(size).map_err(|fault| anyhow::anyhow!("stock quinn: {fault}"))?;
        stock.push(Run { seconds: took.as_secs_f64(), ..meter.stop() });
    }
    let gbit = |run: &Run| size as f64 * 8.0 / run.seconds / 1e9;
    let gib = size as f64 / f64::from(1u32 << 30);
    let (gbit_s, raw) = (median(ours.iter().map(gbit).collect()), median(stock.iter().map(gbit).collect()));
    Ok(Told {
        size,
        gbit_s,
        raw_quic_gbit_s: raw,
        ratio: gbit_s / raw,
        cpu_s_per_gib: median(ours.iter().map(|run| run.cpu / gib).collect()),
        verify_cpu_s_per_gib: blob::verify(size)?.cpu / gib,
        raw_quic_cpu_s_per_gib: median(stock.iter().map(|run| run.cpu / gib).collect()),
        rounds: ours.iter().map(gbit).zip(stock.iter().map(gbit)).collect(),
    })
}

fn table(told: &Told) -> String {
    format!(
        "blob, file to file   {:6.2} Gbit/s   {:.2} CPU-s/GiB, {:.2} of them to verify it\n\
         stock quinn, zeros   {:6.2} Gbit/s   {:.2} CPU-s/GiB\nratio                {:6.2}\n",
        told.gbit_s, told.cpu_s_per_gib, told.verify_cpu_s_per_gib, told.raw_quic_gbit_s, told.raw_quic_cpu_s_per_gib, told.ratio
    )
}

#[expect(clippy::print_stdout, reason = "a program that tells figures")]
fn tell<T: Serialize>(output: &str, told: &T, table: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    if output == "json" {
        println!("{}", serde_json::to_string(told)?);
    } else {
        print!("{}", table(told));
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let Cli { output, verb } = Cli::parse();
    // what is started here is killed when this thread ends, and all is started here
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match verb {
        Verb::Blob { size, rounds } => tell(&output, &measure(size, rounds)?, table),
        Verb::Tasks(options) => {
            let told = tasks::measure(&options)?;
            tell(&output, &told, tasks::table)?;
            tasks::check(&told)
        }
        Verb::Instructions(options) => {
            let told = instructions::measure(&options)?;
            tell(&output, &told, instructions::table)?;
            instructions::check(&options, &told)
        }
        Verb::Workload { tasks } => workload::run(tasks),
        Verb::Beside(options) => tell(&output, &runtime.block_on(beside::measure(&options))?, beside::table),
        Verb::Membership(options) => {
            let all = membership::measure(&options)?;
            tell(&output, &all, membership::table)?;
            membership::check(&options, &all)
        }
        Verb::Footprint(options) => tell(&output, &runtime.block_on(footprint::measure(&options))?, figures::Rows::table),
        Verb::Load(options) => tell(&output, &runtime.block_on(load::measure(&options))?, figures::Rows::table),
        Verb::Mesh(options) => {
            let all = runtime.block_on(mesh::measure(&options))?;
            tell(&output, &all, mesh::table)?;
            mesh::check(&options, &all)
        }
        Verb::Failover(options) => {
            let all = runtime.block_on(failover::measure(&options))?;
            tell(&output, &all, failover::table)?;
            failover::check(&options, &all)
        }
        Verb::Memory { receivers, sizes, dir } => {
            let all = runtime.block_on(memory::measure(&sizes, receivers, &dir))?;
            tell(&output, &all, |all| memory::table(all))
        }
    }
}
