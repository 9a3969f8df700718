//! A Valkey (or Redis) of a test's own: on a free port of loopback, in a temporary folder, gone with the test.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const HOW: &str = "WORLDLINE_TEST_VALKEY_BIN is not set: these tests need Valkey 8 or Redis 7. Run them through `ci/test`, or \
                   first `ci/services install valkey && eval \"$(ci/services env)\"`";

/// One server.
pub(super) struct Valkey {
    child: Child,
    pub port: u16,
    /// It keeps nothing there but what a replica is sent.
    folder: PathBuf,
    arguments: Vec<String>,
}

impl Valkey {
    pub fn start(extra: &[&str]) -> Self {
        let port = worldline_ports::of_this_process().expect("a free port").port();
        let folder = std::env::temp_dir().join(format!("worldline-valkey-{}-{port}", std::process::id()));
        let arguments: Vec<String> = extra.iter().map(ToString::to_string).collect();
        Self { child: spawn(port, &folder, &arguments), port, folder, arguments }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// SIGSTOP.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }

    /// Starts it again, empty, on its port, after it was killed.
    pub fn restart(&mut self) {
        self.child = spawn(self.port, &self.folder, &self.arguments);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it is ours");
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// In an empty folder: it reads what it finds there.
fn spawn(port: u16, folder: &Path, arguments: &[String]) -> Child {
    let binary = std::env::var_os("WORLDLINE_TEST_VALKEY_BIN").expect(HOW);
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).expect("a folder for the server");
    Command::new(binary)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts")
}
