//! Attack: cooldown, range, damage, experience.

use super::space::{Boss, Position};
use crate::{
    doors::{entropy::Entropy, ledger::RuleRefusal},
    time::{Duration, UnixTime},
};

/// How long a weapon rests after a blow.
pub const COOLDOWN: Duration = Duration::from_secs(1);
/// How far a weapon reaches, in millimetres.
pub const RANGE_MM: u64 = 30_000;
/// The weakest blow, in hit points.
pub const DAMAGE_MIN: u32 = 80;
/// The strongest blow, in hit points.
pub const DAMAGE_MAX: u32 = 120;
/// What a blow earns, in minor units, if the target's purse still holds it.
pub const BOUNTY: i64 = 3;

/// What one blow is worth before the ledger applies it to what is left of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Blow {
    /// Hit points it takes at most.
    pub damage: u32,
    /// Experience it gives.
    pub experience: i64,
    /// Minor units it moves at most from the target's purse to the attacker's.
    pub bounty: i64,
}

/// Whether an attacker that stands at `from` and rests until `cooldown_end` may strike `target` now.
///
/// # Errors
/// The rule that forbids it.
pub fn may_strike(
    from: Position,
    cooldown_end: UnixTime,
    target: Option<&Boss>,
    now: UnixTime,
) -> Result<(), RuleRefusal> {
    let target = target.ok_or(RuleRefusal::NoSuchTarget)?;
    if now < cooldown_end {
        return Err(RuleRefusal::Cooldown);
    }
    if from.distance_mm(target.position) > RANGE_MM {
        return Err(RuleRefusal::OutOfRange);
    }
    Ok(())
}

/// Rolls a blow: damage is uniform in its range, experience is half of it.
pub fn roll(entropy: &mut Entropy) -> Blow {
    let spread = u64::from(DAMAGE_MAX - DAMAGE_MIN) + 1;
    // Below the spread, so it fits.
    let damage = DAMAGE_MIN + entropy.below(spread) as u32;
    Blow { damage, experience: i64::from(damage / 2), bounty: BOUNTY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::directory::RegionId;

    #[test]
    fn each_rule_refuses_by_its_own_name() {
        let boss = Boss { position: Position { x_mm: 30_000, y_mm: 0 }, region: RegionId(0) };
        let (rested, now) = (UnixTime::from_nanos(5), UnixTime::from_nanos(5));
        let here = Position::default();
        let one_step_back = Position { x_mm: -1, y_mm: 0 };
        assert_eq!(may_strike(here, rested, Some(&boss), now), Ok(()));
        assert_eq!(may_strike(here, UnixTime::from_nanos(6), Some(&boss), now), Err(RuleRefusal::Cooldown));
        assert_eq!(may_strike(one_step_back, rested, Some(&boss), now), Err(RuleRefusal::OutOfRange));
        assert_eq!(may_strike(here, rested, None, now), Err(RuleRefusal::NoSuchTarget));
    }

    #[test]
    fn a_blow_stays_in_its_range_and_reaches_both_ends() {
        let mut entropy = Entropy::from_seed([1; 32]);
        let blows: alloc::vec::Vec<u32> = (0..2_000).map(|_| roll(&mut entropy).damage).collect();
        assert_eq!(blows.iter().min(), Some(&DAMAGE_MIN));
        assert_eq!(blows.iter().max(), Some(&DAMAGE_MAX));
    }
}
