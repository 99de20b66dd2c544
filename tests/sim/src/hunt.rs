//! Runs plan after plan, and keeps those that fail, made smaller, where the next run finds them.
//!
//! ```text
//! target/sim/failing/*.plan   kept until they pass; run first
//! target/sim/next             the seed with which the next hunt begins, written after each world
//! tests/sim/corpus/*.plan     what failed once and was mended: every test run replays it
//! ```

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use crate::daemon::{Outcome, Plan, run, shrink};

/// Worlds that are run to make one plan smaller.
const SHRINKING: usize = 80;
/// One seed in so many is run twice, and the traces are compared.
const TWICE: u64 = 10;

/// Where build products are, and with them what a hunt keeps.
pub fn ground() -> PathBuf {
    // target/release/swarm-sim, or target/release/deps/daemon-0123
    let program = std::env::current_exe().unwrap_or_default();
    let release = program.ancestors().find(|dir| dir.ends_with("release") || dir.ends_with("debug"));
    release.and_then(Path::parent).unwrap_or(Path::new("target")).join("sim")
}

/// The plans that every test run replays.
///
/// # Errors
/// A file cannot be read or is no plan.
pub fn corpus() -> io::Result<Vec<(PathBuf, Plan)>> {
    plans(&Path::new(env!("SWARM_ROOT")).join("tests/sim/corpus"))
}

/// All plans of a directory, by name; none where there is no directory.
fn plans(dir: &Path) -> io::Result<Vec<(PathBuf, Plan)>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "plan"));
    paths.sort();
    paths.into_iter().map(|path| load(&path).map(|plan| (path, plan))).collect()
}

/// Reads one.
///
/// # Errors
/// A file that cannot be read or is no plan.
pub fn load(path: &Path) -> io::Result<Plan> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()));
    fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?.parse().map_err(wrong)
}

/// Makes a plan that failed smaller and writes it down; says where, and what is wrong.
pub fn keep(plan: &Plan, violations: &[String]) -> String {
    let shrunk = shrink(plan, SHRINKING);
    let (smaller, violations, runs) = match &shrunk {
        Some(shrunk) => (&shrunk.plan, &shrunk.violations[..], shrunk.runs),
        // it fails only sometimes, which is the worst of all
        None => (plan, violations, 1),
    };
    let dir = ground().join("failing");
    let path = dir.join(format!("{}-{}.plan", plan.seed, smaller.acts.len()));
    let remarks: String =
        violations.iter().take(5).map(|violation| format!("# {}\n", violation.lines().next().unwrap_or_default())).collect();
    let written = fs::create_dir_all(&dir).and_then(|()| fs::write(&path, format!("{remarks}{smaller}")));
    let place = written.map_or_else(|error| format!("(not kept: {error})"), |()| path.display().to_string());
    format!(
        "{} faults, after {runs} runs {}; tests/sim/replay {place}\n{smaller}{}",
        plan.acts.len(),
        smaller.acts.len(),
        violations.join("\n")
    )
}

/// What a hunt came to.
#[derive(Debug, Default)]
pub struct Bag {
    pub worlds: usize,
    pub simulated_s: u64,
    pub acknowledged: usize,
    pub calls: usize,
    pub datagrams: usize,
    pub faults: usize,
    pub compared: usize,
    /// What failed, each told.
    pub failed: Vec<String>,
}

impl fmt::Display for Bag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worlds, simulated_s, acknowledged, calls, datagrams, faults, compared, failed } = self;
        write!(
            f,
            "{worlds} worlds, {simulated_s} s of simulated time, {faults} faults, {acknowledged} jobs acknowledged, {calls} calls judged, \
             {datagrams} datagrams; {compared} worlds run twice; {} failed",
            failed.len()
        )
    }
}

impl Bag {
    fn add(&mut self, outcome: &Outcome, faults: usize) {
        self.worlds += 1;
        self.simulated_s += outcome.simulated.as_secs();
        self.acknowledged += outcome.acknowledged;
        self.calls += outcome.calls;
        self.datagrams += outcome.datagrams;
        self.faults += faults;
    }
}

