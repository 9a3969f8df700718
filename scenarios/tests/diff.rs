//! `worldline diff`: what changed between two results over the same seeds, and whether beyond noise.

mod tool;

use std::fs;
use tool::{Folder, worldline_in};

const SMALL: &str = r#"name = "small"
summary = "One worker of two dies."
duration = "20s"
settle = "8s"

[[world.region]]
name = "frankfurt"
workers = 2
gateways = 1
players = 4

[[world.boss]]
name = "boss-1"
region = "frankfurt"
hit_points = 100000
purse = 1000

[core]
directory = 1
ledger = 1
orchestrators = 1

[workload]
moves_per_second = 2
target = "boss-1"

[[fault]]
at = "5s..6s"
kind = "crash"
node = "owner-of:boss-1"
"#;

fn kept(folder: &Folder, name: &str, more: &[&str]) {
    let ran = worldline_in(folder.path(), &[&["run", "small.toml", "--result", name], more].concat());
    assert!(matches!(ran.code, 0 | 2), "{}{}", ran.output, ran.errors);
}

#[test]
fn a_shorter_lease_is_noticed_beyond_noise_with_what_it_costs() {
    let folder = Folder::new("diff");
    folder.write("small.toml", SMALL.as_bytes());
    kept(&folder, "a.json", &["--seeds", "16"]);
    kept(&folder, "b.json", &["--seeds", "16", "--set", "lease.ttl=4s"]);
    let ran = worldline_in(folder.path(), &["diff", "a.json", "b.json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.output, ran.errors);
    assert!(ran.output.contains("small: 16 seeds\n  set in B only: lease.ttl=4s\n"), "{}", ran.output);
    let detect = ran.output.lines().find(|line| line.starts_with("  detect")).expect("a row");
    assert!(detect.contains("p50") && detect.ends_with("faster"), "{detect}");
    let alarms = ran.output.lines().find(|line| line.starts_with("  orchestrator.found-dead-but-alive"));
    assert!(alarms.expect("a row").ends_with("same"), "{}", ran.output);
    assert!(ran.output.lines().all(|line| line.chars().count() <= 80), "{}", ran.output);
    assert!(!ran.output.contains('\u{1b}'));
    // The other way round something got slower.
    let back = worldline_in(folder.path(), &["diff", "b.json", "a.json"]);
    assert_eq!(back.code, 2, "{}", back.output);
    let none = worldline_in(folder.path(), &["diff", "a.json", "a.json"]);
    assert_eq!(none.code, 0);
    assert!(!none.output.contains("faster") && !none.output.contains("slower"), "{}", none.output);
}

#[test]
fn a_seed_that_no_longer_holds_is_named() {
    let folder = Folder::new("diff-outcome");
    folder.write("small.toml", SMALL.as_bytes());
    kept(&folder, "a.json", &["--seeds", "2"]);
    let missed = SMALL.to_owned() + "[[budget]]\ntiming = \"failover\"\nwithin = \"1ms\"\n";
    folder.write("small.toml", missed.as_bytes());
    kept(&folder, "b.json", &["--seeds", "2"]);
    let ran = worldline_in(folder.path(), &["diff", "a.json", "b.json"]);
    assert_eq!(ran.code, 2, "{}{}", ran.output, ran.errors);
    assert!(ran.output.contains("  its file is not the same in both\n"), "{}", ran.output);
    assert!(ran.output.contains("  held → failover missed in 2 seeds: 1, 2\n"), "{}", ran.output);
}

#[test]
fn what_cannot_be_compared_is_refused_with_what_is_wrong() {
    let folder = Folder::new("diff-wrong");
    folder.write("small.toml", SMALL.as_bytes());
    kept(&folder, "a.json", &["--seeds", "1"]);
    kept(&folder, "more.json", &["--seeds", "2"]);
    let text = fs::read_to_string(folder.path().join("a.json")).expect("kept");
    folder.write("other.json", text.replace("\"name\": \"small\"", "\"name\": \"other\"").as_bytes());
    folder.write("drill.json", text.replace("\"simulator\"", "\"drill\"").as_bytes());
    folder.write("torn.json", &text.as_bytes()[..text.len() / 2]);
    folder.write("empty.json", b"{}");
    folder.write("text.json", b"held: 8 runs");
    folder.write("newer.json", text.replace("\"format\": 1", "\"format\": 2").as_bytes());
    folder.write("older.json", text.replace("\"format\": 1,", "").as_bytes());
    folder.write("nothing.json", br#"{"format": 1, "revision": "x", "scenarios": []}"#);
    let mut doubled: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let scenarios = doubled["scenarios"].as_array_mut().expect("a list");
    scenarios.push(scenarios[0].clone());
    folder.write("doubled.json", doubled.to_string().as_bytes());
    let mut again: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let runs = again["scenarios"][0]["runs"].as_array_mut().expect("a list");
    runs.push(runs[0].clone());
    folder.write("again.json", again.to_string().as_bytes());
    let cases: &[(&str, &str)] = &[
        ("more.json", "`small`: A has seed 1, B has 2 seeds from 1 to 2: run the same ones"),
        ("other.json", "`small` is in A and not in B"),
        ("drill.json", "`small`: A is of the simulator, B of the drill"),
        ("torn.json", "torn.json:"),
        (
            "empty.json",
            "empty.json:1:1: found no `format`, expected format 1, expected a result that `worldline run --result FILE`",
        ),
        ("text.json", "text.json:1:1: found no JSON: expected value, expected a result"),
        ("newer.json", "found format 2, expected format 1"),
        ("older.json", "found no `format`, expected format 1"),
        ("nothing.json", "found a result without a scenario"),
        ("doubled.json", "found `small` twice"),
        ("again.json", "found seed 1 of `small` twice"),
        ("gone.json", "gone.json:1:1: found no such file, expected a result"),
    ];
    for (file, expected) in cases {
        let ran = worldline_in(folder.path(), &["diff", "a.json", file]);
        assert_eq!(ran.code, 65, "{file}: {}", ran.errors);
        assert!(ran.errors.contains(expected), "{file}: {}", ran.errors);
    }
    let usage = worldline_in(folder.path(), &["diff", "a.json"]);
    assert_eq!((usage.code, usage.errors.contains("<B>")), (64, true), "{}", usage.errors);
}
