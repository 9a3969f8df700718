//! A failure as a file: all that another machine needs to see the same one.

use crate::{FirstEvent, Outcome, RunResult};
use serde::{Deserialize, Serialize};

/// The version of the file's format.
const FORMAT: u32 = 1;

/// A run that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The version of the file's format.
    pub format: u32,
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// The revision of the code that failed.
    pub revision: String,
    /// The trace hash at its end.
    #[serde(with = "hex")]
    pub hash: u64,
    /// Whether the run went on behind the first broken invariant.
    #[serde(default)]
    pub all: bool,
    /// What it came to.
    pub outcome: Outcome,
    /// The id of the invariant that broke, or the name of the budget that was missed.
    pub what: String,
    /// What it demands.
    pub sentence: String,
    /// The first event that broke it, if it was an event.
    pub event: Option<FirstEvent>,
    /// The scenario's file, as it was read.
    pub text: String,
    /// What the command line put in the place of its values, as `lease.ttl=4s`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
}

impl Failure {
    /// The failure of `run`. `None` if it held, or if no seed can bring it back: what ran on real processes.
    #[must_use]
    pub fn of(run: &RunResult, revision: &str, text: &str, settings: Vec<String>, all: bool) -> Option<Self> {
        let (what, sentence, event) = match (&run.violation, run.misses.first()) {
            (Some(violation), _) => {
                (violation.invariant.clone(), violation.sentence.clone(), Some(violation.event.clone()))
            }
            (None, Some(miss)) => (miss.name.clone(), miss.sentence.clone(), None),
            (None, None) => return None,
        };
        let hash = run.hash()?;
        Some(Self {
            format: FORMAT,
            scenario: run.scenario.clone(),
            seed: run.seed,
            revision: revision.to_owned(),
            hash,
            all,
            outcome: run.outcome(),
            what,
            sentence,
            event,
            text: text.to_owned(),
            settings,
        })
    }

    /// The name of its file.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}.json", self.scenario, self.seed)
    }

    /// The file's content.
    ///
    /// # Errors
    /// None that these types can cause; whatever the serializer says.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }

    /// The failure in a file.
    ///
    /// # Errors
    /// Line, column, and what was expected there.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        let failure: Self = serde_json::from_str(text)?;
        match failure.format {
            FORMAT => Ok(failure),
            other => Err(serde::de::Error::custom(format!("format {other}, expected format {FORMAT}"))),
        }
    }
}

/// A hash in a file: sixteen hexadecimal digits, since a JSON number keeps only 53 bits.
pub mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{hash:016x}"))
    }

    /// Reads it.
    ///
    /// # Errors
    /// Where it is no hash.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.len() {
            16 => u64::from_str_radix(&text, 16).map_err(|_| D::Error::custom(format!("`{text}` is no hash"))),
            _ => Err(D::Error::custom(format!("`{text}` is no hash of sixteen hexadecimal digits"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        Failure {
            format: FORMAT,
            scenario: "swing".into(),
            seed: u64::MAX,
            revision: "unknown".into(),
            hash: 0x00ff_0000_0000_0001,
            all: false,
            outcome: Outcome::Broken,
            what: "O1".into(),
            sentence: "one owner".into(),
            event: Some(FirstEvent {
                id: 7,
                at_ns: 1_500_000_000,
                node: "worker:frankfurt:0".into(),
                what: "x".into(),
            }),
            text: "name = \"swing\"".into(),
            settings: vec!["lease.ttl=4s".into()],
        }
    }

    #[test]
    fn a_failure_reads_back_from_its_file() {
        let json = failure().to_json().expect("serializes");
        assert!(json.contains("\"00ff000000000001\""), "{json}");
        assert_eq!(Failure::from_json(&json).expect("reads"), failure());
    }

    #[test]
    fn another_format_or_a_torn_file_is_refused_with_its_place() {
        let json = failure().to_json().expect("serializes").replace("\"format\": 1", "\"format\": 9");
        assert!(Failure::from_json(&json).expect_err("refused").to_string().contains("format 9"));
        assert_eq!(Failure::from_json("{\n \"format\": 1").expect_err("torn").line(), 2);
    }
}
