//! Where each task of a job stands, in at most four bytes an index and none at all for what was never touched.
//!
//! ```text
//!   array of 10,000,000      base: fresh          every page that is not there
//!     page 0  Same(succeeded)                      256 indices that agree: one word
//!     page 1  Mixed [kept 17, held 3, fresh, ..]   a word an index, which names the task's slot if there is more to know
//! ```
//! A page that comes to agree again collapses. Pages count their pending cells, so that looking for the next pending task
//! steps over whole pages, and over whole gaps.

use std::{collections::BTreeMap, sync::Arc};

use swarm_proto::ledger::TaskState;

/// Indices in a page.
const PAGE: u32 = 256;

/// One task's place. Slots are those of [`super::tasks::Tasks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// Pending, never granted.
    Fresh,
    /// Ended, and only the state is still known.
    Bare(TaskState),
    /// Pending, for another attempt.
    Waiting(u32),
    /// Assigned.
    Held(u32),
    /// Ended, with details.
    Kept(u32),
}

/// A cell in one word: three bits of kind, then the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u32);

const FRESH: Word = Word(0);
const WAITING: u32 = 5;
const HELD: u32 = 6;
const KEPT: u32 = 7;

impl Word {
    const fn of(cell: Cell) -> Self {
        match cell {
            // only terminal states are bare
            Cell::Fresh | Cell::Bare(TaskState::Pending | TaskState::Assigned) => FRESH,
            Cell::Bare(TaskState::Succeeded) => Self(1),
            Cell::Bare(TaskState::Failed) => Self(2),
            Cell::Bare(TaskState::Cancelled) => Self(3),
            Cell::Bare(TaskState::Lost) => Self(4),
            Cell::Waiting(slot) => Self(slot << 3 | WAITING),
            Cell::Held(slot) => Self(slot << 3 | HELD),
            Cell::Kept(slot) => Self(slot << 3 | KEPT),
        }
    }

    const fn cell(self) -> Cell {
        match self.0 & 7 {
            0 => Cell::Fresh,
            1 => Cell::Bare(TaskState::Succeeded),
            2 => Cell::Bare(TaskState::Failed),
            3 => Cell::Bare(TaskState::Cancelled),
            4 => Cell::Bare(TaskState::Lost),
            WAITING => Cell::Waiting(self.0 >> 3),
            HELD => Cell::Held(self.0 >> 3),
            _ => Cell::Kept(self.0 >> 3),
        }
    }

    const fn is_pending(self) -> bool {
        matches!(self.0 & 7, 0 | WAITING)
    }

    const fn has_slot(self) -> bool {
        self.0 & 7 >= WAITING
    }
}

/// The cells of one job.
#[derive(Clone, Debug)]
pub(super) enum Cells {
    One(Word),
    Many(Box<Many>),
}

#[derive(Clone, Debug)]
pub(super) struct Many {
    count: u32,
    /// What the cells of a missing page are.
    base: Word,
    /// No page before this one has a pending cell.
    low: u32,
    mixed: u32,
    pages: BTreeMap<u32, Page>,
}

#[derive(Clone, Debug)]
enum Page {
    Same(Word),
    /// Shared with a snapshot that is being encoded.
    Mixed(Arc<Mixed>),
}

#[derive(Clone, Debug)]
struct Mixed {
    words: [Word; PAGE as usize],
    pending: u16,
    slots: u16,
}

impl Page {
    fn word(&self, at: u32) -> Word {
        match self {
            Self::Same(word) => *word,
            Self::Mixed(mixed) => mixed.words[at as usize],
        }
    }

    fn has_pending(&self) -> bool {
        match self {
            Self::Same(word) => word.is_pending(),
            Self::Mixed(mixed) => mixed.pending > 0,
        }
    }
}

impl Mixed {
    #[expect(clippy::cast_possible_truncation, reason = "a page has 256 cells")]
    const fn filled(word: Word, len: u32) -> Self {
        Self { words: [word; PAGE as usize], pending: if word.is_pending() { len as u16 } else { 0 }, slots: 0 }
    }

    fn set(&mut self, at: u32, word: Word) {
        let old = std::mem::replace(&mut self.words[at as usize], word);
        self.pending = self.pending + u16::from(word.is_pending()) - u16::from(old.is_pending());
        self.slots = self.slots + u16::from(word.has_slot()) - u16::from(old.has_slot());
    }

