//! Flags over variables over the file: what was said of each setting, and where.
//!
//! A file may hold settings of other commands, so that one file can serve a whole world; a word that is no setting at all is
//! wrong wherever it stands.

use super::{
    given::{self, Given, Value},
    keys::{CONFIG_VARIABLE, Command, KEYS, Key, PLAYER_LIST, Shape, TEST_VARIABLES, VARIABLES, find, of},
    problem::{Origin, Problem, Sink, nearest, quoted},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::Path,
};

/// What was said to one process.
#[derive(Debug)]
pub struct Layers {
    command: Command,
    file: Option<Given>,
    given: BTreeMap<&'static str, Given>,
    /// Settings whose text could not be cut, which is reported.
    broken: BTreeSet<&'static str>,
}

impl Layers {
    /// What the flags, the variables and the file say. Words that are no setting, and a file that cannot be read or is no
    /// TOML, are reported to `sink`.
    pub fn read(
        command: Command,
        config: Option<&Path>,
        flags: &BTreeMap<&'static str, String>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        sink: &mut Sink,
    ) -> Self {
        let (mut given, mut broken) = (BTreeMap::new(), BTreeSet::new());
        let mut set =
            |key: &'static Key, origin: &Origin, text: &str, sink: &mut Sink| match cut(key, origin, text, sink) {
                Some(value) => drop(given.insert(key.name, value)),
                None => drop(broken.insert(key.name)),
            };
        let (mut config, mut unread) = (config.map(Path::to_owned), false);
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLES)) else { continue };
            if name.starts_with(TEST_VARIABLES) {
                continue;
            }
            let origin = Origin::Variable(name.to_owned());
            let Some(value) = value.to_str() else {
                sink.report::<()>(Problem::new(&origin, "bytes that are not UTF-8", "a text"));
                continue;
            };
            if name == CONFIG_VARIABLE {
                if config.is_none() && value.is_empty() {
                    sink.report::<()>(Problem::new(&origin, "nothing", "the path of a configuration file"));
                    unread = true;
                } else {
                    config = config.or_else(|| Some(value.into()));
                }
            } else if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
                if key.of.contains(&command) {
                    set(key, &origin, value, sink);
                }
            } else {
                unknown_variable(name, &origin, sink);
            }
        }
        for (name, value) in flags {
            let key = find(name).expect("the command line offers settings only");
            let origin = Origin::Flag(format!("--{}", key.flag()));
            set(key, &origin, value, sink);
        }
        let file = match config {
            Some(path) => match given::file(&path, "a configuration file in TOML") {
                Ok(file) => Some(file),
                Err(problems) => {
                    sink.report_all(problems);
                    unread = true;
                    None
                }
            },
            None => None,
        };
        if unread {
            // What the file would have said is not missing; whatever else was said is looked at all the same.
            broken.extend(KEYS.iter().map(|key| key.name).filter(|name| !given.contains_key(name)));
        }
        if let Some(file) = &file {
            unknown_keys(file, "", command, sink);
        }
        Self { command, file, given, broken }
    }

    /// Whether this is a setting of the command.
    #[must_use]
    pub fn offers(&self, name: &str) -> bool {
        find(name).is_some_and(|key| key.of.contains(&self.command))
    }

    /// What was said of a setting.
    #[must_use]
    pub fn get(&self, name: &'static str) -> Option<&Given> {
        assert!(self.offers(name), "{name} is a setting of {}", self.command);
        if self.broken.contains(name) {
            return None;
        }
        let in_file = || name.split('.').try_fold(self.file.as_ref()?, |table, part| table.get(part));
        self.given.get(name).or_else(in_file)
    }

    /// What `decode` makes of a setting, if anything was said of it.
    pub fn optional<T>(
        &self,
        name: &'static str,
        sink: &mut Sink,
        decode: impl FnOnce(&Given, &mut Sink) -> Option<T>,
    ) -> Option<T> {
        self.get(name).and_then(|given| decode(given, sink))
    }

    /// The same for a setting without which the command cannot run.
    pub fn required<T>(
        &self,
        name: &'static str,
        sink: &mut Sink,
        decode: impl FnOnce(&Given, &mut Sink) -> Option<T>,
    ) -> Option<T> {
        match self.get(name) {
            Some(given) => decode(given, sink),
            None => self.missing(name, sink),
        }
    }

    /// Reports that a setting is missing, unless what was said of it is reported already.
    pub fn missing<T>(&self, name: &'static str, sink: &mut Sink) -> Option<T> {
        if self.broken.contains(name) {
            return None;
        }
        let key = find(name).expect("a setting");
        let help = key.help.split(" [").next().unwrap_or(key.help);
        let (flag, value, variable) = (key.flag(), key.value, key.variable());
        let expected = format!("`{name}` in the file, --{flag} {value} or {variable} ({help})");
        sink.report(Problem::new(&Origin::Nowhere, format!("no `{name}`"), expected))
    }

    /// The players of a bot's file.
    #[must_use]
    pub fn players(&self) -> Option<&Given> {
        self.file.as_ref()?.get(PLAYER_LIST)
    }
}

