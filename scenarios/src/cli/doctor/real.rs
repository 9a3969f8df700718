//! What drills, the servers and `ci/test` need.

use super::{Line, State, ask, bytes};
use crate::cli::place::Place;
use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::Path,
};

/// What knows where the services are.
const SERVICES: &str = "ci/services";
/// What it calls each binary, the word that installs it, and what that is for.
const BINARIES: [(&str, &str, &str, &str); 5] = [
    ("PostgreSQL 17", "WORLDLINE_TEST_POSTGRES_BIN", "postgres", "the ledger"),
    ("etcd 3.5", "WORLDLINE_TEST_ETCD_BIN", "etcd", "the directory"),
    ("NATS 2.10", "WORLDLINE_TEST_NATS_BIN", "nats", "the bus"),
    ("Valkey 8", "WORLDLINE_TEST_VALKEY_BIN", "valkey", "the cache"),
    ("protoc", "PROTOC", "protoc", "building what speaks to etcd"),
];
/// Free room that builds and drills take, in bytes.
const ROOM_MIN: u64 = 8 << 30;
/// Open files of 300 players and their servers.
const FILES_MIN: u64 = 4_096;
/// Sources of time that are read without a call into the kernel.
const FAST_CLOCKS: [&str; 4] = ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"];

/// All of it.
pub fn lines(here: Place) -> Vec<Line> {
    let mut lines = match here.is_project() && Path::new(SERVICES).is_file() {
        true => services(),
        false => vec![Line::missing(
            "services",
            "not known: this is not the project's folder",
            "drills and servers; ci/services knows them",
            "cd into the project, and again",
        )],
    };
    lines.extend(here.is_project().then(server));
    lines.extend([python(), room(), ports(), files(), clock()]);
    lines
}

/// `export NAME=VALUE` as the shell quotes it with `%q`: a backslash before what is not plain.
fn exports(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
        let mut plain = String::new();
        let mut characters = value.trim_matches('\'').chars();
        while let Some(c) = characters.next() {
            plain.extend(if c == '\\' { characters.next() } else { Some(c) });
        }
        Some((name.to_owned(), plain))
    };
    text.lines().filter_map(line).collect()
}

fn services() -> Vec<Line> {
    let Some(text) = ask::ask("bash", &[SERVICES, "env"]) else {
        return vec![Line::missing(
            "services",
            "`ci/services env` says nothing",
            "drills",
            "bash ci/services env    (says why)",
        )];
    };
    let found = exports(&text);
    let binary = |(what, variable, word, purpose): &(&str, &str, &str, &'static str)| match found.get(*variable) {
        Some(path) => Line::ok(what, nearby(path)),
        None => Line::missing(what, "nowhere that ci/services looks", purpose, format!("ci/services install {word}")),
    };
    let mut lines: Vec<Line> = BINARIES.iter().map(binary).collect();
    let lacking = lines.iter().any(|line| line.state == State::Missing);
    lines.push(installers(lacking));
    if let Some(status) = ask::ask("bash", &[SERVICES, "status"]) {
        let running = status.lines().filter(|line| line.contains(" runs, pid ")).count();
        lines.push(Line::ok("running now", format!("{running} services of this checkout")));
    }
    lines
}

/// A path as it is seen from here.
fn nearby(path: &str) -> String {
    let here = std::env::current_dir().ok();
    let below = here.and_then(|here| Path::new(path).strip_prefix(here).ok().map(Path::to_path_buf));
    below.map_or_else(|| path.to_owned(), |below| below.display().to_string())
}

/// What `ci/services install` installs with.
fn installers(lacking: bool) -> Line {
    let names = ["npm", "apt-get", "python3"];
    let (there, gone): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| ask::on_path(name).is_some());
    let found = if there.is_empty() { "none of npm, apt-get, python3".into() } else { there.join(", ") };
    match gone.is_empty() || !lacking {
        true => Line::ok("installers", found),
        false => {
            let cure = format!("{}, from your system's packages", gone.join(", "));
            Line::degraded("installers", found, "ci/services install, which says which one it needs", cure)
        }
    }
}

