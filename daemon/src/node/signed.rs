//! Whether work is what somebody signed, for a node that demands it.
//!
//! Nothing on the way is trusted: the key is looked up in the view, the bytes are made anew from what is about to run, and the first job
//! that came with a signature is the only one that ever may. That is on disk before the first process starts, so that neither a
//! restart nor a leader that forgot makes it run for another job. An attempt of the same job is no replay: the ledger decides how
//! often a task is tried.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use swarm_consensus::{Disk, checked};
use swarm_core::attempts::Start;
use swarm_proto::{
    ClusterId, JobId, PeerKey, UnixMillis,
    access::Role,
    ledger::View,
    signed::{Signed, message},
};

const FILE: &str = "signed";
/// Signatures that have not ended; with more, no further work is taken.
const MOST: usize = 65_536;

/// Which job each signature was for.
pub(crate) struct Signatures {
    disk: Arc<dyn Disk>,
    seen: BTreeMap<(PeerKey, String), (JobId, UnixMillis)>,
    /// The latest end of a signature that is forgotten. Nothing that ends earlier begins any more, whatever a clock says later.
    forgotten: UnixMillis,
}

type Row = (PeerKey, String, JobId, UnixMillis);

/// What is written down of it.
pub(crate) type Kept = (UnixMillis, Vec<Row>);

impl Signatures {
    /// Those of the last run.
    ///
    /// # Errors
    /// A file that cannot be read: what it held must not be run again.
    pub(crate) fn load(disk: Arc<dyn Disk>) -> Result<Self, String> {
        let kept: Option<Kept> = checked::load(&*disk, FILE).map_err(|e| format!("which signatures were used is not known: {e}"))?;
        let (forgotten, rows) = kept.unwrap_or_default();
        Ok(Self { disk, seen: rows.into_iter().map(|(by, key, job, ends)| ((by, key), (job, ends))).collect(), forgotten })
    }

    /// Says why an attempt may not begin, if it may not.
    pub(crate) fn judge(&mut self, start: &Start, cluster: &ClusterId, view: &View, now: UnixMillis) -> Result<(), String> {
        let signed = start.spec.signed.as_deref().ok_or("this node runs only what its submitter has signed")?;
        verify(start, signed, cluster, view, now)?;
        self.claim(signed, start.task.job, now)
    }

    fn claim(&mut self, signed: &Signed, job: JobId, now: UnixMillis) -> Result<(), String> {
        let name = (signed.by, signed.key.clone());
        match self.seen.get(&name) {
            Some((known, _)) if *known == job => return Ok(()),
            Some((known, _)) => return Err(format!("its signature was used already, for {known}")),
            None if signed.not_after <= self.forgotten => return Err("its signature has ended".into()),
            None => {}
        }
        let ended = self.seen.values().map(|(_, ends)| *ends).filter(|ends| *ends <= now).max();
        self.forgotten = self.forgotten.max(ended.unwrap_or_default());
        self.seen.retain(|_, (_, ends)| *ends > now);
        if self.seen.len() >= MOST {
            return Err("too many signatures are remembered here".into());
        }
        self.seen.insert(name.clone(), (job, signed.not_after));
        let stored = self.store();
        if stored.is_err() {
            self.seen.remove(&name);
        }
        stored
    }

    fn store(&self) -> Result<(), String> {
        let rows: Vec<Row> = self.seen.iter().map(|((by, key), (job, ends))| (*by, key.clone(), *job, *ends)).collect();
        checked::save(&*self.disk, FILE, &(self.forgotten, rows)).map_err(|e| format!("what was signed cannot be remembered: {e}"))
    }
}

