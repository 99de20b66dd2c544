//! Proof that the tests can fail: breaks the sources on purpose, one line at a time, and looks whether a test sees it.
//!
//! ```text
//!   tracked files --copy--> <target>/mutants/tree --one line--> the tests that should see it --> caught, or SURVIVED
//!                                                 <--as it was--
//! ```
//! Nothing is changed where people work. What is built of the copy lies beside what is built of the checkout, and shares all crates of
//! others with it: cargo keeps apart what a wrapper of the compiler made (`RUSTC_WORKSPACE_WRAPPER`).
//!
//! A mutation that does not compile proves nothing and is an error, as is a suite that fails without any. What hangs counts as seen.

#![cfg(unix)]
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

mod list;

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::list::{ALL, Mutation, Suite, Tests};

/// How long the tests of one suite may take once they are built.
const PATIENCE: Duration = Duration::from_mins(10);

#[derive(Parser)]
#[command(about = "Breaks the sources on purpose, and looks whether a test sees it")]
struct Args {
    /// Only these, by name
    names: Vec<String>,
    /// Only so many, other ones with each commit (each day where there is no git)
    #[arg(long, value_name = "N")]
    some: Option<usize>,
    /// Names them, and does nothing
    #[arg(long)]
    list: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let chosen = choose(&args)?;
    if args.list {
        chosen.iter().for_each(|mutation| println!("{:<34} {}", mutation.name, mutation.file));
        return Ok(());
    }
    let mut bench = Bench::prepare()?;
    let mut survived = Vec::new();
    for mutation in &chosen {
        let began = Instant::now();
        let caught = bench.try_one(mutation).with_context(|| mutation.name)?;
        let by = caught.as_deref().unwrap_or("SURVIVED");
        println!("{:<34} {by}  ({} s)", mutation.name, began.elapsed().as_secs());
        if caught.is_none() {
            survived.push(mutation.name);
        }
    }
    println!("mutations: {} of {} caught", chosen.len() - survived.len(), chosen.len());
    ensure!(survived.is_empty(), "no test sees: {}", survived.join(", "));
    Ok(())
}

fn choose(args: &Args) -> Result<Vec<&'static Mutation>> {
    for name in &args.names {
        ensure!(ALL.iter().any(|mutation| mutation.name == name), "there is no mutation '{name}'; --list names them");
    }
    let mut chosen: Vec<&Mutation> = ALL.iter().filter(|m| args.names.is_empty() || args.names.iter().any(|name| name == m.name)).collect();
    if let Some(count) = args.some {
        let day = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / (24 * 3600));
        let head = git(&["rev-parse", "HEAD"]).ok().and_then(|head| u64::from_str_radix(head.get(..8)?, 16).ok());
        let turn = usize::try_from(head.unwrap_or_else(day)).unwrap_or_default();
        let len = chosen.len().max(1);
        chosen.rotate_left(turn % len);
        chosen.truncate(count);
    }
    Ok(chosen)
}

/// Of the checkout.
fn root() -> &'static Path {
    Path::new(env!("SWARM_ROOT"))
}

