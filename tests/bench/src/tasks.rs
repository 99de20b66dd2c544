//! `swarm-bench tasks`: tasks through real daemons, and what else does such work, in turn and in one run.
//!
//! ```text
//!   round 1..n:  fdatasync | swarm, singly | NATS R3 | swarm, an array | etcd | consensus alone | swarm, processes | HyperQueue
//!                | swarm, every core busy
//!                each starts its own servers on 127.90.x.1-3, is measured, and ends them; nothing else runs meanwhile
//!   then:        medians over the rounds -> ratios beside the targets of the design -> the figures that they are made of
//! ```
//! What is not the same work, and is to be known of a ratio: swarm and etcd answer when a majority of disks have it, NATS when a majority
//! of servers have written it, which is in memory. NATS' workers only answer and acknowledge, as our no-op tasks do nothing. A process is
//! spawned by swarm, by HyperQueue and by the bare loop. CPU is that of all servers, workers and the client. The clients of NATS and etcd
//! are this program's own and thin, which is to the favour of these two.
//!
//! A peer that is not installed is skipped, and named.

mod busy;
mod disk;
mod etcd;
mod floor;
mod hyperqueue;
mod nats;
mod ours;
mod sheet;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;
use clap::ValueEnum as _;
use serde::Serialize;
use swarmctl::verb::bench::usage::cpu_of;

use self::sheet::{Figure, Ratio, Raw, Sheet};
use crate::{
    beside::place::{Host, Kind, Place, Running, program},
    figures,
    quiet::{Busy, Guard},
    usage::Meter,
};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Tasks of each throughput; processes are a twentieth of it, puts of etcd at most 30,000
    #[arg(short = 'n', value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    tasks: u32,
    /// Rounds of each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// These alone
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Subject::value_variants().to_vec())]
    only: Vec<Subject>,
    /// HyperQueue's program; without it its figure is quoted
    #[arg(long, value_name = "PATH")]
    hq: Option<PathBuf>,
    /// A real disk with 3 GiB of room
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Measure beside others' work; the answer says beside how much
    #[arg(long)]
    busy_anyway: bool,
}

/// What is measured in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Subject {
    /// The bare disk
    Fdatasync,
    /// No-op tasks of ours, each submitted singly
    Singles,
    /// One at a time in the leader's memory alone
    Async,
    /// The same tasks through NATS JetStream
    Nats,
    /// No-op tasks of ours as one array
    Array,
    /// Durable puts
    Etcd,
    /// Our consensus with nothing on top
    Floor,
    /// Processes as tasks of ours, and bare spawn loops
    Exec,
    /// Processes as tasks of HyperQueue
    Hyperqueue,
    /// One task of ours at a time while every core is busy
    Busy,
}

/// All figures.
#[derive(Serialize)]
pub(crate) struct Told {
    tasks: u32,
    rounds: u32,
    /// Whether something else was busy before a measurement; nothing is measured then unless it was asked for.
    busy: Option<Busy>,
    load: String,
    programs: Vec<String>,
    ratios: Vec<Ratio>,
    raw: BTreeMap<Figure, Raw>,
    /// What was not measured, and why.
    skipped: Vec<String>,
    /// What failed in which round; its other rounds stand.
    failed: Vec<String>,
}

/// Servers of a peer, of which it needs a majority.
const SERVERS: u8 = 3;

/// What all of them need.
struct Stage {
    place: Place,
    tasks: u32,
    hq: Option<PathBuf>,
}

/// Figures of one subject in one round.
type Measured = Vec<(Figure, f64)>;

/// Measures all that is possible here.
///
/// # Errors
/// Something else uses a processor.
pub(crate) fn measure(options: &Options) -> anyhow::Result<Told> {
    let in_memory = swarmctl::verb::bench::disk::is_memory(&options.dir);
    ensure!(!in_memory, "{} is in memory only, and a durable figure would be a lie: --dir with a real disk", options.dir.display());
    let (subjects, skipped) = present(options);
    let mut guard = if options.busy_anyway { Guard::Note(None) } else { Guard::Wait };
    guard.before()?;
    let place = Place::make(Kind::Loopback, &options.dir, "")?;
    let stage = Stage { place, tasks: options.tasks, hq: options.hq.clone() };
    let (mut sheet, mut failed) = (Sheet::default(), Vec::new());
    for round in 1..=options.rounds {
        for subject in &subjects {
            say(&format!("round {round} of {}: {}", options.rounds, subject.name()));
            guard.before()?;
            match stage.run(*subject) {
                Ok(measured) => sheet.note(measured),
                // what was measured before is worth minutes
                Err(error) => failed.push(format!("round {round}, {}: {error:#}", subject.name())),
            }
        }
    }
    Ok(Told {
        tasks: options.tasks,
        rounds: options.rounds,
        busy: guard.beside().cloned(),
        load: figures::load(),
        programs: subjects.iter().filter_map(|subject| subject.version(options.hq.as_deref())).collect(),
        ratios: sheet.ratios(),
        raw: sheet.raw(),
        skipped,
        failed,
    })
}

