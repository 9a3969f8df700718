//! The doors: each operation is answered at once, soon, about its deadline, late, twice or never.

use super::Shared;
use crate::script::{between, draws, pause};
use madsim::task::spawn;
use std::{
    sync::Arc,
    task::{Wake, Waker},
};
use worldline_proto::OpId;
use worldline_real::{Doors, Inbox};
use worldline_system::{
    doors::{Asked, bus, cache, directory, entropy::Entropy, ledger, network},
    time::Duration,
};

/// The part of the draws for operations begins here.
const OPERATIONS: u64 = 1_000;

/// What brings to the wire what the role has submitted.
struct Writer(Shared);

impl Wake for Writer {
    fn wake(self: Arc<Self>) {
        self.0.book().written();
    }
}

pub struct Scripted {
    book: Shared,
    inbox: Inbox,
}

impl Scripted {
    pub fn new(book: Shared, inbox: Inbox) -> Self {
        Self { book, inbox }
    }

    fn asked(&self, op: OpId) {
        let deadline = self.book.book().left(op);
        self.book.book().writes();
        self.inbox.wake_writer(Waker::from(Arc::new(Writer(self.book.clone()))));
        let mut draws = draws(OPERATIONS + op.counter);
        let left = deadline.since(worldline_real::clock::now());
        let soon = |draws: &mut Entropy| between(draws, Duration::ZERO, Duration::from_millis(10));
        let about = Duration::from_millis(1);
        let waits = match draws.below(8) {
            0 => return answer(&self.book, &self.inbox, op),
            1 | 2 => vec![soon(&mut draws)],
            3 | 4 => vec![between(&mut draws, left - about, left + about)],
            5 => vec![left + soon(&mut draws)],
            6 => vec![soon(&mut draws), soon(&mut draws)],
            _ => return,
        };
        for wait in waits {
            let (book, inbox) = (self.book.clone(), self.inbox.clone());
            // Whoever asked does not wait for it.
            drop(spawn(async move {
                pause(wait).await;
                answer(&book, &inbox, op);
            }));
        }
    }
}

fn answer(book: &Shared, inbox: &Inbox, op: OpId) {
    let event = book.book().answers(op);
    inbox.answer(op, event);
}

impl Doors for Scripted {
    fn network(&mut self, _: network::Submission) {}

    fn directory(&mut self, asked: Asked<directory::Submission>) {
        self.asked(asked.op);
    }

    fn ledger(&mut self, _: Asked<ledger::Submission>) {}

    fn bus(&mut self, _: Asked<bus::Submission>) {}

    fn cache(&mut self, asked: Asked<cache::Submission>) {
        self.asked(asked.op);
    }
}
