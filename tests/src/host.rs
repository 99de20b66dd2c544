//! Real daemons that begin as nobody's: each with a directory, an address and a config of its own.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use mesh_config::Config;
use swarm_client::Client;
use swarm_proto::{
    api::{Phase, Status},
    ledger::Event,
};
use tempfile::TempDir;

use crate::{eventually, program};

/// Nets of this process, so that tests beside each other do not meet.
static NETS: AtomicU8 = AtomicU8::new(0);

/// What the directory of some hosts is called, with the process of their test behind it.
const PREFIX: &str = "hosts-";

/// Some hosts, not yet a swarm. Their daemons end with the test, also when it is killed; the next test takes away what it left then.
pub struct Hosts {
    dir: TempDir,
    pub list: Vec<Host>,
}

/// One daemon, from its config to its end.
pub struct Host {
    pub config: PathBuf,
    pub socket: PathBuf,
    pub state: PathBuf,
    pub ip: IpAddr,
    /// What its daemon finds in its environment beside the usual.
    pub env: Vec<(&'static str, String)>,
    /// Bytes of memory that it is held to (`RLIMIT_DATA`).
    pub memory: Option<u64>,
    child: Option<Child>,
}

/// A directory for some hosts. What tests left that were killed is removed first.
fn directory() -> TempDir {
    let left = |name: &str| {
        let pid = name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok()?;
        (!Path::new("/proc").join(pid.to_string()).exists()).then_some(())
    };
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().and_then(left).is_some() {
            // another test may be about to
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary directory")
}

impl Hosts {
    /// Starts that many daemons.
    ///
    /// # Panics
    /// One does not start.
    pub async fn start(count: usize, change: impl Fn(&mut Config)) -> Self {
        let mut hosts = Self::prepare(count, change);
        for host in &mut hosts.list {
            host.run();
        }
        for host in &hosts.list {
            host.answers().await;
        }
        hosts
    }

    /// The same, with no daemon started yet.
    ///
    /// # Panics
    /// A config cannot be written.
    pub fn prepare(count: usize, change: impl Fn(&mut Config)) -> Self {
        let (dir, pid) = (directory(), std::process::id());
        let net = NETS.fetch_add(1, Ordering::Relaxed);
        // no two processes have the same bits, so tests beside each other have nets of their own
        let [low, high] = [pid & 0x7f, pid >> 7 & 0xff].map(|bits| u8::try_from(bits).expect("at most eight"));
        let ip = |n: usize| IpAddr::V4(Ipv4Addr::new(127, 64 + low, high, u8::try_from(n + 1).expect("few") + 16 * net));
        let list = (0..count).map(|n| Host::prepare(dir.path(), n, ip(n), &change)).collect();
        Self { dir, list }
    }

    /// Where everything of theirs lies.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The first founds a swarm, the others join it with one token; waits until all are in it.
    ///
    /// # Panics
    /// Somebody does not come in.
    pub async fn unite(&self) {
        self.list[0].ok(&["mesh", "init", "--allow", "exec"]);
        if self.list.len() > 1 {
            let uses = (self.list.len() - 1).to_string();
            let token = self.list[0].ok(&["token", "create", "--uses", &uses]);
            for host in &self.list[1..] {
                host.ok(&["mesh", "join", token.trim(), "--allow", "exec"]);
            }
        }
        self.whole(self.list.len()).await;
    }

    /// Writes everybody's address into one host's config: it has somebody to knock at when it starts next.
    ///
    /// # Panics
    /// The config names somebody already.
    pub fn knows_all(&self, n: usize) {
        let others = self.list.iter().enumerate().filter(|(at, _)| *at != n);
        let peers: Vec<String> = others.map(|(_, host)| format!("\"{}:4747\"", host.ip)).collect();
        let path = &self.list[n].config;
        let text = std::fs::read_to_string(path).expect("a config");
        assert!(text.contains("peers = []"), "{text}");
        std::fs::write(path, text.replace("peers = []", &format!("peers = [{}]", peers.join(", ")))).expect("written");
    }

    /// Waits until the first sees that many nodes alive.
    ///
    /// # Panics
    /// It does not in time.
    pub async fn whole(&self, count: usize) {
        let client = self.list[0].client();
        eventually("the swarm is whole", async || {
            client.stats().await.ok().filter(|stats| stats.nodes == count as u64 && stats.nodes_online == count as u64)
        })
        .await;
    }
}

impl Host {
    fn prepare(dir: &Path, n: usize, ip: IpAddr, change: &impl Fn(&mut Config)) -> Self {
        let name = format!("host{}", n + 1);
        let mut config = Config::new(name.clone());
        (config.mesh.kind, config.mesh.address) = (Some(mesh_config::Kind::Explicit), Some(ip));
        let host = Self {
            config: dir.join(format!("{name}.toml")),
            socket: dir.join(format!("{name}.sock")),
            state: dir.join(&name),
            ip,
            env: Vec::new(),
            memory: None,
            child: None,
        };
        config.node.state_dir.clone_from(&host.state);
        config.api.socket.clone_from(&host.socket);
        change(&mut config);
        std::fs::write(&host.config, config.to_toml()).expect("a config is written");
        host
    }

    /// Starts the daemon.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn run(&mut self) {
        let log = File::options().create(true).append(true).open(self.config.with_extension("log")).expect("a log");
        let mut swarmd = match self.memory {
            Some(bytes) => {
                let mut limited = Command::new("prlimit");
                limited.arg(format!("--data={bytes}")).arg(program("swarmd"));
                limited
            }
            None => Command::new(program("swarmd")),
        };
        swarmd.args(["run", "--end-with-parent", "--config"]).arg(&self.config).envs(self.env.iter().map(|(name, value)| (name, value)));
        let child = swarmd.stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("swarmd starts"));
    }

