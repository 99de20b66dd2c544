//! The seam to the machine: everything a node needs that is not a decision.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use mesh_config::{Preset, Timing};
use mesh_detect::tailscale::Whois;
use quinn::AsyncUdpSocket;
use rustls::crypto::CryptoProvider;
use swarm_blobstore::{Routes, Store};
use swarm_consensus::{Disk, Lanes};
use swarm_executors::{ExecEvent, Executor, Recovered};
use swarm_proto::{
    Fence, TaskId, UnixMillis,
    identity::Found,
    peer::{Load, NodeMeta, OutputChunk, OutputRequest},
};
use swarm_transport::{BindError, Identity, Realm};
use tokio::sync::{mpsc, watch};

use super::{Journal, KeepIdentity, Whereabouts};

/// Everything one node stands on.
pub struct Env {
    pub settings: Settings,
    pub identity: Arc<Identity>,
    /// Writes down what becomes of the identity.
    pub keep_identity: KeepIdentity,
    pub realm: Realm,
    /// What connections are secured with.
    pub crypto: Arc<CryptoProvider>,
    /// The one node that may initialise the ledger when its directory is empty.
    pub is_founder: bool,
    /// The authorities that a founder enters first.
    pub found: Option<Found>,
    pub clocks: Clocks,
    /// The node's only source of randomness.
    pub seed: u64,
    /// Where the log lives.
    pub disk: Arc<dyn Disk>,
    /// Where the node remembers its id and the members.
    pub records: Arc<dyn Disk>,
    pub log: swarm_consensus::Settings,
    pub domains: Domains,
    /// How the log's syncs run.
    pub lanes: Lanes,
    pub journal: Journal,
}

/// What of the machine a node takes for itself.
pub struct Holdings {
    /// Opens the socket of an endpoint, in the domain that serves it; again when the host's address changes.
    pub open_socket: OpenSocket,
    pub workshop: Workshop,
    /// The blobs of this host.
    pub blobs: Store,
    /// How fast it gives them.
    pub routes: Routes,
}

/// Binds a socket, within the runtime that shall drive it.
pub type OpenSocket = Arc<dyn Fn(SocketAddr) -> Result<Arc<dyn AsyncUdpSocket>, BindError> + Send + Sync>;

/// What the operator decided, resolved.
#[derive(Clone)]
pub struct Settings {
    pub preset: Preset,
    /// The preset's, unless a test says otherwise.
    pub timing: Timing,
    /// Where this node is on its mesh, and where members may be.
    pub whereabouts: Whereabouts,
    pub may_vote: bool,
    /// Where the API listens on the mesh, on every node.
    pub api_port: u16,
    /// How long the certificates live that this node issues.
    pub certificate_life: Duration,
    /// What this host offers; its name, labels, and its addresses at the start.
    pub meta: Arc<NodeMeta>,
    /// Processes run only for those who sign what they ask for.
    pub require_signed: bool,
    /// How long one look at all blobs of this node takes.
    pub scrub_every: Duration,
    /// Free space and load of the host now.
    pub load: Arc<dyn Fn() -> Load + Send + Sync>,
    /// Asks this host's tailnet whom an address belongs to.
    pub ask_tailnet: AskTailnet,
    /// Changes what this process logs; `None`: what its own configuration says.
    pub set_log_level: SetLogLevel,
}

/// `None`: nobody there has the address. May block for some seconds.
pub type AskTailnet = Arc<dyn Fn(IpAddr) -> Result<Option<Whois>, String> + Send + Sync>;

/// Takes a level, or goes back to the configured one.
pub type SetLogLevel = Arc<dyn Fn(Option<&str>) + Send + Sync>;

/// Two clocks besides tokio's.
#[derive(Clone)]
pub struct Clocks {
    /// For people.
    pub wall: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    /// Counts while the host sleeps (`CLOCK_BOOTTIME`): what leases are measured on.
    pub boot: Arc<dyn Fn() -> Duration + Send + Sync>,
}

/// What runs tasks on this host.
pub struct Workshop {
    pub executors: Vec<Arc<dyn Executor>>,
    pub events: mpsc::UnboundedReceiver<ExecEvent>,
    /// Attempts that outlived the daemon before this one.
    pub recovered: Vec<Recovered>,
    pub outputs: Arc<dyn Outputs>,
}

/// Where the output of this host's attempts is read.
pub trait Outputs: Send + Sync {
    /// Kept output from its beginning, then live where asked.
    fn read(&self, request: OutputRequest) -> mpsc::Receiver<OutputChunk>;
    /// Where what an attempt that has ended left is on this host's disk.
    fn left(&self, task: TaskId, fence: Fence) -> Left;
}

/// What an attempt left on the disk.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// What is kept of its standard output.
    pub stdout: Option<PathBuf>,
    /// The directory of the files that it was to leave; it is there if there are any.
    pub files: Option<PathBuf>,
}

/// How a part that must not share the control thread is run: a thread with a runtime of its own, or, in the simulator, a task.
#[derive(Clone, Copy, Debug)]
pub enum Domains {
    Threads,
    Inline,
}

impl Domains {
    /// Runs the future that `make` builds, in its own domain. A thread that cannot be made ends the process: nothing works then.
    pub fn spawn<F, Fut>(self, name: &str, make: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        match self {
            Self::Inline => {
                tokio::spawn(make());
            }
            Self::Threads => {
                std::thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(move || {
                        let runtime =
                            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime needs only memory");
                        runtime.block_on(make());
                    })
                    .expect("the host gives a thread at start");
            }
        }
    }
}

/// Resolves when the node is told to stop, or nobody is left who could tell it.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// A future that can be stored.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
