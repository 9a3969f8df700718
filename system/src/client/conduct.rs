//! How a client behaves: honestly, or in one of the ways in which players misbehave.

/// A client's conduct.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Conduct {
    /// By the rules.
    #[default]
    Honest,
    /// It walks far too fast, in many steps that are each small enough.
    SpeedHack,
    /// It uses numbers again that have a result, with another payload: it would have a cheap blow pass for a dear one.
    ReusesNumbers,
}
