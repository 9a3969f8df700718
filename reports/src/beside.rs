//! A drill beside the simulator: what was measured on real processes, and what the same scenario took in many simulated seeds.

use crate::{
    Quantiles, RunResult, ScenarioResult, State, TIMINGS,
    terminal::{Colour, lines, span, table},
};
use std::collections::BTreeMap;

/// A table of every timing that either has measured, with its budget.
#[must_use]
pub fn timings(drilled: &ScenarioResult, simulated: &ScenarioResult, colour: Colour) -> String {
    let headings = ["timing", "n", "p50", "max", "sim n", "sim p50", "sim p95", "sim max", "budget", ""];
    let mut table = table(&headings, &[0, 9]);
    for name in TIMINGS {
        let (real, model) = (drilled.quantiles(name), simulated.quantiles(name));
        if real.is_none() && model.is_none() {
            continue;
        }
        let cell = |quantiles: &Option<Quantiles>, of: fn(&Quantiles) -> u64| {
            quantiles.as_ref().map_or("-".to_owned(), |quantiles| span(of(quantiles)))
        };
        let samples =
            |quantiles: &Option<Quantiles>| quantiles.as_ref().map_or("-".to_owned(), |q| q.samples.to_string());
        let budget = drilled.budgets.get(name).map_or(String::new(), |&ns| format!("< {}", span(ns)));
        table.add_row([
            name.to_owned(),
            samples(&real),
            cell(&real, |q| q.p50_ns),
            cell(&real, |q| q.max_ns),
            samples(&model),
            cell(&model, |q| q.p50_ns),
            cell(&model, |q| q.p95_ns),
            cell(&model, |q| q.max_ns),
            budget,
            difference(real.as_ref(), model.as_ref()),
        ]);
    }
    let text = lines(&table);
    let (head, rest) = text.split_once('\n').unwrap_or((&text, ""));
    format!("{}\n{rest}", colour.faint(head))
}

/// What a reader should look at.
fn difference(real: Option<&Quantiles>, model: Option<&Quantiles>) -> String {
    match (real, model) {
        (Some(real), Some(model)) if real.max_ns > model.max_ns => "slower than every simulated one".into(),
        (Some(real), Some(model)) if real.p50_ns > model.p95_ns => "mostly slower than simulated".into(),
        (Some(real), Some(model)) if real.p50_ns.saturating_mul(2) < model.p50_ns => {
            "twice as fast as simulated".into()
        }
        (Some(_), Some(_)) => String::new(),
        (Some(_), None) => "never simulated".into(),
        (None, _) => "not measured".into(),
    }
}

/// What came of every invariant in these runs: how many held, which broke, and which were not checked and why.
#[must_use]
pub fn invariants(runs: &[RunResult], colour: Colour) -> String {
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut broken, mut unchecked) = (BTreeMap::new(), BTreeMap::new());
    for verdict in runs.iter().flat_map(|run| &run.verdicts) {
        match &verdict.state {
            State::Held => *held.entry(&verdict.id).or_default() += 1,
            State::Broken => *broken.entry(verdict.id.as_str()).or_insert(0_usize) += 1,
            State::NotChecked(why) => drop(unchecked.insert(verdict.id.as_str(), why.as_str())),
        }
    }
    let always = held.iter().filter(|(id, _)| !broken.contains_key(*id) && !unchecked.contains_key(*id));
    let names: Vec<_> = always.map(|(id, _)| *id).collect();
    let mut text = format!("invariants  {} held: {}\n", colour.green(&names.len().to_string()), names.join(" "));
    for (id, times) in &broken {
        text += &format!("  {} in {times} of {} runs\n", colour.red(&format!("{id} broke")), runs.len());
    }
    for (id, why) in &unchecked {
        text += &format!("  {}: {why}\n", colour.yellow(&format!("{id} not checked")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, Verdict};

    fn scenario(spans: &[u64]) -> ScenarioResult {
        let verdict = |id: &str, state| Verdict { id: id.into(), sentence: "must".into(), state };
        let run = RunResult {
            scenario: "worker-crash".into(),
            seed: 1,
            source: Source::Drill { provoked: 1, skipped: Vec::new() },
            events: 1,
            entries: 1,
            span_ns: 1,
            wall_ns: 1,
            verdicts: vec![verdict("O1", State::Held), verdict("O9", State::NotChecked("one etcd".into()))],
            violation: None,
            misses: Vec::new(),
            timings: BTreeMap::from([("failover".to_owned(), spans.to_vec())]),
            probes: BTreeMap::new(),
            metrics: BTreeMap::new(),
        };
        ScenarioResult {
            name: "worker-crash".into(),
            summary: "a crash".into(),
            file: 0,
            settings: Vec::new(),
            budgets: BTreeMap::from([("failover".to_owned(), 30_000_000_000)]),
            runs: vec![run],
            nondeterminism: None,
        }
    }

    #[test]
    fn measured_stands_beside_simulated_and_its_budget() {
        const S: u64 = 1_000_000_000;
        let (real, model) = (scenario(&[12 * S, 16 * S]), scenario(&[10 * S, 11 * S, 15 * S]));
        let text = timings(&real, &model, Colour(false));
        let row: Vec<_> = text.lines().nth(1).expect("a row").split_whitespace().collect();
        assert_eq!(row[..4], ["failover", "2", "12.0", "s"]);
        assert!(text.contains("< 30.0 s  slower than every simulated one"), "{text}");
        assert_eq!(text.lines().count(), 2, "what nobody measured is no row");
        let text = invariants(&real.runs, Colour(false));
        assert_eq!(text, "invariants  1 held: O1\n  O9 not checked: one etcd\n");
    }
}
