//! `--set KEY=VALUE`: another value for one command. What is wrong with one is said as what is wrong with a file is.

mod tool;

use std::fs;
use tool::{Folder, worldline, worldline_in};

/// A world that runs in a moment, and of which something may be missed.
const SMALL: &str = r#"name = "small"
summary = "One worker of two dies."
duration = "6s"
settle = "5s"

[[world.region]]
name = "frankfurt"
workers = 2
gateways = 1
players = 2

[[world.boss]]
name = "boss-1"
region = "frankfurt"
hit_points = 1000
purse = 1000

[core]
directory = 1
ledger = 1
orchestrators = 1

[workload]
target = "boss-1"

[[fault]]
at = "3s"
kind = "crash"
node = "owner-of:boss-1"

[[budget]]
timing = "failover"
within = "1ms"
"#;

#[test]
fn a_wrong_setting_says_what_would_be_right() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["lease.tll=4s"],
            "--set lease.tll=4s: found the unknown key `lease.tll`, expected one of the keys of `[lease]`: margin, renewal, ttl; did you mean `lease.ttl`?",
        ),
        (
            &["ttl=4s"],
            "found the unknown key `ttl`, expected one of the keys of a scenario: budget, core, duration, fault, knobs, lease, name, settle, summary, workload, world; did you mean `lease.ttl`?",
        ),
        (&["knobs.scan=1s"], "did you mean `knobs.scan_every`?"),
        (&["lease=4s"], "found the table `lease`, expected one of its keys, such as `lease.ttl`"),
        (&["lease.ttl.s=4"], "found `s` behind `lease.ttl`, expected nothing: that is a value itself"),
        (
            &["lease.ttl=4"],
            "--set lease.ttl=4: found `4`, expected a duration such as `250ms`, `5s` or `2m`; did you mean `4s`?",
        ),
        (&["lease.ttl=0s"], "--set lease.ttl=0s: found `0s`, expected a duration from `1s` to `60s`"),
        (&["lease.ttl=4500ms"], "found `4500ms`, expected whole seconds: the directory grants no others"),
        (
            &["lease.ttl=4s", "lease.margin=2s", "lease.renewal=2s"],
            "found a lease of `4s` with a margin of `2s`, renewed every `2s`, expected `renewal` to be shorter than `ttl` less `margin`",
        ),
        (&["knobs.scan_every=0s"], "--set knobs.scan_every=0s: found `0s`, expected a duration from `50ms` to `60s`"),
        (
            &["knobs.retry_first=3s"],
            "found waits from `3s` to `2s`, expected `retry_first` to be at most `retry_longest`",
        ),
        (&["duration=5s"], "found `12s..14s`, expected a time before the end of the fault phase at `5s`"),
        (&["core.directory=8"], "--set core.directory=8: found the number 8, expected a number of members from 1 to 7"),
        (&["core.directory=three"], "found `three`, expected a number of members from 1 to 7"),
        (
            &["world.region.3.players=1"],
            "expected one of this scenario's: `world.region.0` or `world.region.singapore`",
        ),
        (&["world.region.frankfrut.players=1"], "did you mean `world.region.frankfurt`?"),
        (&["world.region=1"], "expected one of this scenario's"),
        (&["fault.1.at=5s"], "found `fault.1`, expected the number of a `[[fault]]` of the file, from 0"),
        (
            &["fault.0.share=5%"],
            "--set fault.0.share=5%: found the unknown key `share`, expected a key of a fault of kind `crash`: at, kind, node, for, until",
        ),
        (&["budget.failovr.within=5s"], "did you mean `budget.failover`?"),
        (&["name=other"], "found the key `name`, expected a key that changes how a run goes"),
        (&["lease.ttl"], "expected KEY=VALUE, such as `lease.ttl=4s`"),
        (&["=4s"], "expected KEY=VALUE"),
        (&["\u{1b}[31m=4s"], "found the unknown key"),
    ];
    for (settings, expected) in cases {
        for command in ["run", "replay"] {
            let set = settings.iter().flat_map(|setting| ["--set", setting]);
            let ran = worldline(&[command, "worker-crash"].into_iter().chain(set).collect::<Vec<_>>());
            assert_eq!(ran.code, 64, "{settings:?}: {}{}", ran.output, ran.errors);
            assert!(ran.errors.contains(expected), "{settings:?}:\n{}", ran.errors);
            assert!(ran.output.is_empty() && !ran.errors.contains('\u{1b}'), "{settings:?}");
        }
    }
}

#[test]
fn without_a_name_the_whole_catalogue_is_meant() {
    let ran = worldline(&["run", "--set", "world.region.frankfurt.players=ten"]);
    assert_eq!(ran.code, 64, "{}", ran.errors);
    assert!(ran.errors.contains("` cannot be run so\n--set "), "{}", ran.errors);
}

#[test]
fn a_file_that_is_wrong_by_itself_is_a_wrong_file_whatever_is_set() {
    let folder = Folder::new("wrong-file");
    let file = folder.write("small.toml", SMALL.replace("duration = \"6s\"", "").as_bytes());
    let ran = worldline(&["run", &file, "--set", "duration=6s"]);
    assert_eq!(ran.code, 65, "{}", ran.errors);
}

#[test]
fn what_was_set_is_kept_with_a_failure_and_printed_with_its_command() {
    let folder = Folder::new("set");
    let file = folder.write("small.toml", SMALL.as_bytes());
    let set = ["--set", "lease.ttl=2s", "--set", "knobs.scan_every=200ms", "--set", "fault.0.at=2s"];
    let more = ["--set", "world.region.frankfurt.players=3", "--set", "budget.0.within=2ms"];
    let ran = worldline_in(folder.path(), &[&["run", &file, "--seed", "5"][..], &set, &more].concat());
    assert_eq!(ran.code, 2, "{}{}", ran.output, ran.errors);
    assert!(ran.output.contains("its budget is 2ms"), "{}", ran.output);
    assert!(ran.output.contains("  set          lease.ttl=2s\n"), "{}", ran.output);
    let kept = folder.path().join("worldline-failures/small-5.json");
    assert!(fs::read_to_string(&kept).expect("kept").contains("\"knobs.scan_every=200ms\""));
    let again = worldline_in(folder.path(), &["replay", "worldline-failures/small-5.json"]);
    assert!(again.output.contains("The same failure as was kept"), "{}", again.output);
    let otherwise = ["replay", "worldline-failures/small-5.json", "--set", "lease.ttl=3s"];
    let other = worldline_in(folder.path(), &otherwise);
    let hash = |text: &str| text.split("hash ").nth(1).map(|text| text[..16].to_owned());
    assert_ne!(hash(&other.output), hash(&again.output), "{}", other.output);
    assert!(!other.output.contains("as was kept"), "{}", other.output);
}

#[test]
fn the_command_of_a_scenario_of_the_catalogue_names_its_settings() {
    let folder = Folder::new("set-name");
    let set = ["--set", "budget.operation.within=1ms", "--set", "duration=2s", "--set", "settle=2s"];
    let ran = worldline_in(folder.path(), &[&["run", "swing", "--seed", "1"][..], &set].concat());
    assert_eq!(ran.code, 2, "{}", ran.output);
    let expected = "replay swing --seed 1 --set budget.operation.within=1ms --set duration=2s --set settle=2s\n";
    assert!(ran.output.contains(expected), "{}", ran.output);
}
