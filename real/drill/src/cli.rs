//! `drill`: the command line, what it prints, and the exit code that says how it ended.

use crate::{
    drill::{Drilled, Order, drill},
    processes::Failed,
    world::Programs,
};
use clap::Parser;
use std::{
    io::Write as _,
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::sync::watch;
use worldline_reports::{
    Outcome, RunResult, ScenarioResult, SuiteResult, beside, latest,
    terminal::{self, Colour},
};
use worldline_scenarios::{
    catalogue,
    cli::{
        self,
        output::Output,
        place::{self, Place},
        usage::{self, Asked},
    },
    format::Scenario,
    suite::{self, JOBS_MAX, Plan},
};

/// A service or a process could not be started, or what a drill left behind cannot be read.
const UNAVAILABLE: u8 = 69;
/// Ended by Ctrl-C or SIGTERM.
const INTERRUPTED: u8 = 130;
/// Drills of each scenario.
const REPEAT_MAX: u32 = 1_000;
/// Seeds of each scenario in the simulator, to compare with.
const SIMULATED: u64 = 100;

/// Runs scenarios on real processes and services, and checks what it checks in the simulator.
#[derive(Parser)]
#[command(name = "drill", version = suite::REVISION, after_help = AFTER_HELP)]
struct Arguments {
    /// Names from the catalogue or scenario files
    #[arg(required_unless_present = "list", value_name = "NAME|FILE")]
    scenarios: Vec<String>,
    /// Drills of each scenario, each with the next seed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPEAT_MAX)))]
    repeat: u32,
    /// The first seed: it draws who plays how, on which line, and when within its window a fault comes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = usage::seed)]
    seed: u64,
    /// Seeds in the simulator to compare with; 0 compares with nothing
    #[arg(long, value_name = "N", default_value_t = SIMULATED, value_parser = compared)]
    simulated: u64,
    /// Keep histories and logs of drills that held too
    #[arg(long)]
    keep: bool,
    /// Names what can be drilled, and what of each cannot be provoked
    #[arg(long)]
    list: bool,
    /// The server [default: `worldlined` beside this program]
    #[arg(long, value_name = "FILE")]
    worldlined: Option<PathBuf>,
    /// The command that starts and stops the services [default: `ci/services` of the project]
    #[arg(long, value_name = "FILE")]
    services: Option<PathBuf>,
}

const AFTER_HELP: &str = "Exit codes: 0 all held; 1 an invariant broke; 2 a liveness or timing budget was missed, or a process\n\
    ended badly; 4 nothing of what a scenario threatens with could be provoked; 64 wrong usage; 65 a wrong scenario file;\n\
    69 a service or a process could not be started; 130 interrupted.";

fn compared(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { usage::seeds(text) }
}

/// Why the command has no result.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Command(#[from] cli::Failed),
    #[error("error: {0}")]
    Drill(#[from] Failed),
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::Command(error.into())
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // If nobody reads it, nobody misses it.
            let _ = error.print();
            return if error.use_stderr() { cli::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let mut output = Output::standard();
    match run(&mut output, &arguments) {
        Ok(code) => code.into(),
        Err(Ended::Command(cli::Failed::Closed)) => ExitCode::SUCCESS,
        Err(ended) => {
            output.complain(&ended.to_string());
            match ended {
                Ended::Command(failed) => failed.exit_code().into(),
                Ended::Drill(Failed::Interrupted) => INTERRUPTED.into(),
                Ended::Drill(_) => UNAVAILABLE.into(),
            }
        }
    }
}

fn run(output: &mut Output, arguments: &Arguments) -> Result<u8, Ended> {
    if arguments.list {
        list(output)?;
        return Ok(0);
    }
    let asked = usage::scenarios(&arguments.scenarios)?;
    let server = found(arguments.worldlined.clone(), beside_this("worldlined"), "--worldlined")?;
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ci/services");
    let services = found(arguments.services.clone(), Some(project), "--services")?;
    let programs = Programs { server: &server, services: &services };
    let begun = tokio::time::Instant::now();
    let runtime = tokio::runtime::Runtime::new().map_err(Failed::machine("cannot start the runtime"))?;
    let drilled = runtime.block_on(drills(output, arguments, &asked, programs));
    // Proxies hold nothing that anybody waits for.
    runtime.shutdown_background();
    let scenarios = drilled?;
    let wall_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let suite = SuiteResult { revision: suite::REVISION.to_owned(), scenarios, jobs: 1, wall_ns };
    let simulated = simulated(output, &asked, arguments);
    for (index, scenario) in suite.scenarios.iter().enumerate() {
        output.print(&told(scenario, simulated.get(index), output.colour))?;
    }
    output.flush()?;
    if let Some(path) = Place::here().drill() {
        let json = latest::beside(&suite, &simulated).map_err(|error| cli::Failed::Write(error.to_string()))?;
        if let Err(error) = place::write(&path, &json) {
            output.complain(&format!("note: `{}` was not written: {error}", path.display()));
        }
    }
    Ok(suite.outcome().exit_code())
}

/// A program, or how to say where it is.
fn found(given: Option<PathBuf>, usual: Option<PathBuf>, flag: &str) -> Result<PathBuf, Ended> {
    let path = given.or(usual).unwrap_or_default();
    match path.canonicalize() {
        Ok(path) if path.is_file() => Ok(path),
        _ => {
            let what = format!("found no program `{}`: build it, or say where it is with `{flag}`", path.display());
            Err(cli::Failed::Usage(what).into())
        }
    }
}

fn beside_this(name: &str) -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.join(name))
}

