//! The tools, and how each is made to carry one file from one host to the other. Servers are started before the clock is, and belong
//! to one run.
//!
//! What the clock sees is not the same of all, and is told with the figures: `swarm` begins with the blob in the one store and ends
//! with it in the other for good; `swarm files` begins and ends with a file of the user's; `quinn` sends zeros from memory to nowhere;
//! `sendme` (iroh-blobs) begins with the file in its sender's store; the others begin and end with a file. Only swarm waits until the
//! disk has it, so what the disk still owes after each is measured too.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use swarm_proto::Digest;
use swarmd::raw;

use super::place::{Place, Running, program};
use crate::swarm::Swarm;

/// Where sshd wants an empty directory.
const SSHD_DIR: &str = "/run/sshd";

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tool {
    Swarm,
    SwarmFiles,
    Quinn,
    Nc,
    Scp,
    Rsync,
    Sendme,
}

/// What one run came to.
pub(crate) struct Ran {
    pub(crate) took: Duration,
    /// What is there now; zeros from memory leave nothing.
    pub(crate) result: Option<PathBuf>,
}

/// What is carried, and between whom.
pub(crate) struct Cargo<'a> {
    pub(crate) place: &'a Place,
    pub(crate) swarm: &'a Swarm,
    pub(crate) file: PathBuf,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

impl Tool {
    pub(crate) const ALL: [Self; 7] = [Self::Swarm, Self::SwarmFiles, Self::Quinn, Self::Nc, Self::Scp, Self::Rsync, Self::Sendme];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Swarm => "swarm, store to store",
            Self::SwarmFiles => "swarm, put, push and get",
            Self::Quinn => "stock quinn, zeros to nowhere",
            Self::Nc => "nc",
            Self::Scp => "scp",
            Self::Rsync => "rsync, to a daemon",
            Self::Sendme => "sendme (iroh-blobs)",
        }
    }

    /// Its programs that are not installed here.
    pub(crate) fn missing(self) -> Vec<&'static str> {
        let needs: &[&str] = match self {
            Self::Swarm | Self::SwarmFiles | Self::Quinn => &[],
            Self::Nc => &["nc.openbsd"],
            Self::Scp => &["scp", "ssh", "sshd", "ssh-keygen"],
            Self::Rsync => &["rsync"],
            Self::Sendme => &["sendme"],
        };
        needs.iter().copied().filter(|name| program(name).is_none()).collect()
    }
}

