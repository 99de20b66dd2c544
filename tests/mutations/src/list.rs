//! What is broken on purpose. Each is one line that a tired engineer could have written, and one promise that it breaks.

/// Tests that should see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Suite {
    pub(crate) package: &'static str,
    /// Its unit tests whose names hold this, those of a file in its `tests`, or of such a file only those whose names hold that.
    pub(crate) tests: Tests,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tests {
    Unit(&'static str),
    File(&'static str),
    Some(&'static str, &'static str),
}

/// One change of the sources.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mutation {
    pub(crate) name: &'static str,
    pub(crate) file: &'static str,
    /// Stands there exactly once.
    pub(crate) find: &'static str,
    pub(crate) replace: &'static str,
    /// In the order in which they are asked; one that fails is enough.
    pub(crate) suites: &'static [Suite],
}

const fn core(filter: &'static str) -> Suite {
    unit("swarm-core", filter)
}

const fn unit(package: &'static str, filter: &'static str) -> Suite {
    Suite { package, tests: Tests::Unit(filter) }
}

const fn sim(file: &'static str) -> Suite {
    Suite { package: "swarm-sim", tests: Tests::File(file) }
}

/// Plans that failed once; all of what the simulator of the daemon runs takes minutes.
const CORPUS: Suite = Suite { package: "swarm-sim", tests: Tests::Some("daemon", "the_corpus_passes") };

const MEMBERSHIP: &[Suite] = &[core("members"), sim("membership")];

pub(crate) const ALL: &[Mutation] = &[
    Mutation {
        name: "refutation-ignored",
        file: "daemon/core/src/members/evidence.rs",
        find: "if !(is_past || is_doubted) || incarnation",
        replace: "if !is_past || incarnation",
        suites: MEMBERSHIP,
    },
    Mutation {
        name: "local-health-removed",
        file: "daemon/core/src/members/hearing.rs",
        find: "self.multiplier = (self.multiplier + 1).min(WORST);",
        replace: "self.multiplier = 0;",
        suites: MEMBERSHIP,
    },
    Mutation {
        name: "digest-pull-removed",
        file: "daemon/core/src/members/sync.rs",
        find: "self.sync.wanted = Some(from);",
        replace: "let _ = from;",
        suites: MEMBERSHIP,
    },
    Mutation {
        name: "incarnation-not-advanced",
        file: "daemon/core/src/members/evidence.rs",
        find: "self.incarnation = incarnation + 1;",
        replace: "self.incarnation = incarnation;",
        suites: MEMBERSHIP,
    },
    Mutation {
        name: "vote-not-fsynced",
        file: "daemon/consensus/src/log/flush.rs",
        find: "self.waiting.push(Waiting::Vote(done));",
        replace: "Waiting::Vote(done).answer(Ok(()));",
        suites: &[unit("swarm-consensus", "log"), sim("consensus")],
    },
    Mutation {
        name: "ack-before-fsync",
        file: "daemon/consensus/src/log/flush.rs",
        find: "self.waiting.push(Waiting::Entries(done));",
        replace: "Waiting::Entries(done).answer(Ok(()));",
        suites: &[unit("swarm-consensus", "log"), sim("consensus")],
    },
    Mutation {
        name: "read-without-a-majority",
        file: "daemon/src/node/calls.rs",
        find: "consensus.read_barrier().await.map_err(|_| no_leader(\"the call was not answered\"))?;
    inspect(desk, look).await",
        replace: "let _ = consensus;
    inspect(desk, look).await",
        suites: &[CORPUS],
    },
    Mutation {
        name: "fence-not-compared",
        file: "daemon/core/src/ledger/end.rs",
        find: "Cell::Held(slot) if self.tasks[slot].fence() == fence => Standing::Current",
        replace: "Cell::Held(slot) => Standing::Current",
        suites: &[core("ledger"), core("dispatch")],
    },
    Mutation {
        name: "lease-granted-again-early",
        file: "daemon/core/src/dispatch/loss.rs",
        find: "worker.leased.map_or(began, |leased| leased.max(began)) + settings.lease + settings.margin",
        replace: "worker.leased.map_or(began + settings.lease, |leased| leased.max(began)) + settings.margin",
        suites: &[core("dispatch")],
    },
    Mutation {
        name: "inherited-leases-forgotten",
        file: "daemon/core/src/dispatch/loss.rs",
        find: "worker.leased.map_or(began, |leased| leased.max(began)) + settings.lease + settings.margin",
        replace: "worker.leased.map_or(began, |leased| leased + settings.lease + settings.margin)",
        suites: &[core("dispatch")],
    },
    Mutation {
        name: "voters-changed-without-a-majority",
        file: "daemon/core/src/voters.rs",
        find: "(voters.contains(&self.input.me) && self.has_live_majority(&voters)).then_some",
        replace: "voters.contains(&self.input.me).then_some",
        suites: &[core("voters")],
    },
    Mutation {
        name: "snapshot-without-the-keys",
        file: "daemon/core/src/ledger/snapshot.rs",
        find: "out.put_all(self.keys.len(), self.keys.iter());",
        replace: "out.put_all(0, self.keys.iter().take(0));",
        suites: &[core("ledger")],
    },
    Mutation {
        name: "offered-before-commit",
        file: "daemon/core/src/dispatch/batch.rs",
        find: "let sent = Sent::Assign { group, job, node: share.node, count, waits: share.waits };",
        replace: "if let JobRef::Known(job) = job {
                    let fence = swarm_proto::Fence { index: swarm_proto::LogIndex(self.applied.0 + 1), attempt: swarm_proto::AttemptNo(1) };
                    let grants = vec![swarm_proto::ledger::Grant { job, first, count, fence, node: share.node }];
                    self.say(share.node, ToWorker::Grants { jobs: Vec::new(), grants });
                }
                let sent = Sent::Assign { group, job, node: share.node, count, waits: share.waits };",
        suites: &[core("dispatch")],
    },
    Mutation {
        name: "segment-not-verified",
        file: "daemon/blobstore/src/partial.rs",
        find: "if !self.outline.fits(index, data) {",
        replace: "if data.is_empty() && !self.outline.fits(index, data) {",
        suites: &[unit("swarm-blobstore", "")],
    },
    Mutation {
        name: "rarest-not-first",
        file: "daemon/core/src/blobs.rs",
        find: "min_by_key(|index| self.holders[*index as usize])?",
        replace: "max_by_key(|index| self.holders[*index as usize])?",
        suites: &[core("blobs")],
    },
    Mutation {
        name: "second-copy-not-awaited",
        file: "daemon/core/src/blobs/owed.rs",
        find: "const COPIES: usize = 2;",
        replace: "const COPIES: usize = 1;",
        suites: &[core("blobs")],
    },
    Mutation {
        name: "revoked-connection-stays",
        file: "daemon/transport/src/endpoint.rs",
        find: "connection.close(CloseCode::ClosedOut, &problem.why);
                return false;",
        replace: "return true;",
        suites: &[Suite { package: "swarm-transport", tests: Tests::File("loopback") }],
    },
    Mutation {
        name: "token-used-twice",
        file: "daemon/core/src/ledger/tokens.rs",
        find: "if !is_again && token.uses_left() == 0 {",
        replace: "if token.uses == 0 {",
        suites: &[core("ledger")],
    },
    Mutation {
        name: "copy-for-anybody-who-claims-it",
        file: "daemon/core/src/blobs/owed.rs",
        find: "matches!(at, Some(At::Asked | At::Kept))",
        replace: "matches!(at, Some(At::Asked | At::Kept) | None)",
        suites: &[core("blobs")],
    },
    Mutation {
        name: "given-up-part-takes-the-place",
        file: "daemon/blobstore/src/store.rs",
        find: "let is_given_up = !self.0.books().is_open(partial);",
        replace: "let is_given_up = false;",
        suites: &[unit("swarm-blobstore", "")],
    },
    Mutation {
        name: "ended-in-memory-not-recorded",
        file: "daemon/core/src/dispatch/memory.rs",
        find: "self.memory.ended.push_back(job);",
        replace: "let _ = job;",
        suites: &[core("dispatch")],
    },
    Mutation {
        name: "memory-served-without-a-majority",
        file: "daemon/core/src/dispatch/memory.rs",
        find: "if now > self.confirmed + self.settings.lease {",
        replace: "if false {",
        suites: &[core("dispatch")],
    },
    Mutation {
        name: "key-not-looked-for-in-the-log-again",
        file: "daemon/core/src/dispatch/memory.rs",
        find: "if matches!(&command, Command::Submit(submit) if log.is_known(submit)) {",
        replace: "if false {",
        suites: &[core("dispatch")],
    },
    Mutation {
        name: "reserved-number-given-twice",
        file: "daemon/core/src/ledger/record.rs",
        find: "self.next_job += u64::from(count);",
        replace: "self.next_job += u64::from(count / 2);",
        suites: &[core("ledger")],
    },
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    #[test]
    fn each_can_still_be_made() {
        let names: BTreeSet<&str> = ALL.iter().map(|mutation| mutation.name).collect();
        assert_eq!(names.len(), ALL.len());
        for Mutation { name, file, find, replace, suites } in ALL {
            let text = fs::read_to_string(crate::root().join(file)).expect(file);
            assert_eq!(text.matches(find).count(), 1, "{name}: '{find}' in {file}");
            assert!(find != replace && !suites.is_empty(), "{name}");
        }
    }
}
