//! O8: an identity dies once and for all.

use super::{super::table::Table, acts_under};
use crate::checkers::{Check, Checker, Facts, Invariant, Setup, breach};
use std::collections::BTreeMap;
use worldline_proto::{Incarnation, LeaseId, NodeId, OpId};
use worldline_system::{
    doors::{
        directory::{Answer, Submission, Write},
        ledger,
    },
    history::{Acceptance, Completion, Entry, Invocation, Note, What},
    outcome::{Outcome, Refusal},
};

/// Grants and renewals of one node that wait for their answer; older ones are forgotten.
const ASKED_KEPT: usize = 64;

/// What is known of one lease.
#[derive(Clone, Debug, Default)]
struct Identity {
    holder: Option<(NodeId, Incarnation)>,
    granted: bool,
    /// Its holder knows that it stands. Until then a directory that has lost the grant may well grant it again.
    acknowledged: bool,
    /// Its holder was told that it was granted.
    told: bool,
    dead: Option<&'static str>,
}

/// O8. Binds each lease to the one life of a process that asked for it, and watches what is done under it.
#[derive(Clone, Debug)]
pub struct DeadIdentities {
    identities: BTreeMap<LeaseId, Identity>,
    /// Grants and renewals under way.
    asked: Table<NodeId, Vec<(OpId, LeaseId)>>,
    /// Each node's last lease that was found alive: most lines are by it.
    alive: Table<NodeId, Option<LeaseId>>,
    seen: bool,
    /// The directory itself tells of grants. Where it does not (a watch tells of keys alone), what it answers to the roles
    /// has to serve.
    sink_tells: bool,
    /// A grant was told of, by whomever.
    granted: bool,
}

impl DeadIdentities {
    fn die(&mut self, lease: LeaseId, why: &'static str) {
        let identity = self.identities.entry(lease).or_default();
        identity.dead = identity.dead.or(Some(why));
        if let Some((node, _)) = identity.holder {
            *self.alive.slot(node) = None;
        }
    }

    /// Every identity of this node's earlier lives dies with them.
    fn end_life(&mut self, node: NodeId, why: &'static str) {
        *self.alive.slot(node) = None;
        self.asked.slot(node).clear();
        let held =
            self.identities.values_mut().filter(|identity| identity.holder.is_some_and(|(holder, _)| holder == node));
        for identity in held {
            identity.dead = identity.dead.or(Some(why));
        }
    }

    /// This life of a node takes or uses this lease.
    fn use_lease(&mut self, entry: &Entry, lease: LeaseId, what: &str) -> Check {
        if self.alive.get(entry.node) == Some(&Some(lease)) {
            return Ok(());
        }
        self.seen = true;
        let life = (entry.node, entry.incarnation);
        let identity = self.identities.entry(lease).or_default();
        if let Some(why) = identity.dead {
            breach!("{what} under lease {lease}, which is dead: {why}");
        }
        match identity.holder {
            Some(holder) if holder != life => {
                breach!("{what} under lease {lease}, which is the identity of {} (life {})", holder.0, holder.1.0)
            }
            _ => identity.holder = Some(life),
        }
        *self.alive.slot(entry.node) = Some(lease);
        Ok(())
    }

    /// A batch may carry the authority of another worker, which forwarded an effect: only the node's own leases count.
    fn commit(&mut self, entry: &Entry, batch: &ledger::Batch) -> Check {
        let operations = batch.operations.iter().flat_map(|operation| &operation.authority);
        let checkpoints = batch.checkpoints.iter().map(|checkpoint| &checkpoint.authority);
        for authority in operations.chain(checkpoints) {
            let holder = self.identities.get(&authority.lease).and_then(|identity| identity.holder);
            if holder.is_some_and(|(node, _)| node == entry.node) {
                self.use_lease(entry, authority.lease, "a commit was submitted")?;
            }
        }
        Ok(())
    }

    fn await_answer(&mut self, node: NodeId, op: OpId, lease: LeaseId) {
        let asked = self.asked.slot(node);
        if asked.len() == ASKED_KEPT {
            asked.remove(0);
        }
        asked.push((op, lease));
    }

