//! The server forgets, falls, stands still, or is not the primary any more.

use super::*;

fn refused() -> Answer {
    Answer::Read(Outcome::Refused(Refusal::Unreachable))
}

#[test]
fn a_flush_in_between_is_a_miss_and_forgotten_scripts_are_told_again() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    assert_eq!((caller.call(write(1, "1")), caller.call(keep(1, 5, 5))), (written(), kept(Kept::Replaced)));
    caller.other::<()>(&server, &["FLUSHALL"]);
    assert_eq!(caller.call(read(1)), miss());
    assert_eq!(caller.call(keep(1, 4, 1)), kept(Kept::Replaced), "nothing is there that were newer");
    caller.other::<()>(&server, &["SCRIPT", "FLUSH"]);
    assert_eq!((caller.call(write(1, "2")), caller.call(read(1))), (written(), hash("2")));
    assert_eq!(
        (caller.call(increment(1, 1)), caller.call(place(1, 0, 0))),
        (Answer::Counted(Outcome::Done(1)), Answer::Placed(Outcome::Done(())),)
    );
    assert_eq!(caller.counted("lost_connections"), 0);
}

fn kept(kept: Kept) -> Answer {
    Answer::Kept(Outcome::Done(kept))
}

#[test]
fn a_killed_server_is_named_and_found_again_empty() {
    let mut server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    caller.call(write(1, "1"));
    server.kill();
    caller.problem(&format!("127.0.0.1:{}", server.port));
    assert_eq!(caller.call(read(1)), refused());
    server.restart();
    caller.until_connected();
    assert_eq!(caller.call_when_connected(&read(1), &refused()), miss());
    assert_eq!((caller.call(write(1, "2")), caller.call(read(1))), (written(), hash("2")));
    assert!(caller.counted("lost_connections") >= 1);
}

#[test]
fn what_was_sent_to_a_server_that_stands_still_is_unknown_and_it_is_used_again() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    server.stop();
    let op = caller.ask(write(1, "1"));
    assert_eq!(caller.answer(op), Answer::Written(Outcome::Unknown));
    caller.problem("has not answered within 1 s");
    assert_eq!(caller.call(read(1)), refused());
    server.go_on();
    caller.until_connected();
    assert_eq!(caller.call_when_connected(&read(1), &refused()), hash("1"), "and this one was done");
}

#[test]
fn the_primary_is_found_and_followed_when_a_replica_is_promoted() {
    let (first, second) = (Valkey::start(&[]), Valkey::start(&[]));
    let host = Caller::connected(&[first.url()]);
    let (port, all) = (first.port.to_string(), [second.url(), first.url()]);
    Caller::connected(&[second.url()]);
    host.other::<()>(&second, &["REPLICAOF", "127.0.0.1", &port]);
    let alone = Caller::new(&[second.url()]);
    alone.problem(&format!("is a replica of 127.0.0.1:{port}"));
    let mut caller = Caller::connected(&all);
    assert_eq!(caller.call(write(1, "1")), written());
    // Until the replica has it.
    let by = clock::now() + SOON;
    while host.other::<u64>(&second, &["EXISTS", "session:character-1"]) == 0 {
        assert!(clock::now() < by, "it is replicated");
    }
    host.other::<()>(&second, &["REPLICAOF", "NO", "ONE"]);
    host.other::<()>(&first, &["REPLICAOF", "127.0.0.1", &second.port.to_string()]);
    let by = clock::now() + SOON;
    loop {
        // The one it is connected to says that it is read-only, and then it goes to the other.
        let answer = caller.call(write(1, "2"));
        if answer == written() {
            break;
        }
        let turned_away = [Refusal::ReadOnly, Refusal::Unreachable].map(|why| Answer::Written(Outcome::Refused(why)));
        assert!(turned_away.contains(&answer) && clock::now() < by, "{answer:?}");
    }
    let value: String = host.other(&second, &["HGET", "session:character-1", "v"]);
    assert_eq!(value, "2");
}

#[test]
fn a_server_at_its_memory_bound_refuses_writes_and_serves_reads() {
    let server = Valkey::start(&["--maxmemory-policy", "noeviction"]);
    let mut caller = Caller::connected(&[server.url()]);
    caller.call(write(1, "1"));
    caller.other::<()>(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(caller.call(write(2, "1")), Answer::Written(Outcome::Refused(Refusal::OutOfMemory)));
    assert_eq!(caller.call(keep(1, 1, 1)), Answer::Kept(Outcome::Refused(Refusal::OutOfMemory)));
    assert_eq!(caller.call(read(1)), hash("1"));
}

#[test]
fn who_closes_is_answered_and_then_refused() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    let last = caller.ask(write(1, "1"));
    caller.runtime.block_on(caller.cache.close());
    assert_eq!(caller.answer(last), written());
    assert_eq!(caller.call(read(1)), refused());
}
