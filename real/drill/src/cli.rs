//! `drill`: the command line, what it prints, and the exit code that says how it ended.

use crate::{
    drill::{Drilled, Order, drill},
    faults::{left_out, wants_cluster},
    printed::{one_drill, told, verdict},
    processes::Failed,
    world::Programs,
};
use clap::Parser;
use std::{
    collections::{BTreeMap, VecDeque},
    io::Write as _,
    num::NonZero,
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};
use tokio::{runtime::Handle, sync::watch, task::JoinSet};
use worldline_reports::{Miss, RunResult, ScenarioResult, Source, SuiteResult, latest, terminal::Colour};
use worldline_scenarios::{
    catalogue,
    cli::{
        self,
        output::Output,
        place::{self, Place},
        usage::{self, Asked},
    },
    format::{Scenario, Setting},
    suite::{self, JOBS_MAX, Plan},
};

/// A service or a process could not be started, or what a drill left behind cannot be read.
const UNAVAILABLE: u8 = 69;
/// Ended by Ctrl-C or SIGTERM.
const INTERRUPTED: u8 = 130;
/// Drills of each scenario.
const REPEAT_MAX: u32 = 1_000;
/// Drills at once: each has its own services and ports.
const AT_ONCE_MAX: u8 = 8;
/// Seeds of each scenario in the simulator, to compare with.
const SIMULATED: u64 = 100;

/// Runs scenarios on real processes and services, and checks what it checks in the simulator.
#[derive(Parser)]
#[command(name = "drill", version = suite::REVISION, after_help = AFTER_HELP)]
struct Arguments {
    /// Names from the catalogue or scenario files
    #[arg(required_unless_present_any = ["list", "all"], value_name = "NAME|FILE")]
    scenarios: Vec<String>,
    /// The whole catalogue
    #[arg(long, conflicts_with = "scenarios")]
    all: bool,
    /// Drills of each scenario, each with the next seed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPEAT_MAX)))]
    repeat: u32,
    /// The first seed: it draws who plays how, on which line, and when within its window a fault comes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = usage::seed)]
    seed: u64,
    /// Drills at once, each with services, ports and a folder of its own: no more than there are cores for, or budgets are missed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(AT_ONCE_MAX)))]
    jobs: u8,
    /// Seeds in the simulator to compare with; 0 compares with nothing
    #[arg(long, value_name = "N", default_value_t = SIMULATED, value_parser = compared)]
    simulated: u64,
    /// Keep histories and logs of drills that held too
    #[arg(long)]
    keep: bool,
    /// Each member of directory, ledger and bus is a process of its own; where members take over from others that is so anyway
    #[arg(long)]
    cluster: bool,
    /// Names what can be drilled, and what of each cannot be provoked
    #[arg(long)]
    list: bool,
    /// Put VALUE in the place of a scenario's own, such as lease.ttl=4s (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = usage::setting)]
    settings: Vec<Setting>,
    /// The server [default: `worldlined` beside this program]
    #[arg(long, value_name = "FILE")]
    worldlined: Option<PathBuf>,
    /// The command that starts and stops the services [default: `ci/services` of the project]
    #[arg(long, value_name = "FILE")]
    services: Option<PathBuf>,
}

const AFTER_HELP: &str = "Exit codes: 0 all held; 1 an invariant broke; 2 a liveness or timing budget was missed, a process\n\
    ended badly, or the stream is not the ledger's log; 4 nothing of what a scenario threatens with could be provoked; 64 wrong usage; 65 a wrong scenario file;\n\
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
    let mut printer = Printer { output: Output::standard(), problem: None };
    match run(&mut printer, &arguments) {
        Ok(code) => code.into(),
        Err(ended) => {
            printer.output.complain(&ended.to_string());
            match ended {
                Ended::Command(failed) => failed.exit_code().into(),
                Ended::Drill(Failed::Interrupted) => INTERRUPTED.into(),
                Ended::Drill(_) => UNAVAILABLE.into(),
            }
        }
    }
}

/// Standard output, as long as somebody takes it: a series goes on without a reader, and its end says what it has come to.
struct Printer {
    output: Output,
    problem: Option<cli::Failed>,
}

impl Printer {
    fn print(&mut self, text: &str) {
        if self.problem.is_none()
            && let Err(error) = self.output.print(text).and_then(|()| self.output.flush())
        {
            self.problem = Some(error.into());
        }
    }
}

/// The drills that were run.
struct Series {
    scenarios: Vec<ScenarioResult>,
    /// One was run.
    ran: bool,
    /// One could not be run.
    failed: bool,
}

