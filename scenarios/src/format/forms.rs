//! The forms of single values: what JSON Schema says of each, and how each is read.

use super::{
    fields::{Sink, Value},
    shape::{Below, Form, Read, Scalar, Table},
    units,
};
use crate::format::scenario::Window;
use serde_json::{Map, Value as Json, json};
use std::{convert::Infallible, fmt::Display};
use worldline_system::time::Duration;

/// A duration, without what stands around it.
pub(super) const DURATION: &str = r"[0-9]+(\.[0-9]+)?(ms|s|m|us|ns)";
/// A name.
pub(super) const NAME: &str = "[a-z][a-z0-9-]{0,39}";
const A_DAY: Duration = Duration::from_secs(86_400);

pub(super) fn object(schema: Json) -> Map<String, Json> {
    match schema {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}

fn text(pattern: &str) -> Map<String, Json> {
    object(json!({ "type": "string", "pattern": pattern }))
}

/// Declares a form without parameters, read by a function of `units`.
macro_rules! plain {
    ($($(#[$doc:meta])* $form:ident: $meaning:ty = $schema:expr, $write:expr, $read:path;)*) => {$(
        $(#[$doc])*
        pub(super) struct $form;

        impl Form for $form {
            type Meaning = $meaning;
            fn schema(&self) -> Map<String, Json> {
                object($schema)
            }
            fn write(&self, meaning: &Self::Meaning) -> Json {
                let write: fn(&$meaning) -> Json = $write;
                write(meaning)
            }
            fn scalar(&self) -> Scalar {
                if stringify!($form) == "Truth" { Scalar::Bare } else { Scalar::Text }
            }
        }

        impl Read for $form {
            fn read(&self, value: &Value<'_>, sink: &mut Sink) -> Option<Self::Meaning> {
                $read(value, sink)
            }
        }
    )*};
}

plain! {
    /// A name.
    Name: String = text(&format!("^{NAME}$")).into(), |name| name.clone().into(), units::name;
    /// A sentence.
    Sentence: String = text(r"\S").into(), |text| text.clone().into(), units::text;
    /// A span that may be negative.
    SignedSpan: i64 = text(&format!("^[+-]?{DURATION}$")).into(), |&nanos| format!("{nanos}ns").into(), units::signed_duration;
    /// A moment, or a window.
    Moments: Window = text(&format!(r"^({DURATION}|\s*{DURATION}\s*\.\.\s*{DURATION}\s*)$")).into(),
        |window| format!("{}..{}", window.from, window.to).into(), units::window;
    /// A share.
    Share: u16 = text(r"^0*(100(\.0)?|[0-9]{1,2}(\.[0-9])?)%$").into(),
        |&permille| units::permille_text(permille).into(), units::permille;
    /// A clock's drift.
    Drift: i32 = text(r"^[+-]?0*(500000|[0-4]?[0-9]{1,5})ppm$").into(), |ppm| format!("{ppm}ppm").into(), units::ppm;
    /// `true` or `false`.
    Truth: bool = json!({ "type": "boolean" }), |&truth| truth.into(), units::truth;
}

/// A duration in a range.
pub(super) struct Span {
    pub from: Duration,
    pub to: Duration,
}

impl Span {
    /// Any at all.
    pub const ANY: Self = Self { from: Duration::ZERO, to: A_DAY };

    pub const fn ms(from: u64, to: u64) -> Self {
        Self { from: Duration::from_millis(from), to: Duration::from_millis(to) }
    }
}

impl Form for Span {
    type Meaning = Duration;

    fn schema(&self) -> Map<String, Json> {
        let mut schema = text(&format!("^{DURATION}$"));
        if self.to < A_DAY {
            schema.insert("description".into(), format!("From {} to {}.", self.from, self.to).into());
        }
        schema
    }

    fn write(&self, meaning: &Duration) -> Json {
        meaning.to_string().into()
    }
}

impl Read for Span {
    fn read(&self, value: &Value<'_>, sink: &mut Sink) -> Option<Duration> {
        if self.to == A_DAY {
            units::duration(value, sink)
        } else {
            units::duration_in(self.from..=self.to)(value, sink)
        }
    }
}

/// A whole number in a range.
pub(super) struct Whole<N> {
    pub from: N,
    pub to: N,
    pub of: &'static str,
}

impl<N> Form for Whole<N>
where
    N: TryFrom<i64> + Into<i64> + PartialOrd + Display + Copy + Sync,
{
    type Meaning = N;

    fn schema(&self) -> Map<String, Json> {
        let (from, to): (i64, i64) = (self.from.into(), self.to.into());
        object(json!({ "type": "integer", "minimum": from, "maximum": to }))
    }

    fn write(&self, &meaning: &N) -> Json {
        let number: i64 = meaning.into();
        number.into()
    }

    fn scalar(&self) -> Scalar {
        Scalar::Bare
    }
}

impl<N> Read for Whole<N>
where
    N: TryFrom<i64> + Into<i64> + PartialOrd + Display + Copy + Sync,
{
    fn read(&self, value: &Value<'_>, sink: &mut Sink) -> Option<N> {
        units::whole(self.from..=self.to, self.of)(value, sink)
    }
}

/// One of a list of words.
pub(super) struct Word<T: 'static> {
    pub of: &'static str,
    pub words: &'static [(&'static str, T)],
}

