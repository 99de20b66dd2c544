//! Durations of one thing, what they should be, and whether they are.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

/// A rank of the samples, and what it should be at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Target {
    /// 0.5: the median; 1: the longest.
    pub(crate) quantile: f64,
    pub(crate) at_most_ms: f64,
}

/// One row of a table: how long something took, again and again. Milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    count: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    targets: Vec<Target>,
    /// Every one, in the order in which they were taken.
    all_ms: Vec<f64>,
}

impl Figure {
    /// Of at least one sample.
    pub(crate) fn new(name: impl Into<String>, samples: &[Duration], targets: &[(f64, f64)]) -> Self {
        let all_ms: Vec<f64> = samples.iter().map(|sample| sample.as_secs_f64() * 1e3).collect();
        let mut sorted = all_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let [p50_ms, p99_ms, max_ms] = [0.5, 0.99, 1.0].map(|q| quantile(&sorted, q));
        let targets = targets.iter().map(|&(quantile, at_most_ms)| Target { quantile, at_most_ms }).collect();
        Self { name: name.into(), count: sorted.len(), p50_ms, p99_ms, max_ms, targets, all_ms }
    }

    /// The median.
    pub(crate) const fn p50(&self) -> f64 {
        self.p50_ms
    }

    /// What one in a hundred takes longer than.
    pub(crate) const fn p99(&self) -> f64 {
        self.p99_ms
    }

    /// How far it is over what it should be: 1 is just as much as it may. `None`: it has no target.
    pub(crate) fn worst(&self) -> Option<f64> {
        let mut sorted = self.all_ms.clone();
        sorted.sort_by(f64::total_cmp);
        self.targets.iter().map(|target| quantile(&sorted, target.quantile) / target.at_most_ms).reduce(f64::max)
    }

    fn wanted(&self) -> String {
        let word = |target: &Target| {
            let rank = if target.quantile >= 1.0 { "max".to_owned() } else { format!("p{:.0}", target.quantile * 100.0) };
            format!("{rank} <= {}", target.at_most_ms)
        };
        self.targets.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

/// The smallest of these, which are sorted, that at least the share `q` does not exceed.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ranks of a few thousand samples")]
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// For people.
pub(crate) fn table(figures: &[Figure]) -> String {
    let wide = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
    let mut text = format!("{:wide$} {:>6} {:>9} {:>9} {:>9}   {:24}\n", "milliseconds", "times", "p50", "p99", "max", "should be");
    for figure in figures {
        let Figure { name, count, p50_ms, p99_ms, max_ms, .. } = figure;
        let verdict = figure.worst().map_or("", |worst| if worst <= 1.0 { "met" } else { "MISSED" });
        let _ = writeln!(text, "{name:wide$} {count:>6} {p50_ms:>9.1} {p99_ms:>9.1} {max_ms:>9.1}   {:24} {verdict}", figure.wanted());
    }
    text
}

/// What is over what it should be by more than that factor.
pub(crate) fn missed(figures: &[Figure], factor: f64) -> Vec<String> {
    let over = |figure: &&Figure| figure.worst().is_some_and(|worst| worst > factor);
    figures.iter().filter(over).map(|figure| figure.name.clone()).collect()
}

/// One figure, and what it should be at most.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    at_most: Option<f64>,
}

pub(crate) fn row(what: impl Into<String>, value: f64, unit: &'static str, at_most: impl Into<Option<f64>>) -> Row {
    Row { what: what.into(), value, unit, at_most: at_most.into() }
}

/// All rows of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Rows {
    /// How busy the machine was when it began, and when it ended, this included.
    load: [String; 2],
    figures: Vec<Row>,
}

impl Rows {
    /// `began`: the [`load`] before the first was measured.
    pub(crate) fn new(began: String, figures: Vec<Row>) -> Self {
        Self { load: [began, load()], figures }
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let wide = self.figures.iter().map(|row| row.what.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Row { what, value, unit, at_most } in &self.figures {
            let wanted = at_most.map_or_else(String::new, |most| {
                let verdict = if *value <= most { "met" } else { "MISSED" };
                format!("should be <= {most}: {verdict}")
            });
            let _ = writeln!(text, "{what:wide$} {value:>12.2} {unit:11} {wanted}");
        }
        text + &format!("busy when it began: {}; when it ended: {}\n", self.load[0], self.load[1])
    }
}

/// How many were busy on this machine of late, of how many cores: figures beside others' work are not those of a quiet machine.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{} of {cores} cores", text.split(' ').next().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_over_by_its_worst_target() {
        let samples: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        let figure = Figure::new("x", &samples, &[(0.5, 50.0), (0.99, 66.0)]);
        assert_eq!((figure.p50_ms, figure.p99_ms, figure.max_ms), (50.0, 99.0, 100.0));
        assert_eq!(figure.worst(), Some(1.5));
        assert_eq!(missed(&[figure], 1.4), ["x"]);
    }
}
