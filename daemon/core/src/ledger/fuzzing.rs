//! For `tests/fuzz` and the tests here: a ledger that forgets soon, and one that comes back from its snapshot.

use super::{Ledger, bounds::Bounds};

/// Bounds that a few hundred bytes of input reach.
pub(super) const SMALL: Bounds = Bounds {
    open_jobs: 6,
    open_tasks: 40,
    reserved: 9_000,
    keys: 5,
    members: 5,
    events: 60,
    ended_jobs: 4,
    kept_tasks: 12,
    output: 1_000,
    held: u64::MAX,
    tokens: 4,
    users: 3,
};

/// Nothing has happened yet, and little is kept of what will.
pub fn small() -> Ledger {
    Ledger::with_bounds(Bounds { held: 20_000, ..SMALL })
}

/// The same ledger, read from its own snapshot.
///
/// # Panics
/// When it cannot be read.
pub fn reread(ledger: &Ledger) -> Ledger {
    let mut again = Ledger::decode(&ledger.encode()).expect("a ledger reads its own snapshot");
    (again.most, again.bounds) = (ledger.most, ledger.bounds);
    again.journal.capacity = ledger.journal.capacity;
    again
}
