//! Voters of one process, connected without a network, on simulated disks.

mod figures;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use swarm_proto::{
    ClusterId, LogIndex, NodeId, RaftDir, Term, UnixMillis,
    ledger::{Applied, Batch, Command},
};
use tokio::time::{sleep, timeout};

use crate::{
    BoxFuture, Consensus, Disk, Fatal, Lanes, Peers, ProposeError, RaftTiming, Settings, Spec, StartError,
    link::{Links, memory::Net},
    raft_dir,
    testing::disk::SimDisk,
};

pub(crate) const LAN: RaftTiming =
    RaftTiming { heartbeat: Duration::from_millis(50), election_min: Duration::from_millis(150), election_max: Duration::from_millis(200) };

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

struct Nobody;

impl Peers for Nobody {
    fn connection(&self, _node: NodeId, _plane: swarm_transport::Plane) -> BoxFuture<std::io::Result<swarm_transport::Connection>> {
        Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
    }
}

pub(crate) fn spec(me: u64, disk: Arc<dyn Disk>, seed: u64, sync: Lanes) -> Spec {
    let raft_dir = raft_dir(&*disk, RaftDir([me as u8; 16])).unwrap();
    let settings = Settings { segment: 64 << 10, snapshot_every: 100, keep: 20, ..Settings::default() };
    Spec { me: NodeId(me), cluster: ClusterId([7; 16]), raft_dir, disk, timing: LAN, seed, peers: Arc::new(Nobody), sync, settings }
}

/// Starts a voter that the others of the net can reach.
pub(crate) async fn start(net: &Net, spec: Spec) -> Result<Consensus, StartError> {
    let me = spec.me;
    let consensus = Consensus::start_with(spec, Links::Memory(net.clone())).await?;
    let served = consensus.clone();
    net.listen(me, Arc::new(move |open, tx, rx| drop(tokio::spawn(served.serve(open, tx, rx)))));
    Ok(consensus)
}

struct Swarm {
    net: Net,
    disks: BTreeMap<u64, SimDisk>,
    nodes: BTreeMap<u64, Consensus>,
    lives: u64,
}

impl Swarm {
    async fn new(voters: u64) -> Self {
        let mut swarm = Self { net: Net::default(), disks: BTreeMap::new(), nodes: BTreeMap::new(), lives: 0 };
        for me in 1..=voters {
            swarm.start(me).await;
        }
        let first = swarm.nodes[&1].clone();
        first.initialize().await.unwrap();
        swarm.leader().await;
        for me in 2..=voters {
            first.add_learner(NodeId(me)).await.unwrap();
            first.change_voters((1..=me).map(NodeId).collect()).await.unwrap();
        }
        swarm
    }

    async fn start(&mut self, me: u64) -> Consensus {
        self.lives += 1;
        let disk = self.disks.entry(me).or_insert_with(|| {
            let disk = SimDisk::new(me);
            disk.set_faults(|f| f.sync = (Duration::from_millis(1), Duration::from_millis(3)));
            disk
        });
        let consensus = start(&self.net, spec(me, disk.mount(), self.lives, Lanes::Tasks)).await.unwrap();
        self.nodes.insert(me, consensus.clone());
        consensus
    }

