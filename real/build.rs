//! Puts the revision of the code into the binary: a git commit, `-dirty` behind it where a file had changed, or `unknown`.

use std::{env, path::Path, process::Command};

fn main() {
    let manifest = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&manifest).parent().unwrap_or(Path::new("."));
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // A copy of the sources inside another repository is not that repository's revision.
    let top = git(&["rev-parse", "--show-toplevel"]).and_then(|top| Path::new(&top).canonicalize().ok());
    let own = top.is_some() && top == root.canonicalize().ok();
    let revision = own.then(|| git(&["rev-parse", "--short=12", "HEAD"])).flatten();
    let dirty = || git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changed| !changed.is_empty());
    let revision = revision.map(|commit| if dirty() { format!("{commit}-dirty") } else { commit });
    println!("cargo::rustc-env=WORLDLINE_REVISION={}", revision.unwrap_or_else(|| "unknown".into()));
    // What it is built of: a test that is edited builds nothing else anew.
    for path in ["Cargo.lock", "Cargo.toml", "proto", "system/src", "real/Cargo.toml", "real/src", "real/migrations"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    // Nor does a commit, but of what is delivered: else the revision is the one at which any of these was last built anew.
    let delivered = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if delivered
        && own
        && let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
    {
        println!("cargo::rerun-if-changed={}", root.join(log).display());
    }
}
