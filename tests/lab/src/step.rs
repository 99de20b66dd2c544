//! What goes wrong, one thing a step. Each step waits until its fault has shown, and the swarm went on where it promises to.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, ensure};
use swarm_proto::api::{Health, Origin, SubmitRequest};
use tokio::time::Instant;

use crate::{fan_out, finding::Finding, lab::Lab, load::Load, record::Figures, until};

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
    /// Every host's address on the mesh changes, so that every record is wrong at once.
    Renumbered,
    /// A daemon is down while the others' addresses change, and is started again.
    Restarted,
    /// No name can be looked up, or only late, or wrongly, and a daemon starts meanwhile.
    Nameless,
    /// No host reaches any other, and a daemon is started again meanwhile, on a host whose mesh interface has no address.
    Dark,
    /// A blob is on its way to every host when half of them are cut off from the others.
    Torn,
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
            Self::Renumbered => renumbered(lab, &cast).await,
            Self::Restarted => restarted(lab, load, &cast).await,
            Self::Nameless => nameless(lab, load, &cast).await,
            Self::Dark => dark(lab, load, &cast).await,
            Self::Torn => torn(lab, &cast).await,
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
        let labels = [("host".into(), host.clone())].into();
        let key = Some(format!("everywhere-{}-{host}", std::process::id()));
        let request = SubmitRequest { argv, key, cores: Some(0.1), labels, ..SubmitRequest::default() };
        // with a key it may be asked again until it is known to be accepted
        let job = until(&format!("a task for {host} is accepted"), lab.preset().patience(), async || {
            client.submit(&request).await.map(|accepted| accepted.job).map_err(|problem| problem.to_string())
        })
        .await?;
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
    let before = (lab.node(host).await?, lab.voters(&cast.leader).await?);
    // nobody tells the daemon: it sees that its address is gone, and the others hear of the new one
    let address = readdress(lab, host).await?;
    goes_on(load, &cast.but(std::slice::from_ref(host))).await?;
    known_at(lab, &cast.leader, &[(host.clone(), address)]).await?;
    lab.whole().await.context("with the new address")?;
    let after = (lab.node(host).await?, lab.voters(&cast.leader).await?);
    ensure!(before == after, "the node and the voters were {before:?} before the move and {after:?} after it");
    Ok(())
}

async fn readdress(lab: &Lab, host: &str) -> anyhow::Result<IpAddr> {
    let address = lab.free_address().await?;
    lab.mesh.run(&["readdr", host, &address.to_string()]).await?;
    Ok(address)
}

/// Waits until `at` knows these hosts where they are.
async fn known_at(lab: &mut Lab, at: &str, hosts: &[(String, IpAddr)]) -> anyhow::Result<()> {
    until(&format!("{at} knows where the others are"), lab.preset().patience(), async || {
        let seen = lab.status(at).await?;
        for (host, address) in hosts.iter().filter(|(host, _)| host != at) {
            let peer = seen.peers.iter().find(|peer| peer.name == *host).ok_or_else(|| format!("{host} is no peer"))?;
            if peer.addr.ip() != *address {
                return Err(format!("{host} is at {address} and known at {}", peer.addr));
            }
        }
        Ok(())
    })
    .await
}

async fn renumbered(lab: &mut Lab, cast: &Cast) -> anyhow::Result<()> {
    let hosts: Vec<String> = cast.all().cloned().collect();
    // everybody has looked for the others a moment ago: an answer that outlives its truth would be one of these
    lab.mesh.run(&["partition", &hosts.join("|")]).await?;
    for host in &hosts {
        lab.looks(host).await?;
    }
    lab.mesh.run(&["heal"]).await?;
    lab.whole().await.context("before the move")?;
    let mut moved = Vec::new();
    for host in &hosts {
        moved.push((host.clone(), readdress(lab, host).await?));
    }
    lab.whole().await.context("with the new addresses")?;
    for host in &hosts {
        known_at(lab, host, &moved).await?;
    }
    Ok(())
}

