//! What this machine has, whether the daemon is up or not.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use mesh_config::{Config, Env};
use mesh_detect::{Mesh, NoMesh};
use tokio::{process::Command, time::timeout};

use super::Finding;
use crate::{verb::bench::disk, words::span};

/// How long another program may take.
const PROGRAM: Duration = Duration::from_secs(3);
/// fdatasync in milliseconds: what a voter should not be slower than, and what makes it useless as one.
const SYNC: (f64, f64) = (20.0, 150.0);
/// Free bytes on the state directory's disk, likewise.
const FREE: (u64, u64) = (2 << 30, 200 << 20);
/// A certificate renews itself at two thirds of its life; with less than this part of it left, it did not.
const LATE: f64 = 0.25;
/// No clock that is right shows less: 2025-01-01.
const EPOCH: Duration = Duration::from_secs(1_735_689_600);

/// What was found, for the checks that need it.
pub(super) struct Host {
    pub(super) config: Config,
    pub(super) mesh: Option<Mesh>,
}

/// `None` where there is no configuration to go by.
pub(super) async fn examine(file: &Path, is_up: bool) -> (Option<Host>, Vec<Finding>) {
    let mut findings = vec![clock(SystemTime::now()), kept_clock().await];
    let config = match Config::load(file, &Env::of_process()) {
        Ok(config) => config,
        Err(faults) => {
            let many = if faults.len() > 1 { format!(" (and {} more)", faults.len() - 1) } else { String::new() };
            let what = faults.first().map(|fault| format!("{}: {}{many}", fault.place, fault.what)).unwrap_or_default();
            findings.insert(0, Finding::fail("config", what, format!("swarmctl config check {}", file.display())));
            return (None, findings);
        }
    };
    findings.insert(0, Finding::ok("config", format!("{} is sound", file.display())));
    let seen = config.clone();
    let (mesh, finding) = tokio::task::spawn_blocking(move || mesh(&seen))
        .await
        .unwrap_or_else(|e| (None, Finding::warn("mesh", format!("it was not looked for: {e}"), "ask again")));
    findings.push(finding);
    if let Some(mesh) = &mesh {
        findings.push(ports(&config, mesh.address(), is_up));
    }
    let dir = config.node.state_dir.clone();
    findings.push(free(&dir));
    findings.push(pace(&dir).await);
    findings.push(certificate(&dir, SystemTime::now()));
    (Some(Host { config, mesh }), findings)
}

fn clock(now: SystemTime) -> Finding {
    if now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() < EPOCH {
        let fix = "timedatectl set-ntp true (a host without a battery for its clock needs the network for it)";
        return Finding::warn("clock", format!("it shows {}", humantime::format_rfc3339_seconds(now)), fix);
    }
    Finding::ok("clock", format!("it shows {}", humantime::format_rfc3339_seconds(now)))
}

async fn kept_clock() -> Finding {
    match output("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).await.as_deref().map(str::trim) {
        Some("yes") => Finding::ok("time", "the clock is kept by NTP"),
        Some("no") => Finding::warn("time", "nobody keeps the clock", "timedatectl set-ntp true"),
        Some(_) | None => {
            Finding::warn("time", "it cannot be found out who keeps the clock", "make sure that chrony or systemd-timesyncd runs")
        }
    }
}

/// What a program prints, if it is there and ends well and in time.
pub(super) async fn output(program: &str, args: &[&str]) -> Option<String> {
    let ran = Command::new(program).args(args).stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PROGRAM, ran).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn mesh(config: &Config) -> (Option<Mesh>, Finding) {
    let sighting = match config.mesh.look().see() {
        Ok(sighting) => sighting,
        Err(error) => return (None, Finding::fail("mesh", format!("this host's interfaces cannot be read: {error}"), "ip addr")),
    };
    match config.mesh.wish().choose(&sighting) {
        Ok(mesh) => {
            let on = mesh.interface.as_ref().map_or_else(String::new, |interface| format!(" on {interface}"));
            let finding = Finding::ok("mesh", format!("{}{on}, {}", mesh.kind.word(), mesh.address()));
            (Some(mesh), finding)
        }
        Err(NoMesh::Late(what)) => {
            (None, Finding::fail("mesh", what, "bring it up: tailscale up, or wg-quick up wg0; swarmd waits for it"))
        }
        Err(NoMesh::Refused { what, hint }) => (None, Finding::fail("mesh", what, hint)),
    }
}

/// A port of this node, and how it is asked whether somebody has it.
#[derive(Clone, Copy, Debug)]
struct Port {
    addr: SocketAddr,
    kind: PortKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortKind {
    /// Peers; there while the node is.
    Udp,
    /// The API on the mesh; there only while a token lives or a user exists.
    Tcp,
}

impl PortKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    /// What lists its listeners, for `ss`.
    const fn listing(self) -> &'static str {
        match self {
            Self::Udp => "-lunp",
            Self::Tcp => "-ltnp",
        }
    }
}

