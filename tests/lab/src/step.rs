//! What goes wrong, one thing a step. Each step waits until its fault has shown, and the swarm went on where it promises to.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use swarm_proto::api::{Health, SubmitRequest};
use tokio::time::Instant;

use crate::{lab::Lab, load::Load, record::Figures, until};

/// Acknowledgements a second, all hosts together.
const RATE: u32 = 50;
/// Acknowledgements that show that the swarm goes on.
const SHOWN: usize = 100;
/// While a majority of voters can reach each other, a leader exists within this.
const LEADER: Duration = Duration::from_secs(10);
/// How long a fault that only makes things slow is looked at, in acknowledgements.
const WEATHER: usize = 600;
/// How often a link that comes and goes does so.
const FLAPS: usize = 6;
/// Out of sight, whether or not it had time to be declared dead.
const MISSED: &[Health] = &[Health::Suspect, Health::Down];

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Step {
    /// Nothing goes wrong: all hosts are members, and a task runs on each.
    Form,
    /// Two fifths of the hosts, the leader not among them, are cut off.
    Minority,
    /// The leader is with the two fifths that are cut off.
    Majority,
    /// The leader alone is cut off.
    Leader,
    /// What the leader sends is lost; it hears everybody.
    Mute,
    /// What is sent to the leader is lost; everybody hears it.
    Deaf,
    /// Two halves that do not reach each other, and one voter that reaches both.
    Bridge,
    /// A voter's link comes and goes.
    Flapping,
    /// A fifth of all packets is lost.
    Loss20,
    /// Three tenths of all packets are lost.
    Loss30,
    /// Each packet takes 300 ms.
    Slow,
    /// A voter's host breaks for good, another one comes.
    Replaced,
    /// A voter's address on the mesh changes.
    Moved,
    /// No name can be looked up, and a daemon starts meanwhile.
    Nameless,
    /// No host reaches any other, and a daemon is started again meanwhile.
    Dark,
}

/// Who plays which part.
struct Cast {
    leader: String,
    /// The other voters.
    voters: Vec<String>,
    /// All that do not vote.
    workers: Vec<String>,
}

impl Cast {
    async fn of(lab: &mut Lab) -> anyhow::Result<Self> {
        let running = lab.running();
        let leader = lab.leader(&running[0]).await.map_err(anyhow::Error::msg)?;
        let all = lab.voters(&running[0]).await?;
        let workers = running.into_iter().filter(|host| !all.contains(host)).collect();
        let voters = all.into_iter().filter(|host| *host != leader).collect();
        Ok(Self { leader, voters, workers })
    }

    /// Two fifths of the hosts, with `first` and then as many voters as leave a majority elsewhere.
    fn minority(&self, first: Option<&String>) -> Vec<String> {
        let hosts = 1 + self.voters.len() + self.workers.len();
        let with_vote = (1 + self.voters.len()).div_ceil(2) - 1;
        let voters = self.voters.iter().take(with_vote - usize::from(first.is_some()).min(with_vote));
        first.into_iter().chain(voters).chain(&self.workers).take(2 * hosts / 5).cloned().collect()
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        [&self.leader].into_iter().chain(&self.voters).chain(&self.workers)
    }

    fn but(&self, some: &[String]) -> Vec<String> {
        self.all().filter(|host| !some.contains(host)).cloned().collect()
    }
}

