//! The host: a role whose doors answer early, late, never or twice, whose inbox fills up, and which is stopped at any moment.

mod book;
mod doors;
mod player;

use crate::{
    log::Log,
    script::{Stalls, between, draws, one_in, pause},
};
use book::{Book, Way, numbered};
use doors::Scripted;
use madsim::{runtime::Handle, task::spawn, time::timeout};
use player::Player;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use worldline_proto::{Incarnation, NodeId};
use worldline_real::{
    Host, Inbox,
    hooks::Probes,
    host::{Closed, Counters},
    telemetry::Telemetry,
};
use worldline_system::{
    Desk,
    doors::{Event, entropy::Entropy},
    limits,
    time::Duration,
};

/// No life is longer, in seconds.
const PATIENCE_S: u64 = 120;

/// How a life goes.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// So many operations.
    operations: u64,
    /// Everything stands still now and then.
    stalls: bool,
    /// More at once than there are slots for.
    flood: bool,
    crowd: bool,
    /// The role ends what it has begun before it stops.
    orderly: bool,
    /// When it is asked to stop.
    lives: Duration,
}

impl Plan {
    fn draw(draws: &mut Entropy) -> Self {
        Self {
            operations: 20 + draws.below(80),
            stalls: one_in(draws, 2),
            flood: one_in(draws, 4),
            crowd: one_in(draws, 5),
            orderly: one_in(draws, 2),
            lives: between(draws, Duration::from_millis(50), Duration::from_millis(600)),
        }
    }
}

/// What all tasks of a life write into.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Book>>);

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Whoever panics ends the run.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.book().is_stopping()
    }
}

/// One life of a role.
pub async fn life() -> Log {
    let plan = Plan::draw(&mut draws(0));
    let (inbox, counters, stalls) = (Inbox::default(), Counters::default(), Stalls::default());
    let book = Shared(Arc::new(Mutex::new(Book::new(stalls.clone(), inbox.clone()))));
    let (node, incarnation, entropy) = (NodeId(3), Incarnation(1), draws(1));
    let host = Host {
        role: Player::new(book.clone(), plan, draws(2)),
        desk: Desk { node, incarnation, operations: 0, entropy, telemetry: Default::default() },
        doors: Scripted::new(book.clone(), inbox.clone()),
        inbox: inbox.clone(),
        history: None,
        probes: Probes::default(),
        counters: counters.clone(),
        telemetry: Telemetry::default(),
    };
    let running = spawn(host.run_as_task());
    let beside = [
        spawn(offers(book.clone(), inbox.clone(), plan)),
        spawn(news(book.clone(), inbox.clone(), plan)),
        spawn(stream(book.clone(), inbox.clone(), plan, 0)),
        spawn(stream(book.clone(), inbox.clone(), plan, 1)),
        spawn(pulses(book.clone(), inbox.clone())),
        spawn(stands_still(book.clone(), stalls.clone(), plan)),
        spawn(async move {
            pause(plan.lives).await;
            inbox.reserved(Event::Stop);
        }),
    ];
    let patience = std::time::Duration::from_secs(PATIENCE_S);
    let ended = timeout(patience, running).await.expect("a role that is asked to stop stops");
    ended.expect("no panic").expect("no history, no error");
    assert!(counters.stopped(), "who asks hears that the role has stopped");
    for task in beside {
        timeout(patience, task).await.expect("nobody waits for a role that has stopped").expect("no panic");
    }
    // What the doors were still going to say finds nobody.
    while Handle::current().metrics().num_tasks() > 1 {
        pause(Duration::from_secs(1)).await;
    }
    let mut book = book.book();
    book.ended(&counters);
    book.log()
}

/// Datagrams, alone and many at once.
async fn offers(book: Shared, inbox: Inbox, plan: Plan) {
    let mut draws = draws(3);
    while !book.is_stopping() {
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(8))).await;
        let mut book = book.book();
        if one_in(&mut draws, 2) {
            book.offer();
        } else {
            let count = if plan.flood && one_in(&mut draws, 40) { limits::INBOX as u64 + 9 } else { draws.below(20) };
            book.offer_all(count);
        }
        drop(book);
        // What is empty wakes nobody, and keeps nobody from being woken.
        inbox.offer_all(&mut vec![]);
    }
}

/// News of a watch.
async fn news(book: Shared, inbox: Inbox, plan: Plan) {
    let mut draws = draws(4);
    while !book.is_stopping() {
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(20))).await;
        let count = if plan.flood && one_in(&mut draws, 20) { limits::WATCH_CREDITS as u64 + 9 } else { 1 };
        for _ in 0..count {
            book.book().news(&inbox);
        }
    }
}

/// Messages of a stream.
async fn stream(book: Shared, inbox: Inbox, plan: Plan, which: u8) {
    let mut draws = draws(5 + u64::from(which));
    let way = Way::Streamed(which);
    while !book.is_stopping() {
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(10))).await;
        let count = if plan.flood && one_in(&mut draws, 30) { 2 * limits::INBOX as u64 } else { 1 + draws.below(150) };
        let mut events: Vec<Event> = (0..count).map(|_| numbered(way, book.book().give(way))).collect();
        let delivered = if events.len() == 1 {
            inbox.deliver(events.remove(0)).await
        } else {
            inbox.deliver_all(&mut events).await
        };
        if delivered == Err(Closed) {
            let mut book = book.book();
            assert!(book.has_stopped(), "only a role that has stopped takes nothing");
            book.note("a stream that waited for the role's stop");
        }
    }
}

/// What an adapter does that has nothing to answer: it answers all of that.
async fn pulses(book: Shared, inbox: Inbox) {
    let mut draws = draws(8);
    while !book.is_stopping() {
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(6))).await;
        inbox.answer_all(std::iter::empty());
    }
}

async fn stands_still(book: Shared, stalls: Stalls, plan: Plan) {
    let mut draws = draws(9);
    while plan.stalls && !book.is_stopping() {
        pause(between(&mut draws, Duration::ZERO, Duration::from_millis(60))).await;
        stalls.stall(between(&mut draws, Duration::ZERO, Duration::from_millis(40)));
    }
}
