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
    loop {
        let before = Ticks::now()?;
        std::thread::sleep(LOOK);
        let after = Ticks::now()?;
        let (cores, who) = before.until(&after);
        if cores < LITTLE {
            return Ok(());
        }
        if Instant::now() > give_up {
            bail!("something else uses {cores:.2} of a core, most of it {who}: nothing is measured beside that");
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
    fn until(&self, after: &Self) -> (f64, String) {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let part = (after.busy - self.busy) as f64 / (after.all - self.all).max(1) as f64;
        let used = |pid: &u32, ticks: u64| ticks.saturating_sub(self.processes.get(pid).map_or(0, |(_, before)| *before));
        let most = after.processes.iter().max_by_key(|(pid, (_, ticks))| used(pid, *ticks));
        let who = most.map(|(pid, (name, _))| format!("{name} (process {pid})")).unwrap_or_default();
        (part * cores, who)
    }
}
