//! Asks other programs, for a bounded time.

use std::{
    io::Read as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// What an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is read of an answer, in bytes.
const ANSWER_MAX: u64 = 64 * 1024;

/// Standard output of a program that succeeds within [`PATIENCE`].
pub fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    // A look at the toolchain must not install one.
    command.args(arguments).env("RUSTUP_AUTO_INSTALL", "0");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.take(ANSWER_MAX).read_to_end(&mut text);
        // Who waits no longer does not miss it.
        let _ = sender.send(read.map(|_| text));
    });
    let read = receiver.recv_timeout(PATIENCE);
    if read.is_err() {
        // One that is gone already needs no signal.
        let _ = child.kill();
    }
    let succeeded = child.wait().is_ok_and(|status| status.success());
    let text = read.ok()?.ok().filter(|_| succeeded)?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// The first line of what a program says.
pub fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let text = ask(program, arguments)?;
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

/// Where a program is, as a shell would find it.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
