//! A kept result file, read again.

use crate::{Outcome, Quantiles};
use serde::{Deserialize, de::Error as _};
use std::collections::{BTreeMap, BTreeSet};

/// The format of these files. A change that makes an old file mean something else raises it.
pub const FORMAT: u32 = 1;

/// What [`crate::latest`] has written.
#[derive(Clone, Debug, Deserialize)]
pub struct Kept {
    /// The revision of the code.
    pub revision: String,
    /// In the order in which they ran.
    pub scenarios: Vec<Scenario>,
}

/// One scenario of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Of its file.
    #[serde(with = "crate::failure::hex")]
    pub file: u64,
    /// What the command line put in the place of its values.
    pub settings: Vec<String>,
    /// Over all samples of all seeds.
    pub timings: BTreeMap<String, Quantiles>,
    /// In the order of their seeds.
    pub runs: Vec<Run>,
}

/// One seed of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    /// Which.
    pub seed: u64,
    /// `simulator` or `drill`.
    pub source: String,
    /// What it has come to.
    pub outcome: Outcome,
    /// The invariant that broke.
    pub invariant: Option<String>,
    /// What was missed.
    #[serde(default)]
    pub missed: Vec<String>,
    /// Of this seed alone.
    pub timings: BTreeMap<String, Quantiles>,
    /// How often each probe was reached; those never reached are left out.
    pub probes: BTreeMap<String, u64>,
}

impl Run {
    /// What it has come to, in words.
    #[must_use]
    pub fn ending(&self) -> String {
        match (&self.invariant, &self.missed[..]) {
            (Some(invariant), _) => format!("{invariant} broke"),
            (None, [first, ..]) => format!("{first} missed"),
            (None, []) if self.outcome == Outcome::Unprovoked => "not provoked".into(),
            (None, []) => "held".into(),
        }
    }
}

impl Kept {
    /// The result in a file.
    ///
    /// # Errors
    /// Line, column, and what was expected there.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Head {
            format: Option<u32>,
        }
        let custom = |text: String| Err(serde_json::Error::custom(text));
        match serde_json::from_str::<Head>(text)?.format {
            Some(FORMAT) => {}
            Some(other) => return custom(format!("format {other}, expected format {FORMAT}")),
            None => return custom(format!("no `format`, expected format {FORMAT}")),
        }
        let kept: Self = serde_json::from_str(text)?;
        if kept.scenarios.is_empty() {
            return custom("a result without a scenario".into());
        }
        let mut names = BTreeSet::new();
        for scenario in &kept.scenarios {
            let mut seeds = BTreeSet::new();
            if !names.insert(&scenario.name) {
                return custom(format!("`{}` twice", scenario.name));
            }
            if let Some(run) = scenario.runs.iter().find(|run| !seeds.insert(run.seed)) {
                return custom(format!("seed {} of `{}` twice", run.seed, scenario.name));
            }
        }
        Ok(kept)
    }
}
