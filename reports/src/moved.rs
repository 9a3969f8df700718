//! A [`Diff`] on the terminal.

use crate::{
    diff::{Changed, Diff, Difference, Figure, Moved, Timing},
    pairs::LEVEL,
    terminal::{Colour, lines, span, table},
};

/// Seeds that are named at most.
const SEEDS_NAMED_MAX: usize = 8;

/// All of it.
#[must_use]
pub fn diff(diff: &Diff, colour: Colour) -> String {
    let mut text: String = diff.scenarios.iter().map(|one| scenario(one, colour)).collect();
    if diff.comparisons > 0 {
        text += &colour.faint(&format!(
            "\nBeyond noise: an exact sign test over paired seeds, p < {LEVEL} after Holm's\ncorrection for {} comparisons. \
             In a seed: the median difference, and where it\nlies with 95 of 100.\n",
            diff.comparisons
        ));
    }
    text
}

fn scenario(difference: &Difference, colour: Colour) -> String {
    let seeds = if difference.seeds == 1 { "seed" } else { "seeds" };
    let mut text = format!("\n{}: {} {seeds}\n", difference.name, difference.seeds);
    if difference.file {
        text += &colour.yellow("  its file is not the same in both\n");
    }
    for (side, set) in [('A', &difference.set_a), ('B', &difference.set_b)] {
        if !set.is_empty() {
            text += &format!("  set in {side} only: {}\n", set.join(" "));
        }
    }
    text += &difference.outcomes.iter().map(|changed| outcome(changed, colour)).collect::<String>();
    let mut rows = table(&["  timing", "", "A", "B", "", "in a seed", "", ""], &[0, 1, 6, 7]);
    difference.timings.iter().for_each(|timing| timing_rows(timing, &mut rows));
    text += &painted(&lines(&rows), colour);
    for timing in &difference.timings {
        for (only, side) in [(timing.only_a, 'A'), (timing.only_b, 'B')] {
            if only > 0 {
                text += &format!("  {} was measured in {side} only in {only} seeds\n", timing.name);
            }
        }
    }
    if !difference.counts.is_empty() {
        let mut rows = table(&["  count", "A", "B", "more in", "less in", ""], &[0, 5]);
        for (name, moved) in &difference.counts {
            let seeds = |n: usize| format!("{n} seeds");
            rows.add_row([
                format!("  {name}"),
                moved.a.to_string(),
                moved.b.to_string(),
                seeds(moved.pairs.more),
                seeds(moved.pairs.less),
                word(moved, "more", "fewer"),
            ]);
        }
        text += &painted(&lines(&rows), colour);
    }
    text
}

fn outcome(changed: &Changed, colour: Colour) -> String {
    let named: Vec<_> = changed.seeds.iter().take(SEEDS_NAMED_MAX).map(u64::to_string).collect();
    let more = if changed.seeds.len() > SEEDS_NAMED_MAX { ", …" } else { "" };
    let (count, of) = (changed.seeds.len(), if changed.seeds.len() == 1 { "seed" } else { "seeds" });
    let line = format!("  {} → {} in {count} {of}: {}{more}\n", changed.a, changed.b, named.join(", "));
    if changed.worse.is_some() { colour.red(&line) } else { colour.green(&line) }
}

fn timing_rows(timing: &Timing, rows: &mut comfy_table::Table) {
    if !timing.figures.is_empty() && timing.figures.iter().all(|moved| moved.pairs.is_same()) {
        let value = |of: fn(&Moved) -> u64| timing.figures.first().map_or(String::new(), |moved| span(of(moved)));
        let (a, b) = (value(|moved| moved.a), value(|moved| moved.b));
        let name = format!("  {}", timing.name);
        let none = String::new;
        rows.add_row([name, "p50".into(), a, b, none(), none(), "in every seed".into(), "same".into()]);
        return;
    }
    for (at, (figure, moved)) in Figure::ALL.iter().zip(&timing.figures).enumerate() {
        let interval =
            moved.pairs.interval.map(|(from, to)| format!("{}..{}", signed(from), signed(to)).replace(' ', ""));
        rows.add_row([
            if at == 0 { format!("  {}", timing.name) } else { String::new() },
            figure.name().into(),
            span(moved.a),
            span(moved.b),
            share(moved.a, moved.b),
            signed(moved.pairs.median),
            interval.unwrap_or_default(),
            word(moved, "slower", "faster"),
        ]);
    }
}

/// What a reader should make of it.
fn word(moved: &Moved, more: &str, less: &str) -> String {
    match &moved.pairs {
        pairs if pairs.is_same() => "same".into(),
        _ if moved.grew() => more.into(),
        _ if moved.shrank() => less.into(),
        // Most seeds went one way, and the whole the other.
        _ if moved.beyond => "mixed".into(),
        pairs if pairs.seeds < 6 => "too few seeds".into(),
        _ => "noise".into(),
    }
}

/// A difference, with its sign.
fn signed(ns: i64) -> String {
    match ns {
        0 => "0".into(),
        ns => format!("{}{}", if ns < 0 { '-' } else { '+' }, span(ns.unsigned_abs())),
    }
}

/// How much more, in percent.
fn share(a: u64, b: u64) -> String {
    let percent = (b as f64 / a.max(1) as f64 - 1.0) * 100.0;
    match percent {
        p if p.abs() < 0.05 || a == 0 => String::new(),
        p if p.abs() < 10.0 => format!("{p:+.1}%"),
        p if p < 1_000.0 => format!("{p:+.0}%"),
        p => format!("×{:.0}", p / 100.0 + 1.0),
    }
}

fn painted(text: &str, colour: Colour) -> String {
    let line = |(at, line): (usize, &str)| {
        let last = line.rsplit("  ").next().unwrap_or_default();
        let painted = match last {
            _ if at == 0 => colour.faint(line),
            "slower" | "more" => colour.yellow(line),
            "faster" | "fewer" => colour.green(line),
            "noise" | "same" => colour.faint(line),
            _ => line.to_owned(),
        };
        painted + "\n"
    };
    text.lines().enumerate().map(line).collect()
}
