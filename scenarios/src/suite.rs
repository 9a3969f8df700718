//! Many runs: scenarios over seeds, on several threads.
//!
//! Invariant: what comes out is a function of scenarios, seeds and shard; of the number of threads only the wall times are.

use crate::{
    format::Scenario,
    run::{self, Options},
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};
use worldline_reports::{Nondeterminism, RunResult, ScenarioResult, SuiteResult};

/// The revision of this binary.
pub const REVISION: &str = env!("WORLDLINE_REVISION");
/// Threads at most.
pub const JOBS_MAX: usize = 256;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The scenarios, each with a name of its own.
    pub scenarios: Vec<Scenario>,
    /// Each scenario runs once under each.
    pub seeds: Vec<u64>,
    /// Run only the `.0`th of `.1` equal parts, counted from 1.
    pub shard: Option<(u32, u32)>,
    /// Threads.
    pub jobs: usize,
    /// Go on behind a broken invariant.
    pub all: bool,
}

/// One run of a plan.
#[derive(Clone, Copy, Debug)]
struct Task {
    /// Which scenario, by its place.
    scenario: usize,
    seed: u64,
    /// Run only to compare its hash with that of the run before.
    again: bool,
}

impl Plan {
    /// How many runs all parts have together.
    #[must_use]
    pub const fn runs(&self) -> u64 {
        self.scenarios.len() as u64 * self.seeds.len() as u64
    }

    /// Every run, in order. The first seed of each scenario is run twice: two runs of a seed must not differ.
    fn tasks(&self) -> Vec<Task> {
        let all = (0..self.scenarios.len()).flat_map(|scenario| self.seeds.iter().map(move |&seed| (scenario, seed)));
        let mine = all.enumerate().filter(|(index, _)| match self.shard {
            Some((part, of)) => *index as u64 % u64::from(of) == u64::from(part) - 1,
            None => true,
        });
        let mut tasks: Vec<Task> = Vec::new();
        for (_, (scenario, seed)) in mine {
            let first = tasks.last().is_none_or(|task| task.scenario != scenario);
            tasks.push(Task { scenario, seed, again: false });
            if first {
                tasks.push(Task { scenario, seed, again: true });
            }
        }
        tasks
    }
}

/// How far a suite has come.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Runs that are done, those done twice included.
    pub done: usize,
    /// Of how many.
    pub total: usize,
    /// The scenario of the run that has just ended.
    pub scenario: &'a Scenario,
    /// Its runs that are still to come.
    pub left: usize,
    /// The run that has just ended. `None` for the second run of a seed.
    pub run: Option<&'a RunResult>,
}

/// Runs a plan. `progress` is called on this thread, once for each run, in the order in which they end.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&Progress<'_>)) -> SuiteResult {
    let started = Instant::now();
    let tasks = plan.tasks();
    let mut left: Vec<usize> = plan.scenarios.iter().map(|_| 0).collect();
    tasks.iter().for_each(|task| left[task.scenario] += 1);
    let next = AtomicUsize::new(0);
    let mut results: BTreeMap<usize, RunResult> = BTreeMap::new();
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..plan.jobs.clamp(1, JOBS_MAX).min(tasks.len()) {
            let (sender, tasks, next) = (sender.clone(), &tasks, &next);
            scope.spawn(move || {
                while let Some((index, task)) = take(next, tasks) {
                    let options = Options { all: plan.all, ..Options::default() };
                    let result = run::seed(&plan.scenarios[task.scenario], task.seed, options);
                    if sender.send((index, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (index, result) in receiver {
            let task = tasks[index];
            left[task.scenario] -= 1;
            progress(&Progress {
                done: results.len() + 1,
                total: tasks.len(),
                scenario: &plan.scenarios[task.scenario],
                left: left[task.scenario],
                run: (!task.again).then_some(&result),
            });
            results.insert(index, result);
        }
    });
    SuiteResult {
        revision: REVISION.to_owned(),
        scenarios: collect(plan, &tasks, results),
        jobs: plan.jobs,
        wall_ns: u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
    }
}

fn take<'t>(next: &AtomicUsize, tasks: &'t [Task]) -> Option<(usize, &'t Task)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, tasks.get(index)?))
}

/// Puts the results in the order of the plan, and compares those of one seed.
fn collect(plan: &Plan, tasks: &[Task], results: BTreeMap<usize, RunResult>) -> Vec<ScenarioResult> {
    let empty = |scenario: &Scenario| ScenarioResult {
        name: scenario.name.clone(),
        summary: scenario.summary.clone(),
        file: digest(&scenario.text),
        settings: scenario.settings.iter().map(ToString::to_string).collect(),
        budgets: scenario.budgets.iter().map(|b| (b.timing.name().to_owned(), b.within.as_nanos())).collect(),
        runs: Vec::new(),
        nondeterminism: None,
    };
    let mut scenarios: Vec<ScenarioResult> = plan.scenarios.iter().map(empty).collect();
    for (index, result) in results {
        let task = tasks[index];
        let scenario = &mut scenarios[task.scenario];
        match (task.again, scenario.runs.last()) {
            (false, _) => scenario.runs.push(result),
            (true, Some(run)) if (run.hash(), run.events) != (result.hash(), result.events) => {
                let (first, second) = (run.hash().unwrap_or_default(), result.hash().unwrap_or_default());
                scenario.nondeterminism = Some(Nondeterminism { seed: task.seed, first, second });
            }
            (true, _) => {}
        }
    }
    scenarios
}

/// The first 64 bits of the SHA-256 of a scenario's file.
#[must_use]
pub fn digest(text: &str) -> u64 {
    Sha256::digest(text.as_bytes()).iter().take(8).fold(0, |bits, &byte| bits << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    fn plan(seeds: Vec<u64>, shard: Option<(u32, u32)>) -> Plan {
        let scenario = catalogue::find("swing").expect("in the catalogue").expect("reads");
        Plan { scenarios: vec![scenario], seeds, shard, jobs: 1, all: false }
    }

    #[test]
    fn the_shards_of_a_suite_are_its_runs_each_once() {
        let seeds: Vec<u64> = (10..30).collect();
        let of = 3;
        let mut sharded: Vec<u64> = (1..=of)
            .flat_map(|part| plan(seeds.clone(), Some((part, of))).tasks())
            .filter(|task| !task.again)
            .map(|task| task.seed)
            .collect();
        sharded.sort_unstable();
        assert_eq!(sharded, seeds);
    }

    #[test]
    fn the_first_seed_of_a_scenario_is_run_twice() {
        let tasks = plan(vec![5, 6], None).tasks();
        let order: Vec<_> = tasks.iter().map(|task| (task.seed, task.again)).collect();
        assert_eq!(order, [(5, false), (5, true), (6, false)]);
    }
}
