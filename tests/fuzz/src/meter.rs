//! What an input costs: the most memory that its thread held beyond what it had before, and processor time.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::Duration,
};

thread_local! {
    /// Bytes held now and at most, since the input began. What was there before may go, so both can be below zero.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(change: isize) {
    // a thread that ends has no cells any more, and nothing to count
    let _ = HELD.try_with(|held| {
        held.set(held.get().wrapping_add(change));
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

const fn bytes(layout: Layout) -> isize {
    layout.size().cast_signed()
}

// SAFETY: each method is the system allocator's own; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(bytes(layout));
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(bytes(layout));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-bytes(layout));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // both may be there for a moment
        count(size.cast_signed());
        count(-bytes(layout));
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// What one input took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes at most.
    pub memory: usize,
    /// Processor time of this thread.
    pub time: Duration,
}

/// Does it, and says what it took.
pub(crate) fn measure(what: impl FnOnce()) -> Cost {
    HELD.set(0);
    MOST.set(0);
    let began = processor_time();
    what();
    Cost { memory: MOST.get().max(0).cast_unsigned(), time: processor_time().saturating_sub(began) }
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_is_counted_and_what_was_there_before_is_not() {
        let before = vec![1u8; 5_000_000];
        let cost = measure(|| {
            drop(before);
            drop(std::hint::black_box(vec![0u8; 3_000_000]));
            drop(std::hint::black_box(vec![0u8; 1_000_000]));
        });
        assert_eq!(cost.memory, 0, "what goes makes room");
        let cost = measure(|| {
            let mut grown = Vec::<u8>::with_capacity(1_000);
            grown.reserve_exact(2_000_000);
            drop(std::hint::black_box(grown));
        });
        assert_eq!(cost.memory, 2_001_000);
    }
}
