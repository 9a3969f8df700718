//! The directory's adapter over a client that a script plays: writers, holders of leases and watchers while connections end, fall
//! silent and lose their leader, and while the directory is compacted and restored.

mod book;
mod effect;
mod line;
mod model;
mod server;

use crate::{
    log::Log,
    script::{SLACK, Stalls, between, draws, one_in, pause},
};
use book::Book;
use line::Leads;
use madsim::{runtime::Handle, task::spawn, time::timeout};
use server::{Etcd, World};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use worldline_proto::{EntityId, EntityKind, Epoch, Incarnation, LeaseId, NodeId, Nonce, OpId, Revision};
use worldline_real::{
    Inbox, clock,
    directory::{Config, Directory},
    machine,
    ready::Readiness,
};
use worldline_system::{
    doors::{
        Asked, Event,
        directory::{
            Compare, Consistency, Family, Key, Ownership, RegionId, Submission, Transaction, Value, Worker, Write,
        },
        entropy::Entropy,
    },
    limits::DIRECTORY_OPERATIONS,
    time::Duration,
};

/// A server that has become well is found again within this, and all that is under way has ended.
const FOUND_AGAIN_S: u64 = 30;
/// How long it takes at most until a connection is noticed to be of no use.
const NOTICED: Duration = Duration::from_secs(8);
/// How long who closes waits for answers.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Somebody waits so long for what certainly comes.
const PATIENT: Duration = Duration::from_secs(9);

/// What all tasks of a life write into.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Book>>);

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Whoever panics ends the run.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever asks an adapter, and the adapter.
#[derive(Clone)]
struct Caller {
    book: Shared,
    etcd: Arc<Etcd>,
    directory: Directory,
}

