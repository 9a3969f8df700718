//! A Valkey (or Redis) of a test's own: on a free port of loopback, keeping nothing, gone with the test.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

const HOW: &str = "WORLDLINE_TEST_VALKEY_BIN is not set: these tests need Valkey 8 or Redis 7. Run them through `ci/test`, or \
                   first `ci/services install valkey && eval \"$(ci/services env)\"`";

/// One server.
pub(super) struct Valkey {
    child: Child,
    pub port: u16,
    arguments: Vec<String>,
}

impl Valkey {
    pub fn start(extra: &[&str]) -> Self {
        let port = free_port();
        let arguments: Vec<String> = extra.iter().map(ToString::to_string).collect();
        Self { child: spawn(port, &arguments), port, arguments }
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
        self.child = spawn(self.port, &self.arguments);
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
    }
}

/// A port that nobody listens on, below those that the kernel gives to connections.
fn free_port() -> u16 {
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(89);
    let next = || u16::try_from(12_000 + first.wrapping_add(DRAWN.fetch_add(1, Ordering::Relaxed)) % 8_000);
    loop {
        let port = next().expect("below 20,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn spawn(port: u16, arguments: &[String]) -> Child {
    let binary = std::env::var_os("WORLDLINE_TEST_VALKEY_BIN").expect(HOW);
    Command::new(binary)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts")
}
