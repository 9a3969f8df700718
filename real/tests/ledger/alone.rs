//! What can only be done to a server that nobody else uses: `ci/services` starts one for each test here.

use super::support::*;
use std::{path::Path, process::Command, time::Duration};
use worldline_proto::OpNumber;
use worldline_real::ledger::{self, Problem};
use worldline_system::{
    Outcome, Refusal,
    doors::ledger::{Answer, Operation, Submission, Verdict},
};

const SHORT: Duration = Duration::from_millis(300);

/// A server of one's own. It ends with the test.
struct Server {
    url: String,
    folder: String,
    pid: i32,
}

fn services(arguments: &[&str]) -> String {
    let done = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/services")).args(arguments).output();
    let done = done.expect("ci/services runs");
    assert!(done.status.success(), "ci/services {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("it writes text")
}

fn value(environment: &str, name: &str) -> String {
    let line = environment.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
    line.unwrap_or_else(|| panic!("no {name} in {environment}")).to_owned()
}

impl Server {
    fn start() -> Self {
        let environment = services(&["start", "--only", "postgres"]);
        let value = |name| value(&environment, name);
        let pid = value("WORLDLINE_TEST_POSTGRES_PID").parse().expect("a number");
        Self { url: value("WORLDLINE_TEST_POSTGRES"), folder: value("WORLDLINE_TEST_SERVICES"), pid }
    }

    /// As the machine's failure would end it.
    fn kill(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it was there");
    }

    /// On the same port, with the same data.
    fn start_again(&mut self) {
        let environment = services(&["start", "--dir", &self.folder, "--only", "postgres"]);
        self.pid = value(&environment, "WORLDLINE_TEST_POSTGRES_PID").parse().expect("a number");
    }

    /// From now on a commit waits for this standby. Nobody: for none.
    async fn wait_for(&self, standby: &str) {
        sql(&self.url, &format!("alter system set synchronous_standby_names = '{standby}'")).await;
        sql(&self.url, "select pg_reload_conf()").await;
        let taken = format!("select (current_setting('synchronous_standby_names') = '{standby}')::integer::bigint");
        until(async || number(&self.url, &taken).await == 1).await;
        if !standby.is_empty() {
            self.until_a_commit_waits().await;
        }
    }

    /// Commits hear of a standby from another process than sessions do, and later.
    async fn until_a_commit_waits(&self) {
        let waits = "from pg_stat_activity where wait_event = 'SyncRep' and query like '%emit_message%'";
        let waiting = format!("select count(*) {waits}");
        loop {
            let url = self.url.clone();
            let commit = async move { sql(&url, "select pg_logical_emit_message(true, 'waits', '')").await };
            let commit = tokio::spawn(commit);
            until(async || commit.is_finished() || number(&self.url, &waiting).await > 0).await;
            if !commit.is_finished() {
                sql(&self.url, &format!("select pg_cancel_backend(pid) {waits}")).await;
                return commit.await.expect("it waits no longer");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        services(&["stop", "--dir", &self.folder]);
    }
}

/// The backend that waits for a standby.
async fn waiting(url: &str) -> i64 {
    let waits = "select coalesce(max(pid), 0)::bigint from pg_stat_activity where wait_event = 'SyncRep'";
    until(async || number(url, waits).await != 0).await;
    number(url, waits).await
}

#[tokio::test]
async fn a_commit_that_stops_waiting_for_its_standby_is_unknown() {
    let server = Server::start();
    let url = world_on(&server.url).await;
    let ledger = begun(&url).await;
    for (number, end) in [(1, "pg_cancel_backend"), (2, "pg_terminate_backend")] {
        server.wait_for("a_standby_that_is_not_there").await;
        let call = tokio::spawn({
            let ledger = ledger.clone();
            async move { commit_within(&ledger, vec![hit(number, 1)], PATIENCE).await }
        });
        let pid = waiting(&server.url).await;
        sql(&server.url, &format!("select {end}({pid})")).await;
        assert_eq!(call.await.unwrap(), Outcome::Unknown, "{end}");
        server.wait_for("").await;
        assert!(matches!(commit(&ledger, vec![hit(number, 1)]).await[0], Verdict::Stored(_)), "it stands here alone");
    }
}

#[tokio::test]
async fn an_answer_that_changes_nothing_waits_for_the_standby_too() {
    let server = Server::start();
    let url = world_on(&server.url).await;
    let ledger = begun(&url).await;
    commit(&ledger, vec![hit(1, 1)]).await;
    server.wait_for("a_standby_that_is_not_there").await;
    let gap = Operation { number: OpNumber(7), ..hit(7, 1) };
    assert_eq!(
        commit_within(&ledger, vec![hit(1, 1)], SHORT).await,
        Outcome::Unknown,
        "what is stored may be lost yet"
    );
    assert_eq!(commit_within(&ledger, vec![gap], SHORT).await, Outcome::Unknown);
    let roster = Submission::Roster { after: None, limit: 1 };
    assert_eq!(ask_within(&ledger, roster, SHORT).await, Answer::Roster(Outcome::Unknown));
    server.wait_for("").await;
}

#[tokio::test]
async fn while_the_standby_is_missing_few_sessions_wait_and_readiness_says_what_for() {
    let server = Server::start();
    let url = world_on(&server.url).await;
    drop(begun(&url).await);
    let connections = 2;
    let (ledger, ready) = adapter(&url, connections);
    commit(&ledger, vec![hit(1, 1)]).await;
    until(async || ready.problems().is_empty()).await;
    server.wait_for("a_standby_that_is_not_there").await;
    let mut ends = vec![];
    for _ in 0..20 {
        ends.push(commit_within(&ledger, vec![hit(2, 1)], SHORT).await);
    }
    let (unknown, refused): (Vec<_>, Vec<_>) = ends.into_iter().partition(|end| *end == Outcome::Unknown);
    assert_eq!(unknown.len(), connections, "one for each connection, which waits on");
    assert!(refused.iter().all(|end| *end == Outcome::Refused(Refusal::PoolExhausted)), "{refused:?}");
    until(async || matches!(ledger.problem(), Some(Problem::Unconfirmed(..)))).await;
    let told = &ready.problems()["ledger"];
    assert!(told.contains("commits have not been confirmed for") && told.contains("standby missing?"), "{told}");
    assert!(told.contains(url.split_once('@').unwrap().1), "{told}");
    // Calls wait for their rows and at their commit; who looks after the server has one commit of its own.
    let ours = "select count(*) from pg_stat_activity where application_name = 'worldlined' and state = 'active'";
    assert_eq!(number(&url, ours).await, connections as i64 + 1);
    server.wait_for("").await;
    until(async || ready.problems().is_empty()).await;
    assert!(matches!(commit(&ledger, vec![hit(2, 1)]).await[0], Verdict::Stored(_)), "it stood all the time");
    assert!(matches!(commit(&ledger, vec![hit(3, 1)]).await[0], Verdict::Applied(_)));
    until(async || number(&url, ours).await == 0).await;
}

#[tokio::test]
async fn a_server_that_crashes_is_not_ready_and_goes_on_where_it_was() {
    let mut server = Server::start();
    let url = world_on(&server.url).await;
    let ledger = begun(&url).await;
    assert!(matches!(commit(&ledger, vec![hit(1, 1)]).await[0], Verdict::Applied(_)));
    let _holder = holding(&url).await;
    let call = tokio::spawn({
        let ledger = ledger.clone();
        async move { commit_within(&ledger, vec![hit(2, 1)], PATIENCE).await }
    });
    blocked(&url).await;
    server.kill();
    assert_eq!(call.await.unwrap(), Outcome::Unknown);
    until(async || matches!(ledger.problem(), Some(Problem::Unreachable(..)))).await;
    assert_eq!(commit_within(&ledger, vec![hit(2, 1)], PATIENCE).await, Outcome::Refused(Refusal::Unreachable));
    server.start_again();
    until(async || ledger.problem().is_none()).await;
    let verdicts = commit(&ledger, vec![hit(1, 1), hit(2, 1)]).await;
    assert!(matches!(verdicts[..], [Verdict::Stored(_), Verdict::Applied(_)]), "{verdicts:?}");
    assert_eq!(ledger::tables(&url).await.unwrap().applied_through[0].1, OpNumber(2));
}

#[tokio::test]
async fn a_promoted_standby_is_found_and_has_everything_that_was_acknowledged() {
    let environment = services(&["start", "--cluster"]);
    let folder = value(&environment, "WORLDLINE_TEST_SERVICES");
    let both = Server { url: value(&environment, "WORLDLINE_TEST_POSTGRES"), folder: folder.clone(), pid: 0 };
    let (primary, standby) = both
        .url
        .split_once(',')
        .map(|(one, rest)| {
            let (two, _) = rest.split_once('/').expect("a database");
            (format!("{one}/postgres"), format!("postgres://postgres@{two}/postgres"))
        })
        .expect("two servers");
    // The standby is named first: it takes no writes yet.
    let world = world_on(&primary).await;
    let name = world.rsplit('/').next().expect("a database").to_owned();
    let at = |url: &str| url.rsplit_once('@').expect("a user").1.split('/').next().expect("a server").to_owned();
    let url = format!("postgres://postgres@{},{}/{name}", at(&standby), at(&primary));
    let (ledger, ready) = adapter(&url, 4);
    until(async || ready.problems().is_empty()).await;
    assert_eq!(ledger::check(&url).await, Ok(()));
    claim(&ledger, 1, &[(hero().entity(), 1), (boss(), 1)]).await.into_iter().for_each(|one| drop(one.unwrap()));
    assert_eq!(login(&ledger, 1).await.generation.0, 1);
    let acknowledged = commit(&ledger, vec![hit(1, 3)]).await;
    assert!(matches!(acknowledged[0], Verdict::Applied(_)), "{acknowledged:?}");

    services(&["promote", "--dir", &folder]);
    // Whoever submits until it is certain comes through, and finds what was acknowledged.
    let again = async |number| loop {
        match commit_within(&ledger, vec![hit(number, 3)], SHORT).await {
            Outcome::Done(committed) => return committed.verdicts,
            Outcome::Refused(_) | Outcome::Unknown => {}
        }
    };
    let again = async |number| tokio::time::timeout(PATIENCE, again(number)).await.expect("it comes through");
    assert!(matches!(again(1).await[0], Verdict::Stored(_)), "what was acknowledged stands");
    assert!(matches!(again(2).await[0], Verdict::Applied(_) | Verdict::Stored(_)));
    until(async || ready.problems().is_empty()).await;
    assert_eq!(ledger::check(&url).await, Ok(()));
}
