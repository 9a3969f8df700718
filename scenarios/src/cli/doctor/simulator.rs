//! What the simulator needs.

use super::{Line, ask, bytes, took};
use crate::{
    catalogue,
    run::{self, Options},
    suite::REVISION,
};
use std::{fs, num::NonZero, thread, time::Instant};
use worldline_reports::Outcome;

/// The scenario of the trial run, its seed, and how much of it is run.
const TRIAL: &str = "swing";
const SEED: u64 = 1;
const SECOND_NS: u64 = 1_000_000_000;
/// Memory that a build takes, in bytes.
const MEMORY_MIN: u64 = 2 << 30;

/// All of it, and whether the simulator can run.
pub fn lines() -> (Vec<Line>, Outcome) {
    let (catalogue, reads) = catalogue_reads();
    let (trial, outcome) = trial();
    let outcome = if reads { outcome } else { outcome.max(Outcome::Broken) };
    (vec![Line::ok("worldline", format!("revision {REVISION}")), rust(), cores(), memory(), catalogue, trial], outcome)
}

/// The toolchain that the project asks for.
fn channel() -> Option<String> {
    let text = fs::read_to_string("rust-toolchain.toml").ok()?;
    let table: toml::Table = text.parse().ok()?;
    Some(table.get("toolchain")?.get("channel")?.as_str()?.to_owned())
}

fn rust() -> Line {
    const PURPOSE: &str = "building; this program runs without";
    let cure = "curl -sSf https://sh.rustup.rs | sh    (https://rustup.rs)";
    let version = ask::first_line("rustc", &["--version"]);
    let version = version.and_then(|line| Some(line.split_whitespace().nth(1)?.to_owned()));
    let (Some(version), Some(_)) = (version, ask::on_path("cargo")) else {
        return match channel().filter(|_| ask::on_path("rustup").is_some()) {
            Some(wanted) => {
                Line::degraded("Rust", "not that of the project", PURPOSE, format!("rustup toolchain install {wanted}"))
            }
            None => Line::degraded("Rust", "neither rustc nor cargo", PURPOSE, cure),
        };
    };
    match channel() {
        Some(wanted) if wanted != version => {
            let found = format!("{version}, the project asks for {wanted}");
            Line::degraded("Rust", found, PURPOSE, format!("rustup toolchain install {wanted}"))
        }
        _ => Line::ok("Rust", version),
    }
}

fn cores() -> Line {
    match thread::available_parallelism().map_or(1, NonZero::get) {
        1 => Line::degraded("cores", "1", "running seeds beside each other: two are worth it", ""),
        n => Line::ok("cores", n.to_string()),
    }
}

fn memory() -> Line {
    let kib = || {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?.trim();
        line.strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    match kib().map(|kib| kib << 10) {
        None => Line::ok("memory", "not told by this system"),
        Some(free) if free < MEMORY_MIN => {
            Line::degraded("memory", format!("{} free", bytes(free)), "building: 2 GiB", "")
        }
        Some(free) => Line::ok("memory", format!("{} free", bytes(free))),
    }
}

fn catalogue_reads() -> (Line, bool) {
    let wrong: Vec<_> = catalogue::names().filter(|name| !matches!(catalogue::find(name), Some(Ok(_)))).collect();
    match wrong.is_empty() {
        true => (Line::ok("catalogue", format!("{} scenarios", catalogue::names().count())), true),
        false => {
            let cure = format!("worldline run {}    (says what is wrong)", wrong.join(" "));
            (Line::missing("catalogue", "scenarios that do not read", "every run", cure), false)
        }
    }
}

/// A second of a scenario, twice.
fn trial() -> (Line, Outcome) {
    let what = "a trial run";
    let Some(Ok(scenario)) = catalogue::find(TRIAL) else {
        return (Line::missing(what, format!("no scenario `{TRIAL}`"), "every run", ""), Outcome::Broken);
    };
    let begun = Instant::now();
    let [first, second] =
        [(); 2].map(|()| run::seed(&scenario, SEED, Options { until_ns: Some(SECOND_NS), ..Options::default() }));
    let cure = format!("worldline replay {TRIAL} --seed {SEED} --until 1s");
    if (first.hash(), first.events) != (second.hash(), second.events) {
        let found = "another hash at the second time";
        return (Line::missing(what, found, "every run", cure), Outcome::NotDeterministic);
    }
    if let Some(violation) = &first.violation {
        let found = format!("{} broke", violation.invariant);
        return (Line::missing(what, found, "every run", cure), Outcome::Broken);
    }
    let found = format!("{} events, the same twice, in {}", first.events, took(begun));
    (Line::ok(what, found), Outcome::Held)
}
