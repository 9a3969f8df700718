//! Measures how long the services work on what they are asked, for the simulator: each through its adapter on loopback, so with
//! what a caller on the same machine waits besides. What a log's sync takes is measured by itself, and taken off what waits for
//! one.
//!
//! `ci/calibrate` runs it; `--write FILE` replaces the figures that stand there. They are medians of one caller's requests, one at
//! a time; the cache's, which executes one command after the other, is what it takes with many.

#[path = "ledger/world.rs"]
mod world;

use std::{
    env,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use world::{DEADLINE, World, boss, hero, op};
use worldline_proto::{CharacterId, EntityId, EntityKind, Epoch, LeaseId, Nonce, Revision};
use worldline_real::{Inbox, bus, cache, clock, directory, ready::Readiness};
use worldline_system::{
    Outcome,
    doors::{
        self, Asked, Event,
        bus::{MessageId, Subject},
        cache::HashKey,
        directory::{Compare, Consistency, Key, Ownership, Transaction, Value},
        ledger,
    },
};

/// Requests of a kind: the first tenth warms up.
const REQUESTS: usize = 400;
/// Things in a large request; a small one has one.
const MANY: usize = 16;
/// Syncs of the disk.
const SYNCS: usize = 2_000;
/// What a sync writes: a page of a log.
const PAGE: [u8; 8_192] = [7; 8_192];
/// Pages of the file that is written over and over, as logs are.
const PAGES: u64 = 512;
/// Commands of the cache in flight.
const DEPTH: usize = 64;
/// All commands of the cache.
const COMMANDS: usize = 40_000;
/// Where the distribution of syncs is told, in thousandths.
const POINTS: [usize; 6] = [0, 250, 500, 750, 995, 1_000];

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let write = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => None,
        (Some("--write"), Some(file)) => Some(file),
        _ => {
            eprintln!("usage: service_times [--write FILE]");
            return ExitCode::from(64);
        }
    };
    let services = ["ETCD", "POSTGRES", "NATS", "VALKEY"].map(|name| env::var(format!("WORLDLINE_TEST_{name}")));
    let [Ok(etcd), Ok(postgres), Ok(nats), Ok(valkey)] = services else {
        eprintln!("WORLDLINE_TEST_ETCD, _POSTGRES, _NATS and _VALKEY name the services: eval \"$(ci/services start)\"");
        return ExitCode::from(64);
    };
    let told = measure(&etcd, &postgres, &nats, &valkey);
    print!("{told}");
    match write.map(|file| fs::write(&file, &told).map_err(|error| format!("{file}: {error}"))) {
        None | Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(problem)) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// All figures, as the file has them.
fn measure(etcd: &str, postgres: &str, nats: &str, valkey: &str) -> String {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let syncs = syncs(&env::temp_dir()).expect("the folder of temporary files takes one");
    let sync = median(&syncs);
    let mut told = String::from(
        "# How long the real services work on what they are asked, and a disk on the sync of a log: what the simulator's take.\n\
         # Measured by `ci/calibrate` on one machine, through the adapters on loopback; a log's sync is taken off.\n\n\
         # A sync takes at most so long in so many of a thousand cases.\nsync = [\n",
    );
    for permille in POINTS {
        let at = syncs[(permille * syncs.len() / 1_000).min(syncs.len() - 1)].as_micros();
        let _ = writeln!(told, "  {{ permille = {permille}, us = {at} }},");
    }
    told.push_str("]\n\n# For a request, and for each operation, entity, or compare and write in it.\n");
    let mut task = |name: &str, [few, many]: [Duration; 2], things: usize| {
        let each = many.saturating_sub(few) / (MANY - 1) as u32;
        let request = few.saturating_sub(each + sync);
        let (request, each) = (request.as_micros().max(1), each.as_nanos().div_ceil(1_000 * things as u128));
        let _ = writeln!(told, "{name} = {{ request_us = {request}, each_us = {each} }}");
    };
    let mut world = runtime.block_on(World::new(postgres, MANY / 2, 1));
    task("ledger_commit", [1, MANY].map(|operations| commits(&mut world, operations)), 1);
    task("ledger_claim", claims(&world), 1);
    let ledger_other = standings(&world);
    runtime.block_on(world.drop());
    let (transactions, directory_other) = runtime.block_on(directory(etcd));
    // A compare and a write for each record.
    task("directory_transaction", transactions, 2);
    let bus_publish = runtime.block_on(publishes(nats));
    let cache_command = runtime.block_on(commands(valkey));
    told.push_str("\n# For anything else.\n");
    for (name, took) in [
        ("ledger_other_us", ledger_other),
        ("directory_other_us", directory_other),
        ("bus_publish_us", bus_publish),
        ("cache_command_us", cache_command),
    ] {
        let _ = writeln!(told, "{name} = {}", took.as_micros().max(1));
    }
    told
}

