//! O3: a holder acts until `ttl - margin` after it sent the last renewal that was acknowledged, by its own clock.

use super::{super::table::Table, acts_under};
use crate::checkers::{Check, Checker, Facts, Invariant, Setup, breach};
use worldline_proto::{LeaseId, NodeId, OpId};
use worldline_system::{
    doors::{directory, ledger},
    history::{Completion, Entry, Invocation, Note, What},
    outcome::{Outcome, Refusal},
    time::{Duration, Instant},
};

/// Renewals of one node that wait for their answer. A node renews one lease every few seconds and gives up on each after
/// seconds; older ones are forgotten, which only makes the checker stricter.
const SENT_KEPT: usize = 64;

/// What is known of one life of a worker.
#[derive(Clone, Debug, Default)]
struct Holder {
    /// Its identity: time to live and margin as it said itself.
    identity: Option<(LeaseId, Duration, Duration)>,
    /// Grants and renewals under way, with the local time of sending.
    sent: Vec<(OpId, LeaseId, Instant)>,
    /// The lease that it asked for last, and when it first did.
    first_grant: Option<(LeaseId, Instant)>,
    /// The latest sending whose answer was `Done`.
    renewed: Option<(LeaseId, Instant)>,
}

impl Holder {
    fn send(&mut self, op: OpId, lease: LeaseId, now: Instant, grants: bool) {
        if self.sent.len() == SENT_KEPT {
            self.sent.remove(0);
        }
        self.sent.push((op, lease, now));
        if grants && self.first_grant.is_none_or(|(known, _)| known != lease) {
            self.first_grant = Some((lease, now));
        }
    }

    fn answer(&mut self, op: OpId, answer: &directory::Answer) {
        let Some(place) = self.sent.iter().position(|&(sent, ..)| sent == op) else { return };
        let (_, lease, sent) = self.sent.swap_remove(place);
        let acknowledged = match answer {
            directory::Answer::Granted(Outcome::Done(())) | directory::Answer::KeptAlive(Outcome::Done(_)) => sent,
            // An earlier attempt was granted; it was granted after it was sent.
            directory::Answer::Granted(Outcome::Refused(Refusal::LeaseExists)) => match self.first_grant {
                Some((first, sent)) if first == lease => sent,
                _ => return,
            },
            _ => return,
        };
        match &mut self.renewed {
            Some((renewed, at)) if *renewed == lease => *at = (*at).max(acknowledged),
            renewed => *renewed = Some((lease, acknowledged)),
        }
    }

    /// Whether it may act at `now`; why not.
    fn may_act(&self, now: Instant) -> Check {
        let Some((lease, ttl, margin)) = self.identity else { return Ok(()) };
        let Some((_, sent)) = self.renewed.filter(|&(renewed, _)| renewed == lease) else {
            breach!("it acts under lease {lease}, which was never granted to it");
        };
        let limit = sent + (ttl - margin);
        if now > limit {
            breach!(
                "its lease {lease} allowed it to act until {} after its last acknowledged renewal; it is {} past that by its \
                 own clock",
                ttl - margin,
                now.since(limit)
            );
        }
        Ok(())
    }
}

/// O3. Recomputes every worker's validity from what its host saw leave and arrive.
#[derive(Clone, Debug)]
pub struct OwnClock {
    holders: Table<NodeId, Holder>,
    seen: bool,
}

impl Checker for OwnClock {
    const INVARIANT: Invariant = Invariant::O3;

