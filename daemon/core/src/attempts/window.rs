//! How many attempts this worker will hold at once: those that ask for something of it, twice [`limits::PREFETCH`] for what waits and
//! what asks for nothing, and as many as it has cores for what comes next.
//!
//! What has room, and how much may wait, is for whoever grants to say ([`crate::placement::room`]): capacity bounds what asks for
//! something, so a window that did so too would keep a task that asks for nothing from a node whose cores are all taken. It grows in
//! steps and at once, and shrinks only when the load is told, so that it does not flutter with every batch.

use swarm_proto::{limits, spec::Resources};

#[derive(Debug)]
pub(super) struct Window {
    cores: u32,
    /// Attempts held that ask for something.
    asking: u32,
    size: u32,
}

impl Window {
    pub(super) fn new(milli_cores: u64) -> Self {
        let mut this = Self { cores: 0, asking: 0, size: 0 };
        this.set_capacity(milli_cores);
        this
    }

    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    pub(super) fn set_capacity(&mut self, milli_cores: u64) {
        self.cores = u32::try_from(milli_cores / 1000).unwrap_or(u32::MAX).clamp(1, u32::MAX / 4);
        self.settle();
    }

    pub(super) fn hold(&mut self, needs: &Resources) {
        self.asking += u32::from(*needs != Resources::default());
    }

    pub(super) fn release(&mut self, needs: &Resources) {
        self.asking -= u32::from(*needs != Resources::default());
    }

    /// Takes a larger window over; says whether it did.
    pub(super) fn grow(&mut self) -> bool {
        let wanted = self.wanted();
        let grows = wanted > self.size;
        self.size = self.size.max(wanted);
        grows
    }

    /// Takes the window over that fits now.
    pub(super) fn settle(&mut self) {
        self.size = self.wanted();
    }

    fn wanted(&self) -> u32 {
        (self.asking + self.cores).next_power_of_two() + 2 * limits::PREFETCH
    }
}
