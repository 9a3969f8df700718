//! The description of the format: its tables, their keys, and what may stand under each. The decoder reads by it, `worldline
//! schema` prints it, and a setting of the command line finds its key in it; so they cannot say different things.
//!
//! Invariant: whatever the decoder accepts, the schema accepts; and what the decoder refuses for its shape alone (an unknown
//! or a missing key, a wrong type, unit or word), the schema refuses too. Sums, order in time, names that must exist and
//! bounds of durations are beyond a schema: its descriptions tell of them.
//!
//! Deliberately absent: what values mean together. That is the decoder's.

use super::fields::{Sink, Value};
use serde_json::{Map, Value as Json};

/// How a value is written.
pub(super) trait Form: Sync {
    /// What it is once it is read.
    type Meaning;
    /// What JSON Schema says of it.
    fn schema(&self) -> Map<String, Json>;
    /// A meaning as a file writes it.
    fn write(&self, meaning: &Self::Meaning) -> Json;
    /// What a setting of the command line becomes.
    fn scalar(&self) -> Scalar {
        Scalar::Text
    }
    /// The table below it, if it is one.
    fn below(&self) -> Below {
        Below::Nothing
    }
}

/// A form that needs to know nothing of the rest of the file.
pub(super) trait Read: Form {
    /// The value's meaning; `None` after a report.
    fn read(&self, value: &Value<'_>, sink: &mut Sink) -> Option<Self::Meaning>;
}

/// What a word of the command line is in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    /// A text: it needs no quotes there.
    Text,
    /// A number, `true`, `false`.
    Bare,
}

/// What lies below a key.
#[derive(Clone, Copy)]
pub(super) enum Below {
    Nothing,
    One(&'static Table),
    Many(&'static Table),
}

/// A key.
pub(super) struct Key<F: Form> {
    pub name: &'static str,
    pub form: F,
    pub required: bool,
    pub default: Option<F::Meaning>,
    about: &'static str,
}

impl<F: Form> Key<F> {
    /// One that must be there.
    pub const fn required(name: &'static str, form: F, about: &'static str) -> Self {
        Self { name, form, required: true, default: None, about }
    }

    /// One that may be left out.
    pub const fn optional(name: &'static str, form: F, about: &'static str) -> Self {
        Self { name, form, required: false, default: None, about }
    }

    /// One that stands for `default` where it is left out.
    pub const fn or(name: &'static str, form: F, default: F::Meaning, about: &'static str) -> Self {
        Self { name, form, required: false, default: Some(default), about }
    }
}

/// A key, whatever stands under it.
pub(super) trait Described: Sync {
    fn name(&self) -> &'static str;
    fn is_required(&self) -> bool;
    fn schema(&self) -> Json;
    fn scalar(&self) -> Scalar;
    fn below(&self) -> Below;
    fn default(&self) -> Option<Json>;
}

impl<F: Form> Described for Key<F>
where
    F::Meaning: Sync,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_required(&self) -> bool {
        self.required
    }

    fn schema(&self) -> Json {
        let mut schema = self.form.schema();
        let more = schema.remove("description").and_then(|more| more.as_str().map(|more| format!(" {more}")));
        schema.insert("description".into(), format!("{}{}", self.about, more.unwrap_or_default()).into());
        if let Some(default) = self.default() {
            schema.insert("default".into(), default);
        }
        schema.into()
    }

    fn scalar(&self) -> Scalar {
        self.form.scalar()
    }

    fn below(&self) -> Below {
        self.form.below()
    }

    fn default(&self) -> Option<Json> {
        self.default.as_ref().map(|default| self.form.write(default))
    }
}

/// Keys of a table.
pub(super) type Keys = &'static [&'static dyn Described];

/// A table.
pub(super) struct Table {
    /// How messages call it: `` `[core]` ``.
    pub what: &'static str,
    pub keys: Keys,
    /// Further keys, by the word under another one.
    pub variants: &'static [&'static Variants],
    /// The key by whose value one of a list is called.
    pub named_by: Option<&'static str>,
    /// What JSON Schema must be told besides.
    pub rules: fn() -> Vec<Json>,
}

impl Table {
    /// What [`table!`] begins with.
    pub const EMPTY: Self = Self { what: "", keys: &[], variants: &[], named_by: None, rules: Vec::new };

    /// The key of this name; of those of the variants any.
    pub fn key(&self, name: &str) -> Option<&'static dyn Described> {
        self.every_key().find(|key| key.name() == name)
    }

    /// All of them, those of every variant too.
    pub fn every_key(&self) -> impl Iterator<Item = &'static dyn Described> + '_ {
        let more = self.variants.iter().flat_map(|variants| variants.all()).flat_map(|variant| variant.keys);
        self.keys.iter().chain(more).copied()
    }
}

/// A table of these keys. Not a function: references to statics live long enough only where they are written.
macro_rules! table {
    ($what:literal, [$($key:expr),* $(,)?] $(, $field:ident: $value:expr)* $(,)?) => {
        $crate::format::shape::Table {
            what: $what,
            keys: &[$($key),*],
            $($field: $value,)*
            ..$crate::format::shape::Table::EMPTY
        }
    };
}
pub(super) use table;

/// Kinds of a table that have keys of their own.
pub(super) struct Variants(pub &'static [&'static [Variant]]);

impl Variants {
    pub fn all(&self) -> impl Iterator<Item = &'static Variant> + use<> {
        self.0.iter().copied().flatten()
    }
}

/// One kind: the word, its own keys with those required first, whether it goes on for a while.
pub(super) struct Variant {
    pub name: &'static str,
    pub keys: Keys,
    pub ends: Ends,
    pub about: &'static str,
}

/// How a fault ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// It is over at once.
    AtOnce,
    /// After `for`, or with the heal.
    Later,
}