/// Whether somebody wants this process to stop: Ctrl-C, SIGTERM, or the terminal is gone; from now on.
fn interruption() -> Result<watch::Receiver<bool>, Failed> {
    use tokio::signal::unix::{SignalKind, signal};
    let hear = |kind| signal(kind).map_err(Failed::machine("cannot hear signals"));
    let (mut interrupt, mut terminate) = (hear(SignalKind::interrupt())?, hear(SignalKind::terminate())?);
    let mut hangup = hear(SignalKind::hangup())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        // Nobody may be left to hear it.
        let _ = sender.send(true);
        // The channel stays open: whoever waits on it waits for ever.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

/// Every drill that was asked for, one after the other.
async fn drills(
    output: &mut Output,
    arguments: &Arguments,
    asked: &[Asked],
    programs: Programs<'_>,
) -> Result<Vec<ScenarioResult>, Ended> {
    let stop = interruption()?;
    let mut results = Vec::new();
    for one in asked {
        let scenario = &one.scenario;
        let mut runs = Vec::new();
        for n in 0..u64::from(arguments.repeat) {
            let seed = arguments.seed.wrapping_add(n);
            // If nobody reads what goes on, nobody misses it.
            let watched = |what: &str| drop(writeln!(std::io::stderr(), "{} seed {seed}: {what}", scenario.name));
            let order = Order { scenario, seed, programs, keep: arguments.keep };
            let drilled = drill(order, stop.clone(), &watched).await?;
            watched(verdict(&drilled.result, Colour(false)).as_str());
            if let Some(folder) = &drilled.folder {
                let path = folder.join("verdict.txt");
                let written = std::fs::write(&path, one_drill(scenario, &drilled, Colour(false)));
                written.map_err(Failed::machine(format!("cannot write {}", path.display())))?;
            }
            output.print(&one_drill(scenario, &drilled, output.colour))?;
            output.flush()?;
            runs.push(drilled.result);
        }
        results.push(ScenarioResult {
            name: scenario.name.clone(),
            summary: scenario.summary.clone(),
            budgets: scenario.budgets.iter().map(|b| (b.timing.name().to_owned(), b.within.as_nanos())).collect(),
            runs,
            nondeterminism: None,
        });
    }
    Ok(results)
}

/// The same scenarios in the simulator.
fn simulated(output: &mut Output, asked: &[Asked], arguments: &Arguments) -> Vec<ScenarioResult> {
    if arguments.simulated == 0 {
        return Vec::new();
    }
    output.complain(&format!("simulating {} seeds of each to compare with", arguments.simulated));
    let plan = Plan {
        scenarios: asked.iter().map(|one| one.scenario.clone()).collect(),
        seeds: (arguments.seed..arguments.seed.saturating_add(arguments.simulated)).collect(),
        shard: None,
        jobs: std::thread::available_parallelism().map_or(1, NonZero::get).min(JOBS_MAX),
        all: false,
    };
    suite::run(&plan, &mut |_| {}).scenarios
}

/// A verdict in words.
fn verdict(run: &RunResult, colour: Colour) -> String {
    let skipped = run.skipped().len();
    match run.outcome() {
        Outcome::Held if skipped > 0 => colour.yellow("held, without all of what was to be provoked"),
        Outcome::Held => colour.green("held"),
        Outcome::Unprovoked => colour.yellow("not held: nothing of what threatens could be provoked"),
        Outcome::Missed => colour.yellow("missed"),
        Outcome::Broken => colour.red("broken"),
        Outcome::NotDeterministic => colour.red("not deterministic"),
    }
}

/// What one drill prints.
fn one_drill(scenario: &Scenario, drilled: &Drilled, colour: Colour) -> String {
    let run = &drilled.result;
    let span = terminal::span(run.span_ns);
    let mut text =
        format!("{} seed {}: {} ({span}, {} lines)\n", scenario.name, run.seed, verdict(run, colour), run.entries);
    drilled.log.iter().for_each(|line| text += &format!("  {line}\n"));
    for skipped in run.skipped() {
        text += &format!("  {} {}: {}\n", colour.yellow("skipped"), skipped.fault, skipped.why);
    }
    if let Some(violation) = &run.violation {
        let event = &violation.event;
        let at = if event.node.is_empty() { String::new() } else { format!(" at {}", event.node) };
        let head = colour.red(&format!("{} broke", violation.invariant));
        let when = terminal::seconds(event.at_ns);
        text += &format!("  {head}: {}\n", violation.sentence);
        text += &format!("  first entry  line {} of history.jsonl, {when}{at}: {}\n", event.id, event.what);
        if let Some(first) = &drilled.first {
            text += &format!("               {:?}\n", first.what);
        }
    }
    for miss in &run.misses {
        text += &format!("  {}: {}\n", colour.yellow(&format!("{} was missed", miss.name)), miss.sentence);
    }
    if let Some(folder) = &drilled.folder {
        text += &format!("  histories and logs are in {}\n", folder.display());
    }
    text
}

/// What a scenario's drills have come to, beside the simulator.
fn told(scenario: &ScenarioResult, simulated: Option<&ScenarioResult>, colour: Colour) -> String {
    let none = ScenarioResult { runs: Vec::new(), ..scenario.clone() };
    let model = simulated.unwrap_or(&none);
    let mut text = format!(
        "\n{}  {} drills beside {} simulated seeds\n{}",
        scenario.name,
        scenario.runs.len(),
        model.runs.len(),
        beside::timings(scenario, model, colour)
    );
    text += &beside::invariants(&scenario.runs, colour);
    text
}

/// What can be drilled.
fn list(output: &mut Output) -> Result<(), Ended> {
    for name in catalogue::names() {
        let Asked { scenario, .. } = usage::scenario(name)?;
        output.print(&format!("{name:<22} {}\n", scenario.summary))?;
        for why in crate::faults::left_out(&scenario) {
            output.print(&format!("{:<22} skipped {why}\n", ""))?;
        }
    }
    Ok(output.flush()?)
}
