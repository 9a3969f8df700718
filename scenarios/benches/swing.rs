//! The whole system under all checkers: how fast `swing` runs, and what it costs to fork a world of 1,000 players.
//!
//! One core's own seconds are counted, so that what else runs on the machine does not. `swing [SEEDS]`.

#![allow(clippy::disallowed_methods, reason = "a benchmark measures the machine it runs on")]

use std::{fs, time::Instant as Wall};
use worldline_reports::RunResult;
use worldline_scenarios::{catalogue, format, nodes::Nodes, run, world};
use worldline_system::time::{Duration, Instant};

fn main() {
    // `cargo bench` hands its own flags on.
    let seeds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(20_u64);
    swing(seeds);
    fork();
}

fn swing(seeds: u64) {
    let swing = catalogue::find("swing").expect("the catalogue has it").expect("and it is valid");
    let before = cpu_seconds();
    let runs: Vec<RunResult> = (1..=seeds).map(|seed| run::seed(&swing, seed, run::Options::default())).collect();
    let seconds = cpu_seconds() - before;
    let sum = |of: fn(&RunResult) -> u64| runs.iter().map(of).sum::<u64>() as f64;
    let (events, entries) = (sum(|run| run.events), sum(|run| run.entries));
    println!(
        "swing, {} players, all checkers: {:.2} M events/s, {:.2} M history entries/s, {:.0} simulated s per core s ({seeds} seeds)",
        swing.players(),
        events / seconds / 1e6,
        entries / seconds / 1e6,
        sum(|run| run.span_ns) / 1e9 / seconds
    );
}

/// A thousand players, ten seconds in, cloned and kept.
fn fork() {
    const CLONES: u32 = 20;
    let swing = catalogue::find("swing").expect("the catalogue has it").expect("and it is valid");
    let text = enlarged(&swing.text);
    let crowd = format::parse("crowd.toml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(crowd.players(), 1_000);
    let mut world = world::build(&crowd, &Nodes::of(&crowd), 1);
    world.run_until(Instant::default() + Duration::from_secs(10));
    // As a runner does after every step: what has happened is the checkers', not the world's.
    world.drain_history(&mut Vec::new());
    let (resident, started) = (resident_bytes(), Wall::now());
    let clones: Vec<_> = (0..CLONES).map(|_| world.clone()).collect();
    let (took, grown) = (started.elapsed(), resident_bytes().saturating_sub(resident));
    assert!(clones.iter().all(|clone| clone.hash() == world.hash()), "a clone is the same world");
    println!(
        "a world of 1,000 players after 10 s: cloned in {:.2} ms, {:.2} MB each ({} events so far)",
        took.as_secs_f64() * 1e3 / f64::from(CLONES),
        grown as f64 / 1e6 / f64::from(CLONES),
        world.events()
    );
}

/// The same world with a thousand players in its three regions.
fn enlarged(text: &str) -> String {
    let mut regions = ["players = 334", "players = 333", "players = 333"].into_iter();
    let line = |line: &str| match line.split_once(" = ").map(|(key, _)| key) {
        Some("players") => regions.next().map_or_else(|| line.to_owned(), str::to_owned),
        Some("travellers") => "travellers = 0".to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Seconds of a core that this process has used.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux tells");
    // Behind the command's name in parentheses: user and system time are fields 14 and 15, in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields[field - 3].parse::<f64>().expect("a number");
    (ticks(14) + ticks(15)) / 100.0
}

fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number of pages") * 4096
}
