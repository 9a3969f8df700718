//! Takes a table apart, key by key, and remembers what was wrong with it.

use super::{
    problem::{Problem, quoted},
    shape::{Form, Key, Keys, Read, Table},
};
use std::ops::Range;
use toml::{Spanned, de::DeTable, de::DeValue};

/// A value with its place.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// Collects problems.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub problems: Vec<Problem>,
}

impl Sink {
    /// Reports one, and gives `None` for the value that could not be had.
    pub fn report<T>(&mut self, problem: Problem) -> Option<T> {
        self.problems.push(problem);
        None
    }
}

/// How a value reads in a message: a text between backticks, a number as it is, anything else by its type.
pub(super) fn found(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => format!("the number {}", number.as_str().chars().take(40).collect::<String>()),
        DeValue::Float(number) => format!("the number {}", number.as_str().chars().take(40).collect::<String>()),
        DeValue::Boolean(truth) => format!("`{truth}`"),
        DeValue::Datetime(when) => format!("the date {when}"),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// A table that is being taken apart.
pub(super) struct Fields<'a, 't> {
    table: Option<&'a DeTable<'t>>,
    /// Where problems of the table as a whole are reported.
    span: Range<usize>,
    /// What may stand in it, and how messages call it.
    described: &'static Table,
    /// The keys of its kind.
    more: Keys,
    asked: Vec<&'static str>,
}

impl<'a, 't> Fields<'a, 't> {
    /// The document itself.
    pub fn document(table: &'a DeTable<'t>, described: &'static Table) -> Self {
        Self { table: Some(table), span: 0..0, described, more: &[], asked: Vec::new() }
    }

    /// The table that `value` is; an empty one, after a report, where it is none.
    pub fn of(value: &'a Value<'t>, described: &'static Table, sink: &mut Sink) -> Self {
        let what = described.what;
        let table = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => sink.report(Problem::new(value.span(), found(value), format!("{what} to be a table"))),
        };
        Self { table, span: value.span(), described, more: &[], asked: Vec::new() }
    }

    /// The place of the table.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// It is of a kind that has these keys too.
    pub fn also(&mut self, keys: Keys) {
        self.more = keys;
    }

    /// The value under `key`, if there is one.
    pub fn value<F: Form>(&mut self, key: &'static Key<F>) -> Option<&'a Value<'t>> {
        self.asked.push(key.name);
        self.table?.get(key.name)
    }

    /// What stands under `key`. `None` where nothing does, or something wrong, which is reported.
    pub fn read<F: Read>(&mut self, key: &'static Key<F>, sink: &mut Sink) -> Option<F::Meaning>
    where
        F::Meaning: Sync,
    {
        self.read_with(key, sink, |value, sink| key.form.read(value, sink))
    }

    /// The same, and what it stands for where nothing does.
    pub fn read_or<F: Read>(&mut self, key: &'static Key<F>, sink: &mut Sink) -> F::Meaning
    where
        F::Meaning: Copy + Sync,
    {
        self.read(key, sink).or(key.default).expect("only keys with a default are read so")
    }

    /// What `decode` makes of the value under `key`.
    pub fn read_with<F: Form, T>(
        &mut self,
        key: &'static Key<F>,
        sink: &mut Sink,
        decode: impl FnOnce(&'a Value<'t>, &mut Sink) -> Option<T>,
    ) -> Option<T> {
        match self.value(key) {
            Some(value) => decode(value, sink),
            None if key.required => self.missing(key.name, sink),
            None => None,
        }
    }

    /// Reports that `key` is not there, unless the table itself was none.
    pub fn missing<T>(&self, key: &str, sink: &mut Sink) -> Option<T> {
        let table = self.table?;
        // A near miss is reported where it stands, as an unknown key; here it would be said twice.
        if table.keys().any(|k| {
            !self.asked.contains(&k.get_ref().as_ref()) && super::problem::nearest(k.get_ref(), [key]).is_some()
        }) {
            return None;
        }
        sink.report(Problem::new(self.span(), format!("no `{key}`"), format!("{} to have one", self.described.what)))
    }

    /// What stands before a key of this table in the heading of a list.
    fn prefix(&self) -> String {
        self.described
            .what
            .strip_prefix("`[")
            .and_then(|what| what.strip_suffix("]`"))
            .map_or(String::new(), |name| format!("{name}."))
    }

    /// The tables of the list under `key`, each with its place.
    pub fn list<F: Form>(&mut self, key: &'static Key<F>, sink: &mut Sink) -> Vec<&'a Value<'t>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(list) => list.iter().collect(),
            _ => {
                sink.problems.push(Problem::new(
                    value.span(),
                    found(value),
                    format!("a list of tables: write `[[{}{}]]`", self.prefix(), key.name),
                ));
                Vec::new()
            }
        }
    }

    /// Reports every key that is none of any kind, where the kind itself is not known.
    pub fn finish_without_kind(self, sink: &mut Sink) {
        let known = self.described.keys.iter().map(|key| key.name());
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if self.described.key(name).is_none() {
                let expected = format!("one of the keys of {}", self.described.what);
                let problem = Problem::new(key.span(), format!("the unknown key {}", quoted(name)), expected);
                sink.problems.push(problem.near(name, known.clone()));
            }
        }
    }

    /// Reports every key that nobody asked for. `elsewhere` says of a key where it would be right.
    pub fn finish(self, sink: &mut Sink, elsewhere: impl Fn(&str) -> Option<String>) {
        let Some(table) = self.table else { return };
        let described = self.described.keys.iter().chain(self.more);
        debug_assert!(
            described.clone().all(|key| self.asked.contains(&key.name()))
                && self.asked.iter().all(|asked| described.clone().any(|key| key.name() == *asked)),
            "{} is read as it is described",
            self.described.what
        );
        for (key, _) in table {
            let name = key.get_ref().as_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let mut known = self.asked.clone();
            known.sort_unstable();
            known.dedup();
            let expected = match elsewhere(name) {
                Some(place) => place,
                None => format!("one of the keys of {}: {}", self.described.what, known.join(", ")),
            };
            sink.problems.push(
                Problem::new(key.span(), format!("the unknown key {}", quoted(name)), expected)
                    .near(name, known.iter().copied()),
            );
        }
    }
}
