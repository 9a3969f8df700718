//! The terminal: an aligned table, the verdicts, and the block that a failure prints. Colour only where it is asked for.

use crate::{Failure, Measured, Outcome, Quantiles, ScenarioResult, State, SuiteResult, TIMINGS, Verdict};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Whether to write colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour(pub bool);

impl Colour {
    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// For what is wrong.
    #[must_use]
    pub fn red(self, text: &str) -> String {
        self.paint("31;1", text)
    }

    /// For what held.
    #[must_use]
    pub fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// For what was not checked, or came late.
    #[must_use]
    pub fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// For what matters less.
    #[must_use]
    pub fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// A span for a reader: three significant digits.
#[must_use]
pub fn span(ns: u64) -> String {
    let (value, unit) = match ns {
        0 => return "0 s".into(),
        n if n < 1_000_000 => (n as f64 / 1e3, "µs"),
        n if n < 1_000_000_000 => (n as f64 / 1e6, "ms"),
        n => (n as f64 / 1e9, "s"),
    };
    let digits = if value >= 99.95 { 0 } else { usize::from(value < 9.995) + 1 };
    format!("{value:.digits$} {unit}")
}

/// A trace hash; what ran on real processes has none.
#[must_use]
pub fn hash(hash: Option<u64>) -> String {
    hash.map_or_else(|| "none".into(), |hash| format!("{hash:016x}"))
}

/// A large number for a reader.
#[must_use]
pub fn count(n: f64) -> String {
    match n {
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e4 => format!("{:.0} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// A bare table with these headings; the columns named in `left` are aligned left, all others right.
#[must_use]
pub fn table(headings: &[&str], left: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        column.set_cell_alignment(if left.contains(&index) { CellAlignment::Left } else { CellAlignment::Right });
    }
    table
}

/// A table's text, without blanks at the ends of lines.
#[must_use]
pub fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The table of a suite: a line a scenario, and a line more for each further timing with a budget.
#[must_use]
pub fn suite(suite: &SuiteResult, colour: Colour) -> String {
    let headings =
        ["scenario", "seeds", "verdict", "events/s", "sim s/s", "timing", "p50", "p95", "p99", "max", "budget"];
    let mut table = table(&headings, &[0, 2, 5]);
    for scenario in &suite.scenarios {
        let mut first = [
            scenario.name.clone(),
            scenario.runs.len().to_string(),
            verdict(scenario),
            count(scenario.events_per_second()),
            count(scenario.simulated_per_wall()),
        ];
        for timing in timings(scenario) {
            let quantiles = scenario.quantiles(&timing);
            let cell = |of: fn(&Quantiles) -> u64| quantiles.as_ref().map_or("-".into(), |q| span(of(q)));
            let budget = scenario.budgets.get(&timing).map_or(String::new(), |&ns| format!("< {}", span(ns)));
            let cells =
                [timing, cell(|q| q.p50_ns), cell(|q| q.p95_ns), cell(|q| q.p99_ns), cell(|q| q.max_ns), budget];
            table.add_row(first.iter().chain(&cells));
            first = Default::default();
        }
    }
    let painted = lines(&table).lines().fold(String::new(), |all, line| {
        let painted = match line {
            _ if all.is_empty() => colour.faint(line),
            line if line.contains(" broken") || line.contains("not deterministic") => colour.red(line),
            line if line.contains(" missed") => colour.yellow(line),
            line => line.to_owned(),
        };
        all + &painted + "\n"
    });
    painted + &summary(suite, colour)
}

/// The timings to show: those with a budget, in the order in which they happen; else what was measured.
fn timings(scenario: &ScenarioResult) -> Vec<String> {
    let known = |name: &&str| {
        scenario.budgets.contains_key(*name) || (scenario.budgets.is_empty() && scenario.quantiles(name).is_some())
    };
    let shown: Vec<_> = TIMINGS.iter().filter(|name| known(name)).map(|name| (*name).to_owned()).collect();
    if shown.is_empty() { vec![String::new()] } else { shown }
}

fn verdict(scenario: &ScenarioResult) -> String {
    let parts = [
        (scenario.count(Outcome::Broken), "broken"),
        (scenario.count(Outcome::Missed), "missed"),
        (scenario.count(Outcome::Unprovoked), "not provoked"),
    ];
    let words: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    match (scenario.nondeterminism.is_some(), words.is_empty()) {
        (true, _) => "not deterministic".into(),
        (false, true) if scenario.runs.is_empty() => "not run".into(),
        (false, true) => "held".into(),
        (false, false) => words.join(", "),
    }
}

fn summary(suite: &SuiteResult, colour: Colour) -> String {
    let runs: usize = suite.scenarios.iter().map(|scenario| scenario.runs.len()).sum();
    let events: u64 = suite.scenarios.iter().flat_map(|scenario| &scenario.runs).map(|run| run.events).sum();
    let simulated: u64 = suite.scenarios.iter().flat_map(|scenario| &scenario.runs).map(|run| run.span_ns).sum();
    let verdict = match suite.outcome() {
        Outcome::Held => colour.green("all held"),
        Outcome::Unprovoked => colour.yellow("nothing was provoked"),
        Outcome::Missed => colour.yellow("a budget was missed"),
        Outcome::Broken => colour.red("an invariant broke"),
        Outcome::NotDeterministic => colour.red("not deterministic"),
    };
    let wall = suite.wall_ns.max(1) as f64 / 1e9;
    format!(
        "\n{verdict}: {runs} runs on {} {}, {} events, {} simulated in {} ({} simulated seconds a wall second), revision {}\n",
        suite.jobs,
        if suite.jobs == 1 { "job" } else { "jobs" },
        count(events as f64),
        span(simulated),
        span(suite.wall_ns),
        count(simulated as f64 / 1e9 / wall),
        suite.revision,
    )
}

/// The probes that no run of a suite has reached: what they stand for was not tested. Empty if there are none.
#[must_use]
pub fn never_reached(suite: &SuiteResult, colour: Colour) -> String {
    let probes = suite.probes();
    let never: Vec<_> = probes.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    match never.is_empty() {
        true => String::new(),
        false => format!("{}: {}\n", colour.yellow("never reached"), never.join(", ")),
    }
}

/// What nodes told of themselves, a line a series.
#[must_use]
pub fn metrics<'m>(metrics: impl Iterator<Item = (&'m str, &'m Measured)>) -> String {
    let metrics: Vec<_> = metrics.collect();
    let width = metrics.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    metrics.iter().map(|(name, measured)| format!("  {name:<width$}  {}\n", measured.words())).collect()
}

/// The verdicts of one run, a line each.
#[must_use]
pub fn verdicts(verdicts: &[Verdict], colour: Colour) -> String {
    let line = |verdict: &Verdict| {
        let state = match &verdict.state {
            State::Held => colour.green("held"),
            State::Broken => colour.red("BROKEN"),
            State::NotChecked(why) => colour.yellow(&format!("not checked ({why})")),
        };
        format!("  {:<3} {state}  {}\n", verdict.id, verdict.sentence)
    };
    verdicts.iter().map(line).collect()
}

/// What a failure prints. `file` is where it is kept, if it could be; `command` replays it.
#[must_use]
pub fn failure(failure: &Failure, file: Option<&str>, command: &str, colour: Colour) -> String {
    let head = match failure.outcome {
        Outcome::Broken => format!("{} broke", failure.what),
        _ => format!("{} was missed", failure.what),
    };
    let mut text = format!("{}: {}\n", colour.red(&head), failure.sentence);
    if let Some(event) = &failure.event {
        let at = if event.node.is_empty() { String::new() } else { format!(" at {}", event.node) };
        text += &format!("  first event  #{} {}{at}: {}\n", event.id, seconds(event.at_ns), event.what);
    }
    text += &format!("  scenario     {}\n  seed         {}\n", failure.scenario, failure.seed);
    for setting in &failure.settings {
        text += &format!("  set          {setting}\n");
    }
    text += &format!("  revision     {}\n  hash         {:016x}\n", failure.revision, failure.hash);
    if let Some(file) = file {
        text += &format!("  kept in      {file}\n");
    }
    text + &format!("  replay       {command}\n")
}

/// A moment of a run, to the microsecond, as `--until` takes it back.
#[must_use]
pub fn seconds(ns: u64) -> String {
    format!("{}.{:06}s", ns / 1_000_000_000, ns / 1_000 % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_three_digits_and_its_unit() {
        for (ns, text) in [
            (0, "0 s"),
            (1_500, "1.50 µs"),
            (12_345_678, "12.3 ms"),
            (99_960_000, "100 ms"),
            (1_000_000_000, "1.00 s"),
            (29_990_000_000, "30.0 s"),
            (150_000_000_000, "150 s"),
        ] {
            assert_eq!(span(ns), text);
        }
    }

    #[test]
    fn without_colour_no_escape_is_written() {
        assert_eq!(Colour(false).red("x"), "x");
        assert_eq!(Colour(true).red("x"), "\u{1b}[31;1mx\u{1b}[0m");
    }
}