    /// The word that all `len` cells are, if they agree and say no more than a state.
    fn agreed(&self, len: u32) -> Option<Word> {
        let first = self.words[0];
        (self.slots == 0 && self.words[..len as usize].iter().all(|word| *word == first)).then_some(first)
    }
}

/// A stretch of cells that agree; those with a slot stand alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) cell: Cell,
}

impl Run {
    pub(super) const fn end(self) -> u32 {
        self.offset + self.len
    }
}

impl Cells {
    /// All fresh.
    pub(super) fn new(count: u32) -> Self {
        Self::all(count, FRESH)
    }

    fn all(count: u32, base: Word) -> Self {
        match count {
            1 => Self::One(base),
            _ => Self::Many(Box::new(Many { count, base, low: 0, mixed: 0, pages: BTreeMap::new() })),
        }
    }

    /// As `runs` say, which follow each other without a gap.
    pub(super) fn from_runs(count: u32, runs: &[Run]) -> Self {
        let is_bare = |run: &&Run| !Word::of(run.cell).has_slot();
        let fresh = runs.iter().find(|run| run.cell == Cell::Fresh);
        let base = fresh.or_else(|| runs.iter().filter(is_bare).max_by_key(|run| run.len)).map_or(FRESH, |run| Word::of(run.cell));
        let mut cells = Self::all(count, base);
        for run in runs.iter().filter(|run| Word::of(run.cell) != base) {
            cells.fill(*run);
        }
        if let Self::Many(many) = &mut cells {
            many.low = many.page_with_pending(0);
        }
        cells
    }

    /// Sets a whole run; whole pages at once.
    fn fill(&mut self, run: Run) {
        let word = Word::of(run.cell);
        let mut at = run.offset;
        while at < run.end() {
            match self {
                Self::Many(many) if !word.has_slot() && at.is_multiple_of(PAGE) && run.end() - at >= many.page_len(at / PAGE) => {
                    many.pages.insert(at / PAGE, Page::Same(word));
                    at += many.page_len(at / PAGE);
                }
                Self::One(_) | Self::Many(_) => {
                    self.set(at, run.cell);
                    at += 1;
                }
            }
        }
    }

    pub(super) fn get(&self, offset: u32) -> Cell {
        match self {
            Self::One(word) => word.cell(),
            Self::Many(many) => many.pages.get(&(offset / PAGE)).map_or(many.base, |page| page.word(offset % PAGE)).cell(),
        }
    }

    pub(super) fn set(&mut self, offset: u32, cell: Cell) {
        match self {
            Self::One(word) => *word = Word::of(cell),
            Self::Many(many) => many.set(offset, Word::of(cell)),
        }
    }

    /// The next pending run that begins at or after `from`, cut at `to`.
    pub(super) fn next_pending(&self, from: u32, to: u32) -> Option<Run> {
        match self {
            Self::One(word) => (from == 0 && to > 0 && word.is_pending()).then(|| Run { offset: 0, len: 1, cell: word.cell() }),
            Self::Many(many) => many.next_pending(from, to),
        }
    }

    /// The run that `at` is in, from there on.
    fn run_at(&self, at: u32) -> Run {
        match self {
            Self::One(word) => Run { offset: at, len: 1, cell: word.cell() },
            Self::Many(many) => many.run_at(at),
        }
    }

