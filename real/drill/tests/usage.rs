//! What `drill` says of wrong usage, wrong files and missing services, and how it ends. Nothing real is started.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

struct Ran {
    code: i32,
    output: String,
    errors: String,
}

fn drill(arguments: &[&str]) -> Ran {
    let ran = Command::new(env!("CARGO_BIN_EXE_drill")).args(arguments).stdin(Stdio::null()).output().expect("runs");
    Ran {
        code: ran.status.code().expect("ends by itself"),
        output: String::from_utf8_lossy(&ran.stdout).into_owned(),
        errors: String::from_utf8_lossy(&ran.stderr).into_owned(),
    }
}

/// A folder of this test, and a program in it.
fn program(name: &str, text: &str) -> (PathBuf, PathBuf) {
    let folder = std::env::temp_dir().join(format!("worldline-drill-usage-{name}-{}", std::process::id()));
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(name);
    fs::write(&path, text).expect("writes");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its own file");
    (folder, path)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn wrong_usage_is_said_and_ends_with_64() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "required"),
        (&["worker-crsh"], "did you mean `worker-crash`?"),
        (&["swing", "swing"], "two scenarios are called `swing`"),
        (&["swing", "--repeat", "0"], "1..=1000"),
        (&["swing", "--jobs", "0"], "1..=8"),
        (&["swing", "--seed", "x"], "expected a whole number"),
        (&["swing", "--simulated", "many"], "expected a whole number from 1 to"),
        (&["swing", "--repaet", "3"], "'--repeat'"),
        (&["swing", "--worldlined", "/nowhere/worldlined"], "say where it is with `--worldlined`"),
        (&["swing", "--worldlined", "/bin/true", "--services", "/nowhere"], "say where it is with `--services`"),
    ];
    for (arguments, expected) in cases {
        let ran = drill(arguments);
        assert_eq!(ran.code, 64, "{arguments:?}: {}", ran.errors);
        assert!(ran.errors.contains(expected), "{arguments:?}: {}", ran.errors);
        assert_eq!(ran.output, "", "{arguments:?}");
    }
}

#[test]
fn a_wrong_file_is_refused_with_its_place_before_anything_is_started() {
    let (folder, file) = program("wrong.toml", "name = \"wrong\"\ndurration = \"5s\"\n");
    let ran = drill(&[text(&file)]);
    assert_eq!(ran.code, 65, "{}", ran.errors);
    assert!(ran.errors.contains("wrong.toml:2:1") && ran.errors.contains("did you mean `duration`?"), "{}", ran.errors);
    fs::remove_dir_all(folder).expect("removes");
}

#[test]
fn what_can_be_drilled_is_listed_with_what_cannot_be_provoked() {
    let ran = drill(&["--list"]);
    assert_eq!((ran.code, ran.errors.as_str()), (0, ""));
    let after = |name: &str| {
        let mut lines = ran.output.lines().skip_while(|line| !line.starts_with(name));
        lines.nth(1).unwrap_or_default().to_owned()
    };
    assert!(after("zombie-outbox ").contains("skipped fault 1: a stop between outbox and socket"), "{}", ran.output);
    assert!(!after("worker-crash ").contains("skipped"), "{}", ran.output);
}

#[test]
fn services_that_do_not_start_are_told_in_their_own_words_and_are_stopped() {
    let script = "#!/bin/sh\necho \"$1\" >> \"$(dirname \"$0\")/asked\"\n[ \"$1\" = stop ] || { echo 'no etcd for this machine' >&2; exit 1; }\n";
    let (folder, services) = program("services", script);
    let ran = drill(&["swing", "--worldlined", "/bin/true", "--services", text(&services)]);
    assert_eq!(ran.code, 69, "{}", ran.errors);
    assert!(ran.errors.contains("no etcd for this machine"), "{}", ran.errors);
    assert_eq!(fs::read_to_string(folder.join("asked")).expect("it was asked"), "start\nstop\n");
    fs::remove_dir_all(folder).expect("removes");
    // What a failed drill leaves behind is named; here it is of no use.
    let left = ran.errors.lines().find_map(|line| line.split_once("what it left behind is in ")).expect("a folder");
    fs::remove_dir_all(left.1).expect("it is there");
}

#[test]
fn services_that_print_something_else_are_told_so() {
    let (folder, services) = program("strange", "#!/bin/sh\necho 'export SOMETHING=else'\n");
    let ran = drill(&["swing", "--worldlined", "/bin/true", "--services", text(&services)]);
    assert_eq!(ran.code, 69, "{}", ran.errors);
    assert!(ran.errors.contains("it printed no WORLDLINE_TEST_SERVERS"), "{}", ran.errors);
    fs::remove_dir_all(folder).expect("removes");
    let left = ran.errors.lines().find_map(|line| line.split_once("what it left behind is in ")).expect("a folder");
    fs::remove_dir_all(left.1).expect("it is there");
}

#[test]
fn a_series_goes_on_behind_a_drill_that_could_not_be_run_and_without_a_reader() {
    let (folder, services) =
        program("absent", "#!/bin/sh\n[ \"$1\" = stop ] || { echo 'no etcd here' >&2; exit 1; }\n");
    let mut series = Command::new(env!("CARGO_BIN_EXE_drill"))
        .args(["swing", "--repeat", "3", "--worldlined", "/bin/true", "--services", text(&services)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(series.stdout.take());
    let ran = series.wait_with_output().expect("ends");
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(69), "{errors}");
    for seed in 1..=3 {
        assert!(errors.contains(&format!("swing seed {seed}: could not be run")), "{errors}");
    }
    for left in errors.lines().filter_map(|line| line.split_once("what it left behind is in ")) {
        fs::remove_dir_all(left.1).expect("it is there");
    }
    fs::remove_dir_all(folder).expect("removes");
}

/// A command whose starts note how many of them are at work, and go on only when one has seen two.
const TWO_AT_ONCE: &str = "#!/bin/sh
here=$(dirname \"$0\")
[ \"$1\" = start ] || exit 0
mkdir \"$here/in.$$\"
tries=0
until grep -q 2 \"$here/seen\" 2>/dev/null || [ $((tries += 1)) -gt 2000 ]; do ls -d \"$here\"/in.* | wc -l >>\"$here/seen\"; sleep 0.01; done
ls -d \"$here\"/in.* | wc -l >>\"$here/seen\"
rmdir \"$here/in.$$\"
echo 'no etcd here' >&2
exit 1
";

#[test]
fn as_many_drills_go_on_at_once_as_are_asked_for() {
    let (folder, services) = program("at-once", TWO_AT_ONCE);
    let arguments = ["swing", "--repeat", "4", "--jobs", "2", "--worldlined", "/bin/true", "--services"];
    let ran = drill(&[&arguments[..], &[text(&services)]].concat());
    assert_eq!(ran.code, 69, "{}", ran.errors);
    let seen = fs::read_to_string(folder.join("seen")).expect("they noted it");
    assert_eq!(seen.lines().map(str::trim).max(), Some("2"), "{seen}");
    for seed in 1..=4 {
        assert!(ran.errors.contains(&format!("swing seed {seed}: could not be run")), "{}", ran.errors);
    }
    assert!(ran.output.contains("4 drills"), "{}", ran.output);
    for left in ran.errors.lines().filter_map(|line| line.split_once("what it left behind is in ")) {
        fs::remove_dir_all(left.1).expect("it is there");
    }
    fs::remove_dir_all(folder).expect("removes");
}
