//! What is wrong with a configuration: where it was said, what was found, what would be right, the nearest valid word.

use std::{fmt, sync::Arc};

/// Problems that are printed at most; the rest is counted.
const PRINTED_MAX: usize = 50;
/// Characters of a found text that are printed at most.
const FOUND_MAX: usize = 200;

/// Where something was said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In a file; line and column from 1, the column in characters.
    File {
        /// As it was named.
        path: Arc<str>,
        /// Which line.
        line: usize,
        /// Which character of it.
        column: usize,
    },
    /// By an environment variable.
    Variable(String),
    /// By a flag, with its hyphens.
    Flag(String),
    /// Nowhere: it is missing.
    Nowhere,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Nowhere => write!(f, "configuration"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What was said. Never a secret.
    pub found: String,
    /// What would be right.
    pub expected: String,
    /// The valid word nearest to what was said.
    pub nearest: Option<String>,
}

impl Problem {
    /// A problem without a nearest word.
    pub fn new(origin: &Origin, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { origin: origin.clone(), found: found.into(), expected: expected.into(), nearest: None }
    }

    /// The same, with the word nearest to `word` among `valid`, if one is near.
    #[must_use]
    pub fn near<'w>(mut self, word: &str, valid: impl IntoIterator<Item = &'w str>) -> Self {
        self.nearest = nearest(word, valid);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}, expected {}", self.origin, self.found, self.expected)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

/// Collects problems.
#[derive(Debug, Default)]
pub struct Sink(Vec<Problem>);

impl Sink {
    /// Reports one, and gives `None` for the value that could not be had.
    pub fn report<T>(&mut self, problem: Problem) -> Option<T> {
        self.0.push(problem);
        None
    }

    /// Reports all of another file.
    pub fn report_all(&mut self, problems: Problems) {
        self.0.extend(problems.0);
    }

    /// How many there are so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What was collected; `value` where that is nothing. A value that is missing and of which nothing was reported is a mistake
    /// of this program, and told as one.
    ///
    /// # Errors
    /// Everything that was reported.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            None if self.0.is_empty() => {
                let expected = "a reason why it is refused: that none is given is a mistake of this program";
                Err(Problem::new(&Origin::Nowhere, "what cannot be run", expected).into())
            }
            _ => Err(Problems(self.0)),
        }
    }
}

/// All that is wrong with a configuration. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Files first, in the order of their lines; what is missing last.
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by(|a, b| a.origin.cmp(&b.origin));
        for problem in all.iter().take(PRINTED_MAX) {
            writeln!(f, "{problem}")?;
        }
        match all.len() {
            n if n > PRINTED_MAX => writeln!(f, "and {} more", n - PRINTED_MAX),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Problems {}

/// The word of `valid` that was most probably meant by `word`.
#[must_use]
pub fn nearest<'w>(word: &str, valid: impl IntoIterator<Item = &'w str>) -> Option<String> {
    let word: String = word.chars().take(FOUND_MAX).flat_map(char::to_lowercase).collect();
    let tolerated = (word.chars().count() / 3).clamp(1, 4);
    let candidates = valid.into_iter().filter(|candidate| !candidate.is_empty());
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, _)| distance <= tolerated)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// `text` between backticks, cut to a readable length, without characters that move the cursor or turn the writing.
#[must_use]
pub fn quoted(text: &str) -> String {
    let turns =
        |c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let shown = |c: char| if c.is_control() || turns(c) { '\u{fffd}' } else { c };
    let cut = if text.chars().nth(FOUND_MAX).is_some() { "…" } else { "" };
    format!("`{}{cut}`", text.chars().take(FOUND_MAX).map(shown).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_missing_without_a_reason_is_told_and_no_panic() {
        assert_eq!(Sink::default().into_result(Some(7)), Ok(7));
        let problems = Sink::default().into_result::<u8>(None).expect_err("nothing to run").to_string();
        assert!(problems.contains("a mistake of this program"), "{problems}");
        let mut sink = Sink::default();
        sink.report::<()>(Problem::new(&Origin::Nowhere, "x", "y"));
        assert!(sink.into_result(Some(7)).is_err(), "what was reported is never passed over");
    }

    #[test]
    fn the_nearest_word_is_near_and_a_found_text_cannot_move_the_cursor() {
        let valid = ["listen", "lease.ttl", "ledger"];
        assert_eq!(nearest("listn", valid), Some("listen".into()));
        assert_eq!(nearest("Ledgre", valid), Some("ledger".into()));
        assert_eq!(nearest("service_host", valid), None);
        assert_eq!(quoted("a\u{1b}[2J\u{202e}b"), "`a\u{fffd}[2J\u{fffd}b`");
        assert_eq!(quoted(&"x".repeat(500)).chars().count(), FOUND_MAX + 3, "two marks and the sign that it was cut");
    }
}