    /// Every cell from `from` on. Neighbouring runs may agree.
    pub(super) fn runs(&self, from: u32) -> impl Iterator<Item = Run> + '_ {
        let (mut at, count) = (from, self.count());
        std::iter::from_fn(move || {
            (at < count).then(|| {
                let run = self.run_at(at);
                at = run.end();
                run
            })
        })
    }

    /// Every fresh cell becomes bare and cancelled; says how many there were.
    pub(super) fn cancel_fresh(&mut self) -> u32 {
        let cancelled = Word::of(Cell::Bare(TaskState::Cancelled));
        match self {
            Self::One(word) if *word == FRESH => {
                *word = cancelled;
                1
            }
            Self::One(_) => 0,
            Self::Many(many) => many.cancel_fresh(cancelled),
        }
    }

    const fn count(&self) -> u32 {
        match self {
            Self::One(_) => 1,
            Self::Many(many) => many.count,
        }
    }

    /// Bytes of memory, roughly.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::One(_) => 0,
            Self::Many(many) => 32 * many.pages.len() as u64 + size_of::<Mixed>() as u64 * u64::from(many.mixed),
        }
    }

    /// Recounts what the pages say of themselves.
    pub(super) fn sanity_check(&self) -> Result<(), String> {
        let Self::Many(many) = self else { return Ok(()) };
        let mut mixed = 0;
        for (number, page) in &many.pages {
            let len = many.page_len(*number) as usize;
            match page {
                Page::Same(word) if word.has_slot() => return Err(format!("page {number} is all one slot")),
                Page::Same(_) => {}
                Page::Mixed(page) => {
                    let words = &page.words[..len];
                    let pending = words.iter().filter(|word| word.is_pending()).count();
                    let slots = words.iter().filter(|word| word.has_slot()).count();
                    if (pending, slots) != (usize::from(page.pending), usize::from(page.slots)) {
                        return Err(format!("page {number} counts {}/{}, has {pending}/{slots}", page.pending, page.slots));
                    }
                    mixed += 1;
                }
            }
            if page.has_pending() && *number < many.low {
                return Err(format!("page {number} has pending cells before {}", many.low));
            }
        }
        if mixed == many.mixed { Ok(()) } else { Err(format!("{mixed} mixed pages, counted {}", many.mixed)) }
    }
}

impl Many {
    fn page_len(&self, number: u32) -> u32 {
        PAGE.min(self.count - number * PAGE)
    }

    const fn pages_in_all(&self) -> u32 {
        self.count.div_ceil(PAGE)
    }

    fn set(&mut self, offset: u32, word: Word) {
        let (number, at) = (offset / PAGE, offset % PAGE);
        let len = self.page_len(number);
        let page = self.pages.entry(number).or_insert(Page::Same(self.base));
        if let Page::Same(all) = *page {
            if all == word {
                return;
            }
            *page = Page::Mixed(Arc::new(Mixed::filled(all, len)));
            self.mixed += 1;
        }
        if let Page::Mixed(mixed) = page {
            Arc::make_mut(mixed).set(at, word);
            if let Some(agreed) = mixed.agreed(len) {
                *page = Page::Same(agreed);
                self.mixed -= 1;
            }
        }
        if word.is_pending() {
            self.low = self.low.min(number);
        } else if number == self.low && !page.has_pending() {
            self.low = self.page_with_pending(number);
        }
    }

    /// The first page at or after `from` with a pending cell; the number of pages if there is none.
    fn page_with_pending(&self, from: u32) -> u32 {
        let mut at = from;
        for (number, page) in self.pages.range(from..) {
            if self.base.is_pending() && at < *number {
                return at;
            }
            if page.has_pending() {
                return *number;
            }
            at = number + 1;
        }
        if self.base.is_pending() { at.min(self.pages_in_all()) } else { self.pages_in_all() }
    }

    fn next_pending(&self, from: u32, to: u32) -> Option<Run> {
        let (mut at, to) = (from.max(self.low * PAGE), to.min(self.count));
        while at < to {
            let number = self.page_with_pending(at / PAGE);
            at = at.max(number.saturating_mul(PAGE));
            // cells of this page before `at` may be the pending ones
            while at < to && at / PAGE == number {
                let run = self.run_at(at);
                if Word::of(run.cell).is_pending() {
                    return Some(Run { len: run.len.min(to - at), ..run });
                }
                at = run.end();
            }
        }
        None
    }

    fn run_at(&self, at: u32) -> Run {
        let number = at / PAGE;
        let next = self.pages.range(number..).next();
        let (word, end) = match next {
            Some((found, page)) if *found == number => {
                let page_end = number * PAGE + self.page_len(number);
                let word = page.word(at % PAGE);
                let end = match page {
                    Page::Same(_) => page_end,
                    Page::Mixed(_) if word.has_slot() => at + 1,
                    Page::Mixed(_) => (at + 1..page_end).find(|other| page.word(other % PAGE) != word).unwrap_or(page_end),
                };
                (word, end)
            }
            Some((found, _)) => (self.base, found * PAGE),
            None => (self.base, self.count),
        };
        Run { offset: at, len: end - at, cell: word.cell() }
    }

