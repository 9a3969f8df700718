//! Where results go, and how a run is called again.
//!
//! In the project (a folder with `scenarios/catalogue` and `reports`): `reports/latest/`, failures in
//! `reports/latest/failures/`. Elsewhere only failures are kept, in `./worldline-failures/`.

use crate::format::Setting;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use worldline_reports::Failure;

/// The current folder, as far as results are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    project: bool,
}

impl Place {
    /// Looks where this process is.
    pub fn here() -> Self {
        Self { project: Path::new("scenarios/catalogue").is_dir() && Path::new("reports/Cargo.toml").is_file() }
    }

    /// Whether this is the project's folder.
    #[must_use]
    pub const fn is_project(self) -> bool {
        self.project
    }

    /// Where the result of the last suite is kept. `None` outside the project.
    pub fn result(self) -> Option<PathBuf> {
        self.project.then(|| PathBuf::from("reports/latest/result.json"))
    }

    /// Where the result of the last drills is kept. `None` outside the project.
    #[must_use]
    pub fn drill(self) -> Option<PathBuf> {
        self.project.then(|| PathBuf::from("reports/latest/drill.json"))
    }

    fn failures(self) -> PathBuf {
        PathBuf::from(if self.project { "reports/latest/failures" } else { "worldline-failures" })
    }

    /// Keeps a failure; where it is kept.
    pub fn keep(self, failure: &Failure) -> io::Result<PathBuf> {
        let path = self.failures().join(failure.file_name());
        write(&path, &failure.to_json().map_err(io::Error::other)?)?;
        Ok(path)
    }

    /// Forgets what the last suite in the project kept of this scenario: `latest` is what it says. Failures outside the
    /// project are nobody's to delete.
    pub fn forget(self, scenario: &str) {
        let Ok(entries) = fs::read_dir(self.failures()) else { return };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|_| self.project) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let seed = name.strip_prefix(scenario).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".json"));
            if seed.is_some_and(|seed| seed.parse::<u64>().is_ok()) {
                // One that stays is only older than it looks.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// How this program is called from here.
    fn program(self) -> &'static str {
        if self.project { "cargo run --release --" } else { "worldline" }
    }

    /// The command that replays a seed of a scenario of the catalogue.
    pub fn replay_seed(self, name: &str, seed: u64, settings: &[Setting], all: bool) -> String {
        let settings: String = settings.iter().map(|one| format!(" --set {}", quoted(&one.to_string()))).collect();
        format!("{} replay {name} --seed {seed}{settings}{}", self.program(), if all { " --all" } else { "" })
    }

    /// The command that replays a kept failure.
    pub fn replay_file(self, path: &Path) -> String {
        format!("{} replay {}", self.program(), quoted(&path.display().to_string()))
    }
}

/// Writes a file, with its folder.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

/// Whether a file could be written there, as far as can be known before: for whoever would find out only after a long run.
pub fn may_write(path: &Path) -> io::Result<()> {
    if path.exists() {
        return fs::OpenOptions::new().append(true).open(path).map(drop);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::File::create_new(path)?;
    fs::remove_file(path)
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_blanks_and_quotes_stays_one_word() {
        assert_eq!(quoted("a/b-1.json"), "a/b-1.json");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
    }
}
