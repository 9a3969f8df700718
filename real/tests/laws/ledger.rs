//! The ledger's laws on PostgreSQL.

use crate::{
    hosted::{About, GRACE, Hosted},
    postgres::Postgres,
    process::Behind,
    proxy::Proxy,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use std::time::Duration as Span;
use worldline_laws::{
    Extent, Fault, Service,
    ledger::{self as laws, Ledger as Door, LedgerService, Moment},
    service::CALLERS,
};
use worldline_proto::OpId;
use worldline_real::{
    clock,
    ledger::{self, Config, Ledger, Seed},
    ready::Readiness,
};
use worldline_system::{
    doors::{
        self, Asked,
        ledger::{Ask, Event, Submission},
    },
    outcome::End,
    time::{Duration, Instant},
};

struct Real {
    hosted: Hosted,
    behind: Behind<Postgres>,
    /// Around the proxy.
    url: String,
    /// Of the server itself.
    server: String,
    callers: Vec<Ledger>,
    /// Commits wait for a standby that there is not.
    waits_for_standby: bool,
}

impl Real {
    fn new() -> Self {
        let (hosted, server) = (Hosted::new(), Postgres::start());
        let proxy = Proxy::new(&hosted.runtime, ([127, 0, 0, 1], server.port()).into());
        let (url, system) = (server.url("laws"), server.url("postgres"));
        let callers = hosted.runtime.block_on(async {
            sql(&system, "create database laws template template0").await;
            ledger::migrate(&url).await.unwrap();
            let behind = url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.address.port()));
            let caller = || Ledger::new(Config::new(&behind).unwrap(), hosted.inbox.clone(), Readiness::default());
            (0..CALLERS).map(|_| caller()).collect()
        });
        let behind = Behind::new(server, proxy);
        Self { hosted, behind, url, server: system, callers, waits_for_standby: false }
    }

    /// Changes what the server is set to, and lets it know.
    fn setting(&self, statement: &str) {
        self.hosted.runtime.block_on(async {
            sql(&self.server, statement).await;
            sql(&self.server, "select pg_reload_conf()").await;
        });
    }
}

/// A commit that waits for a standby, for none can be this one.
const NOBODY: &str = "alter system set synchronous_standby_names = 'nobody'";
const ALONE: &str = "alter system reset synchronous_standby_names";

async fn sql(url: &str, statements: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the server is there");
    connection.execute(AssertSqlSafe(statements)).await.unwrap();
}

impl Drop for Real {
    fn drop(&mut self) {
        self.behind.server.go_on();
        self.callers.iter().for_each(|ledger| self.hosted.runtime.block_on(ledger.close()));
    }
}

impl Service<Door> for Real {
    fn begin(&mut self) {
        // A case that failed may have left its fault behind.
        self.fault(Fault::Heal);
        self.read_only(false);
        let seeds: Vec<Seed> = laws::world()
            .into_iter()
            .map(|born| Seed {
                entity: born.entity,
                position: born.position,
                pinned: born.pinned,
                hit_points: born.hit_points,
                balance: born.balance,
            })
            .collect();
        self.hosted.runtime.block_on(async {
            // What is still at work for the case before ends first.
            sql(
                &self.url,
                "select pg_terminate_backend(pid, 10000) from pg_stat_activity
                 where datname = 'laws' and pid <> pg_backend_pid() and state <> 'idle'",
            )
            .await;
            let tables = "worldline.entities, worldline.results, worldline.outbox, worldline.journal";
            sql(&self.url, &format!("truncate {tables} restart identity")).await;
            ledger::seed(&self.url, &seeds).await.unwrap();
        });
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn submit(&mut self, caller: usize, patience: Duration, submission: Submission) -> OpId {
        let ask = Ask::from(&submission);
        let unknown = |op| doors::Event::Ledger(Event { op, answer: ask.ended(End::Unknown).into() });
        let (op, deadline) = self.hosted.op(caller, patience, unknown);
        let _inside = self.hosted.runtime.enter();
        self.callers[caller].submit(Asked { op, deadline, submission });
        op
    }

    fn next_event(&mut self, by: Instant) -> Option<(usize, Event)> {
        let about = |event: &doors::Event| match event {
            doors::Event::Ledger(event) => About::Answer(event.op),
            other => panic!("{other:?} is not of the ledger"),
        };
        self.hosted.next_event(by, about).map(|(caller, event)| match event {
            doors::Event::Ledger(event) => (caller, event),
            other => panic!("{other:?} is not of the ledger"),
        })
    }

    fn grace(&self) -> Duration {
        GRACE
    }

    fn fault(&mut self, fault: Fault) -> bool {
        if fault == Fault::Heal && std::mem::take(&mut self.waits_for_standby) {
            // The connections break first: whose commit waits does not look.
            self.behind.befall(Fault::Cut);
            self.setting(ALONE);
        }
        self.behind.befall(fault)
    }
}

impl LedgerService for Real {
    fn read_only(&mut self, on: bool) -> bool {
        self.setting(if on {
            "alter system set default_transaction_read_only = on"
        } else {
            "alter system reset default_transaction_read_only"
        });
        true
    }

    fn break_connections(&mut self, moment: Moment) -> bool {
        match moment {
            Moment::Before => self.behind.befall(Fault::LoseRequests),
            Moment::After => self.behind.befall(Fault::LoseAnswers),
            Moment::During => {
                self.waits_for_standby = true;
                self.setting(NOBODY);
                self.hosted.wait(Span::from_secs(60), commits_wait(&self.server));
                true
            }
        }
    }
}

/// Returns once a commit waits for a standby: the server's processes take a new setting one after the other.
async fn commits_wait(url: &str) {
    let mut watcher = PgConnection::connect(url).await.expect("the server is there");
    loop {
        let there = url.to_owned();
        let probe = async move { sql(&there, "select pg_logical_emit_message(true, 'laws', 'probe')").await };
        let probe = tokio::spawn(probe);
        while !probe.is_finished() {
            let waiting = "select 1 from pg_stat_activity where wait_event = 'SyncRep'";
            if watcher.fetch_optional(waiting).await.unwrap().is_some() {
                // It stays until the setting is taken back.
                return;
            }
        }
    }
}

#[test]
fn sound() {
    let extent = Extent { cases: 48, steps: 24, longest_wait: Duration::ZERO };
    laws::sound(&mut Real::new(), extent).expect(laws::SOUND);
}

#[test]
fn under_faults() {
    let extent = Extent { cases: 20, steps: 8, longest_wait: Duration::ZERO };
    laws::under_faults(&mut Real::new(), extent).expect(laws::UNDER_FAULTS);
}
