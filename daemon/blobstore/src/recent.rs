//! Outlines that were proved lately. A blob goes out a few segments a request, and each request would read its outline and merge all
//! of its values again: for the largest blob 2 MiB and 65,536 values, for 8 segments.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use swarm_proto::{Digest, limits};

use crate::outline::Outline;

/// Values of all of them together: those of one blob of the largest size, 2 MiB.
const VALUES: u64 = limits::BLOB / limits::SEGMENT as u64;
/// How many there are, however small.
const MOST: usize = 64;

/// The last ones that were asked for, the last of them first.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<VecDeque<Outline>>);

impl Recent {
    fn outlines(&self) -> MutexGuard<'_, VecDeque<Outline>> {
        // what is behind it is whole after each line that holds the lock
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a blob whose file has that size.
    pub(crate) fn find(&self, digest: Digest, size: u64) -> Option<Outline> {
        let outlines = self.outlines();
        outlines.iter().find(|outline| outline.digest() == digest && outline.size() == size).cloned()
    }

    pub(crate) fn keep(&self, outline: Outline) {
        let mut outlines = self.outlines();
        outlines.retain(|other| other.digest() != outline.digest());
        outlines.push_front(outline);
        let mut values = 0;
        let fit = outlines.iter().take(MOST).take_while(|outline| {
            values += u64::from(outline.segments());
            values <= VALUES
        });
        let fit = fit.count();
        outlines.truncate(fit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outline::Outliner;

    fn outline(n: u8, segments: usize) -> Outline {
        let mut outliner = Outliner::default();
        outliner.update(&vec![n; segments * limits::SEGMENT as usize]);
        outliner.finish()
    }

    #[test]
    fn the_last_ones_are_kept_and_no_other_size_is_theirs() {
        let recent = Recent::default();
        let first = outline(0, 2);
        recent.keep(first.clone());
        assert_eq!(recent.find(first.digest(), first.size()), Some(first.clone()));
        assert_eq!(recent.find(first.digest(), first.size() - 1), None);
        for n in 1..=u8::try_from(MOST).unwrap() {
            recent.keep(outline(n, 1));
        }
        assert_eq!(recent.find(first.digest(), first.size()), None);
        assert_eq!(recent.outlines().len(), MOST);
    }
}
