//! Accepting a job: idempotency keys, bounds, and specs shared between neighbours.

use std::sync::Arc;

use swarm_proto::{
    Code, JobId, Millis, Problem, UnixMillis,
    ledger::{Applied, Submit, What},
    limits,
    spec::{Array, Durability, JobSpec},
};

use super::{
    Ledger,
    cells::Cells,
    jobs::{Job, Tally},
    keys::{self, KeyRecord},
    specs::{Measured, StoredSpec},
};

const NOT_ACCEPTED: &str = "the job was not accepted";

fn bad(why: impl Into<String>) -> Problem {
    Problem::new(Code::BadRequest, NOT_ACCEPTED, why)
}

fn busy(why: String, hint: &str) -> Problem {
    Problem::new(Code::Busy, NOT_ACCEPTED, why).hint(hint).retry_after(Millis(1_000))
}

/// A signature is for one key of its signer and one set of indices, and ends before the key is forgotten: so nothing signed is
/// accepted twice, whoever hands it in.
/// Whether it is genuine is for those to say who demand it.
fn check_signed(submit: &Submit, now: UnixMillis) -> Result<(), Problem> {
    let Some(signed) = &submit.spec.signed else { return Ok(()) };
    if submit.key.as_ref() != Some(&signed.key) || submit.array != signed.array {
        return Err(bad("its signature is for another key or for other tasks"));
    }
    let longest = u64::try_from(limits::KEY_LIFE.as_millis()).unwrap_or(u64::MAX);
    if signed.not_after <= now || signed.not_after.0 - now.0 > longest {
        return Err(bad(format!("its signature has ended, or ends later than in {} hours", longest / 3_600_000)));
    }
    Ok(())
}

/// A key as the ledger remembers it.
#[derive(Clone, Copy)]
pub(super) struct Named {
    pub(super) name: u128,
    content: u128,
}

/// What a new job needs, charged to the budget already.
pub(super) struct Prepared {
    spec: Arc<StoredSpec>,
    /// Bytes of its items.
    items: u64,
    pub(super) named: Option<Named>,
}

impl Ledger {
    pub(super) fn submit(&mut self, submit: &Submit) -> Result<Applied, Problem> {
        check_names(submit)?;
        let named = named(submit);
        if let Some(known) = named.and_then(|named| self.keys.find(named.name, self.journal.now).map(|record| (record, named.content))) {
            return answer_again(known, submit);
        }
        if submit.spec.durability != self.durability {
            return Err(bad("it is of another durability than what is kept here"));
        }
        if self.durability == Durability::Async {
            submit.spec.check_array(&submit.array)?;
        }
        let shared = self.check(submit)?;
        self.check_room(named.is_some())?;
        let prepared = self.prepare(submit, shared, named)?;
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.accept(id, submit, prepared);
        Ok(Applied::Accepted { job: id, is_new: true })
    }

    /// Whether the job is acceptable; the spec of the one before, if it has the same.
    pub(super) fn check(&self, submit: &Submit) -> Result<Option<Arc<StoredSpec>>, Problem> {
        let shared = self.last_spec.clone().filter(|last| Arc::ptr_eq(&last.spec, &submit.spec) || *last.spec == *submit.spec);
        // a spec that equals the one before was checked with it
        if shared.is_none() {
            submit.spec.check()?;
        }
        check_array(&submit.array)?;
        check_signed(submit, self.journal.now)?;
        Ok(shared)
    }

    /// Makes room for a job.
    pub(super) fn prepare(&mut self, submit: &Submit, shared: Option<Arc<StoredSpec>>, named: Option<Named>) -> Result<Prepared, Problem> {
        let items: u64 = submit.array.items.iter().map(|item| (item.len() + size_of::<String>()) as u64).sum();
        let spec = if let Some(spec) = shared {
            self.make_room_for(items)?;
            spec
        } else {
            let measured = Measured::new(&submit.spec);
            self.make_room_for(items + measured.bytes)?;
            self.keep_spec(&submit.spec, measured)
        };
        Ok(Prepared { spec, items, named })
    }

    /// Whether this very submission, or another one of its key, was accepted before.
    pub fn is_known(&self, submit: &Submit) -> bool {
        !self.keys.is_empty() && keys::name_of_submit(submit).is_some_and(|name| self.keys.find(name, self.journal.now).is_some())
    }

    fn check_room(&mut self, is_keyed: bool) -> Result<(), Problem> {
        // in memory, those that are to be recorded count too
        let jobs = if self.durability == Durability::Async { self.jobs.live() } else { self.jobs.open() };
        if jobs >= self.bounds.open_jobs {
            let why = format!("{jobs} jobs are open, as many as are taken");
            return Err(busy(why, "wait until jobs end, or submit one array in place of many jobs"));
        }
        let is_unrecorded = self.kept.len() as usize >= self.bounds.kept_tasks || self.output_bytes >= self.bounds.output;
        if self.durability == Durability::Async && is_unrecorded {
            return Err(busy(format!("{} tasks have ended that are to be recorded", self.kept.len()), "wait until the disks are faster"));
        }
        if is_keyed && !self.keys.has_room(self.bounds.keys, self.journal.now) {
            let why = format!("{} idempotency keys are remembered, as many as are taken in 24 hours", self.bounds.keys);
            return Err(busy(why, "submit without a key, or one array in place of many jobs"));
        }
        Ok(())
    }