    /// Another daemon on the same host, not started yet.
    pub fn sibling(&self, config: PathBuf, socket: PathBuf, state: PathBuf) -> Self {
        Self { config, socket, state, ip: self.ip, env: Vec::new(), memory: None, child: None }
    }

    /// From its next start on its wall clock shows another time: `-3d`, as libfaketime reads it. False where there is no such library.
    pub fn set_clock(&mut self, offset: &str) -> bool {
        let libraries = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|dir| dir.path().join("faketime"));
        let Some(library) = libraries.map(|dir| dir.join("libfaketimeMT.so.1")).find(|path| path.exists()) else { return false };
        self.env = vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME", offset.to_owned()),
            // leases and timers run on clocks that nobody sets
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ];
        true
    }

    /// The daemon's process.
    ///
    /// # Panics
    /// It does not run.
    pub fn pid(&self) -> rustix::process::Pid {
        let id = self.child.as_ref().expect("it runs").id();
        rustix::process::Pid::from_raw(i32::try_from(id).expect("a pid")).expect("a pid")
    }

    /// Kills the daemon and waits until it is gone.
    ///
    /// # Panics
    /// It did not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("gone");
    }

    /// Has it bind an address that no other host has, when it is started next.
    ///
    /// # Panics
    /// Its config cannot be changed.
    pub fn readdress(&mut self) {
        let IpAddr::V4(v4) = self.ip else { panic!("hosts here have IPv4 addresses") };
        let [a, b, c, d] = v4.octets();
        let elsewhere = IpAddr::from([a, b, c, d + 100]);
        let text = std::fs::read_to_string(&self.config).expect("a config");
        std::fs::write(&self.config, text.replace(&self.ip.to_string(), &elsewhere.to_string())).expect("written");
        self.ip = elsewhere;
    }

    /// Kills the daemon, its keeper and its tasks, as a power cut does.
    ///
    /// # Panics
    /// It did not run.
    pub fn kill_all(&mut self) {
        self.kill();
        swarm_executors::keeper::end(&self.state.join("keeper"));
    }

    /// Waits until the daemon ends by itself; how.
    ///
    /// # Panics
    /// It does not in time, or did not run.
    pub async fn ends(&mut self) -> std::process::ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let how = eventually("the daemon ends", async || child.try_wait().expect("a child")).await;
        self.child = None;
        how
    }

    /// How the daemon ended, if it did by itself.
    ///
    /// # Panics
    /// It was not started.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let how = self.child.as_mut().expect("it was started").try_wait().expect("a child");
        if how.is_some() {
            self.child = None;
        }
        how
    }

    /// Asks the daemon to stop and waits until it has.
    ///
    /// # Panics
    /// It does not in time.
    pub async fn stop(&mut self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).expect("it is there");
        self.ends().await;
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(self.socket.clone())
    }

    /// Waits until it answers.
    ///
    /// # Panics
    /// It does not in time.
    pub async fn answers(&self) -> Status {
        eventually("the daemon answers", async || self.client().status().await.ok()).await
    }

    /// Waits until it is ready and knows a leader.
    ///
    /// # Panics
    /// It does not in time.
    pub async fn ready(&self) -> Status {
        eventually("the daemon is ready", async || {
            self.client().status().await.ok().filter(|status| status.phase == Phase::Ready && status.leader.is_some())
        })
        .await
    }

    /// Runs `swarmctl` at it.
    pub fn ctl(&self, args: &[&str]) -> Output {
        crate::ctl(&self.socket, args)
    }

    /// The same for what must work; what it printed.
    ///
    /// # Panics
    /// It fails.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.ctl(args);
        assert!(output.status.success(), "swarmctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The same for what must be refused; exit code and what was said.
    ///
    /// # Panics
    /// It works.
    pub fn refused(&self, args: &[&str]) -> (i32, String) {
        let output = self.ctl(args);
        assert!(!output.status.success(), "swarmctl {args:?} worked: {}", String::from_utf8_lossy(&output.stdout));
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Everything that came true in the swarm.
    ///
    /// # Panics
    /// Nobody answers.
    pub async fn events(&self) -> Vec<Event> {
        self.client().event_page(None, Some(1_000)).await.expect("events").events
    }

    /// What the daemon wrote about itself.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.config.with_extension("log")).unwrap_or_default()
    }

    /// A moment that is long enough for what must not happen.
    pub async fn pause(span: Duration) {
        tokio::time::sleep(span).await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        swarm_executors::keeper::end(&self.state.join("keeper"));
    }
}
