//! `swarmd run`: a node on this machine, from its config file to its end.

use std::{path::Path, sync::Arc};

use mesh_config::{Config, LogFormat, Preset, Voter};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;
use swarm_api::TlsSocket;
use swarm_consensus::{DirDisk, Disk};
use swarm_proto::{Code, Problem, api::Belonging, peer::NodeMeta};
use swarm_transport::{BindError, Identity, Realm};
use tokio::sync::{mpsc, oneshot, watch};
use tracing_subscriber::EnvFilter;

use super::{
    ClusterFile, StateDir, access, blobs, charter, clocks, finder, founding, notify, offer, orders, signals, tailnet, urgent, workshop,
};
use crate::{
    args::Run,
    node::{self, Clocks, Domains, Env, Gateway, Holdings, HostOrder, Journal, Running, SetLogLevel, Settings, Whereabouts},
};

/// How a node's time on this host ended.
enum Ending {
    /// The daemon is to end.
    Stopped,
    /// The host belongs to no swarm any more, and waits for the next one.
    Left,
}

/// Runs the daemon until it is told to stop or cannot go on.
///
/// # Errors
/// Whatever keeps it from starting, and what it cannot live with.
pub fn run(args: &Run) -> Result<(), Problem> {
    if args.end_with_parent {
        signals::end_with_parent();
    }
    let config = load(&args.config)?;
    let set_log_level = init_log(&config)?;
    let mut state = StateDir::open(&config.node.state_dir)?;
    let (tx, mut orders) = mpsc::channel(1);
    let gateway = Gateway::of_host(orders::unjoined(&config), tx);
    urgent::control();
    let (stop_api, api_stopped) = watch::channel(false);
    runtime()?.block_on(serve_api(&config, gateway.clone(), api_stopped))?;
    notify::ready(&format!("answers at {}", config.api.socket.display()));
    loop {
        // each membership has a runtime of its own: when it ends, so does everything that was started for it
        let ending = runtime()?.block_on(live(args, &mut state, &gateway, &mut orders, &set_log_level));
        match ending {
            Ok(Ending::Left) => {}
            Ok(Ending::Stopped) => {
                let _ = stop_api.send(true);
                return Ok(());
            }
            Err(problem) => return Err(problem),
        }
    }
}

fn load(path: &Path) -> Result<Config, Problem> {
    Config::load(path, &mesh_config::Env::of_process()).map_err(|faults| mesh_config::problem(&faults))
}

fn runtime() -> Result<tokio::runtime::Runtime, Problem> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| internal("the runtime does not start", &e))
}

/// A level, or a list of them, without what openraft calls an error when leadership is lost while the voters change: the next leader
/// makes the change, and the old one says so at `debug`.
fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    Ok(EnvFilter::try_new(level)?.add_directive("openraft::raft::api::management=off".parse()?))
}

/// Begins to log; what it gives changes the level later, to one that is given or back to the configured one.
fn init_log(config: &Config) -> Result<SetLogLevel, Problem> {
    let first = filter(&config.log.level).map_err(|e| {
        Problem::new(Code::BadRequest, "log.level cannot be used", e.to_string())
            .hint("a level such as info, or a list such as info,quinn=warn")
    })?;
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr);
    let own = config.log.level.clone();
    let parse = move |level: Option<&str>| filter(level.unwrap_or(&own));
    Ok(match config.log.format {
        LogFormat::Text => {
            let builder = builder.with_target(false).with_ansi(false).with_env_filter(first).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Arc::new(move |level| drop(parse(level).map(|filter| handle.reload(filter))))
        }
        LogFormat::Json => {
            let builder = builder.json().with_env_filter(first).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Arc::new(move |level| drop(parse(level).map(|filter| handle.reload(filter))))
        }
    })
}

fn internal(what: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::Internal, what, why.to_string())
}

/// Waits for a swarm if this host has none, and is a node of it until that ends.
async fn live(
    args: &Run,
    state: &mut StateDir,
    gateway: &Gateway,
    orders: &mut mpsc::Receiver<HostOrder>,
    set_log_level: &SetLogLevel,
) -> Result<Ending, Problem> {
    let clocks = clocks::real();
    let asked = signals::stop_asked();
    tokio::pin!(asked);
    let file = match state.cluster {
        Some(file) => file,
        None => {
            gateway.close(orders::unjoined(&load(&args.config)?));
            let file = tokio::select! {
                biased;
                _ = &mut asked => return Ok(Ending::Stopped),
                file = orders::admission(&args.config, &state.path, || (clocks.wall)(), orders) => file,
            };
            state.cluster = Some(file);
            file
        }
    };
    let config = load(&args.config)?;
    let journal = Journal::new(clocks.wall.clone());
    let file = charter::recover(state, file, &journal).await?;
    let keeper = args.keeper_socket.as_deref();
    let (mut env, holdings) = prepare(&config, state, file, clocks, journal.clone(), keeper, set_log_level.clone()).await?;
    gateway.expect(&env.settings, file.cluster);
    let starting = async {
        let found = finder::start(config.mesh.clone(), env.settings.whereabouts.clone(), journal.clone()).await?;
        env.settings.preset = config.mesh.preset_on(found.kind);
        env.settings.timing = env.settings.preset.timing();
        env.settings.meta = Arc::new(NodeMeta { addrs: config.mesh.addrs_at(found.address()), ..(*env.settings.meta).clone() });
        node::start(env, holdings, gateway).await.map_err(|e| start_problem(&e))
    };
    tokio::pin!(starting);
    let mut running = loop {
        let order = tokio::select! {
            biased;
            _ = &mut asked => return Ok(Ending::Stopped),
            order = orders::leave_asked(&file, orders) => order,
            running = &mut starting => break running?,
        };
        if !charter::is_member(&state.path)? {
            return left(state, order);
        }
        let why = "its swarm has to hear it, and this daemon has not found its way there yet: `swarmctl status` says what it waits for";
        let hint = "if the swarm is gone for good, stop the daemon and remove its state directory";
        let _ = order.reply.send(Err(Problem::new(Code::NotReady, "this host did not leave", why).hint(hint)));
    };
    if running.is_founded() {
        charter::stands(state)?;
    }
    serve_mesh_api(gateway.clone(), &running);
    loop {
        let order = tokio::select! {
            biased;
            signal = &mut asked => {
                notify::stopping();
                journal.info(format!("stops: {signal}"));
                running.stop().await;
                return Ok(Ending::Stopped);
            }
            why = running.failed() => return Err(Problem::new(Code::Internal, "the daemon cannot go on", why)
                .hint("mend what is named, and start it again: it reads back what is durable here, and the other voters have the rest")),
            order = orders::leave_asked(&file, orders) => order,
        };
        match running.leave().await {
            Ok(()) => {
                running.stop().await;
                return left(state, order);
            }
            Err(problem) => drop(order.reply.send(Err(problem))),
        }
    }
}

