//! Walking: prediction at once, reconciliation by the distance between what was predicted and what is so.

use super::{Client, Conduct, Stage, Submission, Timer};
use crate::{
    Turn,
    doors::network,
    rules::{movement::V_MAX_MM_PER_S, space::Position},
    time::Duration,
};
use alloc::collections::VecDeque;
use worldline_proto::movement::{Input, Update};

/// Inputs that wait for authority to take them in; older ones are forgotten.
pub(super) const PREDICTIONS: usize = 64;
/// Below this a difference is left alone, in millimetres.
const TOLERANCE_MM: u64 = 100;
/// How far a bot strays from where it began, in millimetres.
const LEASH_MM: i64 = 8_000;
/// A cheat takes so many steps where one is due.
const CHEAT_STEPS: u32 = 4;

/// A client's movement.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    home: Position,
    position: Position,
    sequence: u32,
    /// The last input that authority has confirmed.
    confirmed: u32,
    conduct: Conduct,
    predicted: VecDeque<(u32, Position)>,
}

impl Walk {
    /// A session begins where authority says. Inputs are numbered anew.
    pub fn begin(&mut self, x_mm: i64, y_mm: i64, conduct: Conduct) {
        let position = Position { x_mm, y_mm };
        let home = if self.home == Position::default() { position } else { self.home };
        *self = Self { home, position, conduct, ..Self::default() };
    }

    pub fn predictions(&self) -> usize {
        self.predicted.len()
    }

    /// Takes in authoritative state. Returns whether it tells of an input that was not confirmed before.
    ///
    /// A difference up to a tolerance is left to smoothing; above it the bot stands where authority says and what it has
    /// predicted since is void.
    pub fn reconcile(&mut self, update: &Update) -> bool {
        if update.sequence > self.sequence {
            // Of an earlier session under the same epoch.
            return false;
        }
        let position = Position { x_mm: update.x_mm, y_mm: update.y_mm };
        let predicted = self.predicted.iter().find(|(sequence, _)| *sequence == update.sequence).map(|(_, p)| *p);
        // Old news of an input whose prediction is settled says nothing about the steps since.
        let compared = predicted.or(self.predicted.is_empty().then_some(self.position));
        if compared.is_some_and(|mine| mine.distance_mm(position) > TOLERANCE_MM) && update.sequence > 0 {
            self.position = position;
            self.predicted.clear();
        }
        while self.predicted.front().is_some_and(|(sequence, _)| *sequence <= update.sequence) {
            self.predicted.pop_front();
        }
        let news = update.sequence > self.confirmed;
        self.confirmed = self.confirmed.max(update.sequence);
        news
    }

    /// The next step: at most what the speed limit allows for `span`, back towards home at the end of the leash.
    fn step(&mut self, span: Duration, draw: (u64, u64)) -> Input {
        // A third of the limit for an honest walk: jitter on the way must not make it look fast.
        let reach = V_MAX_MM_PER_S * span.as_millis() / 1_000;
        let reach = if self.conduct == Conduct::SpeedHack { reach } else { reach / 3 };
        let reach = i64::try_from(reach).unwrap_or(i64::MAX).max(1);
        let along = |at: i64, home: i64, draw: u64| {
            let outwards = draw & 1 == 0;
            let step = if self.conduct == Conduct::SpeedHack { reach * 7 / 10 } else { reach / 2 };
            match at - home {
                d if d > LEASH_MM => at - step,
                d if d < -LEASH_MM => at + step,
                _ if outwards => at + step,
                _ => at - step,
            }
        };
        self.position = Position {
            x_mm: along(self.position.x_mm, self.home.x_mm, draw.0),
            y_mm: along(self.position.y_mm, self.home.y_mm, draw.1),
        };
        self.sequence += 1;
        if self.predicted.len() == PREDICTIONS {
            self.predicted.pop_front();
        }
        self.predicted.push_back((self.sequence, self.position));
        Input { sequence: self.sequence, x_mm: self.position.x_mm, y_mm: self.position.y_mm }
    }
}

impl Client {
    /// A step is due.
    pub(super) fn step(&mut self, turn: &mut Turn<'_, Submission>) {
        let Stage::Playing(connection) = self.stage else { return };
        if !self.at_play(turn.now()) {
            return;
        }
        let period = self.config.moves_every;
        turn.arm_in(Timer::Step, period);
        let steps = if self.config.conduct == Conduct::SpeedHack { CHEAT_STEPS } else { 1 };
        // A cheat runs straight out, so that every step counts.
        let straight = (turn.entropy().bits(), turn.entropy().bits());
        for _ in 0..steps {
            let payload = network::Payload::from(&*self.walk.step(period, straight).encode());
            turn.submit(network::Submission::Datagram { connection, payload });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(sequence: u32, x_mm: i64) -> Update {
        Update { entity: 0, epoch: 1, version: 1, sequence, x_mm, y_mm: 0, hit_points: 1 }
    }

    #[test]
    fn a_prediction_that_holds_is_kept_and_one_that_does_not_is_corrected() {
        let mut walk = Walk::default();
        walk.begin(0, 0, Conduct::Honest);
        let inputs: alloc::vec::Vec<Input> = (0..3).map(|_| walk.step(Duration::from_millis(50), (0, 0))).collect();
        let before = walk.position;
        let near = Update { y_mm: inputs[0].y_mm, ..update(1, inputs[0].x_mm + 99) };
        assert!(walk.reconcile(&near), "the first input is confirmed");
        assert!(!walk.reconcile(&near), "once");
        assert_eq!((walk.position, walk.predictions()), (before, 2));
        assert!(walk.reconcile(&update(2, 5_000_000)));
        assert_eq!(walk.position, Position { x_mm: 5_000_000, y_mm: 0 }, "authority wins");
        assert_eq!(walk.predictions(), 0);
    }

    #[test]
    fn a_walk_stays_on_its_leash() {
        let mut walk = Walk::default();
        walk.begin(1_000, 1_000, Conduct::Honest);
        for n in 0..10_000 {
            walk.step(Duration::from_millis(50), (n, n / 3));
            assert!(walk.position.distance_mm(walk.home) <= 2 * LEASH_MM as u64);
        }
        assert_eq!(walk.predictions(), PREDICTIONS);
    }
}
