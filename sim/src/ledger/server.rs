//! The primary's side of a statement: it arrives, takes its row locks in id order, executes, and waits for its commit.
//!
//! A transaction that waits for the standby keeps its locks, so nobody reads what may still be lost; who wants the same
//! rows queues behind it. The queues are bounded by the connections of all callers.

use super::{
    Answer, Item, Model, Response, Statement,
    database::Slot,
    fault::{Draw, When, draw},
    functions::{Executed, execute, rows_of},
    later,
    pool::{lost, refused},
    wal::{Record, Reply},
};
use crate::{
    Core,
    replication::{happens, retransmit_at},
};
use std::collections::VecDeque;
use worldline_proto::{NodeId, OpId};
use worldline_system::{
    Refusal,
    doors::ledger::Submission,
    time::{Duration, Instant},
};

/// PostgreSQL's `deadlock_timeout`: it looks for one only then.
const DEADLOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Who holds a row and who waits for it, in order.
#[derive(Clone, Debug)]
pub(super) struct Lock {
    holder: u64,
    waiters: VecDeque<u64>,
}

/// A statement that holds locks or waits for them.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    statement: Box<Statement>,
    rows: Vec<Slot>,
    /// How many of the rows it has locked.
    held: usize,
    waited: bool,
}

impl Model {
    /// A statement has come in over the network.
    pub(super) fn arrive(&mut self, core: &mut Core, statement: Box<Statement>) {
        if self.members[statement.member].sessions != statement.sessions {
            // The connection belongs to an earlier life of the server: it answers with a reset.
            let answer = lost(&statement.submission);
            return self.reply_broken(core, &statement, answer);
        }
        let held =
            self.faults.delay(statement.client).filter(|_| matches!(statement.submission, Submission::Commit(_)));
        let takes = core.service_times.ledger(&statement.submission) + held.unwrap_or_default();
        if takes == Duration::ZERO {
            return self.begin(core, statement);
        }
        let node = self.members[statement.member].node;
        later(core, core.now() + takes, node, Item::Execute(statement));
    }

    /// Begins the transaction.
    pub(super) fn begin(&mut self, core: &mut Core, statement: Box<Statement>) {
        if statement.member != self.primary || self.demoted || core.now() < self.members[self.primary].ready {
            let answer = refused(&statement.submission, Refusal::ReadOnly);
            return self.reply_broken(core, &statement, answer);
        }
        if self.members[self.primary].sessions != statement.sessions {
            return; // It sat in a backend that is gone.
        }
        self.statements += 1;
        let number = self.statements;
        match self.faults.breaks(core, number) {
            Some(When::Before) => return self.reply_broken(core, &statement, lost(&statement.submission)),
            Some(When::During) => {
                self.reply_broken(core, &statement, lost(&statement.submission));
                if draw(core, Draw::Half, 0, number) & 1 == 0 {
                    return;
                }
            }
            Some(When::After) | None => {}
        }
        let rows = rows_of(&self.database, &statement.submission);
        self.transactions.insert(number, Transaction { statement, rows, held: 0, waited: false });
        self.proceed(core, number);
    }

    /// Takes the next locks of a transaction, and executes it when it has them all.
    fn proceed(&mut self, core: &mut Core, number: u64) {
        let transaction = self.transactions.get_mut(&number).expect("it goes on");
        while let Some(&row) = transaction.rows.get(transaction.held) {
            let lock = self.locks.entry(row).or_insert_with(|| Lock { holder: number, waiters: VecDeque::new() });
            if lock.holder != number {
                lock.waiters.push_back(number);
                transaction.waited = true;
                return;
            }
            transaction.held += 1;
        }
        self.execute(core, number);
    }

