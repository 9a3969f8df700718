//! O4: whoever takes state in never goes back.

use super::super::table::Table;
use crate::checkers::{Check, Checker, Facts, Invariant, Setup, breach};
use worldline_proto::{CharacterId, EntityId, Epoch, Incarnation, NodeId, Version};
use worldline_system::history::{Acceptance, Entry, Note, What};

/// What one life of a node has taken in.
#[derive(Clone, Debug, Default)]
struct Sink {
    incarnation: Incarnation,
    states: Table<EntityId, (Epoch, Version)>,
    confirmed: Option<(CharacterId, Epoch)>,
}

/// O4. Watches the ledger's checkpoints, the gateways' views and the clients' own characters.
#[derive(Clone, Debug)]
pub struct MonotonicSinks {
    nodes: Table<NodeId, Sink>,
    checkpoints: Table<EntityId, (Epoch, Version)>,
    seen: bool,
}

impl MonotonicSinks {
    fn sink(&mut self, entry: &Entry) -> &mut Sink {
        self.seen = true;
        let sink = self.nodes.slot(entry.node);
        if sink.incarnation != entry.incarnation {
            *sink = Sink { incarnation: entry.incarnation, ..Sink::default() };
        }
        sink
    }
}

impl Checker for MonotonicSinks {
    const INVARIANT: Invariant = Invariant::O4;

    fn new(_: &Setup) -> Self {
        Self { nodes: Table::default(), checkpoints: Table::default(), seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Noted(Note::StateAccepted { entity, epoch, version }) => {
                let new = (*epoch, *version);
                match self.sink(entry).states.insert(*entity, new) {
                    Some(old) if new < old => breach!(
                        "the gateway accepted {entity} at epoch {epoch} version {version} behind epoch {} version {}",
                        old.0,
                        old.1
                    ),
                    _ => Ok(()),
                }
            }
            What::Noted(Note::Confirmed { character, epoch, .. }) => {
                match self.sink(entry).confirmed.replace((*character, *epoch)) {
                    Some((known, old)) if known == *character && *epoch < old => {
                        breach!("the client of {character} accepted state of epoch {epoch} behind epoch {old}")
                    }
                    _ => Ok(()),
                }
            }
            What::Accepted(Acceptance::Checkpointed { authority, version }) => {
                self.seen = true;
                let new = (authority.epoch, *version);
                match self.checkpoints.insert(authority.entity, new) {
                    Some(old) if new <= old => breach!(
                        "the ledger accepted a checkpoint of {} at epoch {} version {version} behind epoch {} version {}",
                        authority.entity,
                        authority.epoch,
                        old.0,
                        old.1
                    ),
                    _ => Ok(()),
                }
            }
            What::Accepted(Acceptance::OperationApplied { operation, rows, .. }) => {
                for authority in &operation.authority {
                    let row = rows.iter().find(|row| row.entity == authority.entity);
                    let fence = row.and_then(|row| row.fence);
                    if row.is_some() && fence.is_none_or(|(epoch, _)| authority.epoch < epoch) {
                        breach!(
                            "the ledger accepted an operation on {} at epoch {}, and the fence stands at {fence:?}",
                            authority.entity,
                            authority.epoch
                        );
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("no sink accepted any state")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::*;

    fn state(epoch: u64, version: u64) -> What {
        What::Noted(Note::StateAccepted { entity: boss(), epoch: Epoch(epoch), version: Version(version) })
    }

    fn confirmed(epoch: u64) -> What {
        What::Noted(Note::Confirmed { character: hero(), epoch: Epoch(epoch), sequence: 0, position: east(0) })
    }

    #[test]
    fn o4_no_sink_goes_back() {
        let good = [
            (0, 1, state(1, 5)),
            (1, 1, state(1, 5)),
            (2, 1, state(1, 9)),
            (3, 1, state(2, 1)),
            // Another gateway has a view of its own.
            (4, 2, state(1, 9)),
            (5, LEDGER, checkpointed(authority(boss(), 1, 1), 4)),
            (6, LEDGER, checkpointed(authority(boss(), 2, 2), 1)),
            (7, 9, confirmed(2)),
        ];
        assert_eq!(breaks_at::<MonotonicSinks>(&tell(good.clone())), None);
        let mut late = attack(1, 1, 1);
        late.authority[1].epoch = Epoch(0);
        let rows = vec![fenced(authority(hero(), 1, 1), 100, 50, 3), fenced(authority(boss(), 1, 2), 900, 0, 97)];
        for (node, what, why) in [
            (1, state(1, 10), "an older epoch"),
            (1, state(2, 0), "an older version"),
            (LEDGER, checkpointed(authority(boss(), 2, 2), 1), "a version again"),
            (LEDGER, checkpointed(authority(boss(), 1, 1), 9), "a checkpoint of an older epoch"),
            (9, confirmed(1), "a client that goes back"),
            (LEDGER, applied_with(late, hit(100, 900), rows), "an operation behind the fence"),
        ] {
            let mut bad = good.to_vec();
            bad.push((8, node, what));
            assert_eq!(breaks_at::<MonotonicSinks>(&tell(bad)), Some(8), "{why}");
        }
    }

    #[test]
    fn o4_a_restarted_gateway_begins_anew() {
        let mut entries = tell([(0, 1, state(5, 5)), (1, 1, state(1, 1))]);
        entries[1].incarnation = Incarnation(2);
        assert_eq!(breaks_at::<MonotonicSinks>(&entries), None);
    }
}
