//! Power cuts under real daemons on real file systems, one host's or everybody's: what was acknowledged is there when the power is back.
//!
//! `SWARM_POWER_CUTS` says how many; `tests/run --long` makes 200.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use rustix::process::Signal;
use swarm_client::Client;
use swarm_proto::{
    Digest, JobId, Problem,
    api::{BlobLine, Phase, SubmitLine, SubmitRequest},
    ledger::TaskState,
};
use swarm_tests::{Chance, Hosts, Rack, ended, eventually, rounds, say, shell};

const MIB: u64 = 1 << 20;
const DISK: u64 = 256 * MIB;
const HOSTS: usize = 3;
/// Jobs under way at each host.
const WINDOW: usize = 12;
/// How long writers work until the power goes.
const WORK: (Duration, Duration) = (Duration::from_millis(150), Duration::from_millis(900));

/// What was said to a client; from then on it has to be true.
#[derive(Default)]
struct Said {
    chance: Option<Chance>,
    count: u64,
    jobs: BTreeMap<String, (JobId, Option<TaskState>)>,
    blobs: BTreeMap<Digest, Blob>,
}

struct Blob {
    data: Bytes,
    /// Where it is for good.
    at: BTreeSet<usize>,
    pinned: BTreeSet<usize>,
}

impl Said {
    fn key(&mut self, word: &str) -> String {
        self.count += 1;
        format!("{word}-{}", self.count)
    }

    fn chance(&mut self) -> &mut Chance {
        self.chance.get_or_insert_with(Chance::new)
    }
}

type Book = RefCell<Said>;

/// Submits one job after the other, some of which run a program, until the connection breaks.
async fn submit(client: &Client, book: &Book) -> Result<(), Problem> {
    let (mut sender, mut answers) = client.submit_stream().await?;
    let request = || {
        let mut said = book.borrow_mut();
        let key = said.key("job");
        let base = if said.chance().below(16) == 0 {
            shell(&format!("echo {key}"))
        } else {
            SubmitRequest { noop: true, ..SubmitRequest::default() }
        };
        SubmitRequest { id: key.clone(), key: Some(key), ..base }
    };
    for _ in 0..WINDOW {
        sender.send(&request()).await?;
    }
    while let Some(line) = answers.next().await? {
        match line {
            SubmitLine::Accepted { id, job, .. } => drop(book.borrow_mut().jobs.insert(id, (job, None))),
            SubmitLine::Ended { id, outcome } => {
                book.borrow_mut().jobs.get_mut(&id).expect("accepted before it ended").1 = Some(outcome.state);
                sender.send(&request()).await?;
            }
            SubmitLine::Refused { id, problem } => panic!("{id}: {problem}"),
            SubmitLine::Progress { .. } => {}
        }
    }
    Ok(())
}

/// Puts one blob after the other, pins some and pushes some to everybody.
async fn put(client: &Client, n: usize, book: &Book) -> Result<(), Problem> {
    loop {
        let (data, choice) = {
            let mut said = book.borrow_mut();
            let chance = said.chance();
            let most = *chance.one_of(&[100, 70_000, MIB + 70_000, 3 * MIB]);
            let len = usize::try_from(chance.below(most)).expect("short");
            (Bytes::from(chance.bytes(len)), chance.below(4))
        };
        let digest = client.put_bytes(data.clone(), false).await?.digest;
        book.borrow_mut().blobs.entry(digest).or_insert_with(|| Blob { data, at: BTreeSet::new(), pinned: BTreeSet::new() }).at.insert(n);
        if choice == 0 {
            client.pin_blob(digest, true).await?;
            book.borrow_mut().blobs.get_mut(&digest).expect("it was put").pinned.insert(n);
        } else if choice == 1 {
            let mut lines = client.push_blob(digest, &["all".to_owned()]).await?;
            while let Some(line) = lines.next().await? {
                if let BlobLine::Held { node } = line {
                    let at = (0..HOSTS).find(|n| node == format!("host{}", n + 1)).expect("one of the hosts");
                    book.borrow_mut().blobs.get_mut(&digest).expect("it was put").at.insert(at);
                }
            }
        }
    }
}

struct Scene {
    rack: Rack,
    hosts: Hosts,
    clients: Vec<Client>,
    book: Book,
}

impl Scene {
    async fn start() -> Option<Self> {
        let mut hosts = Hosts::prepare(HOSTS, |config| config.log.level = "info,openraft=warn".into());
        let at: Vec<_> = hosts.list.iter().map(|host| host.state.as_path()).collect();
        let rack = Rack::mount(hosts.dir(), &at, DISK)?;
        for host in &mut hosts.list {
            host.run();
        }
        for host in &hosts.list {
            host.answers().await;
        }
        hosts.unite().await;
        let clients: Vec<Client> = hosts.list.iter().map(|host| host.client()).collect();
        let mut scene = Self { rack, hosts, clients, book: Book::default() };
        for n in 0..HOSTS {
            scene.votes(n, "at the beginning").await;
        }
        Some(scene)
    }

    /// A host is a voter that is ready.
    async fn votes(&mut self, n: usize, when: &str) {
        let (host, client) = (&mut self.hosts.list[n], &self.clients[n]);
        eventually(&format!("host{} is a voter, {when}", n + 1), async || {
            assert_eq!(host.ended(), None, "{when}: {}", host.log());
            let status = client.status().await.ok()?;
            assert_ne!(status.phase, Phase::Damaged, "{when}: {}", status.trouble);
            (status.phase == Phase::Ready && status.is_voter && status.leader.is_some()).then_some(())
        })
        .await;
    }