    fn execute(&mut self, core: &mut Core, number: u64) {
        let transaction = &self.transactions[&number];
        if let Some((refusal, after)) = self.abort(core, number, transaction) {
            let statement = self.release(core, number).expect("it was just looked at");
            let at = core.now() + after;
            return self.reply_at(core, at, &statement, refused(&statement.submission, refusal), false);
        }
        let Executed { answer, undo, acceptances } =
            execute(&mut self.database, core.now(), &transaction.statement.submission);
        let Statement { client, op, deadline, .. } = *transaction.statement;
        if !transaction.statement.submission.is_read() {
            self.end += 1;
            self.wal.push_back(Record { number: self.end, undo, acceptances });
        }
        self.replies.push_back(Reply { at: self.end, transaction: number, client, op, deadline, answer });
        self.flush(core, self.primary);
        self.complete(core);
    }

    /// Why a transaction that has its locks is rolled back nevertheless, and how long that takes.
    fn abort(&self, core: &Core, number: u64, transaction: &Transaction) -> Option<(Refusal, Duration)> {
        let faults = &self.faults;
        let hit = |what, permille| permille > 0 && happens(draw(core, what, 0, number), permille);
        let writes = !transaction.statement.submission.is_read();
        let now = Duration::ZERO;
        match () {
            () if writes && faults.read_only => Some((Refusal::ReadOnly, now)),
            () if writes && faults.disk_full => Some((Refusal::DiskFull, now)),
            () if hit(Draw::Serialization, faults.serialization) => Some((Refusal::SerializationFailure, now)),
            () if transaction.waited && hit(Draw::Contended, faults.contended) => {
                Some((Refusal::SerializationFailure, now))
            }
            () if writes && hit(Draw::Deadlock, faults.deadlock) => Some((Refusal::Deadlock, DEADLOCK_TIMEOUT)),
            () => None,
        }
    }

    /// Ends a transaction: its locks go to who waits for them.
    fn release(&mut self, core: &mut Core, number: u64) -> Option<Box<Statement>> {
        let transaction = self.transactions.remove(&number)?;
        let mut next = vec![];
        for row in &transaction.rows[..transaction.held] {
            let lock = self.locks.get_mut(row).expect("a held row has a lock");
            match lock.waiters.pop_front() {
                Some(waiter) => {
                    lock.holder = waiter;
                    next.push(waiter);
                }
                None => {
                    self.locks.remove(row);
                }
            }
        }
        next.into_iter().for_each(|waiter| self.proceed(core, waiter));
        Some(transaction.statement)
    }

    /// The transaction stands on primary and standby: its caller is told.
    pub(super) fn committed(&mut self, core: &mut Core, reply: Reply) {
        let Reply { transaction: number, client, op, deadline, answer, .. } = reply;
        let Some(statement) = self.release(core, number) else { return };
        match self.faults.breaks(core, number) {
            Some(When::During) => return, // It was told when it broke.
            Some(When::After) => return self.reply_broken(core, &statement, lost(&statement.submission)),
            Some(When::Before) | None => {}
        }
        if !self.faults.swallows(core, client, number) {
            let response = Box::new(Response { client, op, deadline, broken: false, answer });
            self.respond(core, self.primary, response, 0);
        }
    }

    fn reply_broken(&mut self, core: &mut Core, statement: &Statement, answer: Answer) {
        self.reply_at(core, core.now(), statement, answer, true);
    }

    fn reply_at(&mut self, core: &mut Core, at: Instant, statement: &Statement, answer: Answer, broken: bool) {
        let &Statement { client, op, deadline, member, .. } = statement;
        let response = Box::new(Response { client, op, deadline, broken, answer });
        if at > core.now() {
            later(core, at, self.members[member].node, Item::Respond(member, response, 0));
        } else {
            self.respond(core, member, response, 0);
        }
    }

    /// An answer leaves its server; what is lost on the way is sent again until its caller has given up.
    pub(super) fn respond(&mut self, core: &mut Core, member: usize, response: Box<Response>, attempt: u8) {
        let (now, node) = (core.now(), self.members[member].node);
        let (client, op): (NodeId, OpId) = (response.client, response.op);
        if now > response.deadline || core.incarnation(client) != op.incarnation {
            return;
        }
        match core.hop(node, client) {
            Some(delay) => later(core, now + delay, client, Item::Answer(response)),
            None => {
                let again = Item::Respond(member, response, attempt.saturating_add(1));
                later(core, retransmit_at(now, attempt), node, again);
            }
        }
    }
}