fn verify(start: &Start, signed: &Signed, cluster: &ClusterId, view: &View, now: UnixMillis) -> Result<(), String> {
    if signed.not_after <= now {
        return Err("its signature has ended".into());
    }
    let user = view.users.values().find(|user| !user.is_gone && user.keys.contains(&signed.by));
    let user = user.ok_or("it is signed by nobody whom this swarm knows")?;
    if user.role < Role::Submitter {
        return Err(format!("it is signed by '{}', who may not submit", user.name));
    }
    let array = &signed.array;
    let index = start.task.index;
    let is_within = index.checked_sub(array.first).is_some_and(|at| at < array.count);
    if !is_within || start.is_array != array.is_array || start.item.as_ref().is_some_and(|item| *item != array.item(index)) {
        return Err("it is a task that was not signed".into());
    }
    let bytes = message(cluster, &start.spec, &signed.key, array, signed.not_after);
    let genuine = UnparsedPublicKey::new(&ED25519, signed.by.0).verify(&bytes, &signed.signature);
    genuine.map_err(|_| format!("it is not what '{}' has signed", user.name))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use swarm_consensus::DirDisk;
    use swarm_proto::{AttemptNo, Fence, LogIndex, TaskId, api::SubmitRequest, identity::UserRecord, spec::JobSpec};

    use super::*;

    const CLUSTER: ClusterId = ClusterId([9; 16]);
    const NOW: UnixMillis = UnixMillis(1_000);

    struct Desk {
        pair: Ed25519KeyPair,
        view: View,
        dir: tempfile::TempDir,
    }

    impl Desk {
        fn new() -> Self {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[5; 32]).expect("a seed makes a key");
            let mut desk = Self { pair, view: View::default(), dir: tempfile::tempdir().expect("a temporary directory") };
            let user =
                UserRecord { name: "ann".into(), role: Role::Submitter, keys: vec![desk.key()], is_gone: false, changed: LogIndex(1) };
            desk.view.users.insert("ann".into(), user);
            desk
        }

        fn key(&self) -> PeerKey {
            PeerKey(self.pair.public_key().as_ref().try_into().expect("32 bytes"))
        }

        fn signed(&self, argv: &str, key: &str) -> JobSpec {
            let request = SubmitRequest { argv: vec![argv.into()], key: Some(key.into()), ..SubmitRequest::default() };
            let (spec, array) = request.into_job("linux").expect("a job");
            let not_after = UnixMillis(5_000);
            let signature = self.pair.sign(&message(&CLUSTER, &spec, key, &array, not_after)).as_ref().to_vec().into();
            JobSpec { signed: Some(Box::new(Signed { by: self.key(), key: key.into(), array, not_after, signature })), ..spec }
        }

        fn open(&self) -> Signatures {
            Signatures::load(Arc::new(DirDisk::open(self.dir.path()).expect("a directory"))).expect("readable")
        }
    }

    fn start(job: u64, spec: &JobSpec) -> Start {
        let fence = Fence { index: LogIndex(1), attempt: AttemptNo(1) };
        Start {
            task: TaskId { job: JobId(job), index: 0 },
            fence,
            spec: Arc::new(spec.clone()),
            is_array: false,
            item: None,
            own: None,
            key: None,
        }
    }

    #[test]
    fn what_was_signed_runs_for_one_job_only_and_across_restarts() {
        let desk = Desk::new();
        let spec = desk.signed("true", "k");
        let mut signatures = desk.open();
        assert_eq!(signatures.judge(&start(1, &spec), &CLUSTER, &desk.view, NOW), Ok(()));
        assert_eq!(signatures.judge(&start(1, &spec), &CLUSTER, &desk.view, NOW), Ok(()), "another attempt");
        assert!(signatures.judge(&start(2, &spec), &CLUSTER, &desk.view, NOW).is_err(), "a replay");
        drop(signatures);
        let mut again = desk.open();
        assert!(again.judge(&start(2, &spec), &CLUSTER, &desk.view, NOW).is_err(), "a replay after a restart");
        assert_eq!(again.judge(&start(2, &desk.signed("true", "other")), &CLUSTER, &desk.view, NOW), Ok(()));
    }

    #[test]
    fn anything_else_than_what_was_signed_is_refused() {
        let desk = Desk::new();
        let good = desk.signed("true", "k");
        let refusal = |change: &dyn Fn(&mut JobSpec)| {
            let mut spec = good.clone();
            change(&mut spec);
            desk.open().judge(&start(1, &spec), &CLUSTER, &desk.view, NOW)
        };
        let signed = |spec: &mut JobSpec, change: &dyn Fn(&mut Signed)| change(spec.signed.as_mut().expect("it is signed"));
        type Change<'a> = &'a dyn Fn(&mut JobSpec);
        let cases: [(&str, Change<'_>); 8] = [
            ("no signature", &|spec| spec.signed = None),
            ("another program", &|spec| *spec = JobSpec { signed: spec.signed.clone(), ..desk.signed("false", "k") }),
            ("another timeout", &|spec| spec.timeout = Some(swarm_proto::Millis(1))),
            ("another key", &|spec| signed(spec, &|signed| signed.key = "l".into())),
            ("a later end", &|spec| signed(spec, &|signed| signed.not_after = UnixMillis(6_000))),
            ("more tasks", &|spec| signed(spec, &|signed| signed.array.count = 2)),
            ("a stranger's key", &|spec| signed(spec, &|signed| signed.by = PeerKey([7; 32]))),
            ("a flipped bit", &|spec| {
                signed(spec, &|signed| {
                    let mut bytes = signed.signature.to_vec();
                    bytes[10] ^= 1;
                    signed.signature = bytes.into();
                });
            }),
        ];
        for (what, change) in cases {
            assert!(refusal(change).is_err(), "{what}");
        }
        assert_eq!(refusal(&|_| {}), Ok(()), "what was refused claims nothing");
        let mut other = start(1, &good);
        other.task.index = 1;
        assert!(desk.open().judge(&other, &CLUSTER, &desk.view, NOW).is_err(), "another index");
        assert!(desk.open().judge(&start(1, &good), &ClusterId([8; 16]), &desk.view, NOW).is_err(), "another swarm");
        assert!(desk.open().judge(&start(1, &good), &CLUSTER, &desk.view, UnixMillis(5_000)).is_err(), "too late");
        let mut view = desk.view.clone();
        view.users.get_mut("ann").expect("a user").role = Role::Observer;
        assert!(desk.open().judge(&start(1, &good), &CLUSTER, &view, NOW).is_err(), "a user who may not submit");
        view.users.get_mut("ann").expect("a user").is_gone = true;
        assert!(desk.open().judge(&start(1, &good), &CLUSTER, &view, NOW).is_err(), "a revoked user");
    }
}
