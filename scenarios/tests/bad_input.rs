//! Whatever is wrong with a scenario file is said with file, line, column, what was found, what was expected, and the nearest
//! valid word where one exists; the exit code is 65, and nothing panics.

mod cases;
mod tool;

use cases::{CASES, GOOD};
use tool::{Folder, worldline};

#[test]
fn every_wrong_line_is_named_with_its_place() {
    let folder = Folder::new("bad-input");
    for (line, text, expected) in CASES {
        let mut lines: Vec<&str> = GOOD.lines().collect();
        lines[line - 1] = text;
        let file = folder.write("wrong.toml", (lines.join("\n") + "\n").as_bytes());
        let ran = worldline(&["run", &file]);
        let said: Vec<&str> = ran.errors.lines().filter_map(|line| line.strip_prefix(&format!("{file}:"))).collect();
        assert_eq!(said, *expected, "{text}\n{}", ran.errors);
        assert_eq!(ran.code, 65, "{text}");
        assert_eq!(ran.output, "", "{text}");
    }
}

#[test]
fn a_world_without_players_is_refused_with_the_range() {
    let folder = Folder::new("no-players");
    let file = folder.write("empty-world.toml", GOOD.replace("players = 4", "players = 0").as_bytes());
    let ran = worldline(&["run", &file]);
    let expected = format!("{file}:14:11: found 0 players, expected from 1 to 10000 players in all regions together");
    assert_eq!((ran.errors.lines().next(), ran.code), (Some(expected.as_str()), 65));
}

