//! `worldline run`, and the default suite.

use super::{
    Failed,
    output::Output,
    place::{self, Place},
    usage::{self, Asked, Shard},
};
use crate::{
    catalogue,
    format::Setting,
    suite::{self, JOBS_MAX, Plan, Progress},
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::BTreeMap,
    io,
    num::NonZero,
    path::{Path, PathBuf},
};
use worldline_reports::{Failure, RunResult, SuiteResult, junit, latest, terminal};

/// Seeds of each scenario, where no number is given.
const SEEDS: u64 = 8;
/// Failures of one scenario that are kept.
const KEPT_MAX: usize = 100;
/// Failures that are printed in full: the first of each scenario and kind, and of these so many.
const PRINTED_MAX: usize = 10;

/// Arguments of `worldline run`.
#[derive(Args, Debug)]
pub struct RunArguments {
    /// Names from the catalogue (`worldline list`) or scenario files [default: the whole catalogue]
    #[arg(value_name = "NAME|FILE")]
    scenarios: Vec<String>,
    /// Seeds of each scenario
    #[arg(long, value_name = "N", default_value_t = SEEDS, allow_negative_numbers = true, value_parser = usage::seeds)]
    seeds: u64,
    /// Begin at the seed that a revision (or any text) stands for, instead of at 1
    #[arg(long, value_name = "REV")]
    seed_from: Option<String>,
    /// Run exactly this seed
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::seed, conflicts_with_all = ["seeds", "seed_from", "shard"])]
    seed: Option<u64>,
    /// Run only the I-th of N equal parts
    #[arg(long, value_name = "I/N", value_parser = usage::shard)]
    shard: Option<Shard>,
    /// Put VALUE in the place of a scenario's own: lease.ttl=4s, duration=20s, knobs.scan_every=500ms (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = usage::setting)]
    settings: Vec<Setting>,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct How {
    /// Threads [default: as many as the machine has cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=JOBS_MAX as i64))]
    jobs: Option<u16>,
    /// Write the results as JUnit too
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Keep the result as JSON, for `worldline diff`
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    /// Go on behind a broken invariant, to see which others break
    #[arg(long)]
    all: bool,
    /// Print what the nodes told of themselves too, by the names of `/metrics` and over all seeds
    #[arg(long)]
    metrics: bool,
}

/// The whole catalogue.
pub fn default_suite(output: &mut Output) -> Result<u8, Failed> {
    suite(
        output,
        usage::whole_catalogue()?,
        (1..=SEEDS).collect(),
        None,
        How { jobs: None, junit: None, result: None, all: false, metrics: false },
    )
}

/// What was asked for.
pub fn run(output: &mut Output, arguments: RunArguments) -> Result<u8, Failed> {
    let asked = usage::scenarios_or_all(&arguments.scenarios, &arguments.settings)?;
    let first = arguments.seed_from.as_deref().map_or(1, usage::first_seed);
    let seeds = match arguments.seed {
        Some(seed) => vec![seed],
        None => (first..first + arguments.seeds).collect(),
    };
    suite(output, asked, seeds, arguments.shard, arguments.how)
}

fn suite(
    output: &mut Output,
    asked: Vec<Asked>,
    seeds: Vec<u64>,
    shard: Option<Shard>,
    how: How,
) -> Result<u8, Failed> {
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get).min(JOBS_MAX);
    let plan = Plan {
        scenarios: asked.iter().map(|one| one.scenario.clone()).collect(),
        seeds,
        shard: shard.map(|shard| (shard.part, shard.of)),
        jobs: how.jobs.map_or_else(cores, usize::from),
        all: how.all,
    };
    if let Some(shard) = shard
        && u64::from(shard.of) > plan.runs()
    {
        return Err(Failed::Usage(format!(
            "found {} parts of {} runs, expected at most as many parts as runs: some would run nothing",
            shard.of,
            plan.runs()
        )));
    }
    for path in [&how.junit, &how.result].into_iter().flatten() {
        place::may_write(path).map_err(|error| unwritten(path, &error))?;
    }
    let here = Place::here();
    asked.iter().for_each(|one| here.forget(&one.scenario.name));
    let mut keeper = Keeper { here, asked: &asked, all: how.all, kept: BTreeMap::new(), lost: None };
    let result = watched(output, &plan, &mut |run| keeper.keep(run));
    output.print(&terminal::suite(&result, output.colour))?;
    if how.metrics {
        for scenario in &result.scenarios {
            let metrics = scenario.metrics();
            let series = metrics.iter().map(|(name, measured)| (*name, measured));
            output.print(&format!("\n{}\n{}", scenario.name, terminal::metrics(series)))?;
        }
    }
    if asked.len() == catalogue::names().count() {
        // Of fewer scenarios nobody expects that they reach everything.
        output.print(&terminal::never_reached(&result, output.colour))?;
    }
    keeper.print(output, &result)?;
    output.flush()?;
    if let Some(path) = how.junit {
        let xml = junit::xml(&result, &|run| keeper.command(run)).map_err(|error| Failed::Write(error.to_string()))?;
        place::write(&path, &xml).map_err(|error| unwritten(&path, &error))?;
    }
    let json = latest::json(&result).map_err(|error| Failed::Write(error.to_string()))?;
    if let Some(path) = how.result {
        place::write(&path, &json).map_err(|error| unwritten(&path, &error))?;
    }
    if let Some(path) = here.result()
        && let Err(error) = place::write(&path, &json)
    {
        output.complain(&format!("note: `{}` was not written: {error}", path.display()));
    }
    Ok(result.outcome().exit_code())
}