    fn ask(&mut self, entry: &Entry, op: OpId, submission: &Submission) -> Check {
        match submission {
            Submission::Grant { lease, .. } => {
                self.await_answer(entry.node, op, *lease);
                self.use_lease(entry, *lease, "a grant was submitted")
            }
            Submission::KeepAlive(lease) => {
                self.await_answer(entry.node, op, *lease);
                self.use_lease(entry, *lease, "a renewal was submitted")
            }
            Submission::Transact(transaction) => transaction.writes.iter().try_for_each(|write| match write {
                Write::Put { lease: Some(lease), .. } => self.use_lease(entry, *lease, "a transaction was submitted"),
                _ => Ok(()),
            }),
            _ => Ok(()),
        }
    }

    fn answer(&mut self, entry: &Entry, op: OpId, completion: &Completion) -> Check {
        let Completion::Directory(answer) = completion else { return Ok(()) };
        let asked = self.asked.slot(entry.node);
        let Some(place) = asked.iter().position(|&(sent, _)| sent == op) else { return Ok(()) };
        let (_, lease) = asked.swap_remove(place);
        let identity = self.identities.entry(lease).or_default();
        match answer {
            Answer::Granted(Outcome::Done(())) => {
                self.granted = true;
                identity.acknowledged = true;
                if std::mem::replace(&mut identity.told, true) && !self.sink_tells {
                    breach!("the directory answered a second time that it has granted lease {lease}");
                }
            }
            Answer::KeptAlive(Outcome::Done(_)) => identity.acknowledged = true,
            // Of one whose grant nobody was told of it may only mean that the grant was lost.
            Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound))
                if identity.granted || identity.acknowledged =>
            {
                self.die(lease, "the directory has said that there is no such lease");
            }
            _ => {}
        }
        Ok(())
    }
}

impl Checker for DeadIdentities {
    const INVARIANT: Invariant = Invariant::O8;

