//! Something else than a usable cache is where it should be, or it holds what is not ours: the operator is told what and where,
//! nobody hangs, and nothing is ever wrong but slower.

use super::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// Whatever answers every command it is sent with these bytes and, if it `stays`, keeps the connection.
fn impostor(caller: &Caller, says: &'static [u8], stays: bool) -> String {
    let listener = caller.runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let url = format!("redis://{}", listener.local_addr().expect("bound"));
    caller.runtime.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = [0; 4_096];
                // It may have hung up.
                while stays && let Ok(bytes @ 1..) = stream.read(&mut heard).await {
                    let commands = heard[..bytes].iter().filter(|&&byte| byte == b'*').count();
                    let _ = stream.write_all(&says.repeat(commands)).await;
                }
            });
        }
    });
    url
}

fn is_refused_and_reported(url: &str, part: &str) {
    let mut caller = Caller::new(&[url]);
    let problem = caller.problem(part);
    assert!(problem.contains(url.trim_start_matches("redis://")), "{problem}");
    let refused = Answer::Written(Outcome::Refused(Refusal::Unreachable));
    assert_eq!(caller.call(write(1, "1")), refused, "it has certainly not left");
}

#[test]
fn what_is_no_server_of_the_protocol_is_named_and_nothing_is_sent_to_it() {
    let host = Caller::new(&["redis://127.0.0.1:1"]);
    host.problem("nobody answers at 127.0.0.1:1");
    is_refused_and_reported(&impostor(&host, b"", true), "accepts connections and never answers");
    is_refused_and_reported(&impostor(&host, b"", false), "no server of the Redis protocol");
    is_refused_and_reported(&impostor(&host, &[0xff; 4_096], true), "no server of the Redis protocol");
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    is_refused_and_reported(&impostor(&host, http, true), "no server of the Redis protocol");
    is_refused_and_reported(&impostor(&host, b"-NOPROTO sorry\r\n", true), "does not speak version 2");
    let old = b"$22\r\nredis_version:5.0.14\r\n\r\n";
    is_refused_and_reported(&impostor(&host, old, true), "is like Redis `5.0.14`: 6.2 or newer is needed");
}

#[test]
fn credentials_are_checked_and_a_wrong_one_is_never_shown() {
    let guarded = Valkey::start(&["--requirepass", "open sesame"]);
    let with = |user: &str| guarded.url().replace("redis://", &format!("redis://{user}@"));
    let mut right = Caller::connected(&[with(":open%20sesame")]);
    assert_eq!(right.call(write(1, "1")), written());
    Caller::new(&[guarded.url()]).problem("wants a password");
    for wrong in [":sesam", "nobody:sesam"] {
        let problem = Caller::new(&[with(wrong)]).problem("refuses the user or the password");
        assert!(!problem.contains("sesam"), "{problem}");
    }
    let open = Valkey::start(&["--user", "guest", "on", ">guest", "~session:*", "+@read"]);
    let guest = open.url().replace("redis://", "redis://guest:guest@");
    Caller::new(&[guest]).problem("does not permit what is needed");
    // A server that asks for no password takes any, and one that is given for nothing is no reason to do without.
    let needless = Caller::new(&[open.url().replace("redis://", "redis://:sesam@")]);
    let problem = needless.problem("refuses the user or the password");
    assert!(!problem.contains("sesam"), "{problem}");
}

#[test]
fn a_password_that_is_set_while_it_runs_turns_away_and_lets_in_again() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    assert_eq!(caller.call(write(1, "1")), written());
    // Whoever is connected stays in, so that the test can set it back; who connects anew does not get in.
    let set = |password: &str| {
        let client = redis::Client::open(server.url()).expect("an address");
        let mut connection = client.get_connection().expect("it lets us in");
        redis::cmd("CONFIG").arg(&["SET", "requirepass", password]).exec(&mut connection).expect("set");
        redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut connection).expect("killed");
        connection
    };
    let mut operator = set("open sesame");
    caller.problem("wants a password");
    redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).exec(&mut operator).expect("set");
    caller.until_connected();
    let refused = Answer::Read(Outcome::Refused(Refusal::Unreachable));
    assert_eq!(caller.call_when_connected(&read(1), &refused), hash("1"));
}

