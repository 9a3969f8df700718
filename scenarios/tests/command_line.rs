//! What an engineer does with `worldline`, through the built binary.

mod tool;

use std::fs;
use tool::{Folder, worldline, worldline_in};

/// A small world that holds.
const SMALL: &str = r#"name = "small"
summary = "A small world in which a worker dies."
duration = "20s"
settle = "10s"
[[world.region]]
name = "frankfurt"
workers = 2
gateways = 1
players = 3
[[world.boss]]
name = "boss-1"
region = "frankfurt"
hit_points = 1000000
purse = 1000
[lease]
ttl = "3s"
margin = "1s"
renewal = "500ms"
[workload]
attack_every = "2s"
target = "boss-1"
[[fault]]
at = "8s..9s"
kind = "crash"
node = "owner-of:boss-1"
[[budget]]
timing = "failover"
within = "15s"
"#;

/// The same world with a budget that nothing can keep.
fn hopeless() -> String {
    SMALL.replace("\"15s\"", "\"1ms\"").replace("\"small\"", "\"hopeless\"")
}

/// The hash that a command printed.
fn hash(output: &str) -> &str {
    let line = output.lines().find_map(|line| line.trim().strip_prefix("hash ")).expect("a hash is printed");
    line.split_whitespace().next().expect("a hash")
}

#[test]
fn the_catalogue_is_listed_with_what_threatens() {
    let ran = worldline(&["list"]);
    assert_eq!((ran.code, ran.errors.as_str()), (0, ""));
    let names: Vec<_> = ran.output.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, worldline_scenarios::catalogue::names().collect::<Vec<_>>());
    for name in ["swing", "worker-crash", "region-loss"] {
        assert!(names.contains(&name), "{name}");
    }
}

#[test]
fn help_says_the_exit_codes_and_ends_with_0() {
    let ran = worldline(&["--help"]);
    assert_eq!(ran.code, 0);
    assert!(ran.output.contains("64 wrong usage"), "{}", ran.output);
}

#[test]
fn a_run_prints_a_table_with_timings_beside_their_budgets() {
    let folder = Folder::new("table");
    let file = folder.write("small.toml", SMALL.as_bytes());
    let ran = worldline_in(folder.path(), &["run", &file, "--seeds", "2", "--jobs", "2"]);
    assert_eq!(ran.code, 0, "{}{}", ran.output, ran.errors);
    let row = ran.output.lines().find(|line| line.starts_with("small ")).expect("a row for the scenario");
    assert!(row.contains("held") && row.contains("failover") && row.ends_with("< 15.0 s"), "{row}");
    assert!(!ran.output.contains('\u{1b}'), "no colour in a pipe");
    assert_eq!(ran.errors, "[3/3] small: held\n", "plain lines in a pipe, the first seed run twice");
    assert!(!folder.path().join("worldline-failures").exists(), "nothing is kept of what held");
}

#[test]
fn a_seed_has_one_hash_whatever_runs_beside_it() {
    let folder = Folder::new("jobs");
    let file = folder.write("small.toml", SMALL.as_bytes());
    let replayed = worldline_in(folder.path(), &["replay", &file, "--seed", "3"]);
    assert_eq!(replayed.code, 0, "{}", replayed.output);
    assert!(replayed.output.contains("the same in two runs"), "{}", replayed.output);
    let traced = worldline_in(folder.path(), &["replay", &file, "--seed", "3", "--events", "--node", "ledger:0"]);
    assert_eq!(hash(&traced.output), hash(&replayed.output), "looking at the events changes nothing");
    let other = worldline_in(folder.path(), &["replay", &file, "--seed", "4"]);
    assert_ne!(hash(&other.output), hash(&replayed.output));
    // In a suite every run fails its budget, so that each is kept with its hash.
    let file = folder.write("hopeless.toml", hopeless().as_bytes());
    let mut kept: Vec<Vec<String>> = Vec::new();
    for jobs in ["1", "2"] {
        let ran = worldline_in(folder.path(), &["run", &file, "--seeds", "3", "--jobs", jobs]);
        assert_eq!(ran.code, 2, "{}", ran.output);
        let failure = |seed: u64| folder.path().join(format!("worldline-failures/hopeless-{seed}.json"));
        kept.push((1..=3).map(|seed| fs::read_to_string(failure(seed)).expect("kept")).collect());
    }
    assert_eq!(kept[0], kept[1]);
}

