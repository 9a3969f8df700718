//! E6: the outbox, the stream and its readers tell what the ledger has committed, and nothing else.

use super::{Check, Checker, Facts, Invariant, LedgerRows, Setup, View, breach, table::Table};
use std::collections::BTreeMap;
use worldline_proto::{EntityId, FactSequence, NodeId};
use worldline_system::{
    doors::{
        bus::{MessageId, Subject},
        ledger::{FactBody, FactRow, OpResult, Operation, Verdict},
    },
    facts::{self, Undecodable},
    history::{Acceptance, Entry, Note, What},
    time::{Duration, Instant},
};

/// How soon after its commit a fact is published and read, where nothing is broken: the relay's age and period, a publish, a
/// delivery, and room for what had piled up.
const WITHIN: Duration = Duration::from_secs(10);

/// A fact that the ledger has committed.
#[derive(Clone, Copy, Debug)]
struct Committed {
    fact: FactRow,
    at: Instant,
    published: bool,
}

/// Somebody who follows aggregates.
#[derive(Clone, Debug, Default)]
struct Reader {
    /// Up to where it has taken in the facts of each aggregate, and since when it follows it.
    stands: BTreeMap<EntityId, (FactSequence, Instant)>,
}

/// E6. Believes the ledger's operations, and holds against them its outbox, the stream, and what readers note.
#[derive(Clone, Debug)]
pub struct Outbox {
    /// Of each aggregate, its facts from number 1 on.
    committed: Table<EntityId, Vec<Committed>>,
    readers: BTreeMap<NodeId, Reader>,
    /// Who relays, and since when.
    leader: Option<(NodeId, Instant)>,
    applied: bool,
    listed: bool,
    streamed: bool,
    read: bool,
    settled: bool,
}

impl Outbox {
    fn of(&self, aggregate: EntityId) -> &[Committed] {
        self.committed.get(aggregate).map_or(&[], Vec::as_slice)
    }

    /// The fact of this number, if the ledger has committed it.
    fn find(&mut self, aggregate: EntityId, sequence: FactSequence) -> Option<&mut Committed> {
        let place = usize::try_from(sequence.0.checked_sub(1)?).ok()?;
        self.committed.get_mut(aggregate)?.get_mut(place)
    }

    /// The ledger has committed an operation, and with it this row of the outbox.
    fn commit(&mut self, operation: &Operation, verdict: Verdict, fact: Option<&FactRow>, at: Instant) -> Check {
        self.applied = true;
        let key = || format!("operation {} of {}", operation.number, operation.character);
        let expected = match verdict {
            Verdict::Applied(OpResult::Hit { target, dealt, remaining, experience, bounty }) => {
                Some((target, FactBody::Hit { dealt, remaining, experience, bounty }))
            }
            _ => None,
        };
        let (target, body, fact) = match (expected, fact) {
            (None, None) => return Ok(()),
            (None, Some(fact)) => breach!("{} came to {verdict:?} and wrote {fact:?}", key()),
            (Some((target, _)), None) => breach!("{} hit {target} and wrote no fact", key()),
            (Some((target, body)), Some(fact)) => (target, body, *fact),
        };
        let facts = self.committed.slot(target);
        let sequence = FactSequence(facts.len() as u64 + 1);
        let (character, number) = (operation.character, operation.number);
        let right = FactRow { aggregate: target, sequence, character, number, body };
        if fact != right {
            breach!("{} wrote {fact:?}; the next fact of {target} is {right:?}", key());
        }
        facts.push(Committed { fact, at, published: false });
        Ok(())
    }

    /// The stream has stored a message.
    fn stream(&mut self, subject: Subject, message: MessageId, payload: &[u8]) -> Check {
        self.streamed = true;
        let fact = match facts::decode(payload) {
            Ok(fact) => fact,
            Err(Undecodable::Version(version)) if version > facts::VERSION => {
                return self.stream_newer(subject, message);
            }
            Err(why) => breach!("the stream stored {message}: {why}"),
        };
        let FactRow { aggregate, sequence, .. } = fact;
        let named = MessageId { entity: aggregate, number: sequence.0 };
        if (subject, message) != (Subject::Fact(aggregate), named) {
            breach!("the stream stored fact {sequence} of {aggregate} under {subject} as {message}");
        }
        match self.find(aggregate, sequence) {
            Some(committed) if committed.fact == fact => {
                committed.published = true;
                Ok(())
            }
            Some(committed) => breach!("the stream stored {fact:?}; the ledger has committed {:?}", committed.fact),
            None => breach!("the stream stored fact {sequence} of {aggregate}, and the ledger has committed none such"),
        }
    }

    /// The stream has stored what a newer build wrote. What it tells only such a build can read; of what it tells, its name says.
    fn stream_newer(&mut self, subject: Subject, message: MessageId) -> Check {
        let MessageId { entity, number } = message;
        match self.find(entity, FactSequence(number)) {
            Some(committed) if subject == Subject::Fact(entity) => {
                committed.published = true;
                Ok(())
            }
            _ => breach!("a newer build had the stream store {message} under {subject}, and nothing such is committed"),
        }
    }

    /// A reader has taken over the state of an aggregate.
    fn snapshot(&mut self, node: NodeId, aggregate: EntityId, sequence: FactSequence, at: Instant) -> Check {
        self.read = true;
        let last = self.of(aggregate).len() as u64;
        if sequence.0 > last {
            breach!("{node} reads {aggregate} through fact {sequence}, and the ledger has committed {last}");
        }
        let stands = &mut self.readers.entry(node).or_default().stands;
        let (before, _) = stands.entry(aggregate).or_insert((FactSequence(0), at));
        if sequence < *before {
            breach!("{node} goes back from fact {before} of {aggregate} to a state that ends with {sequence}");
        }
        *before = sequence;
        Ok(())
    }

