//! An etcd of a test's own: in a temporary folder, on free ports of loopback, gone with the test.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

const HOW: &str = "WORLDLINE_TEST_ETCD_BIN is not set: these tests need etcd 3.5. Run them through `ci/test`, or first \
                   `ci/services install etcd && eval \"$(ci/services env)\"`";

/// One member.
pub(super) struct Etcd {
    child: Child,
    name: String,
    folder: PathBuf,
    port: u16,
    arguments: Vec<String>,
}

impl Etcd {
    /// A directory of one member.
    pub fn start(extra: &[&str]) -> Self {
        Self::cluster(1, extra).pop().expect("one member")
    }

    /// A directory of so many members.
    pub fn cluster(members: usize, extra: &[&str]) -> Vec<Self> {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let parent = std::env::temp_dir().join(format!("worldline-etcd-{}-{number}", std::process::id()));
        let ports = free_ports(members * 2);
        let (clients, peers) = ports.split_at(members);
        let all: Vec<String> =
            peers.iter().enumerate().map(|(n, port)| format!("m{n}=http://127.0.0.1:{port}")).collect();
        (0..members)
            .map(|n| {
                let (client, peer) =
                    (format!("http://127.0.0.1:{}", clients[n]), format!("http://127.0.0.1:{}", peers[n]));
                let of = |flag: &str, value: &str| format!("--{flag}={value}");
                let mut arguments = vec![
                    of("listen-client-urls", &client),
                    of("advertise-client-urls", &client),
                    of("listen-peer-urls", &peer),
                    of("initial-advertise-peer-urls", &peer),
                    of("initial-cluster", &all.join(",")),
                    "--unsafe-no-fsync".to_owned(),
                    "--log-level=error".to_owned(),
                ];
                arguments.extend(extra.iter().map(ToString::to_string));
                let (name, folder) = (format!("m{n}"), parent.join(format!("m{n}")));
                let child = spawn(&name, &folder, &arguments);
                Self { child, name, folder, port: clients[n], arguments }
            })
            .collect()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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

    /// Starts it again, on its data and its ports, after it was killed.
    pub fn restart(&mut self) {
        self.child = spawn(&self.name, &self.folder, &self.arguments);
    }

    /// Forgets its data, while it is killed.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(&self.folder).expect("it is ours");
    }

    /// Keeps a copy of its data, while it is killed.
    pub fn back_up(&self) {
        copy(&self.folder, &self.folder.with_extension("backup"));
    }

    /// Forgets its data for the copy that was kept, while it is killed.
    pub fn restore(&self) {
        self.wipe();
        copy(&self.folder.with_extension("backup"), &self.folder);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it is ours");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
        let _ = std::fs::remove_dir_all(self.folder.with_extension("backup"));
        // The last member takes the folder of all with it.
        let _ = self.folder.parent().map(std::fs::remove_dir);
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp runs");
    assert!(copied.success(), "{} is copied", from.display());
}

/// Ports that are this test's alone, also while its members are dead.
fn free_ports(count: usize) -> Vec<u16> {
    (0..count).map(|_| worldline_ports::of_this_process().expect("a free port").port()).collect()
}

fn spawn(name: &str, folder: &Path, arguments: &[String]) -> Child {
    let binary = std::env::var_os("WORLDLINE_TEST_ETCD_BIN").expect(HOW);
    std::fs::create_dir_all(folder).expect("a folder for etcd");
    Command::new(binary)
        .arg(format!("--name={name}"))
        .arg(format!("--data-dir={}", folder.join("data").display()))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd starts")
}
