//! The scenarios that come with the binary, so that it runs from anywhere.

use crate::format::{self, Problems, Scenario};

/// File names and texts, in the order of `worldline list`.
pub const FILES: &[(&str, &str)] = &[("swing", include_str!("../catalogue/swing.toml"))];

/// The names of all of them.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The scenario of this name. `None` if there is none.
///
/// # Errors
/// What is wrong with the file: nothing, in a build whose tests have passed.
pub fn find(name: &str) -> Option<Result<Scenario, Problems>> {
    let (name, text) = FILES.iter().find(|(known, _)| *known == name)?;
    Some(format::parse(&format!("catalogue/{name}.toml"), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_reads_and_is_called_as_its_scenario() {
        for name in names() {
            match find(name) {
                Some(Ok(scenario)) => assert_eq!(scenario.name, name),
                Some(Err(problems)) => panic!("{problems}"),
                None => panic!("{name} is in the list"),
            }
        }
    }
}