/// Fails when something could not be measured in some round.
pub(crate) fn check(told: &Told) -> anyhow::Result<()> {
    ensure!(told.failed.is_empty(), "{} measurements failed, the first: {}", told.failed.len(), told.failed[0]);
    Ok(())
}

/// What can be measured here, and what cannot, and why.
fn present(options: &Options) -> (Vec<Subject>, Vec<String>) {
    let (mut subjects, mut skipped) = (Vec::new(), Vec::new());
    for subject in &options.only {
        match subject.missing(options.hq.as_deref()) {
            None => subjects.push(*subject),
            Some(why) => skipped.push(format!("{}: {why}", subject.name())),
        }
    }
    (subjects, skipped)
}

#[expect(clippy::print_stderr, reason = "how far it is, beside the data")]
fn say(text: &str) {
    eprintln!("swarm-bench: {text}");
}

impl Subject {
    const fn name(self) -> &'static str {
        match self {
            Self::Fdatasync => "the bare disk",
            Self::Singles => "swarm, each task submitted singly",
            Self::Async => "swarm, durability async",
            Self::Nats => "NATS JetStream R3",
            Self::Array => "swarm, one array",
            Self::Etcd => "three of etcd",
            Self::Floor => "our consensus alone",
            Self::Exec => "swarm, processes, and bare spawn loops",
            Self::Hyperqueue => "HyperQueue",
            Self::Busy => "swarm, every core busy",
        }
    }

    /// Why it cannot be measured here, if so.
    fn missing(self, hq: Option<&Path>) -> Option<String> {
        let installed = |name: &str| program(name).is_none().then(|| format!("{name} is not installed (tests/bench/setup)"));
        match self {
            Self::Fdatasync | Self::Floor | Self::Singles | Self::Async | Self::Array | Self::Exec | Self::Busy => None,
            Self::Nats => installed(nats::PROGRAM),
            Self::Etcd => installed(etcd::PROGRAM),
            Self::Hyperqueue => match hq {
                None => Some("no --hq PATH is given (tests/bench/setup says how to build it)".into()),
                Some(path) => (!path.is_file()).then(|| format!("{} does not exist", path.display())),
            },
        }
    }

    /// Which one was measured beside.
    fn version(self, hq: Option<&Path>) -> Option<String> {
        let path = match self {
            Self::Fdatasync | Self::Floor | Self::Singles | Self::Async | Self::Array | Self::Exec | Self::Busy => None,
            Self::Nats => program(nats::PROGRAM),
            Self::Etcd => program(etcd::PROGRAM),
            Self::Hyperqueue => hq.map(Path::to_owned),
        }?;
        let said = Command::new(path).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&said.stdout).lines().next()?.to_owned())
    }
}

impl Stage {
    fn run(&self, subject: Subject) -> anyhow::Result<Measured> {
        match subject {
            Subject::Fdatasync => disk::run(&self.place.dir),
            Subject::Singles => ours::singles(self),
            Subject::Async => ours::in_memory(self),
            Subject::Nats => nats::run(self),
            Subject::Array => ours::array(self),
            Subject::Etcd => etcd::run(self),
            Subject::Floor => floor::run(self),
            Subject::Exec => ours::exec(self),
            Subject::Hyperqueue => hyperqueue::run(self),
            Subject::Busy => busy::run(self),
        }
    }

    /// How many processes are spawned, and tasks of HyperQueue: each takes as long as a hundred others.
    fn processes(&self) -> u32 {
        (self.tasks / 20).max(100)
    }

    /// [`SERVERS`] of them, each at an address of its own, when all of them listen at their port.
    fn three(&self, port: u16, start: impl Fn(&[IpAddr], usize) -> anyhow::Result<Running>) -> anyhow::Result<(Vec<IpAddr>, Vec<Running>)> {
        let places: Vec<Host> = (0..SERVERS).map(|n| self.place.leader.next(n)).collect();
        let hosts: Vec<IpAddr> = places.iter().map(|place| place.ip).collect();
        let mut servers = (0..hosts.len()).map(|n| start(&hosts, n)).collect::<Result<Vec<_>, _>>()?;
        for (server, place) in servers.iter_mut().zip(&places) {
            server.listens(place, port)?;
        }
        Ok((hosts, servers))
    }

    /// An empty directory, whose files are gone when it is.
    fn fresh(&self, name: &str) -> anyhow::Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix(name).tempdir_in(&self.place.dir)?)
    }
}

/// CPU of this process, which clients and workers are part of, and of servers.
struct Cpu<'a> {
    own: Meter,
    servers: &'a [Running],
    before: f64,
}

impl<'a> Cpu<'a> {
    fn start(servers: &'a [Running]) -> Self {
        Self { own: Meter::start(), servers, before: seconds_of(servers) }
    }

