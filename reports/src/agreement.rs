//! Measured beside simulated: whether what real processes took lies where the simulator says that it may.
//!
//! The unit is a run: the samples of one run hang together (one crash, many players), so each run counts once for its median
//! and once for its worst. A measured run agrees if its figure lies between the smallest and the largest of the simulated
//! runs, widened by a [`Tolerance`]: of a hundred simulated seeds, one further run of the same world would lie outside that
//! range twice in a hundred and one times, whatever the distribution.
//!
//! Deliberately absent: which of the two is right, and why they differ.

use crate::{
    Quantiles, TIMINGS,
    diff::Figure,
    kept::{Kept, Scenario},
    terminal::{Colour, lines, span, table},
};
use std::collections::BTreeSet;

/// By how much a measured figure may lie outside what was simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// In hundredths of the simulated figure.
    pub percent: u64,
    /// In nanoseconds, on top: what a loaded machine's scheduler may take.
    pub slack_ns: u64,
}

impl Default for Tolerance {
    /// A quarter and 25 ms.
    fn default() -> Self {
        Self { percent: 25, slack_ns: 25_000_000 }
    }
}

/// A figure over runs, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// How many runs have it.
    pub runs: usize,
    /// The smallest.
    pub lowest: u64,
    /// The median run's.
    pub median: u64,
    /// The largest.
    pub highest: u64,
}

impl Spread {
    fn of(mut figures: Vec<u64>) -> Option<Self> {
        figures.sort_unstable();
        let (&lowest, &highest) = (figures.first()?, figures.last()?);
        Some(Self { runs: figures.len(), lowest, median: figures[(figures.len() - 1) / 2], highest })
    }
}

/// One figure of one timing on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The timing's name.
    pub timing: String,
    /// Which figure of a run: its median or its worst.
    pub figure: Figure,
    /// In the simulator; `None` where no seed has it.
    pub simulated: Option<Spread>,
    /// On real processes; `None` where no drill has it.
    pub measured: Option<Spread>,
    /// How many measured runs lie above what was simulated, beyond the tolerance.
    pub above: usize,
    /// How many lie below.
    pub below: usize,
}

impl Compared {
    /// Whether every measured run lies inside. What only one side has agrees with nothing.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        self.simulated.is_some() && self.measured.is_some() && self.above == 0 && self.below == 0
    }
}

/// One scenario on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Its name.
    pub name: String,
    /// How many seeds were simulated.
    pub seeds: usize,
    /// How many drills were run.
    pub drills: usize,
    /// Every timing that either has.
    pub compared: Vec<Compared>,
}

/// Compares a result of the simulator with one of drills, scenario by scenario in the drills' order.
///
/// # Errors
/// Why they cannot be compared, a line each.
pub fn compare(simulated: &Kept, measured: &Kept, tolerance: Tolerance) -> Result<Vec<Agreement>, Vec<String>> {
    let mut wrong = Vec::new();
    for (kept, source, side) in [(simulated, "simulator", "first"), (measured, "drill", "second")] {
        for scenario in &kept.scenarios {
            if let Some(run) = scenario.runs.iter().find(|run| run.source != source) {
                wrong.push(format!(
                    "`{}`, seed {}, of the {side} is of the {}: expected the {source}",
                    scenario.name, run.seed, run.source
                ));
            } else if scenario.runs.is_empty() {
                wrong.push(format!("`{}` of the {side} ran not once", scenario.name));
            }
        }
    }
    let mut both = Vec::new();
    for real in &measured.scenarios {
        match simulated.scenarios.iter().find(|model| model.name == real.name) {
            None => wrong.push(format!("`{}` was drilled and not simulated", real.name)),
            Some(model) if model.file != real.file => {
                wrong.push(format!("the file of `{}` is not the same in both", real.name));
            }
            Some(model) if model.settings != real.settings => {
                let set = |of: &Scenario| match &of.settings[..] {
                    [] => "nothing".to_owned(),
                    settings => settings.join(" "),
                };
                wrong.push(format!(
                    "of `{}`, {} was set in the first and {} in the second",
                    real.name,
                    set(model),
                    set(real)
                ));
            }
            Some(model) => both.push(agreement(model, real, tolerance)),
        }
    }
    if wrong.is_empty() { Ok(both) } else { Err(wrong) }
}