fn git(args: &[&str]) -> Result<String> {
    let done = Command::new("git").arg("-C").arg(root()).args(args).output().context("git cannot be run")?;
    ensure!(done.status.success(), "git {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?.trim_end().to_owned())
}

/// Every file that is a source, from the checkout's root: what git knows, or all there is in a tree that is no checkout.
fn sources() -> Result<Vec<String>> {
    if let Ok(files) = git(&["ls-files", "--cached", "--others", "--exclude-standard"]) {
        return Ok(files.lines().map(str::to_owned).collect());
    }
    let (mut files, mut dirs) = (Vec::new(), vec![root().to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            let is_made = path.parent() == Some(root()) && (path.ends_with("target") || path.ends_with(".git"));
            if kind.is_dir() && !is_made {
                dirs.push(path);
            } else if kind.is_file() {
                files.push(path.strip_prefix(root())?.to_str().context("a name of text")?.to_owned());
            }
        }
    }
    Ok(files)
}

/// A copy of the sources, and where it is built.
struct Bench {
    tree: PathBuf,
    target: PathBuf,
    /// What passes as the sources are.
    sound: BTreeSet<Suite>,
}

impl Bench {
    fn prepare() -> Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        let bench = Self { tree: target.join("mutants"), target, sound: BTreeSet::new() };
        bench.copy_sources()?;
        Ok(bench)
    }

    /// Writes only what differs, so that nothing is built again for having been copied.
    fn copy_sources(&self) -> Result<()> {
        for file in sources()? {
            let (from, to) = (root().join(&file), self.tree.join(&file));
            // one that was removed and not committed yet
            let Ok(bytes) = fs::read(&from) else { continue };
            if fs::read(&to).ok().as_ref() != Some(&bytes) {
                fs::create_dir_all(to.parent().context("a file has a directory")?)?;
                fs::copy(&from, &to)?; // with its mode: some are programs
            }
        }
        Ok(())
    }

    /// What saw it.
    fn try_one(&mut self, mutation: &Mutation) -> Result<Option<String>> {
        for suite in mutation.suites {
            self.check_sound(*suite)?;
            let seen = self.try_with(mutation, *suite)?;
            if seen.is_some() {
                return Ok(seen);
            }
        }
        Ok(None)
    }

    /// What should see a mutation must pass without it.
    fn check_sound(&mut self, suite: Suite) -> Result<()> {
        if self.sound.insert(suite)
            && let Some(seen) = self.see(suite)?
        {
            bail!("without any mutation: {seen}");
        }
        Ok(())
    }

    fn try_with(&self, mutation: &Mutation, suite: Suite) -> Result<Option<String>> {
        let file = self.tree.join(mutation.file);
        let text = fs::read_to_string(&file)?;
        ensure!(text.matches(mutation.find).count() == 1, "'{}' is not exactly once in {}", mutation.find, mutation.file);
        fs::write(&file, text.replacen(mutation.find, mutation.replace, 1))?;
        let seen = self.see(suite);
        fs::write(&file, text)?;
        seen
    }

    /// What of a suite fails.
    fn see(&self, suite: Suite) -> Result<Option<String>> {
        let done = self.cargo(suite).arg("--no-run").output().context("cargo cannot be run")?;
        // what does not compile proves nothing
        ensure!(done.status.success(), "{} does not compile:\n{}", suite.package, String::from_utf8_lossy(&done.stderr));
        self.run(suite)
    }

    fn cargo(&self, suite: Suite) -> Command {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target).env("CARGO_INCREMENTAL", "1");
        cargo.env("RUSTC_WORKSPACE_WRAPPER", self.tree.join("tests/mutations/rustc"));
        cargo.args(["test", "--release", "--quiet"]);
        match suite.tests {
            // of all packages, every one of these would be built
            Tests::Unit(_) => cargo.args(["--package", suite.package, "--lib"]),
            // of one package, crates of others would be built again for it, with fewer features
            Tests::File(file) | Tests::Some(file, _) => cargo.args(["--workspace", "--test", file]),
        };
        cargo
    }

    /// Which of its tests fail.
    fn run(&self, suite: Suite) -> Result<Option<String>> {
        let mut cargo = self.cargo(suite);
        match suite.tests {
            Tests::Unit(filter) | Tests::Some(_, filter) => cargo.args(["--", filter]),
            Tests::File(_) => &mut cargo,
        };
        let mut child = cargo.stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).spawn()?;
        let mut stdout = child.stdout.take().context("it has one")?;
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stdout.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let give_up = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if Instant::now() >= give_up {
                kill_process_group(Pid::from_child(&child), Signal::KILL)?;
                child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let Some(status) = status else { return Ok(Some(format!("caught by {}, which hangs", suite.package))) };
        if status.success() {
            return Ok(None);
        }
        let text = reader.join().unwrap_or_default();
        let failed = text.lines().find_map(|line| line.strip_prefix("---- ")?.strip_suffix(" stdout ----"));
        Ok(Some(format!("caught by {} {}", suite.package, failed.unwrap_or("(it ended early)"))))
    }
}