    async fn leader(&self) -> Consensus {
        let found = async {
            loop {
                // the highest term: an old leader that was cut off does not know yet
                let leads = |c: &&Consensus| c.role().borrow().is_leader;
                let leader = self.nodes.values().filter(leads).max_by_key(|c| c.role().borrow().term);
                if let Some(leader) = leader
                    && leader.read_barrier().await.is_ok()
                {
                    return leader.clone();
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(10), found).await.expect("a leader in time")
    }

    /// Cuts a node off and forgets it: a power cut.
    async fn cut_power(&mut self, me: u64) {
        self.net.cut(NodeId(me));
        self.disks[&me].cut_power();
        let gone = self.nodes.remove(&me).unwrap();
        tokio::spawn(async move { gone.inner.stop_engine().await });
        sleep(Duration::from_millis(5)).await;
    }

    async fn settle(&self) {
        let leader = self.leader().await;
        let last = leader.with_ledger(|l| l.applied());
        for node in self.nodes.values() {
            let mut role = node.role();
            timeout(Duration::from_secs(10), role.wait_for(|r| r.applied >= last)).await.expect("catches up").unwrap();
        }
        let hashes: Vec<u64> = self.nodes.values().map(|n| n.with_ledger(|l| l.hash())).collect();
        assert!(hashes.windows(2).all(|w| w[0] == w[1]), "{hashes:?}");
    }
}

fn batch(n: u64) -> Batch {
    Batch { at: UnixMillis(n), commands: vec![Command::Lead { node: NodeId(1), term: Term(n) }] }
}

async fn propose(leader: &Consensus, n: u64) -> LogIndex {
    let (index, applied) = leader.propose(batch(n)).await.unwrap();
    assert_eq!(applied, [Applied::Done]);
    index
}

#[test]
fn one_node_commits_and_comes_back() {
    run(async {
        let mut swarm = Swarm::new(1).await;
        let leader = swarm.leader().await;
        let index = propose(&leader, 1).await;
        leader.read_barrier().await.unwrap();
        assert_eq!(leader.with_ledger(|l| l.applied()), index);
        let hash = leader.with_ledger(|l| l.hash());
        leader.shutdown().await;
        assert_eq!(leader.propose(batch(2)).await, Err(ProposeError::Stopped));
        let again = swarm.start(1).await;
        again.initialize().await.unwrap();
        assert_eq!(again.with_ledger(|l| (l.applied(), l.hash())), (index, hash), "an orderly end keeps what was applied");
        propose(&swarm.leader().await, 3).await;
    });
}

#[test]
fn what_was_acknowledged_outlives_a_power_cut_of_everything() {
    run(async {
        let mut swarm = Swarm::new(3).await;
        let mut last = LogIndex(0);
        for n in 1..=350 {
            last = propose(&swarm.leader().await, n).await;
        }
        for me in 1..=3 {
            swarm.cut_power(me).await;
        }
        for me in 1..=3 {
            swarm.start(me).await;
        }
        let leader = swarm.leader().await;
        assert!(leader.with_ledger(|l| l.applied()) >= last);
        swarm.settle().await;
    });
}

#[test]
fn a_node_that_was_away_for_long_gets_a_snapshot() {
    run(async {
        let mut swarm = Swarm::new(3).await;
        let away = if swarm.leader().await.inner.me == NodeId(3) { 2 } else { 3 };
        swarm.cut_power(away).await;
        for n in 1..=400 {
            propose(&swarm.leader().await, n).await;
        }
        let back = swarm.start(away).await;
        swarm.settle().await;
        let saved = back.inner.machine.saved().expect("a snapshot was installed");
        assert!(saved.last.is_some_and(|id| id.index > 250), "{:?}", saved.last);
        assert!(back.inner.store.with(|log| log.purged.is_some()));
    });
}

#[test]
fn the_others_elect_when_the_leader_is_gone_and_followers_say_who_leads() {
    run(async {
        let mut swarm = Swarm::new(3).await;
        let old = swarm.leader().await;
        propose(&old, 1).await;
        let follower = swarm.nodes.values().find(|c| c.inner.me != old.inner.me).unwrap();
        assert_eq!(follower.propose(batch(2)).await, Err(ProposeError::NotLeader { hint: Some(old.inner.me) }));
        assert_eq!(follower.read_barrier().await, Err(ProposeError::NotLeader { hint: Some(old.inner.me) }));
        let term = old.role().borrow().term;
        let began = tokio::time::Instant::now();
        swarm.cut_power(old.inner.me.0).await;
        let new = swarm.leader().await;
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        assert!(new.role().borrow().term > term);
        propose(&new, 3).await;
        swarm.start(old.inner.me.0).await;
        swarm.settle().await;
    });
}

#[test]
fn a_leader_that_stops_hands_over() {
    run(async {
        let mut swarm = Swarm::new(3).await;
        let old = swarm.leader().await;
        propose(&old, 1).await;
        let began = tokio::time::Instant::now();
        old.shutdown().await;
        swarm.net.cut(old.inner.me);
        swarm.nodes.remove(&old.inner.me.0);
        let new = swarm.leader().await;
        assert!(began.elapsed() < Duration::from_millis(150), "{:?}", began.elapsed());
        propose(&new, 2).await;
    });
}

#[test]
fn a_leader_that_is_cut_off_answers_unknown() {
    run(async {
        let swarm = Swarm::new(3).await;
        let old = swarm.leader().await;
        for me in 1..=3 {
            swarm.net.cut(NodeId(me));
        }
        let asked = tokio::spawn({
            let old = old.clone();
            async move { old.propose(batch(1)).await }
        });
        sleep(Duration::from_millis(300)).await;
        assert_eq!(old.read_barrier().await, Err(ProposeError::Unknown));
        for (me, node) in &swarm.nodes {
            let served = node.clone();
            if *me != old.inner.me.0 {
                swarm.net.listen(NodeId(*me), Arc::new(move |open, tx, rx| drop(tokio::spawn(served.serve(open, tx, rx)))));
            }
        }
        let answer = timeout(Duration::from_secs(5), asked).await.expect("an answer").unwrap();
        assert!(matches!(answer, Err(ProposeError::Unknown) | Ok(_)), "{answer:?}");
    });
}

#[test]
fn voters_change_one_at_a_time() {
    run(async {
        let mut swarm = Swarm::new(3).await;
        swarm.start(4).await;
        let leader = swarm.leader().await;
        assert!(leader.change_voters([1, 2, 4].map(NodeId).into()).await.is_err(), "n4 is no learner yet");
        leader.add_learner(NodeId(4)).await.unwrap();
        let mut role = leader.role();
        role.wait_for(|r| r.learners.contains(&NodeId(4))).await.unwrap();
        let away = (1..=3).find(|me| NodeId(*me) != leader.inner.me).unwrap();
        let voters = (1..=4).filter(|me| *me != away).map(NodeId);
        leader.change_voters(voters.clone().collect()).await.unwrap();
        assert_eq!(leader.role().borrow().voters, voters.collect());
        assert!(leader.lags().contains_key(&NodeId(4)));
        propose(&leader, 1).await;
    });
}

#[test]
fn a_stalled_disk_gives_leadership_up_and_in_the_end_the_process() {
    run(async {
        let swarm = Swarm::new(3).await;
        let old = swarm.leader().await;
        propose(&old, 1).await;
        let disk = swarm.disks[&old.inner.me.0].clone();
        let long = Duration::from_secs(60);
        disk.set_faults(|f| f.sync = (long, long));
        propose(&old, 2).await;
        assert_eq!(old.health().stalled, None, "a majority has other disks, and a moment is tolerated");
        let mut role = old.role();
        timeout(Duration::from_secs(6), role.wait_for(|r| !r.is_leader)).await.expect("steps down").unwrap();
        assert!(old.health().stalled.is_some());
        let new = swarm.leader().await;
        assert_ne!(new.inner.me, old.inner.me);
        propose(&new, 3).await;
        let fatal = timeout(Duration::from_secs(25), old.failed()).await.expect("gives up");
        assert!(matches!(fatal, Fatal::Stalled(_)), "{fatal:?}");
    });
}

#[test]
fn followers_with_a_slow_disk_do_not_cost_the_leader_its_office() {
    run(async {
        let swarm = Swarm::new(3).await;
        let leader = swarm.leader().await;
        let term = leader.role().borrow().term;
        let slow = Duration::from_secs(2);
        for disk in swarm.disks.values() {
            disk.set_faults(|f| f.sync = (slow, slow));
        }
        propose(&leader, 1).await;
        assert_eq!(leader.role().borrow().term, term);
        assert!(leader.role().borrow().is_leader);
    });
}

#[test]
fn a_failed_sync_is_fatal_and_the_others_go_on() {
    run(async {
        let swarm = Swarm::new(3).await;
        let old = swarm.leader().await;
        swarm.disks[&old.inner.me.0].set_faults(|f| f.sync_fails = true);
        // it may be committed: the others' disks are sound
        let _ = old.propose(batch(1)).await;
        assert!(matches!(timeout(Duration::from_secs(1), old.failed()).await.expect("at once"), Fatal::Disk(_)));
        assert_eq!(old.propose(batch(2)).await, Err(ProposeError::Stopped));
        propose(&swarm.leader().await, 3).await;
    });
}

#[test]
fn a_ledger_that_differs_stops_its_voter() {
    run(async {
        let swarm = Swarm::new(3).await;
        let leader = swarm.leader().await;
        for n in 1..=40 {
            propose(&leader, n).await;
        }
        let (index, hash) = leader.inner.machine.mark().expect("a mark by now");
        let follower = swarm.nodes.values().find(|c| c.inner.me != leader.inner.me).unwrap();
        sleep(Duration::from_secs(3)).await;
        assert_eq!(follower.health().fatal, None, "the leader has told its own");
        follower.inner.machine.hear_mark(leader.inner.me, index, hash ^ 1);
        let fatal = timeout(Duration::from_secs(1), follower.failed()).await.unwrap();
        assert_eq!(fatal, Fatal::Diverged { index, leader: leader.inner.me, ours: hash, theirs: hash ^ 1 });
        sleep(Duration::from_secs(1)).await;
        assert_eq!(follower.propose(batch(1)).await, Err(ProposeError::Stopped));
        propose(&swarm.leader().await, 41).await;
    });
}

#[test]
fn a_directory_of_another_node_is_refused_and_so_is_a_lost_log() {
    run(async {
        let mut swarm = Swarm::new(1).await;
        let leader = swarm.leader().await;
        propose(&leader, 1).await;
        leader.shutdown().await;
        let disk: Arc<dyn Disk> = swarm.disks[&1].mount();
        let foreign = start(&swarm.net, Spec { me: NodeId(2), ..spec(1, disk.clone(), 9, Lanes::Tasks) }).await;
        assert!(matches!(foreign, Err(StartError::Foreign { .. })), "{foreign:?}");
        let other = start(&swarm.net, Spec { cluster: ClusterId([8; 16]), ..spec(1, disk.clone(), 9, Lanes::Tasks) }).await;
        assert!(matches!(other, Err(StartError::Foreign { .. })), "{other:?}");
        for name in disk.list().unwrap().iter().filter(|n| n.ends_with(".log")) {
            disk.remove(name).unwrap();
        }
        let lost = start(&swarm.net, spec(1, disk, 9, Lanes::Tasks)).await;
        assert!(matches!(lost, Err(StartError::Damaged { .. })), "{lost:?}");
        swarm.nodes.clear();
    });
}

#[test]
fn large_entries_bring_a_snapshot_early_and_are_not_kept() {
    run(async {
        let (net, disk) = (Net::default(), SimDisk::new(1));
        let few = Settings { snapshot_bytes: 200_000, keep_bytes: 50_000, ..Settings::default() };
        let consensus = start(&net, Spec { settings: few, ..spec(1, disk.mount(), 1, Lanes::Tasks) }).await.unwrap();
        consensus.initialize().await.unwrap();
        consensus.role().wait_for(|r| r.is_leader).await.unwrap();
        for n in 1..=40 {
            let large = Batch { at: UnixMillis(n), commands: vec![Command::Lead { node: NodeId(1), term: Term(n) }; 3_000] };
            consensus.propose(large).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_secs(2)).await;
        let saved = consensus.inner.machine.saved().expect("a snapshot, long before 50,000 entries");
        let (bytes, first) = consensus.inner.store.with(|log| (log.bytes(), log.range(0..u64::MAX).next().map(|e| e.log_id.index)));
        assert!(bytes < 300_000, "{bytes} bytes are kept");
        assert!(first > Some(0) && first <= saved.last.map(|id| id.index + 1), "{first:?} of {:?}", saved.last);
    });
}

#[test]
fn both_presets_are_settings_that_the_engine_takes() {
    let wan = RaftTiming {
        heartbeat: Duration::from_millis(200),
        election_min: Duration::from_millis(600),
        election_max: Duration::from_millis(1_200),
    };
    for timing in [LAN, wan] {
        let spec = Spec { timing, ..spec(1, SimDisk::new(1).mount(), 1, Lanes::Tasks) };
        let config = crate::consensus::config(&spec).unwrap();
        assert_eq!((config.enable_pre_vote, config.enable_leader_restore), (Some(true), Some(false)));
        assert!(config.quorum_loss_probe_interval >= Some(2 * config.election_timeout_max));
        assert!(config.heartbeat_min_interval > Some(0));
    }
    let odd = RaftTiming { election_min: LAN.heartbeat, ..LAN };
    let spec = Spec { timing: odd, ..spec(1, SimDisk::new(1).mount(), 1, Lanes::Tasks) };
    assert!(matches!(crate::consensus::config(&spec), Err(StartError::Engine(_))));
}

#[test]
fn a_damaged_snapshot_is_refused_by_name() {
    run(async {
        let swarm = Swarm::new(1).await;
        let leader = swarm.leader().await;
        for n in 1..=250 {
            propose(&leader, n).await;
        }
        sleep(Duration::from_secs(1)).await;
        leader.shutdown().await;
        let disk = &swarm.disks[&1];
        for damage in [true, false] {
            let copy = disk.copy(1);
            if damage {
                copy.damage("snapshot", |bytes| *bytes.last_mut().unwrap() ^= 1);
            } else {
                copy.mount().remove("snapshot").unwrap();
            }
            let found = start(&swarm.net, spec(1, copy.mount(), 9, Lanes::Tasks)).await;
            assert!(matches!(&found, Err(StartError::Damaged { file, .. }) if file == "snapshot"), "{found:?}");
        }
    });
}
