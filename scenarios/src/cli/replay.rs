//! `worldline replay`: one seed again, twice, and what it came to.

use super::{Failed, output::Output, place, usage};
use crate::{
    format::{self, Setting},
    otlp,
    run::{self, Options, Traced},
    suite::REVISION,
};
use clap::Args;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};
use worldline_proto::EntityId;
use worldline_reports::{Failure, Outcome, Quantiles, RunResult, terminal};

/// Arguments of `worldline replay`.
#[derive(Args, Debug)]
pub struct ReplayArguments {
    /// A name from the catalogue, a scenario file, or a failure that a run has kept
    #[arg(value_name = "NAME|FAILURE")]
    target: String,
    /// The seed; a failure brings its own
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = usage::seed)]
    seed: Option<u64>,
    /// Stop at this moment of the run, such as 12.5s
    #[arg(long, value_name = "MOMENT", value_parser = usage::moment)]
    until: Option<u64>,
    /// Write the spans of what players do as OTLP in JSON, in virtual time
    #[arg(long, value_name = "FILE")]
    traces: Option<PathBuf>,
    /// Print every event with its cause
    #[arg(long)]
    events: bool,
    /// Of them only those at this node, such as worker:frankfurt:0
    #[arg(long, value_name = "NODE", requires = "events")]
    node: Option<String>,
    /// Of them only those that name this entity, such as boss-1
    #[arg(long, value_name = "ENTITY", requires = "events")]
    entity: Option<EntityId>,
    /// Put VALUE in the place of the scenario's own, such as lease.ttl=4s (may be repeated); a failure brings its own
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = usage::setting)]
    settings: Vec<Setting>,
    /// Go on behind a broken invariant, to see which others break
    #[arg(long)]
    all: bool,
}

/// What is replayed.
struct Subject {
    scenario: format::Scenario,
    seed: u64,
    all: bool,
    /// What it came to before.
    before: Option<Failure>,
}

/// Replays.
pub fn replay(output: &mut Output, arguments: ReplayArguments) -> Result<u8, Failed> {
    let subject = subject(&arguments)?;
    if let Some(node) = &arguments.node {
        let names = run::node_names(&subject.scenario);
        if !names.contains(node) {
            let nearest = format::nearest(node, names.iter().map(String::as_str));
            let meant = nearest.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
            return Err(Failed::Usage(format!(
                "found no node `{node}` in `{}`, expected one such as `{}`{meant}",
                subject.scenario.name,
                names.first().map_or("", String::as_str)
            )));
        }
    }
    let options = || Options { all: subject.all, until_ns: arguments.until, ..Options::default() };
    let mut spans = Vec::new();
    // One of the two runs listens to the spans and the other does not: they must be the same all the same.
    let listening = Options { spans: arguments.traces.is_some().then_some(&mut spans), ..options() };
    let first = run::seed(&subject.scenario, subject.seed, listening);
    let second = if arguments.events {
        let (mut closed, mut printed) = (None, 0_u64);
        let mut print = |event: &Traced<'_>| {
            if closed.is_none() && shown(event, &arguments) {
                closed = output.print(&line(event)).err();
                printed += 1;
            }
        };
        let result = run::seed(&subject.scenario, subject.seed, Options { traced: Some(&mut print), ..options() });
        if let Some(error) = closed {
            return Err(error.into());
        }
        if let (0, Some(entity)) = (printed, arguments.entity) {
            output.complain(&format!("note: no event of this run that was asked for names `{entity}`"));
        }
        result
    } else {
        run::seed(&subject.scenario, subject.seed, options())
    };
    let same = (first.hash(), first.events) == (second.hash(), second.events);
    if let Some(path) = &arguments.traces {
        let json = otlp::json(&subject.scenario, &spans).map_err(|error| Failed::Write(error.to_string()))?;
        place::write(path, &json).map_err(|error| Failed::Write(format!("`{}`: {error}", path.display())))?;
    }
    output.print(&report(&first, &second, output))?;
    let mut outcome = if same { first.outcome() } else { Outcome::NotDeterministic };
    if let Some(before) = subject.before.as_ref().filter(|_| arguments.until.is_none()) {
        let (text, differs) = compared(before, &first);
        output.print(&text)?;
        if differs && before.revision == REVISION && !REVISION.ends_with("-dirty") && REVISION != "unknown" {
            outcome = Outcome::NotDeterministic;
        }
    }
    output.flush()?;
    Ok(outcome.exit_code())
}

