//! `Refused` only where nothing happened, `Unknown` where nobody can know, and what is submitted again applies once.

use super::{
    impostor::{self, Line},
    support::*,
};
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::time::Duration;
use worldline_proto::{Incarnation, OpId, OpNumber};
use worldline_real::{
    Inbox, clock,
    ledger::{self, Config, Ledger},
    ready::Readiness,
};
use worldline_system::{
    Outcome, Refusal,
    doors::{Asked, ledger::Verdict},
    time,
};

const SHORT: Duration = Duration::from_millis(300);

/// Submits a blow again until it is known what came of it.
async fn resolved(ledger: &Ledger) -> Verdict {
    let resolving = async {
        loop {
            if let Outcome::Done(committed) = commit_within(ledger, vec![hit(1, 10)], PATIENCE).await {
                return committed.verdicts[0];
            }
        }
    };
    tokio::time::timeout(PATIENCE, resolving).await.expect("it is resolved")
}

async fn blows(url: &str) -> i64 {
    number(url, "select count(*) from worldline.journal where kind = 'OperationApplied'").await
}

#[tokio::test]
async fn a_call_whose_backend_is_killed_is_unknown_and_applies_once() {
    let url = world().await;
    let ledger = begun(&url).await;
    let mut holder = holding(&url).await;
    let call = tokio::spawn({
        let ledger = ledger.clone();
        async move { commit_within(&ledger, vec![hit(1, 10)], PATIENCE).await }
    });
    let pid = blocked(&url).await;
    sql(&url, &format!("select pg_terminate_backend({pid})")).await;
    assert_eq!(call.await.unwrap(), Outcome::Unknown);
    holder.execute("commit").await.unwrap();
    assert!(matches!(resolved(&ledger).await, Verdict::Applied(_)));
    assert_eq!(blows(&url).await, 1);
}

#[tokio::test]
async fn a_call_that_the_server_cancels_before_its_commit_is_refused() {
    let url = world().await;
    let ledger = begun(&url).await;
    let _holder = holding(&url).await;
    let call = tokio::spawn({
        let ledger = ledger.clone();
        async move { commit_within(&ledger, vec![hit(1, 10)], PATIENCE).await }
    });
    let pid = blocked(&url).await;
    sql(&url, &format!("select pg_cancel_backend({pid})")).await;
    assert_eq!(call.await.unwrap(), Outcome::Refused(Refusal::Busy));
    assert_eq!(blows(&url).await, 0);
}

#[tokio::test]
async fn connections_that_died_while_they_rested_are_replaced() {
    let url = world().await;
    let ledger = begun(&url).await;
    let mine = "application_name = 'worldlined' and datname = current_database()";
    sql(&url, &format!("select pg_terminate_backend(pid, 10000) from pg_stat_activity where {mine}")).await;
    assert!(matches!(resolved(&ledger).await, Verdict::Applied(_) | Verdict::Stored(_)));
    assert_eq!(blows(&url).await, 1);
}

#[tokio::test]
async fn a_swallowed_answer_is_unknown_and_its_repetition_is_answered_from_what_is_stored() {
    let url = world().await;
    let owner = begun(&url).await;
    let line = Line::to(&url).await;
    let (ledger, _) = adapter(&line.url, 1);
    commit(&ledger, vec![]).await;
    line.mute(true);
    assert_eq!(commit_within(&ledger, vec![hit(1, 10)], SHORT).await, Outcome::Unknown);
    assert!(matches!(commit(&owner, vec![hit(1, 10)]).await[0], Verdict::Stored(_)), "it had been committed");
    line.mute(false);
    assert!(matches!(resolved(&ledger).await, Verdict::Stored(_)), "the connection was not used again");
    assert_eq!(blows(&url).await, 1);
}

#[tokio::test]
async fn connections_that_rest_go_when_the_one_that_is_looked_at_is_lost_without_a_word() {
    let url = world().await;
    let line = Line::to(&url).await;
    let (ledger, ready) = adapter(&line.url, 4);
    commit(&ledger, vec![]).await;
    until(async || ready.problems().is_empty()).await;
    let mine = "application_name = 'worldlined' and datname = current_database()";
    let youngest =
        format!("select (extract(epoch from max(backend_start)) * 1e6)::bigint from pg_stat_activity where {mine}");
    let youngest = number(&url, &youngest).await;
    line.lose_what_stands();
    let older = format!(
        "select count(*) from pg_stat_activity where {mine} and (extract(epoch from backend_start) * 1e6)::bigint <= {youngest}"
    );
    until(async || number(&url, &older).await == 0).await;
    assert!(matches!(commit_within(&ledger, vec![], PATIENCE).await, Outcome::Done(_)));
}

