//! What jobs are to do, kept once for all neighbours that are to do the same.

use std::sync::Arc;

use swarm_proto::spec::JobSpec;

use super::hash::Rolling;

/// A spec as the ledger keeps it.
#[derive(Debug)]
pub(super) struct StoredSpec {
    pub(super) spec: Arc<JobSpec>,
    /// Encoded, which is about what it takes in memory.
    pub(super) bytes: u64,
    pub(super) digest: u64,
    /// Its place in [`Specs`]; means nothing outside this ledger.
    pub(super) place: u32,
}

/// How many hold each spec: jobs, and the ledger for the next job. Counted here and not by the `Arc`, which a snapshot that is being
/// encoded holds too.
#[derive(Debug, Default)]
pub(super) struct Specs {
    holders: Vec<u32>,
    free: Vec<u32>,
}

/// A spec that is not kept yet.
pub(super) struct Measured {
    pub(super) bytes: u64,
    digest: u64,
}

impl Measured {
    pub(super) fn new(spec: &JobSpec) -> Self {
        let encoded = postcard::to_stdvec(spec).expect("a spec is plain data");
        let mut digest = Rolling::start();
        digest.add_bytes(&encoded);
        Self { bytes: encoded.len() as u64, digest: digest.0 }
    }
}

impl Specs {
    /// Keeps a spec that nobody holds yet.
    pub(super) fn keep(&mut self, spec: Arc<JobSpec>, Measured { bytes, digest }: Measured) -> Arc<StoredSpec> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.holders.push(0);
            u32::try_from(self.holders.len() - 1).expect("jobs are bounded to a few millions")
        });
        Arc::new(StoredSpec { spec, bytes, digest, place })
    }

    pub(super) fn hold(&mut self, spec: &StoredSpec) {
        self.holders[spec.place as usize] += 1;
    }

    /// One holder less; whether it was the last.
    pub(super) fn release(&mut self, spec: &StoredSpec) -> bool {
        let holders = &mut self.holders[spec.place as usize];
        *holders -= 1;
        let is_last = *holders == 0;
        if is_last {
            self.free.push(spec.place);
        }
        is_last
    }

    /// How many hold a spec.
    pub(super) fn holders(&self, spec: &StoredSpec) -> u32 {
        self.holders[spec.place as usize]
    }

    /// All places are below this.
    pub(super) const fn places(&self) -> usize {
        self.holders.len()
    }
}
