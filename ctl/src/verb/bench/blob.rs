//! `bench blob`: how fast a blob gets from one node's disk to another's, beside what stock quinn does with zeros in the same run.
//!
//! ```text
//!   swarmctl -- put --> sender's store ==== bulk endpoint, timed ====> receiver's store
//!       '--- GET /v1/stats ---> receiver -- control endpoint --> leader, which counts what it gives and takes
//! ```
//! Three real daemons of a throw-away swarm; neither side is the leader. The bytes are in the sender's store before the clock starts,
//! and it stops when the receiver says that it has them for good: every segment checked, the file and its name on the disk. Then
//! `swarmd stock-quic` sends as many zeros from its memory to nowhere, and so on in turn; what is told are medians.
//!
//! A control round trip is `GET /v1/stats` at the receiver, which has the leader answer it. It is measured while nothing else happens,
//! and then while the blob is fetched over and over. On a machine with few cores that tells how the daemons share them, too.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;
use swarm_client::Client;
use swarm_proto::{
    Code, Digest, Problem, Term,
    api::{BlobLine, Status},
    limits,
};
use tokio::process::Command;

use super::{
    load::percentile,
    throwaway::{Node, Throwaway, beside},
    usage::cpu_with_ended,
};
use crate::{failure::Outcome, output::Out, view};

/// The first blob, which nobody times: it has the two nodes connect.
const FIRST: u64 = 1 << 20;
/// Control round trips of each kind, at least.
const SAMPLES: usize = 1_000;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(1);

/// Options of `bench blob`.
#[derive(Args, Clone, Debug)]
pub struct Blob {
    /// Bytes of the blob, 1MiB to 64GiB.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    size: u64,
    /// Rounds of each.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Where the throw-away swarm keeps its state: a real disk with room for the blob twice.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn parse_size(text: &str) -> Result<u64, String> {
    let size = mesh_config::parse_bytes(text)?;
    if (FIRST..=limits::BLOB).contains(&size) { Ok(size) } else { Err("1MiB to 64GiB can be measured".into()) }
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    size: u64,
    rounds: u32,
    gbit_s: f64,
    raw_quic_gbit_s: f64,
    ratio: f64,
    /// `None` where the system does not tell.
    cpu_s_per_gib: Option<Cpu>,
    control_p99_ms: Control,
    leader_payload_bytes: u64,
    /// Of the sender: what the system takes at once; 1: no UDP segmentation offload.
    datagrams_a_call: u32,
}

/// Of the two daemons.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cpu {
    send: f64,
    recv: f64,
}

/// How long the leader takes to answer through another node.
#[derive(Debug, Serialize)]
struct Control {
    idle: f64,
    busy: f64,
}

pub(super) async fn call(args: &Blob, out: Out) -> Outcome {
    let swarm = Throwaway::start(args.dir.as_deref()).await?;
    let measured = measure(args, &swarm).await;
    swarm.stop().await;
    let report = measured?;
    Ok(out.either(&report, |_| table(&report))?)
}

/// Who does what.
struct Roles<'a> {
    leader: &'a Node,
    from: &'a Node,
    to: &'a Node,
    term: Term,
}

impl<'a> Roles<'a> {
    async fn of(swarm: &'a Throwaway) -> Result<Self, Problem> {
        let status = Client::new(&swarm.nodes()[0].socket).leader().await?;
        let (leader, others): (Vec<&Node>, Vec<&Node>) = swarm.nodes().iter().partition(|node| node.name == status.name);
        match (leader.as_slice(), others.as_slice()) {
            ([leader], [from, to]) => Ok(Self { leader, from, to, term: status.term }),
            _ => Err(Problem::new(Code::Internal, "no blob is measured", format!("{} leads, and is none of the three", status.name))),
        }
    }

    fn to(&self) -> Client {
        Client::new(&self.to.socket)
    }

