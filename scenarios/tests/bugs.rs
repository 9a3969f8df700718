//! The planted bugs of `ci/bugs`: every invariant that is checked has one, and each names what exists.
//!
//! That they are found is what `ci/bugs/run` shows; this only keeps the list whole.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use worldline_scenarios::{catalogue, checkers::Invariant};

/// A patch's first line: `# INVARIANT.. | SCENARIO.. | what is wrong`.
struct Header {
    patch: String,
    invariants: Vec<Invariant>,
    scenarios: Vec<String>,
    sentence: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate stands in the workspace").to_path_buf()
}

fn header(path: &Path) -> Header {
    let text = fs::read_to_string(path).expect("a patch is text");
    let first = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
    let fields: Vec<&str> = first.split('|').map(str::trim).collect();
    let [invariants, scenarios, sentence] = fields[..] else { panic!("{}: {first:?}", path.display()) };
    let known = |id: &str| id.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Header {
        patch: path.display().to_string(),
        invariants: invariants.split_whitespace().map(known).collect(),
        scenarios: scenarios.split_whitespace().map(str::to_owned).collect(),
        sentence: sentence.to_owned(),
    }
}

fn headers() -> Vec<Header> {
    let entries = fs::read_dir(root().join("ci/bugs")).expect("ci/bugs can be read");
    let paths = entries.map(|entry| entry.expect("its entries can be read").path());
    let patches = paths.filter(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.map(|path| header(&path)).collect()
}

#[test]
fn every_invariant_has_a_planted_bug() {
    let planted: BTreeSet<Invariant> = headers().into_iter().flat_map(|header| header.invariants).collect();
    let without: Vec<_> = Invariant::ALL.iter().filter(|invariant| !planted.contains(invariant)).collect();
    assert!(without.is_empty(), "{without:?} have no planted bug in ci/bugs");
}

#[test]
fn every_planted_bug_names_scenarios_that_exist_and_says_what_is_wrong() {
    for Header { patch, invariants, scenarios, sentence } in headers() {
        assert!(!invariants.is_empty() && !scenarios.is_empty() && !sentence.is_empty(), "{patch}");
        for scenario in scenarios {
            let exists = if scenario.ends_with(".toml") {
                root().join(&scenario).is_file()
            } else {
                catalogue::find(&scenario).is_some()
            };
            assert!(exists, "{patch} names `{scenario}`");
        }
    }
}
