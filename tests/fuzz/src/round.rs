//! One round over targets, each in a process of its own, since a finding ends it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use swarm_fuzz::{Target, seeds};

use crate::totals::{Total, Totals};

/// Finds of one target that the tree keeps beside its seeds, and the bytes of all.
const KEPT: (usize, usize) = (60, 48 << 10);

pub(crate) struct Places {
    /// What is kept in the tree.
    pub(crate) corpus: PathBuf,
    /// What was found, here.
    pub(crate) finds: PathBuf,
}

/// What libFuzzer said of a target at its end.
#[derive(Default)]
struct Said {
    inputs: u64,
    coverage: u64,
    slowest: String,
    memory: String,
}

/// Fuzzes each of them so long, and shows what came of it.
///
/// # Errors
/// There was a finding, or a process could not be started.
pub(crate) fn run(places: &Places, targets: &[&'static Target], seconds: u32, at_once: usize) -> anyhow::Result<()> {
    let totals = Mutex::new(Totals::load(places.finds.join("totals.json")));
    let (waiting, rows) = (Mutex::new(targets.iter()), Mutex::new(Vec::new()));
    let failed = std::thread::scope(|scope| {
        let work = || -> anyhow::Result<usize> {
            let mut failed = 0;
            loop {
                let Some(target) = waiting.lock().expect("nobody panics with it").next() else { return Ok(failed) };
                let (is_sound, row) = places.fuzz(target, seconds, &totals)?;
                failed += usize::from(!is_sound);
                rows.lock().expect("nobody panics with it").push(row);
            }
        };
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker ends")).sum::<anyhow::Result<usize>>()
    })?;
    println!(
        "{:12} {:>11} {:>13} {:>9} {:>9} {:>11} {:>13}",
        "target", "inputs", "over all runs", "a second", "coverage", "slowest", "memory"
    );
    let mut rows = rows.into_inner().expect("nobody panics with it");
    rows.sort();
    rows.iter().for_each(|row| println!("{row}"));
    let totals = totals.into_inner().expect("nobody panics with it");
    let (inputs, seconds) = totals.of.values().fold((0, 0), |sum, one| (sum.0 + one.inputs, sum.1 + one.seconds));
    println!("over all runs {inputs} inputs in {:.1} h of fuzzing", seconds as f64 / 3_600.0);
    ensure!(failed == 0, "{failed} of {} targets have a finding", targets.len());
    Ok(())
}

impl Places {
    fn fuzz(&self, target: &Target, seconds: u32, totals: &Mutex<Totals>) -> anyhow::Result<(bool, String)> {
        let began = Instant::now();
        let (finds, log) = (self.finds_of(target)?, self.finds.join(format!("{}.log", target.name)));
        let words = [
            finds.display().to_string(),
            self.corpus.join(target.name).display().to_string(),
            format!("-max_total_time={seconds}"),
            format!("-max_len={}", target.longest),
            // beside its inputs: it is tried first by each run, until it is mended
            format!("-artifact_prefix={}/finding-", finds.display()),
            "-print_final_stats=1".to_owned(),
            // of wall time, which a busy host has little of; processor time is judged for each input
            "-timeout=60".to_owned(),
            "-rss_limit_mb=1024".to_owned(),
            "-detect_leaks=0".to_owned(),
        ];
        let is_sound = self.start(target, &words, &log)?;
        let text = fs::read(&log).map(|text| String::from_utf8_lossy(&text).into_owned())?;
        let said = read(&text);
        let more = Total { inputs: said.inputs, seconds: began.elapsed().as_secs(), findings: u64::from(!is_sound) };
        let total = totals.lock().expect("nobody panics with it").add(target.name, &more)?;
        if !is_sound {
            let tail: Vec<&str> = text.lines().rev().take(25).collect();
            println!("== a finding of {}\n{}", target.name, tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let Said { inputs, coverage, slowest, memory } = said;
        let rate = inputs / more.seconds.max(1);
        Ok((is_sound, format!("{:12} {inputs:>11} {:>13} {rate:>9} {coverage:>9} {slowest:>11} {memory:>13}", target.name, total.inputs)))
    }

    /// Answers whether it ended well.
    fn start(&self, target: &Target, words: &[String], log: &Path) -> anyhow::Result<bool> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(target.name).arg("--here").args(words).current_dir(&self.finds);
        let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(log)?).status()?;
        Ok(ended.success())
    }

    fn finds_of(&self, target: &Target) -> anyhow::Result<PathBuf> {
        let dir = self.finds.join(target.name);
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        Ok(dir)
    }

    /// Leaves in the tree the seeds, some of what reaches most with least, and all that has a name that somebody gave it.
    pub(crate) fn shrink(&self, targets: &[&'static Target]) -> anyhow::Result<()> {
        for target in targets {
            let (corpus, finds) = (self.corpus.join(target.name), self.finds_of(target)?);
            let small = self.finds.join("small");
            let _ = fs::remove_dir_all(&small);
            fs::create_dir_all(&small)?;
            let words = [
                small.display().to_string(),
                corpus.display().to_string(),
                finds.display().to_string(),
                "-merge=1".to_owned(),
                "-use_counters=0".to_owned(),
                format!("-max_len={}", target.longest),
            ];
            ensure!(self.start(target, &words, &self.finds.join("shrink.log"))?, "{}: see shrink.log", target.name);
            let mut found: Vec<(u64, PathBuf)> =
                fs::read_dir(&small)?.flatten().map(|entry| Ok((entry.metadata()?.len(), entry.path()))).collect::<std::io::Result<_>>()?;
            ensure!(!found.is_empty(), "{}: nothing is left, see shrink.log", target.name);
            found.sort();
            let before = fs::read_dir(&corpus)?.flatten().map(|entry| entry.path());
            before.filter(|path| is_number(path)).try_for_each(fs::remove_file)?;
            let (seeds, step) = (seeds::of(target.name), found.len().div_ceil(KEPT.0));
            // short ones and long ones
            let found = found.iter().rev().step_by(step).map(|(_, path)| fs::read(path)).collect::<std::io::Result<Vec<_>>>()?;
            let mut room = KEPT.1;
            for bytes in seeds.into_iter().chain(found) {
                let Some(left) = room.checked_sub(bytes.len()) else { continue };
                room = left;
                fs::write(corpus.join(&blake3::hash(&bytes).to_hex()[..40]), bytes)?;
            }
            println!("{}: {} inputs, {} bytes", target.name, fs::read_dir(&corpus)?.count(), KEPT.1 - room);
        }
        Ok(())
    }
}

/// Whether a program gave it its name.
fn is_number(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn read(log: &str) -> Said {
    let mut said = Said::default();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once(" cov: ") {
            said.coverage = first(rest).unwrap_or(said.coverage);
            // one that ended early has no other count
            said.inputs = line.strip_prefix('#').and_then(first).unwrap_or(said.inputs);
        } else if let Some(rest) = line.strip_prefix("stat::number_of_executed_units:") {
            said.inputs = first(rest).unwrap_or(said.inputs);
        } else if let Some(rest) = line.strip_prefix("cost: ") {
            let words: Vec<&str> = rest.split(' ').collect();
            if let [time, _, memory, _] = words.as_slice() {
                said.slowest = format!("{time} us");
                said.memory = format!("{memory} B");
            }
        }
    }
    said
}

fn first(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}
