//! A bar on stderr, where somebody watches it; nothing otherwise.

use std::collections::BTreeMap;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use swarm_proto::{JobId, ledger::Counts};

use crate::{output, view};

/// How far bytes are on their way.
pub struct Bar(pub ProgressBar);

impl Bar {
    /// Visible if stderr is a terminal. `size`: how many come, where that is known.
    pub fn new(size: Option<u64>) -> Self {
        let bar = Self(ProgressBar::with_draw_target(None, target(true)).with_style(style("{bytes} {binary_bytes_per_sec} {msg}")));
        bar.learn(size);
        bar
    }

    /// How many come, where that was not known.
    pub fn learn(&self, size: Option<u64>) {
        if let (Some(size), None) = (size, self.0.length()) {
            self.0.set_length(size);
            self.0.set_style(style("{bar:32} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {msg}"));
        }
    }

    /// So far, with something to say.
    pub fn at(&self, have: u64, size: u64, message: String) {
        self.0.set_length(size);
        self.0.set_position(have);
        self.0.set_message(message);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is fixed")
}

/// How far one or more jobs are.
pub struct Progress {
    bar: ProgressBar,
    jobs: BTreeMap<JobId, Counts>,
}

/// stderr, if a bar is wanted there and somebody may be looking at it.
pub fn target(is_wanted: bool) -> ProgressDrawTarget {
    if is_wanted && output::is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

impl Progress {
    /// Visible if it is wanted and stderr is a terminal.
    pub fn new(is_wanted: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), target(is_wanted));
        Self { bar: bar.with_style(style("{bar:32} {pos}/{len} {msg}")), jobs: BTreeMap::new() }
    }

    /// One job is this far.
    pub fn update(&mut self, job: JobId, counts: Counts) {
        self.jobs.insert(job, counts);
        let mut all = Counts::default();
        for counts in self.jobs.values() {
            all.pending += counts.pending;
            all.assigned += counts.assigned;
            all.succeeded += counts.succeeded;
            all.failed += counts.failed;
            all.cancelled += counts.cancelled;
            all.lost += counts.lost;
        }
        self.bar.set_length(all.total());
        self.bar.set_position(all.total() - all.open());
        self.bar.set_message(view::counts(&all));
    }

    /// Runs `print` with the bar out of its way.
    pub fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