#[test]
fn a_failure_is_kept_and_its_printed_command_replays_it() {
    let folder = Folder::new("kept");
    let file = folder.write("hopeless.toml", hopeless().as_bytes());
    let ran = worldline_in(folder.path(), &["run", &file, "--seed", "5", "--junit", "out.xml"]);
    assert_eq!(ran.code, 2, "{}", ran.output);
    let command = ran.output.lines().find_map(|line| line.trim().strip_prefix("replay ")).expect("one command");
    let arguments: Vec<_> = command.trim().strip_prefix("worldline ").expect("a command").split(' ').collect();
    assert_eq!(arguments, ["replay", "worldline-failures/hopeless-5.json"]);
    fs::remove_file(&file).expect("the failure carries its scenario");
    let again = worldline_in(folder.path(), &arguments);
    assert_eq!(again.code, 2, "{}", again.output);
    assert!(again.output.contains("The same failure as was kept"), "{}", again.output);
    assert_eq!(hash(&again.output), hash(&ran.output));
    let junit = fs::read_to_string(folder.path().join("out.xml")).expect("written");
    assert!(junit.contains(r#"<testcase name="seed 5""#) && junit.contains("failover"), "{junit}");
}

#[test]
fn a_changed_failure_is_seen() {
    let folder = Folder::new("changed");
    let file = folder.write("hopeless.toml", hopeless().as_bytes());
    worldline_in(folder.path(), &["run", &file, "--seed", "5"]);
    let kept = folder.path().join("worldline-failures/hopeless-5.json");
    let text = fs::read_to_string(&kept).expect("kept").replace("\"what\": \"failover\"", "\"what\": \"O1\"");
    let changed = folder.write("changed.json", text.as_bytes());
    let again = worldline_in(folder.path(), &["replay", &changed]);
    assert!(again.output.contains("Not the failure that was kept"), "{}", again.output);
}

#[test]
fn events_name_their_cause_and_can_be_narrowed_down() {
    let folder = Folder::new("events");
    let file = folder.write("small.toml", SMALL.as_bytes());
    let replay = |more: &[&str]| {
        let ran = worldline_in(folder.path(), &[&["replay", &file, "--until", "9.5s", "--events"], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.errors);
        ran.output.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    let all = replay(&[]);
    assert!(all.iter().all(|line| line.contains("  caused by ")), "every event names its cause");
    assert!(all.iter().any(|line| line.contains("Crash") && line.ends_with("caused by the scenario")));
    let worker = replay(&["--node", "worker:frankfurt:0"]);
    assert!(!worker.is_empty() && worker.iter().all(|line| line.contains(" worker:frankfurt:0 ")));
    assert!(worker.iter().all(|line| all.contains(line)), "the same events, only fewer");
    let boss = replay(&["--entity", "boss-1"]);
    assert!(!boss.is_empty() && boss.len() < all.len());
}

#[test]
fn a_revision_chooses_the_seeds_and_shards_share_them() {
    let folder = Folder::new("revision");
    let file = folder.write("hopeless.toml", hopeless().as_bytes());
    let seeds = |arguments: &[&str]| {
        let _ = fs::remove_dir_all(folder.path().join("worldline-failures"));
        let ran = worldline_in(folder.path(), &[&["run", &file], arguments].concat());
        assert_eq!(ran.code, 2, "{}", ran.output);
        let kept = fs::read_dir(folder.path().join("worldline-failures")).expect("kept");
        let mut names: Vec<_> = kept.map(|entry| entry.expect("readable").file_name()).collect();
        names.sort();
        names
    };
    let one = seeds(&["--seeds", "3", "--seed-from", "abc123"]);
    assert_eq!(one.len(), 3);
    assert_ne!(one, seeds(&["--seeds", "3", "--seed-from", "abc124"]));
    let shards = ["1/2", "2/2"].map(|shard| seeds(&["--seeds", "3", "--seed-from", "abc123", "--shard", shard]));
    let mut together = shards.concat();
    together.sort();
    assert_eq!(together, one);
}

#[test]
fn a_fault_that_never_finds_its_node_is_said() {
    let folder = Folder::new("nobody");
    // The other worker is dead by then too, so nobody owns the boss.
    let second =
        "[[fault]]\nat = \"1s\"\nkind = \"crash\"\nnode = [\"worker:frankfurt:0\", \"worker:frankfurt:1\"]\n[[budget]]";
    let file =
        folder.write("nobody.toml", SMALL.replace("[[budget]]", second).replace("\"small\"", "\"nobody\"").as_bytes());
    let ran = worldline_in(folder.path(), &["run", &file, "--seed", "1"]);
    assert_eq!(ran.code, 2, "{}", ran.output);
    assert!(ran.output.contains("fault 1 of the file found no node to happen at"), "{}", ran.output);
}