    /// Bytes of blobs that the leader has given and taken.
    async fn carried(&self) -> Result<u64, Problem> {
        let Status { blobs_given, blobs_taken, term, .. } = Client::new(&self.leader.socket).status().await?;
        if term == self.term {
            return Ok(blobs_given + blobs_taken);
        }
        let why = format!("{} led when it began, and there was an election since", self.leader.name);
        Err(Problem::new(Code::Conflict, "who leads has changed while it was measured", why).hint("measure again"))
    }

    /// Brings a blob from the one side to the other.
    async fn push(&self, digest: Digest) -> Result<Duration, Problem> {
        let began = Instant::now();
        let mut lines = Client::new(&self.from.socket).push_blob(digest, std::slice::from_ref(&self.to.name)).await?;
        while let Some(line) = lines.next().await? {
            match line {
                BlobLine::Progress { .. } => {}
                BlobLine::Held { .. } => return Ok(began.elapsed()),
                BlobLine::Failed { problem, .. } => return Err(problem),
            }
        }
        Err(Problem::new(Code::UnknownOutcome, "the benchmark did not finish", "the daemon ended the stream of answers"))
    }

    fn cpu(&self) -> Option<[Duration; 2]> {
        Some([cpu_with_ended(self.from.pid)?, cpu_with_ended(self.to.pid)?])
    }
}

async fn measure(args: &Blob, swarm: &Throwaway) -> Result<Report, Problem> {
    let roles = Roles::of(swarm).await?;
    let carried = roles.carried().await?;
    roles.push(put(roles.from, FIRST).await?).await?;
    let mut idle = Vec::new();
    while idle.len() < SAMPLES {
        idle.push(round_trip(&roles.to()).await?);
    }
    let digest = put(roles.from, args.size).await?;
    let (mut ours, mut stock, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        roles.to().collect_blobs(0).await?;
        let before = roles.cpu();
        ours.push(gbit_s(args.size, roles.push(digest).await?));
        cpu.extend(before.zip(roles.cpu()).map(|(before, after)| spent(args.size, before, after)));
        stock.push(gbit_s(args.size, stock_quinn(args.size).await?));
    }
    let busy = while_busy(&roles, digest).await?;
    let (gbit_s, raw_quic_gbit_s) = (median(ours), median(stock));
    Ok(Report {
        size: args.size,
        rounds: args.rounds,
        gbit_s,
        raw_quic_gbit_s,
        ratio: gbit_s / raw_quic_gbit_s,
        cpu_s_per_gib: (!cpu.is_empty()).then(|| Cpu {
            send: median(cpu.iter().map(|cpu| cpu.send).collect()),
            recv: median(cpu.iter().map(|cpu| cpu.recv).collect()),
        }),
        control_p99_ms: Control { idle: percentile(&mut idle, 0.99), busy },
        leader_payload_bytes: roles.carried().await? - carried,
        datagrams_a_call: Client::new(&roles.from.socket).status().await?.datagrams_a_call,
    })
}

/// Bytes that differ, so that nothing on the way can make them fewer.
async fn put(node: &Node, size: u64) -> Result<Digest, Problem> {
    Ok(Client::new(&node.socket).put_blob(Some(size), false, swarm_client::noise(size, size)).await?.digest)
}

