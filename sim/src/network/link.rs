//! What faults do to links: cuts and degradations, each between two sets of nodes.
//!
//! A disturbance draws for itself, under its own id: taking it out leaves every other draw as it was.

use super::Passage;
use crate::{
    core::Core,
    entropy::{Keyed, Purpose, below, fold},
};
use worldline_proto::NodeId;
use worldline_system::time::Duration;

/// A set of nodes, as bits.
#[derive(Clone, Debug, Default)]
struct NodeSet(Vec<u64>);

impl NodeSet {
    fn new(nodes: &[NodeId]) -> Self {
        let mut set = Self::default();
        for node in nodes {
            let word = node.0 as usize / 64;
            if set.0.len() <= word {
                set.0.resize(word + 1, 0);
            }
            set.0[word] |= 1 << (node.0 % 64);
        }
        set
    }

    fn contains(&self, node: NodeId) -> bool {
        self.0.get(node.0 as usize / 64).is_some_and(|word| word >> (node.0 % 64) & 1 == 1)
    }
}

/// What is wrong with the links between two sets of nodes.
#[derive(Clone, Debug)]
pub(crate) struct Disturbance {
    pub id: u32,
    from: NodeSet,
    to: NodeSet,
    both: bool,
    effect: Effect,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect {
    Cut,
    Degrade { loss_permille: u32, duplicate_permille: u32, delay: Duration, jitter: Duration },
}

impl Disturbance {
    pub(crate) fn new(id: u32, from: &[NodeId], to: &[NodeId], both: bool, effect: Effect) -> Self {
        Self { id, from: NodeSet::new(from), to: NodeSet::new(to), both, effect }
    }

    fn concerns(&self, from: NodeId, to: NodeId) -> bool {
        self.from.contains(from) && self.to.contains(to)
            || self.both && self.from.contains(to) && self.to.contains(from)
    }

    /// Whether it cuts this direction. A node is never cut from itself.
    pub(crate) fn cuts(&self, from: NodeId, to: NodeId) -> bool {
        matches!(self.effect, Effect::Cut) && from != to && self.concerns(from, to)
    }

    fn disturb(&self, passage: &mut Passage, keyed: Keyed, who: u64, n: u64) {
        let Effect::Degrade { loss_permille, duplicate_permille, delay, jitter } = self.effect else {
            *passage = Passage { delay_ns: None, double_ns: None };
            return;
        };
        let draw = |what| {
            keyed.draw(Purpose::Disturbance, fold(who ^ 0x9E37_79B9_7F4A_7C15, u64::from(self.id) << 8 | what), n)
        };
        if below(draw(1), 1_000) < u64::from(loss_permille) {
            passage.delay_ns = None;
        }
        let longer = delay.as_nanos() + below(draw(2), jitter.as_nanos());
        passage.delay_ns = passage.delay_ns.map(|ns| ns + longer);
        passage.double_ns = passage.double_ns.map(|ns| ns + longer);
        if let Some(ns) = passage.delay_ns
            && below(draw(3), 1_000) < u64::from(duplicate_permille)
        {
            passage.double_ns = Some(ns + 1_000 + below(draw(4), jitter.as_nanos()));
        }
    }
}

impl Core {
    /// What every disturbance on this direction makes of a packet's fate.
    #[cold]
    pub(crate) fn disturbed(
        &self,
        passage: &mut Passage,
        from: NodeId,
        to: NodeId,
        purpose: Purpose,
        who: u64,
        n: u64,
    ) {
        let who = fold(who ^ (purpose as u64) << 56, 0xE703_7ED1_A0B4_28DB);
        for disturbance in &self.network.disturbances {
            if from != to && disturbance.concerns(from, to) {
                disturbance.disturb(passage, self.keyed, who, n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_way_cut_leaves_the_other_way() {
        let (a, b) = (NodeId(3), NodeId(130));
        let cut = |both| Disturbance::new(1, &[a], &[b], both, Effect::Cut);
        assert!(cut(false).cuts(a, b) && !cut(false).cuts(b, a));
        assert!(cut(true).cuts(a, b) && cut(true).cuts(b, a));
        assert!(!cut(true).cuts(a, NodeId(131)));
    }
}
