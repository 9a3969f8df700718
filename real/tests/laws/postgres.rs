//! A PostgreSQL of a test's own, that may be stopped and killed: `ci/services` starts it. It ends with the test.

use rustix::process::{Pid, Signal, kill_process};
use std::{fs, path::Path, process::Command};

pub struct Postgres {
    url: String,
    folder: String,
    pid: i32,
}

pub fn services(arguments: &[&str]) -> String {
    let done = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/services")).args(arguments).output();
    let done = done.expect("ci/services runs");
    assert!(done.status.success(), "ci/services {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("it writes text")
}

pub fn value(environment: &str, name: &str) -> String {
    let line = environment.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
    line.unwrap_or_else(|| panic!("no {name} in {environment}")).to_owned()
}

impl Postgres {
    pub fn start() -> Self {
        let environment = services(&["start", "--only", "postgres"]);
        let value = |name| value(&environment, name);
        let pid = value("WORLDLINE_TEST_POSTGRES_PID").parse().expect("a number");
        Self { url: value("WORLDLINE_TEST_POSTGRES"), folder: value("WORLDLINE_TEST_SERVICES"), pid }
    }

    pub fn port(&self) -> u16 {
        let server = self.url.rsplit_once('/').expect("an address with a database").0;
        server.rsplit_once(':').expect("a port").1.parse().expect("a number")
    }

    /// As the machine's failure would end it.
    pub fn kill(&self) {
        self.signal(self.pid, Signal::KILL);
    }

    /// On the same port, with the same data.
    pub fn restart(&mut self) {
        let environment = services(&["start", "--dir", &self.folder, "--only", "postgres"]);
        self.pid = value(&environment, "WORLDLINE_TEST_POSTGRES_PID").parse().expect("a number");
    }

    /// SIGSTOP for the postmaster and for every session.
    pub fn stop(&self) {
        self.signal(self.pid, Signal::STOP);
        self.children().into_iter().for_each(|pid| self.signal(pid, Signal::STOP));
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.children().into_iter().for_each(|pid| self.signal(pid, Signal::CONT));
        self.signal(self.pid, Signal::CONT);
    }

    fn children(&self) -> Vec<i32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    fn signal(&self, pid: i32, signal: Signal) {
        // A session may have ended by itself.
        let _ = kill_process(Pid::from_raw(pid).expect("a process"), signal);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.go_on();
        services(&["stop", "--dir", &self.folder]);
    }
}
