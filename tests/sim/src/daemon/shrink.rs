//! Makes a failing plan smaller: fewer faults, an earlier end, fewer nodes, as long as it fails in the same way (Zeller and
//! Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).

use super::{Act, Outcome, Plan, run};

/// A plan that was made smaller.
#[derive(Debug)]
pub struct Shrunk {
    pub plan: Plan,
    /// How it fails.
    pub violations: Vec<String>,
    /// Worlds that were run for it.
    pub runs: usize,
}

/// Looks for a smaller plan that fails like this one, in at most so many runs. `None`: the plan does not fail.
pub fn shrink(plan: &Plan, most: usize) -> Option<Shrunk> {
    shrink_with(plan, most, run)
}

fn shrink_with(plan: &Plan, most: usize, run: impl Fn(&Plan) -> Outcome) -> Option<Shrunk> {
    let violations = run(plan).violations;
    let kind = kind(violations.first()?);
    let mut search = Search { best: Shrunk { plan: plan.clone(), violations, runs: 1 }, kind, most, run };
    search.drop_acts();
    search.end_early();
    search.drop_nodes();
    search.drop_acts();
    Some(search.best)
}

/// A violation without what varies from run to run: its words without figures and names.
fn kind(violation: &str) -> String {
    violation.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit())).take(8).collect::<Vec<_>>().join(" ")
}

struct Search<R> {
    best: Shrunk,
    kind: String,
    most: usize,
    run: R,
}

impl<R: Fn(&Plan) -> Outcome> Search<R> {
    /// Keeps the plan if it fails in the same way.
    fn try_out(&mut self, plan: Plan) -> bool {
        if self.best.runs >= self.most || plan == self.best.plan {
            return false;
        }
        self.best.runs += 1;
        let violations = (self.run)(&plan).violations;
        let is_same = violations.iter().any(|violation| kind(violation) == self.kind);
        if is_same {
            (self.best.plan, self.best.violations) = (plan, violations);
        }
        is_same
    }

    /// Halves, then quarters, down to single faults.
    fn drop_acts(&mut self) {
        let mut size = self.best.plan.acts.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.best.plan.acts.len() {
                let mut plan = self.best.plan.clone();
                plan.acts.drain(at..(at + size).min(plan.acts.len()));
                if !self.try_out(plan) {
                    at += size;
                }
            }
            size /= 2;
        }
    }

    /// The last repair right after the last fault, or half way to it.
    fn end_early(&mut self) {
        let last = self.best.plan.acts.last().map_or(0, |(at, _)| *at);
        for end in [last, last + (self.best.plan.end.saturating_sub(last)) / 2] {
            if self.try_out(Plan { end, ..self.best.plan.clone() }) {
                return;
            }
        }
    }

    /// Only hosts that no fault names can go.
    fn drop_nodes(&mut self) {
        while self.best.plan.nodes > 3 {
            let nodes = self.best.plan.nodes - 1;
            let is_named = |act: &Act| act.hosts().iter().any(|host| *host > nodes);
            let plan = Plan { nodes, ..self.best.plan.clone() };
            if plan.acts.iter().any(|(_, act)| is_named(act)) || !self.try_out(plan) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Fails where the host 2 is killed after a split and before a repair, with at least 4 nodes.
    fn pretend(plan: &Plan) -> Outcome {
        let mut is_split = false;
        let mut fails = false;
        for (_, act) in &plan.acts {
            is_split = matches!(act, Act::Split(_)) || (is_split && *act != Act::Repair);
            fails |= is_split && *act == Act::Kill(2);
        }
        let violations = if fails && plan.nodes > 3 { vec![format!("j{} was lost", plan.acts.len())] } else { Vec::new() };
        Outcome {
            trace: String::new(),
            acknowledged: 0,
            reruns: 0,
            terms: 0,
            datagrams: 0,
            calls: 0,
            operations: 0,
            faults: Vec::new(),
            violations,
            rest: Duration::ZERO,
            simulated: Duration::ZERO,
            wall: Duration::ZERO,
        }
    }

    #[test]
    fn only_what_it_takes_is_left() {
        let mut plan = Plan::of(4);
        plan.acts = (0..40).map(|n| (n * 100, if n % 3 == 0 { Act::Kill(1 + n % 3) } else { Act::Loss(n) })).collect();
        plan.acts.extend([(5_000, Act::Split(1)), (5_100, Act::Loss(3)), (5_200, Act::Kill(2)), (5_300, Act::Repair)]);
        (plan.nodes, plan.end) = (7, 9_000);
        let shrunk = shrink_with(&plan, 500, pretend).unwrap();
        assert_eq!(shrunk.plan.acts, [(5_000, Act::Split(1)), (5_200, Act::Kill(2))]);
        assert_eq!((shrunk.plan.nodes, shrunk.plan.end), (4, 5_200));
        assert!(shrunk.runs < 60, "{}", shrunk.runs);
    }

    #[test]
    fn what_does_not_fail_is_not_shrunk_and_a_bound_holds() {
        let mut plan = Plan::of(4);
        plan.acts = vec![(1, Act::Kill(2))];
        assert!(shrink_with(&plan, 500, pretend).is_none());
        plan.acts = (0..90).map(|n| (n, if n == 0 { Act::Split(1) } else { Act::Kill(2) })).collect();
        plan.nodes = 5;
        assert_eq!(shrink_with(&plan, 10, pretend).unwrap().runs, 10);
    }
}
