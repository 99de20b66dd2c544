//! Memory that segments come from the disk in. It goes round while anything is given: memory that is asked of the system for each
//! segment is cleared by it page by page, which costs half as much as reading the segment does.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;

/// Segments that wait to be filled; what comes back beyond them is freed.
const IDLE: usize = 16;

/// What waits to be filled. It is freed with the last who holds it.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// Something empty, of some capacity.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, mut memory: Vec<u8>) {
        memory.clear();
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(memory);
        }
    }

    /// These bytes, whose memory comes back once nobody has them any more.
    pub(crate) fn lend(self: &Arc<Self>, data: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { data, home: Arc::downgrade(self) })
    }
}

struct Lent {
    data: Vec<u8>,
    home: Weak<Spare>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.give_back(mem::take(&mut self.data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_when_the_last_part_of_it_is_dropped() {
        let spare = Arc::new(Spare::default());
        let mut bytes = spare.lend(vec![7; 100]);
        let half = bytes.split_to(50);
        drop(bytes);
        assert_eq!(spare.take().capacity(), 0);
        drop(half);
        let memory = spare.take();
        assert!(memory.is_empty() && memory.capacity() >= 100);
        let lent: Vec<Bytes> = (0..IDLE + 5).map(|_| spare.lend(vec![7; 100])).collect();
        drop(lent);
        assert_eq!(spare.0.lock().unwrap().len(), IDLE);
        let last = spare.lend(memory);
        drop(spare);
        drop(last);
    }
}
