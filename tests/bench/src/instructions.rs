//! `swarm-bench instructions BASE [HEAD]`: what a no-op task costs in instructions, by one commit and by another.
//!
//! ```text
//!   one commit, then the other --git read-tree--> DIR/tree --cargo build--> its `swarm-bench workload`
//!   callgrind:  workload N, workload 2N, in turn, a few rounds     ->  (I(2N) - I(N)) / N: the start of the swarm is in neither
//! ```
//! Time on a noisy machine tells nothing below a tenth; instructions are the same beside a compiler. They are not time: a cache miss, a
//! system call, a wait count as nothing. What the work covers is told in [`workload`](crate::workload); it is each commit's own, so a
//! change of it shows as a change of the product.
//!
//! Both are built at one path, where only what differs is written: what did not change is not built again, and paths that are in the
//! programs are the same. The repository is only read. Only commits that have the workload can be compared.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::{
    beside::place::{Kind, Place, program},
    median,
};

const VALGRIND: &str = "valgrind";

/// What to compare.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The commit to compare with
    base: String,
    /// The commit that is compared
    #[arg(default_value = "HEAD")]
    head: String,
    /// Tasks, and twice as many: the difference is what counts
    #[arg(short = 'n', value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    tasks: u32,
    /// Rounds of each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Where both are built, one run at a time; by default a directory beside this program's, kept for the next time
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Keep callgrind's profiles there, for `callgrind_annotate`
    #[arg(long, value_name = "DIR")]
    profiles: Option<PathBuf>,
    /// Fail when a task costs so many times as much as before
    #[arg(long, value_name = "RATIO")]
    check: Option<f64>,
}

/// All figures.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    tasks: u32,
    base: Figures,
    head: Figures,
    /// Of the medians: above 1, a task costs more than it did.
    ratio: f64,
    covers: &'static str,
}

const COVERS: &str = "three whole daemons in simulated time: ledger, placement, consensus, log, QUIC and TLS, workers; \
                      not HTTP, JSON, the kernel, the disk, processes";

/// Those of one commit.
#[derive(Debug, Serialize)]
struct Figures {
    commit: String,
    subject: String,
    /// Instructions a task.
    median: f64,
    rounds: Vec<f64>,
}

/// A commit, and its program.
struct Built {
    commit: String,
    subject: String,
    program: PathBuf,
    rounds: Vec<f64>,
}

/// Builds both, and counts.
///
/// # Errors
/// No valgrind, no such commit, one without the workload, a build that fails.
pub(crate) fn measure(options: &Options) -> anyhow::Result<Told> {
    program(VALGRIND).context("valgrind is not installed (tests/bench/setup): without it instructions cannot be counted")?;
    let commits = [("base", commit(&options.base)?), ("head", commit(&options.head)?)];
    let place = Place::make(Kind::Loopback, &std::env::temp_dir(), "")?;
    let mut built = Vec::new();
    {
        let yard = Yard::open(options.target_dir.clone().map_or_else(kept_target, Ok)?)?;
        for (name, commit) in commits {
            say(&format!("building {commit}"));
            built.push(yard.build(&place, name, commit)?);
        }
    }
    for round in 1..=options.rounds {
        for (this, name) in built.iter_mut().zip(["base", "head"]) {
            say(&format!("round {round} of {}: {name}", options.rounds));
            let profile = options.profiles.as_ref().map(|dir| dir.join(format!("{name}.callgrind")));
            let [once, twice] = [options.tasks, 2 * options.tasks].map(|tasks| count(&place, &this.program, tasks, profile.as_deref()));
            this.rounds.push(a_task(once?, twice?, options.tasks)?);
        }
    }
    let mut built = built.into_iter().map(Figures::of);
    let (base, head) = built.next().zip(built.next()).context("two commits")?;
    Ok(Told { tasks: options.tasks, ratio: head.median / base.median, base, head, covers: COVERS })
}

/// Fails when a task costs more than it may.
pub(crate) fn check(options: &Options, told: &Told) -> anyhow::Result<()> {
    let most = options.check.unwrap_or(f64::INFINITY);
    ensure!(told.ratio <= most, "a task costs {:.3} times what it did, and may cost {most} times that", told.ratio);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "how far it is, beside the data")]
fn say(text: &str) {
    eprintln!("swarm-bench: {text}");
}