#[test]
fn the_wrong_line_is_shown_with_a_mark_under_what_is_wrong() {
    let folder = Folder::new("mark");
    let file = folder.write("wrong.toml", GOOD.replace("\"40s\"", "\"40sec\"").as_bytes());
    let ran = worldline(&["run", &file]);
    let shown: Vec<_> = ran.errors.lines().skip(1).collect();
    assert_eq!(shown, [r#"     3 | duration = "40sec""#, "       |            ^^^^^^^"]);
}

#[test]
fn what_is_no_scenario_file_at_all_is_refused() {
    let folder = Folder::new("no-file");
    let place = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    std::fs::create_dir(place("folder.toml")).expect("a new folder");
    let cases: &[(String, &str)] = &[
        (place("nothing.toml"), "1:1: found no such file, expected a scenario file in TOML"),
        (place("folder.toml"), "1:1: found a directory, expected a scenario file in TOML"),
        (folder.write("empty.toml", b""), "1:1: found an empty file, expected a scenario file in TOML"),
        (folder.write("blank.toml", b" \n\t\n"), "1:1: found an empty file, expected a scenario file in TOML"),
        (
            folder.write("latin1.toml", b"name = \"x\"\nsummary = \"Gr\xfc\xdfe\"\n"),
            "2:14: found bytes that are not UTF-8, expected a text in UTF-8",
        ),
        (folder.write("binary.toml", b"name = \"\0\""), "1:9: found a NUL byte, expected a text in UTF-8"),
        (
            folder.write("huge.toml", &vec![b'#'; 1024 * 1024 + 1]),
            "1:1: found more than 1048576 bytes, expected at most 1 MiB",
        ),
    ];
    for (file, expected) in cases {
        let ran = worldline(&["run", file]);
        assert_eq!((ran.errors.trim_end(), ran.code), (format!("{file}:{expected}").as_str(), 65));
    }
}

#[test]
fn hostile_files_end_with_a_message_and_not_with_a_panic() {
    let folder = Folder::new("hostile");
    let deep = format!("name = {}{}", "[".repeat(50_000), "]".repeat(50_000));
    let wide = "[[fault]]\n".repeat(20_000);
    let dotted = format!("{} = 1", vec!["a"; 20_000].join("."));
    let long = format!("name = \"{}\"", "ü".repeat(300_000));
    for (name, text) in [("deep", deep), ("wide", wide), ("dotted", dotted), ("long", long)] {
        let file = folder.write(&format!("{name}.toml"), text.as_bytes());
        let ran = worldline(&["run", &file]);
        assert_eq!(ran.code, 65, "{name}");
        assert!(ran.errors.starts_with(&format!("{file}:1:")), "{name}");
        assert!(ran.errors.len() < 20_000, "{name}: {} bytes of errors", ran.errors.len());
    }
}

#[test]
fn wrong_usage_is_said_and_ends_with_64() {
    let cases: &[(&[&str], &str)] = &[
        (&["run", "worker-crsh"], "did you mean `worker-crash`?"),
        (&["run", "swing", "swing"], "two scenarios are called `swing`"),
        (&["run", "swing", "--seeds", "0"], "expected a whole number from 1 to 1000000"),
        (&["run", "swing", "--seeds", "many"], "expected a whole number from 1 to 1000000"),
        (&["run", "swing", "--seed", "abc"], "expected a whole number from 0 to 18446744073709551615"),
        (&["run", "swing", "--seed", "-1"], "expected a whole number from 0 to 18446744073709551615"),
        (&["run", "swing", "--seed", "1", "--seeds", "2"], "cannot be used with"),
        (&["run", "swing", "--shard", "4/3"], "expected PART/OF with 1 <= PART <= OF"),
        (
            &["run", "swing", "--seeds", "1", "--shard", "2/3"],
            "found 3 parts of 1 runs, expected at most as many parts as runs",
        ),
        (&["run", "swing", "--jobs", "0"], "1..=256"),
        (&["run", "swing", "--sedes", "3"], "'--seeds'"),
        (&["rnu", "swing"], "unrecognized subcommand 'rnu'"),
        (&["replay", "swing", "--until", "5sec"], "did you mean `5s`?"),
        (&["replay", "swing", "--events", "--entity", "dragon-1"], "names no entity"),
        (&["replay", "swing", "--events", "--node", "worker:frankfrut:0"], "did you mean `worker:frankfurt:0`?"),
        (&["replay", "swing", "--node", "core"], "--events"),
        (
            &["run", "swing", "--set", "lease.ttl=4s", "--set", "lease.ttl=5s"],
            "`lease.ttl` is set twice, expected one value",
        ),
    ];
    for (arguments, expected) in cases {
        let ran = worldline(arguments);
        assert_eq!(ran.code, 64, "{arguments:?}: {}", ran.errors);
        assert!(ran.errors.contains(expected), "{arguments:?}: {}", ran.errors);
        assert_eq!(ran.output, "", "{arguments:?}");
    }
}

#[test]
fn what_is_listed_to_choose_from_is_there() {
    let folder = Folder::new("listed");
    let nobody = GOOD.replace("players = 4", "players = -4").replace("worker:frankfurt:0", "owner-of:boss-9");
    let nothing = nobody.replace("\"boss-1\"", "\"bos-1\"");
    for (text, listed) in [
        (nobody, "found `owner-of:boss-9`, expected an entity of this world: `boss-1`"),
        (nothing, "found `owner-of:boss-9`, expected an entity of this world\n"),
    ] {
        let ran = worldline(&["run", &folder.write("listed.toml", text.as_bytes())]);
        assert_eq!(ran.code, 65, "{}", ran.errors);
        assert!(ran.errors.contains(listed) && !ran.errors.contains("character-1"), "{}", ran.errors);
    }
}

#[test]
fn a_replay_of_what_nothing_names_says_so() {
    let ran = worldline(&["replay", "swing", "--seed", "1", "--until", "3s", "--events", "--entity", "boss-99"]);
    assert!(ran.errors.contains("no event of this run that was asked for names `boss-99`"), "{}", ran.errors);
    let ran = worldline(&["replay", "swing", "--seed", "1", "--until", "3s", "--events", "--entity", "boss-1"]);
    assert!(!ran.errors.contains("no event"), "{}", ran.errors);
}

#[test]
fn a_torn_failure_file_is_refused_with_its_place() {
    let folder = Folder::new("torn");
    let file = folder.write("failure.json", b"{\n  \"format\": 1,\n  \"seed\": \"x\"\n}");
    let ran = worldline(&["replay", &file]);
    assert_eq!(ran.code, 65, "{}", ran.errors);
    assert!(ran.errors.starts_with(&format!("{file}:3:13: found invalid type: string \"x\"")), "{}", ran.errors);
}

#[test]
fn a_result_that_cannot_be_written_is_said_before_anything_runs() {
    for flag in ["--result", "--junit"] {
        let ran = worldline(&["run", "swing", "--seeds", "2", flag, "/"]);
        assert_eq!((ran.code, ran.output.as_str()), (74, ""), "{}", ran.errors);
        assert!(ran.errors.contains("cannot write `/`"), "{}", ran.errors);
    }
}