fn subject(arguments: &ReplayArguments) -> Result<Subject, Failed> {
    if !arguments.target.ends_with(".json") {
        let scenario = usage::scenario(&arguments.target, &arguments.settings)?.scenario;
        return Ok(Subject { scenario, seed: arguments.seed.unwrap_or(1), all: arguments.all, before: None });
    }
    let text = format::read_text(Path::new(&arguments.target), "a failure that a run has kept")?;
    let failure = Failure::from_json(&text).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        let (line, column) = (error.line().max(1), error.column().max(1));
        Failed::File(format!(
            "{}:{line}:{column}: found {message}, expected a failure that a run has kept",
            arguments.target
        ))
    })?;
    let file = format!("{} (its scenario)", arguments.target);
    let kept: Result<Vec<Setting>, _> = failure.settings.iter().map(|setting| setting.parse()).collect();
    let kept =
        kept.map_err(|why| Failed::File(format!("{}: found a setting that is none, {why}", arguments.target)))?;
    let scenario = format::parse_with(&file, &failure.text, &kept)?;
    let scenario = usage::set(&file, scenario, &arguments.settings)?;
    let seed = arguments.seed.unwrap_or(failure.seed);
    let all = arguments.all || failure.all;
    let before = (seed == failure.seed && all == failure.all && arguments.settings.is_empty()).then_some(failure);
    Ok(Subject { scenario, seed, all, before })
}

fn shown(event: &Traced<'_>, arguments: &ReplayArguments) -> bool {
    let names = |entity: EntityId| {
        let digits = entity.get().to_string();
        let whole = |word: &str| word == digits || word == entity.to_string();
        event.what.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(whole)
    };
    arguments.node.as_ref().is_none_or(|node| node == event.node) && arguments.entity.is_none_or(names)
}

fn line(event: &Traced<'_>) -> String {
    let cause = if event.cause == 0 { "the scenario".into() } else { format!("#{}", event.cause) };
    format!(
        "#{:<8} {} {:<22} {}  caused by {cause}\n",
        event.id,
        terminal::seconds(event.at_ns),
        event.node,
        event.what
    )
}

fn report(first: &RunResult, second: &RunResult, output: &Output) -> String {
    let mut text = format!("{} seed {} at revision {REVISION}\n", first.scenario, first.seed);
    let twice = match (first.hash(), first.events) == (second.hash(), second.events) {
        true => output.colour.green("the same in two runs"),
        false => {
            let hash = terminal::hash(second.hash());
            output.colour.red(&format!("but {hash} after {} events in the second run", second.events))
        }
    };
    // Writing to a text cannot fail.
    let _ = writeln!(text, "hash {} after {} events, {twice}", terminal::hash(first.hash()), first.events);
    let _ = writeln!(text, "{} simulated in {}\n", terminal::span(first.span_ns), terminal::span(first.wall_ns));
    text += &terminal::verdicts(&first.verdicts, output.colour);
    for (timing, spans) in &first.timings {
        if let Some(quantiles) = Quantiles::of(spans.clone()) {
            let Quantiles { samples, p50_ns, max_ns, .. } = quantiles;
            let (p50, max) = (terminal::span(p50_ns), terminal::span(max_ns));
            let _ = writeln!(text, "  {timing}: {samples} measured, p50 {p50}, max {max}");
        }
    }
    let reached: Vec<_> = first.probes.iter().filter(|(_, count)| **count > 0).collect();
    let width = reached.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, count) in reached {
        let _ = writeln!(text, "  reached {name:<width$}  {count} times");
    }
    text += &terminal::metrics(first.metrics.iter().map(|(name, measured)| (name.as_str(), measured)));
    if let Some(violation) = &first.violation {
        let event = &violation.event;
        let head = output.colour.red(&format!("{} broke", violation.invariant));
        let at = if event.node.is_empty() { String::new() } else { format!(" at {}", event.node) };
        let when = terminal::seconds(event.at_ns);
        let _ =
            writeln!(text, "\n{head}: {}\n  first event  #{} {when}{at}: {}", violation.sentence, event.id, event.what);
    }
    for miss in &first.misses {
        let _ = writeln!(text, "\n{}: {}", output.colour.yellow(&format!("{} was missed", miss.name)), miss.sentence);
    }
    text
}

/// What has changed since the failure was kept, and whether anything has.
fn compared(before: &Failure, now: &RunResult) -> (String, bool) {
    let event = now.violation.as_ref().map(|violation| (violation.invariant.as_str(), violation.event.id));
    let was = before.event.as_ref().map(|event| (before.what.as_str(), event.id));
    let missed = now.misses.first().map(|miss| miss.name.as_str());
    let same_end = event == was && (was.is_some() || missed == Some(before.what.as_str()));
    let text = match (same_end, Some(before.hash) == now.hash()) {
        (true, true) => "\nThe same failure as was kept: the same first event, the same hash.\n".to_owned(),
        (true, false) => format!("\nThe same failure as was kept, but another hash: {:016x} was kept.\n", before.hash),
        (false, _) => {
            let kept = was.map_or(before.what.clone(), |(what, id)| format!("{what} at #{id}"));
            format!(
                "\nNot the failure that was kept: {kept}, hash {:016x}, at revision {}.\n",
                before.hash, before.revision
            )
        }
    };
    (text, !(same_end && Some(before.hash) == now.hash()))
}