/// The directory for builds that is kept: below the target directory that this program is in.
fn kept_target() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).context("this program is in no target directory: --target-dir")?;
    Ok(target.join("instructions"))
}

/// The whole name of a commit.
fn commit(name: &str) -> anyhow::Result<String> {
    git(&["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")]).with_context(|| format!("{name} is no commit here"))
}

fn git(words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").args(words).output().context("git")?;
    ensure!(output.status.success(), "git {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Where commits are built. It is this process's while this lives.
struct Yard {
    dir: PathBuf,
    /// The top of the repository.
    root: String,
    _lock: File,
}

impl Yard {
    fn open(dir: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(dir.join("tree"))?;
        let dir = dir.canonicalize()?;
        let lock = File::create(dir.join("lock"))?;
        lock.try_lock().with_context(|| format!("{} is in use by another run", dir.display()))?;
        // left by one that was killed
        let _ = fs::remove_file(dir.join("index.lock"));
        Ok(Self { dir, root: git(&["rev-parse", "--show-toplevel"])?, _lock: lock })
    }

    /// Makes the files those of a commit; what is the same keeps its time.
    fn check_out(&self, commit: &str) -> anyhow::Result<()> {
        let tree = self.dir.join("tree");
        // the second mends what a run that was killed left half done
        for words in [["read-tree", "--reset", "-u", commit], ["checkout-index", "--all", "--force", "--index"]] {
            let mut git = Command::new("git");
            git.args(["-C", &self.root, "--work-tree"]).arg(&tree).args(words).env("GIT_INDEX_FILE", self.dir.join("index"));
            let output = git.output().context("git")?;
            ensure!(output.status.success(), "git {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn build(&self, place: &Place, name: &str, commit: String) -> anyhow::Result<Built> {
        self.check_out(&commit)?;
        let mut cargo = place.leader.command("cargo");
        cargo.args(["build", "--release", "--locked", "--quiet", "-p", "swarm-bench", "--target-dir"]).arg(&self.dir);
        ensure!(cargo.current_dir(self.dir.join("tree")).status().context("cargo")?.success(), "{commit} cannot be built");
        // the next build overwrites it
        let program = place.dir.join(name);
        fs::copy(self.dir.join("release/swarm-bench"), &program)?;
        let has_workload = Command::new(&program).args(["workload", "--help"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(has_workload.success(), "{commit} has no `swarm-bench workload`: it is from before there was one");
        let subject = git(&["log", "-1", "--format=%s", &commit])?;
        Ok(Built { commit, subject, program, rounds: Vec::new() })
    }
}

/// Instructions of one run.
fn count(place: &Place, program: &Path, tasks: u32, profile: Option<&Path>) -> anyhow::Result<u64> {
    let out = profile.unwrap_or(Path::new("/dev/null")).display();
    let mut run = place.leader.command(VALGRIND);
    run.args(["--tool=callgrind", &format!("--callgrind-out-file={out}")]).arg(program).args(["workload", &tasks.to_string()]);
    let output = run.env("TMPDIR", &place.dir).output().context(VALGRIND)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the workload failed under valgrind:\n{}", said.trim());
    collected(&said).with_context(|| format!("valgrind tells no count:\n{}", said.trim()))
}

/// What callgrind says at its end: `==123== Collected : 456`.
fn collected(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn a_task(once: u64, twice: u64, tasks: u32) -> anyhow::Result<f64> {
    ensure!(twice > once, "{} tasks took {twice} instructions, and {tasks} took {once}", 2 * tasks);
    Ok((twice - once) as f64 / f64::from(tasks))
}

impl Figures {
    fn of(built: Built) -> Self {
        let Built { commit, subject, rounds, .. } = built;
        Self { commit, subject, median: median(rounds.clone()), rounds }
    }

    /// How far the rounds are from each other, of their median.
    fn spread(&self) -> f64 {
        let ends = self.rounds.iter().copied().fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), it| (least.min(it), most.max(it)));
        (ends.1 - ends.0) / self.median
    }
}

/// For people.
pub(crate) fn table(told: &Told) -> String {
    let Told { tasks, base, head, ratio, covers } = told;
    let mut text = format!("instructions a no-op task, of {tasks}\n");
    for (name, figures) in [("base", base), ("head", head)] {
        let rounds: Vec<String> = figures.rounds.iter().map(|round| format!("{round:.0}")).collect();
        let commit: String = figures.commit.chars().take(12).collect();
        text += &format!("{name} {commit} {:>10.0}   ({})   {}\n", figures.median, rounds.join(", "), figures.subject);
    }
    let spread = base.spread().max(head.spread()) * 100.0;
    text += &format!("ratio {ratio:.3}; rounds of one commit differ by up to {spread:.1} %\ncovers {covers}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_those_of_the_commit_and_what_is_the_same_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let (root, yard) = (dir.path().join("repository"), dir.path().join("yard"));
        let git = |words: &[&str]| {
            let who = ["-c", "user.name=n", "-c", "user.email=e"];
            let output = Command::new("git").arg("-C").arg(&root).args(who).args(words).output().unwrap();
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        fs::create_dir(&root).unwrap();
        git(&["init", "--quiet"]);
        let commit = |files: &[(&str, &str)]| {
            files.iter().for_each(|(name, text)| fs::write(root.join(name), text).unwrap());
            git(&["add", "--all"]);
            git(&["commit", "--quiet", "-m", "x"]);
            git(&["rev-parse", "HEAD"])
        };
        let base = commit(&[("same", "1"), ("changed", "1"), ("gone", "1")]);
        fs::remove_file(root.join("gone")).unwrap();
        let head = commit(&[("changed", "2")]);
        let yard = Yard { root: root.display().to_string(), ..Yard::open(yard).unwrap() };
        let read = |name: &str| fs::read_to_string(yard.dir.join("tree").join(name)).ok();
        let written = || fs::metadata(yard.dir.join("tree/same")).unwrap().modified().unwrap();
        yard.check_out(&base).unwrap();
        assert_eq!(["same", "changed", "gone"].map(read), [Some("1"), Some("1"), Some("1")].map(|text| text.map(str::to_owned)));
        let before = written();
        yard.check_out(&head).unwrap();
        assert_eq!(["same", "changed", "gone"].map(read), [Some("1"), Some("2"), None].map(|text| text.map(str::to_owned)));
        assert_eq!(written(), before);
        assert_eq!(git(&["status", "--porcelain"]), "", "the repository's own files and index are as they were");
        assert!(Yard::open(yard.dir.clone()).is_err(), "one run at a time");
    }

    fn figures(commit: &str, rounds: &[f64]) -> Figures {
        let built = Built { commit: commit.repeat(20), subject: "a change".into(), program: PathBuf::new(), rounds: rounds.into() };
        Figures::of(built)
    }

    #[test]
    fn the_start_counts_for_nothing() {
        assert_eq!(a_task(5_000_000, 5_400_000, 1_000).unwrap(), 400.0);
        assert!(a_task(5, 5, 1_000).is_err());
    }

    #[test]
    fn callgrinds_count_is_found() {
        let said = "==7== Events    : Ir\n==7== Collected : 51234567\n==7== \n==7== I   refs:      51,234,567\n";
        assert_eq!(collected(said), Some(51_234_567));
        assert_eq!(collected("==7== Fatal error\n"), None);
    }

    #[test]
    fn a_ratio_is_told_with_how_far_rounds_differ() {
        let (base, head) = (figures("ab", &[99.0, 100.0, 101.0]), figures("cd", &[110.0, 110.0, 110.0]));
        let mut told = Told { tasks: 1_000, ratio: head.median / base.median, base, head, covers: "all" };
        let expected = "instructions a no-op task, of 1000\n\
                        base abababababab        100   (99, 100, 101)   a change\n\
                        head cdcdcdcdcdcd        110   (110, 110, 110)   a change\n\
                        ratio 1.100; rounds of one commit differ by up to 2.0 %\n\
                        covers all\n";
        assert_eq!(table(&told), expected);
        let options =
            |check| Options { base: String::new(), head: String::new(), tasks: 1_000, rounds: 3, target_dir: None, profiles: None, check };
        assert!(check(&options(None), &told).is_ok() && check(&options(Some(1.2)), &told).is_ok());
        assert!(check(&options(Some(1.05)), &told).is_err());
        told.ratio = 1.0;
        assert!(check(&options(Some(1.05)), &told).is_ok());
    }
}