fn ports(config: &Config, address: IpAddr, is_up: bool) -> Finding {
    let addrs = config.mesh.addrs_at(address);
    let api = SocketAddr::new(address, config.api.port);
    let ports = [(addrs.control, PortKind::Udp), (addrs.bulk, PortKind::Udp), (api, PortKind::Tcp)].map(|(addr, kind)| Port { addr, kind });
    judge_ports(ports, is_up, |port| match port.kind {
        PortKind::Udp => UdpSocket::bind(port.addr).map(drop),
        PortKind::Tcp => TcpListener::bind(port.addr).map(drop),
    })
}

fn judge_ports(ports: [Port; 3], is_up: bool, bind: impl Fn(Port) -> io::Result<()>) -> Finding {
    let mut is_open = true;
    for port in ports {
        let (addr, word) = (port.addr, port.kind.word());
        match (bind(port), is_up) {
            (Ok(()), false) => {}
            (Ok(()), true) if port.kind == PortKind::Tcp => is_open = false,
            (Ok(()), true) => {
                let fix = "it may wait to be let in, or for its mesh: swarmctl status";
                return Finding::warn("ports", format!("swarmd is up, and does not listen at {addr} ({word})"), fix);
            }
            (Err(e), true) if e.kind() == io::ErrorKind::AddrInUse => {}
            (Err(e), false) if e.kind() == io::ErrorKind::AddrInUse => {
                let keys = "mesh.control_port, mesh.bulk_port or api.port";
                let fix = format!("find it with: ss {} sport = :{}; or set {keys}", port.kind.listing(), addr.port());
                return Finding::fail("ports", format!("another program has {addr} ({word})"), fix);
            }
            (Err(e), _) => return Finding::fail("ports", format!("{addr} ({word}) cannot be bound: {e}"), "swarmctl config explain"),
        }
    }
    let [control, bulk, api] = ports.map(|port| port.addr.port());
    let what = match (is_up, is_open) {
        (false, _) => format!("udp {control} and {bulk} and tcp {api} are free"),
        (true, true) => format!("udp {control} and {bulk} and tcp {api} are swarmd's"),
        (true, false) => format!("udp {control} and {bulk} are swarmd's; tcp {api} opens while a token or a user waits for it"),
    };
    Finding::ok("ports", what)
}

fn free(dir: &Path) -> Finding {
    match room(nearest(dir)) {
        Ok(bytes) => judge_free(bytes, dir),
        Err(error) => Finding::warn("space", format!("{} cannot be looked at: {error}", dir.display()), "run it as root or administrator"),
    }
}

/// Bytes that are free on the disk that holds `dir`.
#[cfg(unix)]
fn room(dir: &Path) -> io::Result<u64> {
    let fs = rustix::fs::statvfs(dir)?;
    Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
}

#[cfg(windows)]
fn room(dir: &Path) -> io::Result<u64> {
    swarm_win32::space_of(dir).map(|space| space.free)
}

/// The directory itself, or what will hold it once it is made.
fn nearest(dir: &Path) -> &Path {
    dir.ancestors().find(|dir| dir.exists()).unwrap_or(dir)
}

fn judge_free(bytes: u64, dir: &Path) -> Finding {
    let what = format!("{} free on the disk of {}", mesh_config::format_bytes(bytes >> 20 << 20), dir.display());
    let fix = "make room: without it this node acknowledges nothing";
    match bytes {
        bytes if bytes < FREE.1 => Finding::fail("space", what, fix),
        bytes if bytes < FREE.0 => Finding::warn("space", what, fix),
        _ => Finding::ok("space", what),
    }
}

/// How long one fdatasync takes, measured where the log is.
async fn pace(dir: &Path) -> Finding {
    if disk::is_memory(dir) {
        let what = format!("{} is in memory: what is acknowledged there is gone with the host", dir.display());
        return Finding::fail("disk", what, "set node.state_dir to a directory on a disk");
    }
    let draft: PathBuf = dir.join(format!("doctor-{}", std::process::id()));
    let measured = tokio::task::spawn_blocking(move || {
        let measured = disk::sync_p50(&draft);
        let _ = std::fs::remove_file(&draft);
        measured
    });
    match measured.await {
        Ok(Ok(ms)) => judge_pace(ms),
        Ok(Err(error)) => {
            let what = format!("the disk of {} was not measured: {error}", dir.display());
            Finding::warn("disk", what, "run it as root or as the daemon's user, once the directory is there")
        }
        Err(error) => Finding::warn("disk", format!("it was not measured: {error}"), "ask again"),
    }
}