    /// A reader has taken in a fact.
    fn apply(&mut self, node: NodeId, aggregate: EntityId, sequence: FactSequence, at: Instant) -> Check {
        self.read = true;
        let last = self.of(aggregate).len() as u64;
        let stands = &mut self.readers.entry(node).or_default().stands;
        let (before, _) = stands.entry(aggregate).or_insert((FactSequence(0), at));
        let next = before.next();
        if sequence < next {
            breach!("{node} applies fact {sequence} of {aggregate} again: it stood at {before}");
        }
        if sequence > next {
            breach!("{node} applies fact {sequence} of {aggregate} and has missed {next}");
        }
        if sequence.0 > last {
            breach!("{node} applies fact {sequence} of {aggregate}, and the ledger has committed {last}");
        }
        *before = sequence;
        Ok(())
    }

    /// The outbox is what the transactions have written, and no more.
    fn list(&mut self, ledger: &dyn LedgerRows) -> Check {
        self.listed = true;
        let mut listed: Table<EntityId, u64> = Table::default();
        let mut odd = None;
        ledger.each_fact(&mut |fact| {
            *listed.slot(fact.aggregate) += 1;
            let known = self.find(fact.aggregate, fact.sequence).map(|committed| committed.fact);
            if known != Some(fact) {
                odd.get_or_insert((fact, known));
            }
        });
        if let Some((fact, known)) = odd {
            breach!("the outbox has {fact:?}; the ledger's operations wrote {known:?} there");
        }
        for facts in self.committed.values() {
            let Some(Committed { fact, .. }) = facts.last() else { continue };
            let found = listed.get(fact.aggregate).copied().unwrap_or_default();
            if found != fact.sequence.0 {
                breach!("the outbox has {found} facts of {}; {} were written", fact.aggregate, fact.sequence);
            }
        }
        Ok(())
    }

    /// What was committed in good time has been published.
    fn all_published(&self, now: Instant) -> Check {
        let due = |committed: &&Committed| !committed.published && now.since(committed.at) > WITHIN;
        if let Some(Committed { fact, at, .. }) = self.committed.values().flatten().find(due) {
            let age = now.since(*at);
            breach!("fact {} of {} was committed {age} ago and never published", fact.sequence, fact.aggregate);
        }
        Ok(())
    }

    /// Whoever follows an aggregate has taken in what was committed in good time.
    fn all_read(&self, now: Instant) -> Check {
        for (node, reader) in &self.readers {
            for (&aggregate, &(stands, since)) in &reader.stands {
                if now.since(since) <= WITHIN {
                    continue;
                }
                let due = |committed: &&Committed| now.since(committed.at) > WITHIN;
                let last = self.of(aggregate).iter().rfind(due).map(|committed| committed.fact.sequence);
                if let Some(last) = last.filter(|&last| last > stands) {
                    breach!("{node} stands at fact {stands} of {aggregate}, and {last} was committed long ago");
                }
            }
        }
        Ok(())
    }
}

impl Checker for Outbox {
    const INVARIANT: Invariant = Invariant::E6;

    fn new(_: &Setup) -> Self {
        Self {
            committed: Table::default(),
            readers: BTreeMap::new(),
            leader: None,
            applied: false,
            listed: false,
            streamed: false,
            read: false,
            settled: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Accepted(Acceptance::OperationApplied { operation, verdict, fact, .. }) => {
                return self.commit(operation, *verdict, fact.as_deref(), entry.at);
            }
            What::Accepted(Acceptance::Published { subject, message, payload, .. }) => {
                return self.stream(*subject, *message, payload);
            }
            &What::Noted(Note::FactSnapshot { aggregate, sequence }) => {
                return self.snapshot(entry.node, aggregate, sequence, entry.at);
            }
            &What::Noted(Note::FactApplied { aggregate, sequence }) => {
                return self.apply(entry.node, aggregate, sequence, entry.at);
            }
            What::Noted(Note::Elected { .. }) => self.leader = Some((entry.node, entry.at)),
            What::Noted(Note::Deposed { .. }) => self.leader = self.leader.filter(|(node, _)| *node != entry.node),
            What::Started | What::Crashed | What::Stopped => {
                // Whoever starts anew begins with the ledger.
                self.readers.remove(&entry.node);
                self.leader = self.leader.filter(|(node, _)| *node != entry.node);
            }
            _ => {}
        }
        Ok(())
    }

    fn at_end(&mut self, view: &View<'_>) -> Check {
        if let Some(ledger) = view.ledger {
            self.list(ledger)?;
        }
        let relayed = self.leader.is_some_and(|(_, since)| view.at.since(since) > WITHIN);
        if view.settled && relayed && view.services.is_none_or(|services| services.ledger) {
            self.settled = true;
            if self.streamed {
                self.all_published(view.at)?;
                self.all_read(view.at)?;
            }
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        match () {
            () if !self.applied => Some("the ledger applied nothing"),
            () if !self.listed => Some("nobody listed the outbox"),
            () if !self.streamed => Some("the outbox is right, and nobody told of the stream"),
            () if !self.read => Some("outbox and stream are right, and nobody read them"),
            () if !self.settled => Some("nothing was wrong, and the run did not end settled with a relay"),
            () => None,
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
