//! One blob to many hosts, over links of a given rate: how long it takes beside one transfer, and who sends how much.

mod control;
mod killed;
mod netcat;
mod sources;

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, ensure};
use swarm_client::BlobLines;
use swarm_proto::{Digest, api::BlobLine};
use tokio::time::Instant;

pub use self::{control::control, killed::killed, netcat::beside_nc, sources::sources};
use crate::{lab::Lab, until};

/// What one push has cost.
struct Cost {
    took: Duration,
    /// Bytes that the host which pushes has sent, and what the leader has sent and received.
    sent: u64,
    leader: u64,
}

/// Who does what: one host pushes, one leads and carries nothing, the others get it.
struct Cast {
    from: String,
    leader: String,
    others: Vec<String>,
}

impl Cast {
    /// Once the swarm is whole.
    async fn of(lab: &mut Lab, least: usize) -> anyhow::Result<Self> {
        lab.whole().await?;
        let names = lab.running();
        let leader = lab.client(&names[0])?.leader().await?.name;
        let mut others: Vec<String> = names.into_iter().filter(|name| *name != leader).collect();
        ensure!(others.len() > least, "there are {} hosts besides the leader", others.len());
        let from = others.remove(0);
        Ok(Self { from, leader, others })
    }
}

/// Does it while the link of each host carries `rate` in each direction.
async fn shaped<T>(lab: &mut Lab, rate: &str, work: impl AsyncFnOnce(&mut Lab) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let names = lab.running();
    for name in &names {
        lab.mesh.run(&["rate", name, rate]).await?;
    }
    let done = work(lab).await;
    for name in &names {
        lab.mesh.run(&["rate", name, "off"]).await?;
    }
    done
}

/// To how many a blob is pushed, one after the other.
pub const ROUNDS: [usize; 4] = [1, 3, 8, 16];

/// Pushes blobs of `size` bytes from one host to so many of the others, as far as there are so many, but never to the leader, each link
/// carrying `rate` (as `tc` writes it, such as 400mbit) in each direction.
///
/// # Errors
/// A push that fails, or that has the leader carry some of it, or the source send it more often than about once.
pub async fn fan_out(lab: &mut Lab, size: u64, rate: &str, counts: &[usize]) -> anyhow::Result<String> {
    let Cast { from, leader, others } = Cast::of(lab, 1).await?;
    shaped(lab, rate, async |lab| rounds(lab, size, counts, &from, &leader, &others).await).await
}

async fn rounds(lab: &Lab, size: u64, counts: &[usize], from: &str, leader: &str, others: &[String]) -> anyhow::Result<String> {
    let mut told = String::new();
    let mut one = None;
    for (round, count) in counts.iter().copied().filter(|count| *count <= others.len()).enumerate() {
        let digest = put(lab, from, size, round as u64).await?;
        let cost = push(lab, from, leader, digest, &others[..count]).await?;
        ensure!(cost.leader < size / 20, "the leader's interface carried {} bytes of a blob of {size}", cost.leader);
        ensure!(cost.sent < size + size / 4, "the source's interface sent {} bytes of a blob of {size}", cost.sent);
        let first = *one.get_or_insert(cost.took);
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let _ = writeln!(
            told,
            "to {count:2}: {:6.2} s, {:.3} of one transfer; the source sent {:.3} of the size, {:.0} Mbit/s; the leader carried {} bytes",
            cost.took.as_secs_f64(),
            cost.took.as_secs_f64() / first.as_secs_f64(),
            cost.sent as f64 / size as f64,
            size as f64 * 8.0 / cost.took.as_secs_f64() / 1e6,
            cost.leader
        );
    }
    Ok(told.trim_end().to_owned())
}

/// Bytes of their own for each round.
async fn put(lab: &Lab, host: &str, size: u64, round: u64) -> anyhow::Result<Digest> {
    Ok(lab.client(host)?.put_blob(Some(size), false, swarm_client::noise(round, size)).await?.digest)
}

async fn push(lab: &Lab, from: &str, leader: &str, digest: Digest, to: &[String]) -> anyhow::Result<Cost> {
    let (source, desk) = (lab.mesh.traffic(from).await?, lab.mesh.traffic(leader).await?);
    let began = Instant::now();
    let mut lines = lab.client(from)?.push_blob(digest, to).await?;
    let mut held = 0;
    while let Some(line) = lines.next().await? {
        match line {
            BlobLine::Progress { .. } => {}
            BlobLine::Held { .. } => held += 1,
            BlobLine::Failed { node, problem } => return Err(problem).context(node),
        }
    }
    let took = began.elapsed();
    ensure!(held == to.len(), "{held} of {} have it", to.len());
    let (source_after, desk_after) = (lab.mesh.traffic(from).await?, lab.mesh.traffic(leader).await?);
    let carried = (desk_after.sent - desk.sent) + (desk_after.received - desk.received);
    Ok(Cost { took, sent: source_after.sent - source.sent, leader: carried })
}

/// Bytes of a blob that something happens to on its way, what each link carries meanwhile, and how much of it is somewhere when it does.
const SPREAD: u64 = 48 << 20;
const SPREAD_RATE: &str = "100mbit";
const SOME: u64 = SPREAD / 6;

/// A blob that is on its way from one host to all others.
pub(crate) struct Spread {
    from: String,
    digest: Digest,
}

impl Spread {
    /// Pushes it, until some of it is somewhere. Each link carries little until everything heals.
    ///
    /// # Errors
    /// It did not begin.
    pub(crate) async fn begin(lab: &Lab, from: &str) -> anyhow::Result<Self> {
        lab.mesh.run(&["rate", "all", SPREAD_RATE]).await?;
        let seed = u64::from(std::process::id());
        let spread = Self { from: from.to_owned(), digest: put(lab, from, SPREAD, seed).await? };
        let mut lines = spread.push(lab).await?;
        while let Some(line) = lines.next().await? {
            match line {
                // what was asked for goes on though nobody listens any more
                BlobLine::Progress { have, .. } if have >= SOME => return Ok(spread),
                BlobLine::Progress { .. } | BlobLine::Held { .. } => {}
                BlobLine::Failed { node, problem } => return Err(problem).context(node),
            }
        }
        anyhow::bail!("it was everywhere before anything could happen to it")
    }

    async fn push(&self, lab: &Lab) -> anyhow::Result<BlobLines> {
        Ok(lab.client(&self.from)?.push_blob(self.digest, &["all".into()]).await?)
    }

    /// Asks again until every host that runs has it, and has each read it again.
    ///
    /// # Errors
    /// Who does not have it in time, or has something else.
    pub(crate) async fn everywhere(&self, lab: &Lab) -> anyhow::Result<()> {
        until("the blob is everywhere", lab.preset().patience(), async || {
            let mut lines = self.push(lab).await.map_err(|e| e.to_string())?;
            while let Some(line) = lines.next().await.map_err(|problem| problem.to_string())? {
                if let BlobLine::Failed { node, problem } = line {
                    return Err(format!("{node}: {problem}"));
                }
            }
            Ok(())
        })
        .await?;
        for host in lab.running() {
            let verified = lab.client(&host)?.verify_blob(self.digest).await.with_context(|| host.clone())?;
            ensure!(verified.damaged == 0, "{host} had {} bad segments", verified.damaged);
        }
        Ok(())
    }
}
