//! The cache's adapter with its own client: a server that answers promptly, slowly, never and amid other things not at all, and is
//! there again.

mod book;
mod server;

use crate::{
    log::Log,
    script::{SLACK, Stalls, between, draws, one_in, pause},
    wire::Wired,
};
use book::Book;
use madsim::{runtime::Handle, task::spawn, time::timeout};
use server::Redis;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use worldline_proto::{CharacterId, Incarnation, OpId};
use worldline_real::{
    Inbox,
    cache::{Cache, Config},
    clock,
    ready::Readiness,
};
use worldline_system::{
    doors::{
        Asked,
        cache::{CounterKey, Submission, Violation},
    },
    time::Duration,
};

/// A server that has become well is found again within this: the longest wait between two attempts, and both servers' turns.
const FOUND_AGAIN_S: u64 = 30;
/// How long who closes waits for answers.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What all tasks of a life write into.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Book>>);

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Whoever panics ends the run.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One life of an adapter.
pub async fn life() -> Log {
    let (inbox, ready, stalls) = (Inbox::default(), Readiness::default(), Stalls::default());
    let book = Shared(Arc::new(Mutex::new(Book::new(stalls.clone()))));
    let server = Arc::new(Redis::new(book.clone()));
    let endpoints = ["redis://first:1", "redis://second:2"];
    let endpoints = endpoints[..1 + draws(0).below(2) as usize].iter().map(|each| each.parse().expect("an address"));
    let config = Config { endpoints: endpoints.collect() };
    let cache = Cache::on(Wired::to(server.clone()), config, inbox.clone(), ready.clone());
    let over = Arc::new(AtomicBool::new(false));
    let told = spawn(hears(book.clone(), inbox, over.clone()));
    let still = spawn(stands_still(stalls.clone(), over.clone()));
    let asks: Vec<_> = (0..3).map(|who| spawn(asks(book.clone(), cache.clone(), who))).collect();
    for task in asks {
        task.await.expect("no panic");
    }
    server.heal();
    let span = std::time::Duration::from_secs(FOUND_AGAIN_S);
    timeout(span, ready.until_degraded(|lacks| lacks.is_empty())).await.expect("a server that is well is found again");
    // One that is silent may not have been noticed yet.
    pause(Duration::from_secs(3)).await;
    timeout(span, ready.until_degraded(|lacks| lacks.is_empty())).await.expect("a server that is well stays");
    let last: Vec<OpId> = (0..8).map(|_| ask(&book, &cache, Duration::from_secs(9))).collect();
    // As often as not while they are under way.
    if one_in(&mut draws(1), 2) {
        pause(Duration::from_millis(20)).await;
    }
    let closing = stalls.mark();
    cache.close().await;
    closing.prompt(stalls.mark(), closing.at + LAST_WORDS, "the end of an adapter");
    let refused = ask(&book, &cache, Duration::from_secs(9));
    // Whoever hears has its turn.
    pause(SLACK).await;
    book.book().closed(&last, refused);
    over.store(true, Ordering::Relaxed);
    told.await.expect("no panic");
    still.await.expect("no panic");
    drop(cache);
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

fn ask(book: &Shared, cache: &Cache, patience: Duration) -> OpId {
    let mut all = book.book();
    let (op, counts) = all.asked(clock::now() + patience);
    let character = CharacterId::new(op.counter).expect("small");
    let key = CounterKey { character, violation: Violation::Speed };
    let submission = if counts {
        Submission::Count(key)
    } else {
        Submission::Increment { key, by: 1.try_into().expect("above nothing") }
    };
    // In the order of the book, whoever else asks.
    cache.submit(Asked { op, deadline: clock::now() + patience, submission });
    op
}

async fn asks(book: Shared, cache: Cache, who: u64) {
    let mut draws = draws(10 + who);
    for _ in 0..10 + draws.below(40) {
        let long = one_in(&mut draws, 8);
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(if long { 2_000 } else { 20 }))).await;
        for _ in 0..1 + draws.below(6) {
            let patience = between(&mut draws, Duration::ZERO, Duration::from_millis(500));
            ask(&book, &cache, patience);
        }
    }
}

async fn hears(book: Shared, inbox: Inbox, over: Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        if let Some(event) = inbox.awaited_event(std::time::Duration::from_millis(100)).await {
            book.book().told(&event);
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
