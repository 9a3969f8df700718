//! `worldline doctor`: what is here, what is missing, and the command that gets it.

mod tool;

use std::fs;
use tool::{Folder, Ran, worldline_in};

/// The state that a line tells, and what was found.
fn told(ran: &Ran, what: &str) -> (String, String) {
    let line = ran.output.lines().find(|line| line.get(12..).is_some_and(|rest| rest.starts_with(what)));
    let line = line.unwrap_or_else(|| panic!("nothing about {what}:\n{}", ran.output));
    let state = line.split_whitespace().next().expect("a state").to_owned();
    (state, line[12 + what.len()..].trim().to_owned())
}

/// A folder that looks like the project, with a `ci/services` that knows of these binaries.
fn project(name: &str, env: &str) -> Folder {
    let folder = Folder::new(name);
    for path in ["scenarios/catalogue", "reports", "ci"] {
        fs::create_dir_all(folder.path().join(path)).expect("a new folder");
    }
    folder.write("reports/Cargo.toml", b"");
    folder.write("ci/services", format!("case $1 in env) {env} ;; status) echo nothing runs ;; esac\n").as_bytes());
    folder
}

#[test]
fn the_simulator_needs_nothing_and_the_real_part_says_what_it_lacks() {
    let folder = Folder::new("doctor");
    let ran = worldline_in(folder.path(), &["doctor"]);
    assert_eq!((ran.code, ran.errors.as_str()), (0, ""), "{}", ran.output);
    assert!(told(&ran, "a trial run").1.contains("the same twice"));
    assert!(told(&ran, "catalogue").1.contains("scenarios"));
    assert_eq!(told(&ran, "services").0, "missing");
    assert!(ran.output.contains("the simulator can run; the real part lacks services"), "{}", ran.output);
    assert!(
        !ran.output.contains('\u{1b}') && ran.output.lines().all(|line| line.chars().count() <= 80),
        "{}",
        ran.output
    );
    assert_eq!(worldline_in(folder.path(), &["doctor", "--real"]).code, 69);
    assert_eq!(fs::read_dir(folder.path()).expect("here").count(), 0, "a look changes nothing");
}

#[test]
fn where_services_are_only_ci_services_knows() {
    let found = r"printf 'export WORLDLINE_TEST_ETCD_BIN=%q\n' '/opt/with blank/etcd'";
    let folder = project("doctor-some", found);
    let ran = worldline_in(folder.path(), &["doctor"]);
    assert_eq!(told(&ran, "etcd 3.5"), ("ok".into(), "/opt/with blank/etcd".into()), "{}", ran.output);
    assert_eq!(told(&ran, "PostgreSQL 17").0, "missing", "{}", ran.output);
    assert!(ran.output.contains("ci/services install postgres"), "{}", ran.output);
    assert!(!ran.output.contains("ci/services install etcd"), "{}", ran.output);
    let broken = project("doctor-broken", "exit 7");
    let ran = worldline_in(broken.path(), &["doctor"]);
    assert_eq!((ran.code, told(&ran, "services").0.as_str()), (0, "missing"), "{}", ran.output);
}

#[test]
fn every_word_that_it_tells_to_install_is_one_that_ci_services_takes() {
    let services = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../ci/services")).expect("in the project");
    let folder = project("doctor-none", "true");
    let ran = worldline_in(folder.path(), &["doctor"]);
    let words = ran.output.lines().filter_map(|line| line.trim().strip_prefix("ci/services install "));
    let words: Vec<_> = words.collect();
    assert!(words.len() >= 5, "{}", ran.output);
    for word in words {
        assert!(services.contains(&format!("find_{word}() {{")), "{word}");
        assert!(services.contains(&format!("found=$(find_{word})")), "{word} is told by `env`");
    }
    let told_by_env = [
        ("PostgreSQL 17", "WORLDLINE_TEST_POSTGRES_BIN"),
        ("etcd 3.5", "WORLDLINE_TEST_ETCD_BIN"),
        ("NATS 2.10", "WORLDLINE_TEST_NATS_BIN"),
        ("Valkey 8", "WORLDLINE_TEST_VALKEY_BIN"),
        ("protoc", "PROTOC"),
    ];
    let all: String =
        told_by_env.iter().map(|(_, variable)| format!("echo export {variable}=/in/{variable};")).collect();
    let folder = project("doctor-all", &all);
    let ran = worldline_in(folder.path(), &["doctor"]);
    for (what, variable) in told_by_env {
        assert!(services.contains(&format!("export {variable}=%q")), "{variable}");
        assert_eq!(told(&ran, what), ("ok".into(), format!("/in/{variable}")), "{}", ran.output);
    }
}
