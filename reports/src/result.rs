//! Results of a run, of a scenario over its seeds, and of a suite.

use crate::{Measured, Quantiles, measured};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a run, a scenario or a suite has come to; the worst of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every invariant that was checked held, every budget was kept.
    Held,
    /// Nothing broke, but of the scenario's faults none could be provoked: nothing is known of what it is about.
    Unprovoked,
    /// A budget was missed, or something made no progress after the heal.
    Missed,
    /// An invariant broke.
    Broken,
    /// The same scenario, seed and revision gave two hashes.
    NotDeterministic,
}

impl Outcome {
    /// The exit code of a process that ends so.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Held => 0,
            Self::Broken => 1,
            Self::Missed => 2,
            Self::NotDeterministic => 3,
            Self::Unprovoked => 4,
        }
    }
}

/// What became of one invariant in one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Checked, and never broken.
    Held,
    /// Broken.
    Broken,
    /// Its source was missing: nothing is known.
    NotChecked(String),
}

/// One invariant's verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its id: `O1`.
    pub id: String,
    /// What it demands.
    pub sentence: String,
    /// What became of it.
    pub state: State,
}

/// An event of a run, as a failure names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstEvent {
    /// Its place in the order of all events.
    pub id: u64,
    /// Simulated nanoseconds since the beginning.
    pub at_ns: u64,
    /// The node's name; empty for what concerns no single node.
    pub node: String,
    /// What happened, in words.
    pub what: String,
}

/// An invariant that broke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which.
    pub invariant: String,
    /// What it demands.
    pub sentence: String,
    /// The first event that broke it.
    pub event: FirstEvent,
}

/// Something that was not an invariant's but had to hold: a budget, or progress after the heal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miss {
    /// Its name: `failover`, `progress`.
    pub name: String,
    /// What was demanded, and what was measured.
    pub sentence: String,
}

/// A fault of a scenario that a drill did not provoke.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Which of the file, counted from 1.
    pub fault: usize,
    /// What it is, and why not.
    pub why: String,
}

/// What a run ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The simulator: the same seed gives the same run.
    Simulator {
        /// The trace hash, folded over every event that was delivered.
        #[serde(with = "crate::failure::hex")]
        hash: u64,
    },
    /// Real processes and services: no two runs are the same, and a hash would mean nothing.
    Drill {
        /// How many faults of the file were provoked.
        provoked: usize,
        /// Those that were not.
        skipped: Vec<Skipped>,
    },
}

/// One seed of one scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// What it ran on.
    pub source: Source,
    /// Events delivered; of a drill, the lines of its history.
    pub events: u64,
    /// Lines of history.
    pub entries: u64,
    /// How long it was by its own clock, in nanoseconds: simulated time, or in a drill the time that passed.
    pub span_ns: u64,
    /// Wall time that it took, in nanoseconds. The one figure that two equal simulated runs do not share.
    pub wall_ns: u64,
    /// One for each invariant.
    pub verdicts: Vec<Verdict>,
    /// The first invariant that broke.
    pub violation: Option<Violation>,
    /// What else was missed.
    pub misses: Vec<Miss>,
    /// Measured spans in nanoseconds, by timing.
    pub timings: BTreeMap<String, Vec<u64>>,
    /// How often each probe was reached.
    pub probes: BTreeMap<String, u64>,
    /// What the nodes told of themselves, by series; of a simulated run.
    #[serde(default)]
    pub metrics: BTreeMap<String, Measured>,
}

impl RunResult {
    /// What it has come to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (&self.violation, self.misses.is_empty()) {
            (Some(_), _) => Outcome::Broken,
            (None, false) => Outcome::Missed,
            (None, true) => match &self.source {
                Source::Drill { provoked: 0, skipped } if !skipped.is_empty() => Outcome::Unprovoked,
                _ => Outcome::Held,
            },
        }
    }

    /// The trace hash. `None` for what ran on real processes.
    #[must_use]
    pub const fn hash(&self) -> Option<u64> {
        match self.source {
            Source::Simulator { hash } => Some(hash),
            Source::Drill { .. } => None,
        }
    }

    /// The faults that were not provoked.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        match &self.source {
            Source::Simulator { .. } => &[],
            Source::Drill { skipped, .. } => skipped,
        }
    }
}

/// Two runs of one seed that differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nondeterminism {
    /// The seed.
    pub seed: u64,
    /// The trace hash of the first run.
    #[serde(with = "crate::failure::hex")]
    pub first: u64,
    /// Of the second.
    #[serde(with = "crate::failure::hex")]
    pub second: u64,
}

