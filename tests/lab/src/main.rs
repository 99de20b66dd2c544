//! `swarm-lab`: real daemons on a mesh of namespaces, and what such meshes do to them. Needs root.

use std::{
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use swarm_lab::{Lab, Mesh, Preset, Spec, Step, crowd};

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
        #[arg(required = true)]
        steps: Vec<Step>,
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
    let spec = |hosts, ttl, preset, is_plain| Spec { name: args.name.clone(), hosts, ttl, preset, is_plain, program };
    match &args.verb {
        Verb::Check => Ok(()),
        Verb::Run { hosts, ttl, wan, steps } => {
            let preset = if *wan { Preset::Wan } else { Preset::Lan };
            run(&spec(*hosts, *ttl, preset, false), steps).await
        }
        Verb::Crowd { hosts, seconds, plain } => {
            let mut lab = Lab::up(&spec(*hosts, 600, Preset::Lan, *plain)).await?;
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