async fn stock_quinn(size: u64) -> Result<Duration, Problem> {
    let failed = |why: String| Problem::new(Code::Internal, "stock quinn is not measured", why);
    let mut command = Command::new(beside()?);
    let output = command.args(["stock-quic", "--size", &size.to_string()]).kill_on_drop(true).output().await;
    let output = output.map_err(|e| failed(e.to_string()))?;
    let seconds = String::from_utf8_lossy(&output.stdout).trim().parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// In milliseconds.
async fn round_trip(client: &Client) -> Result<f64, Problem> {
    tokio::time::sleep(PAUSE).await;
    let began = Instant::now();
    client.stats().await?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// The same while blobs move, its 99th percentile; what ended after the blob had come does not count.
async fn while_busy(roles: &Roles<'_>, digest: Digest) -> Result<f64, Problem> {
    let (client, mut busy) = (roles.to(), Vec::new());
    while busy.len() < SAMPLES {
        client.collect_blobs(0).await?;
        let before = busy.len();
        let moving = roles.push(digest);
        tokio::pin!(moving);
        loop {
            tokio::select! {
                biased;
                moved = &mut moving => break moved.map(drop)?,
                took = round_trip(&client) => busy.push(took?),
            }
        }
        if busy.len() == before {
            let why = "not one round trip fits into the time of a transfer";
            return Err(Problem::new(Code::BadRequest, "the blob is too small", why).hint("--size with a larger one"));
        }
    }
    Ok(percentile(&mut busy, 0.99))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn gbit_s(size: u64, took: Duration) -> f64 {
    size as f64 * 8.0 / took.as_secs_f64() / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn spent(size: u64, before: [Duration; 2], after: [Duration; 2]) -> Cpu {
    let a_gib = |side: usize| after[side].saturating_sub(before[side]).as_secs_f64() * f64::from(1 << 30) / size as f64;
    Cpu { send: a_gib(0), recv: a_gib(1) }
}

fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 0.5)
}

fn table(report: &Report) -> String {
    let Report { size, rounds, gbit_s, raw_quic_gbit_s, ratio, cpu_s_per_gib, control_p99_ms, leader_payload_bytes, datagrams_a_call } =
        report;
    let mut lines = vec![
        format!("{:<28}{}, medians of {rounds}", "blob", view::bytes(*size)),
        format!("{:<28}{gbit_s:.2} Gbit/s, verified", "file to file"),
        format!("{:<28}{raw_quic_gbit_s:.2} Gbit/s", "stock quinn, zeros"),
        format!("{:<28}{ratio:.2}", "ratio"),
    ];
    if let Some(Cpu { send, recv }) = cpu_s_per_gib {
        lines.push(format!("{:<28}{send:.2} s where it is sent, {recv:.2} s where it is received", "CPU a GiB"));
    }
    lines.push(format!(
        "{:<28}{:.3} ms idle, {:.3} ms while blobs move",
        "control round trip, p99", control_p99_ms.idle, control_p99_ms.busy
    ));
    lines.push(format!("{:<28}{}", "through the leader", view::bytes(*leader_payload_bytes)));
    lines.push(format!("{:<28}{datagrams_a_call}", "datagrams a call, at most"));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            size: 1 << 30,
            rounds: 3,
            gbit_s: 8.5,
            raw_quic_gbit_s: 9.125,
            ratio: 0.931_5,
            cpu_s_per_gib: Some(Cpu { send: 0.61, recv: 0.935 }),
            control_p99_ms: Control { idle: 0.4, busy: 1.25 },
            leader_payload_bytes: 0,
            datagrams_a_call: 64,
        }
    }

    #[test]
    fn a_person_reads_the_ratio_and_what_it_is_of() {
        insta::assert_snapshot!(table(&report()), @r"
        blob                        1.0 GiB, medians of 3
        file to file                8.50 Gbit/s, verified
        stock quinn, zeros          9.12 Gbit/s
        ratio                       0.93
        CPU a GiB                   0.61 s where it is sent, 0.94 s where it is received
        control round trip, p99     0.400 ms idle, 1.250 ms while blobs move
        through the leader          0 B
        datagrams a call, at most   64
        ");
        let elsewhere = Report { cpu_s_per_gib: None, ..report() };
        assert_eq!(table(&elsewhere).lines().count(), table(&report()).lines().count() - 1);
    }

    #[test]
    fn a_program_reads_the_same() {
        insta::assert_snapshot!(crate::output::compact(&report()), @r#"{"size":1073741824,"rounds":3,"gbit_s":8.5,"raw_quic_gbit_s":9.125,"ratio":0.9315,"cpu_s_per_gib":{"send":0.61,"recv":0.935},"control_p99_ms":{"idle":0.4,"busy":1.25},"leader_payload_bytes":0,"datagrams_a_call":64}"#);
    }

    #[test]
    fn sizes_have_bounds() {
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_size("64GiB"), Ok(64 << 30));
        for wrong in ["1048575", "65GiB", "much"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
