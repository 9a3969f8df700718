//! `worldline list`.

use super::{Failed, output::Output};
use crate::catalogue;
use worldline_reports::terminal;

/// Prints the catalogue.
pub fn list(output: &mut Output) -> Result<(), Failed> {
    let mut table = terminal::table(&["scenario", "players", "faults", "simulated", "what threatens"], &[0, 4]);
    for name in catalogue::names() {
        let scenario = catalogue::find(name).expect("the list is where the name comes from")?;
        let (players, faults) = (scenario.players(), scenario.faults.len());
        let simulated = (scenario.duration + scenario.settle).to_string();
        table.add_row([scenario.name, players.to_string(), faults.to_string(), simulated, scenario.summary]);
    }
    output.print(&terminal::lines(&table))?;
    output.flush()?;
    Ok(())
}