#[test]
fn what_has_another_type_is_a_miss_a_refused_write_and_then_gone() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    let (load, revoked) = (HashKey::Load { region: RegionId(0), node: NodeId(3) }, RevokedKey(Digest([0xab; 16])));
    let loads = Submission::Loads(RegionId(0));
    let refused = Refusal::WrongType;
    let text = |key: &'static str| vec!["SET", key, "somebody's"];
    let list = |key: &'static str| vec!["RPUSH", key, "somebody's"];
    let cases: Vec<(Vec<&str>, Submission, Answer, Answer)> = vec![
        (text("session:character-1"), read(1), miss(), miss()),
        (list("session:character-2"), write(2, "1"), Answer::Written(Outcome::Refused(refused)), written()),
        (
            text("checkpoint:character-1"),
            keep(1, 1, 1),
            Answer::Kept(Outcome::Refused(refused)),
            Answer::Kept(Outcome::Done(Kept::Replaced)),
        ),
        (
            text("cheat_flags:character-1:speed"),
            increment(1, 2),
            Answer::Counted(Outcome::Refused(refused)),
            Answer::Counted(Outcome::Done(2)),
        ),
        (
            list("cheat_flags:character-2:speed"),
            increment(2, 2),
            Answer::Counted(Outcome::Refused(refused)),
            Answer::Counted(Outcome::Done(2)),
        ),
        (
            text("cheat_flags:character-3:speed"),
            Submission::Count(speed(3)),
            Answer::Counted(Outcome::Done(0)),
            Answer::Counted(Outcome::Done(0)),
        ),
        (
            list("revoked:abababababababababababababababab"),
            Submission::Get(revoked),
            Answer::Got(Outcome::Done(None)),
            Answer::Got(Outcome::Done(None)),
        ),
        (
            text("peer:0:geo"),
            place(1, 0, 0),
            Answer::Placed(Outcome::Refused(refused)),
            Answer::Placed(Outcome::Done(())),
        ),
        (
            text("worker_load:0"),
            loads.clone(),
            Answer::Loads(Outcome::Done(vec![])),
            Answer::Loads(Outcome::Done(vec![])),
        ),
    ];
    let expected = cases.len() as u64;
    for (plant, submission, first, second) in cases {
        caller.other::<redis::Value>(&server, &plant);
        assert_eq!(caller.call(submission.clone()), first, "{submission:?}");
        assert_eq!(caller.call(submission.clone()), second, "{submission:?}");
    }
    assert_eq!(caller.counted("wrong_types"), expected);
    caller.other::<()>(&server, &["FLUSHALL"]);
    // The other one of the two sets; and an index beside a load.
    caller.other::<redis::Value>(&server, &["SET", "peer:0:seen", "somebody's"]);
    assert_eq!(caller.call(near(Position::default(), 1_000, 10)), Answer::Near(Outcome::Done(vec![])));
    caller.other::<redis::Value>(&server, &["SET", "worker_load:0", "somebody's"]);
    assert_eq!(caller.call(Submission::Write { key: load, fields: fields(&[("entities", "7")]) }), written());
    let found = Answer::Loads(Outcome::Done(vec![(NodeId(3), fields(&[("entities", "7")]))]));
    assert_eq!(caller.call(loads), found);
}

#[test]
fn a_field_that_is_no_text_is_left_out_and_counted() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    caller.call(write(1, "1"));
    caller.runtime.block_on(async {
        let client = redis::Client::open(server.url()).expect("an address");
        let mut connection = client.get_multiplexed_async_connection().await.expect("it is there");
        let mut plant = redis::cmd("HSET");
        plant.arg("session:character-1").arg("w").arg(&[0xff_u8, 0xfe][..]);
        plant.exec_async(&mut connection).await.expect("it does it");
    });
    assert_eq!(caller.call(read(1)), hash("1"));
    assert_eq!(caller.counted("unreadable"), 1);
}

#[test]
fn where_no_cache_is_configured_everything_is_refused_at_once() {
    let inbox = Inbox::default();
    let cache = Cache::absent(inbox.clone());
    let op = OpId { incarnation: Incarnation(1), counter: 1 };
    cache.submit(Asked { op, deadline: clock::now() + PATIENCE, submission: read(1) });
    let Some(item) = inbox.take(clock::span(SOON)) else { panic!("it is answered") };
    let doors::Event::Cache(event) = item.into_event() else { panic!("it is of the cache") };
    assert_eq!(*event.answer, Answer::Read(Outcome::Refused(Refusal::Unreachable)));
}