    fn cancel_fresh(&mut self, cancelled: Word) -> u32 {
        let mut fresh = 0;
        if self.base == FRESH {
            let there: u32 = self.pages.keys().map(|number| self.page_len(*number)).sum();
            fresh += self.count - there;
            self.base = cancelled;
        }
        let (count, mut mixed_pages) = (self.count, self.mixed);
        for (number, page) in &mut self.pages {
            let len = PAGE.min(count - number * PAGE);
            match page {
                Page::Same(word) if *word == FRESH => {
                    *word = cancelled;
                    fresh += len;
                }
                Page::Same(_) => {}
                Page::Mixed(mixed) => {
                    let own = Arc::make_mut(mixed);
                    for at in 0..len {
                        if own.words[at as usize] == FRESH {
                            own.set(at, cancelled);
                            fresh += 1;
                        }
                    }
                    if let Some(agreed) = mixed.agreed(len) {
                        *page = Page::Same(agreed);
                        mixed_pages -= 1;
                    }
                }
            }
        }
        self.mixed = mixed_pages;
        self.low = self.page_with_pending(0);
        fresh
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ten_million_fresh_cells_cost_nothing() {
        let cells = Cells::new(10_000_000);
        assert_eq!(cells.weight(), 0);
        assert_eq!(cells.next_pending(0, u32::MAX), Some(Run { offset: 0, len: 10_000_000, cell: Cell::Fresh }));
        assert_eq!(cells.runs(0).count(), 1);
    }

    #[test]
    fn pages_that_agree_collapse() {
        let mut cells = Cells::new(1_000);
        for offset in 0..1_000 {
            cells.set(offset, Cell::Held(offset));
        }
        assert!(cells.weight() > 4_000);
        assert_eq!(cells.next_pending(0, 1_000), None);
        for offset in (0..1_000).rev() {
            cells.set(offset, Cell::Bare(TaskState::Succeeded));
        }
        assert_eq!(cells.weight(), 4 * 32);
        cells.sanity_check().unwrap();
    }

    fn cell() -> impl Strategy<Value = Cell> {
        prop_oneof![
            Just(Cell::Fresh),
            prop_oneof![Just(TaskState::Succeeded), Just(TaskState::Failed), Just(TaskState::Cancelled), Just(TaskState::Lost)]
                .prop_map(Cell::Bare),
            (0u32..9).prop_map(Cell::Waiting),
            (0u32..9).prop_map(Cell::Held),
            (0u32..9).prop_map(Cell::Kept),
        ]
    }

    proptest! {
        /// Cells against a plain vector.
        #[test]
        fn cells_are_a_vector(
            count in prop_oneof![Just(1u32), 2u32..20, 250u32..260, 500u32..800],
            writes in prop::collection::vec((any::<prop::sample::Index>(), 1usize..300, cell()), 0..12),
            cancel in any::<bool>(),
        ) {
            let mut cells = Cells::new(count);
            let mut plain = vec![Cell::Fresh; count as usize];
            for (at, len, cell) in writes {
                let at = at.index(count as usize);
                for (offset, plain) in plain.iter_mut().enumerate().skip(at).take(len) {
                    cells.set(offset as u32, cell);
                    *plain = cell;
                }
                cells.sanity_check().map_err(TestCaseError::fail)?;
            }
            if cancel {
                let fresh = plain.iter_mut().filter(|cell| **cell == Cell::Fresh).map(|cell| *cell = Cell::Bare(TaskState::Cancelled)).count();
                prop_assert_eq!(cells.cancel_fresh() as usize, fresh);
                cells.sanity_check().map_err(TestCaseError::fail)?;
            }
            let runs: Vec<Run> = cells.runs(0).collect();
            let again = Cells::from_runs(count, &runs);
            again.sanity_check().map_err(TestCaseError::fail)?;
            for cells in [&cells, &again] {
                let listed: Vec<Cell> = cells.runs(0).flat_map(|run| (0..run.len).map(move |_| run.cell)).collect();
                prop_assert_eq!(&listed, &plain);
                let (mut at, mut pending) = (0, Vec::new());
                while let Some(run) = cells.next_pending(at, count) {
                    pending.extend(run.offset..run.end());
                    at = run.end();
                }
                let want: Vec<u32> = (0..count).filter(|at| matches!(plain[*at as usize], Cell::Fresh | Cell::Waiting(_))).collect();
                prop_assert_eq!(pending, want);
            }
        }
    }
}
