//! Something else than a usable NATS is where NATS should be: the operator is told what and where, and nobody hangs.

use super::{nats::Nats, *};
use async_nats::jetstream::stream;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};
use worldline_system::Refusal;

/// More patience than any test has: who is answered within [`SOON`] was not answered by this deadline.
const LONG: time::Duration = time::Duration::from_secs(600);

/// Whatever greets every connection with these bytes and, if it `stays`, keeps it open.
fn impostor(caller: &Caller, says: &'static [u8], stays: bool) -> String {
    let listener = caller.runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let url = format!("nats://{}", listener.local_addr().expect("bound"));
    caller.runtime.spawn(async move {
        let mut kept = vec![];
        while let Ok((mut stream, _)) = listener.accept().await {
            // It may have hung up.
            let _ = stream.write_all(says).await;
            if stays {
                kept.push(stream);
            }
        }
    });
    url
}

fn is_refused_and_reported(url: &str, part: &str) -> String {
    let mut caller = Caller::new(&[url]);
    let op = caller.ask_within(publish(1, 1, None), LONG);
    let refused = Answer::Published(Outcome::Refused(Refusal::Unreachable));
    assert_eq!(caller.answer(op), refused, "it has certainly not left");
    let problem = caller.problem(part);
    let address = url.rsplit(['@', '/']).next().expect("an address");
    assert!(problem.contains(address), "{problem}");
    problem
}

#[test]
fn what_is_not_nats_is_named_and_nothing_is_sent_to_it() {
    let host = Caller::new(&["nats://127.0.0.1:1"]);
    is_refused_and_reported("nats://127.0.0.1:1", "nobody answers");
    is_refused_and_reported(&impostor(&host, b"", true), "accepts connections and never answers");
    is_refused_and_reported(&impostor(&host, b"", false), "is not NATS");
    is_refused_and_reported(&impostor(&host, &[0xff; 4_096], false), "is not NATS");
    is_refused_and_reported(&impostor(&host, &[0xff; 4_096], true), "never answers");
    is_refused_and_reported(
        &impostor(&host, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", true),
        "is not NATS",
    );
    is_refused_and_reported(&impostor(&host, b"INFO {\"version\":\r\n", true), "is not NATS");
}

#[test]
fn an_older_server_is_named_with_its_version() {
    let host = Caller::new(&["nats://127.0.0.1:1"]);
    let says =
        b"INFO {\"server_id\":\"A\",\"version\":\"2.9.25\",\"max_payload\":1048576,\"jetstream\":true}\r\nPONG\r\n";
    is_refused_and_reported(&impostor(&host, says, true), "of version `2.9.25`: 2.10 or newer is needed");
}

#[test]
fn nats_without_jetstream_is_named() {
    let nats = Nats::without_jetstream("");
    is_refused_and_reported(&nats.url(), "runs without JetStream: start it with `-js`");
}

#[test]
fn an_account_without_jetstream_is_named() {
    let nats = Nats::start("accounts { A { users: [ { user: a, password: a } ] } }\nno_auth_user: a");
    let caller = Caller::new(&[nats.url()]);
    caller.problem("without JetStream");
}

#[test]
fn wrong_credentials_are_named_and_a_password_is_never_shown() {
    let nats = Nats::start("authorization { users: [ { user: worldline, password: sesame } ] }");
    let with = |user: &str| nats.url().replace("nats://", &format!("nats://{user}@"));
    let problem = is_refused_and_reported(&with("worldline:sesam"), "wrong user or password");
    assert!(!problem.contains("sesam"), "{problem}");
    is_refused_and_reported(&nats.url(), "wrong user or password");
    let mut right = Caller::connected(&with("worldline:sesame"));
    assert_eq!(right.publish(1, 1), stored(1));
}

#[test]
fn a_stream_with_other_limits_is_not_used_until_it_is_as_it_must_be() {
    let nats = Nats::start("");
    let host = Caller::new(&["nats://127.0.0.1:1"]);
    let others = || async {
        let client = loop {
            match async_nats::connect(nats.url()).await {
                Ok(client) => break async_nats::jetstream::new(client),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let max_age = Duration::from_secs(60);
        let subjects = vec!["worldline.facts.*".to_owned()];
        let config = stream::Config { name: "WORLDLINE_FACTS".into(), subjects, max_age, ..Default::default() };
        client.create_stream(config).await.expect("made");
        client
    };
    let jetstream = host.runtime.block_on(others());
    let mut caller = Caller::new(&[nats.url()]);
    let problem = caller.problem("the stream WORLDLINE_FACTS is not as it must be");
    for part in ["its max_age is 60s where 259200s is wanted", "its max_bytes is -1", "nats stream edit"] {
        assert!(problem.contains(part), "{problem}");
    }
    assert_eq!(caller.publish(1, 1), Outcome::Refused(Refusal::NotServing));
    let refused = Answer::Consuming(Outcome::Refused(Refusal::NotServing));
    assert_eq!(caller.call(consume(None, Start::New)), refused);
    host.runtime.block_on(async { jetstream.delete_stream("WORLDLINE_FACTS").await.expect("deleted") });
    caller.until_ready();
    assert_eq!(caller.publish(1, 1), stored(1));
}

#[test]
fn a_storage_without_room_for_the_stream_is_named() {
    let little = "jetstream { store_dir: \"FOLDER/data\", max_file_store: 1MB }";
    let nats = Nats::without_jetstream(little);
    let caller = Caller::new(&[nats.url()]);
    caller.problem("cannot be made");
}

#[test]
fn a_right_server_among_wrong_ones_is_found() {
    let nats = Nats::start("");
    let host = Caller::new(&["nats://127.0.0.1:1"]);
    let urls = ["nats://127.0.0.1:1".to_owned(), impostor(&host, b"", true), nats.url()];
    let mut caller = Caller::new(&urls);
    caller.until_ready();
    assert_eq!(caller.publish(1, 1), stored(1));
}
