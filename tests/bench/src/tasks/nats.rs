//! NATS JetStream R3: three servers with their files on the disk, a work queue of three copies, two workers that pull, results on a
//! plain subject.
//!
//! ```text
//!   client --publish t.0--> TASKS (R3, file) --acknowledged--> client         worker 1, worker 2: pull, publish r.N, acknowledge
//!   client <----------------- r.N (not stored) ------------------------------ worker
//! ```
//! A publish is acknowledged when a majority of servers have written it; none has synced it (the servers do that every two minutes).
//! The client and each worker are threads with a connection of their own, to another server each.

mod link;

use std::{
    fs::File,
    net::IpAddr,
    path::Path,
    process::Stdio,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use self::link::{Link, Message};
use super::{Cpu, Figure, Measured, Stage, block_on, quantile};
use crate::beside::place::Running;

pub(super) const PROGRAM: &str = "nats-server";
const CLIENT_PORT: u16 = 4222;
const ROUTE_PORT: u16 = 6222;
/// How long the servers may take to be a cluster that takes streams.
const READY: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(2);
/// How long all tasks may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Publishes that may be unacknowledged.
const IN_FLIGHT: u64 = 1_000;
/// Tasks one at a time: some to warm up, then those that count.
const WARM: usize = 50;
const TRIPS: usize = 500;
/// Messages that a worker asks for at a time, and when it asks for more.
const PULL: usize = 500;
const PULL_MORE: usize = 250;
/// Bytes of a task and of its result. The first eight are its number.
const PAYLOAD: usize = 64;
/// Numbers of the tasks that go one at a time begin here.
const SINGLE: u64 = 1 << 40;

/// What a connection subscribes to, by the number it says.
const ACKNOWLEDGED: u64 = 1;
const RESULTS: u64 = 2;
const PULLED: u64 = 3;

pub(super) fn run(stage: &Stage) -> anyhow::Result<Measured> {
    let dir = stage.fresh("nats")?;
    let (hosts, servers) = stage.three(CLIENT_PORT, |hosts, n| start(stage, dir.path(), hosts, n))?;
    block_on(set_up(hosts[0]))??;
    for host in &hosts[1..] {
        work(*host)?;
    }
    let load = load(hosts[0], u64::from(stage.tasks), &servers);
    block_on(async { tokio::time::timeout(PATIENCE, load).await.context("not all tasks have ended") })??
}

fn start(stage: &Stage, dir: &Path, hosts: &[IpAddr], n: usize) -> anyhow::Result<Running> {
    let config = dir.join(format!("{n}.conf"));
    std::fs::write(&config, self::config(&dir.join(format!("store{n}")), hosts, n))?;
    let log = File::create(dir.join(format!("{n}.log")))?;
    let mut command = stage.place.leader.command(super::program(PROGRAM).context(PROGRAM)?);
    Running::start(command.arg("-c").arg(&config).stdout(Stdio::null()).stderr(log))
}

fn config(store: &Path, hosts: &[IpAddr], n: usize) -> String {
    let routes: Vec<String> = hosts.iter().map(|host| format!("\"nats://{host}:{ROUTE_PORT}\"")).collect();
    format!(
        "server_name: n{n}\nlisten: {0}:{CLIENT_PORT}\n\
         jetstream {{ store_dir: \"{1}\", max_file_store: 20GB, max_memory_store: 1GB }}\n\
         cluster {{ name: c, listen: {0}:{ROUTE_PORT}, routes: [{2}] }}\n",
        hosts[n],
        store.display(),
        routes.join(", ")
    )
}

/// Makes the stream and the consumer as soon as the servers are a cluster.
async fn set_up(host: IpAddr) -> anyhow::Result<()> {
    let stream = json!({"name": "TASKS", "subjects": ["t.>"], "retention": "workqueue", "storage": "file", "num_replicas": super::SERVERS});
    ask(host, "$JS.API.STREAM.CREATE.TASKS", &stream).await?;
    // nanoseconds
    let how = json!({"durable_name": "w", "ack_policy": "explicit", "ack_wait": 30_000_000_000_u64, "max_ack_pending": 20_000});
    ask(host, "$JS.API.CONSUMER.DURABLE.CREATE.TASKS.w", &json!({"stream_name": "TASKS", "config": how})).await
}

/// Asks until it is done; a cluster that has no leader yet does not.
async fn ask(host: IpAddr, subject: &str, what: &Value) -> anyhow::Result<()> {
    let mut link = Link::connect(host, CLIENT_PORT).await?;
    let give_up = Instant::now() + READY;
    // each time under another name: an answer may come late
    for time in 1.. {
        let inbox = format!("_asked.{time}");
        link.subscribe(&inbox, time);
        link.publish(subject, Some(&inbox), what.to_string().as_bytes());
        let why = match tokio::time::timeout(ANSWER, answer(&mut link, time)).await {
            Ok(answer) => match answer? {
                Some(answer) if answer.get("error").is_none() => return Ok(()),
                Some(answer) => answer["error"].to_string(),
                None => "nobody takes streams yet".into(),
            },
            Err(_) => "no answer".into(),
        };
        ensure!(Instant::now() < give_up, "{subject}: {why}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// What was answered to the question of that number; `None`: that there is nobody to answer it.
async fn answer(link: &mut Link, time: u64) -> anyhow::Result<Option<Value>> {
    loop {
        let message = link.next().await?;
        if message.sid() == time {
            return Ok(serde_json::from_slice(message.payload()).ok());
        }
    }
}

/// Starts a worker, which ends with its server. Returns when it has asked for work.
fn work(host: IpAddr) -> anyhow::Result<()> {
    let (tx, ready) = mpsc::channel();
    std::thread::spawn(move || block_on(worker(host, tx)));
    ready.recv().with_context(|| format!("a worker at {host} did not start"))
}

async fn worker(host: IpAddr, ready: mpsc::Sender<()>) -> anyhow::Result<()> {
    let mut link = Link::connect(host, CLIENT_PORT).await?;
    link.subscribe("_pulled", PULLED);
    let mut coming = PULL;
    link.publish("$JS.API.CONSUMER.MSG.NEXT.TASKS.w", Some("_pulled"), json!({"batch": PULL}).to_string().as_bytes());
    link.flush().await?;
    ready.send(())?;
    loop {
        let message = link.next().await?;
        let Some(reply) = message.reply().map(str::to_owned) else { continue };
        let (number, payload) = (number(message.payload())?, message.payload().to_owned());
        link.publish(&format!("r.{number}"), None, &payload);
        link.publish(&reply, None, b"+ACK");
        coming -= 1;
        if coming <= PULL_MORE {
            let more = json!({"batch": PULL - coming}).to_string();
            link.publish("$JS.API.CONSUMER.MSG.NEXT.TASKS.w", Some("_pulled"), more.as_bytes());
            coming = PULL;
        }
    }
}

async fn load(host: IpAddr, tasks: u64, servers: &[Running]) -> anyhow::Result<Measured> {
    let mut link = Link::connect(host, CLIENT_PORT).await?;
    link.subscribe("_acknowledged", ACKNOWLEDGED);
    link.subscribe("r.>", RESULTS);
    link.flush().await?;
    trips(&mut link, SINGLE, WARM).await?;
    let (mut acknowledged, mut ended) = trips(&mut link, SINGLE + WARM as u64, TRIPS).await?;
    let cpu = Cpu::start(servers);
    all(&mut link, tasks).await?;
    let spent = cpu.stop();
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let count = tasks as f64;
    Ok(vec![
        (Figure::NatsPerS, count / spent.seconds),
        (Figure::NatsCpu, spent.cpu * 1e6 / count),
        (Figure::NatsAcknowledged, quantile(&mut acknowledged, 0.5)),
        (Figure::NatsTrip, quantile(&mut ended, 0.5)),
        (Figure::NatsTripP99, quantile(&mut ended, 0.99)),
    ])
}

fn task(number: u64) -> [u8; PAYLOAD] {
    let mut payload = [0; PAYLOAD];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

fn number(payload: &[u8]) -> anyhow::Result<u64> {
    let first = payload.first_chunk().context("a message that is no task's")?;
    Ok(u64::from_le_bytes(*first))
}

/// Some tasks, each after the end of the one before it: seconds until each was acknowledged, and until it had a result too.
async fn trips(link: &mut Link, first: u64, count: usize) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (mut acks, mut ends) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for task_number in (first..).take(count) {
        let began = Instant::now();
        link.publish("t.0", Some("_acknowledged"), &task(task_number));
        let (mut is_acknowledged, mut has_ended) = (false, false);
        while !(is_acknowledged && has_ended) {
            let message = link.next().await?;
            if message.sid() == ACKNOWLEDGED {
                stored(&message)?;
                acks.push(began.elapsed().as_secs_f64());
                is_acknowledged = true;
            } else {
                has_ended |= number(message.payload())? == task_number;
            }
        }
        ends.push(began.elapsed().as_secs_f64());
    }
    Ok((acks, ends))
}

/// All tasks, until each has its result.
async fn all(link: &mut Link, tasks: u64) -> anyhow::Result<()> {
    let (mut published, mut acknowledged, mut ended) = (0, 0, 0);
    let mut has_ended = vec![false; usize::try_from(tasks)?];
    while ended < tasks || acknowledged < tasks {
        while published < tasks && published - acknowledged < IN_FLIGHT {
            link.publish("t.0", Some("_acknowledged"), &task(published));
            published += 1;
        }
        let message = link.next().await?;
        if message.sid() == ACKNOWLEDGED {
            stored(&message)?;
            acknowledged += 1;
        } else if let Some(it) = has_ended.get_mut(usize::try_from(number(message.payload())?)?)
            && !std::mem::replace(it, true)
        {
            ended += 1;
        }
    }
    Ok(())
}

/// Whether a publish was taken.
fn stored(message: &Message) -> anyhow::Result<()> {
    // `{"stream":"TASKS","seq":1}`, looked at and not read: this is the client's share of the figure
    if message.payload().starts_with(b"{\"stream\"") {
        return Ok(());
    }
    bail!("a publish was answered '{}'", String::from_utf8_lossy(message.payload()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_know_each_other() {
        let hosts: Vec<IpAddr> = ["127.90.0.1", "127.90.0.2"].map(|ip| ip.parse().unwrap()).into();
        let text = config(Path::new("/x"), &hosts, 1);
        let expected = [
            "server_name: n1",
            "listen: 127.90.0.2:4222",
            "jetstream { store_dir: \"/x\", max_file_store: 20GB, max_memory_store: 1GB }",
            "cluster { name: c, listen: 127.90.0.2:6222, routes: [\"nats://127.90.0.1:6222\", \"nats://127.90.0.2:6222\"] }",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_task_carries_its_number() {
        assert_eq!(number(&task(SINGLE + 7)).unwrap(), SINGLE + 7);
        assert!(number(b"short").is_err());
    }
}
