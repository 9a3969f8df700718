//! What a run has come to: verdicts, timings, and what did not come about.

use super::Run;
use crate::{
    checkers::{Invariant, Verdict as Checked},
    format::Timing,
    nodes::{character, players},
};
use worldline_reports::{Miss, RunResult, State, Verdict};
use worldline_system::time::{Duration, Instant};

impl Run<'_> {
    pub(super) fn result(mut self, seed: u64, wall_ns: u64) -> RunResult {
        let spans = self.stopwatch.spans();
        let nanos = |spans: &Vec<Duration>| spans.iter().map(|span| span.as_nanos()).collect();
        let timings = spans.iter().map(|(timing, spans)| (timing.name().to_owned(), nanos(spans))).collect();
        let misses = if self.finished && self.violation.is_none() { self.misses() } else { Vec::new() };
        let probes = self.world.probes().map(|(name, count)| (name.to_owned(), count));
        RunResult {
            scenario: self.scenario.name.clone(),
            seed,
            hash: self.world.hash(),
            events: self.world.events(),
            entries: self.entries,
            simulated_ns: self.world.now().as_nanos(),
            wall_ns,
            verdicts: self.checkers.verdicts().into_iter().map(verdict).collect(),
            violation: self.violation.take(),
            misses,
            timings,
            probes: probes.chain(self.sinks.probes()).collect(),
        }
    }

    /// What did not come about: faults, budgets, progress after the heal.
    fn misses(&self) -> Vec<Miss> {
        let mut misses = Vec::new();
        let mut miss = |name: &str, sentence| misses.push(Miss { name: name.to_owned(), sentence });
        for index in 0..self.scenario.faults.len() {
            if !self.begun.contains(&index) {
                miss("fault", format!("fault {} of the file found no node to happen at", index + 1));
            }
        }
        for budget in &self.scenario.budgets {
            let (name, within) = (budget.timing.name(), budget.within);
            match self.stopwatch.spans().get(&budget.timing).and_then(|spans| spans.iter().max()) {
                Some(&worst) if worst > within => miss(name, format!("{name} took {worst}, its budget is {within}")),
                Some(_) => {}
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