    /// How long it took, and what it took of processors, in seconds.
    fn stop(&self) -> crate::Run {
        let own = self.own.stop();
        crate::Run { cpu: own.cpu + seconds_of(self.servers) - self.before, ..own }
    }
}

fn seconds_of(servers: &[Running]) -> f64 {
    servers.iter().map(|server| cpu_of(server.pid()).as_secs_f64()).sum()
}

/// The value that so many of all do not exceed, in milliseconds.
fn quantile(seconds: &mut [f64], part: f64) -> f64 {
    swarmctl::verb::bench::percentile(seconds, part) * 1e3
}

/// Runs a future in a runtime of this thread.
fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

/// For people: the ratios, and what they are made of.
pub(crate) fn table(told: &Told) -> String {
    let Told { tasks, rounds, busy, load, programs, ratios, raw, skipped, failed } = told;
    let mut text = format!("{tasks} tasks, medians of {rounds} rounds in turn");
    text += &match busy {
        None => format!("; nothing else was busy; load {load}\n"),
        Some(Busy { cores, who }) => format!("\nBESIDE OTHERS' WORK: {cores:.2} of a core, most of it {who}; load {load}\n"),
    };
    text += "\n";
    text += &sheet::table(ratios, raw);
    for program in programs {
        text += &format!("beside: {program}\n");
    }
    for what in skipped {
        text += &format!("skipped: {what}\n");
    }
    for what in failed {
        text += &format!("FAILED: {what}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &Path) -> Options {
        Options { tasks: 200, rounds: 1, only: Subject::value_variants().into(), hq: None, dir: dir.into(), busy_anyway: true }
    }

    #[test]
    fn a_peer_that_is_missing_is_named() {
        let mut options = options(Path::new("/var/tmp"));
        options.only = vec![Subject::Fdatasync, Subject::Hyperqueue];
        let (subjects, skipped) = present(&options);
        assert_eq!(subjects, [Subject::Fdatasync]);
        assert_eq!(skipped, ["HyperQueue: no --hq PATH is given (tests/bench/setup says how to build it)"]);
        options.hq = Some("/nowhere/hq".into());
        assert_eq!(present(&options).1, ["HyperQueue: /nowhere/hq does not exist"]);
    }

    #[test]
    fn a_table_says_beside_whose_work_it_was_made() {
        let mut told = Told {
            tasks: 200,
            rounds: 1,
            busy: None,
            load: "0.1 of 2 cores".into(),
            programs: vec!["nats-server: v2.9.10".into()],
            ratios: Vec::new(),
            raw: BTreeMap::new(),
            skipped: vec!["three of etcd: etcd is not installed (tests/bench/setup)".into()],
            failed: Vec::new(),
        };
        assert!(table(&told).starts_with("200 tasks, medians of 1 rounds in turn; nothing else was busy"));
        told.busy = Some(Busy { cores: 1.5, who: "rustc (process 7)".into() });
        let text = table(&told);
        assert!(text.contains("BESIDE OTHERS' WORK: 1.50 of a core, most of it rustc (process 7)"), "{text}");
        assert!(
            text.ends_with("beside: nats-server: v2.9.10\nskipped: three of etcd: etcd is not installed (tests/bench/setup)\n"),
            "{text}"
        );
    }

    /// The disk, real daemons and consensus alone: small, and without the programs of others.
    #[test]
    fn what_needs_no_peer_is_measured() {
        let built = std::env::current_exe().unwrap();
        let disk = [built.parent().unwrap(), Path::new("/var/tmp")].into_iter().find(|dir| !swarmctl::verb::bench::disk::is_memory(dir));
        let dir = tempfile::tempdir_in(disk.expect("a disk")).unwrap();
        let mut options = options(dir.path());
        options.only = vec![Subject::Fdatasync, Subject::Singles, Subject::Floor];
        let told = measure(&options).unwrap();
        assert_eq!(told.failed, [""; 0]);
        check(&told).unwrap();
        let found: Vec<Figure> = told.raw.keys().copied().collect();
        let expected = [
            Figure::TasksPerS,
            Figure::TasksCpu,
            Figure::TaskAcknowledged,
            Figure::TaskTrip,
            Figure::TaskTripP99,
            Figure::SyncAlone,
            Figure::SyncThree,
            Figure::SyncThreeP99,
            Figure::SyncThreePerS,
            Figure::FloorCommit,
            Figure::FloorCommitP99,
            Figure::FloorPerS,
            Figure::FloorCpu,
        ];
        assert_eq!(found, expected);
        let json = serde_json::to_value(&told).unwrap();
        let median = |figure: &str| json["raw"][figure]["median"].as_f64().unwrap();
        assert!(median("tasks_per_s") > 1.0 && median("floor_per_s") > 100.0, "{json}");
        assert!(median("task_trip") > median("task_acknowledged") && median("floor_commit") > 0.0, "{json}");
        assert!(json["ratios"].as_array().unwrap().len() >= 6, "{json}");
    }
}
