//! L7: whoever tries again waits longer each time, never in step with others, and so often at most.

use super::{Check, Checker, Facts, Invariant, Setup, breach, table::Table};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use worldline_proto::{CharacterId, EntityId, Epoch, LeaseId, NodeId, Nonce, OpId};
use worldline_system::{
    Outcome,
    doors::{
        bus::{self, MessageId},
        directory::{self, Key, Value, Write},
        ledger::{self, Batch},
    },
    history::{Completion, Entry, Invocation, Note, What},
    knobs::Retry,
    time::{Duration, Instant},
};

/// Tries are counted within so long.
const WINDOW: Duration = Duration::from_secs(10);
/// Waits of one length, to the nanosecond, over all nodes: by chance two of some thousands are alike, and hardly ever three.
const ALIKE_MAX: u32 = 3;
/// Waits that are told apart; later ones are not compared any more.
const WAITS_MAX: usize = 1 << 16;
/// What rounding and the conversion of clocks may take off a wait.
const ROUNDING: Duration = Duration::from_millis(1);

/// What is tried, so that the same can be recognised when it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    /// A lease is asked for.
    Grant(LeaseId),
    /// It is renewed.
    Renewal(LeaseId),
    /// Records are raised to new epochs; known by the first of their nonces.
    Records(Nonce),
    /// Fences are raised; known by the first of them.
    Claim(LeaseId, EntityId, Epoch),
    /// A batch is committed. A worker has one in flight.
    Commit,
    /// A session is begun.
    Login(CharacterId, Nonce),
    /// The directory's revision is asked for, to watch from there on.
    Watch,
    /// The ledger is asked how everything stands.
    Compare,
    /// A fact is published.
    Publish(MessageId),
    /// A client turns to a gateway. Whether it came through is not in the history, only when it was welcomed.
    Connect,
    /// A client sends its operations again.
    Resend,
}

impl Deed {
    const fn name(self) -> &'static str {
        match self {
            Self::Grant(_) => "grant",
            Self::Renewal(_) => "renewal",
            Self::Records(_) => "transaction of records",
            Self::Claim(..) => "claim",
            Self::Commit => "commit",
            Self::Login(..) => "login",
            Self::Watch => "read of the revision to watch from",
            Self::Compare => "comparison with the ledger",
            Self::Publish(_) => "publish",
            Self::Connect => "connection to a gateway",
            Self::Resend => "burst of operations",
        }
    }

    /// Whether its waits grow with its failures. What is published again is found by a sweep, which has a period of its own; a
    /// comparison is also asked for by whatever was missed; and who resends waits for an answer, not for the end of a failure.
    const fn backs_off(self) -> bool {
        !matches!(self, Self::Publish(_) | Self::Compare | Self::Resend)
    }

    /// Whether its waits are drawn, and nothing else is in them.
    const fn is_drawn(self) -> bool {
        self.backs_off() && !matches!(self, Self::Connect)
    }

    fn of(invocation: &Invocation) -> Option<Self> {
        match invocation {
            Invocation::Directory(directory::Submission::Grant { lease, .. }) => Some(Self::Grant(*lease)),
            Invocation::Directory(directory::Submission::KeepAlive(lease)) => Some(Self::Renewal(*lease)),
            Invocation::Directory(directory::Submission::Transact(transaction)) => {
                let nonce = transaction.writes.iter().find_map(|write| match write {
                    Write::Put { value: Value::Owner(owner), .. } => Some(owner.nonce),
                    Write::Put { .. } | Write::Delete(_) => None,
                })?;
                Some(Self::Records(nonce))
            }
            Invocation::Directory(directory::Submission::Get { key: Key::Leader, .. }) => Some(Self::Watch),
            Invocation::Ledger(ledger::Submission::Claim { lease, entities }) => {
                entities.first().map(|&(entity, epoch)| Self::Claim(*lease, entity, epoch))
            }
            Invocation::Ledger(ledger::Submission::Commit(_)) => Some(Self::Commit),
            Invocation::Ledger(ledger::Submission::Login { character, nonce, .. }) => {
                Some(Self::Login(*character, *nonce))
            }
            Invocation::Ledger(ledger::Submission::Snapshot { .. }) => Some(Self::Compare),
            Invocation::Bus(bus::Submission::Publish { message, .. }) => Some(Self::Publish(*message)),
            _ => None,
        }
    }
}

/// Whether an answer ended what was tried, for good or ill.
fn is_over(completion: &Completion) -> bool {
    fn done<T>(outcome: &Outcome<T>) -> bool {
        matches!(outcome, Outcome::Done(_))
    }
    match completion {
        Completion::Directory(directory::Answer::Granted(outcome)) => done(outcome),
        Completion::Directory(directory::Answer::KeptAlive(outcome)) => done(outcome),
        Completion::Directory(directory::Answer::Transacted(outcome)) => done(outcome),
        Completion::Directory(directory::Answer::Got(outcome)) => done(outcome),
        Completion::Ledger(ledger::Answer::Claimed(outcome)) => done(outcome),
        Completion::Ledger(ledger::Answer::Committed(outcome)) => done(outcome),
        Completion::Ledger(ledger::Answer::LoggedIn(outcome)) => done(outcome),
        Completion::Ledger(ledger::Answer::Snapshot(outcome)) => done(outcome),
        Completion::Bus(bus::Answer::Published(outcome)) => done(outcome),
        _ => true,
    }
}

/// One thing that has failed so far.
#[derive(Clone, Debug, Default)]
struct Tries {
    failures: u32,
    /// By the node's own clock.
    failed: Option<Instant>,
    /// When it was tried again lately.
    again: VecDeque<Instant>,
}

