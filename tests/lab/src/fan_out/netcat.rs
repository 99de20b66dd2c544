//! The same bytes by nc: to one host, to each of several at once, and through them in a chain.

use std::path::Path;

use tokio::{io::AsyncWriteExt as _, process::Command};

use super::*;

/// How long one way may take.
const PATIENCE: Duration = Duration::from_secs(600);
const PORT: u16 = 7999;

/// Pushes `size` bytes to `count` hosts, each link carrying `rate`, with nc and then as a blob.
///
/// # Errors
/// nc is not there, something does not come whole, or the blob takes more than `bound` times the chain of nc.
pub async fn beside_nc(lab: &mut Lab, count: usize, size: u64, rate: &str, bound: Option<f64>) -> anyhow::Result<String> {
    let Cast { from, leader, others } = Cast::of(lab, count).await?;
    let addresses = lab.mesh.addresses().await?;
    let place = |name: &String| addresses.get(name).map(ToString::to_string).with_context(|| format!("{name} has no address"));
    let to: Vec<(String, String)> = others[..count].iter().map(|name| Ok((name.clone(), place(name)?))).collect::<anyhow::Result<_>>()?;
    let dir = lab.dir().join("nc");
    tokio::fs::create_dir_all(&dir).await?;
    let file = dir.join("from");
    write(&file, size).await?;
    let measured = shaped(lab, rate, async |lab| {
        let one = star(lab, &from, &to[..1], &file, &dir).await?;
        let star = star(lab, &from, &to, &file, &dir).await?;
        let chain = chain(lab, &from, &to, &file, &dir).await?;
        let digest = put(lab, &from, size, 10).await?;
        let ours = push(lab, &from, &leader, digest, &others[..count]).await?.took;
        Ok([one, star, chain, ours].map(|took| took.as_secs_f64()))
    });
    let [one, star, chain, ours] = measured.await?;
    let ratio = ours / chain;
    let told = format!(
        "to {count}: nc to one {one:.2} s, nc to each {star:.2} s ({:.2} of it), a chain of nc {chain:.2} s ({:.3}), as a blob {ours:.2} s ({:.3}), {ratio:.3} of the chain",
        star / one,
        chain / one,
        ours / one,
    );
    ensure!(bound.is_none_or(|bound| ratio <= bound), "more than {bound:?}: {told}");
    Ok(told)
}

async fn write(file: &Path, size: u64) -> anyhow::Result<()> {
    let mut pieces = swarm_client::noise(9, size);
    let mut file = tokio::fs::File::create(file).await?;
    while let Some(piece) = pieces.recv().await {
        file.write_all(&piece?).await?;
    }
    Ok(file.sync_all().await?)
}

/// Sends it to each at once.
async fn star(lab: &Lab, from: &str, to: &[(String, String)], file: &Path, dir: &Path) -> anyhow::Result<Duration> {
    let takes = to.iter().map(|(name, _)| (name.as_str(), format!("nc -l -p {PORT} > {}", kept(dir, name))));
    let gives = to.iter().map(|(_, address)| (from, give(address, file)));
    all(lab, takes.chain(gives), file, to, dir).await
}

/// Each keeps what comes and gives it to the next one.
async fn chain(lab: &Lab, from: &str, to: &[(String, String)], file: &Path, dir: &Path) -> anyhow::Result<Duration> {
    let next = to.iter().skip(1).map(|(_, address)| Some(address)).chain([None]);
    let passes = to.iter().zip(next).map(|((name, _), next)| {
        let kept = kept(dir, name);
        let rest = next.map_or_else(|| format!("> {kept}"), |next| format!("| tee {kept} | ({})", knock(next, "")));
        (name.as_str(), format!("nc -l -p {PORT} {rest}"))
    });
    all(lab, passes.chain([(from, give(&to[0].1, file))]), file, to, dir).await
}

fn kept(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

fn give(address: &str, file: &Path) -> String {
    knock(address, &format!("< {}", file.display()))
}

/// Whoever listens may not do so yet. Nothing is read before somebody does.
fn knock(address: &str, from: &str) -> String {
    format!("until nc -N {address} {PORT} {from} 2>/dev/null; do sleep 0.01; done")
}

/// Does all of that at once; how long that takes, once what came is what was sent.
async fn all<'a>(
    lab: &Lab,
    lines: impl Iterator<Item = (&'a str, String)>,
    file: &Path,
    to: &[(String, String)],
    dir: &Path,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let shell = |(host, line): (&str, String)| lab.mesh.command(host, Path::new("sh")).args(["-c", &line]).kill_on_drop(true).spawn();
    let running = lines.map(shell).collect::<Result<Vec<_>, _>>()?;
    for mut child in running {
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await.context("nc does not end")??;
        ensure!(ended.success(), "nc: {ended}");
    }
    let took = began.elapsed();
    for (name, _) in to {
        let same = Command::new("cmp").arg(file).arg(dir.join(name)).status().await?;
        ensure!(same.success(), "what came to {name} is not what was sent");
    }
    Ok(took)
}
