//! A blob from two hosts whose links carry half of what the receiver's does, beside one from one of them.

use swarm_proto::api::BlobView;

use super::*;

/// How long the leader may take to know who holds what.
const KNOWN: Duration = Duration::from_secs(30);

/// Gets a blob of `size` bytes from one holder and another one from two, each of whose links carries half of `rate`.
///
/// # Errors
/// A blob that does not come, or two holders that are less than `bound` times as fast as one.
pub async fn sources(lab: &mut Lab, size: u64, rate: &str, bound: Option<f64>) -> anyhow::Result<String> {
    let Cast { from: first, leader, others } = Cast::of(lab, 2).await?;
    let (second, to) = (&others[0], &others[1]);
    let of_one = put(lab, &first, size, 1).await?;
    let of_two = put(lab, &first, size, 2).await?;
    push(lab, &first, &leader, of_two, std::slice::from_ref(second)).await?;
    let slow = halved(rate)?;
    for (name, rate) in [(to, rate), (&first, &slow), (second, &slow)] {
        lab.mesh.run(&["rate", name, rate]).await?;
    }
    let (one, two) = (get(lab, to, of_one, 1).await?, get(lab, to, of_two, 2).await?);
    for name in [to, &first, second] {
        lab.mesh.run(&["rate", name, "off"]).await?;
    }
    let gain = one.as_secs_f64() / two.as_secs_f64();
    let told =
        format!("from one holder at {slow}: {:.2} s; from two: {:.2} s, {gain:.3} times as fast", one.as_secs_f64(), two.as_secs_f64());
    ensure!(bound.is_none_or(|bound| gain >= bound), "less than {bound:?}: {told}");
    Ok(told)
}

async fn get(lab: &Lab, to: &str, digest: Digest, holders: usize) -> anyhow::Result<Duration> {
    let client = lab.client(to)?;
    until("the leader knows who holds it", KNOWN, async || {
        let BlobView { holders: known, .. } = client.blob(digest).await.map_err(|problem| problem.to_string())?;
        if known.len() == holders { Ok(()) } else { Err(format!("{} hold it", known.len())) }
    })
    .await?;
    let began = Instant::now();
    let mut lines = client.fetch_blob(digest).await?;
    while let Some(line) = lines.next().await? {
        match line {
            BlobLine::Progress { .. } => {}
            BlobLine::Held { .. } => return Ok(began.elapsed()),
            BlobLine::Failed { node, problem } => return Err(problem).context(node),
        }
    }
    anyhow::bail!("the daemon of {to} ended the stream of answers")
}

/// Half of what `tc` would be told.
fn halved(rate: &str) -> anyhow::Result<String> {
    let unit = rate.trim_start_matches(|sign: char| sign.is_ascii_digit());
    let number: u64 = rate.trim_end_matches(unit).parse().with_context(|| format!("'{rate}' is no number and unit"))?;
    ensure!(number > 1, "'{rate}' cannot be halved");
    Ok(format!("{}{unit}", number / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_rate_keeps_its_unit() {
        assert_eq!(halved("60mbit").unwrap(), "30mbit");
        assert_eq!(halved("1000kbit").unwrap(), "500kbit");
        assert!(halved("fast").is_err() && halved("1gbit").is_err());
    }
}
