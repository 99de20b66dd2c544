//! What the daemons and this client used: CPU, memory, log.

use std::{fs, time::Duration};

use swarm_client::Client;
use swarm_proto::Problem;

use super::throwaway::Throwaway;

/// Counters at the beginning of a load.
pub(crate) struct Usage {
    cpu: Option<Duration>,
    log_bytes: Option<f64>,
}

/// What a load used.
pub(crate) struct Spent {
    pub(crate) cpu: Option<Duration>,
    pub(crate) log_bytes: Option<f64>,
    pub(crate) rss_mb: Vec<f64>,
}

impl Usage {
    pub(crate) async fn begin(swarm: Option<&Throwaway>, client: &Client) -> Result<Self, Problem> {
        Ok(Self { cpu: swarm.map(cpu_of_all), log_bytes: log_bytes(client).await? })
    }

    pub(crate) async fn end(self, swarm: Option<&Throwaway>, client: &Client) -> Result<Spent, Problem> {
        let cpu = swarm.map(cpu_of_all).zip(self.cpu).map(|(end, begin)| end.saturating_sub(begin));
        let log_bytes = log_bytes(client).await?.zip(self.log_bytes).map(|(end, begin)| end - begin);
        let rss_mb = swarm.map(|swarm| swarm.nodes().iter().map(|node| rss_mb(node.pid)).collect()).unwrap_or_default();
        Ok(Spent { cpu, log_bytes, rss_mb })
    }
}

/// Bytes that the voter behind this client has written to its log.
async fn log_bytes(client: &Client) -> Result<Option<f64>, Problem> {
    let metrics = client.metrics().await?;
    let line = metrics.lines().find_map(|line| line.strip_prefix("swarm_log_written_bytes "));
    Ok(line.and_then(|value| value.trim().parse().ok()))
}

fn cpu_of_all(swarm: &Throwaway) -> Duration {
    swarm.nodes().iter().map(|node| node.pid).chain([std::process::id()]).map(cpu_of).sum()
}

/// Time on a processor of all threads that a process has now, as the scheduler counts it (nanoseconds). Nothing where it does not tell.
pub fn cpu_of(pid: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let of_thread = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.flatten().filter_map(|thread| of_thread(thread.path())).sum())
}

/// The same of the threads that have ended, too, as the kernel ticks (10 ms). `None` where it does not tell.
#[cfg(unix)]
pub(crate) fn cpu_with_ended(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name may hold spaces: fields are counted after it
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(1_000 * ticks / rustix::param::clock_ticks_per_second()))
}

#[cfg(not(unix))]
pub(crate) const fn cpu_with_ended(_: u32) -> Option<Duration> {
    None
}

fn rss_mb(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}
