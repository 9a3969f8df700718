//! `reports/latest/result.json`: a suite without its samples, for whoever reads results by program.

use crate::{Outcome, Quantiles, ScenarioResult, Skipped, Source, State, SuiteResult};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Latest<'a> {
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
    outcome: Outcome,
    seeds: usize,
    broken: usize,
    missed: usize,
    events_per_second: u64,
    simulated_seconds_per_wall_second: u64,
    budgets_ns: &'a BTreeMap<String, u64>,
    timings: BTreeMap<&'a str, Quantiles>,
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
}

/// The file's content.
///
/// # Errors
/// None that these types can cause; whatever the serializer says.
pub fn json(suite: &SuiteResult) -> Result<String, serde_json::Error> {
    let latest = Latest {
        revision: &suite.revision,
        outcome: suite.outcome(),
        jobs: suite.jobs,
        wall_ms: suite.wall_ns / 1_000_000,
        scenarios: suite.scenarios.iter().map(scenario).collect(),
        probes: suite.probes(),
    };
    serde_json::to_string_pretty(&latest).map(|json| json + "\n")
}

fn scenario(result: &ScenarioResult) -> Scenario<'_> {
    let names = result.runs.iter().flat_map(|run| run.timings.keys().map(String::as_str));
    let timings = names.filter_map(|name| Some((name, result.quantiles(name)?))).collect();
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
    });
    Scenario {
        name: &result.name,
        summary: &result.summary,
        outcome: result.outcome(),
        seeds: result.runs.len(),
        broken: result.count(Outcome::Broken),
        missed: result.count(Outcome::Missed),
        events_per_second: result.events_per_second() as u64,
        simulated_seconds_per_wall_second: result.simulated_per_wall() as u64,
        budgets_ns: &result.budgets,
        timings,
        runs: runs.collect(),
    }
}
