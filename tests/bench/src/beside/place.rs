//! Where both sides of a transfer are: on the loopback, or on two hosts made of network namespaces, joined by one pair of interfaces.
//!
//! ```text
//!   loopback     127.90.x.1  127.90.x.2  127.90.x.3          veth       [leader 10.214.0.1 | from 10.214.0.2]--eth0==eth0--[to 10.214.0.3]
//! ```
//! A holder, a shell that waits for the end of this process, takes the namespaces and the files away, however it ends. What is started
//! here asks the kernel to be killed with it. A limited link carries packets of its own size only, so that the limit acts on packets.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a server may take to listen.
const LISTENS: Duration = Duration::from_secs(10);
/// `$1`: the directory; the others: namespaces. It is tried again while what is killed still writes.
const HOLDER: &str = r#"cat >/dev/null
dir=$1; shift
for name in "$@"; do ip netns del "$name" 2>/dev/null; done
for again in 1 2 3 4 5; do rm -rf "$dir" && break; sleep 1; done"#;

/// What kind of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Loopback,
    Veth,
    /// A veth pair that carries `--rate`.
    Limited,
}

/// One of its hosts.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) ip: IpAddr,
    namespace: Option<String>,
}

/// Two hosts, a directory, and a third address beside the sender's for whoever leads.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) leader: Host,
    pub(crate) from: Host,
    pub(crate) to: Host,
    holder: Child,
}

/// A process that ends with this value, and with this program.
pub(crate) struct Running(Child);

/// Why there can be no such place here, if so.
pub(crate) fn missing(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Loopback => None,
        Kind::Veth | Kind::Limited if !rustix::process::geteuid().is_root() => Some("network namespaces need root"),
        Kind::Veth | Kind::Limited => (program("ip").is_none() || program("tc").is_none()).then_some("ip or tc is missing"),
    }
}

/// Where a program is, among those of an administrator too.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|path| path.is_file())
}

impl Place {
    /// Makes one, with a directory below `parent`. `rate`, as `tc` reads it, is that of a limited link.
    pub(crate) fn make(kind: Kind, parent: &Path, rate: &str) -> anyhow::Result<Self> {
        let pid = std::process::id();
        let dir = tempfile::Builder::new().prefix("swarm-bench-").tempdir_in(parent).with_context(|| parent.display().to_string())?;
        let names = [format!("swarm-from-{pid}"), format!("swarm-to-{pid}")];
        let is_namespaces = kind != Kind::Loopback;
        let mut holder = Command::new("sh");
        holder.args(["-c", HOLDER, "sh"]).arg(dir.path()).args(names.iter().filter(|_| is_namespaces));
        let holder = holder.stdin(Stdio::piped()).process_group(0).spawn().context("sh")?;
        let host = |last: u8, side: usize| {
            let net = if is_namespaces { [10, 214, 0] } else { [127, 90, pid.to_le_bytes()[0]] };
            Host { ip: Ipv4Addr::new(net[0], net[1], net[2], last).into(), namespace: is_namespaces.then(|| names[side].clone()) }
        };
        // from here on it is the holder's to remove
        let place = Self { dir: dir.keep(), leader: host(1, 0), from: host(2, 0), to: host(3, 1), holder };
        if is_namespaces {
            place.join(&names, (kind == Kind::Limited).then_some(rate))?;
        }
        Ok(place)
    }

    fn join(&self, [from, to]: &[String; 2], rate: Option<&str>) -> anyhow::Result<()> {
        for name in [from, to] {
            run(&format!("ip netns add {name}"))?;
            run(&format!("ip -n {name} link set lo up"))?;
        }
        run(&format!("ip -n {from} link add eth0 type veth peer name eth0 netns {to}"))?;
        for (name, host) in [(from, &self.leader), (from, &self.from), (to, &self.to)] {
            run(&format!("ip -n {name} addr add {}/24 dev eth0", host.ip))?;
        }
        for name in [from, to] {
            if let Some(rate) = rate {
                run(&format!("ip -n {name} link set eth0 gso_max_segs 1"))?;
                run(&format!("tc -n {name} qdisc add dev eth0 root tbf rate {rate} burst 64kb latency 50ms"))?;
            }
            run(&format!("ip -n {name} link set eth0 up"))?;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

impl Host {
    /// The one with the `n`th address after this one's. There is no such address but on a loopback.
    pub(crate) fn next(&self, n: u8) -> Self {
        let ip = match self.ip {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() + u32::from(n)).into(),
            IpAddr::V6(ip) => ip.into(),
        };
        Self { ip, namespace: self.namespace.clone() }
    }

    /// A program on this host, which ends with this one.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(name) = &self.namespace {
            command.args(["ip", "netns", "exec", name]);
        }
        command.arg(program.as_ref()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SWARM_")) {
            command.env_remove(name);
        }
        command
    }

    /// A thread on this host.
    pub(crate) fn thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> thread::JoinHandle<anyhow::Result<T>> {
        let name = self.namespace.clone();
        thread::spawn(move || {
            if let Some(name) = name {
                let namespace = File::open(Path::new("/run/netns").join(name))?;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
            work()
        })
    }
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        command.spawn().map(Self).with_context(|| format!("{command:?}"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.0.wait()?)
    }

    /// What it prints, where that is piped.
    pub(crate) fn stdout(&mut self) -> anyhow::Result<std::process::ChildStdout> {
        self.0.stdout.take().context("its output is not piped")
    }

    /// Waits until somebody listens at a TCP port of its host.
    pub(crate) fn listens(&mut self, host: &Host, port: u16) -> anyhow::Result<()> {
        let IpAddr::V4(ip) = host.ip else { bail!("{} is no address of a place", host.ip) };
        // as /proc/net/tcp writes the address of a socket, and that it listens
        let (wanted, give_up) = (format!("{:08X}:{port:04X}", u32::from_ne_bytes(ip.octets())), Instant::now() + LISTENS);
        while Instant::now() < give_up {
            if let Some(status) = self.0.try_wait()? {
                bail!("it ended before it listened: {status}");
            }
            let sockets = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.pid()))?;
            let is_it = |line: &str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words.get(1) == Some(&wanted.as_str()) && words.get(3) == Some(&"0A")
            };
            if sockets.lines().any(is_it) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("nobody listens at {ip}:{port} after {} s", LISTENS.as_secs())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A line of plain words.
fn run(line: &str) -> anyhow::Result<()> {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap_or_default()).args(words).output().with_context(|| line.to_owned())?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
