//! What is measured, what of it is set beside what, and what the ratios should be (section 9 of the design).

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use crate::median;

/// One figure of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Each submitted singly, up to 1,000 unanswered, to the last outcome at the client.
    TasksPerS,
    /// Microseconds, of all daemons and the client.
    TasksCpu,
    /// Milliseconds, one task at a time.
    TaskAcknowledged,
    TaskTrip,
    TaskTripP99,
    /// Of durability async.
    AsyncAcknowledged,
    AsyncTrip,
    /// While nothing else runs, and while every core is kept busy by tasks.
    IdleTripP99,
    BusyTripP99,
    /// One array job.
    ArrayPerS,
    ArrayCpu,
    /// `true`, each submitted singly.
    ExecPerS,
    /// A bare loop a core.
    SpawnsPerS,
    SyncAlone,
    SyncThree,
    SyncThreeP99,
    SyncThreePerS,
    NatsPerS,
    NatsCpu,
    NatsAcknowledged,
    NatsTrip,
    NatsTripP99,
    EtcdPut,
    EtcdPutP99,
    EtcdPerS,
    EtcdCpu,
    FloorCommit,
    FloorCommitP99,
    FloorPerS,
    FloorCpu,
    HyperQueuePerS,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    PerSecond,
    Milliseconds,
    Microseconds,
}

impl Figure {
    const fn name(self) -> (&'static str, Unit) {
        use Unit::{Microseconds, Milliseconds, PerSecond};
        match self {
            Self::TasksPerS => ("swarm: tasks, each submitted singly", PerSecond),
            Self::TasksCpu => ("swarm: CPU of one of them", Microseconds),
            Self::TaskAcknowledged => ("swarm: one task acknowledged, p50", Milliseconds),
            Self::TaskTrip => ("swarm: one task there and back, p50", Milliseconds),
            Self::TaskTripP99 => ("swarm: one task there and back, p99", Milliseconds),
            Self::AsyncAcknowledged => ("swarm, durability async: acknowledged, p50", Milliseconds),
            Self::AsyncTrip => ("swarm, durability async: there and back, p50", Milliseconds),
            Self::IdleTripP99 => ("swarm: the same, beside the next one", Milliseconds),
            Self::BusyTripP99 => ("swarm: the same, every core busy by tasks", Milliseconds),
            Self::ArrayPerS => ("swarm: tasks of one array", PerSecond),
            Self::ArrayCpu => ("swarm: CPU of one of them", Microseconds),
            Self::ExecPerS => ("swarm: processes (true)", PerSecond),
            Self::SpawnsPerS => ("bare spawn loops (true)", PerSecond),
            Self::SyncAlone => ("fdatasync of 512 B, alone, p50", Milliseconds),
            Self::SyncThree => ("fdatasync, three writers, p50", Milliseconds),
            Self::SyncThreeP99 => ("fdatasync, three writers, p99", Milliseconds),
            Self::SyncThreePerS => ("fdatasync, three writers", PerSecond),
            Self::NatsPerS => ("NATS JetStream R3: tasks", PerSecond),
            Self::NatsCpu => ("NATS: CPU of one of them", Microseconds),
            Self::NatsAcknowledged => ("NATS: one task acknowledged, p50", Milliseconds),
            Self::NatsTrip => ("NATS: one task there and back, p50", Milliseconds),
            Self::NatsTripP99 => ("NATS: one task there and back, p99", Milliseconds),
            Self::EtcdPut => ("three of etcd: one put of 64 B, p50", Milliseconds),
            Self::EtcdPutP99 => ("three of etcd: one put of 64 B, p99", Milliseconds),
            Self::EtcdPerS => ("etcd: puts, 1,000 in flight", PerSecond),
            Self::EtcdCpu => ("etcd: CPU of one of them", Microseconds),
            Self::FloorCommit => ("consensus alone: one commit, p50", Milliseconds),
            Self::FloorCommitP99 => ("consensus alone: one commit, p99", Milliseconds),
            Self::FloorPerS => ("consensus alone: commands, 1,000 in flight", PerSecond),
            Self::FloorCpu => ("consensus alone: CPU of one of them", Microseconds),
            Self::HyperQueuePerS => ("HyperQueue: processes (true), one array", PerSecond),
        }
    }
}

/// What stands on the other side of a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Other {
    Measured(Figure),
    /// Measured now, or else what was written down when it was.
    OrQuoted(Figure, Quote),
    /// The figure itself is judged.
    Nothing,
}

/// A figure from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quote {
    figure: f64,
    from: &'static str,
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

struct Line {
    what: &'static str,
    ours: Figure,
    other: Other,
    should: Option<Bound>,
}

