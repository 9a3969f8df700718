//! Revoking tokens: what an operator's command leaves behind, and what it says.

use super::support::*;
use tokio::net::{TcpListener, TcpStream};
use worldline_proto::{CharacterId, Generation, token::SKEW_MS};
use worldline_real::{clock, ledger, ledger::Unrevoked};
use worldline_system::{
    Outcome, Refusal,
    doors::ledger::{Answer, Standing, Submission},
    history::Acceptance,
    time::Duration,
};

#[tokio::test]
async fn a_revocation_ends_the_session_and_may_be_repeated() {
    let url = world().await;
    let (ledger, _) = adapter(&url, 2);
    assert_eq!(login(&ledger, 1).await.generation, Generation(1));
    let revoked = ledger::revoke(&url, hero(), Some(1_000), Duration::ZERO).await.unwrap();
    let stands = Standing { character: hero(), generation: Generation(2), tokens_valid_from_unix_ms: 1_000 };
    assert_eq!((revoked.standing, revoked.news), (stands, true));
    let again = ledger::revoke(&url, hero(), Some(1_000), Duration::ZERO).await.unwrap();
    assert_eq!((again.standing, again.news), (stands, false), "nothing is done twice");
    let login = |nonce, issued_unix_ms| Submission::Login { character: hero(), nonce, issued_unix_ms };
    for nonce in [1, 2].map(worldline_proto::Nonce) {
        let answer = ask(&ledger, login(nonce, 999)).await;
        assert_eq!(answer, Answer::LoggedIn(Outcome::Refused(Refusal::TokenRevoked)), "also the login of before");
    }
    let answer = ask(&ledger, login(worldline_proto::Nonce(3), 1_000)).await;
    assert!(matches!(answer, Answer::LoggedIn(Outcome::Done(login)) if login.generation == Generation(3)));
    let question = Submission::Standing { characters: vec![hero(), CharacterId::new(77).unwrap()] };
    let stands = Standing { generation: Generation(3), ..stands };
    assert_eq!(ask(&ledger, question).await, Answer::Standing(Outcome::Done(vec![stands])));
    let journal = ledger::journal(&url).await.unwrap();
    let told = journal.iter().filter(|(_, what)| matches!(what, Acceptance::TokensRevoked { .. })).count();
    assert_eq!(told, 1);
}

#[tokio::test]
async fn without_a_moment_all_that_clocks_may_differ_is_revoked_by_the_ledgers_clock() {
    let url = world().await;
    let before = clock::unix_now().as_nanos() / 1_000_000;
    let revoked = ledger::revoke(&url, hero(), None, Duration::ZERO).await.unwrap();
    let after = clock::unix_now().as_nanos() / 1_000_000;
    let from = revoked.standing.tokens_valid_from_unix_ms;
    assert!((before + SKEW_MS..=after + SKEW_MS + 1).contains(&from), "{before} {from} {after}");
    let nobody = ledger::revoke(&url, CharacterId::new(77).unwrap(), None, Duration::ZERO).await;
    assert!(matches!(nobody, Err(Unrevoked::Nobody(_))), "{nobody:?}");
    let nowhere = ledger::revoke("postgres://postgres@127.0.0.1:1/x", hero(), None, Duration::ZERO).await;
    assert!(matches!(nowhere, Err(Unrevoked::Problem(_))), "{nowhere:?}");
}

#[tokio::test]
async fn a_moment_that_nobody_has_a_token_of_yet_is_refused_and_locks_nobody_out() {
    let url = world().await;
    let (ledger, _) = adapter(&url, 2);
    let now_ms = || clock::unix_now().as_nanos() / 1_000_000;
    let (before, in_us) = (now_ms(), now_ms() * 1_000);
    for moment in [in_us, u64::MAX, before + 60_000] {
        let refused = ledger::revoke(&url, hero(), Some(moment), Duration::ZERO).await;
        let Err(Unrevoked::Ahead { latest_unix_ms }) = refused else { panic!("{moment}: {refused:?}") };
        assert!((before + SKEW_MS..=now_ms() + SKEW_MS + 1).contains(&latest_unix_ms), "{before} {latest_unix_ms}");
    }
    let arguments = ["revoke", "character-1", "--ledger", &url, "--issued-before", &in_us.to_string()];
    let ended = std::process::Command::new(env!("CARGO_BIN_EXE_worldlined")).args(arguments).output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(64), "{told}");
    let found = format!("flag --issued-before: found {in_us}, expected milliseconds since 1970, at most ");
    let meant = format!("did you mean `{}`?\n", in_us / 1_000);
    assert!(told.starts_with(&found) && told.ends_with(&meant), "{told}");
    assert_eq!(number(&url, "select count(*) from worldline.revocations").await, 0);
    assert_eq!(login(&ledger, 1).await.generation, Generation(1), "nothing has happened");
    let now = now_ms();
    let revoked = ledger::revoke(&url, hero(), Some(now), Duration::ZERO).await.unwrap();
    assert_eq!(
        (revoked.standing.tokens_valid_from_unix_ms, revoked.news),
        (now, true),
        "what was issued so far may be"
    );
}

/// A way to a database on which the connection of this number, from 0, is cut as soon as it has come.
async fn way_that_cuts(url: &str, cut: usize) -> String {
    let (server, database) = url.rsplit_once('/').unwrap();
    let to = server.rsplit_once('@').unwrap().1.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let way = format!("{}/{database}", server.replace(&to, &listener.local_addr().unwrap().to_string()));
    tokio::spawn(async move {
        for number in 0.. {
            let (mut from, _) = listener.accept().await.unwrap();
            let to = to.clone();
            if number != cut {
                tokio::spawn(async move {
                    let mut to = TcpStream::connect(to).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut from, &mut to).await);
                });
            }
        }
    });
    way
}

#[tokio::test]
async fn who_waits_is_answered_whichever_connection_is_lost() {
    let url = world().await;
    for cut in 0..5 {
        let way = way_that_cuts(&url, cut).await;
        let revoked = ledger::revoke(&way, hero(), None, Duration::from_secs(20)).await;
        assert!(revoked.is_ok(), "connection {cut}: {revoked:?}");
    }
}
