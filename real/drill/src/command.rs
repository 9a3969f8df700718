//! The command that starts and stops services, at work in one folder.
//!
//! Invariant: what it has begun is stopped when nobody wants it any more, however far it has come.

use crate::processes::Failed;
use rustix::process::{Pid, Signal, kill_process};
use std::{os::unix::process::CommandExt as _, path::PathBuf, pin::Pin, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
};
use worldline_real::clock;

/// How long the command may take to clean up when it is stopped before it has done its work.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The most that the command prints.
const PRINTED_BYTES_MAX: u64 = 1 << 20;

/// The command at work; what it prints. Dropped before its end, it is stopped.
pub type Running = Pin<Box<dyn Future<Output = Result<String, Failed>> + Send>>;

/// A folder in which some services run, and the command that starts and stops what is in it. Dropped, it stops them.
#[derive(Debug)]
pub struct Instance {
    /// The command.
    pub command: PathBuf,
    /// The folder.
    pub folder: PathBuf,
    /// Nothing runs in it any more.
    pub stopped: bool,
}

impl Instance {
    /// Has the command do this in the folder.
    pub fn run(&self, what: &str, arguments: &[String]) -> Running {
        let called = format!("{} {what}", self.command.display());
        let mut command = Command::new(&self.command);
        command.arg(what).arg("--dir").arg(&self.folder).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for the drill, which stops it itself.
        command.process_group(0);
        Box::pin(async move {
            let failed = |why: &str| Failed::Service(format!("{called}: {why}"));
            let said = |error: std::io::Error| failed(&error.to_string());
            let mut asked = Asked(command.spawn().map_err(said)?);
            let (out, errors) = (asked.0.stdout.take(), asked.0.stderr.take());
            let (status, out, errors) = tokio::join!(asked.0.wait(), printed(out), printed(errors));
            if status.map_err(said)?.success() { Ok(out) } else { Err(failed(errors.trim())) }
        })
    }

    /// Stops what runs in the folder, and removes it.
    ///
    /// # Errors
    /// What the command says.
    pub fn stop(&mut self) -> Result<(), Failed> {
        self.stopped = true;
        let Self { command, folder, .. } = self;
        let asked = std::process::Command::new(&*command)
            .arg("stop")
            .arg("--dir")
            .arg(&*folder)
            .stdin(Stdio::null())
            .process_group(0) // Ctrl-C is what it may be called for.
            .output();
        let failed = |why: &str| Err(Failed::Service(format!("{} stop: {why}", command.display())));
        match asked {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => failed(String::from_utf8_lossy(&output.stderr).trim()),
            Err(error) => failed(&error.to_string()),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.stopped
            && let Err(error) = self.stop()
        {
            eprintln!("{error}");
        }
    }
}

/// The command as a process. Dropped before its end it is asked to stop, and cleans up what it has begun.
#[derive(Debug)]
struct Asked(Child);

impl Drop for Asked {
    fn drop(&mut self) {
        let pid = self.0.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let Some(pid) = pid else { return };
        let _ = kill_process(pid, Signal::TERM);
        let begun = clock::now();
        while let Ok(None) = self.0.try_wait() {
            if u128::from(clock::now().since(begun).as_nanos()) >= STOP_PATIENCE.as_nanos() {
                let _ = self.0.start_kill();
                return;
            }
            // This may be the one thread there is: nobody would wake it.
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

/// All that comes out of a pipe.
async fn printed(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What came until it broke is what was printed.
        let _ = pipe.take(PRINTED_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