    /// Charges the budget for a new job; ended jobs are forgotten for it, oldest first.
    fn make_room_for(&mut self, need: u64) -> Result<(), Problem> {
        while self.held_bytes + need > self.bounds.held {
            // what ended in memory is still to be recorded
            if self.durability == Durability::Async || !self.retire_oldest_job() {
                let why = format!("the open jobs hold {} bytes of specs, as many as are taken", self.held_bytes);
                return Err(busy(why, "wait until jobs end, or submit smaller specs"));
            }
        }
        self.held_bytes += need;
        Ok(())
    }

    /// Keeps a spec, as that of the latest job.
    fn keep_spec(&mut self, spec: &Arc<JobSpec>, measured: Measured) -> Arc<StoredSpec> {
        let spec = self.specs.keep(Arc::clone(spec), measured);
        self.specs.hold(&spec);
        if let Some(old) = self.last_spec.replace(Arc::clone(&spec)) {
            self.release_spec(&old);
        }
        spec
    }

    /// The job is in the ledger from now on.
    pub(super) fn accept(&mut self, id: JobId, submit: &Submit, Prepared { spec, items, named }: Prepared) {
        let count = submit.array.count;
        self.hash_submission(submit, &spec, named);
        self.specs.hold(&spec);
        let job = Job {
            id,
            spec,
            array: (submit.array != Array::single()).then(|| Box::new(submit.array.clone())),
            cells: Cells::new(count),
            submitter: self.share_submitter(&submit.submitter),
            key: submit.key.as_deref().map(Box::from),
            retry_of: submit.retry_of.unwrap_or(JobId(0)),
            submitted: self.journal.now,
            ended: UnixMillis(0),
            tally: Tally::new(count),
            reruns: 0,
            weight: u32::try_from(items).expect("items are bounded to 64 KiB"),
        };
        self.jobs.insert(job);
        self.totals.pending += u64::from(count);
        if let Some(Named { name, content }) = named {
            self.keys.insert(KeyRecord { at: self.journal.now, name, content, job: id });
        }
        self.journal.emit(What::JobSubmitted { job: id, tasks: count });
    }

    fn hash_submission(&mut self, submit: &Submit, spec: &StoredSpec, named: Option<Named>) {
        let hash = &mut self.journal.hash;
        hash.add(spec.digest);
        hash.add(u64::from(submit.array.first) << 1 | u64::from(submit.array.is_array));
        hash.add(submit.retry_of.map_or(0, |job| job.0));
        submit.array.items.iter().for_each(|item| hash.add_bytes(item.as_bytes()));
        hash.add_bytes(submit.submitter.as_bytes());
        if let Some(Named { name, content }) = named {
            hash.add_bytes(&name.to_le_bytes());
            hash.add_bytes(&content.to_le_bytes());
        }
    }

    /// The submitter's name, shared with the job before if it is the same.
    fn share_submitter(&self, name: &str) -> Arc<str> {
        let last = self.jobs.get(JobId(self.next_job.saturating_sub(2))).map(|job| &job.submitter);
        last.filter(|last| ***last == *name).map_or_else(|| Arc::from(name), Arc::clone)
    }
}

/// The key of a submission, if it has one.
pub(super) fn named(submit: &Submit) -> Option<Named> {
    keys::name_of_submit(submit).map(|name| Named { name, content: keys::content_of(submit) })
}

pub(super) fn check_names(submit: &Submit) -> Result<(), Problem> {
    if submit.submitter.is_empty() || submit.submitter.len() > limits::NAME {
        return Err(bad(format!("a submitter's name has 1 to {} bytes", limits::NAME)));
    }
    if submit.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > limits::NAME) {
        return Err(bad(format!("an idempotency key has 1 to {} bytes", limits::NAME)));
    }
    Ok(())
}

fn check_array(array: &Array) -> Result<(), Problem> {
    if !array.is_array && *array != Array::single() {
        return Err(bad("a job that is no array has one task, of index 0, and no items"));
    }
    array.check()
}

/// A key that is known: the same content answers the same job.
fn answer_again((record, content): (&KeyRecord, u128), submit: &Submit) -> Result<Applied, Problem> {
    if record.content == content {
        return Ok(Applied::Accepted { job: record.job, is_new: false });
    }
    let key = submit.key.as_deref().unwrap_or_default();
    let why = format!("the key '{key}' made {}, and of other content", record.job);
    Err(Problem::new(Code::KeyConflict, NOT_ACCEPTED, why).hint("use a key of its own for each submission"))
}
