//! How long the leader's answers take while a blob fills a link.

use swarm_client::Client;

use super::*;
use crate::crowd::alarms;

/// How long they are looked at while nothing moves.
const IDLE: Duration = Duration::from_secs(5);
/// Between two round trips, and how many of them a figure is made of at least.
const PAUSE: Duration = Duration::from_millis(5);
const LEAST: usize = 200;

/// Pushes a blob of `size` bytes to one host, each link carrying `rate`, and asks the leader through both ends of it meanwhile.
///
/// # Errors
/// A push that fails, a member that is thought to be gone, or a 99th percentile that is more than `bound` times what it is when nothing
/// moves.
pub async fn control(lab: &mut Lab, size: u64, rate: &str, bound: Option<f64>) -> anyhow::Result<String> {
    let Cast { from, leader, others } = Cast::of(lab, 1).await?;
    let to = others[0].clone();
    let before = alarms(lab).await?;
    let measured = shaped(lab, rate, async |lab| {
        let ends = [("sender", lab.client(&from)?), ("receiver", lab.client(&to)?)];
        let mut idle = Vec::new();
        for (_, client) in &ends {
            let nothing = async {
                tokio::time::sleep(IDLE).await;
                Ok(())
            };
            idle.push(until_done(client, nothing).await?);
        }
        let mut told = Vec::new();
        for (round, ((end, client), idle)) in ends.iter().zip(idle).enumerate() {
            let digest = put(lab, &from, size, 1 + round as u64).await?;
            let moved = async { push(lab, &from, &leader, digest, std::slice::from_ref(&to)).await.map(drop) };
            told.push((*end, idle, until_done(client, moved).await?));
        }
        Ok(told)
    });
    let measured = measured.await?;
    ensure!(alarms(lab).await? == before, "a member was suspected while its link was full");
    let mut lines = Vec::new();
    let mut worst: f64 = 0.0;
    for (end, idle, busy) in measured {
        let ratio = busy.p99() / idle.p99();
        worst = worst.max(ratio);
        lines.push(format!(
            "through the {end}: p50 {:.2} ms, p99 {:.2} ms idle; p50 {:.2} ms, p99 {:.2} ms while its link is full, {ratio:.2} of idle",
            idle.p50(),
            idle.p99(),
            busy.p50(),
            busy.p99(),
        ));
    }
    let told = lines.join("\n");
    ensure!(bound.is_none_or(|bound| worst <= bound), "more than {bound:?} of idle: {told}");
    Ok(told)
}

/// Round trips in milliseconds, ascending.
struct Trips(Vec<f64>);

impl Trips {
    fn p50(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    fn p99(&self) -> f64 {
        self.0[self.0.len() * 99 / 100]
    }
}

async fn until_done(client: &Client, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Trips> {
    let mut took = Vec::new();
    tokio::pin!(work);
    loop {
        let trip = async {
            tokio::time::sleep(PAUSE).await;
            let began = Instant::now();
            client.stats().await?;
            anyhow::Ok(began.elapsed().as_secs_f64() * 1e3)
        };
        tokio::select! {
            biased;
            done = &mut work => {
                done?;
                break;
            }
            trip = trip => took.push(trip?),
        }
    }
    ensure!(took.len() >= LEAST, "only {} round trips fit into it: --size with more", took.len());
    took.sort_by(f64::total_cmp);
    Ok(Trips(took))
}