/// One life of an adapter.
pub async fn life() -> Log {
    let (inbox, ready, stalls) = (Inbox::default(), Readiness::default(), Stalls::default());
    let book = Shared(Arc::new(Mutex::new(Book::new(stalls.clone()))));
    let etcd = Arc::new(Etcd::new(book.clone()));
    let endpoints = ["http://first:1", "http://second:2"];
    let endpoints = endpoints[..1 + draws(0).below(2) as usize].iter().map(|each| each.parse().expect("an address"));
    let config = Config { endpoints: endpoints.collect() };
    let client = Arc::new(Leads(etcd.clone()));
    let directory = Directory::over(client, machine::own(), config, inbox.clone(), ready.clone());
    let caller = Caller { book: book.clone(), etcd: etcd.clone(), directory };
    let over = Arc::new(AtomicBool::new(false));
    let told = spawn(hears(book.clone(), inbox, stalls.clone(), etcd.clone(), over.clone()));
    let still = spawn(stands_still(stalls.clone(), over.clone()));
    let writers = (0..2).map(|who| spawn(caller.clone().writes(who)));
    let watchers = (0..2).map(|who| spawn(caller.clone().watches(who)));
    let others = [spawn(caller.clone().looks())];
    let others = writers.chain(watchers).chain(others).collect::<Vec<_>>();
    let holders = (0..2).map(|who| spawn(caller.clone().holds(who))).collect::<Vec<_>>();
    let mut leases = vec![];
    for holder in holders {
        leases.extend(holder.await.expect("no panic"));
    }
    for task in others {
        task.await.expect("no panic");
    }
    etcd.heal();
    let span = std::time::Duration::from_secs(FOUND_AGAIN_S);
    let well = || timeout(span, ready.until(|problems| problems.is_empty()));
    well().await.expect("a member that is well is found again");
    // One that is silent may not have been noticed yet.
    pause(NOTICED).await;
    well().await.expect("a member that is well stays");
    caller.is_served(&leases).await;
    let last: Vec<u64> = (0..8).map(|n| caller.put(boss(n % 4), PATIENT)).collect();
    // As often as not while they are under way.
    if one_in(&mut draws(1), 2) {
        pause(Duration::from_millis(20)).await;
    }
    let closing = stalls.mark();
    book.book().closing();
    caller.directory.close().await;
    closing.prompt(stalls.mark(), closing.at + LAST_WORDS, "the end of an adapter");
    let refused = caller.put(boss(1), PATIENT);
    // Whoever hears has its turn.
    pause(Duration::from_secs(1)).await;
    book.book().closed(&last, refused);
    over.store(true, Ordering::Relaxed);
    told.await.expect("no panic");
    still.await.expect("no panic");
    drop(caller);
    assert_eq!(etcd.connections(), 0, "no connection is left");
    timeout(span, async {
        while Handle::current().metrics().num_tasks() > 1 {
            pause(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("no task is left");
    let mut book = book.book();
    book.ended(clock::now());
    book.log()
}

impl Caller {
    fn submit(&self, counter: u64, patience: Duration, submission: Submission) {
        self.directory.submit(Asked { op: op(counter), deadline: clock::now() + patience, submission });
    }

    async fn answered(&self, counter: u64) {
        while !self.book.book().is_told(counter) {
            pause(Duration::from_millis(5)).await;
        }
    }

    fn transact(&self, patience: Duration, transaction: impl FnOnce(u64) -> Transaction) -> u64 {
        let counter = self.book.book().does(clock::now() + patience);
        self.submit(counter, patience, Submission::Transact(Arc::new(transaction(counter))));
        counter
    }

    fn put(&self, key: Key, patience: Duration) -> u64 {
        self.transact(patience, |counter| {
            let writes = vec![Write::Put { key, value: owned(counter), lease: None }];
            Transaction { compares: vec![], writes, otherwise: vec![] }
        })
    }

    fn renew(&self, lease: LeaseId, patience: Duration) -> u64 {
        let counter = self.book.book().renews(clock::now() + patience, lease);
        self.submit(counter, patience, Submission::KeepAlive(lease));
        counter
    }

    fn watch(&self, family: Family, from: Revision, patience: Duration, certain: bool) -> u64 {
        let counter = self.book.book().watches(clock::now() + patience, family, from, certain);
        self.submit(counter, patience, Submission::Watch { family, from });
        counter
    }

    async fn writes(self, who: u64) {
        let mut draws = draws(10 + who);
        for _ in 0..10 + draws.below(15) {
            let long = one_in(&mut draws, 5);
            pause(between(&mut draws, Duration::ZERO, Duration::from_millis(if long { 3_000 } else { 60 }))).await;
            for _ in 0..1 + draws.below(4) {
                let short = one_in(&mut draws, 3);
                let patience =
                    between(&mut draws, Duration::ZERO, Duration::from_millis(if short { 20 } else { 5_000 }));
                self.write(&mut draws, patience);
            }
        }
    }

    fn write(&self, draws: &mut Entropy, patience: Duration) {
        let (first, second) = (boss(draws.below(4)), boss(4 + draws.below(2)));
        let stands = self.etcd.model().get(first).0.map(|record| record.mod_revision);
        let compare = match draws.below(4) {
            0 => vec![Compare::Absent(first)],
            1 => stands.map(|revision| Compare::Unchanged(first, revision)).into_iter().collect(),
            2 => vec![Compare::Present(first)],
            _ => vec![],
        };
        let many = one_in(draws, 20);
        let deletes = self.etcd.world == World::Deleting && one_in(draws, 4);
        self.transact(patience, |counter| {
            let mut writes = vec![Write::Put { key: first, value: owned(counter), lease: None }];
            if deletes {
                writes.push(Write::Delete(second));
            } else {
                writes.push(Write::Put { key: second, value: owned(counter), lease: None });
            }
            let compares = if many { vec![Compare::Present(first); DIRECTORY_OPERATIONS + 1] } else { compare };
            Transaction { compares, writes, otherwise: vec![first, second] }
        });
    }

    async fn looks(self) {
        let mut draws = draws(30);
        for _ in 0..20 {
            pause(between(&mut draws, Duration::ZERO, Duration::from_secs(1))).await;
            let stale = one_in(&mut draws, 2);
            let consistency = if stale { Consistency::Serializable } else { Consistency::Linearizable };
            let patience = between(&mut draws, Duration::ZERO, Duration::from_secs(3));
            let restored = self.etcd.model().lost.len();
            let counter = self.book.book().looks(clock::now() + patience, stale, restored);
            let submission = if one_in(&mut draws, 2) {
                Submission::Get { key: boss(draws.below(4)), consistency }
            } else {
                Submission::Read { family: Family::Owners, after: None, limit: 3, at: None, consistency }
            };
            self.submit(counter, patience, submission);
        }
    }

    /// Holds one lease after the other, each with the key of a worker, and the last until the end: which that is.
    async fn holds(self, who: u64) -> Option<LeaseId> {
        let mut draws = draws(40 + who);
        let mut held = None;
        for round in 0..3 {
            // One that ends by itself now and then; the last is kept, whatever befalls its connections.
            let ttl = Duration::from_secs(if round < 2 && one_in(&mut draws, 2) { 2 } else { 600 });
            let patience = between(&mut draws, Duration::ZERO, Duration::from_secs(3));
            let counter = self.book.book().does(clock::now() + patience);
            let lease = LeaseId::from_bits(counter);
            self.submit(counter, patience, Submission::Grant { lease, ttl });
            self.answered(counter).await;
            if !self.book.book().is_done(counter) {
                continue;
            }
            let registered = self.transact(Duration::from_secs(2), |counter| {
                let value = Value::Worker(Worker { node: NodeId(counter as u32), region: RegionId(0) });
                let writes = vec![Write::Put { key: Key::Worker(lease), value, lease: Some(lease) }];
                Transaction { compares: vec![], writes, otherwise: vec![] }
            });
            self.answered(registered).await;
            for _ in 0..4 + draws.below(8) {
                let long = one_in(&mut draws, 8);
                pause(between(&mut draws, Duration::ZERO, Duration::from_millis(if long { 3_000 } else { 400 }))).await;
                let renewal = self.renew(lease, between(&mut draws, Duration::ZERO, Duration::from_secs(3)));
                self.answered(renewal).await;
            }
            if round < 2 && one_in(&mut draws, 2) {
                let patience = between(&mut draws, Duration::ZERO, Duration::from_secs(2));
                let counter = self.book.book().revokes(clock::now() + patience, lease);
                self.submit(counter, patience, Submission::Revoke(lease));
                self.answered(counter).await;
            } else if round == 2 {
                held = Some(lease);
            }
        }
        held
    }

    async fn watches(self, who: u64) {
        let mut draws = draws(20 + who);
        let family = if who == 1 && self.etcd.world == World::Deleting { Family::Workers } else { Family::Owners };
        let mut next = Revision(1);
        for _ in 0..3 + draws.below(4) {
            pause(between(&mut draws, Duration::ZERO, Duration::from_millis(300))).await;
            let present = self.etcd.model().revision();
            // From where it was, from the beginning on, and from now or what is still to come.
            let from = [next, Revision(1), Revision(present + draws.below(3))][draws.below(3) as usize];
            let patience = between(&mut draws, Duration::ZERO, Duration::from_secs(3));
            let watch = self.watch(family, from, patience, false);
            if !one_in(&mut draws, 6) {
                self.answered(watch).await;
            }
            let until = clock::now() + between(&mut draws, Duration::ZERO, Duration::from_secs(8));
            while clock::now() < until {
                let Some(stands) = self.book.book().next(watch) else { break };
                next = stands;
                pause(Duration::from_millis(50)).await;
            }
            let counter = self.book.book().unwatches(watch);
            self.submit(counter, SLACK, Submission::Unwatch(op(watch)));
            self.answered(watch).await;
        }
    }

    /// All is well: what was held is held, and what is written is told.
    async fn is_served(&self, leases: &[LeaseId]) {
        for &lease in leases {
            assert!(self.etcd.model().has(lease), "{lease} has still its time to live");
            let before = self.renew(lease, PATIENT);
            self.answered(before).await;
            assert!(self.book.book().is_renewed(before), "{lease} is renewed where all is well");
        }
        let from = Revision(self.etcd.model().revision() + 1);
        let watch = self.watch(Family::Owners, from, PATIENT, true);
        self.answered(watch).await;
        let written: Vec<u64> = (0..4).map(|n| self.put(boss(n), PATIENT)).collect();
        for counter in written {
            self.answered(counter).await;
            assert!(self.book.book().is_done(counter), "{counter} is done where all is well");
        }
        let present = self.etcd.model().revision();
        let told = async {
            while self.book.book().next(watch).expect("it stands").0 <= present {
                pause(Duration::from_millis(10)).await;
            }
        };
        timeout(std::time::Duration::from_secs(FOUND_AGAIN_S), told).await.expect("a watch tells all that is written");
    }
}

/// Hears, but that it is held up now and then, with an inbox full of others' news.
async fn hears(book: Shared, inbox: Inbox, stalls: Stalls, etcd: Arc<Etcd>, over: Arc<AtomicBool>) {
    let mut draws = draws(3);
    let crowded = one_in(&mut draws, 3);
    while !over.load(Ordering::Relaxed) {
        let Some(event) = inbox.awaited_event(std::time::Duration::from_millis(100)).await else { continue };
        book.book().told(&event, &etcd.model());
        if crowded && event != Event::Stop && one_in(&mut draws, 30) && !etcd.is_well() {
            let span = between(&mut draws, Duration::ZERO, Duration::from_millis(200));
            while inbox.news(Event::Stop) {}
            pause(span).await;
            stalls.hold_up(span + SLACK);
        }
    }
}

async fn stands_still(stalls: Stalls, over: Arc<AtomicBool>) {
    let mut draws = draws(2);
    let stalled = one_in(&mut draws, 2);
    while !over.load(Ordering::Relaxed) {
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(500))).await;
        if stalled && !over.load(Ordering::Relaxed) {
            stalls.stall(between(&mut draws, Duration::ZERO, Duration::from_millis(300)));
        }
    }
}

/// An operation's name.
fn op(counter: u64) -> OpId {
    OpId { incarnation: Incarnation(1), counter }
}

fn boss(number: u64) -> Key {
    Key::Owner(EntityId::new(EntityKind::Boss, 1 + number).expect("in range"))
}

/// A value that nobody else writes.
fn owned(number: u64) -> Value {
    Value::Owner(Ownership { lease: LeaseId::from_bits(1), epoch: Epoch(1), nonce: Nonce(number) })
}

/// The operation that a transaction is of.
fn counter_of(transaction: &Transaction) -> u64 {
    match transaction.writes.first() {
        Some(Write::Put { value: Value::Owner(owner), .. }) => owner.nonce.0,
        Some(Write::Put { value: Value::Worker(worker), .. }) => u64::from(worker.node.0),
        other => panic!("{other:?} has no number"),
    }
}
