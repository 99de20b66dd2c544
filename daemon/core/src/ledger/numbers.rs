//! Numbers of jobs that were reserved and not recorded yet: each is good for one record.
//!
//! A leader asks for some thousands at once for the jobs in its memory. Most are recorded in the order in which they were given, so the
//! ranges are few; one that is recorded out of turn parts its range in two.

use std::{collections::BTreeMap, ops::Range};

use swarm_proto::JobId;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// First to end, none empty, none beside another that goes on where it ends.
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl Numbers {
    /// Takes in numbers that are larger than all before; the lowest are forgotten where there are more than `most`.
    pub(super) fn reserve(&mut self, numbers: Range<u64>, most: u64) {
        self.count += numbers.end - numbers.start;
        match self.ranges.last_entry() {
            Some(mut last) if *last.get() == numbers.start => *last.get_mut() = numbers.end,
            Some(_) | None => drop(self.ranges.insert(numbers.start, numbers.end)),
        }
        while self.count > most
            && let Some((start, end)) = self.ranges.pop_first()
        {
            let dropped = (self.count - most).min(end - start);
            self.count -= dropped;
            if start + dropped < end {
                self.ranges.insert(start + dropped, end);
            }
        }
    }

    pub(super) fn has(&self, job: JobId) -> bool {
        self.ranges.range(..=job.0).next_back().is_some_and(|(_, end)| job.0 < *end)
    }

    /// Takes one out, which is there.
    pub(super) fn take(&mut self, job: JobId) {
        let Some((start, end)) = self.ranges.range(..=job.0).next_back().map(|(start, end)| (*start, *end)) else { return };
        debug_assert!(job.0 < end, "{job} is reserved");
        self.ranges.remove(&start);
        if start < job.0 {
            self.ranges.insert(start, job.0);
        }
        if job.0 + 1 < end {
            self.ranges.insert(job.0 + 1, end);
        }
        self.count -= 1;
    }

    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// The ranges, lowest first.
    pub(super) fn ranges(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(start, end)| (*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_as_a_set_of_numbers(steps in prop::collection::vec((any::<bool>(), 0u64..40), 1..200)) {
            let (mut numbers, mut set, mut next) = (Numbers::default(), BTreeSet::new(), 1);
            for (is_reserved, n) in steps {
                if is_reserved {
                    let (first, end) = (next + n % 2, next + n % 2 + 1 + n);
                    numbers.reserve(first..end, 100);
                    set.extend(first..end);
                    while set.len() > 100 {
                        set.pop_first();
                    }
                    next = end;
                } else if let Some(taken) = set.iter().nth(n as usize).copied() {
                    set.remove(&taken);
                    numbers.take(JobId(taken));
                }
                prop_assert_eq!(numbers.count(), set.len() as u64);
                let ranges: Vec<_> = numbers.ranges().collect();
                prop_assert!(ranges.iter().zip(ranges.iter().skip(1)).all(|(one, two)| one.1 < two.0), "{:?}", ranges);
                for number in 0..next + 2 {
                    prop_assert_eq!(numbers.has(JobId(number)), set.contains(&number), "{}", number);
                }
            }
        }
    }
}
