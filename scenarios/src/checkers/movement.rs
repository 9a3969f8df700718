//! M1 and M2: how far and where an owner lets a character walk.

use super::{Check, Checker, Facts, Invariant, Setup, breach, table::Table};
use worldline_proto::{EntityId, Epoch};
use worldline_system::{
    doors::ledger::Authority,
    history::{Entry, Note, What},
    rules::{
        movement::{CREDIT_MM, V_MAX_MM_PER_S},
        space::Position,
    },
    time::Instant,
};

/// Levels are kept in billionths of a millimetre: a nanosecond at the limit is a whole number of them.
const SCALE: u128 = 1_000_000_000;

/// Epochs of one entity that are followed at once: its owner, and one or two that do not know yet that they are not.
const EPOCHS_KEPT: usize = 4;

/// What one owner has let one character walk.
#[derive(Clone, Copy, Debug)]
struct Walk {
    epoch: Epoch,
    at: Instant,
    position: Position,
    /// How much of the credit is used, in billionths of a millimetre.
    used: u128,
}

/// M1. A leaky bucket of its own for each entity and epoch, by the owner's clock, over the places where the character was
/// (not over what the owner says that it had come from).
#[derive(Clone, Debug)]
pub struct Speed {
    walks: Table<EntityId, Vec<Walk>>,
    moved: bool,
}

impl Speed {
    fn serve(&mut self, authority: Authority, position: Position, at: Instant) {
        let walks = self.walks.slot(authority.entity);
        // The same owner again, at the same epoch: it had been suspended and goes on.
        walks.retain(|walk| walk.epoch != authority.epoch);
        if walks.len() == EPOCHS_KEPT {
            walks.remove(0);
        }
        walks.push(Walk { epoch: authority.epoch, at, position, used: 0 });
    }

    fn walk(&mut self, authority: Authority, to: Position, at: Instant) -> Check {
        let Authority { entity, epoch, .. } = authority;
        let walks = self.walks.slot(entity);
        let Some(walk) = walks.iter_mut().rev().find(|walk| walk.epoch == epoch) else {
            breach!("{entity} was moved at epoch {epoch}, at which nobody serves it");
        };
        let leaked = u128::from(at.since(walk.at).as_nanos()) * u128::from(V_MAX_MM_PER_S);
        let distance_mm = walk.position.distance_mm(to);
        let used = walk.used.saturating_sub(leaked) + u128::from(distance_mm) * SCALE;
        if used > u128::from(CREDIT_MM) * SCALE {
            breach!(
                "{entity} moved {distance_mm} mm, which takes it {} mm beyond {V_MAX_MM_PER_S} mm/s; the credit is {CREDIT_MM} mm",
                used / SCALE
            );
        }
        *walk = Walk { epoch, at, position: to, used };
        Ok(())
    }
}

impl Checker for Speed {
    const INVARIANT: Invariant = Invariant::M1;

    fn new(_: &Setup) -> Self {
        Self { walks: Table::default(), moved: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Noted(Note::Serving { authority, position, .. }) => {
                self.serve(*authority, *position, entry.local);
                Ok(())
            }
            What::Noted(Note::Moved { authority, to, .. }) => {
                self.moved = true;
                self.walk(*authority, *to, entry.local)
            }
            _ => Ok(()),
        }
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.moved).then_some("nobody moved")
    }
}

/// M2. Positions are whole millimetres, so they are finite; they must also be places.
#[derive(Clone, Debug)]
pub struct InsideWorld {
    seen: bool,
}

impl Checker for InsideWorld {
    const INVARIANT: Invariant = Invariant::M2;

    fn new(_: &Setup) -> Self {
        Self { seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        let (authority, position) = match &entry.what {
            What::Noted(Note::Serving { authority, position, .. }) => (authority, position),
            What::Noted(Note::Moved { authority, to, .. }) => (authority, to),
            _ => return Ok(()),
        };
        self.seen = true;
        if !position.in_world() {
            breach!("{} stands at ({}, {}) mm, outside the world", authority.entity, position.x_mm, position.y_mm);
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("nobody said where anything stands")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::*, *};
    use worldline_system::rules::space::WORLD_EDGE_MM;

    /// Steps of `step_mm` every 50 ms; whatever the owner says of `from`.
    fn walk(steps: i64, step_mm: i64, honest: bool) -> Vec<(u64, u32, What)> {
        let own = authority(hero(), 1, 1);
        let mut lines = vec![(0, 1, serving(own, east(0)))];
        for step in 1..=steps {
            let to = east(step * step_mm);
            let from = if honest { east((step - 1) * step_mm) } else { to };
            lines.push((step as u64 * 50, 1, moved(own, 1, step as u32, from, to)));
        }
        lines
    }

    #[test]
    fn m1_the_limit_is_cumulative() {
        let limit_mm = V_MAX_MM_PER_S as i64 / 20;
        assert_eq!(breaks_at::<Speed>(&tell(walk(200, limit_mm, true))), None);
        // 50 mm too far at every step: each alone is well within the credit, and at last they are too many.
        let too_far = (CREDIT_MM as usize - (limit_mm as usize + 50)) / 50 + 2;
        assert_eq!(breaks_at::<Speed>(&tell(walk(200, limit_mm + 50, true))), Some(too_far));
        assert_eq!(breaks_at::<Speed>(&tell(walk(200, limit_mm + 50, false))), Some(too_far), "`from` is not believed");
        let jump = walk(1, CREDIT_MM as i64 + 1, true);
        assert_eq!(breaks_at::<Speed>(&tell(jump)), Some(1), "credit is bounded: nobody saves it up");
    }

    #[test]
    fn m1_each_owner_has_its_own_account() {
        let (old, new) = (authority(hero(), 1, 1), authority(hero(), 2, 2));
        let lines = vec![
            (0, 1, serving(old, east(0))),
            (0, 1, moved(old, 1, 1, east(0), east(3_000))),
            (10, 2, serving(new, east(0))),
            (10, 2, moved(new, 1, 1, east(0), east(3_000))),
            (500, 1, moved(old, 1, 2, east(3_000), east(6_000))),
            (500, 2, moved(new, 1, 2, east(3_000), east(9_000))),
        ];
        assert_eq!(breaks_at::<Speed>(&tell(lines)), Some(5));
        assert_eq!(
            breaks_at::<Speed>(&tell([(0, 1, moved(old, 1, 1, east(0), east(1)))])),
            Some(0),
            "nobody serves it"
        );
    }

    #[test]
    fn m2_nobody_leaves_the_world() {
        let own = authority(hero(), 1, 1);
        let (edge, behind) = (east(WORLD_EDGE_MM), east(WORLD_EDGE_MM + 1));
        let good = [(0, 1, serving(own, edge)), (1, 1, moved(own, 1, 1, edge, edge))];
        assert_eq!(breaks_at::<InsideWorld>(&tell(good.clone())), None);
        assert_eq!(breaks_at::<InsideWorld>(&tell([(0, 1, serving(own, behind))])), Some(0));
        let mut bad = good.to_vec();
        bad.push((2, 1, moved(own, 1, 2, edge, behind)));
        assert_eq!(breaks_at::<InsideWorld>(&tell(bad)), Some(2));
    }
}
