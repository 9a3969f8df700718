//! The layers of the design, enforced: nothing imports what stands above it, and the lower layers stay free of `std`.
//!
//! Each rule is a function of text, so that the tests below can plant an offence and see it found.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The crates from the lowest up, each with the crates of the workspace that it may link.
const LAYERS: &[(&str, &[&str])] = &[
    ("worldline-proto", &[]),
    ("worldline-system", &["worldline-proto"]),
    // The laws know neither side that is held to them.
    ("worldline-laws", &["worldline-proto", "worldline-system"]),
    ("worldline-sim", &["worldline-proto", "worldline-system"]),
    ("worldline-reports", &["worldline-proto", "worldline-system", "worldline-sim"]),
    ("worldline-scenarios", &["worldline-proto", "worldline-system", "worldline-sim", "worldline-reports"]),
    // The server links no simulator.
    // Under madsim it stands on another tokio.
    ("worldline-tokio", &[]),
    ("worldline-real", &["worldline-proto", "worldline-system", "worldline-tokio"]),
    ("worldline-ports", &[]),
    // The faults that a drill provokes are the simulator's own values.
    (
        "worldline-drill",
        &[
            "worldline-proto",
            "worldline-system",
            "worldline-sim",
            "worldline-reports",
            "worldline-scenarios",
            "worldline-real",
            "worldline-ports",
        ],
    ),
    // The adapters on simulated machines, held to the laws.
    (
        "worldline-simulated",
        &["worldline-proto", "worldline-system", "worldline-laws", "worldline-sim", "worldline-real"],
    ),
    // The host, and tasks in random order.
    ("worldline-scheduled", &["worldline-proto", "worldline-system", "worldline-tokio", "worldline-real"]),
];

/// What the tests of these crates link besides, and nothing that is not a test may.
const FOR_TESTS: &[(&str, &[&str])] =
    &[("worldline-sim", &["worldline-laws"]), ("worldline-real", &["worldline-laws", "worldline-ports"])];

/// The layers that must build without `std`.
const NO_STD: &[&str] = &["proto", "system"];

/// What a layer without `std` must not say, even where a `cfg` would hide it from the compiler.
const FORBIDDEN: &[&str] = &["std", "async", "await", "f32", "f64", "HashMap", "HashSet", "SystemTime", "unsafe"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate stands in the workspace").to_path_buf()
}

fn metadata() -> Value {
    let cargo = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    serde_json::from_slice(&cargo.stdout).expect("cargo writes JSON")
}

/// Every dependency in cargo's metadata that the layers do not allow.
fn forbidden_dependencies(metadata: &Value) -> Vec<String> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let mut offences = Vec::new();
    for package in list(metadata, "packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(&(_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            offences.push(format!("`{name}` is no layer of the design"));
            continue;
        };
        for dependency in list(&package, "dependencies") {
            let is_for_tests = dependency["kind"] == "dev";
            let dependency = dependency["name"].as_str().unwrap_or_default();
            let may = |(layer, tools): &(&str, &[&str])| *layer == name && tools.contains(&dependency);
            if is_for_tests && FOR_TESTS.iter().any(may) {
                continue;
            }
            if dependency.starts_with("worldline") && !allowed.contains(&dependency) {
                offences.push(format!("`{name}` depends on `{dependency}`, which it may not know"));
            }
        }
    }
    offences
}

/// Every word of `source` that a layer without `std` must not say. Comments and what follows `#[cfg(test)]` are left out.
fn forbidden_words(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().enumerate();
    let code = lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()));
    code.flat_map(|(at, line)| {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.filter(|word| FORBIDDEN.contains(word)).map(move |word| format!("line {at} says `{word}`"))
    })
    .collect()
}

fn is_no_std(lib: &str) -> bool {
    lib.lines().any(|line| line.trim() == "#![no_std]")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("its entries can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_crate_imports_what_stands_above_it() {
    let offences = forbidden_dependencies(&metadata());
    assert!(offences.is_empty(), "{offences:#?}");
}

#[test]
fn the_lower_layers_know_no_std_no_float_no_async_and_no_hash_map() {
    for layer in NO_STD {
        let folder = root().join(layer).join("src");
        let lib = fs::read_to_string(folder.join("lib.rs")).expect("every layer has a lib.rs");
        assert!(is_no_std(&lib), "{layer}/src/lib.rs has lost `#![no_std]`");
        let mut files = Vec::new();
        sources(&folder, &mut files);
        for file in files {
            let offences = forbidden_words(&fs::read_to_string(&file).expect("a source file is text"));
            assert!(offences.is_empty(), "{}: {offences:#?}", file.display());
        }
    }
}

#[test]
fn a_planted_dependency_is_found() {
    let package = |name: &str, dependency: &str| serde_json::json!({ "packages": [{ "name": name, "dependencies": [{ "name": dependency }] }] });
    for (name, dependency) in [
        ("worldline-proto", "worldline-system"),
        ("worldline-system", "worldline-sim"),
        ("worldline-sim", "worldline-scenarios"),
        ("worldline-reports", "worldline-scenarios"),
        ("worldline-real", "worldline-sim"),
        ("worldline-laws", "worldline-sim"),
        ("worldline-sim", "worldline-laws"),
        ("worldline-utilities", "serde"),
    ] {
        assert_eq!(forbidden_dependencies(&package(name, dependency)).len(), 1, "{name} → {dependency}");
    }
    assert!(forbidden_dependencies(&package("worldline-scenarios", "worldline-sim")).is_empty());
    assert!(forbidden_dependencies(&package("worldline-proto", "prost")).is_empty());
    let mut in_tests = package("worldline-sim", "worldline-laws");
    in_tests["packages"][0]["dependencies"][0]["kind"] = "dev".into();
    assert!(forbidden_dependencies(&in_tests).is_empty());
    in_tests["packages"][0]["name"] = "worldline-scenarios".into();
    assert_eq!(forbidden_dependencies(&in_tests).len(), 1);
}

#[test]
fn a_planted_word_is_found() {
    for planted in [
        "use std::time::Instant;",
        "async fn tick() {}",
        "let x: f64 = 0.into();",
        "fn speed() -> f32 { todo() }",
        "map: HashMap<u64, u64>,",
        "call().await?;",
        "unsafe { go() }",
    ] {
        assert!(!forbidden_words(planted).is_empty(), "{planted}");
    }
    for innocent in ["// the std way", "let standard = 1; // f64", "use alloc::vec;", "#[cfg(test)]\nextern crate std;"]
    {
        assert!(forbidden_words(innocent).is_empty(), "{innocent}");
    }
    assert!(is_no_std("//! Doc.\n#![no_std]\n"));
    assert!(!is_no_std("//! Once `#![no_std]`.\n// #![no_std]\n"));
}
