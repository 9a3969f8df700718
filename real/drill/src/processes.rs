//! The processes of the roles: each in a group of its own, with its log in a file; signals, and what became of it.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How often a process is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long one question may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// What a player's process ends with that has no answer to something.
const NOT_SERVED: i32 = 1;
/// Lines of a log that a complaint quotes.
const LOG_LINES: usize = 5;

/// Why a drill has no result.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// A service.
    #[error("a service is missing: {0}")]
    Service(String),
    /// A process.
    #[error("{0}")]
    Process(String),
    /// Something of the machine.
    #[error("{what}: {source}")]
    Machine {
        /// What was tried.
        what: String,
        /// Why it could not be.
        source: io::Error,
    },
    /// What was left behind cannot be read.
    #[error("the history cannot be put together: {0}")]
    History(String),
    /// Somebody wanted it to stop.
    #[error("stopped before its end")]
    Interrupted,
}

impl Failed {
    /// What was tried, and why it could not be.
    pub fn machine(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Machine { what: what.into(), source }
    }
}

/// A role's process.
#[derive(Debug)]
pub struct Process {
    /// Its node's name.
    pub name: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    /// Where it tells how it is.
    http: SocketAddr,
    /// It ends by itself when it has done all that it was told.
    may_end: bool,
    child: Option<Child>,
    paused: bool,
}

impl Process {
    /// One that is not started yet.
    #[must_use]
    pub fn new(name: &str, program: &Path, arguments: Vec<String>, log: PathBuf, http: SocketAddr) -> Self {
        let (name, program) = (name.to_owned(), program.to_owned());
        Self { name, program, arguments, log, http, may_end: false, child: None, paused: false }
    }

