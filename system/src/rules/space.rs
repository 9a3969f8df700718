//! Where things are: whole millimetres on a plane, cut into cells that each have a home region.

/// A place, in millimetres from the middle of the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Eastwards.
    pub x_mm: i64,
    /// Northwards.
    pub y_mm: i64,
}

/// The world reaches so far from its middle in each direction. The movement codec refuses what lies behind it.
pub const WORLD_EDGE_MM: i64 = worldline_proto::movement::WORLD_EDGE_MM;

impl Position {
    /// Whether it lies inside the world, its edge included.
    #[must_use]
    pub const fn in_world(self) -> bool {
        self.x_mm.unsigned_abs() <= WORLD_EDGE_MM as u64 && self.y_mm.unsigned_abs() <= WORLD_EDGE_MM as u64
    }

    /// The distance to another place, in millimetres, rounded up. Both must lie inside the world.
    #[must_use]
    pub fn distance_mm(self, other: Self) -> u64 {
        let (dx, dy) = (self.x_mm.abs_diff(other.x_mm), self.y_mm.abs_diff(other.y_mm));
        let square = u128::from(dx) * u128::from(dx) + u128::from(dy) * u128::from(dy);
        let root = square.isqrt();
        u64::try_from(root + u128::from(root * root < square)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_rounded_up_so_that_no_step_is_free() {
        let at = |x_mm, y_mm| Position { x_mm, y_mm };
        assert_eq!(at(0, 0).distance_mm(at(3, 4)), 5);
        assert_eq!(at(0, 0).distance_mm(at(1, 1)), 2);
        assert_eq!(at(5, -5).distance_mm(at(5, -5)), 0);
        assert_eq!(at(i64::MIN, 0).distance_mm(at(i64::MAX, 0)), u64::MAX, "nothing overflows");
    }

    #[test]
    fn the_edge_belongs_to_the_world_and_what_lies_behind_it_does_not() {
        assert!(Position { x_mm: WORLD_EDGE_MM, y_mm: -WORLD_EDGE_MM }.in_world());
        assert!(!Position { x_mm: WORLD_EDGE_MM + 1, y_mm: 0 }.in_world());
        assert!(!Position { x_mm: 0, y_mm: i64::MIN }.in_world());
    }
}
