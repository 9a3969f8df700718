//! The hooks door: no hook ever fires here, and every probe is counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use worldline_system::doors::hooks::{Hooks, PROBES};

/// How often each probe was reached by the roles of this process. Clones count together.
#[derive(Clone, Debug)]
pub struct Probes(Arc<[AtomicU64]>);

impl Default for Probes {
    fn default() -> Self {
        Self(PROBES.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Probes {
    /// Every probe that was reached, with its count.
    pub fn reached(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        PROBES.iter().copied().zip(counts).filter(|(_, count)| *count > 0)
    }
}

impl Hooks for Probes {
    fn maybe(&mut self, _: usize) -> bool {
        false
    }

    fn reached(&mut self, probe: usize) {
        self.0[probe].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_together_and_no_hook_fires() {
        let (mut a, mut b) = (Probes::default(), Probes::default());
        let mut also_a = a.clone();
        Hooks::reached(&mut a, 0);
        Hooks::reached(&mut also_a, 0);
        assert_eq!(a.reached().collect::<Vec<_>>(), [(PROBES[0], 2)]);
        assert_eq!(b.reached().count(), 0);
        assert!(!b.maybe(0));
    }
}
