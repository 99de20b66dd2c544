//! `swarm-lab`: real daemons on a mesh of namespaces, and what such meshes do to them. Needs root.

use std::{
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};
use swarm_lab::{Finding, Lab, Mesh, Preset, ROUNDS, Spec, Step, beside_nc, control, crowd, fan_out, killed, readme, sources};

/// Real daemons on a mesh of hosts, made of network namespaces on this machine. Needs root.
#[derive(Parser)]
#[command(version, disable_help_subcommand = true)]
struct Args {
    /// Another name is another lab beside the first.
    #[arg(long, global = true, default_value = "swarm")]
    name: String,
    /// The daemon to run; the one beside this program if absent.
    #[arg(long, global = true, value_name = "PROGRAM")]
    swarmd: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// What this machine lacks, in one line; nothing and success when it lacks nothing.
    Check,
    /// Steps on one lab, in this order.
    Run {
        /// Hosts at the beginning.
        #[arg(long, default_value_t = 5)]
        hosts: usize,
        /// How long the resolver's answers live.
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        ttl: u32,
        /// The timings of lossy and slow meshes.
        #[arg(long)]
        wan: bool,
        /// How the daemons find each other.
        #[arg(long, value_enum, default_value_t = Finding::Names)]
        finding: Finding,
        #[arg(required = true)]
        steps: Vec<Step>,
    },
    /// Types what a README shows, on such hosts as it says.
    Readme {
        #[arg(default_value = "README.md")]
        file: PathBuf,
    },
    /// Many hosts that nothing happens to: false alarms, bytes and processor time are counted.
    Crowd {
        #[arg(long, default_value_t = 30)]
        hosts: usize,
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        seconds: u64,
        /// Without WireGuard, whose processes take more of a processor than the daemons.
        #[arg(long)]
        plain: bool,
    },
    /// One blob to 1, 3, 8 and 16 hosts over links of a rate, without WireGuard: time beside one transfer, and who sent how much.
    FanOut {
        /// Most hosts that it is pushed to.
        #[arg(long, default_value_t = 8)]
        to: usize,
        /// Besides to 1, only to that many.
        #[arg(long)]
        only: bool,
        /// Bytes of the blob.
        #[arg(long, default_value_t = 128 << 20)]
        size: u64,
        /// What each link carries, as tc writes it: little, so that the links are the limit and not the cores that all hosts share.
        #[arg(long, default_value = "60mbit")]
        rate: String,
        /// Something else is measured instead.
        #[arg(long, value_enum, value_name = "CASE")]
        case: Option<Case>,
        /// Fails where the ratio that a case tells is worse.
        #[arg(long, value_name = "RATIO", requires = "case")]
        bound: Option<f64>,
    },
}

/// What else there is to measure of blobs over links of a rate.
#[derive(Clone, Copy, ValueEnum)]
enum Case {
    /// The daemon in the middle of the chain is killed half way; time until the others have it.
    Kill,
    /// To one: from one host and from two, whose links carry half of the rate.
    Sources,
    /// To one: what the leader's answers take meanwhile, at both ends of the full link.
    Control,
    /// Beside nc, that to each of them, and through them in a chain.
    Nc,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match work(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One line to whoever looks on.
fn say(text: &str) {
    // whoever reads this may be gone; what was begun is ended all the same
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn work(args: &Args) -> anyhow::Result<()> {
    if let Some(missing) = Mesh::missing() {
        bail!("no mesh can be made here: {missing}");
    }
    let program = match &args.swarmd {
        Some(program) => program.canonicalize().with_context(|| program.display().to_string())?,
        None => std::env::current_exe()?.with_file_name("swarmd"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let asked = stop_asked();
        tokio::pin!(asked);
        tokio::select! {
            biased;
            signal = &mut asked => bail!("interrupted by {}", signal?),
            done = verb(args, program) => done,
        }
    })
}

async fn stop_asked() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::select! {
        biased;
        _ = term.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

async fn verb(args: &Args, program: PathBuf) -> anyhow::Result<()> {
    let finding = Finding::Names;
    let spec = Spec { name: args.name.clone(), hosts: 0, ttl: 600, preset: Preset::Lan, finding, is_plain: false, program };
    match &args.verb {
        Verb::Check => Ok(()),
        Verb::Run { hosts, ttl, wan, finding, steps } => {
            let preset = if *wan { Preset::Wan } else { finding.preset() };
            run(&Spec { hosts: *hosts, ttl: *ttl, preset, finding: *finding, ..spec }, steps).await
        }
        Verb::Readme { file } => {
            let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
            for told in readme(&spec, &text).await? {
                say(&told);
            }
            Ok(())
        }
        Verb::FanOut { to, only, size, rate, case, bound } => {
            let to = match case {
                Some(Case::Sources | Case::Control) => 2,
                Some(Case::Kill | Case::Nc) | None => *to,
            };
            let counts = if *only { vec![1, to] } else { ROUNDS.to_vec() };
            // one that pushes and one that leads, besides
            let mut lab = Lab::up(&Spec { hosts: to + 2, is_plain: true, ..spec }).await?;
            let told = match case {
                Some(Case::Kill) => killed(&mut lab, to, *size, rate, *bound).await?,
                Some(Case::Sources) => sources(&mut lab, *size, rate, *bound).await?,
                Some(Case::Control) => control(&mut lab, *size, rate, *bound).await?,
                Some(Case::Nc) => beside_nc(&mut lab, to, *size, rate, *bound).await?,
                None => fan_out(&mut lab, *size, rate, &counts).await?,
            };
            say(&told);
            Ok(())
        }
        Verb::Crowd { hosts, seconds, plain } => {
            let mut lab = Lab::up(&Spec { hosts: *hosts, is_plain: *plain, ..spec }).await?;
            let told = crowd(&mut lab, Duration::from_secs(*seconds)).await?;
            say(&told);
            Ok(())
        }
    }
}

/// Runs the steps. One that fails costs its lab; the next begins with a fresh one.
async fn run(spec: &Spec, steps: &[Step]) -> anyhow::Result<()> {
    let mut standing = None;
    let mut failed = Vec::new();
    for step in steps {
        let began = Instant::now();
        let mut lab = match standing.take() {
            Some(lab) => lab,
            None => Lab::up(spec).await?,
        };
        let name = step.word();
        match step.run(&mut lab).await {
            Ok(figures) => {
                let seconds = began.elapsed().as_secs_f64();
                say(&format!("{name:10} {} hosts, {seconds:.0} s: {figures}", lab.running().len()));
                standing = Some(lab);
            }
            Err(error) => {
                say(&format!("{name:10} FAILED after {:.0} s: {error:#}", began.elapsed().as_secs_f64()));
                say(&format!("           the daemons' files are kept in {}", lab.keep(&name)?.display()));
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} steps: {}", failed.len(), steps.len(), failed.join(" "));
    }
    Ok(())
}
