//! The publishes of one connection that wait for their acknowledgement.
//!
//! * One task sends them in the order in which they were asked for, as many at once as have gathered. A connection that takes no
//!   more refuses one as busy.
//! * All acknowledgements come in on one subscription, and the same task tells them, as many at once as have come. It also
//!   answers what is overdue, and everything when the connection is over.
//! * Each is answered once: by who takes it out of `waiting`. What never left is refused.

use super::{
    client::{Coming, Publish},
    link::{Line, UNANSWERED},
};
use crate::{Inbox, host::Bell};
use futures_util::{FutureExt as _, StreamExt as _};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};
use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit},
    time::{Instant, sleep_until},
};
use worldline_proto::OpId;
use worldline_system::{
    Outcome, Refusal,
    doors::{
        Event,
        bus::{self, Answer, Published},
    },
    outcome::End,
};

/// Acknowledgements that are told at once.
const TOGETHER: usize = 256;
/// When the task looks at deadlines where none is earlier.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// Who asks, and until when.
pub(super) struct Asker {
    pub op: OpId,
    pub by: Instant,
    /// Given back with the answer.
    pub _held: (OwnedSemaphorePermit, OwnedRwLockReadGuard<()>),
}

#[derive(Default)]
struct Waiting {
    askers: BTreeMap<u64, Asker>,
    due: BTreeSet<(Instant, u64)>,
    /// What has not left, by its number: at most one each that waits, and what is overdue.
    gathered: VecDeque<(u64, Publish)>,
    number: u64,
    /// The last that may have left.
    sent: u64,
    /// Up to when the task sleeps, if nothing comes.
    armed: Option<Instant>,
    over: bool,
}

impl Waiting {
    fn take(&mut self, number: u64) -> Option<Asker> {
        let asker = self.askers.remove(&number)?;
        self.due.remove(&(asker.by, number));
        Some(asker)
    }

    /// What is known of one that was not acknowledged.
    fn end(&self, number: u64) -> End {
        if number > self.sent { End::Refused(Refusal::Unreachable) } else { End::Unknown }
    }
}

/// The publishes of one connection.
pub(super) struct Publishes {
    inbox: Inbox,
    waiting: Mutex<Waiting>,
    /// Something has gathered, or is due before the task would look.
    wake: Arc<Bell>,
}

impl Publishes {
    /// Of a connection that was opened.
    pub fn new(inbox: Inbox) -> Self {
        Self { inbox, waiting: Mutex::default(), wake: Arc::default() }
    }

    /// Takes one, or answers that it is not sent.
    pub fn send(&self, line: &Line, publish: Publish, asker: Asker) {
        if !line.serves.load(Ordering::Relaxed) {
            return tell(&self.inbox, asker.op, End::Refused(Refusal::NotServing));
        }
        let mut waiting = self.waiting();
        if waiting.over || Instant::now() >= asker.by {
            drop(waiting);
            return tell(&self.inbox, asker.op, End::Refused(Refusal::Unreachable));
        }
        waiting.number += 1;
        let (number, by) = (waiting.number, asker.by);
        waiting.due.insert((by, number));
        waiting.askers.insert(number, asker);
        // The task that is woken for the first of them finds all that have gathered until it runs.
        let wake = waiting.gathered.is_empty() || waiting.armed.is_some_and(|armed| by < armed);
        waiting.gathered.push_back((number, publish));
        drop(waiting);
        if wake {
            self.inbox.wake_writer(self.wake.clone().into());
        }
    }

    /// Sends and answers, until the connection is over or too much on it was never acknowledged.
    pub async fn attend(&self, line: &Line, mut answers: Coming<(u64, Result<Published, End>)>) {
        let mut told = Vec::new();
        let look = sleep_until(self.arm());
        tokio::pin!(look);
        loop {
            tokio::select! {
                biased;
                answer = answers.next() => {
                    let Some((mut number, mut answer)) = answer else { return };
                    loop {
                        let asker = self.waiting().take(number);
                        told.extend(asker.map(|asker| (asker, answer)));
                        if told.len() >= TOGETHER {
                            break;
                        }
                        match answers.next().now_or_never() {
                            Some(Some(more)) => (number, answer) = more,
                            Some(None) | None => break,
                        }
                    }
                    self.inbox.answer_all(told.iter().map(|(asker, answer)| event(asker.op, *answer)));
                    told.clear();
                }
                () = self.wake.rung() => look.as_mut().reset(self.arm()),
                () = &mut look => {
                    let overdue = self.overdue();
                    for (asker, end) in &overdue {
                        tell(&self.inbox, asker.op, *end);
                    }
                    let count = overdue.iter().filter(|(_, end)| *end == End::Unknown).count();
                    let count = u32::try_from(count).unwrap_or(u32::MAX);
                    if line.unanswered.fetch_add(count, Ordering::Relaxed) >= UNANSWERED {
                        return;
                    }
                    look.as_mut().reset(self.arm());
                }
            }
            self.send_gathered(line);
        }
    }

    fn send_gathered(&self, line: &Line) {
        let gathered = {
            let mut waiting = self.waiting();
            let Some(&(last, _)) = waiting.gathered.back() else { return };
            waiting.sent = last;
            let gathered = std::mem::take(&mut waiting.gathered);
            gathered.into_iter().filter(|(number, _)| waiting.askers.contains_key(number)).collect::<Vec<_>>()
        };
        for (number, publish) in gathered {
            let Some(end) = line.connection.publish(number, publish) else { continue };
            let asker = self.waiting().take(number);
            if let Some(asker) = asker {
                tell(&self.inbox, asker.op, end);
            }
        }
    }

    /// The connection is over: nobody knows what became of what has left.
    pub fn end(&self) {
        let askers: Vec<(Asker, End)> = {
            let mut waiting = self.waiting();
            waiting.over = true;
            waiting.due.clear();
            waiting.gathered.clear();
            let askers = std::mem::take(&mut waiting.askers);
            askers.into_iter().map(|(number, asker)| (asker, waiting.end(number))).collect()
        };
        for (asker, end) in askers {
            tell(&self.inbox, asker.op, end);
        }
    }

    /// Until when the task may sleep.
    fn arm(&self) -> Instant {
        let mut waiting = self.waiting();
        let latest = Instant::now() + LOOK;
        let at = waiting.due.first().map_or(latest, |&(by, _)| by.min(latest));
        waiting.armed = Some(at);
        at
    }

    fn overdue(&self) -> Vec<(Asker, End)> {
        let (now, mut waiting) = (Instant::now(), self.waiting());
        let mut overdue = Vec::new();
        while let Some(&(by, number)) = waiting.due.first()
            && by <= now
        {
            let end = waiting.end(number);
            overdue.extend(waiting.take(number).map(|asker| (asker, end)));
        }
        overdue
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(op: OpId, answer: Result<Published, End>) -> (OpId, Event) {
    let answer = Box::new(Answer::Published(answer.map_or_else(Outcome::from, Outcome::Done)));
    (op, Event::Bus(bus::Event::Answered { op, answer }))
}

fn tell(inbox: &Inbox, op: OpId, end: End) {
    let (op, event) = event(op, Err(end));
    inbox.answer(op, event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_left_may_have_been_stored() {
        let waiting = Waiting { number: 7, sent: 5, ..Waiting::default() };
        assert_eq!(waiting.end(5), End::Unknown);
        assert_eq!(waiting.end(6), End::Refused(Refusal::Unreachable));
    }
}
