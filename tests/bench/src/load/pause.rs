//! How long an acknowledgement takes while snapshots are made.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::ensure;
use swarm_client::Client;

use super::stream::paced;

/// Submissions a second: few enough that none waits for another one.
const PER_S: f64 = 2_000.0;
/// Snapshots to be seen. One is due after 50,000 entries.
const SNAPSHOTS: usize = 2;
/// How long to wait for them.
const PATIENCE: Duration = Duration::from_secs(400);
/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(10);
/// Before a snapshot is written it is encoded.
const BEFORE: f64 = 1.0;

/// The longest acknowledgements, in milliseconds.
pub(super) struct Pauses {
    /// Of those that were due in the second before a snapshot was written, for each snapshot.
    pub(super) beside: Vec<f64>,
    /// Of those that were due in any other second, for each second.
    pub(super) otherwise: Vec<f64>,
}

/// Submits until some snapshots were written, as the daemon's log says.
pub(super) async fn pauses(client: &Client, log: PathBuf) -> anyhow::Result<Pauses> {
    let began = Instant::now();
    let watching = tokio::spawn(async move {
        let count = |text: String| text.lines().filter(|line| line.contains("snapshot written")).count();
        let count = async || tokio::fs::read_to_string(&log).await.map(count).unwrap_or_default();
        let (before, mut at) = (count().await, Vec::new());
        while at.len() < SNAPSHOTS && began.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK).await;
            at.resize(count().await - before, began.elapsed().as_secs_f64());
        }
        at
    });
    let watched = watching.abort_handle();
    let took = paced(client, PER_S, move || !watched.is_finished()).await?.acknowledged_ms;
    let written = watching.await?;
    ensure!(written.len() >= SNAPSHOTS, "in {} s {} snapshots were written", PATIENCE.as_secs(), written.len());
    let (mut beside, mut otherwise) = (vec![0.0; written.len()], BTreeMap::new());
    for (id, took) in (0u32..).zip(took) {
        let due = f64::from(id) / PER_S;
        let longest: &mut f64 = match written.iter().position(|at| (at - BEFORE..*at).contains(&due)) {
            Some(snapshot) => &mut beside[snapshot],
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few hundred")]
            None => otherwise.entry(due as u32).or_default(),
        };
        *longest = longest.max(took);
    }
    Ok(Pauses { beside, otherwise: otherwise.into_values().collect() })
}
