//! A queue whose copy costs a reference for each of its chunks: a snapshot is encoded from one while the queue goes on.

use std::{collections::VecDeque, ops::Index, sync::Arc};

const CHUNK: usize = 256;

/// First in, first out. All chunks but the last are full, and what has left the first one stays in it until all of it has.
#[derive(Clone, Debug)]
pub(super) struct Queue<T> {
    chunks: VecDeque<Arc<Vec<T>>>,
    /// Of the first chunk.
    gone: usize,
    len: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { chunks: VecDeque::new(), gone: 0, len: 0 }
    }
}

impl<T: Clone> Queue<T> {
    /// Copies the last chunk where somebody else has it too.
    pub(super) fn push_back(&mut self, item: T) {
        if (self.gone + self.len).is_multiple_of(CHUNK) {
            self.chunks.push_back(Arc::default());
        }
        if let Some(last) = self.chunks.back_mut() {
            Arc::make_mut(last).push(item);
            self.len += 1;
        }
    }

    /// Drops the first one, if there is one.
    pub(super) fn pop_front(&mut self) {
        if self.len == 0 {
            return;
        }
        (self.gone, self.len) = (self.gone + 1, self.len - 1);
        if self.gone == CHUNK || self.len == 0 {
            self.chunks.pop_front();
            self.gone = 0;
        }
    }
}

impl<T> Queue<T> {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        (at < self.len).then(|| &self[at])
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.get(0)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.from(0)
    }

    /// All from that place on.
    pub(super) fn from(&self, at: usize) -> impl ExactSizeIterator<Item = &T> {
        (at..self.len).map(|at| &self[at])
    }

    /// The first place for which that is false; true is never behind false.
    pub(super) fn partition_point(&self, mut is_before: impl FnMut(&T) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = usize::midpoint(low, high);
            if is_before(&self[middle]) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl<T> Index<usize> for Queue<T> {
    type Output = T;
    fn index(&self, at: usize) -> &T {
        let at = self.gone + at;
        &self.chunks[at / CHUNK][at % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_as_any_other_queue_and_copies_stay(steps in prop::collection::vec((0usize..700, 0usize..700, any::<bool>()), 1..12)) {
            let (mut queue, mut plain, mut next) = (Queue::default(), VecDeque::new(), 0u32);
            let mut copies = Vec::new();
            for (pushed, popped, is_copied) in steps {
                for _ in 0..pushed {
                    queue.push_back(next);
                    plain.push_back(next);
                    next += 1;
                }
                if is_copied {
                    copies.push((queue.clone(), plain.clone()));
                }
                for _ in 0..popped {
                    queue.pop_front();
                    plain.pop_front();
                }
                copies.push((queue.clone(), plain.clone()));
            }
            for (queue, plain) in &copies {
                prop_assert!(queue.iter().eq(plain.iter()) && queue.len() == plain.len() && queue.is_empty() == plain.is_empty());
                prop_assert_eq!((queue.front(), queue.get(plain.len())), (plain.front(), None));
                for at in [0, 1, plain.len() / 2, plain.len()] {
                    let limit = plain.get(at).copied().unwrap_or(next);
                    prop_assert_eq!(queue.partition_point(|item| *item < limit), at.min(plain.len()));
                    prop_assert!(queue.from(at).eq(plain.range(at.min(plain.len())..)));
                }
            }
        }
    }
}
