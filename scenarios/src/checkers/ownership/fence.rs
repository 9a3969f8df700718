//! O1 and O2: the fence lets one lease write at an epoch, and epochs only rise.

use super::{super::table::Table, acts_under};
use crate::checkers::{Check, Checker, Facts, Invariant, Setup, breach};
use std::collections::BTreeMap;
use worldline_proto::{EntityId, Epoch, LeaseId, Revision};
use worldline_system::{
    doors::{
        directory::{Change, Key, Ownership, Value},
        ledger::Authority,
    },
    history::{Acceptance, Entry, Note, What},
};

/// O1. Holds every accepted write, and everything that an owner lets out, against the claims that the ledger accepted.
#[derive(Clone, Debug)]
pub struct OneWriter {
    /// For each entity every claim that was accepted, by rising epoch.
    claims: Table<EntityId, Vec<(Epoch, LeaseId)>>,
    claimed: bool,
}

impl OneWriter {
    fn claim(&mut self, authority: Authority) -> Check {
        let Authority { entity, epoch, lease } = authority;
        let claims = self.claims.slot(entity);
        match claims.binary_search_by_key(&epoch, |&(epoch, _)| epoch) {
            Ok(place) if claims[place].1 != lease => {
                breach!(
                    "{entity} at epoch {epoch} was claimed by lease {}, and is now by lease {lease}",
                    claims[place].1
                )
            }
            Ok(_) => {}
            Err(place) => claims.insert(place, (epoch, lease)),
        }
        Ok(())
    }

    /// A sink has accepted a write: it must stand under the newest claim.
    fn write(&self, authority: Authority, what: &str) -> Check {
        let Authority { entity, epoch, lease } = authority;
        let Some(&(highest, holder)) = self.claims.get(entity).and_then(|claims| claims.last()) else {
            breach!("{what} of {entity} at epoch {epoch} was accepted, and nobody has claimed it")
        };
        if (epoch, lease) != (highest, holder) {
            breach!(
                "{what} of {entity} at epoch {epoch} by lease {lease} was accepted behind the claim of epoch {highest} by \
                 lease {holder}"
            );
        }
        Ok(())
    }

    /// An owner acts: it must have claimed, though its claim may be superseded by now.
    fn act(&self, authority: Authority) -> Check {
        let Authority { entity, epoch, lease } = authority;
        let claims = self.claims.get(entity).map_or(&[][..], Vec::as_slice);
        if claims.iter().rev().any(|&claim| claim == (epoch, lease)) {
            return Ok(());
        }
        breach!("lease {lease} acts for {entity} at epoch {epoch}, which the ledger has not let it claim");
    }
}

impl Checker for OneWriter {
    const INVARIANT: Invariant = Invariant::O1;

    fn new(_: &Setup) -> Self {
        Self { claims: Table::default(), claimed: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Noted(note) => acts_under(note).map_or(Ok(()), |authority| self.act(authority)),
            What::Accepted(Acceptance::FenceRaised { authority, .. }) => {
                self.claimed = true;
                self.claim(*authority)
            }
            What::Accepted(Acceptance::OperationApplied { operation, .. }) => {
                operation.authority.iter().try_for_each(|authority| self.write(*authority, "an operation"))
            }
            What::Accepted(Acceptance::Checkpointed { authority, .. }) => self.write(*authority, "a checkpoint"),
            _ => Ok(()),
        }
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.claimed).then_some("the ledger reported no claim")
    }
}

/// O2. Follows each entity's epoch through the fence, the directory's record and the owners' own words.
#[derive(Clone, Debug)]
pub struct RisingEpochs {
    fences: Table<EntityId, Option<(Epoch, LeaseId)>>,
    /// The highest epoch at which each lease has dropped each entity.
    dropped: BTreeMap<(EntityId, LeaseId), Epoch>,
    records: Table<EntityId, Option<Ownership>>,
    revision: Revision,
    seen: bool,
    /// The directory told of a change.
    recorded: bool,
}

