//! The grid on which the cache keeps places: the geohash of 52 bits that a Redis geo set is sorted by.
//!
//! The world lies flat on the globe's equator, its middle at longitude 0 and latitude 0, a metre as a metre of the sphere that
//! Redis measures on (a circumference of 40,041,468 m). Redis cuts 360 degrees of longitude into 2^26 columns and 170.10225756
//! degrees of latitude (±85.05112878) into 2^26 rows; a place becomes the cell it lies in. So a column is 597 mm wide and a row
//! 282 mm high, and the middle of a cell, which is all that comes back, is at most [`ERROR_MM`] from the place.
//!
//! What Redis itself measures between two cells differs from the plane by less than a ten-thousandth (the cosine of 0.58 degrees,
//! at the world's edge). Whoever serves the cache lets Redis look a little farther and measures on the plane.
//!
//! Source: `geohash.c` and `geohash_helper.c` of Redis and Valkey.

use super::space::{Position, WORLD_EDGE_MM};

/// Bits of a column's number and of a row's.
const BITS: u32 = 26;
/// The circumference of Redis' sphere, in millimetres: 360 degrees of longitude on the equator, and of latitude.
const TURN_MM: i64 = 40_041_468_000;
/// 170.10225756 degrees of latitude, in millimetres.
const ROWS_MM: i64 = 18_919_844_730;
/// How far a place may lie from the middle of its cell, in millimetres: half the diagonal of a cell, rounded up.
pub const ERROR_MM: u64 = 331;

/// A cell of the grid that lies in the world, at least in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    column: u32,
    row: u32,
}

impl Cell {
    /// The cell of a place in the world. What lies outside is taken to the edge.
    #[must_use]
    pub fn of(place: Position) -> Self {
        Self { column: number(place.x_mm, TURN_MM), row: number(place.y_mm, ROWS_MM) }
    }

    /// From west to east, from 0 at longitude -180.
    #[must_use]
    pub const fn column(self) -> u32 {
        self.column
    }

    /// From south to north, from 0 at latitude -85.05112878.
    #[must_use]
    pub const fn row(self) -> u32 {
        self.row
    }

    /// The score of a member in a geo set: the row's bits at the even places, the column's at the odd ones.
    #[must_use]
    pub fn code(self) -> u64 {
        spread(self.row) | spread(self.column) << 1
    }

    /// The cell of a score. `None` for one that lies outside the world, or is no score at all.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        let cell = Self { column: gather(code >> 1), row: gather(code) };
        let (first, last) = (
            Self::of(Position { x_mm: -WORLD_EDGE_MM, y_mm: -WORLD_EDGE_MM }),
            Self::of(Position { x_mm: WORLD_EDGE_MM, y_mm: WORLD_EDGE_MM }),
        );
        let inside = (first.column..=last.column).contains(&cell.column) && (first.row..=last.row).contains(&cell.row);
        (inside && code >> (2 * BITS) == 0).then_some(cell)
    }

    /// Its middle, or the place nearest to it that is in the world.
    #[must_use]
    pub fn middle(self) -> Position {
        Position { x_mm: middle(self.column, TURN_MM), y_mm: middle(self.row, ROWS_MM) }
    }
}

fn number(at_mm: i64, span_mm: i64) -> u32 {
    let from_edge = i128::from(at_mm.clamp(-WORLD_EDGE_MM, WORLD_EDGE_MM) + span_mm / 2);
    // The world is far smaller than the globe, so this is above zero and below 2^26.
    ((from_edge << BITS) / i128::from(span_mm)) as u32
}

fn middle(number: u32, span_mm: i64) -> i64 {
    let from_edge = ((i128::from(number) * 2 + 1) * i128::from(span_mm)) >> (BITS + 1);
    let at_mm = i64::try_from(from_edge).expect("it is below the span") - span_mm / 2;
    at_mm.clamp(-WORLD_EDGE_MM, WORLD_EDGE_MM)
}

/// The bits of a number, each followed by a zero.
fn spread(number: u32) -> u64 {
    (0..BITS).map(|bit| u64::from(number >> bit & 1) << (2 * bit)).sum()
}

/// The bits at the even places.
fn gather(code: u64) -> u32 {
    (0..BITS).map(|bit| ((code >> (2 * bit) & 1) as u32) << bit).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x_mm: i64, y_mm: i64) -> Position {
        Position { x_mm, y_mm }
    }

    /// Places all over the world, by a generator of Lehmer's.
    fn places() -> impl Iterator<Item = Position> {
        let mut state = 48_271_u64;
        let mut next = move || {
            state = state * 48_271 % 0x7fff_ffff;
            state as i64 % (WORLD_EDGE_MM + 1) * if state & 1 == 0 { 1 } else { -1 }
        };
        let edge = WORLD_EDGE_MM;
        let corners = [at(edge, edge), at(-edge, edge), at(edge, -edge), at(-edge, -edge), at(0, 0)];
        corners.into_iter().chain(core::iter::repeat_with(move || at(next(), next())).take(10_000))
    }

    #[test]
    fn a_place_comes_back_as_the_middle_of_its_cell_and_stays_there() {
        for place in places() {
            let cell = Cell::of(place);
            assert!(cell.middle().distance_mm(place) <= ERROR_MM, "{place:?} {:?}", cell.middle());
            assert!(cell.middle().in_world());
            assert_eq!(Cell::of(cell.middle()), cell, "{place:?}");
            assert_eq!(Cell::from_code(cell.code()), Some(cell));
            assert!(cell.code() < 1 << 52);
        }
    }

    #[test]
    fn the_middle_of_the_world_is_the_middle_of_the_globe() {
        assert_eq!(Cell::of(at(0, 0)).code(), 0b11 << 50);
        assert_eq!(Cell::of(at(-1, -1)).code(), (1 << 50) - 1);
    }

    #[test]
    fn a_score_that_is_no_place_of_the_world_is_told_apart() {
        for wrong in [0, (1 << 52) - 1, 1 << 52, u64::MAX, 1 << 51] {
            assert_eq!(Cell::from_code(wrong), None, "{wrong}");
        }
    }
}