/// The server, as it was built last.
fn server() -> Line {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let built = ["release", "debug"].map(|profile| format!("{target}/{profile}/worldlined"));
    match built.iter().find(|path| Path::new(path).is_file()) {
        Some(path) => Line::ok("worldlined", path),
        None => Line::degraded("worldlined", "not built", "drills, which build it", "cargo build -p worldline-real"),
    }
}

fn python() -> Line {
    let version =
        ask::first_line("python3", &["--version"]).and_then(|line| Some(line.strip_prefix("Python ")?.to_owned()));
    let Some(version) = version else {
        let cure = "apt-get install python3 python3-pip    (or as your system has it)";
        return Line::missing("Python 3", "none", "ci/foreign: clients that are not ours", cure);
    };
    // Asked so, and not by starting it, which takes a second.
    match ask::first_line("python3", &["-c", "import importlib.util as u; print(u.find_spec('pip').name)"]) {
        Some(_) => Line::ok("Python 3", format!("{version}, with pip")),
        None => {
            let cure = "apt-get install python3-pip    (or as your system has it)";
            Line::missing("Python 3", format!("{version}, without pip"), "ci/foreign: clients that are not ours", cure)
        }
    }
}

fn room() -> Line {
    let free = || {
        let text = ask::ask("df", &["-Pk", "."])?;
        text.lines().last()?.split_whitespace().nth(3)?.parse::<u64>().ok()
    };
    match free().map(|kib| kib.saturating_mul(1024)) {
        None => Line::ok("disk", "not told by this system"),
        Some(free) if free < ROOM_MIN => {
            Line::degraded("disk", format!("{} free here", bytes(free)), "builds and drills: 8 GiB", "cargo clean")
        }
        Some(free) => Line::ok("disk", format!("{} free here", bytes(free))),
    }
}

/// Roles and services listen on free ports of the loopback.
fn ports() -> Line {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    match (tcp, udp) {
        (Ok(_), Ok(_)) => Line::ok("ports", "TCP and UDP on 127.0.0.1"),
        (Err(error), _) => {
            Line::missing("ports", format!("no TCP on 127.0.0.1: {error}"), "every service", "ip link set lo up")
        }
        (_, Err(error)) => Line::missing("ports", format!("no UDP on 127.0.0.1: {error}"), "QUIC", "ip link set lo up"),
    }
}

fn files() -> Line {
    let limit = || {
        let text = fs::read_to_string("/proc/self/limits").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let soft = line.split_whitespace().next()?;
        Some(if soft == "unlimited" { u64::MAX } else { soft.parse().ok()? })
    };
    match limit() {
        None => Line::ok("open files", "not told by this system"),
        Some(limit) if limit < FILES_MIN => {
            let cure = format!("ulimit -n {FILES_MIN}");
            Line::degraded("open files", format!("at most {limit}"), "300 players: some thousand sockets", cure)
        }
        Some(u64::MAX) => Line::ok("open files", "as many as you like"),
        Some(limit) => Line::ok("open files", format!("at most {limit}")),
    }
}

fn clock() -> Line {
    let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    match source.as_deref().map(str::trim) {
        Err(_) => Line::ok("clock", "not told by this system"),
        Ok(name) if FAST_CLOCKS.contains(&name) => Line::ok("clock", name),
        Ok(name) => {
            let found = format!("{name}: each look is a call into the kernel");
            let cure = "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource";
            Line::degraded("clock", found, "timings on real processes; benchmarks", cure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_shell_has_quoted_is_read() {
        let read = exports("export A=/a/b\nexport B=/with\\ blank/x\nnoise\nexport C=''\n");
        let value = |name: &str| read.get(name).map(String::as_str);
        assert_eq!((value("A"), value("B"), value("C")), (Some("/a/b"), Some("/with blank/x"), Some("")));
    }
}
