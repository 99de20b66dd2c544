//! Many hosts that nothing happens to.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::time::Instant;

use crate::{host::CpuTime, judge, lab::Lab, load::Load, mesh::Traffic};

/// Acknowledgements a second: enough to see that work goes on, little beside what membership costs.
const RATE: u32 = 5;

/// What one node has used until now.
struct Used {
    traffic: Traffic,
    cpu: CpuTime,
}

/// Watches a whole swarm for `time`; says what a node costs.
///
/// # Errors
/// Any node that was called dead, and whatever the judgement finds.
pub async fn crowd(lab: &mut Lab, time: Duration) -> anyhow::Result<String> {
    let began = Instant::now();
    lab.whole().await?;
    let formed = began.elapsed();
    let load = Load::start(lab, RATE)?;
    load.accepted(&lab.running(), 1).await?;
    let (mut downs, mut suspects) = alarms(lab).await?;
    let (before, at) = (used(lab).await?, Instant::now());
    tokio::time::sleep(time).await;
    let (after, span) = (used(lab).await?, at.elapsed().as_secs_f64());
    let (downs_now, suspects_now) = alarms(lab).await?;
    (downs, suspects) = (downs_now - downs, suspects_now - suspects);
    let judged = judge(lab, load).await;

    let mut told = format!("{} hosts formed in {formed:.1?}; {span:.0} s under {RATE} jobs/s\n", after.len());
    let mut line = |name: &str, of: &dyn Fn(&Used) -> f64| {
        let mut values: Vec<f64> = before.iter().zip(&after).map(|(before, after)| (of(after) - of(before)) / span).collect();
        values.sort_by(f64::total_cmp);
        let (least, median, most) = (values[0], values[values.len() / 2], values[values.len() - 1]);
        let _ = writeln!(told, "a node's {name}: least {least:.1}, median {median:.1}, most {most:.1}");
    };
    line("bytes sent/s", &|used| bytes(used.traffic.sent));
    line("bytes received/s", &|used| bytes(used.traffic.received));
    line("processor, %", &|used| 100.0 * used.cpu.as_secs_f64());
    let _ = write!(told, "false alarms: {downs} down, {suspects} suspect");
    // what it cost is worth reading whatever the judge found
    let figures = judged.with_context(|| told.clone())?;
    ensure!(downs == 0, "healthy nodes were called dead\n{told}");
    Ok(format!("{told}\n{figures}"))
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn bytes(n: u64) -> f64 {
    n as f64
}

async fn used(lab: &Lab) -> anyhow::Result<Vec<Used>> {
    let mut all = Vec::new();
    for host in lab.hosts() {
        all.push(Used { traffic: lab.mesh.traffic(&host.name).await?, cpu: host.cpu().unwrap_or_default() });
    }
    Ok(all)
}

/// How often any node has called another one down, and suspected it, so far.
pub(crate) async fn alarms(lab: &Lab) -> anyhow::Result<(usize, usize)> {
    let (mut downs, mut suspects) = (0, 0);
    for host in lab.hosts() {
        for event in host.client().node_events(0).await? {
            downs += usize::from(event.text.ends_with(" is Down"));
            suspects += usize::from(event.text.ends_with(" is Suspect"));
        }
    }
    Ok((downs, suspects))
}
