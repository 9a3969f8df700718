//! What a drill says of itself: one drill, and what a scenario's drills have come to beside the simulator.

use crate::drill::Drilled;
use worldline_reports::{
    Outcome, RunResult, ScenarioResult, beside,
    terminal::{self, Colour},
};
use worldline_scenarios::format::Scenario;

/// A verdict in words.
#[must_use]
pub fn verdict(run: &RunResult, colour: Colour) -> String {
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
#[must_use]
pub fn one_drill(scenario: &Scenario, drilled: &Drilled, colour: Colour) -> String {
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
#[must_use]
pub fn told(scenario: &ScenarioResult, simulated: Option<&ScenarioResult>, colour: Colour) -> String {
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
