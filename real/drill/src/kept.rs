//! Where the folder of a drill that did not hold is kept: in the project under `reports/latest/drills`, a bounded number of
//! them; elsewhere it stays among the temporary files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};
use worldline_scenarios::cli::place::Place;

/// Folders that are kept; the oldest make way.
const KEPT_MAX: usize = 20;

/// Moves a drill's folder to where it is kept; where that is.
///
/// # Errors
/// It cannot be moved: it is where it was.
pub fn keep(folder: &Path, scenario: &str, seed: u64) -> io::Result<PathBuf> {
    match Place::here().drill() {
        Some(result) => keep_in(&result.with_file_name("drills"), folder, &format!("{scenario}-{seed}")),
        None => Ok(folder.to_owned()),
    }
}

fn keep_in(parent: &Path, folder: &Path, name: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(parent)?;
    let target = parent.join(name);
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    // Temporary files are often on another file system.
    if fs::rename(folder, &target).is_err() {
        copy(folder, &target)?;
        fs::remove_dir_all(folder)?;
    }
    make_way(parent, &target)?;
    Ok(target)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

/// Removes the oldest, but not this one.
fn make_way(parent: &Path, newest: &Path) -> io::Result<()> {
    let mut others: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.path() != newest {
            others.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    others.sort();
    let surplus = (others.len() + 1).saturating_sub(KEPT_MAX);
    others.iter().take(surplus).try_for_each(|(_, path)| fs::remove_dir_all(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_kept_whole_in_place_of_the_one_of_the_same_seed_and_the_oldest_make_way() {
        let place = std::env::temp_dir().join(format!("worldline-drill-kept-{}", std::process::id()));
        let (parent, folder) = (place.join("drills"), place.join("drill"));
        let made = |text: &str| {
            fs::create_dir_all(folder.join("logs")).expect("a folder");
            fs::write(folder.join("logs/a.log"), text).expect("writes");
        };
        for text in ["one", "other"] {
            made(text);
            let kept = keep_in(&parent, &folder, "swing-1").expect("keeps");
            assert_eq!(fs::read_to_string(kept.join("logs/a.log")).expect("reads"), text);
            assert!(!folder.exists());
        }
        for seed in 2..30 {
            made("more");
            keep_in(&parent, &folder, &format!("swing-{seed}")).expect("keeps");
        }
        assert_eq!(fs::read_dir(&parent).expect("reads").count(), KEPT_MAX);
        assert!(parent.join("swing-29").exists());
        copy(&parent.join("swing-29"), &place.join("copy")).expect("copies");
        assert_eq!(fs::read_to_string(place.join("copy/logs/a.log")).expect("reads"), "more");
        fs::remove_dir_all(&place).expect("it was made");
    }
}