/// Runs a plan, and again where the traces are to be compared. What is wrong, if anything.
pub fn judge(plan: &Plan, is_twice: bool) -> (Outcome, Vec<String>) {
    let mut outcome = run(plan);
    let mut wrong = std::mem::take(&mut outcome.violations);
    if is_twice {
        let again = run(plan).trace;
        if again != outcome.trace {
            wrong.push(format!("the same seed gave trace {} and then {again}", outcome.trace));
        }
    }
    (outcome, wrong)
}

/// Runs what was kept, and then so many seeds from where the last hunt ended, on so many threads.
///
/// # Errors
/// What was kept cannot be read, or where it ended not be written.
pub fn hunt(seeds: u64, threads: usize, tell: impl Fn(&str) + Sync) -> io::Result<Bag> {
    let ground = ground();
    fs::create_dir_all(&ground)?;
    let mut bag = Bag::default();
    for (path, plan) in plans(&ground.join("failing"))? {
        let (outcome, wrong) = judge(&plan, false);
        bag.add(&outcome, plan.acts.len());
        if wrong.is_empty() {
            tell(&format!("{} passes now", path.display()));
            fs::remove_file(&path)?;
        } else {
            bag.failed.push(format!("{} still fails: {}", path.display(), wrong[0]));
        }
    }
    let next = ground.join("next");
    let first = fs::read_to_string(&next).ok().and_then(|seed| seed.trim().parse().ok()).unwrap_or(10_000);
    chase(bag, Seeds::new(first, seeds), threads, &tell, |first| fs::write(&next, format!("{first}\n")))
}

/// Which seeds are left, and which are under way.
struct Seeds {
    left: std::ops::Range<u64>,
    running: BTreeSet<u64>,
}

impl Seeds {
    const fn new(first: u64, count: u64) -> Self {
        Self { left: first..first + count, running: BTreeSet::new() }
    }

    fn begin(&mut self) -> Option<u64> {
        let seed = self.left.next()?;
        self.running.insert(seed);
        Some(seed)
    }

    /// One is done; the first that is not.
    fn end(&mut self, seed: u64) -> u64 {
        self.running.remove(&seed);
        self.running.first().copied().unwrap_or(self.left.start)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `go_on_with`: writes down the first seed that is not done.
fn chase(
    bag: Bag,
    seeds: Seeds,
    threads: usize,
    tell: &(impl Fn(&str) + Sync),
    go_on_with: impl Fn(u64) -> io::Result<()> + Sync,
) -> io::Result<Bag> {
    let (bag, seeds) = (Mutex::new(bag), Mutex::new(seeds));
    let work = || -> io::Result<()> {
        loop {
            let Some(seed) = locked(&seeds).begin() else { return Ok(()) };
            let (plan, is_twice) = (Plan::of(seed), seed.is_multiple_of(TWICE));
            let (outcome, wrong) = judge(&plan, is_twice);
            let told = (!wrong.is_empty()).then(|| format!("seed {seed}: {}", keep(&plan, &wrong)));
            told.iter().for_each(|told| tell(told));
            let mut bag = locked(&bag);
            bag.add(&outcome, plan.acts.len());
            bag.compared += usize::from(is_twice);
            bag.failed.extend(told);
            if bag.worlds.is_multiple_of(100) {
                tell(&bag.to_string());
            }
            // while the bag is held: one after the other
            go_on_with(locked(&seeds).end(seed))?;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(bag.into_inner().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_hunt_goes_on_with_the_first_seed_that_was_not_done() {
        let mut seeds = Seeds::new(50, 4);
        assert_eq!([0; 3].map(|_| seeds.begin()), [Some(50), Some(51), Some(52)]);
        assert_eq!(seeds.end(51), 50);
        assert_eq!(seeds.end(50), 52);
        assert_eq!(seeds.begin(), Some(53));
        assert_eq!([seeds.end(53), seeds.end(52)], [52, 54]);
        assert_eq!(seeds.begin(), None);
    }
}