/// What one life of a node tries.
#[derive(Clone, Debug, Default)]
struct Life {
    asked: BTreeMap<OpId, Deed>,
    tries: BTreeMap<Deed, Tries>,
    /// The batch that was committed last, to tell whether the next one is the same.
    batch: Option<Arc<Batch>>,
    /// It has been silent and puts itself in order: what it tries then, it tries at each step of that.
    resuming: bool,
}

/// L7. Recognises every operation that is submitted again after a failure, for as long as the node's life is the same and it does
/// not resume from a suspension. The waits are held against the bounds of the design, by the node's own clock.
#[derive(Clone, Debug)]
pub struct Retries {
    retry: Retry,
    /// Tries of one thing within [`WINDOW`] if every wait is as short as it may be.
    again_max: usize,
    lives: Table<NodeId, Life>,
    waits: BTreeMap<Duration, u32>,
    seen: bool,
}

/// The shortest wait behind so many failures in a row.
fn shortest(retry: Retry, failures: u32) -> Duration {
    (retry.first * (1 << failures.saturating_sub(1).min(16))).min(retry.longest) / 2
}

impl Retries {
    fn invoked(&mut self, entry: &Entry, op: OpId, invocation: &Invocation) -> Check {
        let Some(deed) = Deed::of(invocation) else { return Ok(()) };
        let life = self.lives.slot(entry.node);
        if let Invocation::Ledger(ledger::Submission::Commit(batch)) = invocation {
            let before = life.batch.replace(Arc::clone(batch));
            if life.tries.contains_key(&deed) && before.as_ref() != Some(batch) {
                life.tries.remove(&deed);
            }
        }
        life.asked.insert(op, deed);
        self.again(entry, deed)
    }

    /// A client does something that it did before, and that has come to nothing since.
    fn noted(&mut self, entry: &Entry, deed: Deed) -> Check {
        self.again(entry, deed)?;
        self.failed(entry, deed);
        Ok(())
    }

    fn failed(&mut self, entry: &Entry, deed: Deed) {
        let tries = self.lives.slot(entry.node).tries.entry(deed).or_default();
        tries.failures = tries.failures.saturating_add(1);
        tries.failed = Some(entry.local);
    }

    /// Somebody tries this. Nothing to say if it has not failed.
    fn again(&mut self, entry: &Entry, deed: Deed) -> Check {
        let life = self.lives.slot(entry.node);
        let resuming = life.resuming;
        let Some(tries) = life.tries.get_mut(&deed) else { return Ok(()) };
        let Some(failed) = tries.failed.take() else { return Ok(()) };
        self.seen = true;
        let (now, failures) = (entry.local, tries.failures);
        while tries.again.front().is_some_and(|&at| now.since(at) > WINDOW) {
            tries.again.pop_front();
        }
        tries.again.push_back(now);
        if tries.again.len() > self.again_max {
            let (name, most, times) = (deed.name(), self.again_max, tries.again.len());
            breach!("{} tried a {name} again {times} times within {WINDOW}; {most} is the most", entry.node);
        }
        let wait = now.since(failed);
        if resuming || !deed.backs_off() {
            return Ok(());
        }
        let least = shortest(self.retry, failures);
        if wait + ROUNDING < least {
            let name = deed.name();
            breach!(
                "{} tried a {name} again {wait} after failure {failures} in a row; {least} is the least",
                entry.node
            );
        }
        if deed.is_drawn() && self.waits.len() < WAITS_MAX {
            let alike = self.waits.entry(wait).or_default();
            *alike += 1;
            if *alike >= ALIKE_MAX {
                breach!("{ALIKE_MAX} waits were {wait}, to the nanosecond: the last behind a {}", deed.name());
            }
        }
        Ok(())
    }

    fn completed(&mut self, entry: &Entry, op: OpId, completion: &Completion) {
        let Some(life) = self.lives.get_mut(entry.node) else { return };
        let Some(deed) = life.asked.remove(&op) else { return };
        if is_over(completion) {
            life.tries.remove(&deed);
            return;
        }
        self.failed(entry, deed);
    }
}

impl Checker for Retries {
    const INVARIANT: Invariant = Invariant::L7;

    fn new(setup: &Setup) -> Self {
        let mut left = WINDOW;
        let mut again_max = 1;
        while left > Duration::ZERO {
            again_max += 1;
            left = left - shortest(setup.retry, again_max).max(ROUNDING);
        }
        Self {
            retry: setup.retry,
            again_max: again_max as usize + 1,
            lives: Table::default(),
            waits: BTreeMap::new(),
            seen: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Invoked(op, invocation) => return self.invoked(entry, *op, invocation),
            What::Completed(op, completion) => self.completed(entry, *op, completion),
            What::Noted(Note::Connecting { .. }) => return self.noted(entry, Deed::Connect),
            What::Noted(Note::Resent { .. }) => return self.noted(entry, Deed::Resend),
            What::Noted(Note::Joined { .. }) => {
                let tries = &mut self.lives.slot(entry.node).tries;
                tries.remove(&Deed::Connect);
                tries.remove(&Deed::Resend);
            }
            What::Started | What::Crashed | What::Stopped => *self.lives.slot(entry.node) = Life::default(),
            What::Noted(note @ (Note::Suspended { .. } | Note::Resumed { .. } | Note::Fenced { .. })) => {
                let life = self.lives.slot(entry.node);
                life.resuming = matches!(note, Note::Suspended { .. });
                life.tries.clear();
            }
            _ => {}
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("nothing was tried again")
    }
}

#[cfg(test)]
#[path = "retries_tests.rs"]
mod tests;
