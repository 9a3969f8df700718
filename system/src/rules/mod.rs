//! The rules of the game: pure functions of state, input and time. Integers only.
//!
//! Must never be here: a door, a turn, or anything that remembers.

pub mod attack;
pub mod grid;
pub mod movement;
pub mod space;
