//! Whether anything else uses the processors: figures beside a compiler are figures of the compiler.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::bail;

/// How long one look takes.
const LOOK: Duration = Duration::from_millis(500);
/// How long what has just been measured may take to come to rest.
const REST: Duration = Duration::from_secs(30);
/// Of one core.
const LITTLE: f64 = 0.25;

/// What is done beside others' work.
pub(crate) enum Guard {
    /// Nothing is measured.
    Wait,
    /// It is measured all the same; the most that was seen before a measurement, of one core, and who most of it was.
    Note(Option<Busy>),
}

/// Somebody's work.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Busy {
    pub(crate) cores: f64,
    pub(crate) who: String,
}

/// Ticks of all processors that were not idle, and of each process.
struct Ticks {
    busy: u64,
    all: u64,
    processes: BTreeMap<u32, (String, u64)>,
}

/// Waits until nothing else is busy.
///
/// # Errors
/// Something is, and who it is.
pub(crate) fn wait() -> anyhow::Result<()> {
    let give_up = Instant::now() + REST;
    while let Some(Busy { cores, who }) = look()? {
        if Instant::now() > give_up {
            bail!("something else uses {cores:.2} of a core, most of it {who}: nothing is measured beside that");
        }
    }
    Ok(())
}

/// Who else is busy now.
fn look() -> anyhow::Result<Option<Busy>> {
    let before = Ticks::now()?;
    std::thread::sleep(LOOK);
    Ok(Some(before.until(&Ticks::now()?)).filter(|busy| busy.cores >= LITTLE))
}

impl Guard {
    /// To be asked before each measurement.
    ///
    /// # Errors
    /// As [`wait`].
    pub(crate) fn before(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Wait => wait(),
            Self::Note(most) => {
                let now = look()?;
                if now.as_ref().map_or(0.0, |busy| busy.cores) > most.as_ref().map_or(0.0, |busy| busy.cores) {
                    *most = now;
                }
                Ok(())
            }
        }
    }

    /// Beside what it was measured.
    pub(crate) const fn beside(&self) -> Option<&Busy> {
        match self {
            Self::Wait => None,
            Self::Note(most) => most.as_ref(),
        }
    }
}

impl Ticks {
    fn now() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let numbers = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
        let numbers: Vec<u64> = numbers.map(|word| word.parse().unwrap_or(0)).collect();
        // user, nice, system, idle, iowait, irq, softirq, and what other machines on this one took
        let [user, nice, system, idle, wait, irq, soft, stolen] = numbers[..] else { bail!("/proc/stat cannot be read") };
        let busy = user + nice + system + irq + soft;
        let mut processes = BTreeMap::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // one that has ended meanwhile is none
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((name, fields)) = stat.rsplit_once(')') else { continue };
            let fields: Vec<&str> = fields.split_whitespace().collect();
            let ticks = [11, 12].map(|at| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0));
            let name = name.split_once('(').map_or(name, |(_, name)| name);
            processes.insert(pid, (name.to_owned(), ticks[0] + ticks[1]));
        }
        Ok(Self { busy, all: busy + idle + wait + stolen, processes })
    }

    /// How many cores were busy until then, and with what mostly.
    #[expect(clippy::cast_precision_loss, reason = "a part of a core")]
    fn until(&self, after: &Self) -> Busy {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let part = (after.busy - self.busy) as f64 / (after.all - self.all).max(1) as f64;
        let used = |pid: &u32, ticks: u64| ticks.saturating_sub(self.processes.get(pid).map_or(0, |(_, before)| *before));
        let most = after.processes.iter().max_by_key(|(pid, (_, ticks))| used(pid, *ticks));
        let who = most.map(|(pid, (name, _))| format!("{name} (process {pid})")).unwrap_or_default();
        Busy { cores: part * cores, who }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_told_with_who_does_it() {
        let cores = std::thread::available_parallelism().unwrap().get() as u64;
        let ticks = |busy, compiler, gone: Option<u64>| Ticks {
            busy,
            all: 100 * cores * u64::from(busy > 0),
            processes: [(7, ("rustc".to_owned(), compiler)), (1, ("init".to_owned(), 5_000))]
                .into_iter()
                .chain(gone.map(|ticks| (3, ("gone".to_owned(), ticks))))
                .collect(),
        };
        let busy = ticks(0, 20, Some(9_000)).until(&ticks(50, 65, None));
        assert_eq!(busy, Busy { cores: 0.5, who: "rustc (process 7)".into() });
    }

    #[test]
    fn one_core_that_is_busy_is_seen() {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
            let mut guard = Guard::Note(None);
            let seen = guard.before();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            seen.unwrap();
            assert!(guard.beside().unwrap().cores >= 0.5, "{:?}", guard.beside());
            assert!(guard.beside().unwrap().who.contains("(process "));
        });
    }
}
