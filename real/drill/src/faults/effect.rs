//! Whether a fault has had an effect: what its deeds hit when it came, and what went wrong with statements and with the bus's
//! requests while it lasted.
//! A fault that hit nothing was not provoked, whatever was tried.

use super::{Deed, Plan, Target};
use crate::proxy::{requests::Counts as OfRequests, requests::Harm, statements::Counts as OfStatements};
use worldline_proto::NodeId;

/// What a deed has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Something is otherwise than it was.
    Hit,
    /// Nothing is, and why.
    Nothing(String),
}

impl Effect {
    /// `Hit` if it holds, else nothing, because of this.
    pub fn of(holds: bool, why: impl FnOnce() -> String) -> Self {
        if holds { Self::Hit } else { Self::Nothing(why()) }
    }
}

/// What a fault has come to when all its deeds were done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Come {
    /// The deeds that hit something.
    pub hit: Vec<Deed>,
    /// The nodes that it takes out or cuts off.
    pub lost: Vec<NodeId>,
    /// Why the others did not.
    pub missed: Vec<String>,
}

impl Come {
    /// Of these deeds and what each has come to. `lost`: whom the fault would take out, had all been hit.
    #[must_use]
    pub fn of(done: Vec<(Deed, Effect)>, lost: &[NodeId]) -> Self {
        let mut come = Self { lost: lost.to_vec(), ..Self::default() };
        for (deed, effect) in done {
            match effect {
                Effect::Hit => come.hit.push(deed),
                Effect::Nothing(why) => {
                    if let Deed::Crash(Target::Role(node))
                    | Deed::Kill(Target::Role(node))
                    | Deed::Stop(Target::Role(node))
                    | Deed::Restart(Target::Role(node))
                    | Deed::Pause(Target::Role(node)) = deed
                    {
                        come.lost.retain(|&lost| lost != node);
                    }
                    come.missed.push(why);
                }
            }
        }
        come
    }
}

/// What has gone wrong so far on the links whose bytes are understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// To the ledger.
    pub statements: OfStatements,
    /// To the bus.
    pub requests: OfRequests,
    /// Processes that were ended between two transactions of theirs.
    pub between_transactions: u64,
}

/// What a fault did on the links between these counts, in words, and whether that is nothing; each of its deeds for itself.
#[must_use]
pub fn done_on_links(plan: &Plan, before: Counts, after: Counts) -> Vec<(String, bool)> {
    let Counts { statements: was, requests: bus_was, between_transactions: ended_was } = before;
    let Counts { statements: is, requests: bus_is, between_transactions: ended } = after;
    let told = plan.begin.iter().filter_map(|deed| {
        let (verb, count, what) = match deed {
            Deed::LoseAnswers { .. } => ("swallowed", is.swallowed - was.swallowed, "answers"),
            Deed::LoseConnections(..) => ("broke", is.broken - was.broken, "connections"),
            Deed::DelayCommits(..) => ("delayed", is.delayed - was.delayed, "commits"),
            Deed::Requests(Harm::LoseAnswers { .. }) => {
                ("swallowed", bus_is.answers - bus_was.answers, "answers of the bus")
            }
            Deed::Requests(Harm::LoseRequests { .. }) => {
                ("swallowed", bus_is.requests - bus_was.requests, "requests to the bus")
            }
            Deed::Requests(Harm::DelayDeliveries(_)) => ("delayed", bus_is.delayed - bus_was.delayed, "deliveries"),
            Deed::CrashBetweenTransactions(..) => {
                ("ended", ended - ended_was, "process between two of its transactions")
            }
            _ => return None,
        };
        let nothing = count == 0;
        Some((if nothing { format!("{verb} nothing") } else { format!("{verb} {count} {what}") }, nothing))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{faults::Service, proxy::statements::When};
    use std::time::Duration;

    #[test]
    fn a_fault_that_hit_nothing_takes_nobody_out() {
        let [one, other] = [NodeId(8), NodeId(9)];
        let gone = || Effect::of(false, || "it does not run".to_owned());
        let kills = [one, other].map(|node| Deed::Kill(Target::Role(node)));
        let come = Come::of(kills.iter().cloned().zip([gone(), Effect::Hit]).collect(), &[one, other]);
        assert_eq!((come.hit, come.lost, come.missed.len()), (vec![kills[1].clone()], vec![other], 1));
        let come = Come::of(kills.into_iter().zip([gone(), gone()]).collect(), &[one, other]);
        assert_eq!((come.hit, come.lost, come.missed.len()), (vec![], vec![], 2));
        let etcd = Deed::Crash(Target::Service(Service::Directory));
        assert_eq!(Come::of(vec![(etcd, gone())], &[]).hit, []);
    }

    #[test]
    fn a_fault_of_statements_that_met_none_did_nothing() {
        let lose = Deed::LoseAnswers { from: None, permille: 1_000, count: 1 };
        let begin =
            vec![lose, Deed::LoseConnections(10, When::After), Deed::DelayCommits(None, Duration::from_secs(1))];
        let plan = Plan { begin, ..Plan::default() };
        let counts = |statements| Counts { statements, ..Counts::default() };
        let before = counts(OfStatements { swallowed: 3, broken: 4, delayed: 5 });
        let nothing: Vec<_> = done_on_links(&plan, before, before);
        assert_eq!(
            nothing.iter().map(|(what, nothing)| (what.as_str(), *nothing)).collect::<Vec<_>>(),
            [("swallowed nothing", true), ("broke nothing", true), ("delayed nothing", true)]
        );
        let after = counts(OfStatements { swallowed: 4, broken: 6, delayed: 5 });
        let done = done_on_links(&plan, before, after);
        assert_eq!(done.iter().map(|(_, nothing)| *nothing).collect::<Vec<_>>(), [false, false, true]);
        assert!(done_on_links(&Plan { begin: vec![Deed::Compact], ..Plan::default() }, before, after).is_empty());
        let lose = Harm::LoseAnswers { from: None, of: worldline_sim::bus::Which::All, permille: 1_000 };
        let plan = Plan { begin: vec![Deed::Requests(lose)], ..Plan::default() };
        assert_eq!(done_on_links(&plan, before, after), [("swallowed nothing".to_owned(), true)]);
    }
}
