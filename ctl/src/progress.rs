//! A bar on stderr, where somebody watches it; nothing otherwise.

use std::collections::BTreeMap;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use swarm_proto::{JobId, ledger::Counts};

use crate::{output, view};

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
        let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {msg}").expect("the template is fixed");
        Self { bar: bar.with_style(style), jobs: BTreeMap::new() }
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