fn agreement(model: &Scenario, real: &Scenario, tolerance: Tolerance) -> Agreement {
    let has: BTreeSet<&str> = model.timings.keys().chain(real.timings.keys()).map(String::as_str).collect();
    let known = TIMINGS.into_iter().filter(|name| has.contains(name));
    let further = has.iter().copied().filter(|name| !TIMINGS.contains(name));
    let compared = known.chain(further).flat_map(|timing| {
        [Figure::P50, Figure::Max].map(|figure| {
            let of = |side: &Scenario| -> Vec<u64> {
                let has = side.runs.iter().filter_map(|run| run.timings.get(timing));
                has.map(|quantiles: &Quantiles| figure.of(quantiles)).collect()
            };
            let (simulated, each) = (Spread::of(of(model)), of(real));
            let (mut above, mut below) = (0, 0);
            if let Some(simulated) = simulated {
                let (lowest, highest) = tolerance.around(simulated);
                above = each.iter().filter(|&&figure| figure > highest).count();
                below = each.iter().filter(|&&figure| figure < lowest).count();
            }
            Compared { timing: timing.to_owned(), figure, simulated, measured: Spread::of(each), above, below }
        })
    });
    Agreement {
        name: real.name.clone(),
        seeds: model.runs.len(),
        drills: real.runs.len(),
        compared: compared.collect(),
    }
}

impl Tolerance {
    /// Where a measured figure may lie, both ends included.
    fn around(self, simulated: Spread) -> (u64, u64) {
        let share = |figure: u64| figure.saturating_mul(self.percent) / 100;
        let (lowest, highest) = (simulated.lowest, simulated.highest);
        (
            lowest.saturating_sub(share(lowest)).saturating_sub(self.slack_ns),
            highest.saturating_add(share(highest)).saturating_add(self.slack_ns),
        )
    }
}

/// All of them on the terminal.
#[must_use]
pub fn text(agreements: &[Agreement], tolerance: Tolerance, colour: Colour) -> String {
    let mut text: String = agreements.iter().map(|one| scenario(one, colour)).collect();
    let all = agreements.iter().flat_map(|one| &one.compared);
    let (agree, figures) = (all.clone().filter(|one| one.agrees()).count(), all.count());
    text += &format!("\n{agree} of {figures} figures agree\n");
    text + &colour.faint(&format!(
        "A run's median and its worst. A measured run agrees between the smallest and the\nlargest simulated one, \
         {} % and {} beyond them.\n",
        tolerance.percent,
        span(tolerance.slack_ns)
    ))
}

fn scenario(agreement: &Agreement, colour: Colour) -> String {
    let Agreement { name, seeds, drills, compared } = agreement;
    let headings = ["timing", "of", "simulated", "from", "to", "measured", "from", "to", ""];
    let mut table = table(&headings, &[0, 1, 8]);
    for one in compared {
        let cells = |spread: Option<Spread>| match spread {
            Some(spread) => [spread.median, spread.lowest, spread.highest].map(span),
            None => ["-".to_owned(), String::new(), String::new()],
        };
        let timing = if one.figure == Figure::P50 { one.timing.clone() } else { String::new() };
        let figure = one.figure.name().to_owned();
        let (simulated, measured) = (cells(one.simulated), cells(one.measured));
        table.add_row([timing, figure].into_iter().chain(simulated).chain(measured).chain([verdict(one)]));
    }
    let table = lines(&table);
    let (head, rest) = table.split_once('\n').unwrap_or((&table, ""));
    let rows = rest.lines().zip(compared).fold(String::new(), |all, (line, one)| {
        all + &(if one.agrees() { line.to_owned() } else { colour.yellow(line) }) + "\n"
    });
    format!("\n{name}: {drills} drills beside {seeds} simulated seeds\n{}\n{rows}", colour.faint(head))
}

