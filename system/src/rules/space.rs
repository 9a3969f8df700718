//! Where things are: whole millimetres on a plane, cut into cells that each have a home region.

use crate::doors::directory::RegionId;
use alloc::collections::BTreeMap;
use worldline_proto::EntityId;

/// A place, in millimetres from the middle of the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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

/// The side of a cell, in millimetres: one kilometre. Cells are the unit of home regions.
pub const CELL_MM: i64 = 1_000_000;
/// Columns of cells from the western edge to the eastern one; the edge itself belongs to the last.
const COLUMNS: i64 = 2 * WORLD_EDGE_MM / CELL_MM;

/// A boss as the world's content places it: it never walks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Boss {
    /// Where it stands.
    pub position: Position,
    /// The region that owns it, wherever it stands.
    pub region: RegionId,
}

/// The world's content: which region is home to which cell, and where the bosses stand. The same for every server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    regions: u8,
    bosses: BTreeMap<EntityId, Boss>,
}

impl Map {
    /// A world whose cells are shared out in equal bands, from west to east, among `regions` regions (1..=128).
    ///
    /// Panics on a number of regions outside that range: a band is at least one column of cells.
    #[must_use]
    pub fn new(regions: u8, bosses: BTreeMap<EntityId, Boss>) -> Self {
        assert!((1..=128).contains(&regions), "1 to 128 regions share the world, not {regions}");
        Self { regions, bosses }
    }

    /// The home region of the cell at a place. The place must lie in the world.
    #[must_use]
    pub fn home(&self, position: Position) -> RegionId {
        let column = ((position.x_mm + WORLD_EDGE_MM).div_euclid(CELL_MM)).clamp(0, COLUMNS - 1);
        // The column is below 128 and the quotient below the number of regions.
        RegionId((column * i64::from(self.regions) / COLUMNS) as u8)
    }

    /// How many regions share the world.
    #[must_use]
    pub const fn regions(&self) -> u8 {
        self.regions
    }

    /// The middle of a region's band: a safe place to begin.
    #[must_use]
    pub fn middle(&self, region: RegionId) -> Position {
        let width = 2 * WORLD_EDGE_MM / i64::from(self.regions);
        Position { x_mm: -WORLD_EDGE_MM + width * i64::from(region.0) + width / 2, y_mm: 0 }
    }

    /// A boss of this world.
    #[must_use]
    pub fn boss(&self, entity: EntityId) -> Option<&Boss> {
        self.bosses.get(&entity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_one_home_and_every_region_its_band() {
        for regions in [1, 2, 3, 6, 128] {
            let map = Map::new(regions, BTreeMap::new());
            let mut last = RegionId(0);
            for column in 0..=COLUMNS {
                let x_mm = column * CELL_MM - WORLD_EDGE_MM;
                let home = map.home(Position { x_mm, y_mm: 0 });
                assert!(home == last || home.0 == last.0 + 1, "bands follow each other");
                last = home;
            }
            assert_eq!(last.0, regions - 1, "the eastern edge belongs to the last");
            assert!((0..regions).all(|r| map.home(map.middle(RegionId(r))) == RegionId(r)));
        }
    }

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
