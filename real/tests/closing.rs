//! What is left of an adapter whose role has stopped: no task and no socket, whether the service answers, keeps silent or is not
//! there, and with work under way. The network's own test of this is in `network/closing.rs`.

mod common;

use common::{NOBODY, PATIENCE, database, drop_database, service};
use std::{
    fs,
    net::TcpListener,
    process,
    sync::{Mutex, PoisonError},
};
use tokio::{
    runtime::{Builder, Handle},
    task::yield_now,
    time::timeout,
};
use worldline_proto::{CharacterId, EntityId, EntityKind, Incarnation, LeaseId, OpId, Revision};
use worldline_real::{
    Inbox,
    bus::{self, Bus},
    cache::{self, Cache},
    clock,
    directory::{self, Directory},
    ledger::{self, Ledger},
    ready::Readiness,
};
use worldline_system::{
    doors::{
        Asked,
        bus::{MessageId, Start, Subject},
        cache::HashKey,
        directory::{Consistency, Family},
    },
    time::Duration,
};

/// The sockets of this process are counted: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// So many of each kind of work are under way when the role stops.
const EACH: u64 = 20;

/// Where a service is.
struct Place {
    /// Its address, without a scheme.
    host: String,
    answers: bool,
}

/// Every place that a service can have: that of the services of tests, one that takes connections and never answers, and none.
fn places(url: &str) -> [(Place, Option<TcpListener>); 3] {
    let (_, host) = url.split_once("://").expect("a URL");
    // The kernel takes connections of who never accepts.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    [
        (Place { host: host.to_owned(), answers: true }, None),
        (Place { host: address, answers: false }, Some(silent)),
        (Place { host: NOBODY.to_owned(), answers: false }, None),
    ]
}

/// Lets an adapter live and close, and waits until nothing of it is left.
fn nothing_is_left<A>(
    place: &Place,
    start: impl FnOnce(Inbox, Readiness) -> A,
    ask: impl FnOnce(&A),
    close: impl AsyncFnOnce(&A),
) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("builds");
    runtime.block_on(async {
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let before = sockets();
        let ready = Readiness::default();
        let adapter = start(Inbox::default(), ready.clone());
        if place.answers {
            timeout(PATIENCE, ready.until(|missing| missing.is_empty())).await.expect("the service is there");
            timeout(PATIENCE, ready.until_degraded(|lacks| lacks.is_empty())).await.expect("the service is there");
            assert!(sockets() > before, "it speaks with the service");
        }
        ask(&adapter);
        assert!(tasks() > 0, "something works for it");
        timeout(PATIENCE, close(&adapter)).await.expect("closes");
        drop(adapter);
        // A task that has ended is counted for another moment.
        let gone = async {
            while tasks() > 0 || sockets() > before {
                yield_now().await;
            }
        };
        assert!(timeout(PATIENCE, gone).await.is_ok(), "{} tasks, {} sockets", tasks(), sockets() - before);
    });
}

/// How many sockets this process has.
fn sockets() -> usize {
    let open = fs::read_dir("/proc/self/fd").expect("this is Linux").filter_map(Result::ok);
    open.filter(|file| fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))).count()
}

/// Names what a role asks.
fn asked<S>(counter: u64, submission: S) -> Asked<S> {
    let op = OpId { incarnation: Incarnation(1), counter };
    Asked { op, deadline: clock::now() + Duration::from_secs(60), submission }
}

fn character(n: u64) -> CharacterId {
    CharacterId::new(n + 1).expect("a number")
}

#[test]
fn nothing_is_left_of_a_closed_directory() {
    use worldline_system::doors::directory::Submission;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (place, _silent) in places(&service("WORLDLINE_TEST_ETCD")) {
        let endpoints = vec![format!("http://{}", place.host).parse().expect("an address")];
        let start = |inbox, ready| Directory::new(directory::Config { endpoints }, inbox, ready);
        let ask = |directory: &Directory| {
            for n in 0..EACH {
                let lease = LeaseId::from_bits((u64::from(process::id()) << 16) | (n + 1));
                directory.submit(asked(4 * n, Submission::Grant { lease, ttl: Duration::from_secs(5) }));
                directory.submit(asked(4 * n + 1, Submission::KeepAlive(lease)));
                directory.submit(asked(4 * n + 2, Submission::Watch { family: Family::Owners, from: Revision(1) }));
                let consistency = Consistency::Linearizable;
                let read = Submission::Read { family: Family::Owners, after: None, limit: 8, at: None, consistency };
                directory.submit(asked(4 * n + 3, read));
            }
        };
        nothing_is_left(&place, start, ask, async |directory| directory.close().await);
    }
}

#[test]
fn nothing_is_left_of_a_closed_ledger() {
    use worldline_system::doors::ledger::Submission;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = Builder::new_current_thread().enable_all().build().expect("builds");
    let url = runtime.block_on(async {
        let url = database("closing").await;
        ledger::migrate(&url).await.expect("migrates");
        url
    });
    let (server, database) = url.rsplit_once('/').expect("a URL with a database");
    for (place, _silent) in places(server) {
        let config = ledger::Config::new(&format!("postgres://{}/{database}", place.host)).expect("an address");
        let start = |inbox, ready| Ledger::new(config, inbox, ready);
        let ask = |ledger: &Ledger| {
            for n in 0..EACH {
                ledger.submit(asked(2 * n, Submission::Roster { after: None, limit: 8 }));
                ledger.submit(asked(2 * n + 1, Submission::Standing { characters: vec![character(n)] }));
            }
        };
        nothing_is_left(&place, start, ask, async |ledger| ledger.close().await);
    }
    runtime.block_on(drop_database(&url));
}

#[test]
fn nothing_is_left_of_a_closed_bus() {
    use worldline_system::doors::bus::Submission;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (place, _silent) in places(&service("WORLDLINE_TEST_NATS")) {
        let endpoints = vec![format!("nats://{}", place.host).parse().expect("an address")];
        let start = |inbox, ready| Bus::new(bus::Config { endpoints }, inbox, ready);
        let ask = |bus: &Bus| {
            bus.submit(asked(0, Submission::Consume { durable: None, start: Start::Beginning }));
            for number in 1..EACH {
                // Of a creature that no world has.
                let entity = EntityId::new(EntityKind::Boss, u64::from(process::id())).expect("a number");
                let (subject, message) = (Subject::Fact(entity), MessageId { entity, number });
                let payload = [7; 64].as_slice().into();
                bus.submit(asked(number, Submission::Publish { subject, message, after: None, payload }));
            }
        };
        nothing_is_left(&place, start, ask, async |bus| bus.close().await);
    }
}

#[test]
fn nothing_is_left_of_a_closed_cache() {
    use worldline_system::doors::cache::Submission;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (place, _silent) in places(&service("WORLDLINE_TEST_VALKEY")) {
        let endpoints = vec![format!("redis://{}", place.host).parse().expect("an address")];
        let start = |inbox, ready| Cache::new(cache::Config { endpoints }, inbox, ready);
        let ask = |cache: &Cache| {
            for n in 0..EACH {
                cache.submit(asked(n, Submission::Read(HashKey::Session(character(n)))));
            }
        };
        nothing_is_left(&place, start, ask, async |cache| cache.close().await);
    }
}
