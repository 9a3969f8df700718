//! `worldline report compare`: simulated timings beside measured ones.

mod tool;

use std::fs;
use tool::{Folder, worldline_in};

const SMALL: &str = r#"name = "small"
summary = "Nothing happens but blows."
duration = "5s"
settle = "3s"

[[world.region]]
name = "frankfurt"
workers = 1
gateways = 1
players = 2

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
attack_every = "1s"
target = "boss-1"

[[budget]]
timing = "operation"
within = "5s"
"#;

#[test]
fn a_measured_run_that_lies_outside_is_named_and_ends_with_two() {
    let folder = Folder::new("report-compare");
    folder.write("small.toml", SMALL.as_bytes());
    let ran = worldline_in(folder.path(), &["run", "small.toml", "--seeds", "4", "--result", "simulated.json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.output, ran.errors);
    let text = fs::read_to_string(folder.path().join("simulated.json")).expect("kept");
    // What a drill of the same file leaves behind, had it taken exactly what the simulator says.
    let drilled = text.replace("\"source\": \"simulator\"", "\"source\": \"drill\"");
    folder.write("drill.json", drilled.as_bytes());
    let ran = worldline_in(folder.path(), &["report", "compare", "simulated.json", "drill.json"]);
    assert_eq!(ran.code, 0, "{}{}", ran.output, ran.errors);
    assert!(ran.output.contains("small: 4 drills beside 4 simulated seeds\n"), "{}", ran.output);
    assert!(ran.output.contains("4 of 4 figures agree\n"), "{}", ran.output);
    // And had every blow taken more than ten times as long: a digit more before each figure.
    let slow = drilled.replace("p50_ns\": ", "p50_ns\": 9").replace("max_ns\": ", "max_ns\": 9");
    folder.write("slow.json", slow.as_bytes());
    let ran = worldline_in(folder.path(), &["report", "compare", "simulated.json", "slow.json"]);
    assert_eq!(ran.code, 2, "{}{}", ran.output, ran.errors);
    let row = ran.output.lines().find(|line| line.starts_with("operation")).expect("a row");
    assert!(row.contains("slower"), "{}", ran.output);
    // The wrong way round, something else, nothing.
    let back = worldline_in(folder.path(), &["report", "compare", "drill.json", "simulated.json"]);
    assert_eq!((back.code, back.errors.contains("expected the simulator")), (65, true), "{}", back.errors);
    let none = worldline_in(folder.path(), &["report", "compare", "simulated.json", "gone.json"]);
    assert_eq!((none.code, none.errors.contains("gone.json:1:1: found no such file")), (65, true), "{}", none.errors);
    let usage = worldline_in(folder.path(), &["report", "compare", "simulated.json"]);
    assert_eq!((usage.code, usage.errors.contains("<MEASURED>")), (64, true), "{}", usage.errors);
}