impl Step {
    /// Its name on the command line.
    pub fn word(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Does it, under load, and judges.
    ///
    /// # Errors
    /// What did not come true.
    pub async fn run(self, lab: &mut Lab) -> anyhow::Result<Figures> {
        lab.whole().await?;
        let everybody = lab.running();
        let mut load = Load::start(lab, RATE)?;
        load.accepted(&everybody, SHOWN).await?;
        self.fault(lab, &mut load).await.with_context(|| format!("while {} was on", self.word()))?;
        lab.mesh.run(&["heal"]).await?;
        lab.whole().await.context("after the fault was over")?;
        load.accepted(&lab.running(), SHOWN).await?;
        crate::judge(lab, load).await
    }

    async fn fault(self, lab: &mut Lab, load: &mut Load) -> anyhow::Result<()> {
        let cast = Cast::of(lab).await?;
        match self {
            Self::Form => everywhere(lab).await,
            Self::Minority => {
                let away = cast.minority(None);
                lab.mesh.run(&["partition", &away.join(",")]).await?;
                goes_on(load, &cast.but(&away)).await?;
                lab.until_seen(&cast.leader, &away[0], &[Health::Down]).await
            }
            Self::Majority => cut_leader(lab, load, &cast, &cast.minority(Some(&cast.leader))).await,
            Self::Leader => cut_leader(lab, load, &cast, std::slice::from_ref(&cast.leader)).await,
            Self::Mute => one_way(lab, load, &cast, true).await,
            Self::Deaf => one_way(lab, load, &cast, false).await,
            Self::Bridge => bridge(lab, load, &cast).await,
            Self::Flapping => flapping(lab, load, &cast).await,
            // a packet crosses two links: what is lost on both adds up to the figure
            Self::Loss20 => weather(lab, load, &["loss", "all", "10.56"]).await,
            Self::Loss30 => weather(lab, load, &["loss", "all", "16.33"]).await,
            Self::Slow => weather(lab, load, &["delay", "all", "150"]).await,
            Self::Replaced => replaced(lab, load, &cast).await,
            Self::Moved => moved(lab, load, &cast).await,
            Self::Nameless => nameless(lab, load, &cast).await,
            Self::Dark => dark(lab, load, &cast).await,
        }
    }
}

/// Work is accepted at these hosts, the first of it within the time in which a leader is promised.
async fn goes_on(load: &Load, hosts: &[String]) -> anyhow::Result<()> {
    let first = load.accepted(hosts, SHOWN).await?;
    ensure!(first <= LEADER, "nothing was accepted for {first:.1?} where a majority was");
    Ok(())
}

/// A task runs on every host.
async fn everywhere(lab: &mut Lab) -> anyhow::Result<()> {
    let hosts = lab.running();
    let client = lab.client(&hosts[0])?;
    for host in &hosts {
        let argv = vec!["hostname".into()];
        let request = SubmitRequest { argv, cores: Some(0.1), labels: [("host".into(), host.clone())].into(), ..SubmitRequest::default() };
        let job = client.submit(&request).await?.job;
        let view = client.wait_job(job, lab.preset().patience()).await?;
        ensure!(view.state == Some(swarm_proto::ledger::TaskState::Succeeded), "the task of {host}: {:?}", view.state);
        let said = client.result(swarm_proto::TaskId { job, index: 0 }).await?;
        ensure!(String::from_utf8_lossy(&said).trim() == host, "the task of {host} ran on {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

async fn cut_leader(lab: &mut Lab, load: &Load, cast: &Cast, away: &[String]) -> anyhow::Result<()> {
    lab.mesh.run(&["partition", &away.join(",")]).await?;
    let rest = cast.but(away);
    another_leads(lab, load, cast, &rest).await?;
    lab.until_seen(&rest[0], &cast.leader, &[Health::Down]).await
}

/// Soon after now, another host leads and work is accepted.
async fn another_leads(lab: &mut Lab, load: &Load, cast: &Cast, rest: &[String]) -> anyhow::Result<()> {
    let since = Instant::now();
    until("another leader", lab.preset().patience(), async || {
        let leader = lab.leader(&rest[0]).await?;
        if leader == cast.leader { Err(format!("{leader} leads")) } else { Ok(()) }
    })
    .await?;
    let took = since.elapsed();
    ensure!(took <= LEADER, "the next leader took {took:.1?}");
    load.accepted(rest, SHOWN).await.map(drop)
}

async fn one_way(lab: &mut Lab, load: &Load, cast: &Cast, is_mute: bool) -> anyhow::Result<()> {
    let rest = cast.but(std::slice::from_ref(&cast.leader));
    let others = rest.join(",");
    let (from, to) = if is_mute { (cast.leader.as_str(), others.as_str()) } else { (others.as_str(), cast.leader.as_str()) };
    lab.mesh.run(&["block", from, to, "--oneway"]).await?;
    another_leads(lab, load, cast, &rest).await
}

async fn bridge(lab: &mut Lab, load: &Load, cast: &Cast) -> anyhow::Result<()> {
    // the leader on one side; one voter sees both; the other voters and half of the rest beyond it
    let (middle, beyond) = cast.voters.split_first().context("a bridge needs three voters")?;
    let half = cast.workers.len() / 2;
    let side = [std::slice::from_ref(&cast.leader), &cast.workers[..half]].concat();
    let other = [beyond, &cast.workers[half..]].concat();
    lab.mesh.run(&["block", &side.join(","), &other.join(",")]).await?;
    goes_on(load, std::slice::from_ref(middle)).await
}

async fn flapping(lab: &mut Lab, load: &Load, cast: &Cast) -> anyhow::Result<()> {
    let host = cast.voters.first().context("there is no voter but the leader")?;
    for _ in 0..FLAPS {
        lab.mesh.run(&["partition", host]).await?;
        lab.until_seen(&cast.workers[0], host, MISSED).await?;
        lab.mesh.run(&["heal"]).await?;
        lab.until_seen(&cast.workers[0], host, &[Health::Alive]).await?;
    }
    goes_on(load, &cast.but(std::slice::from_ref(host))).await
}

async fn weather(lab: &mut Lab, load: &Load, fault: &[&str]) -> anyhow::Result<()> {
    lab.mesh.run(fault).await?;
    load.accepted(&lab.running(), WEATHER).await.map(drop)
}

async fn replaced(lab: &mut Lab, load: &mut Load, cast: &Cast) -> anyhow::Result<()> {
    let host = cast.voters.first().context("there is no voter but the leader")?;
    lab.remove(host).await?;
    load.move_lane(lab, host, &cast.workers[0])?;
    lab.until_seen(&cast.leader, host, &[Health::Down]).await?;
    lab.whole().await.context("without it")?;
    let new = lab.add().await?;
    lab.whole().await.with_context(|| format!("with {new}"))
}

async fn moved(lab: &mut Lab, load: &Load, cast: &Cast) -> anyhow::Result<()> {
    let host = cast.voters.first().context("there is no voter but the leader")?;
    let address = lab.free_address().await?;
    lab.readdress(host, address).await?;
    goes_on(load, &cast.but(std::slice::from_ref(host))).await?;
    until(&format!("{} knows {host} at {address}", cast.leader), lab.preset().patience(), async || {
        let seen = lab.status(&cast.leader).await?;
        let peer = seen.peers.iter().find(|peer| peer.name == *host).ok_or_else(|| format!("{host} is no peer"))?;
        if peer.addr.ip() == address { Ok(()) } else { Err(format!("it is known at {}", peer.addr)) }
    })
    .await?;
    lab.whole().await.context("with the new address")
}

async fn nameless(lab: &mut Lab, load: &Load, cast: &Cast) -> anyhow::Result<()> {
    let host = cast.workers.first().context("every host votes")?;
    for how in ["dns=servfail", "dns=drop"] {
        lab.mesh.run(&["set", "all", how]).await?;
        lab.kill(host).await?;
        goes_on(load, &cast.but(std::slice::from_ref(host))).await?;
        lab.start(host)?;
        lab.whole().await.with_context(|| format!("with {how}"))?;
    }
    lab.mesh.run(&["set", "all", "dns=ok"]).await.map(drop)
}

async fn dark(lab: &mut Lab, load: &Load, cast: &Cast) -> anyhow::Result<()> {
    let hosts: Vec<String> = cast.all().cloned().collect();
    lab.mesh.run(&["partition", &hosts.join("|")]).await?;
    let host = cast.voters.first().context("there is no voter but the leader")?;
    lab.stop(host).await?;
    lab.start(host)?;
    // it is up and says so, though nobody can be reached
    until("the daemon answers", lab.preset().patience(), async || lab.status(host).await.map(drop)).await?;
    lab.until_seen(&cast.leader, host, MISSED).await?;
    lab.mesh.run(&["heal"]).await?;
    load.accepted(&hosts, SHOWN).await.map(drop)
}
