//! The adapter on real etcd processes, one or more a test, which the test stops, kills and starts again.

mod bad_services;
mod calls;
mod etcd;
mod faults;
mod proxy;
mod watches;

use super::{Config, Directory};
use crate::{Inbox, clock, ready::Readiness};
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use worldline_proto::{EntityId, EntityKind, Epoch, Incarnation, LeaseId, NodeId, Nonce, OpId, Revision};
use worldline_system::{
    Outcome,
    doors::{
        self, Asked,
        directory::{
            Answer, Change, Compare, Consistency, Event, Family, GapCause, Key, Ownership, Page, Record, RegionId,
            Submission, Transacted, Transaction, Value, Worker, Write,
        },
    },
    limits, time,
};

/// How long the directory is given: more than a role gives it, for a machine may be busy.
const PATIENCE: time::Duration = time::Duration::from_secs(20);
/// More patience than any test has: who is answered within [`SOON`] was not answered by this deadline.
const LONG: time::Duration = time::Duration::from_secs(600);
/// What happens at all happens within this, also on a busy machine.
const SOON: time::Duration = time::Duration::from_secs(60);

/// A role's side of an adapter: what it asks and what it is told.
struct Caller {
    runtime: tokio::runtime::Runtime,
    directory: Directory,
    inbox: Inbox,
    ready: Readiness,
    asked: u64,
    answers: BTreeMap<OpId, Answer>,
    news: VecDeque<Event>,
}

impl Caller {
    fn new<U: AsRef<str>>(urls: &[U]) -> Self {
        let endpoints = urls.iter().map(|url| url.as_ref().parse().expect("a right address")).collect();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
        let (inbox, ready) = (Inbox::default(), Readiness::default());
        let directory = {
            let _inside = runtime.enter();
            Directory::new(Config { endpoints }, inbox.clone(), ready.clone())
        };
        Self { runtime, directory, inbox, ready, asked: 0, answers: BTreeMap::new(), news: VecDeque::new() }
    }

    /// One that is ready.
    fn connected<U: AsRef<str>>(urls: &[U]) -> Self {
        let caller = Self::new(urls);
        caller.until_ready();
        caller
    }

    fn until_ready(&self) {
        self.until("ready", |problems| problems.is_empty());
    }

    /// What is wrong with the directory, once it contains this.
    fn problem(&self, part: &str) -> String {
        let found = RefCell::default();
        self.until(part, |problems| {
            let problem = problems.get("directory").filter(|problem| problem.contains(part));
            problem.is_some_and(|problem| {
                found.replace(problem.clone());
                true
            })
        });
        found.into_inner()
    }

    fn until(&self, what: &str, state: impl Fn(&BTreeMap<&'static str, String>) -> bool) {
        let waited = async { tokio::time::timeout(clock::span(SOON), self.ready.until(state)).await };
        assert!(self.runtime.block_on(waited).is_ok(), "{what}: not within {SOON:?}, but {:?}", self.ready.problems());
    }

    fn ask(&mut self, submission: Submission) -> OpId {
        self.ask_within(submission, PATIENCE)
    }

    fn ask_within(&mut self, submission: Submission, patience: time::Duration) -> OpId {
        self.asked += 1;
        let op = OpId { incarnation: Incarnation(1), counter: self.asked };
        self.directory.submit(Asked { op, deadline: clock::now() + patience, submission });
        op
    }

    /// Takes what comes next, if anything comes within this.
    fn take(&mut self, within: Duration) -> bool {
        let Some(item) = self.inbox.take(within) else { return false };
        match item.into_event() {
            doors::Event::Directory(Event::Answered { op, answer }) => {
                assert!(self.answers.insert(op, *answer).is_none(), "{op} is answered once");
            }
            doors::Event::Directory(event) => self.news.push_back(event),
            other => panic!("{other:?} is not of the directory"),
        }
        true
    }

    /// The answer to an operation, within [`SOON`].
    fn answer(&mut self, op: OpId) -> Answer {
        let by = clock::now() + SOON;
        while !self.answers.contains_key(&op) {
            assert!(self.take(clock::until(by)), "{op} is answered");
        }
        self.answers[&op].clone()
    }

    fn call(&mut self, submission: Submission) -> Answer {
        let op = self.ask(submission);
        self.answer(op)
    }

    /// The next news of a watch.
    fn news(&mut self) -> Event {
        loop {
            match self.news.pop_front() {
                Some(event) => return event,
                None => assert!(self.take(clock::span(SOON)), "there are news"),
            }
        }
    }

    /// The next changes of a watch, with their revision.
    fn changes(&mut self, of: OpId) -> (Revision, Arc<[Change]>) {
        match self.news() {
            Event::Changed { watch, revision, changes } if watch == of => (revision, changes),
            other => panic!("{other:?} instead of changes"),
        }
    }

    fn gap(&mut self, of: OpId) -> GapCause {
        match self.news() {
            Event::Gap { watch, cause } if watch == of => cause,
            other => panic!("{other:?} instead of a gap"),
        }
    }

    fn transact(&mut self, compares: Vec<Compare>, writes: Vec<Write>) -> Outcome<Transacted> {
        match self.call(transaction(compares, writes)) {
            Answer::Transacted(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// Writes and returns the revision.
    fn put(&mut self, key: Key, epoch: u64) -> Revision {
        match self.transact(vec![], vec![put(key, owned(epoch))]) {
            Outcome::Done(Transacted { succeeded: true, revision, .. }) => revision,
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, family: Family, after: Option<Key>, limit: u16, at: Option<Revision>) -> Outcome<Page> {
        let consistency = Consistency::Linearizable;
        match self.call(Submission::Read { family, after, limit, at, consistency }) {
            Answer::Read(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn get(&mut self, key: Key) -> Option<Record> {
        match self.call(get(key)) {
            Answer::Got(Outcome::Done((record, _))) => record,
            other => panic!("{other:?}"),
        }
    }

    /// Watches and returns the operation that does.
    fn watch(&mut self, family: Family, from: Revision) -> OpId {
        let op = self.ask(Submission::Watch { family, from });
        assert_eq!(self.answer(op), Answer::Watching(Outcome::Done(())));
        op
    }

    /// A client of etcd's own, for what no role does.
    fn etcd(&self, url: &str) -> etcd_client::Client {
        self.runtime.block_on(etcd_client::Client::connect([url], None)).expect("etcd is there")
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.runtime.block_on(self.directory.close());
    }
}

fn boss(number: u64) -> Key {
    Key::Owner(EntityId::new(EntityKind::Boss, number).expect("a small number"))
}

fn lease(number: u64) -> LeaseId {
    LeaseId::from_bits(number)
}

fn owned(epoch: u64) -> Value {
    Value::Owner(Ownership { lease: lease(0xab), epoch: Epoch(epoch), nonce: Nonce(epoch) })
}

fn worker() -> Value {
    Value::Worker(Worker { node: NodeId(7), region: RegionId(1) })
}

fn put(key: Key, value: Value) -> Write {
    Write::Put { key, value, lease: None }
}

fn get(key: Key) -> Submission {
    Submission::Get { key, consistency: Consistency::Linearizable }
}

fn transaction(compares: Vec<Compare>, writes: Vec<Write>) -> Submission {
    Submission::Transact(Arc::new(Transaction { compares, writes, otherwise: vec![] }))
}

fn grant(id: u64, ttl_s: u64) -> Submission {
    Submission::Grant { lease: lease(id), ttl: time::Duration::from_secs(ttl_s) }
}