/// How long syncs take of a file that has its length and is written over, in this folder, in rising order.
fn syncs(folder: &Path) -> io::Result<Vec<Duration>> {
    let path = folder.join(format!("worldline-syncs-{}", std::process::id()));
    let taken = (|| {
        let mut file = File::create_new(&path)?;
        for _ in 0..PAGES {
            file.write_all(&PAGE)?;
        }
        file.sync_all()?;
        let mut taken = Vec::with_capacity(SYNCS);
        for n in 0..SYNCS as u64 {
            file.seek(SeekFrom::Start(n % PAGES * PAGE.len() as u64))?;
            file.write_all(&PAGE)?;
            let begun = clock::now();
            file.sync_data()?;
            taken.push(clock::span(clock::now().since(begun)));
        }
        taken.sort_unstable();
        Ok(taken)
    })();
    fs::remove_file(path)?;
    taken
}

fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

/// What the middle one of many requests takes, one after the other.
fn one_by_one(mut request: impl FnMut(usize)) -> Duration {
    let mut each = Vec::new();
    for n in 0..REQUESTS {
        let begun = clock::now();
        request(n);
        if n >= REQUESTS / 10 {
            each.push(clock::span(clock::now().since(begun)));
        }
    }
    each.sort_unstable();
    median(&each)
}

fn asked<S>(submission: S) -> Asked<S> {
    Asked { op: op(0), deadline: clock::now() + DEADLINE, submission }
}

/// The next answer of the ledger.
fn ledger_answer(world: &World, submission: ledger::Submission) -> ledger::Answer {
    world.ledger.submit(asked(submission));
    match world.inbox.next_event(clock::span(DEADLINE)) {
        Some(Event::Ledger(event)) => *event.answer,
        other => panic!("{other:?}"),
    }
}

fn commits(world: &mut World, operations: usize) -> Duration {
    let mut batches: Vec<_> = (0..REQUESTS).map(|_| Arc::new(world.batch(0, operations))).collect();
    batches.reverse();
    one_by_one(|_| {
        let batch = batches.pop().expect("one for each");
        let answer = ledger_answer(world, ledger::Submission::Commit(batch));
        assert!(matches!(answer, ledger::Answer::Committed(Outcome::Done(_))), "{answer:?}");
    })
}

/// Claims of one entity and of many, each at a higher epoch.
fn claims(world: &World) -> [Duration; 2] {
    let all: Vec<EntityId> = (0..MANY / 2).flat_map(|lane| [hero(lane).entity(), boss(lane)]).collect();
    let mut epoch = 1;
    [1, MANY].map(|count| {
        one_by_one(|_| {
            epoch += 1;
            let entities = all[..count].iter().map(|&entity| (entity, Epoch(epoch))).collect();
            let claim = ledger::Submission::Claim { lease: LeaseId::from_bits(2), entities };
            let answer = ledger_answer(world, claim);
            assert!(matches!(answer, ledger::Answer::Claimed(Outcome::Done(_))), "{answer:?}");
        })
    })
}

fn standings(world: &World) -> Duration {
    one_by_one(|_| {
        let answer = ledger_answer(world, ledger::Submission::Standing { characters: vec![hero(0)] });
        assert!(matches!(answer, ledger::Answer::Standing(Outcome::Done(_))), "{answer:?}");
    })
}

