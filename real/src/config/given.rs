//! Values as they were given, each with where it was said: a file's tree, or the text of a flag or a variable.

use super::problem::{Origin, Problem, Problems, quoted};
use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The largest configuration or world file, in bytes.
pub const FILE_BYTES: usize = 4 * 1024 * 1024;

/// A value and where it was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Where.
    pub origin: Origin,
    /// What.
    pub value: Value,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text. All that a flag or a variable can say; numbers too.
    Text(String),
    /// A whole number of a file.
    Whole(i64),
    /// `true` or `false` of a file.
    Truth(bool),
    /// A list.
    List(Vec<Given>),
    /// A table: keys, where each stands, and what.
    Table(Vec<(String, Origin, Given)>),
    /// What no setting is: a date, a fraction.
    Other(String),
}

impl Given {
    /// How it reads in a message.
    #[must_use]
    pub fn found(&self) -> String {
        match &self.value {
            Value::Text(text) => quoted(text),
            Value::Whole(number) => format!("the number {number}"),
            Value::Truth(truth) => format!("`{truth}`"),
            Value::List(_) => "a list".into(),
            Value::Table(_) => "a table".into(),
            Value::Other(what) => what.clone(),
        }
    }

    /// The problem that it is not what was expected.
    #[must_use]
    pub fn problem(&self, expected: impl Into<String>) -> Problem {
        Problem::new(&self.origin, self.found(), expected)
    }

    /// Its text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it was said in a file, and so is typed there.
    #[must_use]
    pub const fn in_file(&self) -> bool {
        matches!(self.origin, Origin::File { .. })
    }

    /// The value under this key, where this is a table that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|(name, ..)| name == key).map(|(_, _, given)| given),
            _ => None,
        }
    }
}

/// Reads a TOML file as a table.
///
/// # Errors
/// It cannot be read, or everything in it that is no TOML.
pub fn file(path: &Path, what: &str) -> Result<Given, Problems> {
    let name: Arc<str> = path.display().to_string().into();
    let at_start = Origin::File { path: Arc::clone(&name), line: 1, column: 1 };
    let bytes = read(path, FILE_BYTES).map_err(|found| Problem::new(&at_start, found, what))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
        Problem::new(&place(&name, &good, good.len()), "bytes that are not UTF-8", "a text in UTF-8")
    })?;
    toml(&name, &text)
}

/// Reads a text that should be TOML.
///
/// # Errors
/// Everything in it that is none.
pub fn toml(name: &Arc<str>, text: &str) -> Result<Given, Problems> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let origin = place(name, text, 0);
        return Ok(Given { origin, value: table(name, text, document.get_ref()) });
    }
    // What a broken document seems to say is not worth reporting.
    let mut sink = super::problem::Sink::default();
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        // What stands there is not shown: it may be a password whose quotes are missing.
        let found = "what is no TOML";
        let expected = format!("valid TOML: {}", error.message().trim());
        sink.report::<()>(Problem::new(&place(name, text, span.start), found, expected));
    }
    sink.into_result(None)
}

/// The bytes of a file, at most so many, or what stands in the way.
///
/// # Errors
/// What was found instead of a file that can be read.
pub fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let wrong = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "a file that this process may not read".to_owned(),
        _ => format!("a file that cannot be read ({error})"),
    };
    // Looked at before it is opened: opening a pipe would wait for its other end.
    let kind = std::fs::metadata(path).map_err(wrong)?;
    if kind.is_dir() {
        return Err("a directory".into());
    }
    if !kind.is_file() {
        return Err("a device, a pipe or a socket".into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(wrong)?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() > bytes_max {
        return Err(format!("more than {bytes_max} bytes"));
    }
    Ok(bytes)
}

fn table(name: &Arc<str>, text: &str, table: &DeTable<'_>) -> Value {
    let entry = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
        (key.get_ref().clone().into_owned(), place(name, text, key.span().start), given(name, text, value))
    };
    let mut entries: Vec<_> = table.iter().map(entry).collect();
    entries.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
    Value::Table(entries)
}

fn given(name: &Arc<str>, text: &str, spanned: &Spanned<DeValue<'_>>) -> Given {
    let value = match spanned.get_ref() {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Whole(number),
            Err(_) => Value::Other(format!("the number {}", number.as_str().chars().take(40).collect::<String>())),
        },
        DeValue::Boolean(truth) => Value::Truth(*truth),
        DeValue::Float(number) => Value::Other(format!("the number {}", number.as_str())),
        DeValue::Datetime(when) => Value::Other(format!("the date {when}")),
        DeValue::Array(list) => Value::List(list.iter().map(|value| given(name, text, value)).collect()),
        DeValue::Table(entries) => table(name, text, entries),
    };
    Given { origin: place(name, text, spanned.span().start), value }
}

/// The place of the byte `at`.
fn place(name: &Arc<str>, text: &str, at: usize) -> Origin {
    let before = &text[..text.floor_char_boundary(at)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    Origin::File { path: Arc::clone(name), line, column: before[line_start..].chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_place_and_every_error_is_told() {
        let name: Arc<str> = "a.toml".into();
        let document = toml(&name, "node = 7\n[tls]\nca = \"zürich\"\n").expect("reads");
        let ca = document.get("tls").and_then(|tls| tls.get("ca")).expect("there");
        assert_eq!((ca.text(), ca.origin.to_string().as_str()), (Some("zürich"), "a.toml:3:6"));
        let problems = toml(&name, "a = \nb = 1\nc = [\n").expect_err("broken twice");
        assert!(problems.iter().count() >= 2, "{problems}");
    }

    #[test]
    fn what_is_no_file_is_said() {
        for (path, found) in
            [("/nowhere/at/all.toml", "no such file"), ("/tmp", "a directory"), ("/dev/null", "device")]
        {
            let problems = file(Path::new(path), "a configuration file").expect_err("no file").to_string();
            assert!(problems.contains(found), "{problems}");
        }
    }
}
