//! HyperQueue: one server, two workers of one core, `true` as one array. Nothing of it is replicated.
//!
//! It is in no registry; its program is built from its source and given with `--hq`.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::{Figure, Measured, Stage};
use crate::beside::place::Running;

/// How long server and workers may take to be there.
const READY: Duration = Duration::from_secs(30);
const WORKERS: usize = 2;

pub(super) fn run(stage: &Stage) -> anyhow::Result<Measured> {
    let program = stage.hq.as_deref().context("no program")?;
    let dir = stage.fresh("hq")?;
    let command = |words: &[&str]| {
        let mut command = stage.place.leader.command(program);
        command.arg("--server-dir").arg(dir.path()).args(words);
        command
    };
    let host = stage.place.leader.ip.to_string();
    let mut parts = vec![start(dir.path(), "server", command(&["server", "start", "--host", &host]))?];
    ready(|| Ok(command(&["server", "info"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success()))?;
    for n in 0..WORKERS {
        parts.push(start(dir.path(), &format!("worker{n}"), command(&["worker", "start", "--cpus", "1"]))?);
    }
    ready(|| Ok(workers(&command(&["--output-mode", "json", "worker", "list"]).output()?.stdout) == WORKERS))?;
    let array = format!("1-{}", stage.processes());
    let mut submit = command(&["submit", "--array", &array, "--stdout", "none", "--stderr", "none", "--wait", "true"]);
    let began = Instant::now();
    ensure!(submit.stdout(Stdio::null()).status()?.success(), "hq submit failed");
    Ok(vec![(Figure::HyperQueuePerS, f64::from(stage.processes()) / began.elapsed().as_secs_f64())])
}

fn start(dir: &Path, name: &str, mut command: Command) -> anyhow::Result<Running> {
    let log = File::create(dir.join(format!("{name}.log")))?;
    Running::start(command.stdout(log.try_clone()?).stderr(log))
}

/// How many workers a list tells.
fn workers(list: &[u8]) -> usize {
    serde_json::from_slice::<Vec<serde_json::Value>>(list).map_or(0, |workers| workers.len())
}

/// Waits until it is so.
fn ready(mut is_ready: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let give_up = Instant::now() + READY;
    while !is_ready()? {
        ensure!(Instant::now() < give_up, "not ready after {} s", READY.as_secs());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_counted() {
        assert_eq!(workers(br#"[{"id":1},{"id":2}]"#), 2);
        assert_eq!(workers(b"no server"), 0);
    }
}
