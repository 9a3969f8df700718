//! Values of the command line: seeds, shards, moments, and which scenarios are meant.

use super::Failed;
use crate::{
    catalogue,
    format::{self, SETTINGS_MAX, Scenario, Setting, nearest},
};
use sha2::{Digest as _, Sha256};
use std::path::Path;

/// One of `of` equal parts of a suite, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which.
    pub part: u32,
    /// Of how many.
    pub of: u32,
}

/// Reads `3/20`.
pub fn shard(text: &str) -> Result<Shard, String> {
    let read = || {
        let (part, of) = text.split_once('/')?;
        let shard = Shard { part: part.parse().ok()?, of: of.parse().ok()? };
        (1..=shard.of).contains(&shard.part).then_some(shard)
    };
    read().ok_or_else(|| "expected PART/OF with 1 <= PART <= OF, such as `3/20`".into())
}

/// Reads a seed.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

/// The most seeds of one run.
const SEEDS_MAX: u64 = 1_000_000;

/// Reads a number of seeds.
pub fn seeds(text: &str) -> Result<u64, String> {
    let seeds = text.parse().ok().filter(|seeds| (1..=SEEDS_MAX).contains(seeds));
    seeds.ok_or_else(|| format!("expected a whole number from 1 to {SEEDS_MAX}"))
}

/// Reads a moment of a run in nanoseconds: `12.5s`, `300ms`, `1m`.
pub fn moment(text: &str) -> Result<u64, String> {
    format::moment(text).map(|duration| duration.as_nanos())
}

/// Reads `lease.ttl=4s`.
pub fn setting(text: &str) -> Result<Setting, String> {
    text.parse()
}

/// The first seed that a revision (or any text) stands for: 48 bits of its SHA-256, so that each revision sees other seeds
/// and every machine the same.
#[must_use]
pub fn first_seed(revision: &str) -> u64 {
    let digest = Sha256::digest(revision.as_bytes());
    digest.iter().take(6).fold(0, |seed, &byte| seed << 8 | u64::from(byte))
}

/// A scenario that was asked for, and how a command line names it again.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The scenario.
    pub scenario: Scenario,
    /// A catalogue name, or `None` for a file.
    pub name: Option<&'static str>,
}

/// The scenarios that these names and files are, under these settings.
pub fn scenarios(targets: &[String], settings: &[Setting]) -> Result<Vec<Asked>, Failed> {
    let mut asked: Vec<Asked> = Vec::new();
    let mut wrong = Vec::new();
    for target in targets {
        match scenario(target, settings) {
            Ok(one) if asked.iter().any(|other| other.scenario.name == one.scenario.name) => {
                return Err(Failed::Usage(format!("two scenarios are called `{}`", one.scenario.name)));
            }
            Ok(one) => asked.push(one),
            Err(Failed::File(problems)) => wrong.push(problems),
            Err(failed) => return Err(failed),
        }
    }
    if wrong.is_empty() { Ok(asked) } else { Err(Failed::File(wrong.join("\n"))) }
}

/// The same, and the whole catalogue where none is named.
pub fn scenarios_or_all(targets: &[String], settings: &[Setting]) -> Result<Vec<Asked>, Failed> {
    let all = || catalogue::names().map(str::to_owned).collect::<Vec<_>>();
    if targets.is_empty() { scenarios(&all(), settings) } else { scenarios(targets, settings) }
}

/// The scenario that this name or file is, under these settings.
pub fn scenario(target: &str, settings: &[Setting]) -> Result<Asked, Failed> {
    let asked = plain(target)?;
    let scenario = set(&shown(target, asked.name), asked.scenario, settings)?;
    Ok(Asked { scenario, ..asked })
}

/// How messages call the file of a scenario.
fn shown(target: &str, name: Option<&str>) -> String {
    name.map_or_else(|| target.to_owned(), |name| format!("catalogue/{name}.toml"))
}

/// The scenario under settings. What is wrong then is the fault of these: `file` is right by itself.
pub fn set(file: &str, scenario: Scenario, settings: &[Setting]) -> Result<Scenario, Failed> {
    if settings.is_empty() {
        return Ok(scenario);
    }
    if settings.len() > SETTINGS_MAX {
        return Err(Failed::Usage(format!("found {} settings, expected at most {SETTINGS_MAX}", settings.len())));
    }
    let again =
        settings.iter().enumerate().find(|(n, one)| settings[..*n].iter().any(|other| other.key() == one.key()));
    if let Some((_, again)) = again {
        return Err(Failed::Usage(format!("`{}` is set twice, expected one value", again.key())));
    }
    let all = [&scenario.settings, settings].concat();
    format::parse_with(file, &scenario.text, &all).map_err(|problems| {
        let of = scenario.name;
        Failed::Usage(format!("`{of}` cannot be run so\n{}", problems.to_string().trim_end()))
    })
}

fn plain(target: &str) -> Result<Asked, Failed> {
    if let Some(name) = catalogue::names().find(|name| *name == target)
        && let Some(scenario) = catalogue::find(name)
    {
        return Ok(Asked { scenario: scenario?, name: Some(name) });
    }
    let path = Path::new(target);
    if target.ends_with(".toml") || target.contains(['/', '\\', '.']) || path.exists() {
        return Ok(Asked { scenario: format::read(path)?, name: None });
    }
    Err(unknown(target))
}

fn unknown(target: &str) -> Failed {
    let names: Vec<_> = catalogue::names().collect();
    let meant = nearest(target, names.iter().copied());
    let meant = meant.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    let shown: String = target.chars().take(60).map(format::shown).collect();
    Failed::Usage(format!("found `{shown}`, expected a scenario's file or a name: {}{meant}", names.join(", ")))
}

/// Every scenario of the catalogue.
pub fn whole_catalogue() -> Result<Vec<Asked>, Failed> {
    catalogue::names().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_one_of_its_parts() {
        assert_eq!(shard("3/20"), Ok(Shard { part: 3, of: 20 }));
        for wrong in ["0/3", "4/3", "3", "a/b", "1/0", "-1/2", ""] {
            assert!(shard(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_revision_always_stands_for_the_same_seed() {
        assert_eq!(first_seed("v1"), first_seed("v1"));
        assert_ne!(first_seed("v1"), first_seed("v2"));
        assert!(first_seed("") < 1 << 48);
    }
}
