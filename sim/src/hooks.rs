//! The hooks door: which rare branches are forced, and which rare places were reached.
//!
//! A hook is active in one seed out of four, and where active fires in one call out of sixteen, both by keyed draws.

use crate::entropy::{Keyed, Purpose};
use worldline_system::doors::hooks::{HOOKS, Hooks, PROBES};

/// One seed out of so many has a hook active.
const ACTIVE_ONE_IN: u64 = 4;
/// One call out of so many of an active hook fires.
const FIRES_ONE_IN: u64 = 16;

/// The hooks and probes of a world.
#[derive(Clone, Debug)]
pub(crate) struct HookBoard {
    keyed: Keyed,
    /// `None` for a hook that is not active.
    calls: Vec<Option<u64>>,
    reached: Vec<u64>,
}

impl HookBoard {
    pub(crate) fn new(keyed: Keyed) -> Self {
        Self { keyed, calls: vec![None; HOOKS.len()], reached: vec![0; PROBES.len()] }
    }

    /// Lets hooks be active in this seed.
    pub(crate) fn enable(&mut self) {
        for (hook, calls) in self.calls.iter_mut().enumerate() {
            let active = self.keyed.draw(Purpose::HookActive, hook as u64, 0).is_multiple_of(ACTIVE_ONE_IN);
            *calls = active.then_some(0);
        }
    }

    /// How often each probe was reached, in the order of the list.
    pub(crate) fn probes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        PROBES.iter().copied().zip(self.reached.iter().copied())
    }

    /// Whether each hook is active, in the order of the list.
    pub(crate) fn active(&self) -> impl Iterator<Item = (&'static str, bool)> {
        HOOKS.iter().copied().zip(self.calls.iter().map(Option::is_some))
    }
}

impl Hooks for HookBoard {
    fn maybe(&mut self, hook: usize) -> bool {
        let Some(calls) = &mut self.calls[hook] else { return false };
        *calls += 1;
        self.keyed.draw(Purpose::HookFires, hook as u64, *calls).is_multiple_of(FIRES_ONE_IN)
    }

    fn reached(&mut self, probe: usize) {
        self.reached[probe] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_active_in_some_seeds_and_fires_in_some_calls_there() {
        let (mut active, mut fired) = (0, 0);
        for seed in 0..400 {
            let mut board = HookBoard::new(Keyed::new(seed));
            assert!(!board.maybe(0), "not before hooks are enabled");
            board.enable();
            if board.active().next().expect("there is a hook").1 {
                active += 1;
                fired += (0..160).filter(|_| board.maybe(0)).count();
            } else {
                assert!((0..160).all(|_| !board.maybe(0)));
            }
        }
        assert!((60..140).contains(&active), "{active} of 400 seeds");
        assert!((8 * active..12 * active).contains(&fired), "{fired} of {} calls", active * 160);
    }

    #[test]
    fn probes_count() {
        let mut board = HookBoard::new(Keyed::new(1));
        board.reached(2);
        board.reached(2);
        assert_eq!(board.probes().nth(2), Some((PROBES[2], 2)));
        assert_eq!(board.probes().map(|(_, n)| n).sum::<u64>(), 2);
    }
}
