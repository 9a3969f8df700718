//! Whatever is wrong, `/ready` says what, where and what to do; and once it is right, that.

use super::{impostor, support::*};
use worldline_real::{
    ledger::{self, Config, Problem},
    ready::Readiness,
};

/// An address, what is said of it, and which problem that is.
type Case = (String, &'static str, fn(&Problem) -> bool);

/// What readiness says of a need of this name.
fn told(ready: &Readiness) -> Option<String> {
    ready.problems().remove("ledger")
}

/// Starts an adapter and waits until it says what is wrong.
async fn wrong(url: &str) -> (String, Problem) {
    let (ledger, ready) = adapter(url, 1);
    assert!(told(&ready).unwrap().contains("has not answered yet"), "before anything is known it is not ready");
    until(async || ledger.problem().is_some()).await;
    (told(&ready).unwrap(), ledger.problem().unwrap())
}

#[tokio::test]
async fn what_is_wrong_is_said_with_the_place_and_without_the_password() {
    let with = |url: String| url.replace("postgres@", "postgres:secret@");
    let busy = impostor::error("FATAL", "57P03", "the database system is starting up");
    let denied = impostor::error("FATAL", "28P01", "password authentication failed for user \"someone\"");
    let cases: [Case; 11] = [
        (with(nobody().await), "no PostgreSQL answers", |p| matches!(p, Problem::Unreachable(..))),
        (impostor::saying(vec![]).await, "has not answered", |p| matches!(p, Problem::Silent(..))),
        (impostor::saying(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()).await, "is it PostgreSQL", |p| {
            matches!(p, Problem::Silent(..))
        }),
        (impostor::saying(vec![0xff; 64]).await, "does not speak", |p| matches!(p, Problem::Foreign(..))),
        (impostor::saying(vec![b'R', 0, 0, 0, 1]).await, "does not speak", |p| matches!(p, Problem::Foreign(..))),
        (guarded("postgres").replace("sesame", "secret"), "refuses the user `guarded`", |p| {
            matches!(p, Problem::Credentials(..))
        }),
        (impostor::saying(denied).await, "refuses the user `someone`", |p| matches!(p, Problem::Credentials(..))),
        (with(address("x")).replace("postgres:secret", "nobody:secret"), "refuses the user `nobody`", |p| {
            matches!(p, Problem::Credentials(..))
        }),
        (with(address("no_such_database")), "no such database", |p| matches!(p, Problem::NoDatabase(..))),
        (impostor::saying(impostor::welcome("16.4")).await, "is version 16.4; needed is 17", |p| {
            matches!(p, Problem::OldServer(..))
        }),
        (impostor::saying(busy).await, "starting up", |p| matches!(p, Problem::Busy(..))),
    ];
    for (url, text, is) in cases {
        let (message, problem) = wrong(&url).await;
        assert!(message.contains(text) && is(&problem), "{message}: {problem:?}");
        let place = url.split_once('@').unwrap().1;
        assert!(message.contains(place) && !message.contains("secret"), "{message}");
        assert!(!problem.is_schema(), "waiting may help: {problem:?}");
        assert_eq!(ledger::check(&url).await, Err(problem));
    }
}

#[tokio::test]
async fn a_process_becomes_ready_when_the_schema_is_there_and_unready_when_it_is_gone() {
    let url = database().await;
    let (ledger, ready) = adapter(&url, 1);
    until(async || ledger.problem().is_some_and(|problem| problem.is_schema())).await;
    ledger::migrate(&url).await.unwrap();
    until(async || told(&ready).is_none()).await;
    until(async || ledger.problem().is_none()).await;
    sql(&url, "drop schema worldline cascade").await;
    until(async || told(&ready).is_some_and(|text| text.contains("no schema `worldline`"))).await;
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_not_ready() {
    let url = world().await;
    let name = url.rsplit('/').next().unwrap();
    sql(&url, &format!("alter database {name} set default_transaction_read_only = on")).await;
    let (message, problem) = wrong(&url).await;
    assert!(matches!(problem, Problem::ReadOnly(..)) && message.contains("read-only"), "{message}");
}

#[tokio::test]
async fn a_user_without_rights_is_told_so() {
    let url = world().await;
    let role = format!("guest_{}", url.rsplit('/').next().unwrap());
    sql(&url, &format!("create role {role} login")).await;
    let (message, problem) = wrong(&url.replace("postgres@", &format!("{role}@"))).await;
    assert!(matches!(problem, Problem::Forbidden(..)) && message.contains(&role), "{message}: {problem:?}");
    sql(&url, &format!("drop role {role}")).await;
}

#[test]
fn an_address_that_does_not_read_is_refused_at_once() {
    for url in ["", "mysql://localhost/world", "postgres://:secret@host:port/world", "postgres://h/w?sslmode=secret"] {
        let problem = Config::new(url).unwrap_err();
        assert!(matches!(problem, Problem::BadUrl(_)), "{url}: {problem:?}");
        assert!(problem.to_string().contains("postgres://USER"), "{problem}");
    }
}