impl RisingEpochs {
    fn raise(&mut self, authority: Authority, before: Option<(Epoch, LeaseId)>) -> Check {
        let Authority { entity, epoch, lease } = authority;
        let fence = self.fences.slot(entity);
        if let Some((highest, holder)) = *fence {
            if before != Some((highest, holder)) {
                breach!("the fence of {entity} stood at epoch {highest} and was found at {before:?}");
            }
            if epoch < highest || (epoch == highest && lease != holder) {
                breach!("the fence of {entity} went from epoch {highest} to {epoch}, claimed by lease {lease}");
            }
        }
        *fence = Some((epoch, lease));
        Ok(())
    }

    fn record(&mut self, revision: Revision, changes: &[Change]) -> Check {
        if revision <= self.revision {
            // Restored from a backup: its epochs may repeat. The ledger's may not.
            self.records = Table::default();
        }
        self.revision = revision;
        for change in changes {
            let Change::Put(record) = change else { continue };
            let (Key::Owner(entity), Value::Owner(ownership)) = (record.key, record.value) else { continue };
            let Some(before) = self.records.slot(entity).replace(ownership) else { continue };
            let (old, new) = (before.epoch, ownership.epoch);
            if new < old {
                breach!("the record of {entity} fell from epoch {old} to {new} in revision {revision}");
            }
            if new == old && before.lease == ownership.lease {
                // A takeover keeps the epoch of the owner before. Who writes the record as its owner claims, and must raise it.
                breach!(
                    "lease {} claimed {entity} at epoch {new} in revision {revision}, which had been held",
                    before.lease
                );
            }
        }
        Ok(())
    }
}

impl Checker for RisingEpochs {
    const INVARIANT: Invariant = Invariant::O2;

