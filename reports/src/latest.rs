//! `reports/latest/result.json` and `drill.json`: a suite without its samples, for whoever reads results by program;
//! [`crate::kept`] reads it back.

use crate::{Measured, Outcome, Quantiles, ScenarioResult, Skipped, Source, State, SuiteResult, kept::FORMAT};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Serialize)]
struct Latest<'a> {
    format: u32,
    revision: &'a str,
    outcome: Outcome,
    jobs: usize,
    wall_ms: u64,
    scenarios: Vec<Scenario<'a>>,
    probes: BTreeMap<&'a str, u64>,
}

#[derive(Serialize)]
struct Scenario<'a> {
    name: &'a str,
    summary: &'a str,
    file: String,
    settings: &'a [String],
    outcome: Outcome,
    seeds: usize,
    broken: usize,
    missed: usize,
    /// How fast the simulator was; a drill takes as long as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    simulated_seconds_per_wall_second: Option<u64>,
    budgets_ns: &'a BTreeMap<String, u64>,
    timings: BTreeMap<&'a str, Quantiles>,
    /// Of a drill: the same timings in the simulator.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    simulated: BTreeMap<&'a str, Quantiles>,
    /// What the nodes told of themselves, over all runs, by series.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metrics: BTreeMap<&'a str, Measured>,
    runs: Vec<Run<'a>>,
}

#[derive(Serialize)]
struct Run<'a> {
    seed: u64,
    /// `simulator` or `drill`.
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// Faults of the file that a drill did not provoke.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    skipped: &'a [Skipped],
    events: u64,
    span_ns: u64,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    invariant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_event: Option<u64>,
    /// Every invariant that broke: with `--all` there may be more than the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    all_broken: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missed: Vec<&'a str>,
    /// The distribution of every timing in this seed alone: `diff` pairs seeds.
    timings: BTreeMap<&'a str, Quantiles>,
    /// How often each probe was reached; those never reached are left out.
    probes: BTreeMap<&'a str, u64>,
    /// Why an invariant was not checked, by its id.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    not_checked: BTreeMap<&'a str, &'a str>,
}

/// The file's content.
///
/// # Errors
/// None that these types can cause; whatever the serializer says.
pub fn json(suite: &SuiteResult) -> Result<String, serde_json::Error> {
    beside(suite, &[])
}

/// The file's content of a drill, each scenario with what it took in the simulator where that is known.
///
/// # Errors
/// None that these types can cause; whatever the serializer says.
pub fn beside(suite: &SuiteResult, simulated: &[ScenarioResult]) -> Result<String, serde_json::Error> {
    let of = |result: &ScenarioResult| simulated.iter().find(|model| model.name == result.name);
    let latest = Latest {
        format: FORMAT,
        revision: &suite.revision,
        outcome: suite.outcome(),
        jobs: suite.jobs,
        wall_ms: suite.wall_ns / 1_000_000,
        scenarios: suite.scenarios.iter().map(|result| scenario(result, of(result))).collect(),
        probes: suite.probes(),
    };
    serde_json::to_string_pretty(&latest).map(|json| json + "\n")
}

/// The distribution of every timing that was measured.
fn timings(result: &ScenarioResult) -> BTreeMap<&str, Quantiles> {
    let names = result.runs.iter().flat_map(|run| run.timings.keys().map(String::as_str));
    let names: BTreeSet<&str> = names.collect();
    names.into_iter().filter_map(|name| Some((name, result.quantiles(name)?))).collect()
}

fn scenario<'a>(result: &'a ScenarioResult, simulated: Option<&'a ScenarioResult>) -> Scenario<'a> {
    let simulated_here = result.runs.iter().any(|run| run.hash().is_some());
    let runs = result.runs.iter().map(|run| Run {
        seed: run.seed,
        source: match run.source {
            Source::Simulator { .. } => "simulator",
            Source::Drill { .. } => "drill",
        },
        hash: run.hash().map(|hash| format!("{hash:016x}")),
        skipped: run.skipped(),
        events: run.events,
        span_ns: run.span_ns,
        outcome: run.outcome(),
        invariant: run.violation.as_ref().map(|violation| violation.invariant.as_str()),
        first_event: run.violation.as_ref().map(|violation| violation.event.id),
        all_broken: run.verdicts.iter().filter(|v| v.state == State::Broken).map(|v| v.id.as_str()).collect(),
        missed: run.misses.iter().map(|miss| miss.name.as_str()).collect(),
        timings: run
            .timings
            .iter()
            .filter_map(|(name, spans)| Some((&**name, Quantiles::of(spans.clone())?)))
            .collect(),
        probes: run.probes.iter().filter(|(_, count)| **count > 0).map(|(name, count)| (&**name, *count)).collect(),
        not_checked: run
            .verdicts
            .iter()
            .filter_map(|verdict| match &verdict.state {
                State::NotChecked(why) => Some((verdict.id.as_str(), why.as_str())),
                _ => None,
            })
            .collect(),
    });
    Scenario {
        name: &result.name,
        summary: &result.summary,
        file: format!("{:016x}", result.file),
        settings: &result.settings,
        outcome: result.outcome(),
        seeds: result.runs.len(),
        broken: result.count(Outcome::Broken),
        missed: result.count(Outcome::Missed),
        events_per_second: simulated_here.then(|| result.events_per_second() as u64),
        simulated_seconds_per_wall_second: simulated_here.then(|| result.simulated_per_wall() as u64),
        budgets_ns: &result.budgets,
        timings: timings(result),
        simulated: simulated.map(timings).unwrap_or_default(),
        metrics: result.metrics(),
        runs: runs.collect(),
    }
}
