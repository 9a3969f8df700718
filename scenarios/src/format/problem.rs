//! What is wrong with a file: where, what was found, what was expected, and the nearest valid word.

use super::setting::Setting;
use std::{fmt, ops::Range};

/// Problems that are printed at most; the rest is counted.
const PRINTED_MAX: usize = 50;
/// Characters of a found text that are printed at most.
const FOUND_MAX: usize = 60;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, in bytes of the text.
    pub span: Range<usize>,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: String,
    /// The valid word nearest to what stands there.
    pub nearest: Option<String>,
    /// Whether its shape alone is wrong: a key, a type, a unit, a word. A schema refuses that too.
    pub shape: bool,
}

impl Problem {
    /// A problem without a nearest word.
    pub(super) fn new(span: Range<usize>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { span, found: found.into(), expected: expected.into(), nearest: None, shape: true }
    }

    /// The same, where its shape is right, and only what it means is wrong.
    pub(super) fn beyond_shape(self) -> Self {
        Self { shape: false, ..self }
    }

    /// The same, with the word nearest to `word` among `valid`, if one is near.
    pub(super) fn near<'w>(mut self, word: &str, valid: impl IntoIterator<Item = &'w str>) -> Self {
        self.nearest = nearest(word, valid);
        self
    }
}

/// The word of `valid` that was most probably meant by `word`.
pub fn nearest<'w>(word: &str, valid: impl IntoIterator<Item = &'w str>) -> Option<String> {
    let word: String = word.chars().take(FOUND_MAX).flat_map(char::to_lowercase).collect();
    let tolerated = (word.chars().count() / 3).clamp(1, 4);
    let distance = |candidate: &str| strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
    let fix = |candidate: &str| word.len() >= 3 && (candidate.starts_with(&word) || word.starts_with(candidate));
    valid
        .into_iter()
        .filter(|candidate| !candidate.is_empty())
        .map(|candidate| (distance(candidate), candidate))
        .filter(|&(distance, candidate)| distance <= tolerated || fix(candidate))
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// A character as it may stand in a message: one that moves the cursor or turns the writing around becomes a mark.
pub fn shown(c: char) -> char {
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    if c.is_control() || turns { '\u{fffd}' } else { c }
}

/// `text` between backticks, without control characters and cut to a readable length.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(FOUND_MAX).map(shown).collect();
    if text.chars().nth(FOUND_MAX).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// All that is wrong with one file, in the order in which it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    file: String,
    placed: Vec<(Place, Problem)>,
}

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Line and column from 1, the column in characters; and the line's text, if there is one.
    File(usize, usize, Option<String>),
    /// A setting of the command line, as it was written.
    Setting(String),
}

impl Problems {
    /// Problems of a text.
    pub(super) fn new(file: &str, text: &str, settings: &[Setting], mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.start);
        let placed = problems.into_iter().map(|problem| {
            let at = problem.span.start.checked_sub(text.len() + 1);
            if let Some(setting) = at.and_then(|at| settings.get(at)) {
                return (Place::Setting(setting.to_string().chars().map(shown).collect()), problem);
            }
            let (line, column, excerpt) = place(text, problem.span.start);
            (Place::File(line, column, Some(excerpt)), problem)
        });
        Self { file: file.to_owned(), placed: placed.collect() }
    }

    /// A problem of a file that is no text at all, or none that can be read.
    pub(super) fn of_file(file: &str, unreadable: super::source::Unreadable) -> Self {
        let super::source::Unreadable { line, column, problem } = unreadable;
        Self { file: file.to_owned(), placed: vec![(Place::File(line, column, None), problem)] }
    }

    /// Whether something is wrong that a schema can say, too.
    #[must_use]
    pub fn has_wrong_shape(&self) -> bool {
        self.placed.iter().any(|(_, problem)| problem.shape)
    }

    /// How many there are; never zero.
    #[must_use]
    pub fn count(&self) -> usize {
        self.placed.len()
    }
}

/// Line and column, both from 1, of the byte `at`, and the text of that line.
fn place(text: &str, at: usize) -> (usize, usize, String) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    let line = before.matches('\n').count() + 1;
    let column = text[line_start..at].chars().count() + 1;
    (line, column, text[line_start..line_end].trim_end_matches('\r').to_owned())
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.placed.iter().take(PRINTED_MAX) {
            match place {
                Place::File(line, column, _) => write!(f, "{}:{line}:{column}: ", self.file)?,
                Place::Setting(setting) => write!(f, "--set {setting}: ")?,
            }
            write!(f, "found {}, expected {}", problem.found, problem.expected)?;
            if let Some(nearest) = &problem.nearest {
                write!(f, "; did you mean `{nearest}`?")?;
            }
            writeln!(f)?;
            if let Place::File(line, column, Some(excerpt)) = place {
                self.point(f, *line, *column, excerpt, problem)?;
            }
        }
        match self.placed.len() {
            n if n > PRINTED_MAX => writeln!(f, "{}: and {} more", self.file, n - PRINTED_MAX),
            _ => Ok(()),
        }
    }
}

impl Problems {
    /// The line with a mark under what is wrong. A line too long for a terminal, or an empty one, is left out.
    fn point(
        &self,
        f: &mut fmt::Formatter<'_>,
        line: usize,
        column: usize,
        excerpt: &str,
        problem: &Problem,
    ) -> fmt::Result {
        let width = excerpt.chars().count();
        if width == 0 || width > 120 || excerpt.chars().any(|c| shown(c) != c && c != '\t') {
            return Ok(());
        }
        let marks = problem.span.len().clamp(1, (width + 1).saturating_sub(column).max(1));
        let indent: String = excerpt.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{line:>6} | {excerpt}\n       | {indent}{}", "^".repeat(marks))
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_counts_characters_and_an_offset_inside_one_does_not_panic() {
        assert_eq!(place("a\nzürich = 1", 2), (2, 1, "zürich = 1".into()));
        assert_eq!(place("a\nzürich = 1", 5), (2, 3, "zürich = 1".into()), "behind the ü");
        assert_eq!(place("a\nzürich = 1", 4), (2, 2, "zürich = 1".into()), "inside the ü");
        assert_eq!(place("", 9), (1, 1, String::new()));
    }

    #[test]
    fn the_nearest_word_is_near() {
        let valid = ["workers", "gateways", "players"];
        assert_eq!(nearest("worker", valid), Some("workers".into()));
        assert_eq!(nearest("Playrs", valid), Some("players".into()));
        assert_eq!(nearest("dragons", valid), None);
        assert_eq!(nearest("", valid), None);
    }
}
