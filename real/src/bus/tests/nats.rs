//! A NATS server of a test's own: in a temporary folder, on a free port of loopback, gone with the test.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

const HOW: &str = "WORLDLINE_TEST_NATS_BIN is not set: these tests need NATS 2.10. Run them through `ci/test`, or first \
                   `ci/services install nats && eval \"$(ci/services env)\"`";

/// The server.
pub(super) struct Nats {
    child: Child,
    folder: PathBuf,
    port: u16,
    configuration: String,
}

impl Nats {
    /// With JetStream, and this besides in its configuration.
    pub fn start(more: &str) -> Self {
        Self::without_jetstream(&format!("jetstream {{ store_dir: \"FOLDER/data\" }}\n{more}"))
    }

    /// A cluster of so many, each with JetStream; the first is `s0`.
    pub fn cluster(servers: u32) -> Vec<Self> {
        let ports: Vec<u16> = (0..servers).map(|_| free_port()).collect();
        let routes: Vec<String> = ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let start = |(n, port): (usize, &u16)| {
            Self::start(&format!(
                "server_name: s{n}\ncluster {{ name: test, host: 127.0.0.1, port: {port}, routes: [ {} ] }}",
                routes.join(", ")
            ))
        };
        ports.iter().enumerate().map(start).collect()
    }

    pub fn without_jetstream(more: &str) -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("worldline-nats-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for NATS");
        let port = free_port();
        let more = more.replace("FOLDER", &folder.display().to_string());
        let configuration = format!("host: 127.0.0.1\nport: {port}\n{more}\n");
        let child = spawn(&folder, &configuration);
        Self { child, folder, port, configuration }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// SIGSTOP, and waits until every thread of it stands still.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        while !self.stands_still() {
            std::thread::yield_now();
        }
    }

    fn stands_still(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it lives");
        let stopped = |thread: std::fs::DirEntry| {
            let status = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            status.rsplit(") ").next().is_some_and(|state| state.starts_with('T'))
        };
        threads.flatten().all(stopped)
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

    /// Starts it again, on its data and its port, after it was killed.
    pub fn restart(&mut self) {
        self.child = spawn(&self.folder, &self.configuration);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it is ours");
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A port that is this test's alone, also while its server is dead.
fn free_port() -> u16 {
    worldline_ports::of_this_process().expect("a free port").port()
}

fn spawn(folder: &std::path::Path, configuration: &str) -> Child {
    let binary = std::env::var_os("WORLDLINE_TEST_NATS_BIN").expect(HOW);
    let file = folder.join("conf");
    std::fs::write(&file, configuration).expect("the folder is ours");
    Command::new(binary)
        .arg("-c")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("NATS starts")
}
