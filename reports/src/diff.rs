//! Two results over the same scenarios and seeds: which timings moved, which counts, which outcomes, and whether beyond noise
//! ([`crate::pairs`]).
//!
//! Deliberately absent: whether a change is wanted. A timing that got faster at the price of more false alarms is both said.

use crate::{
    Outcome, Quantiles, TIMINGS,
    kept::{Kept, Run, Scenario},
    pairs::{Pairs, beyond_noise},
};
use std::collections::{BTreeMap, BTreeSet};

/// A figure of a distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// The median.
    P50,
    /// 95 of 100 are at most this.
    P95,
    /// 99 of 100 are at most this.
    P99,
    /// The largest.
    Max,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::P50, Self::P95, Self::P99, Self::Max];

    /// As tables write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Max => "max",
        }
    }

    /// Of a distribution.
    #[must_use]
    pub const fn of(self, quantiles: &Quantiles) -> u64 {
        match self {
            Self::P50 => quantiles.p50_ns,
            Self::P95 => quantiles.p95_ns,
            Self::P99 => quantiles.p99_ns,
            Self::Max => quantiles.max_ns,
        }
    }
}

/// What became of a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// Over all seeds of the first.
    pub a: u64,
    /// Of the second.
    pub b: u64,
    /// Seed by seed.
    pub pairs: Pairs,
    /// Whether it moved beyond noise.
    pub beyond: bool,
}

impl Moved {
    /// Whether it grew, beyond noise, in most seeds and over all of them.
    #[must_use]
    pub const fn grew(&self) -> bool {
        self.beyond && self.pairs.more > self.pairs.less && self.b >= self.a
    }

    /// Whether it shrank, beyond noise, in most seeds and over all of them.
    #[must_use]
    pub const fn shrank(&self) -> bool {
        self.beyond && self.pairs.more < self.pairs.less && self.b <= self.a
    }
}

/// A timing.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Its name.
    pub name: String,
    /// Its figures, in the order of [`Figure::ALL`]; none where no seed has it on both sides.
    pub figures: Vec<Moved>,
    /// Seeds in which only the first measured it.
    pub only_a: usize,
    /// Only the second.
    pub only_b: usize,
}

/// Seeds that came to something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// What they came to in the first.
    pub a: String,
    /// In the second.
    pub b: String,
    /// Whether the second is worse, and what it is then.
    pub worse: Option<Outcome>,
    /// Which.
    pub seeds: Vec<u64>,
}

/// One scenario in both results.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Its name.
    pub name: String,
    /// How many seeds.
    pub seeds: usize,
    /// Whether its file changed.
    pub file: bool,
    /// What was set in the first only.
    pub set_a: Vec<String>,
    /// In the second only.
    pub set_b: Vec<String>,
    /// Every timing that either measured.
    pub timings: Vec<Timing>,
    /// Every count whose sum differs, and those of false alarms, by name.
    pub counts: Vec<(String, Moved)>,
    /// Seeds that came to something else.
    pub outcomes: Vec<Changed>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Diff {
    /// Scenario by scenario.
    pub scenarios: Vec<Difference>,
    /// How many comparisons the correction counted.
    pub comparisons: usize,
}

impl Diff {
    /// The exit code of a process that says this: 0 where nothing is worse, else that of the worst that is.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let outcomes = self.scenarios.iter().flat_map(|one| &one.outcomes).filter_map(|changed| changed.worse);
        let slower = self.scenarios.iter().flat_map(|one| &one.timings).flat_map(|timing| &timing.figures);
        let slower = slower.filter(|figure| figure.grew()).map(|_| Outcome::Missed);
        outcomes.chain(slower).max().map_or(0, Outcome::exit_code)
    }
}

/// Counts that are told even where they are the same: what a detector costs where nobody was dead.
const FALSE_ALARMS: [&str; 2] = ["worker.suspended", "orchestrator.found-dead-but-alive"];

/// Compares two results.
///
/// # Errors
/// Why they cannot be compared, a line each.
pub fn diff(a: &Kept, b: &Kept) -> Result<Diff, Vec<String>> {
    comparable(a, b)?;
    let pairs = a.scenarios.iter().filter_map(|one| Some((one, b.scenarios.iter().find(|two| two.name == one.name)?)));
    let mut scenarios: Vec<Difference> = pairs.map(|(a, b)| difference(a, b)).collect();
    let mut figures: Vec<&mut Moved> = scenarios.iter_mut().flat_map(figures).collect();
    // What is the same everywhere was no question.
    figures.retain(|figure| !figure.pairs.is_same());
    let p: Vec<f64> = figures.iter().map(|figure| figure.pairs.p).collect();
    for (figure, beyond) in figures.into_iter().zip(beyond_noise(&p)) {
        figure.beyond = beyond;
    }
    Ok(Diff { scenarios, comparisons: p.len() })
}

fn figures(difference: &mut Difference) -> impl Iterator<Item = &mut Moved> {
    let timings = difference.timings.iter_mut().flat_map(|timing| &mut timing.figures);
    timings.chain(difference.counts.iter_mut().map(|(_, moved)| moved))
}

/// Seeds and the like, so that a reader sees at once how they differ.
fn seeds(scenario: &Scenario) -> String {
    let seeds: BTreeSet<u64> = scenario.runs.iter().map(|run| run.seed).collect();
    match (seeds.first(), seeds.last()) {
        (Some(first), Some(last)) if first == last => format!("seed {first}"),
        (Some(first), Some(last)) => format!("{} seeds from {first} to {last}", seeds.len()),
        _ => "no seed".into(),
    }
}

