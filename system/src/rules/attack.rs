//! Attack: cooldown, range, damage, experience.

/// What one blow is worth before the ledger applies it to what is left of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blow {
    /// Hit points it takes at most.
    pub damage: u32,
    /// Experience it gives.
    pub experience: i64,
    /// Minor units it moves at most from the target's purse to the attacker's.
    pub bounty: i64,
}