fn judge_pace(ms: f64) -> Finding {
    let what = format!("one fdatasync takes {ms:.2} ms (half of them)");
    let fix = "a faster disk, or [node] voter = \"never\": then the swarm does not wait for this one";
    if ms >= SYNC.1 {
        Finding::fail("disk", what, fix)
    } else if ms >= SYNC.0 {
        Finding::warn("disk", what, fix)
    } else {
        Finding::ok("disk", what)
    }
}

fn certificate(dir: &Path, now: SystemTime) -> Finding {
    let path = dir.join("node.crt");
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let what = format!("{} has none: this host belongs to no swarm yet", dir.display());
            return Finding::warn("certificate", what, "swarmctl mesh init, or swarmctl mesh join TOKEN");
        }
        Err(e) => return Finding::warn("certificate", format!("{}: {e}", path.display()), "run it as root or as the daemon's user"),
    };
    let unreadable =
        |why: String| Finding::fail("certificate", format!("{} is damaged: {why}", path.display()), "restore it, or join again");
    let der = match x509_parser::pem::parse_x509_pem(&pem) {
        Ok((_, pem)) => pem.contents,
        Err(error) => return unreadable(error.to_string()),
    };
    match x509_parser::parse_x509_certificate(&der) {
        Ok((_, certificate)) => {
            let validity = certificate.validity();
            judge_certificate(validity.not_before.timestamp(), validity.not_after.timestamp(), seconds(now))
        }
        Err(error) => unreadable(error.to_string()),
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn judge_certificate(from: i64, to: i64, now: i64) -> Finding {
    let span_of = |seconds: i64| span::short(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()));
    if now >= to {
        let what = format!("it ended {} ago", span_of(now - to));
        return Finding::fail("certificate", what, "start swarmd: it renews by itself at any member that it reaches");
    }
    #[expect(clippy::cast_precision_loss, reason = "seconds of a few years")]
    let left = (to - now) as f64 / (to - from).max(1) as f64;
    if left < LATE {
        let what = format!("it ends in {} and should have been renewed by now", span_of(to - now));
        return Finding::warn("certificate", what, "is a voter reachable? look at the peers below");
    }
    Finding::ok("certificate", format!("good for {}, and renewed before that", span_of(to - now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::doctor::Level;

    #[test]
    fn bounds_are_where_they_are_said_to_be() {
        let levels = |list: &[Finding]| list.iter().map(|finding| finding.level).collect::<Vec<_>>();
        let three = [Level::Ok, Level::Warn, Level::Fail];
        assert_eq!(levels(&[19.9, 20.0, 150.0].map(judge_pace)), three);
        let dir = Path::new("/var/lib/swarmd");
        assert_eq!(levels(&[2 << 30, (2 << 30) - 1, (200 << 20) - 1].map(|bytes| judge_free(bytes, dir))), three);
        assert_eq!(levels(&[74, 76, 100].map(|now| judge_certificate(0, 100, now))), three);
        assert_eq!(clock(SystemTime::UNIX_EPOCH + Duration::from_secs(3)).level, Level::Warn);
        assert_eq!(clock(SystemTime::UNIX_EPOCH + EPOCH).level, Level::Ok);
    }

    #[test]
    fn ports_are_free_before_the_daemon_and_its_own_after() {
        let ports = [(4747, PortKind::Udp), (4748, PortKind::Udp), (4749, PortKind::Tcp)]
            .map(|(port, kind)| Port { addr: SocketAddr::from(([127, 0, 0, 1], port)), kind });
        let taken = |_| Err(io::Error::from(io::ErrorKind::AddrInUse));
        assert_eq!(judge_ports(ports, false, |_| Ok(())).level, Level::Ok);
        assert_eq!(judge_ports(ports, true, taken).level, Level::Ok);
        assert_eq!(judge_ports(ports, true, |_| Ok(())).level, Level::Warn);
        for number in [4747, 4748, 4749] {
            let finding = judge_ports(ports, false, |port| if port.addr.port() == number { taken(port) } else { Ok(()) });
            let names = finding.what.contains(&number.to_string()) && finding.fix.contains(&number.to_string());
            assert_eq!((finding.level, names), (Level::Fail, true), "{finding:?}");
        }
        // nobody is expected: the API's port on the mesh is closed, and that is well
        let closed = judge_ports(ports, true, |port| if port.kind == PortKind::Tcp { Ok(()) } else { taken(port) });
        assert_eq!((closed.level, closed.what.contains("tcp 4749 opens while")), (Level::Ok, true), "{closed:?}");
    }

    #[test]
    fn a_directory_without_a_swarm_and_one_with_rubbish_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(certificate(dir.path(), SystemTime::now()).level, Level::Warn);
        std::fs::write(dir.path().join("node.crt"), "rubbish").unwrap();
        assert_eq!(certificate(dir.path(), SystemTime::now()).level, Level::Fail);
    }
}
