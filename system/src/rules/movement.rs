//! Movement: a cumulative speed limit over whatever a client claims.
//!
//! A walker earns credit at [`V_MAX_MM_PER_S`] up to [`CREDIT_MM`] and pays for every millimetre, rounded up. So over any
//! span the accepted displacement is at most `v_max * span + credit`, however many packets it came in: a leaky bucket
//! (ITU-T I.371). A limit on each packet alone would let a flood of small steps add up to any speed.

use super::space::Position;
use crate::time::Instant;

/// The fastest walk, in millimetres a second.
pub const V_MAX_MM_PER_S: u64 = 7_000;
/// What a walker may save up, in millimetres: about half a second of jitter on its last mile.
pub const CREDIT_MM: u64 = 3_500;

/// Credit is kept in billionths of a millimetre, so that every nanosecond counts and nothing is rounded.
const SCALE: u64 = 1_000_000_000;

/// Why a movement is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveRefusal {
    /// The place lies outside the world.
    OutsideWorld,
    /// It is farther than the walker's credit.
    TooFast,
}

/// A walker's credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpeedBudget {
    credit: u64,
    earned_until: Instant,
}

impl SpeedBudget {
    /// Full credit at `now`.
    #[must_use]
    pub const fn full(now: Instant) -> Self {
        Self { credit: CREDIT_MM * SCALE, earned_until: now }
    }

    /// Pays for a movement, or refuses it and charges nothing.
    ///
    /// # Errors
    /// [`MoveRefusal`] says which rule the movement breaks.
    pub fn pay(&mut self, from: Position, to: Position, now: Instant) -> Result<(), MoveRefusal> {
        if !to.in_world() {
            return Err(MoveRefusal::OutsideWorld);
        }
        let earned = now.since(self.earned_until).as_nanos().saturating_mul(V_MAX_MM_PER_S);
        let credit = self.credit.saturating_add(earned).min(CREDIT_MM * SCALE);
        let price = from.distance_mm(to).saturating_mul(SCALE);
        let left = credit.checked_sub(price).ok_or(MoveRefusal::TooFast)?;
        *self = Self { credit: left, earned_until: now };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn east(x_mm: i64) -> Position {
        Position { x_mm, y_mm: 0 }
    }

    #[test]
    fn a_steady_walk_at_the_limit_is_never_refused() {
        let mut now = Instant::from_nanos(0);
        let mut budget = SpeedBudget::full(now);
        for step in 0..1_000 {
            now = now + Duration::from_millis(50);
            assert_eq!(budget.pay(east(step * 350), east((step + 1) * 350), now), Ok(()), "step {step}");
        }
    }

    #[test]
    fn a_flood_of_small_steps_gets_no_farther_than_the_limit() {
        let mut now = Instant::from_nanos(0);
        let mut budget = SpeedBudget::full(now);
        let mut x = 0;
        for _ in 0..1_000 {
            now = now + Duration::from_millis(1);
            if budget.pay(east(x), east(x + 350), now).is_ok() {
                x += 350;
            }
        }
        assert!(x <= 7_000 + 3_500, "one second at the limit and the credit, not {x} mm");
        assert!(x > 10_000, "an honest share of it is accepted");
    }

    #[test]
    fn a_refused_step_costs_nothing_and_the_edge_of_the_world_holds() {
        let now = Instant::from_nanos(0);
        let mut budget = SpeedBudget::full(now);
        assert_eq!(budget.pay(east(0), east(1_000_000), now), Err(MoveRefusal::TooFast));
        assert_eq!(budget.pay(east(0), east(3_500), now), Ok(()));
        assert_eq!(budget.pay(east(0), east(i64::MAX), now), Err(MoveRefusal::OutsideWorld));
    }
}
