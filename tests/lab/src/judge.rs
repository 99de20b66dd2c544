//! The judgement at the end of each step.

use std::collections::BTreeMap;

use anyhow::ensure;
use swarm_client::JobsQuery;
use swarm_proto::{JobId, api::JobView, limits};

use crate::{
    lab::Lab,
    load::{Finished, Load},
    record::Figures,
};

/// Most faults that are told.
const TOLD: usize = 10;

/// Ends a load and judges: the swarm is whole with one leader, each answer fits what was asked and what the swarm has on record, the
/// witnesses show no attempt too many, and no daemon complained.
///
/// # Errors
/// Everything that is not so.
pub async fn judge(lab: &mut Lab, load: Load) -> anyhow::Result<Figures> {
    lab.whole().await?;
    let done = load.finish().await?;
    let jobs = jobs(lab, &done).await?;
    let mut faults = done.record.faults(&jobs, |n| done.witness(n));
    faults.extend(done.record.unseen().into_iter().map(|kind| format!("nothing was shown of {kind:?} jobs")));
    ensure!(faults.is_empty(), "{} faults: {}", faults.len(), faults.iter().take(TOLD).cloned().collect::<Vec<_>>().join("\n"));
    lab.quiet()?;
    Ok(done.record.figures())
}

/// What the swarm has on record, back to the first job of this load.
async fn jobs(lab: &Lab, done: &Finished) -> anyhow::Result<BTreeMap<JobId, JobView>> {
    let (client, oldest) = (lab.client(&lab.running()[0])?, done.record.oldest());
    let mut jobs = BTreeMap::new();
    let mut before = None;
    loop {
        let page = client.jobs(JobsQuery { before, limit: u32::try_from(limits::PAGE).ok(), open_only: false }).await?;
        before = page.last().map(|view| view.job);
        jobs.extend(page.into_iter().map(|view| (view.job, view)));
        if before.is_none() || before <= oldest {
            return Ok(jobs);
        }
    }
}