fn comparable(a: &Kept, b: &Kept) -> Result<(), Vec<String>> {
    let mut wrong = Vec::new();
    let missing = |of: &Kept, from: &Kept| -> Vec<String> {
        let lacks = |one: &&Scenario| from.scenarios.iter().all(|other| other.name != one.name);
        of.scenarios.iter().filter(lacks).map(|one| format!("`{}`", one.name)).collect()
    };
    for (only, side, other) in [(missing(a, b), 'A', 'B'), (missing(b, a), 'B', 'A')] {
        if !only.is_empty() {
            wrong.push(format!("{} is in {side} and not in {other}", only.join(", ")));
        }
    }
    for one in &a.scenarios {
        let Some(two) = b.scenarios.iter().find(|two| two.name == one.name) else { continue };
        let of = |scenario: &Scenario| scenario.runs.iter().map(|run| run.seed).collect::<BTreeSet<_>>();
        if of(one) != of(two) {
            wrong.push(format!("`{}`: A has {}, B has {}: run the same ones", one.name, seeds(one), seeds(two)));
        } else if of(one).is_empty() {
            wrong.push(format!("`{}` ran in neither", one.name));
        }
        let source = |scenario: &Scenario| scenario.runs.first().map(|run| run.source.clone()).unwrap_or_default();
        if source(one) != source(two) {
            wrong.push(format!("`{}`: A is of the {}, B of the {}", one.name, source(one), source(two)));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn difference(a: &Scenario, b: &Scenario) -> Difference {
    let others: BTreeMap<u64, &Run> = b.runs.iter().map(|run| (run.seed, run)).collect();
    let pairs: Vec<(&Run, &Run)> = a.runs.iter().filter_map(|run| Some((run, *others.get(&run.seed)?))).collect();
    let measured: BTreeSet<&str> = a.timings.keys().chain(b.timings.keys()).map(String::as_str).collect();
    let known = TIMINGS.into_iter().filter(|name| measured.contains(name));
    let further = measured.iter().copied().filter(|name| !TIMINGS.contains(name));
    let only = |of: &[String], from: &[String]| of.iter().filter(|one| !from.contains(one)).cloned().collect();
    Difference {
        name: a.name.clone(),
        seeds: pairs.len(),
        file: a.file != b.file,
        set_a: only(&a.settings, &b.settings),
        set_b: only(&b.settings, &a.settings),
        timings: known.chain(further).map(|name| timing(name, a, b, &pairs)).collect(),
        counts: counts(&pairs),
        outcomes: outcomes(&pairs),
    }
}

fn timing(name: &str, a: &Scenario, b: &Scenario, runs: &[(&Run, &Run)]) -> Timing {
    let both: Vec<_> = runs.iter().filter_map(|(a, b)| Some((a.timings.get(name)?, b.timings.get(name)?))).collect();
    let of = |figure: Figure| {
        let pairs: Vec<_> = both.iter().map(|(a, b)| (figure.of(a), figure.of(b))).collect();
        let (all_a, all_b) = (figure.of(a.timings.get(name)?), figure.of(b.timings.get(name)?));
        Some(Moved { a: all_a, b: all_b, pairs: Pairs::of(&pairs)?, beyond: false })
    };
    let has = |run: &Run| run.timings.contains_key(name);
    let (only_a, only_b) = (
        runs.iter().filter(|(a, b)| has(a) && !has(b)).count(),
        runs.iter().filter(|(a, b)| has(b) && !has(a)).count(),
    );
    Timing { name: name.to_owned(), figures: Figure::ALL.into_iter().filter_map(of).collect(), only_a, only_b }
}

fn counts(runs: &[(&Run, &Run)]) -> Vec<(String, Moved)> {
    let reached = runs.iter().flat_map(|(a, b)| a.probes.keys().chain(b.probes.keys())).map(String::as_str);
    let names: BTreeSet<&str> = reached.chain(FALSE_ALARMS).collect();
    let of = |name: &str| {
        let count = |run: &Run| run.probes.get(name).copied().unwrap_or(0);
        let pairs: Vec<_> = runs.iter().map(|(a, b)| (count(a), count(b))).collect();
        let (a, b) = (pairs.iter().map(|pair| pair.0).sum(), pairs.iter().map(|pair| pair.1).sum());
        (a != b || FALSE_ALARMS.contains(&name)).then_some(())?;
        Some((name.to_owned(), Moved { a, b, pairs: Pairs::of(&pairs)?, beyond: false }))
    };
    names.into_iter().filter_map(of).collect()
}

fn outcomes(runs: &[(&Run, &Run)]) -> Vec<Changed> {
    let mut changed: BTreeMap<(String, String), (Option<Outcome>, Vec<u64>)> = BTreeMap::new();
    for (a, b) in runs.iter().filter(|(a, b)| a.ending() != b.ending()) {
        let worse = (b.outcome > a.outcome).then_some(b.outcome);
        let (worst, seeds) = changed.entry((a.ending(), b.ending())).or_default();
        *worst = worse.max(*worst);
        seeds.push(a.seed);
    }
    changed.into_iter().map(|((a, b), (worse, seeds))| Changed { a, b, worse, seeds }).collect()
}