    fn new(_: &Setup) -> Self {
        Self { holders: Table::default(), seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        let now = entry.local;
        match &entry.what {
            What::Started => {
                *self.holders.slot(entry.node) = Holder::default();
                Ok(())
            }
            What::Noted(Note::Identity { lease, ttl, margin }) => {
                self.seen = true;
                self.holders.slot(entry.node).identity = Some((*lease, *ttl, *margin));
                Ok(())
            }
            What::Noted(note) => {
                if acts_under(note).is_none() {
                    return Ok(());
                }
                self.holders.get(entry.node).map_or(Ok(()), |holder| holder.may_act(now))
            }
            What::Invoked(op, Invocation::Directory(submission)) => match submission {
                directory::Submission::Grant { lease, .. } => {
                    self.holders.slot(entry.node).send(*op, *lease, now, true);
                    Ok(())
                }
                directory::Submission::KeepAlive(lease) => {
                    self.holders.slot(entry.node).send(*op, *lease, now, false);
                    Ok(())
                }
                directory::Submission::Transact(_) => {
                    self.holders.get(entry.node).map_or(Ok(()), |holder| holder.may_act(now))
                }
                _ => Ok(()),
            },
            What::Invoked(_, Invocation::Ledger(ledger::Submission::Claim { .. } | ledger::Submission::Commit(_))) => {
                self.holders.get(entry.node).map_or(Ok(()), |holder| holder.may_act(now))
            }
            What::Completed(op, completion) => {
                if let (Completion::Directory(answer), Some(holder)) = (&**completion, self.holders.get_mut(entry.node))
                {
                    holder.answer(*op, answer);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("no worker took an identity")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::story::*;
    use directory::{Answer, Submission};

    const TTL: Duration = Duration::from_secs(10);

    /// Granted at 1 s, renewed at 3 s (acknowledged a second later): with a margin of 2 s it may act until 11 s.
    fn renewed() -> Vec<(u64, u32, What)> {
        vec![
            (0, 1, What::Started),
            (1_000, 1, asks(1, Submission::Grant { lease: lease(1), ttl: TTL })),
            (1_100, 1, hears(1, Answer::Granted(Outcome::Done(())))),
            (1_100, 1, identity(1)),
            (3_000, 1, asks(2, Submission::KeepAlive(lease(1)))),
            (4_000, 1, hears(2, Answer::KeptAlive(Outcome::Done(TTL)))),
            (11_000, 1, commits(3, attack(1, 1, 1))),
        ]
    }

    #[test]
    fn o3_a_holder_acts_until_its_margin_after_sending_its_last_acknowledged_renewal() {
        assert_eq!(breaks_at::<OwnClock>(&tell(renewed())), None);
        let own = authority(hero(), 1, 1);
        for what in [
            commits(4, attack(1, 1, 1)),
            emitted(own, 1),
            serving(own, east(0)),
            moved(own, 1, 1, east(0), east(1)),
            answered(1, 1, hit(100, 900)),
        ] {
            let mut bad = renewed();
            bad.push((11_001, 1, what));
            assert_eq!(breaks_at::<OwnClock>(&tell(bad)), Some(7), "a millisecond late");
        }
    }

    #[test]
    fn o3_only_an_acknowledged_renewal_counts_and_a_late_one_revives() {
        let mut unanswered = renewed();
        unanswered.insert(6, (5_000, 1, asks(4, Submission::KeepAlive(lease(1)))));
        unanswered.push((12_000, 1, commits(5, attack(1, 1, 1))));
        assert_eq!(breaks_at::<OwnClock>(&tell(unanswered)), Some(8));

        let mut revived = renewed();
        revived.push((14_000, 1, asks(4, Submission::KeepAlive(lease(1)))));
        revived.push((14_500, 1, hears(4, Answer::KeptAlive(Outcome::Done(TTL)))));
        revived.push((15_000, 1, commits(5, attack(1, 1, 1))));
        assert_eq!(breaks_at::<OwnClock>(&tell(revived)), None);
    }

    #[test]
    fn o3_a_repeated_grant_counts_from_its_first_sending() {
        let grant = || Submission::Grant { lease: lease(1), ttl: TTL };
        let mut lines = vec![
            (0, 1, What::Started),
            (0, 1, identity(1)),
            (0, 1, asks(1, grant())),
            (2_000, 1, hears(1, Answer::Granted(Outcome::Unknown))),
            (2_000, 1, asks(2, grant())),
            (2_100, 1, hears(2, Answer::Granted(Outcome::Refused(Refusal::LeaseExists)))),
            (8_000, 1, commits(3, attack(1, 1, 1))),
        ];
        assert_eq!(breaks_at::<OwnClock>(&tell(lines.clone())), None);
        lines.push((8_001, 1, commits(4, attack(1, 1, 1))));
        assert_eq!(breaks_at::<OwnClock>(&tell(lines)), Some(7));
    }

    #[test]
    fn o3_an_identity_that_was_never_granted_allows_nothing() {
        let lines = [(0, 1, What::Started), (0, 1, identity(1)), (1, 1, commits(1, attack(1, 1, 1)))];
        assert_eq!(breaks_at::<OwnClock>(&tell(lines)), Some(2));
    }
}
