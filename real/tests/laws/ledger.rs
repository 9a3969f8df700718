//! The ledger's laws on PostgreSQL.

use crate::{
    cluster::{Cluster, Kind},
    hosted::{About, GRACE, Hosted},
    postgres::Postgres,
    process::{Behind, Place},
    proxy::Proxy,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use std::time::Duration as Span;
use worldline_laws::{
    Extent, Fault, Service,
    ledger::{self as laws, Ledger as Door, LedgerService, Moment},
    seed,
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
    place: Box<dyn Place>,
    /// Around the proxy.
    url: String,
    /// Of the server itself.
    server: String,
    callers: Vec<Ledger>,
    /// Commits wait for a standby that there is not.
    waits_for_standby: bool,
    clustered: bool,
    /// Its standby has taken over: the next case needs another.
    spent: bool,
}

/// A cluster whose primary is killed, once, and its standby promoted; or stopped.
struct Succession {
    cluster: Cluster,
    succeeded: bool,
}

impl Place for Succession {
    fn befall(&mut self, fault: Fault, _: &Hosted) -> bool {
        match fault {
            Fault::Kill if !self.succeeded => {
                self.cluster.kill(Kind::Postgres, 0);
                self.cluster.promote();
                self.succeeded = true;
            }
            Fault::Stop if !self.succeeded => self.cluster.stop(Kind::Postgres, 0),
            Fault::Heal if self.succeeded => {}
            Fault::Heal => self.cluster.go_on(Kind::Postgres, 0),
            _ => return false,
        }
        true
    }
}

impl Real {
    fn new() -> Self {
        let (hosted, server) = (Hosted::new(), Postgres::start());
        let proxy = Proxy::new(&hosted.runtime, ([127, 0, 0, 1], server.port()).into());
        let (direct, through) = (format!("127.0.0.1:{}", server.port()), proxy.address.to_string());
        Self::at(hosted, Box::new(Behind::new(server, proxy)), &direct, &through)
    }

    /// A primary with a synchronous standby, which takes over once.
    fn clustered() -> Self {
        let cluster = Cluster::start();
        let places = cluster.places(Kind::Postgres);
        let place = Box::new(Succession { cluster, succeeded: false });
        let mut real = Self::at(Hosted::new(), place, &places[0], &places.join(","));
        real.clustered = true;
        real
    }

    /// Around whatever stands between, and as the callers reach it.
    fn at(hosted: Hosted, place: Box<dyn Place>, direct: &str, through: &str) -> Self {
        let url = |place, database| format!("postgres://postgres@{place}/{database}");
        let (server, database) = (url(direct, "postgres"), url(direct, "laws"));
        let callers = hosted.runtime.block_on(async {
            sql(&server, "create database laws template template0").await;
            ledger::migrate(&database).await.unwrap();
            let config = || Config::new(&url(through, "laws")).unwrap();
            (0..CALLERS).map(|_| Ledger::new(config(), hosted.inbox.clone(), Readiness::default())).collect()
        });
        Self { hosted, place, url: database, server, callers, waits_for_standby: false, clustered: false, spent: false }
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
        self.fault(Fault::Heal);
        self.callers.iter().for_each(|ledger| self.hosted.runtime.block_on(ledger.close()));
    }
}

impl Service<Door> for Real {
    fn begin(&mut self) {
        if self.spent {
            *self = Self::clustered();
        }
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
            self.place.befall(Fault::Cut, &self.hosted);
            self.setting(ALONE);
        }
        self.spent |= self.clustered && fault == Fault::Kill;
        self.place.befall(fault, &self.hosted)
    }
}

impl LedgerService for Real {
    fn read_only(&mut self, on: bool) -> bool {
        if self.clustered {
            return false;
        }
        self.setting(if on {
            "alter system set default_transaction_read_only = on"
        } else {
            "alter system reset default_transaction_read_only"
        });
        true
    }

    fn break_connections(&mut self, moment: Moment) -> bool {
        match moment {
            _ if self.clustered => false,
            Moment::Before => self.place.befall(Fault::LoseRequests, &self.hosted),
            Moment::After => self.place.befall(Fault::LoseAnswers, &self.hosted),
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
    let extent = Extent { cases: 48, steps: 24, longest_wait: Duration::ZERO, seed: seed() };
    laws::sound(&mut Real::new(), extent).expect(laws::SOUND);
}

#[test]
fn under_faults() {
    let extent = Extent { cases: 20, steps: 8, longest_wait: Duration::ZERO, seed: seed() };
    laws::under_faults(&mut Real::new(), extent).expect_under_faults(laws::UNDER_FAULTS);
}

#[test]
fn on_a_cluster() {
    let extent = Extent { cases: 4, steps: 8, longest_wait: Duration::ZERO, seed: seed() };
    // What its few deeds come to hangs on how long a promotion takes; claims come through in any case.
    laws::leaders_lost(&mut Real::clustered(), extent).expect(&["killed", "stopped", "claimed"]);
}