async fn restarted(lab: &mut Lab, load: &Load, cast: &Cast) -> anyhow::Result<()> {
    // a member whose address somebody wrote down stays there, and is not the one that is started
    let stays = |host: &String| lab.finding().origin() == Origin::Seed && host == "h1";
    let host = cast.workers.iter().chain(&cast.voters).find(|host| !stays(host)).context("there is only the leader")?.clone();
    let rest = cast.but(std::slice::from_ref(&host));
    let movers: Vec<String> = rest.iter().filter(|host| !stays(host)).cloned().collect();
    lab.stop(&host).await?;
    let mut moved = Vec::new();
    for mover in movers {
        let address = readdress(lab, &mover).await?;
        moved.push((mover, address));
        // one at a time, as long as that takes: a majority is always there
        lab.whole().await.context("without the one that is down")?;
    }
    lab.mesh.run(&["partition", &host]).await?;
    lab.start(&host)?;
    lab.looks(&host).await?;
    lab.mesh.run(&["heal"]).await?;
    lab.whole().await.context("with the one that was down")?;
    known_at(lab, &host, &moved).await?;
    load.accepted(std::slice::from_ref(&host), SHOWN / 5).await.map(drop)
}

/// What is wrong with the names, and what a host that looks for them shows.
const NAMES: [(&[&[&str]], &str); 4] = [
    (&[&["set", "all", "dns=servfail"]], "h1 by dns: DNS"),
    (&[&["set", "all", "dns=drop"]], "h1 by dns: DNS does not answer"),
    (&[&["set", "all", "dns=late"]], ""),
    (
        &[&["set", "all", "dns=ok"], &["record", "h1", "127.0.0.1"], &["record", "h2", "100.64.77.7"], &["record", "h3", "100.64.0.1"]],
        "h1 by dns: it resolves to 127.0.0.1, which is this host",
    ),
];

async fn nameless(lab: &mut Lab, load: &Load, cast: &Cast) -> anyhow::Result<()> {
    ensure!(lab.finding() == Finding::Names, "only `--finding names` looks names up");
    let host = cast.workers.first().context("every host votes")?;
    let rest = cast.but(std::slice::from_ref(host));
    for (faults, shown) in NAMES {
        for fault in faults {
            lab.mesh.run(fault).await?;
        }
        let what = faults.last().map(|fault| fault.join(" ")).unwrap_or_default();
        goes_on(load, &rest).await?;
        // whoever reaches nobody looks, and says what comes of it
        lab.kill(host).await?;
        lab.mesh.run(&["partition", host]).await?;
        lab.start(host)?;
        if shown.is_empty() {
            lab.looks(host).await?;
        } else {
            until(&format!("{host} shows '{shown}' with {what}"), lab.preset().patience(), async || {
                let status = lab.shown(host).await?;
                if status.contains(shown) { Ok(()) } else { Err(status) }
            })
            .await?;
        }
        lab.mesh.run(&["heal"]).await?;
        lab.whole().await.with_context(|| format!("with {what}"))?;
    }
    for name in ["h1", "h2", "h3"] {
        lab.mesh.run(&["record", name, "auto"]).await?;
    }
    Ok(())
}

async fn dark(lab: &mut Lab, load: &Load, cast: &Cast) -> anyhow::Result<()> {
    let hosts: Vec<String> = cast.all().cloned().collect();
    let host = cast.voters.first().context("there is no voter but the leader")?;
    lab.mesh.run(&["partition", &hosts.join("|")]).await?;
    lab.mesh.run(&["link", host, "down"]).await?;
    lab.stop(host).await?;
    lab.start(host)?;
    // it is up and says so, though there is no mesh
    until("the daemon says what it waits for", lab.preset().patience(), async || {
        let status = lab.status(host).await?;
        if status.trouble.contains("mesh") { Ok(()) } else { Err(format!("{:?}: {}", status.phase, status.trouble)) }
    })
    .await?;
    lab.until_seen(&cast.leader, host, MISSED).await?;
    lab.mesh.run(&["heal"]).await?;
    goes_on(load, &cast.but(std::slice::from_ref(host))).await?;
    lab.mesh.run(&["link", host, "up"]).await?;
    load.accepted(std::slice::from_ref(host), SHOWN / 5).await.map(drop)
}

async fn torn(lab: &mut Lab, cast: &Cast) -> anyhow::Result<()> {
    // whoever pushes is with the leader and half of the others; the rest of them are beyond
    let (from, others) = cast.workers.split_first().context("every host votes")?;
    let others: Vec<String> = cast.voters.iter().chain(others).cloned().collect();
    let beyond = others.iter().step_by(2).cloned().collect::<Vec<_>>().join(",");
    let spread = fan_out::Spread::begin(lab, from).await?;
    lab.mesh.run(&["partition", &beyond]).await?;
    lab.until_seen(&cast.leader, &others[0], &[Health::Down]).await?;
    lab.mesh.run(&["heal"]).await?;
    lab.whole().await.context("in one piece")?;
    spread.everywhere(lab).await
}
