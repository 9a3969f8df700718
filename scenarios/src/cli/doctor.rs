//! `worldline doctor`: what is here, what is missing, what for, and how to get it.
//!
//! Two parts: what the simulator needs, which is nearly nothing, and what the real part needs: drills, the servers, `ci/test`.
//! Where a service's binary is, only `ci/services` knows, and it is asked.
//!
//! Deliberately absent: installing anything, and starting a service. A look changes nothing.

mod ask;
mod real;
mod simulator;

use super::{Failed, output::Output, place::Place};
use clap::Args;
use worldline_reports::{
    Outcome,
    terminal::{self, Colour},
};

/// Something of the real part is missing, and it was asked for.
const UNAVAILABLE: u8 = 69;
/// Characters of a found text: what does not fit into a terminal of 80 columns is cut in its middle.
const FOUND_MAX: usize = 50;

/// Arguments of `worldline doctor`.
#[derive(Args, Debug)]
pub struct DoctorArguments {
    /// Something missing of the real part is an error too: exit code 69
    #[arg(long)]
    real: bool,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It is there.
    Ok,
    /// It is there, or can be done without, but not as it should be.
    Degraded,
    /// It is not there.
    Missing,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub state: State,
    /// What it is.
    pub what: String,
    /// What was found.
    pub found: String,
    /// What it is for, and the command that gets it; said where it is not as it should be.
    pub cure: Option<(&'static str, String)>,
}

impl Line {
    pub fn ok(what: &str, found: impl Into<String>) -> Self {
        Self { state: State::Ok, what: what.into(), found: found.into(), cure: None }
    }

    pub fn degraded(what: &str, found: impl Into<String>, purpose: &'static str, cure: impl Into<String>) -> Self {
        Self { state: State::Degraded, what: what.into(), found: found.into(), cure: Some((purpose, cure.into())) }
    }

    pub fn missing(what: &str, found: impl Into<String>, purpose: &'static str, cure: impl Into<String>) -> Self {
        Self { state: State::Missing, what: what.into(), found: found.into(), cure: Some((purpose, cure.into())) }
    }
}

/// Looks.
pub fn doctor(output: &mut Output, arguments: &DoctorArguments) -> Result<u8, Failed> {
    let here = Place::here();
    let (simulator, outcome) = simulator::lines();
    let real = real::lines(here);
    let width = simulator.iter().chain(&real).map(|line| line.what.chars().count()).max().unwrap_or(0);
    output.print("the simulator\n")?;
    output.print(&simulator.iter().map(|line| shown(line, width, output.colour)).collect::<String>())?;
    output.print("\nthe real part: drills, worldlined, ci/test\n")?;
    output.print(&real.iter().map(|line| shown(line, width, output.colour)).collect::<String>())?;
    let lacks: Vec<_> = real.iter().filter(|line| line.state == State::Missing).map(|line| &*line.what).collect();
    let broken = outcome != Outcome::Held;
    let simulator = match outcome {
        Outcome::Held => output.colour.green("the simulator can run"),
        Outcome::NotDeterministic => output.colour.red("the simulator is not deterministic on this machine"),
        _ => output.colour.red("the simulator cannot run"),
    };
    let real = match lacks.is_empty() {
        true => output.colour.green("the real part can"),
        false => output.colour.yellow(&format!("the real part lacks {}", lacks.join(", "))),
    };
    output.print(&format!("\n{simulator}; {real}\n"))?;
    output.flush()?;
    Ok(match (broken, arguments.real && !lacks.is_empty()) {
        (true, _) => outcome.exit_code(),
        (false, true) => UNAVAILABLE,
        (false, false) => 0,
    })
}

fn shown(line: &Line, width: usize, colour: Colour) -> String {
    let state = format!("{:<8}", line.state.word());
    let state = match line.state {
        State::Ok => colour.green(&state),
        State::Degraded => colour.yellow(&state),
        State::Missing => colour.red(&state),
    };
    let mut text = format!("  {state}  {:<width$}  {}\n", line.what, shortened(&line.found));
    if let Some((purpose, cure)) = &line.cure {
        text += &format!("  {:8}  {:width$}  {}\n", "", "", colour.faint(&format!("for {purpose}")));
        if !cure.is_empty() {
            text += &format!("  {:8}  {:width$}  {cure}\n", "", "");
        }
    }
    text
}

/// A text that fits beside what it is about.
fn shortened(text: &str) -> String {
    let clean: Vec<char> = text.chars().map(crate::format::shown).collect();
    if clean.len() <= FOUND_MAX {
        return clean.into_iter().collect();
    }
    let tail = FOUND_MAX * 2 / 3;
    let (head, rest) = (&clean[..FOUND_MAX - tail - 1], &clean[clean.len() - tail..]);
    format!("{}…{}", head.iter().collect::<String>(), rest.iter().collect::<String>())
}

/// A number of bytes for a reader.
fn bytes(n: u64) -> String {
    match n {
        n if n >= 1 << 30 => format!("{:.1} GiB", n as f64 / f64::from(1 << 30)),
        n => format!("{:.0} MiB", n as f64 / f64::from(1 << 20)),
    }
}

/// A span of time for a reader.
fn took(since: std::time::Instant) -> String {
    terminal::span(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_keeps_its_end_and_fits() {
        let path = format!("/home/somebody/{}/bin/postgres", "deep/".repeat(30));
        let text = shortened(&path);
        assert_eq!(text.chars().count(), FOUND_MAX);
        assert!(text.starts_with("/home/") && text.ends_with("/bin/postgres"), "{text}");
        assert_eq!((bytes(3 << 30), bytes(5 << 20)), ("3.0 GiB".into(), "5 MiB".into()));
    }
}
