//! What the tests against real processes share: a throw-away swarm of the built `swarmd`, and ways to hurt it.

mod chance;
mod fault;
mod footprint;
mod host;
pub mod intruder;
mod rack;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use swarm_client::Client;
use swarm_proto::{
    Digest, JobId, Problem,
    api::{BlobLine, JobOutcome, SubmitRequest, TaskView},
};
use swarmd::dev::{Options, Swarm};
use tokio::time::Instant;

pub use chance::{Chance, rounds};
pub use fault::{Fault, How, log_files};
pub use footprint::Footprints;
pub use host::{Host, Hosts};
pub use rack::Rack;

/// How long anything here may take before the test says that it never came.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A program of this workspace, as `cargo build --release --workspace` made it.
///
/// # Panics
/// It was not built.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own program");
    let path = own.parent().and_then(Path::parent).expect("target/PROFILE/deps/test").join(name);
    assert!(path.exists(), "{} is not built: cargo build --release --workspace", path.display());
    path
}

/// Runs `swarmctl` at a socket.
///
/// # Panics
/// It does not start.
pub fn ctl(socket: &Path, args: &[&str]) -> Output {
    Command::new(program("swarmctl")).args(args).env("SWARM_SOCKET", socket).output().expect("swarmctl starts")
}

/// A running swarm of real daemons.
pub struct Rig {
    pub swarm: Swarm,
}

impl Rig {
    /// Starts one and waits until it is whole.
    ///
    /// # Panics
    /// It does not become ready.
    pub async fn start(nodes: usize) -> Self {
        let options = Options { nodes, program: Some(program("swarmd")), ..Options::default() };
        let mut swarm = Swarm::start(&options).expect("daemons start");
        swarm.wait_ready().await.expect("the swarm becomes ready");
        Self { swarm }
    }

    /// A client of one node.
    pub fn client(&self, n: usize) -> Client {
        self.swarm.client(n)
    }

    /// The node that leads.
    ///
    /// # Panics
    /// Nobody does.
    pub async fn leader(&self, asked: usize) -> usize {
        let name = self.client(asked).leader().await.expect("a leader").name;
        self.position(&name)
    }

    /// The node of that name.
    ///
    /// # Panics
    /// There is none.
    pub fn position(&self, name: &str) -> usize {
        self.swarm.nodes().iter().position(|node| node.name == name).expect("a node of the swarm")
    }

    /// Which node a task was granted to, by its place in the swarm.
    ///
    /// # Panics
    /// The task is not granted in time.
    pub async fn node_of(&self, asked: usize, job: JobId) -> usize {
        let client = self.client(asked);
        let node = eventually("the task runs", async || {
            let task = first_task(&client, job).await;
            task.running.then_some(task.node).flatten()
        })
        .await;
        let name = client.nodes().await.expect("nodes").into_iter().find(|view| view.node == node).expect("a member").name;
        self.position(&name)
    }

    /// Sends a signal to a daemon.
    ///
    /// # Panics
    /// There is no such process.
    pub fn signal(&self, n: usize, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.swarm.nodes()[n].pid).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("the daemon is there");
    }
}

/// Says that a test cannot do its work on this host.
///
/// # Panics
/// `tests/run --nothing-skipped` allows no such thing.
pub fn skip(why: &str) {
    assert!(std::env::var_os("SWARM_NOTHING_SKIPPED").is_none(), "nothing may be skipped here: {why}");
    say(&format!("skipped: {why}"));
}

/// Tells whoever runs a test.
#[expect(clippy::print_stderr, reason = "that is what it is for")]
pub fn say(what: &str) {
    eprintln!("{what}");
}

/// The first task of a job.
///
/// # Panics
/// There is no such job.
pub async fn first_task(client: &Client, job: JobId) -> TaskView {
    client.task(swarm_proto::TaskId { job, index: 0 }).await.expect("the task is known")
}

/// Waits until `look` sees it.
///
/// # Panics
/// It does not within [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < give_up, "{what}: not within {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Submits and returns the accepted job.
///
/// # Panics
/// It is refused.
pub async fn submit(client: &Client, request: SubmitRequest) -> JobId {
    client.submit(&request).await.expect("accepted").job
}

/// Waits for the end of a job.
///
/// # Panics
/// It does not end in time.
pub async fn ended(client: &Client, job: JobId) -> swarm_proto::api::JobView {
    eventually("the job ends", async || client.job(job).await.ok().filter(|view| view.state.is_some())).await
}

/// A shell command as a job.
pub fn shell(script: &str) -> SubmitRequest {
    SubmitRequest { argv: vec!["sh".into(), "-c".into(), script.into()], cores: Some(0.1), ..SubmitRequest::default() }
}

/// Whether a job came to a good end.
pub fn is_good(outcome: &JobOutcome) -> bool {
    outcome.state == swarm_proto::ledger::TaskState::Succeeded
}

/// Has a node get a blob, and waits until it has it for good.
///
/// # Errors
/// Why it does not come.
///
/// # Panics
/// The daemon ends the stream without a last word.
pub async fn fetch(client: &Client, digest: Digest) -> Result<(), Problem> {
    let mut lines = client.fetch_blob(digest).await?;
    loop {
        match lines.next().await?.expect("it has an end") {
            BlobLine::Progress { .. } => {}
            BlobLine::Held { .. } => return Ok(()),
            BlobLine::Failed { problem, .. } => return Err(problem),
        }
    }
}

/// No-op jobs that one client gets accepted, one after the other, while that much time goes by.
///
/// # Panics
/// One is refused.
pub async fn done_in(client: &Client, span: Duration) -> u32 {
    let (until, mut done) = (Instant::now() + span, 0);
    while Instant::now() < until {
        submit(client, SubmitRequest { noop: true, ..SubmitRequest::default() }).await;
        done += 1;
    }
    done
}