const fn line(what: &'static str, ours: Figure, other: Figure, should: Bound) -> Line {
    Line { what, ours, other: Other::Measured(other), should: Some(should) }
}

/// Without a target.
const fn plain(what: &'static str, ours: Figure, other: Figure) -> Line {
    Line { what, ours, other: Other::Measured(other), should: None }
}

const HYPERQUEUE: Quote =
    Quote { figure: 1_480.0, from: "HyperQueue 0.26.2-dev, 10,000 x true as one array, two workers; two quiet cores, 2026-11-20" };

/// The design's targets, in its order; then what has none.
const LINES: &[Line] = &[
    line("tasks/s, each submitted singly / NATS R3", Figure::TasksPerS, Figure::NatsPerS, Bound::AtLeast(5.0)),
    line("tasks/s of an array / NATS R3", Figure::ArrayPerS, Figure::NatsPerS, Bound::AtLeast(10.0)),
    Line { what: "CPU a task, us", ours: Figure::TasksCpu, other: Other::Nothing, should: Some(Bound::AtMost(15.0)) },
    line("acknowledged / fdatasync, three writers", Figure::TaskAcknowledged, Figure::SyncThree, Bound::AtMost(4.0)),
    line("round trip / one etcd put", Figure::TaskTrip, Figure::EtcdPut, Bound::AtMost(1.0)),
    line("round trip / fdatasync, three writers", Figure::TaskTrip, Figure::SyncThree, Bound::AtMost(8.0)),
    line("round trip p99, every core busy / idle", Figure::BusyTripP99, Figure::IdleTripP99, Bound::AtMost(3.0)),
    line("round trip, durability async / NATS R3", Figure::AsyncTrip, Figure::NatsTrip, Bound::AtMost(0.5)),
    line("processes/s / bare spawn loops", Figure::ExecPerS, Figure::SpawnsPerS, Bound::AtLeast(0.9)),
    // a task is at least two writes of the ledger; it is counted as one
    line("ledger writes/s, 1,000 in flight / etcd", Figure::TasksPerS, Figure::EtcdPerS, Bound::AtLeast(5.0)),
    Line {
        what: "processes/s / HyperQueue",
        ours: Figure::ExecPerS,
        other: Other::OrQuoted(Figure::HyperQueuePerS, HYPERQUEUE),
        should: None,
    },
    plain("round trip / NATS R3, which syncs nothing", Figure::TaskTrip, Figure::NatsTrip),
    plain("CPU a task / NATS R3", Figure::TasksCpu, Figure::NatsCpu),
    plain("acknowledged / commit of consensus alone", Figure::TaskAcknowledged, Figure::FloorCommit),
    plain("tasks/s / commands of consensus alone", Figure::TasksPerS, Figure::FloorPerS),
    plain("CPU a task / command of consensus alone", Figure::TasksCpu, Figure::FloorCpu),
];

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Ratio {
    what: &'static str,
    ratio: f64,
    /// Such as `>= 5`.
    should: Option<String>,
    is_met: Option<bool>,
    /// Where the other side is from when it was not measured now.
    quoted: Option<String>,
}

/// A figure's rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Raw {
    name: &'static str,
    unit: &'static str,
    median: f64,
    /// In the order in which they were taken.
    rounds: Vec<f64>,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Sheet(BTreeMap<Figure, Vec<f64>>);

impl Sheet {
    pub(crate) fn note(&mut self, figures: impl IntoIterator<Item = (Figure, f64)>) {
        for (figure, value) in figures {
            self.0.entry(figure).or_default().push(value);
        }
    }

    fn median(&self, figure: Figure) -> Option<f64> {
        self.0.get(&figure).map(|rounds| median(rounds.clone()))
    }

    /// Those of which both sides are known.
    pub(super) fn ratios(&self) -> Vec<Ratio> {
        LINES.iter().filter_map(|line| self.ratio(line)).collect()
    }

    fn ratio(&self, line: &Line) -> Option<Ratio> {
        let ours = self.median(line.ours)?;
        let (other, quoted) = match line.other {
            Other::Nothing => (1.0, None),
            Other::Measured(figure) => (self.median(figure)?, None),
            Other::OrQuoted(figure, quote) => match self.median(figure) {
                Some(measured) => (measured, None),
                None => (quote.figure, Some(format!("{} ({})", quote.figure, quote.from))),
            },
        };
        let ratio = ours / other;
        let judged = line.should.map(|bound| match bound {
            Bound::AtLeast(least) => (format!(">= {least}"), ratio >= least),
            Bound::AtMost(most) => (format!("<= {most}"), ratio <= most),
        });
        let (should, is_met) = judged.unzip();
        Some(Ratio { what: line.what, ratio, should, is_met, quoted })
    }