impl<T: Copy + PartialEq + Sync> Form for Word<T> {
    type Meaning = T;

    fn schema(&self) -> Map<String, Json> {
        let words: Vec<_> = self.words.iter().map(|(word, _)| *word).collect();
        object(json!({ "enum": words }))
    }

    fn write(&self, meaning: &T) -> Json {
        self.words.iter().find(|(_, means)| means == meaning).map(|(word, _)| *word).into()
    }
}

impl<T: Copy + PartialEq + Sync> Read for Word<T> {
    fn read(&self, value: &Value<'_>, sink: &mut Sink) -> Option<T> {
        units::word(self.words, self.of)(value, sink)
    }
}

/// A text that is read with the rest of the file at hand.
pub(super) struct Named {
    /// Its pattern, whole.
    pub pattern: fn() -> String,
}

impl Form for Named {
    type Meaning = Infallible;

    fn schema(&self) -> Map<String, Json> {
        text(&(self.pattern)())
    }

    fn write(&self, meaning: &Infallible) -> Json {
        match *meaning {}
    }
}

/// One such text, or a list of them.
pub(super) struct OneOrMore(pub Named);

impl Form for OneOrMore {
    type Meaning = Infallible;

    fn schema(&self) -> Map<String, Json> {
        let one = Json::from(self.0.schema());
        object(json!({ "anyOf": [one, { "type": "array", "minItems": 1, "items": one }] }))
    }

    fn write(&self, meaning: &Infallible) -> Json {
        match *meaning {}
    }
}

/// A table.
pub(super) struct Section(pub &'static Table);

impl Form for Section {
    type Meaning = Infallible;

    fn schema(&self) -> Map<String, Json> {
        object(super::schema::table(self.0))
    }

    fn write(&self, meaning: &Infallible) -> Json {
        match *meaning {}
    }

    fn below(&self) -> Below {
        Below::One(self.0)
    }
}

/// A list of tables.
pub(super) struct Sections {
    pub of: &'static Table,
    pub from: usize,
    pub to: Option<usize>,
}

impl Form for Sections {
    type Meaning = Infallible;

    fn schema(&self) -> Map<String, Json> {
        let mut schema = json!({ "type": "array", "items": super::schema::table(self.of) });
        if self.from > 0 {
            schema["minItems"] = self.from.into();
        }
        if let Some(to) = self.to {
            schema["maxItems"] = to.into();
        }
        object(schema)
    }

    fn write(&self, meaning: &Infallible) -> Json {
        match *meaning {}
    }

    fn below(&self) -> Below {
        Below::Many(self.of)
    }
}