fn unwritten(path: &Path, error: &io::Error) -> Failed {
    Failed::Write(format!("`{}`: {error}", path.display()))
}

/// Runs the plan and shows how far it has come: a bar for a person, a line a scenario for a file.
fn watched(output: &mut Output, plan: &Plan, each: &mut dyn FnMut(&RunResult)) -> SuiteResult {
    let bar = if output.watched { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} runs  {msg}  {elapsed} + {eta}") {
        bar.set_style(style);
    }
    let mut failed: BTreeMap<String, usize> = BTreeMap::new();
    let result = suite::run(plan, &mut |progress: &Progress<'_>| {
        let name = &progress.scenario.name;
        if let Some(run) = progress.run {
            if run.outcome().exit_code() != 0 {
                *failed.entry(name.clone()).or_default() += 1;
            }
            each(run);
        }
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        bar.set_message(name.clone());
        if !output.watched && progress.left == 0 {
            let failed = failed.get(name).copied().unwrap_or(0);
            let verdict = if failed == 0 { "held".to_owned() } else { format!("{failed} failed") };
            output.complain(&format!("[{}/{}] {name}: {verdict}", progress.done, progress.total));
        }
    });
    bar.finish_and_clear();
    result
}

/// Keeps failures as files, and prints them.
struct Keeper<'a> {
    here: Place,
    asked: &'a [Asked],
    all: bool,
    /// Where the failures of each scenario are kept, by seed.
    kept: BTreeMap<String, BTreeMap<u64, PathBuf>>,
    /// Why one could not be kept.
    lost: Option<String>,
}

impl Keeper<'_> {
    fn asked(&self, run: &RunResult) -> Option<&Asked> {
        self.asked.iter().find(|one| one.scenario.name == run.scenario)
    }

    fn failure(&self, run: &RunResult) -> Option<Failure> {
        let scenario = &self.asked(run)?.scenario;
        let settings = scenario.settings.iter().map(Setting::to_string).collect();
        Failure::of(run, suite::REVISION, &scenario.text, settings, self.all)
    }

    fn keep(&mut self, run: &RunResult) {
        let Some(failure) = self.failure(run) else { return };
        if self.kept.get(&run.scenario).is_some_and(|kept| kept.len() >= KEPT_MAX) {
            return;
        }
        match self.here.keep(&failure) {
            Ok(path) => {
                self.kept.entry(run.scenario.clone()).or_default().insert(run.seed, path);
            }
            Err(error) => self.lost = Some(error.to_string()),
        }
    }

    fn path(&self, run: &RunResult) -> Option<&PathBuf> {
        self.kept.get(&run.scenario)?.get(&run.seed)
    }

    /// The command that replays a run. A scenario of the catalogue needs no file: its seed and the revision are enough.
    fn command(&self, run: &RunResult) -> String {
        match (self.asked(run).and_then(|one| one.name), self.path(run)) {
            (None, Some(path)) => self.here.replay_file(path),
            (name, _) => self.seed_command(name.unwrap_or(&run.scenario), run.seed),
        }
    }

    /// The command that runs a seed of a scenario again, under the same settings.
    fn seed_command(&self, name: &str, seed: u64) -> String {
        let asked = self.asked.iter().find(|one| one.scenario.name == name);
        let settings = asked.map_or(&[][..], |one| &one.scenario.settings);
        self.here.replay_seed(name, seed, settings, self.all)
    }

    fn print(&self, output: &mut Output, suite: &SuiteResult) -> Result<(), Failed> {
        let mut alike: BTreeMap<(&str, String), Vec<u64>> = BTreeMap::new();
        for run in suite.scenarios.iter().flat_map(|scenario| &scenario.runs) {
            let Some(failure) = self.failure(run) else { continue };
            let seeds = alike.entry((&run.scenario, failure.what.clone())).or_default();
            seeds.push(run.seed);
            if seeds.len() == 1 {
                let path = self.path(run).map(|path| path.display().to_string());
                let block = terminal::failure(&failure, path.as_deref(), &self.command(run), output.colour);
                output.print(&format!("\n{block}"))?;
            }
        }
        for ((scenario, what), seeds) in alike.iter().filter(|(_, seeds)| seeds.len() > 1) {
            let more: Vec<_> = seeds[1..].iter().take(PRINTED_MAX).map(u64::to_string).collect();
            let rest = if seeds.len() - 1 > PRINTED_MAX { ", …" } else { "" };
            let line =
                format!("\n{scenario}: {what} also with {} more seeds: {}{rest}\n", seeds.len() - 1, more.join(", "));
            output.print(&line)?;
        }
        for scenario in &suite.scenarios {
            if let Some(twice) = &scenario.nondeterminism {
                let command = self.seed_command(&scenario.name, twice.seed);
                let (first, second) = (twice.first, twice.second);
                output.print(&format!(
                    "\n{}: {} seed {} gave hash {first:016x} and then {second:016x}\n  replay       {command}\n",
                    output.colour.red("not deterministic"),
                    scenario.name,
                    twice.seed,
                ))?;
            }
        }
        if let Some(why) = &self.lost {
            output.complain(&format!("note: a failure could not be kept as a file: {why}"));
        }
        Ok(())
    }
}