    pub(super) fn raw(&self) -> BTreeMap<Figure, Raw> {
        let raw = |(figure, rounds): (&Figure, &Vec<f64>)| {
            let (name, unit) = figure.name();
            (*figure, Raw { name, unit: unit.word(), median: median(rounds.clone()), rounds: rounds.clone() })
        };
        self.0.iter().map(raw).collect()
    }
}

impl Unit {
    const fn word(self) -> &'static str {
        match self {
            Self::PerSecond => "1/s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
        }
    }
}

/// For people: the ratios, and under them what they are made of.
pub(super) fn table(ratios: &[Ratio], raw: &BTreeMap<Figure, Raw>) -> String {
    let mut text = format!("{:<42} {:>8}   {:8}\n", "", "ratio", "should be");
    for Ratio { what, ratio, should, is_met, quoted } in ratios {
        let verdict = is_met.map_or("", |is_met| if is_met { "met" } else { "MISSED" });
        let verdict = if quoted.is_some() { "beside a quoted figure" } else { verdict };
        let _ = writeln!(text, "{what:<42} {ratio:>8.2}   {:8} {verdict}", should.as_deref().unwrap_or("-"));
    }
    let _ = writeln!(text, "\n{:<46} {:>10}      rounds", "raw figures", "median");
    for Raw { name, unit, median, rounds } in raw.values() {
        let number = |value: &f64| if *unit == "1/s" { format!("{value:.0}") } else { format!("{value:.3}") };
        let all: Vec<String> = rounds.iter().map(number).collect();
        let _ = writeln!(text, "{name:<46} {:>10} {unit:<4} ({})", number(median), all.join(", "));
    }
    for quote in ratios.iter().filter_map(|ratio| ratio.quoted.as_ref()) {
        let _ = writeln!(text, "quoted, not measured now: {quote}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet() -> Sheet {
        let mut sheet = Sheet::default();
        for (tasks, nats) in [(90_000.0, 20_000.0), (100_000.0, 19_000.0), (110_000.0, 21_000.0)] {
            sheet.note([(Figure::TasksPerS, tasks), (Figure::NatsPerS, nats), (Figure::TasksCpu, 16.0)]);
        }
        sheet
    }

    #[test]
    fn a_ratio_is_one_of_medians_and_judged() {
        let ratios = sheet().ratios();
        let found: Vec<_> = ratios.iter().map(|r| (r.what, r.ratio, r.should.as_deref(), r.is_met)).collect();
        let expected = [
            ("tasks/s, each submitted singly / NATS R3", 5.0, Some(">= 5"), Some(true)),
            ("CPU a task, us", 16.0, Some("<= 15"), Some(false)),
        ];
        assert_eq!(found, expected, "what was not measured has no ratio");
    }

    #[test]
    fn what_is_quoted_says_so_until_it_is_measured() {
        let mut sheet = Sheet::default();
        sheet.note([(Figure::ExecPerS, 2_960.0)]);
        let quoted = sheet.ratios();
        assert_eq!((quoted[0].ratio, quoted[0].is_met), (2.0, None));
        let text = table(&quoted, &sheet.raw());
        assert!(
            text.contains("beside a quoted figure") && text.contains("quoted, not measured now: 1480 (HyperQueue 0.26.2-dev"),
            "{text}"
        );
        sheet.note([(Figure::HyperQueuePerS, 1_000.0)]);
        assert_eq!((sheet.ratios()[0].ratio, sheet.ratios()[0].quoted.clone()), (2.96, None));
    }

    #[test]
    fn raw_figures_stand_under_the_ratios() {
        let sheet = sheet();
        let text = table(&sheet.ratios(), &sheet.raw());
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let expected = [
            "                                              ratio   should be",
            "tasks/s, each submitted singly / NATS R3       5.00   >= 5     met",
            "CPU a task, us                                16.00   <= 15    MISSED",
            "",
            "raw figures                                        median      rounds",
            "swarm: tasks, each submitted singly                100000 1/s  (90000, 100000, 110000)",
            "swarm: CPU of one of them                          16.000 us   (16.000, 16.000, 16.000)",
            "NATS JetStream R3: tasks                            20000 1/s  (20000, 19000, 21000)",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn every_figure_is_told_apart_in_json() {
        let json = serde_json::to_value(sheet().raw()).unwrap();
        assert_eq!(json["tasks_per_s"]["unit"], "1/s");
        assert_eq!(json["nats_per_s"]["rounds"], serde_json::json!([20_000.0, 19_000.0, 21_000.0]));
    }
}
