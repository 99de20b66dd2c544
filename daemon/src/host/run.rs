//! `swarmd run`: a node on this machine, from its config file to its end.

use std::{net::SocketAddr, path::Path, sync::Arc};

use mesh_config::{Config, LogFormat, Voter};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use swarm_consensus::{DirDisk, Disk, Lanes};
use swarm_proto::{Code, Problem};
use swarm_transport::{BindError, Identity};
use tokio::sync::{oneshot, watch};

use super::{StateDir, access, clocks, notify, offer, signals, workshop};
use crate::{
    args::Run,
    node::{self, Domains, Env, Gateway, Holdings, Journal, OpenSocket, Settings},
};

/// Runs the daemon until it is told to stop or cannot go on.
///
/// # Errors
/// Whatever keeps it from starting, and what it cannot live with.
pub fn run(args: &Run) -> Result<(), Problem> {
    if args.end_with_parent {
        signals::end_with_parent();
    }
    let config = Config::load(&args.config, &mesh_config::Env::of_process()).map_err(|faults| mesh_config::problem(&faults))?;
    init_log(&config)?;
    let state = StateDir::open(&config.node.state_dir)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| internal("the runtime does not start", &e))?;
    runtime.block_on(serve(config, state, args.keeper_socket.as_deref()))
}

fn init_log(config: &Config) -> Result<(), Problem> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.level).map_err(|e| {
        Problem::new(Code::BadRequest, "log.level cannot be used", e.to_string())
            .hint("a level such as info, or a list such as info,quinn=warn")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => builder.with_target(false).with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

fn internal(what: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, what, why.to_string())
}

async fn serve(config: Config, state: StateDir, keeper_socket: Option<&Path>) -> Result<(), Problem> {
    let clocks = clocks::real();
    let journal = Journal::new(clocks.wall.clone());
    let identity = Identity::load(&state.path).map_err(|e| {
        Problem::new(Code::NotReady, "this node has no identity that can be used", e.to_string())
            .hint("`swarmd dev` makes one for each node of a throw-away swarm")
    })?;
    let workshop = workshop::open(&config, &state.path, keeper_socket).await?;
    let names = workshop.executors.iter().map(|executor| executor.name().to_owned()).collect();
    let meta = offer::of(&config, names, (clocks.wall)().0);
    let settings = Settings {
        timing: config.mesh.preset.timing(),
        seeds: config.mesh.seeds.clone(),
        may_vote: config.node.voter == Voter::Auto,
        meta: Arc::new(meta),
        load: offer::load_of(state.path.clone()),
    };
    let gateway = Gateway::new(&settings, state.cluster.cluster);
    let (stop_api, api_stopped) = watch::channel(false);
    serve_api(&config, gateway.clone(), api_stopped).await?;
    notify::ready(&format!("answers at {}", config.api.socket.display()));
    let env = Env {
        settings,
        identity: Arc::new(identity),
        cluster: state.cluster.cluster,
        is_founder: state.cluster.founder,
        clocks,
        seed: ChaCha12Rng::from_os_rng().next_u64(),
        disk: open_disk(&state, "log")?,
        records: open_disk(&state, "records")?,
        log: swarm_consensus::Settings::default(),
        domains: Domains::Threads,
        lanes: Lanes::threads(),
        journal: journal.clone(),
    };
    let holdings = Holdings { control_socket: opener(config.control_addr()), bulk_socket: opener(config.bulk_addr()), workshop };
    let asked = signals::stop_asked();
    tokio::pin!(asked);
    let starting = async { node::start(env, holdings, &gateway).await.map_err(|e| start_problem(&e)) };
    let mut running = tokio::select! {
        biased;
        _ = &mut asked => return Ok(()),
        running = starting => running?,
    };
    let outcome = tokio::select! {
        biased;
        signal = &mut asked => {
            notify::stopping();
            journal.info(format!("stops: {signal}"));
            Ok(())
        }
        why = running.failed() => Err(Problem::new(Code::Internal, "the daemon cannot go on", why)
            .hint("mend what is named, and start it again: it reads back what is durable here, and the other voters have the rest")),
    };
    let _ = stop_api.send(true);
    if outcome.is_ok() {
        running.stop().await;
    }
    outcome
}

fn open_disk(state: &StateDir, name: &str) -> Result<Arc<dyn Disk>, Problem> {
    let path = state.path.join(name);
    let disk = DirDisk::open(&path).map_err(|e| internal(&format!("{} cannot be used", path.display()), &e))?;
    Ok(Arc::new(disk))
}

fn opener(addr: SocketAddr) -> OpenSocket {
    Box::new(move || swarm_transport::udp_socket(addr))
}

fn start_problem(error: &anyhow::Error) -> Problem {
    let problem = Problem::new(Code::NotReady, "the daemon does not start", format!("{error:#}"));
    match error.downcast_ref::<BindError>() {
        Some(BindError::InUse(_)) => {
            problem.hint("another daemon may run already; or set mesh.control_port and mesh.bulk_port to ports that are free")
        }
        Some(BindError::NotHere(_) | BindError::Unspecified(_)) => problem.hint("set mesh.address to this host's address on the mesh"),
        Some(BindError::Denied(_) | BindError::Io { .. } | BindError::Identity(_) | BindError::Endpoint(_)) | None => problem,
    }
}

/// The API has a thread of its own: a client that reads slowly or submits a million lines delays no heartbeat.
async fn serve_api(config: &Config, gateway: Gateway, mut stopped: watch::Receiver<bool>) -> Result<(), Problem> {
    let (tx, bound) = oneshot::channel();
    let path = config.api.socket.clone();
    let group = access::of(&config.api)?;
    Domains::Threads.spawn("api", move || async move {
        let socket = match swarm_api::Socket::bind(&path, group) {
            Ok(socket) => socket,
            Err(error) => return drop(tx.send(Err(error))),
        };
        let _ = tx.send(Ok(()));
        let shutdown = async move { drop(stopped.wait_for(|stop| *stop).await) };
        swarm_api::serve(socket, Arc::new(gateway), shutdown).await;
    });
    let bound = bound.await.map_err(|e| internal("the API does not start", &e))?;
    bound.map_err(|e| {
        Problem::new(Code::NotReady, "the API does not start", e.to_string())
            .hint("set api.socket to a path that this user may write, and api.group to a group that it belongs to")
    })
}
