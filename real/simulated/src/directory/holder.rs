//! A holder that renews its lease, somebody who writes, and somebody who watches, while etcd dies, stands still, and is cut off
//! from some of them. What befalls whom, and when, follows from the seed.
//!
//! * Soon after a fault has ended renewals are acknowledged again, or the lease is gone; and it is gone only when its time to
//!   live has passed since a renewal that was acknowledged was asked for.
//! * A watch tells every change in the order of revisions, each once, until it says that it has a gap.
//! * A change that was refused is never seen. One whose outcome is unknown may be.

use super::Stage;
use crate::log::Log;
use std::collections::{BTreeMap, BTreeSet};
use worldline_laws::Fault;
use worldline_proto::{EntityId, EntityKind, Epoch, LeaseId, Nonce, OpId, Revision};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        directory::{Answer, Change, Event, Family, Key, Ownership, Submission, Transaction, Value, Write},
        entropy::Entropy,
    },
    time::{Duration, Instant},
};

/// What the holders of several seeds must come across.
pub const HOLDER: &[&str] = &[
    "a renewal is acknowledged",
    "a renewal comes to nothing",
    "a lease has run out",
    "a change is told",
    "a watch has a gap",
    "an Unknown had happened",
    "an Unknown had not happened",
];

/// The callers.
const HOLDER_IS: usize = 0;
const WRITER_IS: usize = 1;
const WATCHER_IS: usize = 2;

/// Faults of a run.
const FAULTS: usize = 8;
const TTL: Duration = Duration::from_secs(5);
/// Keys that the writer writes in turn.
const BOSSES: u64 = 4;
/// How often the holder renews and the writer writes.
const PERIOD: Duration = Duration::from_millis(400);
const RENEWAL_PATIENCE: Duration = Duration::from_secs(2);
/// Longer than a connection that is silent is kept: what waits on it ends with it.
const WRITE_PATIENCE: Duration = Duration::from_secs(6);
/// The longest fault, in milliseconds.
const FAULT_MS: u64 = 6_000;
/// How long everybody has to be served again.
const BACK: Duration = Duration::from_secs(15);

/// One watch, from its beginning to its gap.
#[derive(Debug)]
struct Watch {
    from: Revision,
    /// The revisions that it has told, with the change that each made.
    told: BTreeMap<Revision, Nonce>,
}

/// What was asked and not answered yet.
enum Waiting {
    Grant(LeaseId, Instant),
    Renewal(Instant),
    Write(Nonce),
    Watch(Revision),
}

struct Holder {
    stage: Stage,
    log: Log,
    entropy: Entropy,
    waiting: BTreeMap<OpId, Waiting>,
    leases: u64,
    lease: Option<LeaseId>,
    /// When the last renewal that was acknowledged was asked for.
    renewed: Instant,
    /// When the last one was acknowledged.
    acknowledged: Instant,
    nonces: u64,
    done: BTreeMap<Nonce, Revision>,
    refused: BTreeSet<Nonce>,
    unknown: BTreeSet<Nonce>,
    watches: Vec<Watch>,
    /// The watch that stands.
    standing: Option<OpId>,
}

/// Plays the holder of a seed. Panics where a promise is broken.
#[must_use]
pub fn holder(seed: u64) -> Log {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut holder = Holder {
        stage: Stage::new(seed),
        log: Log::default(),
        entropy: Entropy::from_seed(bytes),
        waiting: BTreeMap::new(),
        leases: 0,
        lease: None,
        renewed: Instant::from_nanos(0),
        acknowledged: Instant::from_nanos(0),
        nonces: 0,
        done: BTreeMap::new(),
        refused: BTreeSet::new(),
        unknown: BTreeSet::new(),
        watches: vec![],
        standing: None,
    };
    holder.recover();
    for _ in 0..FAULTS {
        holder.fault();
        holder.recover();
    }
    holder.judge();
    holder.log
}

impl Holder {
    fn fault(&mut self) {
        let fault = [Fault::Kill, Fault::Stop, Fault::Cut, Fault::LoseRequests, Fault::LoseAnswers]
            [self.entropy.below(5) as usize];
        // Whom it befalls: a dead etcd is dead to all.
        let whom = 1 + self.entropy.below(7);
        let callers: Vec<usize> = (0..3).filter(|caller| whom >> caller & 1 == 1).collect();
        self.log.tell(self.stage.now(), "fault", &(fault, &callers));
        self.stage.befall(fault, &callers);
        let for_ms = self.entropy.below(FAULT_MS);
        self.live(Duration::from_millis(for_ms));
        self.stage.befall(Fault::Heal, &[0, 1, 2]);
    }

    /// Renews and writes for so long.
    fn live(&mut self, span: Duration) {
        let until = self.stage.now() + span;
        while self.stage.now() < until {
            self.ask();
            let next = until.min(self.stage.now() + PERIOD);
            while let Some((_, event)) = self.stage.next_event(next, &mut self.log) {
                self.hear(event);
            }
        }
    }

    /// Until a renewal, a change and news of it have come after this moment.
    fn recover(&mut self) {
        let since = self.stage.now();
        let written = self.nonces;
        loop {
            self.live(PERIOD);
            let told = self.watches.last().and_then(|watch| watch.told.values().max());
            let well = self.acknowledged > since && told.is_some_and(|nonce| nonce.0 > written);
            if well && self.standing.is_some() {
                return;
            }
            let lease = self.lease;
            assert!(self.stage.now() < since + BACK, "not served again: {lease:?} renewed at {:?}", self.acknowledged);
        }
    }