#[tokio::test]
async fn a_server_that_has_many_sessions_of_ours_gets_no_other() {
    let url = world().await;
    drop(begun(&url).await);
    // As networks that break, or processes that were killed, leave them while they wait for a standby.
    let mut left = vec![];
    for _ in 0..10 {
        left.push(PgConnection::connect(&format!("{url}?application_name=worldlined")).await.unwrap());
    }
    let (ledger, ready) = adapter(&url, 1);
    assert_eq!(commit_within(&ledger, vec![hit(1, 1)], PATIENCE).await, Outcome::Refused(Refusal::Busy));
    until(async || ready.problems().get("ledger").is_some_and(|told| told.contains("sessions of this name"))).await;
    drop(left);
    until(async || ready.problems().is_empty()).await;
    assert!(matches!(resolved(&ledger).await, Verdict::Applied(_)));
}

#[tokio::test]
async fn a_call_past_its_deadline_is_unknown_and_may_land_later() {
    let url = world().await;
    let ledger = begun(&url).await;
    let mut holder = holding(&url).await;
    assert_eq!(commit_within(&ledger, vec![hit(1, 10)], SHORT).await, Outcome::Unknown);
    holder.execute("commit").await.unwrap();
    until(async || blows(&url).await == 1).await;
    assert!(matches!(commit(&ledger, vec![hit(1, 10)]).await[0], Verdict::Stored(_)));
}

#[tokio::test]
async fn an_error_at_the_commit_itself_comes_after_the_row_and_before_the_answer() {
    let url = world().await;
    let ledger = begun(&url).await;
    for (code, refusal) in [
        ("40001", Refusal::SerializationFailure),
        ("40P01", Refusal::Deadlock),
        ("25006", Refusal::ReadOnly),
        ("53100", Refusal::DiskFull),
        ("23514", Refusal::NotServing),
    ] {
        let trigger = format!(
            "create or replace function fail() returns trigger language plpgsql as \
             $$ begin raise exception 'planted' using errcode = '{code}'; end $$; \
             create or replace constraint trigger fail after insert on worldline.journal initially deferred \
             for each row execute function fail()"
        );
        sql(
            &url,
            &trigger.replace(
                "create or replace constraint",
                "drop trigger if exists fail on worldline.journal; create constraint",
            ),
        )
        .await;
        assert_eq!(commit_within(&ledger, vec![hit(1, 10)], PATIENCE).await, Outcome::Refused(refusal), "{code}");
    }
    assert_eq!(blows(&url).await, 0, "each was rolled back");
    sql(&url, "drop trigger fail on worldline.journal").await;
    assert!(matches!(resolved(&ledger).await, Verdict::Applied(_)));
}

#[tokio::test]
async fn a_warning_of_the_server_makes_a_call_unknown() {
    let url = world().await;
    let ledger = begun(&url).await;
    let warn = "create function warn() returns trigger language plpgsql as \
                $$ begin raise warning 'canceling wait for synchronous replication'; return null; end $$; \
                create constraint trigger warn after insert on worldline.journal initially deferred \
                for each row execute function warn()";
    sql(&url, warn).await;
    assert_eq!(commit_within(&ledger, vec![hit(1, 10)], PATIENCE).await, Outcome::Unknown);
    assert_eq!(blows(&url).await, 1);
    assert!(matches!(commit(&ledger, vec![hit(1, 10)]).await[0], Verdict::Stored(_)), "the next one is believed again");
}

#[tokio::test]
async fn a_call_that_finds_no_connection_before_its_deadline_is_refused() {
    let url = world().await;
    drop(begun(&url).await);
    let (ledger, _) = adapter(&url, 1);
    let mut holder = holding(&url).await;
    let call = tokio::spawn({
        let ledger = ledger.clone();
        async move { commit(&ledger, vec![hit(1, 10)]).await }
    });
    blocked(&url).await;
    assert_eq!(commit_within(&ledger, vec![hit(2, 10)], SHORT).await, Outcome::Refused(Refusal::PoolExhausted));
    holder.execute("commit").await.unwrap();
    assert!(matches!(call.await.unwrap()[0], Verdict::Applied(_)));
    let next = vec![hit(2, 10)];
    assert!(matches!(commit(&ledger, next).await[0], Verdict::Applied(_)), "the refused one has left no trace");
}