impl Cargo<'_> {
    /// Carries it once.
    pub(crate) async fn carry(&self, tool: Tool) -> anyhow::Result<Ran> {
        let to = self.place.dir.join("result");
        match tool {
            Tool::Swarm => self.swarm().await,
            Tool::SwarmFiles => self.swarm_files(to).await,
            Tool::Quinn => self.quinn(),
            Tool::Nc => self.nc(to),
            Tool::Scp => self.scp(to),
            Tool::Rsync => self.rsync(to),
            Tool::Sendme => self.sendme(),
        }
    }

    async fn swarm(&self) -> anyhow::Result<Ran> {
        let (from, to) = (&self.swarm.from, self.swarm.to());
        to.clear().await?;
        if !from.stored(self.digest).exists() {
            ok(from.ctl()?.args(["blob", "put"]).arg(&self.file))?;
        }
        Ok(Ran { took: self.swarm.push(self.digest).await?, result: Some(to.stored(self.digest)) })
    }

    async fn swarm_files(&self, result: PathBuf) -> anyhow::Result<Ran> {
        let (from, to) = (&self.swarm.from, self.swarm.to());
        to.clear().await?;
        from.clear().await?;
        let (name, began) = (self.digest.to_string(), Instant::now());
        ok(from.ctl()?.args(["blob", "put"]).arg(&self.file))?;
        ok(from.ctl()?.args(["blob", "push", &name, "--to", &to.name]))?;
        ok(to.ctl()?.args(["blob", "get", &name]).arg(&result))?;
        Ok(Ran { took: began.elapsed(), result: Some(result) })
    }

    fn quinn(&self) -> anyhow::Result<Ran> {
        let (size, from, to) = (self.size, self.place.from.ip, self.place.to.ip);
        let (tx, bound) = mpsc::channel();
        let fault = |fault: raw::Fault| anyhow!("stock quinn: {fault}");
        let ready = move |place| {
            // nobody waits for it any more when this fails
            let _ = tx.send(place);
        };
        let sender = self.place.from.thread(move || raw::send(from, size, ready).map_err(fault));
        let receiver = self.place.to.thread(move || raw::receive(to, &bound.recv()?, size).map_err(fault));
        let took = receiver.join().map_err(|_| anyhow!("the receiver panicked"))?;
        // it waits for nobody once that has ended in order
        let took = took?;
        sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        Ok(Ran { took, result: None })
    }

    fn nc(&self, result: PathBuf) -> anyhow::Result<Ran> {
        let (ip, port) = (self.place.to.ip.to_string(), next_port());
        let mut listen = self.place.to.command("nc.openbsd");
        listen.args(["-l", &ip, &port.to_string()]).stdout(File::create(&result)?);
        let mut listener = Running::start(&mut listen)?;
        listener.listens(&self.place.to, port)?;
        let mut send = self.place.from.command("nc.openbsd");
        send.args(["-N", &ip, &port.to_string()]).stdin(File::open(&self.file)?).stdout(Stdio::null());
        let began = Instant::now();
        ensure!(send.status()?.success() && listener.wait()?.success(), "nc failed");
        Ok(Ran { took: began.elapsed(), result: Some(result) })
    }

    /// A server of its own, with keys that are gone after the run, and ssh's own choice of cipher.
    fn scp(&self, result: PathBuf) -> anyhow::Result<Ran> {
        let (ip, port) = (self.place.to.ip, next_port());
        let dir = fresh(&self.place.dir.join("ssh"))?;
        for name in ["host", "user"] {
            ok(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(name)))?;
        }
        let path = |name: &str| dir.join(name).display().to_string();
        let known = format!("[{ip}]:{port} {}", fs::read_to_string(dir.join("host.pub"))?);
        fs::write(dir.join("known"), known)?;
        let config = format!(
            "ListenAddress {ip}:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n",
            path("host"),
            path("user.pub")
        );
        fs::write(dir.join("config"), config)?;
        let _empty = EmptyDir::make(Path::new(SSHD_DIR))?;
        let sshd = program("sshd").context("sshd")?;
        let mut server = Running::start(self.place.to.command(sshd).args(["-D", "-e", "-f", &path("config")]).stderr(Stdio::null()))?;
        server.listens(&self.place.to, port)?;
        let user = String::from_utf8(Command::new("id").arg("-un").output()?.stdout)?;
        let mut copy = self.place.from.command("scp");
        copy.args(["-q", "-F", "/dev/null", "-P", &port.to_string(), "-i", &path("user"), "-o", "BatchMode=yes"]);
        copy.args(["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", &format!("UserKnownHostsFile={}", path("known"))]);
        copy.arg(&self.file).arg(format!("{}@{ip}:{}", user.trim(), result.display()));
        Ok(Ran { took: timed(&mut copy)?, result: Some(result) })
    }

    /// To a daemon, so that nothing is encrypted; all of the file, as there is nothing to compare it with.
    fn rsync(&self, result: PathBuf) -> anyhow::Result<Ran> {
        let (ip, port) = (self.place.to.ip.to_string(), next_port().to_string());
        let dir = fresh(&self.place.dir.join("rsync"))?;
        let (config, log) = (dir.join("config"), dir.join("log"));
        let owner = if rustix::process::geteuid().is_root() { "uid = root\ngid = root\n" } else { "" };
        let text = format!("use chroot = no\nlog file = {}\n{owner}[to]\npath = {}\nread only = no\n", log.display(), dir.display());
        fs::write(&config, text)?;
        let mut serve = self.place.to.command("rsync");
        serve.args(["--daemon", "--no-detach", "--address", &ip, "--port", &port, "--config"]).arg(&config);
        let mut server = Running::start(&mut serve)?;
        server.listens(&self.place.to, port.parse()?)?;
        let mut copy = self.place.from.command("rsync");
        copy.arg("--whole-file").arg(&self.file).arg(format!("rsync://{ip}:{port}/to/result"));
        let took = timed(&mut copy)?;
        fs::rename(dir.join("result"), &result)?;
        Ok(Ran { took, result: Some(result) })
    }

    fn sendme(&self) -> anyhow::Result<Ran> {
        let plain = ["--no-progress", "--relay", "disabled", "--magic-ipv4-addr"];
        let [from, to] = [&self.place.from, &self.place.to].map(|host| format!("{}:{}", host.ip, next_port()));
        let (shelf, dir) = (fresh(&self.place.dir.join("sendme-from"))?, fresh(&self.place.dir.join("sendme-to"))?);
        let program = program("sendme").context("sendme")?;
        let mut serve = self.place.from.command(&program);
        serve.arg("send").args(plain).arg(from).args(["--ticket-type", "addresses"]).arg(&self.file);
        let mut server = Running::start(serve.current_dir(&shelf).stdout(Stdio::piped()).stderr(Stdio::null()))?;
        let mut ticket = None;
        for line in BufReader::new(server.stdout()?).lines() {
            ticket = line?.strip_prefix("sendme receive ").map(str::to_owned);
            if ticket.is_some() {
                break;
            }
        }
        let mut receive = self.place.to.command(&program);
        receive.arg("receive").args(plain).arg(to).arg(ticket.context("sendme gives no ticket")?).current_dir(&dir);
        let took = timed(receive.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let name = self.file.file_name().context("a file has a name")?;
        drop(server);
        fs::remove_dir_all(shelf)?;
        Ok(Ran { took, result: Some(dir.join(name)) })
    }
}

/// A directory that was not there, and is not when this is gone.
struct EmptyDir<'a>(Option<&'a Path>);

impl<'a> EmptyDir<'a> {
    fn make(path: &'a Path) -> anyhow::Result<Self> {
        if path.is_dir() {
            return Ok(Self(None));
        }
        fs::create_dir_all(path).with_context(|| path.display().to_string())?;
        Ok(Self(Some(path)))
    }
}

impl Drop for EmptyDir<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_dir(path);
        }
    }
}

/// An empty directory, whatever was there.
fn fresh(path: &Path) -> anyhow::Result<PathBuf> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    fs::create_dir(path)?;
    Ok(path.to_owned())
}

/// One that no run before this one had.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(7_100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn timed(command: &mut Command) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let status = command.status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(began.elapsed())
}

fn ok(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said).trim());
    Ok(())
}