    fn ask(&mut self) {
        let now = self.stage.now();
        let asks = |waiting: &BTreeMap<OpId, Waiting>, is: fn(&Waiting) -> bool| waiting.values().any(is);
        let (patience, submission, waits) = match self.lease {
            Some(lease) => (RENEWAL_PATIENCE, Submission::KeepAlive(lease), Waiting::Renewal(now)),
            None => {
                self.leases += 1;
                let lease = LeaseId::from_bits(0x1000 + self.leases);
                (RENEWAL_PATIENCE, Submission::Grant { lease, ttl: TTL }, Waiting::Grant(lease, now))
            }
        };
        if !asks(&self.waiting, |one| matches!(one, Waiting::Renewal(_) | Waiting::Grant(..))) {
            let op = self.stage.submit(HOLDER_IS, patience, submission);
            self.waiting.insert(op, waits);
        }
        self.nonces += 1;
        let nonce = Nonce(self.nonces);
        // Several keys: what was told of one says nothing of the next.
        let boss = EntityId::new(EntityKind::Boss, 1 + nonce.0 % BOSSES).expect("a small number");
        let key = Key::Owner(boss);
        let value = Value::Owner(Ownership { lease: LeaseId::from_bits(1), epoch: Epoch(1), nonce });
        let writes = vec![Write::Put { key, value, lease: None }];
        let write = Submission::Transact(Transaction { compares: vec![], writes, otherwise: vec![] }.into());
        let op = self.stage.submit(WRITER_IS, WRITE_PATIENCE, write);
        self.waiting.insert(op, Waiting::Write(nonce));
        if self.standing.is_none() && !asks(&self.waiting, |one| matches!(one, Waiting::Watch(_))) {
            // From the first change on: what a gap has left out is told then.
            let from = Revision(1);
            let op =
                self.stage.submit(WATCHER_IS, RENEWAL_PATIENCE, Submission::Watch { family: Family::Owners, from });
            self.waiting.insert(op, Waiting::Watch(from));
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Answered { op, answer } => {
                let waiting = self.waiting.remove(&op).expect("it is answered once");
                self.answered(op, waiting, *answer);
            }
            Event::Changed { watch, changes, .. } => {
                assert_eq!(self.standing, Some(watch), "news of a watch that does not stand");
                let last = self.watches.last_mut().expect("it stands");
                for change in changes.iter() {
                    let Change::Put(record) = change else { panic!("nobody deletes: {change:?}") };
                    let Value::Owner(Ownership { nonce, .. }) = record.value else { panic!("{record:?}") };
                    let before = last.told.keys().next_back().copied();
                    assert!(before.is_none_or(|before| before < record.mod_revision), "{record:?} behind {before:?}");
                    last.told.insert(record.mod_revision, nonce);
                    self.log.note("a change is told");
                }
            }
            Event::Gap { watch, .. } => {
                assert_eq!(self.standing.take(), Some(watch), "the gap of a watch that does not stand");
                self.log.note("a watch has a gap");
            }
        }
    }

    fn answered(&mut self, op: OpId, waiting: Waiting, answer: Answer) {
        let now = self.stage.now();
        match (waiting, answer) {
            (Waiting::Grant(lease, asked), Answer::Granted(Outcome::Done(()))) => {
                (self.lease, self.renewed, self.acknowledged) = (Some(lease), asked, now);
            }
            (Waiting::Grant(..), Answer::Granted(_)) => {}
            (Waiting::Renewal(asked), Answer::KeptAlive(Outcome::Done(_))) => {
                (self.renewed, self.acknowledged) = (asked, now);
                self.log.note("a renewal is acknowledged");
            }
            (Waiting::Renewal(_), Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound))) => {
                assert!(now.since(self.renewed) >= TTL, "gone {:?} after its renewal", now.since(self.renewed));
                self.lease = None;
                self.log.note("a lease has run out");
            }
            (Waiting::Renewal(_), Answer::KeptAlive(_)) => self.log.note("a renewal comes to nothing"),
            (Waiting::Write(nonce), Answer::Transacted(outcome)) => match outcome {
                Outcome::Done(done) => drop(self.done.insert(nonce, done.revision)),
                Outcome::Refused(_) => drop(self.refused.insert(nonce)),
                Outcome::Unknown => drop(self.unknown.insert(nonce)),
            },
            (Waiting::Watch(from), Answer::Watching(Outcome::Done(()))) => {
                self.standing = Some(op);
                self.watches.push(Watch { from, told: BTreeMap::new() });
            }
            (Waiting::Watch(_), Answer::Watching(_)) => {}
            (_, other) => panic!("{other:?} answers something else"),
        }
    }

    fn judge(&mut self) {
        for watch in &self.watches {
            let Some((&last, _)) = watch.told.last_key_value() else { continue };
            for (nonce, revision) in self.done.iter().filter(|(_, revision)| (watch.from..=last).contains(revision)) {
                let told = watch.told.get(revision);
                assert_eq!(told, Some(nonce), "a watch leaves out {revision:?} though it tells up to {last:?}");
            }
        }
        let seen: BTreeSet<Nonce> = self.watches.iter().flat_map(|watch| watch.told.values().copied()).collect();
        let refused: Vec<_> = self.refused.intersection(&seen).collect();
        assert!(refused.is_empty(), "changes that were refused are there: {refused:?}");
        if self.unknown.intersection(&seen).next().is_some() {
            self.log.note("an Unknown had happened");
        }
        if self.unknown.difference(&seen).next().is_some() {
            self.log.note("an Unknown had not happened");
        }
    }
}