/// What a reader should look at.
fn verdict(one: &Compared) -> String {
    let (Some(_), Some(measured)) = (one.simulated, one.measured) else {
        return if one.measured.is_some() { "never simulated".into() } else { "not measured".into() };
    };
    let of = |count: usize, what: &str| match count {
        0 => None,
        count if count == measured.runs => Some(what.to_owned()),
        count => Some(format!("{what} in {count} of {}", measured.runs)),
    };
    let said: Vec<_> = [of(one.above, "slower"), of(one.below, "faster")].into_iter().flatten().collect();
    said.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MS: u64 = 1_000_000;

    fn kept(source: &str, medians_ms: &[u64]) -> Kept {
        let quantiles = |ns: u64| json!({"samples": 1, "p50_ns": ns, "p95_ns": ns, "p99_ns": ns, "max_ns": ns});
        let runs: Vec<_> = (1..)
            .zip(medians_ms)
            .map(|(seed, ms)| {
                let timings = json!({"failover": quantiles(ms * MS)});
                json!({"seed": seed, "source": source, "outcome": "held", "timings": timings, "probes": {}})
            })
            .collect();
        let timings = json!({"failover": quantiles(1)});
        let file = "00000000000000aa";
        let scenario = json!({"name": "crash", "file": file, "settings": [], "timings": timings, "runs": runs});
        let text = json!({"format": 1, "revision": "r", "scenarios": [scenario]}).to_string();
        Kept::from_json(&text).expect("a kept result")
    }

    fn p50(model: &[u64], real: &[u64]) -> Compared {
        let agreed = compare(&kept("simulator", model), &kept("drill", real), Tolerance::default());
        agreed.expect("comparable")[0].compared[0].clone()
    }

    #[test]
    fn a_run_agrees_within_the_simulated_range_and_the_tolerance_around_it() {
        // A quarter of 1,000 ms and 25 ms above; a quarter of 400 ms and 25 ms below.
        let inside = p50(&[400, 700, 1_000], &[275, 1_275]);
        assert!(inside.agrees(), "{inside:?}");
        assert_eq!(
            inside.measured.map(|spread| (spread.lowest, spread.median, spread.highest)),
            Some((275 * MS, 275 * MS, 1_275 * MS))
        );
        let outside = p50(&[400, 700, 1_000], &[274, 500, 1_276, 1_300]);
        assert_eq!((outside.below, outside.above, outside.agrees()), (1, 2, false));
        assert_eq!(verdict(&outside), "slower in 2 of 4, faster in 1 of 4");
        assert_eq!(verdict(&p50(&[400], &[5_000])), "slower");
    }

    #[test]
    fn the_table_says_where_both_lie_and_how_many_agree() {
        let tolerance = Tolerance::default();
        let agreed = compare(&kept("simulator", &[400, 1_000]), &kept("drill", &[3_000]), tolerance);
        let text = text(&agreed.expect("comparable"), tolerance, Colour(false));
        assert!(text.contains("crash: 1 drills beside 2 simulated seeds\n"), "{text}");
        assert!(text.contains("0 of 2 figures agree"), "{text}");
        let row = text.lines().find(|line| line.starts_with("failover")).expect("a row");
        assert!(row.contains("400 ms") && row.contains("1.00 s") && row.ends_with("slower"), "{row}");
        assert!(text.lines().all(|line| line.chars().count() <= 88), "{text}");
    }

    #[test]
    fn what_is_no_drill_and_what_was_never_simulated_is_refused() {
        let (model, real) = (kept("simulator", &[1]), kept("drill", &[1]));
        let wrong = compare(&real, &model, Tolerance::default()).expect_err("the wrong way round");
        assert!(wrong[0].contains("of the first is of the drill: expected the simulator"), "{wrong:?}");
        let mut other = model.clone();
        other.scenarios[0].name = "other".into();
        let wrong = compare(&other, &real, Tolerance::default()).expect_err("another scenario");
        assert_eq!(wrong, ["`crash` was drilled and not simulated"]);
        let mut changed = model;
        changed.scenarios[0].file = 1;
        let wrong = compare(&changed, &real, Tolerance::default()).expect_err("another file");
        assert_eq!(wrong, ["the file of `crash` is not the same in both"]);
    }
}