#[tokio::test]
async fn a_server_that_takes_no_writes_or_is_not_there_refuses() {
    let url = world().await;
    let name = url.rsplit('/').next().unwrap();
    sql(&url, &format!("alter database {name} set default_transaction_read_only = on")).await;
    let (ledger, _) = adapter(&url, 1);
    assert_eq!(commit_within(&ledger, vec![], PATIENCE).await, Outcome::Refused(Refusal::ReadOnly));
    let (ledger, _) = adapter(&address("no_such_database"), 1);
    assert_eq!(commit_within(&ledger, vec![], PATIENCE).await, Outcome::Refused(Refusal::NotServing));
    let (ledger, _) = adapter(&nobody().await, 1);
    assert_eq!(commit_within(&ledger, vec![], PATIENCE).await, Outcome::Refused(Refusal::Unreachable));
    let (ledger, _) = adapter(&impostor::saying(vec![]).await, 1);
    assert_eq!(commit_within(&ledger, vec![], SHORT).await, Outcome::Refused(Refusal::Unreachable));
    let starting = impostor::error("FATAL", "57P03", "the database system is starting up");
    let (ledger, _) = adapter(&impostor::saying(starting).await, 1);
    assert_eq!(commit_within(&ledger, vec![], PATIENCE).await, Outcome::Refused(Refusal::Busy));
    let full = impostor::error("FATAL", "53300", "sorry, too many clients already");
    let (ledger, _) = adapter(&impostor::saying(full).await, 1);
    assert_eq!(commit_within(&ledger, vec![], PATIENCE).await, Outcome::Refused(Refusal::Busy));
}

#[tokio::test]
async fn an_operation_is_answered_to_the_inbox_even_by_a_server_that_never_answers() {
    let inbox = Inbox::default();
    let config = Config::new(&impostor::saying(vec![]).await).unwrap();
    let ledger = Ledger::new(config, inbox.clone(), Readiness::default());
    let deadline = clock::now() + time::Duration::from_millis(200);
    let op = OpId { incarnation: Incarnation(1), counter: 1 };
    ledger.submit(Asked { op, deadline, submission: batch(vec![hit(1, 1)], vec![]) });
    until(async || inbox.len() == 1).await;
}

#[tokio::test]
async fn a_closed_adapter_has_answered_everything_and_leaves_no_connection() {
    let url = world().await;
    let ledger = begun(&url).await;
    let calls: Vec<_> = (1..=20)
        .map(|number| {
            tokio::spawn({
                let (ledger, operation) = (ledger.clone(), hit(number, 0));
                async move { commit_within(&ledger, vec![operation], PATIENCE).await }
            })
        })
        .collect();
    until(async || blows(&url).await > 0).await;
    ledger.close().await;
    for call in calls {
        assert!(matches!(call.await.unwrap(), Outcome::Done(_)));
    }
    assert_eq!(commit_within(&ledger, vec![], PATIENCE).await, Outcome::Refused(Refusal::Busy));
    let mine =
        "select count(*) from pg_stat_activity where application_name = 'worldlined' and datname = current_database()";
    until(async || number(&url, mine).await == 0).await;
    ledger.close().await;
}

#[tokio::test]
async fn commits_wait_for_the_disk_whatever_the_servers_default_is() {
    let url = world().await;
    let name = url.rsplit('/').next().unwrap();
    let defaults = [("synchronous_commit", "off"), ("default_transaction_isolation", "'repeatable read'")];
    for (setting, value) in defaults {
        sql(&url, &format!("alter database {name} set {setting} = {value}")).await;
    }
    let tell = "create table told (synchronous_commit text, isolation text); \
                create function tell() returns trigger language plpgsql as $$ begin insert into told values \
                (current_setting('synchronous_commit'), current_setting('transaction_isolation')); return null; end $$; \
                create trigger tell after insert on worldline.journal for each row execute function tell()";
    sql(&url, tell).await;
    let ledger = begun(&url).await;
    commit(&ledger, vec![hit(1, 1)]).await;
    let right = "select count(*) from told where synchronous_commit = 'on' and isolation = 'read committed'";
    assert_eq!(number(&url, right).await, number(&url, "select count(*) from worldline.journal").await);
}

#[tokio::test]
async fn every_answer_waits_for_the_log_even_where_nothing_changed() {
    let url = world().await;
    let ledger = begun(&url).await;
    commit(&ledger, vec![hit(1, 1)]).await;
    let transactions = "select txid_snapshot_xmax(txid_current_snapshot())";
    let before = number(&url, transactions).await;
    assert!(matches!(commit(&ledger, vec![hit(1, 1)]).await[0], Verdict::Stored(_)));
    assert!(number(&url, transactions).await > before, "a transaction of its own: its commit is in the log");
    let before = number(&url, transactions).await;
    let gap = worldline_system::doors::ledger::Operation { number: OpNumber(9), ..hit(9, 1) };
    commit(&ledger, vec![gap]).await;
    assert!(number(&url, transactions).await > before);
    let before = number(&url, transactions).await;
    ask(&ledger, worldline_system::doors::ledger::Submission::Roster { after: None, limit: 1 }).await;
    assert!(number(&url, transactions).await > before);
    assert_eq!(ledger::tables(&url).await.unwrap().results.len(), 1);
}