/// One scenario over its seeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioResult {
    /// Its name.
    pub name: String,
    /// What threatens.
    pub summary: String,
    /// The first 64 bits of the SHA-256 of its file: whether two results are of one scenario.
    #[serde(with = "crate::failure::hex")]
    pub file: u64,
    /// What the command line put in the place of its values, as `lease.ttl=4s`.
    #[serde(default)]
    pub settings: Vec<String>,
    /// What each timing may take, in nanoseconds.
    pub budgets: BTreeMap<String, u64>,
    /// In the order of their seeds.
    pub runs: Vec<RunResult>,
    /// Of the seed that was run twice.
    pub nondeterminism: Option<Nondeterminism>,
}

impl ScenarioResult {
    /// What it has come to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let worst = self.runs.iter().map(RunResult::outcome).max().unwrap_or(Outcome::Held);
        if self.nondeterminism.is_some() { Outcome::NotDeterministic } else { worst }
    }

    /// How many runs have come to this.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.runs.iter().filter(|run| run.outcome() == outcome).count()
    }

    /// The distribution of a timing over all samples of all runs. `None` where nothing was measured.
    #[must_use]
    pub fn quantiles(&self, timing: &str) -> Option<Quantiles> {
        let samples = self.runs.iter().filter_map(|run| run.timings.get(timing)).flatten().copied();
        Quantiles::of(samples.collect())
    }

    /// What the nodes of all runs told of themselves, by series.
    #[must_use]
    pub fn metrics(&self) -> BTreeMap<&str, Measured> {
        let mut metrics: BTreeMap<&str, Measured> = BTreeMap::new();
        for (name, measured) in self.runs.iter().flat_map(|run| &run.metrics) {
            measured::merge(&mut metrics, name.as_str(), measured);
        }
        metrics
    }

    /// Events delivered in a second of wall time, over all runs.
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        self.per_wall_second(|run| run.events as f64)
    }

    /// Simulated seconds in a second of wall time, over all runs.
    #[must_use]
    pub fn simulated_per_wall(&self) -> f64 {
        self.per_wall_second(|run| run.span_ns as f64 / 1e9)
    }

    fn per_wall_second(&self, what: impl Fn(&RunResult) -> f64) -> f64 {
        let wall: f64 = self.runs.iter().map(|run| run.wall_ns as f64 / 1e9).sum();
        if wall > 0.0 { self.runs.iter().map(what).sum::<f64>() / wall } else { 0.0 }
    }
}

/// A suite: scenarios over seeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuiteResult {
    /// The revision of the code: a git commit, `-dirty` behind it where files had changed, or `unknown`.
    pub revision: String,
    /// In the order in which they were asked for.
    pub scenarios: Vec<ScenarioResult>,
    /// Threads.
    pub jobs: usize,
    /// Wall time of the whole, in nanoseconds.
    pub wall_ns: u64,
}

impl SuiteResult {
    /// What it has come to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.scenarios.iter().map(ScenarioResult::outcome).max().unwrap_or(Outcome::Held)
    }

    /// How often each probe was reached, over all runs.
    #[must_use]
    pub fn probes(&self) -> BTreeMap<&str, u64> {
        let mut probes = BTreeMap::new();
        for run in self.scenarios.iter().flat_map(|scenario| &scenario.runs) {
            for (name, count) in &run.probes {
                *probes.entry(name.as_str()).or_default() += count;
            }
        }
        probes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(source: Source, misses: Vec<Miss>) -> RunResult {
        RunResult {
            scenario: "swing".into(),
            seed: 1,
            source,
            events: 1,
            entries: 1,
            span_ns: 1,
            wall_ns: 1,
            verdicts: Vec::new(),
            violation: None,
            misses,
            timings: BTreeMap::new(),
            probes: BTreeMap::new(),
            metrics: BTreeMap::new(),
        }
    }

    #[test]
    fn a_drill_that_provoked_nothing_has_not_held() {
        let skipped = || vec![Skipped { fault: 1, why: "clock-drift: no process can be given another clock".into() }];
        let of = |provoked, skipped| run(Source::Drill { provoked, skipped }, Vec::new()).outcome();
        assert_eq!(of(0, skipped()), Outcome::Unprovoked);
        assert_eq!(of(1, skipped()), Outcome::Held);
        assert_eq!(of(0, Vec::new()), Outcome::Held, "a scenario without faults");
        let miss = vec![Miss { name: "progress".into(), sentence: "stuck".into() }];
        assert_eq!(run(Source::Drill { provoked: 0, skipped: skipped() }, miss).outcome(), Outcome::Missed);
        assert_eq!(run(Source::Simulator { hash: 7 }, Vec::new()).hash(), Some(7));
    }
}