    /// One that ends by itself when it has done all that it was told.
    #[must_use]
    pub fn that_ends(mut self) -> Self {
        self.may_end = true;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self) -> Result<(), Failed> {
        let failed = || Failed::machine(format!("cannot start {} for {}", self.program.display(), self.name));
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed())?;
        let errors = log.try_clone().map_err(failed())?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            // Settings come from the file alone.
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C is for the drill, which stops its processes itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed())?;
        self.child = Some(child);
        self.paused = false;
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.as_ref()?.id()?).ok()?)
    }

    /// Whether it lives.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.child.is_some()
    }

    /// Whether it lives and is not stopped.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.is_some() && !self.paused
    }

    /// Kills it and waits until it is gone. Whether it was this that ended it.
    ///
    /// # Errors
    /// It had ended before, by itself; what is wrong with that.
    pub async fn kill(&mut self) -> Result<bool, String> {
        if let Some(ended) = self.ended() {
            return ended.map(|()| false);
        }
        let Some(mut child) = self.child.take() else { return Ok(false) };
        // It may end in this very moment: its status tells.
        let _ = child.start_kill();
        match child.wait().await {
            Ok(status) if status.signal() == Some(Signal::KILL.as_raw()) => Ok(true),
            Ok(status) if self.may_end && self.is_fine(status) => Ok(false),
            Ok(status) => Err(self.complaint(&format!("ended by itself with {}", described(status)))),
            Err(_) => Ok(true),
        }
    }

    /// Asks it to stop in order, and does not wait: it may end from now on. Whether there is anybody to ask.
    pub fn ask_to_stop(&mut self) -> bool {
        let asked = self.runs();
        self.may_end |= asked;
        self.send(Signal::TERM);
        asked
    }

    /// Stops or continues it. Whether that changes anything.
    pub fn signal(&mut self, signal: Signal) -> bool {
        let before = self.runs();
        self.send(signal);
        self.runs() != before
    }

    fn send(&mut self, signal: Signal) {
        if let Some(pid) = self.pid() {
            self.paused = (self.paused || signal == Signal::STOP) && signal != Signal::CONT;
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it has ended by itself; what is wrong with that, unless it had nothing more to do.
    pub fn ended(&mut self) -> Option<Result<(), String>> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        let complaint = || self.complaint(&format!("ended by itself with {}", described(status)));
        Some(if self.may_end && self.is_fine(status) { Ok(()) } else { Err(complaint()) })
    }

    /// Whether a process may end so. That a player says of itself that it was not served is for the checkers to judge, who know
    /// whether somebody else had taken its place.
    fn is_fine(&self, status: ExitStatus) -> bool {
        status.success() || self.may_end && status.code() == Some(NOT_SERVED)
    }

    /// Asks it to stop in order, and waits; what was wrong with how it ended.
    pub async fn stop(&mut self, patience: Duration) -> Option<String> {
        self.send(Signal::CONT);
        self.send(Signal::TERM);
        let mut child = self.child.take()?;
        let complaint = match timeout(patience, child.wait()).await {
            Ok(Ok(status)) if self.is_fine(status) => return None,
            Ok(Ok(status)) => format!("was asked to stop and ended with {}", described(status)),
            Ok(Err(error)) => format!("cannot be waited for: {error}"),
            Err(_) => {
                let _ = child.kill().await;
                format!("had not stopped after {} s and was killed", patience.as_secs())
            }
        };
        Some(self.complaint(&complaint))
    }

    /// Something that is wrong with it, with the end of its log.
    #[must_use]
    pub fn complaint(&self, what: &str) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().rev().take(LOG_LINES).collect();
        let lines: String = lines.iter().rev().map(|line| format!("\n    {line}")).collect();
        format!("{} {what}; its log, {}, ends:{lines}", self.name, self.log.display())
    }

    /// Waits until it says that it is ready, or ends, or time runs out.
    ///
    /// # Errors
    /// Why it is not ready.
    pub async fn ready(&mut self, until: Instant) -> Result<(), Failed> {
        let mut last = "it did not answer".to_owned();
        loop {
            if let Some(ended) = self.ended() {
                let what = ended.err().unwrap_or_else(|| format!("{} had nothing to do", self.name));
                return Err(Failed::Process(what));
            }
            match self.get("/ready").await {
                Ok((200, _)) => return Ok(()),
                Ok((_, body)) => last = body.trim().to_owned(),
                Err(_) => {}
            }
            if Instant::now() >= until {
                let complaint = self.complaint(&format!("is not ready: {last}"));
                return Err(Failed::Process(complaint));
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// How often each of its probes was reached in this life. Nothing where it does not answer.
    pub async fn probes(&self) -> Vec<(String, u64)> {
        let Ok((200, body)) = self.get("/health").await else { return Vec::new() };
        let Ok(health) = serde_json::from_str::<serde_json::Value>(&body) else { return Vec::new() };
        let probes = health["probes"].as_object().cloned().unwrap_or_default();
        probes.into_iter().filter_map(|(name, count)| Some((name, count.as_u64()?))).collect()
    }

    /// Status and body of a path of its HTTP server.
    async fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let asked = async {
            let mut stream = TcpStream::connect(self.http).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http);
            stream.write_all(request.as_bytes()).await?;
            let mut bytes = Vec::new();
            stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
            let text = String::from_utf8_lossy(&bytes);
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
            status.map(|status| (status, body.to_owned())).ok_or_else(|| io::ErrorKind::InvalidData.into())
        };
        timeout(ANSWER_PATIENCE, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.send(Signal::KILL);
    }
}

fn described(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("code {code}"),
        None => status.to_string(),
    }
}

/// Sends a signal to a process and to all that descend from it.
pub fn signal_all(pid: i32, signal: Signal) {
    let mut all = vec![pid];
    let parents: Vec<(i32, i32)> = processes().collect();
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        all.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    for pid in all.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Every process and its parent.
fn processes() -> impl Iterator<Item = (i32, i32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name, which may hold anything: the state, then the parent.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some((pid, parent))
    })
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;
