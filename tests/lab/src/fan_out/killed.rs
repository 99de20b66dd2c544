//! A daemon of the chain is killed while a blob goes through it.

use std::collections::BTreeMap;

use super::*;

/// Pushes a blob to `count` hosts and kills the daemon of the one in the middle of the chain once it has half of it: how long it takes
/// until all others have it.
///
/// # Errors
/// A push that fails, or more than `bound` times one transfer.
pub async fn killed(lab: &mut Lab, count: usize, size: u64, rate: &str, bound: Option<f64>) -> anyhow::Result<String> {
    let Cast { from, leader, others } = Cast::of(lab, count).await?;
    let one = shaped(lab, rate, async |lab| {
        let digest = put(lab, &from, size, 1).await?;
        Ok(push(lab, &from, &leader, digest, &others[..1]).await?.took)
    });
    let one = one.await?;
    let digest = put(lab, &from, size, 2).await?;
    let before = lab.mesh.traffic(&from).await?;
    let (took, victim) = shaped(lab, rate, async |lab| until_others_have_it(lab, &from, digest, &others, size / 2).await).await?;
    let sent = lab.mesh.traffic(&from).await?.sent - before.sent;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (ratio, sent) = (took.as_secs_f64() / one.as_secs_f64(), sent as f64 / size as f64);
    let told = format!(
        "to {count}, {victim} killed half way: {:.2} s until the others have it, {ratio:.3} of one transfer ({:.2} s); the source sent {sent:.3} of the size",
        took.as_secs_f64(),
        one.as_secs_f64(),
    );
    ensure!(bound.is_none_or(|bound| ratio <= bound), "more than {bound:?} of one transfer: {told}");
    Ok(told)
}

async fn until_others_have_it(lab: &mut Lab, from: &str, digest: Digest, to: &[String], half: u64) -> anyhow::Result<(Duration, String)> {
    let began = Instant::now();
    let mut lines = lab.client(from)?.push_blob(digest, to).await?;
    let (mut held, mut victim, mut chain) = (0, None, BTreeMap::new());
    while held + 1 < to.len() {
        match lines.next().await?.context("the push ended before all had it")? {
            BlobLine::Progress { node, have, sources, .. } if victim.is_none() => {
                let giver = sources.into_iter().max_by_key(|source| source.bytes).filter(|source| source.bytes > 0);
                chain.extend(giver.map(|giver| (giver.node, node.clone())));
                if have >= half && middle(&chain, from, to.len()) == Some(&node) {
                    lab.kill(&node).await?;
                    victim = Some(node);
                }
            }
            BlobLine::Progress { .. } => {}
            BlobLine::Held { node } => {
                ensure!(Some(&node) != victim.as_ref(), "{node} had it before it was killed");
                held += 1;
            }
            BlobLine::Failed { node, .. } if Some(&node) == victim.as_ref() => {}
            BlobLine::Failed { node, problem } => return Err(problem).context(node),
        }
    }
    Ok((began.elapsed(), victim.context("whoever is in the middle of the chain was never half way")?))
}

/// Of a chain of that many, in which each gives to one other.
fn middle<'a>(chain: &'a BTreeMap<String, String>, from: &'a str, count: usize) -> Option<&'a String> {
    std::iter::successors(chain.get(from), |node| chain.get(node.as_str())).nth(count / 2)
}
