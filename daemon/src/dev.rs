//! `swarmd dev`: a throw-away swarm of real daemons on 127.0.0.x.
//!
//! It makes a node CA, prepares a directory for each node (key, certificate, config) and starts plain `swarmd run --config FILE`.
//! Nothing in a daemon knows that its swarm is one of these. When this process ends, however it ends, so do they.

mod children;
mod prepare;
mod swarm;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::Serialize;
use swarm_proto::{Code, Problem};

pub use self::{
    prepare::Authority,
    swarm::{DevNode, Options, Swarm},
};
use crate::host::{end_with_parent, stop_asked};

/// Most nodes one command starts.
const MOST: usize = 100;

/// Options of `swarmd dev`.
#[derive(clap::Args)]
pub struct Args {
    /// How many daemons.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// Where their state goes, in a directory of its own that is removed at the end; the system's temporary directory if absent.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How the news is printed.
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    /// End when the process that started this one ends.
    #[arg(long, hide = true)]
    end_with_parent: bool,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// One JSON value.
    Json,
}

#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    dir: &'a Path,
    nodes: &'a [DevNode],
}

/// Starts the swarm, says when it is ready, and ends it on Ctrl-C.
///
/// # Errors
/// A swarm that does not come up; its nodes' last words are in the problem.
pub fn main(args: Args) -> Result<(), Problem> {
    if !(1..=MOST).contains(&args.nodes) {
        return Err(Problem::new(Code::BadRequest, format!("a swarm of {} nodes is not started", args.nodes), format!("1 to {MOST} are")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Problem::new(Code::Internal, "the runtime does not start", e.to_string()))?;
    runtime.block_on(async {
        let stop = stop_asked();
        tokio::pin!(stop);
        // which is a signal, too
        if args.end_with_parent {
            end_with_parent();
        }
        let options = Options { nodes: args.nodes, state_dir: args.state_dir, ..Options::default() };
        let mut swarm = Swarm::start(&options)?;
        let outcome = tokio::select! {
            biased;
            _ = &mut stop => Ok(()),
            ready = serve(&mut swarm, args.output) => ready,
        };
        swarm.stop().await;
        outcome
    })
}

async fn serve(swarm: &mut Swarm, form: Form) -> Result<(), Problem> {
    swarm.wait_ready().await?;
    announce(swarm, form);
    // a daemon that is killed is what such a swarm is for: the others go on
    while let Some((name, how)) = swarm.next_exit().await {
        say(&format!("{name} ended ({how}); its log is {}", swarm.log_of(&name).display()));
    }
    Err(Problem::new(Code::Internal, "the swarm is no more", "its last daemon has ended"))
}

/// A remark to the person, beside the data.
fn say(text: &str) {
    // whoever reads this may be gone; the swarm goes on
    let _ = writeln!(std::io::stderr().lock(), "swarmd: {text}");
}

fn announce(swarm: &Swarm, form: Form) {
    let text = match form {
        Form::Json => serde_json::to_string(&Ready { ready: true, dir: swarm.dir(), nodes: swarm.nodes() }).unwrap_or_default(),
        Form::Table => {
            let mut text = format!("ready: {} nodes on 127.0.0.x, state in {}\n", swarm.nodes().len(), swarm.dir().display());
            text += "Ctrl-C ends them and removes it. In another terminal:\n\n";
            text + &format!("  {}\n", next_line(swarm))
        }
    };
    let mut out = std::io::stdout().lock();
    // whoever reads this may be gone; the swarm goes on
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A line that works as it stands, whether or not swarmctl is built or on PATH.
fn next_line(swarm: &Swarm) -> String {
    let socket = swarm.nodes()[0].socket.display().to_string();
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("swarmctl"))).filter(|path| path.exists());
    // set while `cargo run` runs this; asked for now, so that the program does not hold where it was built
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(|dir| PathBuf::from(dir).join("../Cargo.toml")).filter(|path| path.exists());
    let ctl = match (beside, manifest) {
        (Some(path), _) => path.display().to_string(),
        (None, Some(manifest)) => format!("cargo run --release --quiet --manifest-path {} --bin swarmctl --", clean(&manifest)),
        (None, None) => "swarmctl".into(),
    };
    format!("SWARM_SOCKET={socket} {ctl} run -- sh -c 'echo hello from $(hostname), attempt $SWARM_ATTEMPT'")
}

fn clean(path: &Path) -> String {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}