/// The text of a flag or a variable as its setting's shape has it; `None` after a report.
fn cut(key: &Key, origin: &Origin, text: &str, sink: &mut Sink) -> Option<Given> {
    let one = |text: &str| Given { origin: origin.clone(), value: Value::Text(text.trim().to_owned()) };
    let parts = || text.split(',').filter(|part| !part.trim().is_empty());
    let value = match key.shape {
        Shape::One => return Some(one(text)),
        Shape::List => Value::List(parts().map(one).collect()),
        Shape::Pairs => {
            let pair = |part: &str| match part.split_once('=') {
                Some((name, value)) => Some((name.trim().to_owned(), origin.clone(), one(value))),
                None => {
                    let expected = format!("{}, such as `7=127.0.0.1:7001`", key.value);
                    sink.report(Problem::new(origin, quoted(part), expected))
                }
            };
            let pairs: Vec<_> = parts().map(pair).collect();
            Value::Table(pairs.into_iter().collect::<Option<_>>()?)
        }
    };
    Some(Given { origin: origin.clone(), value })
}

/// A variable that looks like ours and is none is wrong if it is near one of ours. Others are let be: a cluster may set
/// `WORLDLINE_SERVICE_HOST` for a service of our name.
fn unknown_variable(name: &str, origin: &Origin, sink: &mut Sink) {
    let word = name.trim_start_matches(VARIABLES);
    let known: Vec<_> = KEYS.iter().map(|key| key.variable().trim_start_matches(VARIABLES).to_owned()).collect();
    if let Some(near) = nearest(word, known.iter().map(String::as_str).chain(["CONFIG"])) {
        let problem = Problem::new(origin, "an unknown variable", "a setting's variable");
        sink.report::<()>(Problem { nearest: Some(format!("{VARIABLES}{near}")), ..problem });
    }
}

/// Reports every key of a file that is no setting.
fn unknown_keys(table: &Given, within: &str, command: Command, sink: &mut Sink) {
    let Value::Table(entries) = &table.value else { return };
    let names = || {
        KEYS.iter().filter_map(|key| key.name.strip_prefix(within)).chain((within.is_empty()).then_some(PLAYER_LIST))
    };
    for (name, origin, value) in entries {
        let full = format!("{within}{name}");
        if find(&full).is_some() || full == PLAYER_LIST {
            continue;
        }
        let inner = format!("{full}.");
        if KEYS.iter().any(|key| key.name.starts_with(&inner)) {
            match &value.value {
                Value::Table(_) => unknown_keys(value, &inner, command, sink),
                _ => {
                    sink.report::<()>(value.problem(format!("`[{full}]` to be a table")));
                }
            }
            continue;
        }
        let heads = names().map(|name| name.split('.').next().unwrap_or(name));
        let mut words: Vec<_> = if within.is_empty() {
            of(command).map(|key| key.name.split('.').next().unwrap_or(key.name)).collect()
        } else {
            names().collect()
        };
        words.dedup();
        let place = if within.is_empty() {
            format!("a setting of {command}")
        } else {
            format!("a key of `[{}]`", within.trim_end_matches('.'))
        };
        let found = format!("the unknown key {}", quoted(&full));
        sink.report::<()>(Problem::new(origin, found, format!("{place}: {}", words.join(", "))).near(name, heads));
    }
}
