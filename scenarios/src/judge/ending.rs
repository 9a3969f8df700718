//! What a run has come to: verdicts, timings, and what did not come about.

use super::Judge;
use crate::{
    checkers::{Invariant, Verdict as Checked},
    format::Timing,
    nodes::{character, players},
};
use std::collections::BTreeMap;
use worldline_reports::{Miss, RunResult, Skipped, Source, State, Verdict};
use worldline_system::time::{Duration, Instant};

/// What only whoever ran a scenario knows of the run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The seed.
    pub seed: u64,
    /// The trace hash. `None` for what ran on real processes.
    pub hash: Option<u64>,
    /// Events.
    pub events: u64,
    /// How long the run was, by its own clock, in nanoseconds.
    pub span_ns: u64,
    /// Wall time that it took, in nanoseconds.
    pub wall_ns: u64,
    /// How often each probe of the roles was reached.
    pub probes: BTreeMap<String, u64>,
}

impl Judge<'_> {
    /// What the run has come to.
    #[must_use]
    pub fn result(self, ran: Ran) -> RunResult {
        let spans = self.stopwatch.spans();
        let nanos = |spans: &Vec<Duration>| spans.iter().map(|span| span.as_nanos()).collect();
        let timings = spans.iter().map(|(timing, spans)| (timing.name().to_owned(), nanos(spans))).collect();
        let violation = self.violation();
        let misses = if self.finished && violation.is_none() { self.misses() } else { Vec::new() };
        let skipped = self.skipped.iter().map(|(&fault, why)| Skipped { fault: fault + 1, why: why.clone() });
        let source = match ran.hash {
            Some(hash) => Source::Simulator { hash },
            None => Source::Drill { provoked: self.begun.len(), skipped: skipped.collect() },
        };
        RunResult {
            scenario: self.scenario.name.clone(),
            seed: ran.seed,
            source,
            events: ran.events,
            entries: self.entries,
            span_ns: ran.span_ns,
            wall_ns: ran.wall_ns,
            verdicts: self.checkers.verdicts().into_iter().map(verdict).collect(),
            violation,
            misses,
            timings,
            probes: ran.probes.into_iter().chain(self.sinks.probes()).collect(),
            metrics: BTreeMap::new(),
        }
    }

    /// What did not come about: faults, budgets, progress after the heal.
    fn misses(&self) -> Vec<Miss> {
        let mut misses = self.missed.clone();
        let mut miss = |name: &str, sentence| misses.push(Miss { name: name.to_owned(), sentence });
        for index in 0..self.scenario.faults.len() {
            if !self.begun.contains(&index) && !self.skipped.contains_key(&index) {
                miss("fault", format!("fault {} of the file found no node to happen at", index + 1));
            }
        }
        for budget in &self.scenario.budgets {
            let (name, within) = (budget.timing.name(), budget.within);
            match self.stopwatch.spans().get(&budget.timing).and_then(|spans| spans.iter().max()) {
                Some(&worst) if worst > within => miss(name, format!("{name} took {worst}, its budget is {within}")),
                Some(_) => {}
                // What was left out may be what brings it about.
                None if !self.skipped.is_empty() => {}
                None => miss(name, format!("{name} has a budget and was never measured")),
            }
        }
        let failovers = self.scenario.budgets.iter().any(|budget| budget.timing == Timing::Failover);
        for character in self.stopwatch.unfinished().filter(|_| failovers) {
            miss("failover", format!("the player of {character} never saw it again after its owner was lost"));
        }
        for sentence in self.stuck() {
            miss("progress", sentence);
        }
        misses
    }

    /// Players for whom nothing has gone on since the heal.
    fn stuck(&self) -> Vec<String> {
        let Some(healed) = self.healed else { return Vec::new() };
        let mut stuck = Vec::new();
        for player in players(self.scenario) {
            let character = character(player.number);
            if self.away.contains(&character) {
                continue;
            }
            let since = |at: Option<Instant>| at.is_some_and(|at| at >= healed);
            if self.scenario.workload.moves_per_second > 0 && !since(self.stopwatch.seen(character)) {
                stuck.push(format!("the player of {character} has not seen it move since the heal"));
            }
            if self.scenario.workload.target.is_some() && !since(self.stopwatch.acknowledged(character)) {
                stuck.push(format!("no operation of {character} was acknowledged since the heal"));
            }
        }
        stuck
    }
}

fn verdict((invariant, verdict): (Invariant, Checked)) -> Verdict {
    let state = match verdict {
        Checked::Held => State::Held,
        Checked::Broken => State::Broken,
        Checked::NotChecked(why) => State::NotChecked(why.to_owned()),
    };
    Verdict { id: invariant.id().to_owned(), sentence: invariant.sentence().to_owned(), state }
}