fn run(printer: &mut Printer, arguments: &Arguments) -> Result<u8, Ended> {
    if arguments.list {
        list(printer, arguments.cluster)?;
        return Ok(0);
    }
    let asked = usage::scenarios_or_all(&arguments.scenarios, &arguments.settings)?;
    let server = found(arguments.worldlined.clone(), beside_this("worldlined"), "--worldlined")?;
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ci/services");
    let services = found(arguments.services.clone(), Some(project), "--services")?;
    let programs = Programs { server: &server, services: &services };
    let begun = tokio::time::Instant::now();
    let runtime = tokio::runtime::Runtime::new().map_err(Failed::machine("cannot start the runtime"))?;
    let drilled = runtime.block_on(async {
        let stop = interruption()?;
        let series = drills(printer, arguments, &asked, programs, &stop).await?;
        let wall_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let compared = if series.ran { arguments.simulated } else { 0 };
        let seeds = arguments.seed..arguments.seed.saturating_add(compared);
        Ok::<_, Ended>((series, wall_ns, simulated(&mut printer.output, &asked, seeds, stop).await))
    });
    // Neither proxies nor a simulation that nobody wants any more hold anything that anybody waits for.
    runtime.shutdown_background();
    let (Series { scenarios, failed, .. }, wall_ns, simulated) = drilled?;
    let suite = SuiteResult { revision: suite::REVISION.to_owned(), scenarios, jobs: arguments.jobs.into(), wall_ns };
    let interrupted = simulated.is_none();
    let simulated = simulated.unwrap_or_default();
    let colour = printer.output.colour;
    for (index, scenario) in suite.scenarios.iter().enumerate() {
        printer.print(&told(scenario, simulated.get(index), colour));
    }
    if let Some(path) = Place::here().drill() {
        let json = latest::beside(&suite, &simulated).map_err(|error| cli::Failed::Write(error.to_string()))?;
        if let Err(error) = place::write(&path, &json) {
            printer.output.complain(&format!("note: `{}` was not written: {error}", path.display()));
        }
    }
    Ok(match (failed, suite.outcome().exit_code(), &printer.problem) {
        _ if interrupted => INTERRUPTED,
        (true, ..) => UNAVAILABLE,
        (false, 0, Some(problem @ cli::Failed::Write(_))) => {
            printer.output.complain(&problem.to_string());
            problem.exit_code()
        }
        (false, code, _) => code,
    })
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

/// One drill of a series.
#[derive(Clone)]
struct Turn {
    /// Of which of the scenarios that were asked for.
    index: usize,
    scenario: Arc<Scenario>,
    seed: u64,
    /// How manieth of its scenario.
    number: usize,
}

/// Every drill that was asked for, in order, so many at once.
async fn drills(
    printer: &mut Printer,
    arguments: &Arguments,
    asked: &[Asked],
    programs: Programs<'_>,
    stop: &watch::Receiver<bool>,
) -> Result<Series, Ended> {
    let scenarios: Vec<Arc<Scenario>> = asked.iter().map(|one| Arc::new(one.scenario.clone())).collect();
    let turns = scenarios.iter().enumerate().flat_map(|(index, scenario)| {
        (0..arguments.repeat).map(move |number| Turn {
            index,
            scenario: Arc::clone(scenario),
            seed: arguments.seed.wrapping_add(number.into()),
            number: usize::try_from(number).unwrap_or(usize::MAX),
        })
    });
    let (mut turns, mut running) = (turns.collect::<VecDeque<_>>(), JoinSet::new());
    let mut runs: BTreeMap<(usize, usize), RunResult> = BTreeMap::new();
    let (mut ran, mut failed, mut interrupted) = (false, false, false);
    loop {
        while running.len() < usize::from(arguments.jobs)
            && let Some(turn) = turns.pop_front()
        {
            let (keep, cluster) = (arguments.keep, arguments.cluster || wants_cluster(&turn.scenario));
            let (server, services) = (programs.server.to_owned(), programs.services.to_owned());
            let (stop, runtime) = (stop.clone(), Handle::current());
            // A thread of its own: nothing that one drill does holds up another's.
            running.spawn_blocking(move || {
                let programs = Programs { server: &server, services: &services };
                let order = Order { scenario: &turn.scenario, seed: turn.seed, programs, keep, cluster };
                let drilled = runtime.block_on(drill(order, stop, &|what| turn.say(what)));
                (turn, drilled)
            });
        }
        let Some(ended) = running.join_next().await else { break };
        // A panic is a fault of the drill itself; none is ever cancelled.
        let (turn, drilled) = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let drilled = match drilled {
            Ok(drilled) => {
                ran = true;
                drilled
            }
            // So are the others: each ends by itself, with nothing left running.
            Err(Failed::Interrupted) => {
                interrupted = true;
                turns.clear();
                continue;
            }
            // The others are worth as much as before.
            Err(why) => {
                failed = true;
                turn.say(&format!("could not be run: {why}"));
                not_run(&turn.scenario, turn.seed, &why)
            }
        };
        turn.tell(printer, &drilled);
        runs.insert((turn.index, turn.number), drilled.result);
    }
    if interrupted {
        return Err(Failed::Interrupted.into());
    }
    let of = |(index, scenario): (usize, &Arc<Scenario>)| {
        let runs = runs.range((index, 0)..(index + 1, 0)).map(|(_, run)| run.clone());
        scenario_result(scenario, runs.collect())
    };
    Ok(Series { scenarios: scenarios.iter().enumerate().map(of).collect(), ran, failed })
}

impl Turn {
    /// Says what goes on. If nobody reads it, nobody misses it.
    fn say(&self, what: &str) {
        drop(writeln!(std::io::stderr(), "{} seed {}: {what}", self.scenario.name, self.seed));
    }

    /// Says what it has come to.
    fn tell(&self, printer: &mut Printer, drilled: &Drilled) {
        self.say(verdict(&drilled.result, Colour(false)).as_str());
        if let Some(folder) = &drilled.folder {
            let path = folder.join("verdict.txt");
            if let Err(error) = std::fs::write(&path, one_drill(&self.scenario, drilled, Colour(false))) {
                self.say(&format!("cannot write {}: {error}", path.display()));
            }
        }
        printer.print(&one_drill(&self.scenario, drilled, printer.output.colour));
    }
}

fn scenario_result(scenario: &Scenario, runs: Vec<RunResult>) -> ScenarioResult {
    ScenarioResult {
        name: scenario.name.clone(),
        summary: scenario.summary.clone(),
        file: suite::digest(&scenario.text),
        settings: scenario.settings.iter().map(ToString::to_string).collect(),
        budgets: scenario.budgets.iter().map(|b| (b.timing.name().to_owned(), b.within.as_nanos())).collect(),
        runs,
        nondeterminism: None,
    }
}

/// What stands for a drill that could not be run.
fn not_run(scenario: &Scenario, seed: u64, why: &Failed) -> Drilled {
    let result = RunResult {
        scenario: scenario.name.clone(),
        seed,
        source: Source::Drill { provoked: 0, skipped: Vec::new() },
        events: 0,
        entries: 0,
        span_ns: 0,
        wall_ns: 0,
        verdicts: Vec::new(),
        violation: None,
        misses: vec![Miss { name: "drill".to_owned(), sentence: format!("it could not be run: {why}") }],
        timings: BTreeMap::new(),
        probes: BTreeMap::new(),
        metrics: BTreeMap::new(),
    };
    Drilled { result, log: Vec::new(), first: None, folder: None }
}

/// The same scenarios in the simulator. `None`: somebody wanted it to stop.
async fn simulated(
    output: &mut Output,
    asked: &[Asked],
    seeds: Range<u64>,
    mut stop: watch::Receiver<bool>,
) -> Option<Vec<ScenarioResult>> {
    if seeds.is_empty() {
        return Some(Vec::new());
    }
    output.complain(&format!("simulating {} seeds of each to compare with", seeds.end - seeds.start));
    let plan = Plan {
        scenarios: asked.iter().map(|one| one.scenario.clone()).collect(),
        seeds: seeds.collect(),
        shard: None,
        jobs: std::thread::available_parallelism().map_or(1, NonZero::get).min(JOBS_MAX),
        all: false,
    };
    let simulating = tokio::task::spawn_blocking(move || suite::run(&plan, &mut |_| {}).scenarios);
    tokio::select! {
        biased;
        Ok(_) = stop.wait_for(|stop| *stop) => None,
        // It panics where an assertion of the simulator fails, and has said so.
        simulated = simulating => Some(simulated.unwrap_or_default()),
    }
}

/// What can be drilled.
fn list(printer: &mut Printer, cluster: bool) -> Result<(), Ended> {
    for name in catalogue::names() {
        let Asked { scenario, .. } = usage::scenario(name, &[])?;
        printer.print(&format!("{name:<22} {}\n", scenario.summary));
        if cluster || wants_cluster(&scenario) {
            printer.print(&format!("{:<22} on clusters of etcd, PostgreSQL and NATS\n", ""));
        }
        for why in left_out(&scenario, cluster) {
            printer.print(&format!("{:<22} skipped {why}\n", ""));
        }
    }
    match printer.problem.take() {
        Some(problem @ cli::Failed::Write(_)) => Err(problem.into()),
        _ => Ok(()),
    }
}