/// The host belongs to nobody from now on.
fn left(state: &mut StateDir, order: HostOrder) -> Result<Ending, Problem> {
    let was = state.cluster.take();
    let wiped = charter::wipe(&state.path);
    let cluster = was.map(|file| file.cluster).unwrap_or_default();
    let _ = order.reply.send(wiped.clone().map(|()| Belonging { cluster, node: None, name: String::new() }));
    wiped.map(|()| Ending::Left)
}

async fn prepare(
    config: &Config,
    state: &StateDir,
    file: ClusterFile,
    clocks: Clocks,
    journal: Journal,
    keeper_socket: Option<&Path>,
    set_log_level: SetLogLevel,
) -> Result<(Env, Holdings), Problem> {
    let identity = Identity::load(&state.path).map_err(|e| {
        Problem::new(Code::NotReady, "this node has no identity that can be used", e.to_string())
            .hint("if its key is lost, remove the state directory and join again with a new token")
    })?;
    let workshop = workshop::open(config, &state.path, keeper_socket).await?;
    let names = workshop.executors.iter().map(|executor| offer::name_of(executor.name(), config.exec.require_signed)).collect();
    let meta = offer::of(config, names, (clocks.wall)().0);
    let settings = Settings {
        preset: Preset::default(),
        timing: Preset::default().timing(),
        whereabouts: Whereabouts::default(),
        may_vote: config.node.voter == Voter::Auto,
        meta: Arc::new(meta),
        require_signed: config.exec.require_signed,
        scrub_every: config.blobs.scrub_every.unwrap_or(mesh_config::SCRUB_EVERY),
        load: offer::load_of(state.path.clone()),
        ask_tailnet: tailnet::ask(config.mesh.look()),
        set_log_level,
        certificate_life: config.mesh.certificate_life,
        api_port: config.api.port,
    };
    let dir = state.path.clone();
    let found = founding::load(&state.path)?;
    let env = Env {
        settings,
        identity: Arc::new(identity),
        keep_identity: Arc::new(move |identity| identity.save_certificates(&dir)),
        realm: Realm { cluster: file.cluster, epoch: file.epoch },
        crypto: swarm_transport::crypto(),
        // only until it is done: a founder that lost its log must not begin the swarm a second time beside the first
        is_founder: file.founder && found.is_some(),
        found,
        clocks,
        seed: ChaCha12Rng::from_os_rng().next_u64(),
        disk: open_disk(state, "log")?,
        records: open_disk(state, "records")?,
        log: swarm_consensus::Settings::default(),
        domains: Domains::Threads,
        lanes: urgent::lanes(),
        journal,
    };
    let paces = swarm_blobstore::Paces::new(config.blobs.send_rate, config.blobs.send_rate_per_node);
    let routes = swarm_blobstore::Routes::new(paces);
    let blobs = blobs::open(config, &state.path)?;
    let holdings = Holdings { open_socket: Arc::new(swarm_transport::udp_socket), workshop, blobs, routes };
    Ok((env, holdings))
}

fn open_disk(state: &StateDir, name: &str) -> Result<Arc<dyn Disk>, Problem> {
    let path = state.path.join(name);
    let disk = DirDisk::open(&path).map_err(|e| internal(&format!("{} cannot be used", path.display()), &e))?;
    Ok(Arc::new(disk))
}

fn start_problem(error: &anyhow::Error) -> Problem {
    let problem = Problem::new(Code::NotReady, "the daemon does not start", format!("{error:#}"));
    match error.downcast_ref::<BindError>() {
        Some(BindError::InUse(_)) => {
            problem.hint("another daemon may run already; or set mesh.control_port and mesh.bulk_port to ports that are free")
        }
        Some(BindError::NotHere(_) | BindError::Unspecified(_)) => {
            problem.hint("leave mesh.address out, or set it to this host's address on the mesh")
        }
        Some(BindError::Denied(_) | BindError::Io { .. } | BindError::Identity(_) | BindError::Endpoint(_)) | None => problem,
    }
}

/// The API's port on the mesh, for as long as the node lives.
fn serve_mesh_api(gateway: Gateway, running: &Running) {
    let addr = running.api_addr();
    let (doorway, judge) = running.doorway();
    Domains::Threads.spawn("api-mesh", move || async move {
        let mut life = doorway.clone();
        let gone = async move { while life.changed().await.is_ok() {} };
        swarm_api::serve(TlsSocket::new(addr, doorway, judge), Arc::new(gateway), gone).await;
    });
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
