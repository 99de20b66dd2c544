//! `swarm-bench blob`: how fast a blob gets from one file to another, beside what stock quinn does with zeros.
//!
//! Both run in this one process, in turn, a sender and a receiver each on a thread with a runtime of its own, over loopback. The
//! figures are medians over the rounds; the ratio is what can be trusted on a shared machine.
#![cfg(unix)]

mod blob;
mod raw;
mod usage;

use clap::Parser;
use serde::Serialize;

/// What can be measured.
#[derive(Parser)]
#[command(name = "swarm-bench", about = "Measures parts of swarm beside what they are made of")]
enum Cli {
    /// A blob from file to file, beside stock quinn sending zeros
    Blob {
        /// Bytes of the blob
        #[arg(long, default_value = "1GiB", value_parser = mesh_config::parse_bytes)]
        size: u64,
        /// Rounds of each
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// How data is shown: text, json
        #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
        output: String,
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

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn measure(size: u64, rounds: usize) -> anyhow::Result<Told> {
    let (mut ours, mut stock) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(1) {
        ours.push(blob::run(size)?);
        stock.push(raw::run(size)?);
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
        raw_quic_cpu_s_per_gib: median(stock.iter().map(|run| run.cpu / gib).collect()),
        rounds: ours.iter().map(gbit).zip(stock.iter().map(gbit)).collect(),
    })
}

#[expect(clippy::print_stdout, reason = "a program that tells figures")]
fn main() -> anyhow::Result<()> {
    let Cli::Blob { size, rounds, output } = Cli::parse();
    let told = measure(size, rounds)?;
    if output == "json" {
        println!("{}", serde_json::to_string(&told)?);
        return Ok(());
    }
    println!("blob, file to file   {:6.2} Gbit/s   {:.2} CPU-s/GiB", told.gbit_s, told.cpu_s_per_gib);
    println!("stock quinn, zeros   {:6.2} Gbit/s   {:.2} CPU-s/GiB", told.raw_quic_gbit_s, told.raw_quic_cpu_s_per_gib);
    println!("ratio                {:6.2}", told.ratio);
    Ok(())
}
