//! Settings of the command line: `--set lease.ttl=4s` puts another value where a scenario's file has one, or has none.
//!
//! A setting is looked up in the description of the format, is decoded as if it stood in the file, and what is wrong with it
//! is said as the file's own problems are. Its place is behind the end of the file's text.

use super::{
    problem::{self, Problem, quoted},
    shape::{Below, Scalar, Table},
};
use std::{borrow::Cow, fmt, ops::Range, str::FromStr};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

/// Settings of one command.
pub const SETTINGS_MAX: usize = 64;
/// Words between points in a key.
const DEPTH_MAX: usize = 8;

/// `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    key: String,
    value: String,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected KEY=VALUE, such as `lease.ttl=4s` or `fault.0.at=12s`";
        let (key, value) = text.split_once('=').ok_or(EXPECTED)?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || value.is_empty() || text.len() > 4_096 || text.contains(['\n', '\0']) {
            return Err(EXPECTED.into());
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

impl Setting {
    /// The key, by its path.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value as it was written.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Puts the value into the document. `span` is its place.
    pub(super) fn put<'t>(
        &'t self,
        document: &mut DeTable<'t>,
        root: &'static Table,
        span: Range<usize>,
    ) -> Result<(), Problem> {
        let words: Vec<&str> = self.key.split('.').collect();
        if words.len() > DEPTH_MAX {
            return Err(Problem::new(span, format!("the key {}", quoted(&self.key)), "a key of a scenario"));
        }
        let (mut here, mut described) = (document, root);
        let mut done: Vec<&str> = Vec::new();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(key) = described.key(word) else { return Err(unknown(word, &done, described, span)) };
            done.push(word);
            match key.below() {
                Below::Nothing => {
                    if done.len() == 1 && matches!(word, "name" | "summary") {
                        let expected = "a key that changes how a run goes: `name` and `summary` only say what it is";
                        return Err(Problem::new(span, format!("the key `{word}`"), expected));
                    }
                    if let Some(further) = words.next() {
                        let found = format!("`{further}` behind `{}`", done.join("."));
                        return Err(Problem::new(span, found, "nothing: that is a value itself"));
                    }
                    let value = self.toml(key.scalar(), &span);
                    here.insert(Spanned::new(span.clone(), Cow::Borrowed(key.name())), Spanned::new(span, value));
                    return Ok(());
                }
                Below::One(table) => {
                    let name = || Spanned::new(span.clone(), Cow::Borrowed(key.name()));
                    let new = || Spanned::new(span.clone(), DeValue::Table(DeTable::new()));
                    let value = here.entry(name()).or_insert_with(new);
                    let DeValue::Table(next) = value.get_mut() else {
                        return Err(Problem::new(span, "a table", format!("{} of the file to be one", table.what)));
                    };
                    (here, described) = (next, table);
                }
                Below::Many(table) => {
                    let list = match here.get_mut(key.name()).map(Spanned::get_mut) {
                        Some(DeValue::Array(list)) => list,
                        _ => return Err(none_such(&done, None, &[], table, span)),
                    };
                    let called = names(list, table);
                    let which = words.next();
                    let at = which.and_then(|which| position(which, &called, list.len()));
                    let Some(at) = at else { return Err(none_such(&done, which, &called, table, span)) };
                    done.extend(which);
                    let Some(DeValue::Table(next)) = list.get_mut(at).map(Spanned::get_mut) else {
                        return Err(none_such(&done, which, &called, table, span));
                    };
                    (here, described) = (next, table);
                }
            }
        }
        let keys: Vec<_> = described.every_key().map(|key| format!("{}.{}", done.join("."), key.name())).collect();
        let expected = format!("one of its keys, such as `{}`", keys.first().map_or("", String::as_str));
        Err(Problem::new(span, format!("the table {}", quoted(&self.key)), expected))
    }

    /// What the value is in TOML. A text needs no quotes.
    fn toml<'t>(&'t self, scalar: Scalar, span: &Range<usize>) -> DeValue<'t> {
        let written = self.value.starts_with(['"', '\'', '[']) || scalar == Scalar::Bare;
        match DeValue::parse(&self.value) {
            Ok(value) if written => placed(value.into_inner(), span),
            _ => DeValue::String(Cow::Borrowed(&self.value)),
        }
    }
}