    /// Everybody writes at everybody for a while.
    async fn work(&self) {
        let span = self.book.borrow_mut().chance().span(WORK.0, WORK.1);
        let one = async |n: usize| {
            loop {
                // a leader that is found again may break a stream
                let broke = tokio::select! {
                    broke = submit(&self.clients[n], &self.book) => broke,
                    broke = put(&self.clients[n], n, &self.book) => broke,
                };
                if let Err(problem) = broke {
                    say(&format!("a writer begins anew: {problem}"));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = async { tokio::join!(one(0), one(1), one(2)) } => {}
            () = tokio::time::sleep(span) => {}
        }
    }

    async fn round(&mut self, round: u64) {
        self.work().await;
        let victim = (round % 2 == 1).then(|| {
            let n = self.book.borrow_mut().chance().below(HOSTS as u64);
            usize::try_from(n).expect("an index")
        });
        let told = victim.map_or_else(|| format!("round {round}, everybody"), |n| format!("round {round}, host{}", n + 1));
        match victim {
            Some(n) => {
                // whatever it does after this moment it must not tell the others, who go on
                rustix::process::kill_process(self.hosts.list[n].pid(), Signal::STOP).expect("it is there");
                self.rack.freeze();
                self.hosts.list[n].kill_all();
                self.rack.restore_one(n).await;
                self.hosts.list[n].run();
            }
            None => {
                self.rack.freeze();
                self.hosts.list.iter_mut().for_each(|host| host.kill_all());
                self.rack.restore_all().await;
                self.hosts.list.iter_mut().for_each(|host| host.run());
            }
        }
        for n in 0..HOSTS {
            self.votes(n, &told).await;
        }
        self.check_jobs(&told).await;
        for n in 0..HOSTS {
            self.check_blobs(n, &told).await;
        }
        for host in &self.hosts.list {
            let log = host.log();
            let bad = log.lines().find(|line| line.contains(" ERROR ") || line.contains("damaged") || line.contains("changed on the disk"));
            assert_eq!(bad, None, "{told}: {}", host.config.display());
        }
        let mut said = self.book.borrow_mut();
        say(&format!("{told}: {} jobs, {} blobs", said.jobs.len(), said.blobs.len()));
        said.jobs.clear();
        said.blobs.clear();
    }

    /// Each acknowledged job is known, ended as it was said to, or ends well; its key makes no second one.
    async fn check_jobs(&self, told: &str) {
        let jobs = self.book.borrow().jobs.clone();
        for (at, (key, (job, state))) in jobs.iter().enumerate() {
            let client = &self.clients[at % HOSTS];
            let view = eventually("somebody leads", async || match client.job(*job).await {
                Err(problem) if problem.code == swarm_proto::Code::NotFound => panic!("{told}: {job} of {key} is lost"),
                view => view.ok(),
            })
            .await;
            let view = match state {
                Some(_) => view,
                None => ended(client, *job).await,
            };
            assert_eq!(view.state, Some(TaskState::Succeeded), "{told}: {job} of {key} was said to be {state:?}");
            if at % 20 == 0 {
                let again = SubmitRequest { key: Some(key.clone()), noop: true, ..SubmitRequest::default() };
                match client.submit(&again).await {
                    Ok(accepted) => assert_eq!((accepted.job, accepted.is_new), (*job, false), "{told}: {key}"),
                    Err(problem) => assert_eq!(problem.code, swarm_proto::Code::KeyConflict, "{told}: {key} ran a program: {problem}"),
                }
            }
        }
    }

    /// What was said to be for good at a host is there, whole, without help from others.
    async fn check_blobs(&self, n: usize, told: &str) {
        let client = &self.clients[n];
        let here: BTreeMap<_, _> = client.store().await.expect("it answers").blobs.into_iter().map(|blob| (blob.digest, blob)).collect();
        let mine: Vec<(Digest, Bytes, bool)> = {
            let said = self.book.borrow();
            let mine = said.blobs.iter().filter(|(_, blob)| blob.at.contains(&n));
            mine.map(|(digest, blob)| (*digest, blob.data.clone(), blob.pinned.contains(&n))).collect()
        };
        for (digest, data, is_pinned) in mine {
            let told = format!("{told}: {digest} of {} bytes at host{}", data.len(), n + 1);
            let held = here.get(&digest).unwrap_or_else(|| panic!("{told} is lost"));
            assert_eq!(held.size, data.len() as u64, "{told}");
            assert!(!is_pinned || held.pins.contains(&"hand".to_owned()), "{told} is pinned no more");
            let verified = client.verify_blob(digest).await.expect("it is there");
            assert!(verified.is_sound && verified.damaged == 0, "{told}: {verified:?}");
            if is_pinned {
                client.pin_blob(digest, false).await.expect("it is there");
            }
        }
        client.collect_blobs(0).await.expect("it answers");
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_power_cut() {
    let Some(mut scene) = Scene::start().await else { return };
    for round in 0..rounds("SWARM_POWER_CUTS", 10) {
        scene.round(round).await;
    }
}
