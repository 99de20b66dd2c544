//! What will happen, the next first: by instant, and in the order in which it was put in where that is the same.
//!
//! What is sorted is small, since it is moved about a lot; what happens lies beside it and stays where it is.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// Nanoseconds, how many were put in before, and where the item lies.
type Key = (u64, u64, u32);

/// The queue.
#[derive(Debug)]
pub(super) struct Queue<T> {
    keys: BinaryHeap<Reverse<Key>>,
    items: Vec<Option<T>>,
    free: Vec<u32>,
    order: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { keys: BinaryHeap::new(), items: Vec::new(), free: Vec::new(), order: 0 }
    }
}

impl<T> Queue<T> {
    pub(super) fn push(&mut self, at: Duration, item: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.items.push(None);
            u32::try_from(self.items.len() - 1).expect("fewer than that wait at a time")
        });
        self.items[place as usize] = Some(item);
        self.order += 1;
        self.keys.push(Reverse((u64::try_from(at.as_nanos()).expect("some centuries"), self.order, place)));
    }

    /// The next, unless it is later than that.
    pub(super) fn pop(&mut self, end: Duration) -> Option<(Duration, T)> {
        let &Reverse((at, _, place)) = self.keys.peek()?;
        let at = Duration::from_nanos(at);
        if at > end {
            return None;
        }
        self.keys.pop();
        self.free.push(place);
        self.items[place as usize].take().map(|item| (at, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_is_the_earliest_and_of_equals_the_first() {
        let mut queue = Queue::default();
        for (at, name) in [(5, "c"), (1, "a"), (5, "d"), (1, "b"), (9, "z")] {
            queue.push(Duration::from_nanos(at), name);
        }
        let mut seen = Vec::new();
        while let Some((_, name)) = queue.pop(Duration::from_nanos(5)) {
            seen.push(name);
            if name == "a" {
                queue.push(Duration::from_nanos(4), "between");
            }
        }
        assert_eq!(seen, ["a", "b", "between", "c", "d"]);
    }
}