/// The same value, with all its parts at this place.
fn placed<'t>(value: DeValue<'t>, span: &Range<usize>) -> DeValue<'t> {
    match value {
        DeValue::Array(list) => {
            let mut moved = DeArray::new();
            for part in list {
                moved.push(Spanned::new(span.clone(), placed(part.into_inner(), span)));
            }
            DeValue::Array(moved)
        }
        value => value,
    }
}

/// How the file calls the tables of a list.
fn names(list: &DeArray<'_>, table: &Table) -> Vec<String> {
    let Some(key) = table.named_by else { return Vec::new() };
    let name =
        |value: &Spanned<DeValue<'_>>| Some(value.get_ref().as_table()?.get(key)?.get_ref().as_str()?.to_owned());
    list.iter().map(|value| name(value).unwrap_or_default()).collect()
}

fn position(which: &str, called: &[String], count: usize) -> Option<usize> {
    let by_number = which.parse::<usize>().ok().filter(|at| *at < count);
    by_number.or_else(|| called.iter().position(|name| name == which))
}

fn unknown(word: &str, done: &[&str], table: &'static Table, span: Range<usize>) -> Problem {
    let path = |key: &str| done.iter().copied().chain([key]).collect::<Vec<_>>().join(".");
    let mut known: Vec<_> = table.every_key().map(|key| key.name()).collect();
    known.sort_unstable();
    known.dedup();
    let expected = format!("one of the keys of {}: {}", table.what, known.join(", "));
    // `ttl` alone was meant as a key of some table.
    let elsewhere = || {
        let all = every_path(table);
        let last = |path: &String| path.rsplit('.').next() == Some(word);
        all.iter().find(|path| last(path)).cloned().or_else(|| {
            let words = all.iter().map(String::as_str);
            problem::nearest(word, words)
        })
    };
    let nearest = problem::nearest(word, known).or_else(elsewhere).map(|key| path(&key));
    Problem { nearest, ..Problem::new(span, format!("the unknown key {}", quoted(&path(word))), expected) }
}

/// The paths of the keys in tables below this one that are no lists.
fn every_path(table: &'static Table) -> Vec<String> {
    let below = |key: &dyn super::shape::Described| match key.below() {
        Below::One(inner) => every_path(inner).into_iter().map(|path| format!("{}.{path}", key.name())).collect(),
        _ => Vec::new(),
    };
    table.keys.iter().flat_map(|key| below(*key)).chain(table.keys.iter().map(|key| key.name().to_owned())).collect()
}

fn none_such(done: &[&str], which: Option<&str>, called: &[String], table: &Table, span: Range<usize>) -> Problem {
    let path = done.join(".");
    let expected = match (called, which) {
        ([], None) => format!("the file to have that {}: a setting adds none", table.what),
        ([], Some(_)) => format!("the number of a {} of the file, from 0", table.what),
        (called, _) => {
            let called: Vec<_> =
                called.iter().enumerate().map(|(at, name)| format!("`{path}.{at}` or `{path}.{name}`")).collect();
            format!("one of this scenario's: {}", called.join(", "))
        }
    };
    let found = which.map_or_else(|| quoted(&path), |which| quoted(&format!("{path}.{which}")));
    let nearest = which.and_then(|which| problem::nearest(which, called.iter().map(String::as_str)));
    let nearest = nearest.map(|name| format!("{path}.{name}"));
    Problem { nearest, ..Problem::new(span, found, expected) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_key_and_a_value() {
        let setting: Setting = " lease.ttl = 4s ".parse().expect("reads");
        assert_eq!((setting.key(), setting.value(), setting.to_string().as_str()), ("lease.ttl", "4s", "lease.ttl=4s"));
        for wrong in ["", "lease.ttl", "=4s", "lease.ttl=", "a=b\nc"] {
            assert!(wrong.parse::<Setting>().is_err(), "{wrong:?}");
        }
    }
}