    fn new(_: &Setup) -> Self {
        Self {
            fences: Table::default(),
            dropped: BTreeMap::new(),
            records: Table::default(),
            revision: Revision(0),
            seen: false,
            recorded: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Accepted(Acceptance::FenceRaised { authority, before }) => {
                self.seen = true;
                self.raise(*authority, *before)
            }
            What::Accepted(Acceptance::DirectoryChanged { revision, changes }) => {
                self.recorded = true;
                self.record(*revision, changes)
            }
            What::Noted(Note::Dropped { authority }) => {
                let highest = self.dropped.entry((authority.entity, authority.lease)).or_default();
                *highest = (*highest).max(authority.epoch);
                Ok(())
            }
            What::Noted(Note::Serving { authority, .. }) => {
                let Authority { entity, epoch, lease } = *authority;
                match self.dropped.get(&(entity, lease)) {
                    Some(&highest) if epoch <= highest => {
                        breach!(
                            "lease {lease} has dropped {entity} at epoch {highest} and serves it again at epoch {epoch}"
                        )
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn not_checked(&self) -> Option<&'static str> {
        match (self.seen, self.recorded) {
            (false, _) => Some("the ledger reported no claim"),
            (true, false) => Some("the fences rose, and the directory told of no record"),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::*;
    use worldline_proto::Nonce;
    use worldline_system::doors::directory::Record;

    fn recorded(revision: u64, by: u64, epoch: u64) -> What {
        let value = Value::Owner(Ownership { lease: lease(by), epoch: Epoch(epoch), nonce: Nonce(0) });
        let revision = Revision(revision);
        let put = Change::Put(Record { key: Key::Owner(boss()), value, mod_revision: revision, lease: None });
        What::Accepted(Acceptance::DirectoryChanged { revision, changes: [put].into() })
    }

    #[test]
    fn o1_one_lease_writes_at_an_epoch() {
        let (old, new) = (authority(boss(), 1, 1), authority(boss(), 2, 2));
        let good = [
            (0, LEDGER, raised(old, None)),
            (1, 1, serving(old, east(0))),
            (2, LEDGER, checkpointed(old, 1)),
            (3, LEDGER, raised(new, Some(old))),
            // It does not know yet; what it lets out is not accepted by any sink that has seen the new epoch.
            (4, 1, emitted(old, 7)),
            (5, 2, serving(new, east(0))),
            (6, LEDGER, checkpointed(new, 1)),
        ];
        assert_eq!(breaks_at::<OneWriter>(&tell(good.clone())), None);
        for (what, why) in [
            (checkpointed(old, 2), "a checkpoint of the old epoch behind the claim of the new one"),
            (raised(authority(boss(), 2, 3), Some(new)), "two leases at one epoch"),
            (emitted(authority(boss(), 3, 2), 1), "an owner that serves without its fence"),
            (checkpointed(authority(boss(), 2, 1), 2), "the right epoch under another lease"),
        ] {
            let mut bad = good.to_vec();
            bad.push((7, LEDGER, what));
            assert_eq!(breaks_at::<OneWriter>(&tell(bad)), Some(7), "{why}");
        }
        let unclaimed = [(0, LEDGER, raised(authority(hero(), 1, 1), None)), (1, LEDGER, applied(1, attack(1, 1, 1)))];
        assert_eq!(breaks_at::<OneWriter>(&tell(unclaimed)), Some(1), "the target's fence was never raised");
    }

    #[test]
    fn o2_epochs_rise_in_the_fence_and_in_the_record() {
        let (old, new) = (authority(boss(), 4, 1), authority(boss(), 6, 2));
        let good = [
            (0, LEDGER, raised(old, None)),
            (0, LEDGER, raised(old, Some(old))),
            (1, LEDGER, raised(new, Some(old))),
            (2, 60, recorded(10, 2, 6)),
            // Taken over, at the epoch of the owner before; then claimed.
            (3, 60, recorded(11, 3, 6)),
            (3, 60, recorded(12, 3, 7)),
            // The directory is restored from a backup; the ledger is not.
            (4, 60, recorded(8, 1, 3)),
            (5, 1, What::Noted(Note::Dropped { authority: old })),
            (6, 1, serving(authority(boss(), 7, 1), east(0))),
        ];
        assert_eq!(breaks_at::<RisingEpochs>(&tell(good.clone())), None);
        for (what, why) in [
            (raised(authority(boss(), 5, 3), Some(new)), "the fence falls"),
            (raised(authority(boss(), 6, 3), Some(new)), "the fence's epoch repeats under another lease"),
            (raised(authority(boss(), 7, 3), Some(old)), "the ledger has lost a claim"),
            (raised(authority(boss(), 7, 3), None), "the ledger has lost the row"),
            (recorded(9, 2, 2), "the record falls"),
            (recorded(9, 1, 3), "an owner claims at the epoch that had been held"),
            (serving(old, east(0)), "who has dropped it serves it again at that epoch"),
        ] {
            let mut bad = good.to_vec();
            bad.push((7, LEDGER, what));
            assert_eq!(breaks_at::<RisingEpochs>(&tell(bad)), Some(9), "{why}");
        }
    }

    #[test]
    fn o2_is_not_checked_where_one_of_the_two_is_silent() {
        let not_checked = |lines: Vec<(u64, u32, What)>| {
            let mut checker = RisingEpochs::new(&setup());
            let held = |entry: &Entry| checker.on_entry(entry, &Facts::default());
            assert_eq!(tell(lines).iter().try_for_each(held), Ok(()));
            checker.not_checked()
        };
        let claim = || (0, LEDGER, raised(authority(boss(), 1, 1), None));
        assert_eq!(not_checked(vec![(1, 60, recorded(2, 1, 1))]), Some("the ledger reported no claim"));
        assert_eq!(not_checked(vec![claim()]), Some("the fences rose, and the directory told of no record"));
        assert_eq!(not_checked(vec![claim(), (1, 60, recorded(2, 1, 1))]), None);
    }
}