/// Transactions that compare and write one record and many; and reads of one.
async fn directory(etcd: &str) -> ([Duration; 2], Duration) {
    let (inbox, ready) = (Inbox::default(), Readiness::default());
    let config = directory::Config { endpoints: vec![etcd.parse().expect("an address")] };
    let adapter = directory::Directory::new(config, inbox.clone(), ready.clone());
    ready.until(|problems| problems.is_empty()).await;
    let ask = |submission| {
        adapter.submit(asked(submission));
        match inbox.next_event(clock::span(DEADLINE)) {
            Some(Event::Directory(doors::directory::Event::Answered { answer, .. })) => *answer,
            other => panic!("{other:?}"),
        }
    };
    let first = u64::from(std::process::id()) << 16;
    let keys: Vec<Key> = (first..first + 2 * MANY as u64)
        .map(|number| Key::Owner(EntityId::new(EntityKind::Npc, number).expect("in range")))
        .collect();
    let transactions = [&keys[..1], &keys[1..=MANY]].map(|keys| {
        let mut revision = Revision(0);
        one_by_one(|n| {
            let (epoch, nonce) = (Epoch(n as u64 + 1), Nonce(n as u64));
            let value = Value::Owner(Ownership { lease: LeaseId::from_bits(1), epoch, nonce });
            let compare = |&key| match revision {
                Revision(0) => Compare::Absent(key),
                revision => Compare::Unchanged(key, revision),
            };
            let put = |&key| doors::directory::Write::Put { key, value, lease: None };
            let (compares, writes) = (keys.iter().map(compare).collect(), keys.iter().map(put).collect());
            let transaction = Transaction { compares, writes, otherwise: vec![] };
            let answer = ask(doors::directory::Submission::Transact(Arc::new(transaction)));
            let doors::directory::Answer::Transacted(Outcome::Done(transacted)) = answer else { panic!("{answer:?}") };
            assert!(transacted.succeeded, "nobody else writes there");
            revision = transacted.revision;
        })
    });
    let read = one_by_one(|_| {
        let get = doors::directory::Submission::Get { key: keys[0], consistency: Consistency::Linearizable };
        let answer = ask(get);
        assert!(matches!(answer, doors::directory::Answer::Got(Outcome::Done(_))), "{answer:?}");
    });
    adapter.close().await;
    (transactions, read)
}

async fn publishes(nats: &str) -> Duration {
    let (inbox, ready) = (Inbox::default(), Readiness::default());
    let config = bus::Config { endpoints: vec![nats.parse().expect("an address")] };
    let adapter = bus::Bus::new(config, inbox.clone(), ready.clone());
    ready.until_degraded(|lacks| lacks.is_empty()).await;
    let (entity, first) = (boss(0), clock::unix_now().as_nanos());
    let took = one_by_one(|n| {
        adapter.submit(asked(doors::bus::Submission::Publish {
            subject: Subject::Fact(entity),
            message: MessageId { entity, number: first + n as u64 },
            after: None,
            payload: [7; 64].as_slice().into(),
        }));
        let event = inbox.next_event(clock::span(DEADLINE));
        assert!(matches!(event, Some(Event::Bus(doors::bus::Event::Answered { .. }))), "{event:?}");
    });
    adapter.close().await;
    took
}

/// What a command takes where as many are asked as the server can execute: it does one after the other.
async fn commands(valkey: &str) -> Duration {
    let (inbox, ready) = (Inbox::default(), Readiness::default());
    let config = cache::Config { endpoints: vec![valkey.parse().expect("an address")] };
    let adapter = cache::Cache::new(config, inbox.clone(), ready.clone());
    ready.until_degraded(|lacks| lacks.is_empty()).await;
    let key = |n: usize| HashKey::Session(CharacterId::new((n % DEPTH) as u64).expect("in range"));
    let fields = || [("x_mm".to_owned(), "1".to_owned())].into_iter().collect();
    let ask = |n: usize| {
        let submission = match n % 2 {
            0 => doors::cache::Submission::Write { key: key(n), fields: fields() },
            _ => doors::cache::Submission::Read(key(n)),
        };
        adapter.submit(asked(submission));
    };
    (0..DEPTH).for_each(ask);
    let begun = clock::now();
    for n in DEPTH..COMMANDS + DEPTH {
        let event = inbox.next_event(clock::span(DEADLINE));
        assert!(matches!(event, Some(Event::Cache(_))), "{event:?}");
        ask(n);
    }
    let took = clock::span(clock::now().since(begun)) / COMMANDS as u32;
    adapter.close().await;
    took
}
