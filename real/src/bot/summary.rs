//! What a bot prints at its end.

use super::{
    measure::Histogram,
    player::{Witness, said},
};
use crate::server::Exit;
use serde_json::{Value, json};
use std::fmt;
use worldline_proto::NodeId;

/// Players that are named at most; the rest is counted.
const NAMED_MAX: usize = 10;

/// What became of all players.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    players: usize,
    joined: usize,
    inputs_sent: u64,
    inputs_echoed: u64,
    inputs_overtaken: u64,
    echo: Histogram,
    performed: u64,
    acknowledged: u64,
    conflicts: u64,
    /// Operations that were performed and not acknowledged.
    lost: u64,
    /// Who never played, or has lost something, and why as far as it is known.
    troubled: Vec<(NodeId, String)>,
}

impl Summary {
    /// Of these players.
    #[must_use]
    pub fn of(witnesses: &[Witness]) -> Self {
        let mut summary = Self { players: witnesses.len(), ..Self::default() };
        for witness in witnesses {
            let measure = witness.measure();
            summary.joined += usize::from(measure.joined > 0);
            summary.inputs_sent += measure.inputs_sent;
            summary.inputs_echoed += measure.inputs_echoed;
            summary.inputs_overtaken += measure.inputs_overtaken;
            summary.echo.merge(&measure.echo);
            summary.performed += measure.performed;
            summary.acknowledged += measure.acknowledged;
            summary.conflicts += measure.conflicts;
            summary.lost += measure.unacknowledged();
            let away = match (measure.denied, measure.unreached) {
                (Some(reason), _) => said(reason).to_owned(),
                (None, Some((gateway, Some(reason)))) => format!("no connection to gateway {gateway} ({reason:?})"),
                (None, Some((gateway, None))) => format!("no answer of gateway {gateway}"),
                (None, None) => "no gateway welcomed it".to_owned(),
            };
            if measure.joined == 0 {
                summary.troubled.push((witness.node, format!("never played: {away}")));
            } else if measure.unacknowledged() > 0 {
                let lost = format!("{} operations were not acknowledged", measure.unacknowledged());
                summary.troubled.push((witness.node, lost));
            } else if measure.inputs_sent > 0 && measure.inputs_echoed + measure.inputs_overtaken == 0 {
                let silent = format!("none of its {} inputs was confirmed", measure.inputs_sent);
                summary.troubled.push((witness.node, silent));
            }
        }
        summary
    }

    /// Whether every player played, saw itself move if it moved, and had everything that it did acknowledged.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.troubled.is_empty() { Exit::Done } else { Exit::No }
    }

    /// Inputs that nothing has confirmed, neither their own number nor a later one.
    const fn unconfirmed(&self) -> u64 {
        self.inputs_sent - self.inputs_echoed - self.inputs_overtaken
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let echo = |percent| self.echo.percentile_us(percent);
        json!({
            "players": self.players,
            "joined": self.joined,
            "inputs": {
                "sent": self.inputs_sent,
                "echoed": self.inputs_echoed,
                "overtaken": self.inputs_overtaken,
                "unconfirmed": self.unconfirmed(),
            },
            "echo_us": {
                "samples": self.echo.total(),
                "p50": echo(50),
                "p95": echo(95),
                "p99": echo(99),
                "max": self.echo.max_us(),
            },
            "operations": {
                "performed": self.performed,
                "acknowledged": self.acknowledged,
                "conflicts": self.conflicts,
            },
            "lost": self.lost,
            "troubled": self.troubled.iter().map(|(node, why)| json!({ "node": node.0, "why": why })).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| match self.echo.percentile_us(percent) {
            Some(us) => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
            None => "-".into(),
        };
        writeln!(f, "players      {:>8}   {} played", self.players, self.joined)?;
        let (echoed, overtaken) = (self.inputs_echoed, self.inputs_overtaken);
        let unconfirmed = self.unconfirmed();
        writeln!(
            f,
            "inputs       {:>8}   {echoed} echoed, {overtaken} overtaken, {unconfirmed} unconfirmed",
            self.inputs_sent
        )?;
        writeln!(f, "echo              p50   {}", ms(50))?;
        writeln!(f, "                  p95   {}", ms(95))?;
        let (acknowledged, conflicts) = (self.acknowledged, self.conflicts);
        writeln!(
            f,
            "operations   {:>8}   {acknowledged} acknowledged, {conflicts} of them as conflicts",
            self.performed
        )?;
        writeln!(f, "lost         {:>8}", self.lost)?;
        for (node, why) in self.troubled.iter().take(NAMED_MAX) {
            writeln!(f, "{node}: {why}")?;
        }
        match self.troubled.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}