    fn new(_: &Setup) -> Self {
        Self {
            identities: BTreeMap::new(),
            asked: Table::default(),
            alive: Table::default(),
            seen: false,
            sink_tells: false,
            granted: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Noted(Note::Identity { lease, .. }) => self.use_lease(entry, *lease, "an identity was taken"),
            What::Noted(Note::Fenced { lease }) => {
                self.die(*lease, "its holder was fenced");
                Ok(())
            }
            What::Noted(note) => match acts_under(note) {
                Some(authority) => self.use_lease(entry, authority.lease, "its worker acted"),
                None => Ok(()),
            },
            What::Crashed => {
                self.end_life(entry.node, "its process has crashed");
                Ok(())
            }
            What::Started | What::Stopped => {
                self.end_life(entry.node, "its process has ended");
                Ok(())
            }
            What::Invoked(op, Invocation::Directory(submission)) => self.ask(entry, *op, submission),
            What::Invoked(_, Invocation::Ledger(ledger::Submission::Claim { lease, .. })) => {
                self.use_lease(entry, *lease, "a claim was submitted")
            }
            What::Invoked(_, Invocation::Ledger(ledger::Submission::Commit(batch))) => self.commit(entry, batch),
            What::Completed(op, completion) => self.answer(entry, *op, completion),
            What::Accepted(Acceptance::LeaseGranted { lease, .. }) => {
                (self.sink_tells, self.granted) = (true, true);
                let identity = self.identities.entry(*lease).or_default();
                if std::mem::replace(&mut identity.granted, true) && (identity.acknowledged || identity.dead.is_some())
                {
                    breach!("the directory granted lease {lease} a second time");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn not_checked(&self) -> Option<&'static str> {
        match (self.seen, self.granted) {
            (false, _) => Some("nobody used a lease"),
            (true, false) => Some("leases were used, and nobody told of a grant"),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::*;
    use worldline_system::time::Duration;

    fn granted(by: u64) -> What {
        What::Accepted(Acceptance::LeaseGranted { lease: lease(by), ttl: Duration::from_secs(10) })
    }

    fn life() -> Vec<(u64, u32, What)> {
        vec![
            (0, 1, What::Started),
            (0, 1, asks(1, Submission::Grant { lease: lease(1), ttl: Duration::from_secs(10) })),
            (1, 60, granted(1)),
            (2, 1, hears(1, Answer::Granted(Outcome::Done(())))),
            (2, 1, identity(1)),
            (3, 1, emitted(authority(hero(), 1, 1), 1)),
            (4, 1, asks(2, Submission::KeepAlive(lease(1)))),
            (5, 1, commits(3, attack(1, 1, 1))),
        ]
    }

    #[test]
    fn o8_nothing_follows_the_death_of_an_identity() {
        assert_eq!(breaks_at::<DeadIdentities>(&tell(life())), None);
        let deaths = [
            What::Crashed,
            What::Noted(Note::Fenced { lease: lease(1) }),
            hears(2, Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound))),
        ];
        for death in deaths {
            for act in [
                emitted(authority(hero(), 1, 1), 2),
                asks(9, Submission::KeepAlive(lease(1))),
                asks(9, Submission::Grant { lease: lease(1), ttl: Duration::from_secs(10) }),
                commits(9, attack(2, 1, 1)),
                identity(1),
            ] {
                let mut bad = life();
                bad.extend([(6, 1, death.clone()), (7, 1, act)]);
                assert_eq!(breaks_at::<DeadIdentities>(&tell(bad)), Some(9));
            }
        }
    }

    #[test]
    fn o8_what_roles_are_answered_serves_where_the_directory_tells_of_no_grant() {
        let heard: Vec<_> = life().into_iter().filter(|(_, _, what)| !matches!(what, What::Accepted(_))).collect();
        let more = |more: &[(u64, u32, What)]| breaks_at::<DeadIdentities>(&tell([&heard[..], more].concat()));
        let gone = || hears(2, Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound)));
        assert_eq!(more(&[]), None);
        assert_eq!(more(&[(6, 1, gone()), (7, 1, emitted(authority(hero(), 1, 1), 2))]), Some(8), "it is dead");
        let again = || asks(9, Submission::Grant { lease: lease(1), ttl: Duration::from_secs(10) });
        let told = || hears(9, Answer::Granted(Outcome::Done(())));
        assert_eq!(more(&[(6, 1, again()), (7, 1, told())]), Some(8), "granted twice");
        let mut lost = heard.clone();
        lost.retain(|(_, _, what)| !matches!(what, What::Completed(..)));
        lost.extend([(6, 1, gone()), (7, 1, again()), (8, 1, told())]);
        assert_eq!(breaks_at::<DeadIdentities>(&tell(lost)), None, "the first grant was lost unheard");
    }

    #[test]
    fn o8_is_not_checked_where_nobody_tells_of_a_grant() {
        let not_checked = |lines: Vec<(u64, u32, What)>| {
            let mut checker = DeadIdentities::new(&setup());
            let held = |entry: &Entry| checker.on_entry(entry, &Facts::default());
            assert_eq!(tell(lines).iter().try_for_each(held), Ok(()));
            checker.not_checked()
        };
        assert_eq!(not_checked(life()), None);
        assert_eq!(not_checked(Vec::new()), Some("nobody used a lease"));
        let silent = vec![(2, 1, identity(1)), (3, 1, emitted(authority(hero(), 1, 1), 1))];
        assert_eq!(not_checked(silent), Some("leases were used, and nobody told of a grant"));
    }

    #[test]
    fn o8_an_unknown_renewal_kills_nobody_and_a_new_identity_lives() {
        let mut good = life();
        good.extend([
            (6, 1, hears(2, Answer::KeptAlive(Outcome::Unknown))),
            (7, 1, emitted(authority(hero(), 1, 1), 2)),
            (8, 1, What::Noted(Note::Fenced { lease: lease(1) })),
            (9, 1, identity(2)),
            (10, 1, emitted(authority(hero(), 2, 2), 1)),
            // Its commit carries the dead identity of the attacker's owner beside its own: it cannot know.
            (11, 3, commits(1, attack(2, 1, 1))),
        ]);
        assert_eq!(breaks_at::<DeadIdentities>(&tell(good)), None);
    }

    #[test]
    fn o8_an_identity_has_one_holder_and_is_granted_once() {
        let mut stolen = life();
        stolen.push((6, 2, emitted(authority(hero(), 1, 1), 1)));
        assert_eq!(breaks_at::<DeadIdentities>(&tell(stolen)), Some(8));
        let mut unheard = life();
        unheard.drain(3..);
        unheard.push((6, 60, granted(1)));
        assert_eq!(breaks_at::<DeadIdentities>(&tell(unheard)), None, "the first grant was lost unheard");
        let mut again = life();
        again.push((6, 60, granted(1)));
        assert_eq!(breaks_at::<DeadIdentities>(&tell(again)), Some(8));
    }
}
