//! Reads a file that should be a scenario: bounded, and with the place of the first byte that is no text.

use super::problem::Problem;
use std::{fs::File, io::Read as _, path::Path};

/// The largest scenario file, in bytes: 1 MiB.
pub const BYTES_MAX: usize = 1024 * 1024;

/// A file that is no text, or cannot be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What is wrong.
    pub problem: Problem,
}

impl Unreadable {
    fn at_start(found: impl Into<String>, expected: &str) -> Self {
        Self { line: 1, column: 1, problem: Problem::new(0..0, found, expected) }
    }

    fn in_bytes(bytes: &[u8], at: usize, found: &str) -> Self {
        let before = &bytes[..at];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let column = String::from_utf8_lossy(&bytes[line_start..at]).chars().count() + 1;
        Self { line, column, problem: Problem::new(0..0, found, "a text in UTF-8") }
    }
}

/// The text of the file at `path`.
pub(super) fn read(path: &Path, expected: &str, bytes_max: usize) -> Result<String, Unreadable> {
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Unreadable::at_start("no such file", expected),
        std::io::ErrorKind::IsADirectory => Unreadable::at_start("a directory", expected),
        _ => Unreadable::at_start(format!("a file that cannot be read ({error})"), expected),
    };
    // Looked at before it is opened: opening a pipe would wait for its other end.
    let kind = std::fs::metadata(path).map_err(unreadable)?;
    if kind.is_dir() {
        return Err(Unreadable::at_start("a directory", expected));
    }
    if !kind.is_file() {
        return Err(Unreadable::at_start("a device, a pipe or a socket", expected));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    text(bytes, expected, bytes_max)
}

/// The text that these bytes are.
fn text(bytes: Vec<u8>, expected: &str, bytes_max: usize) -> Result<String, Unreadable> {
    if bytes.len() > bytes_max {
        let found = format!("more than {bytes_max} bytes");
        return Err(Unreadable::at_start(found, &format!("at most {} MiB", bytes_max >> 20)));
    }
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        let valid = std::str::from_utf8(&bytes[..at]).map_or_else(|error| error.valid_up_to(), |_| at);
        let found = if valid < at { "bytes that are not UTF-8" } else { "a NUL byte" };
        return Err(Unreadable::in_bytes(&bytes, valid, found));
    }
    match String::from_utf8(bytes) {
        Ok(text) if text.trim().is_empty() => Err(Unreadable::at_start("an empty file", expected)),
        Ok(text) => Ok(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            Err(Unreadable::in_bytes(error.as_bytes(), at, "bytes that are not UTF-8"))
        }
    }
}
