//! Migrations may be repeated and run at once; what is not ours is named and left alone.

use super::support::*;
use sqlx::Connection as _;
use worldline_proto::{EntityId, EntityKind};
use worldline_real::ledger::{self, Problem, Report, Seed};
use worldline_system::{
    doors::{directory::RegionId, ledger::Verdict},
    rules::space::Position,
};

#[tokio::test]
async fn a_migration_may_be_repeated() {
    let url = database().await;
    let Report { applied, version } = ledger::migrate(&url).await.unwrap();
    assert_eq!(applied.last(), Some(&version));
    assert_eq!(ledger::migrate(&url).await.unwrap(), Report { applied: vec![], version });
    ledger::check(&url).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_migrations_at_once_one_does_it() {
    let url = database().await;
    let all: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn({
                let url = url.clone();
                async move { ledger::migrate(&url).await }
            })
        })
        .collect();
    let mut at_work = 0;
    for one in all {
        at_work += usize::from(!one.await.unwrap().unwrap().applied.is_empty());
    }
    assert_eq!(at_work, 1);
    ledger::check(&url).await.unwrap();
}

#[tokio::test]
async fn seeding_again_creates_what_is_new_and_changes_nothing_else() {
    let url = world().await;
    let ledger = begun(&url).await;
    commit(&ledger, vec![hit(1, 60)]).await;
    let before = ledger::tables(&url).await.unwrap();
    let seed = |entity| Seed {
        entity,
        position: Position { x_mm: i64::MIN, y_mm: i64::MAX },
        pinned: Some(RegionId(255)),
        hit_points: u32::MAX,
        balance: i64::MAX,
    };
    let npc = EntityId::new(EntityKind::Npc, EntityId::NUMBER_MAX).unwrap();
    assert_eq!(ledger::seed(&url, &[seed(boss()), seed(npc), seed(npc)]).await, Ok(1));
    let after = ledger::tables(&url).await.unwrap();
    assert_eq!(after.rows[..41], before.rows);
    assert_eq!((after.rows[41].hit_points, after.minted), (u32::MAX, before.minted + i128::from(i64::MAX)));
    let debt =
        ledger::seed(&url, &[Seed { balance: -1, entity: EntityId::new(EntityKind::Npc, 1).unwrap(), ..seed(npc) }])
            .await;
    assert!(matches!(debt, Err(Problem::Other(..))), "{debt:?}");
}

/// A database as the program of an earlier version has left it.
async fn earlier(version: i64) -> String {
    let url = database().await;
    let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"));
    let mut migrator = sqlx::migrate::Migrator::new(folder).await.unwrap();
    migrator.dangerous_set_table_name("worldline.migrations");
    migrator.create_schema("worldline");
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    migrator.run_direct(Some(version), &mut connection, false).await.unwrap();
    url
}

#[tokio::test]
async fn a_world_of_an_earlier_version_goes_on_after_its_migration() {
    let url = earlier(3).await;
    let born = "insert into worldline.entities (id, hit_points, experience, balance, minted, applied_through, generation, \
                born_x_mm, born_y_mm) select kind << 56 | 1, 100, 0, 50, 50, 1, kind % 2, 0, 0 from generate_series(1::bigint, 2) kind";
    sql(&url, born).await;
    sql(&url, "insert into worldline.results values (1::bigint << 56 | 1, 1, 1, repeat('01', 16), '{\"Refused\": \"Cooldown\"}')")
        .await;
    assert!(matches!(ledger::check(&url).await, Err(Problem::SchemaOlder { found: 3, .. })));
    assert_eq!(ledger::migrate(&url).await.unwrap(), Report { applied: vec![4, 5], version: 5 });
    let (ledger, _) = adapter(&url, 1);
    claim(&ledger, 1, &[(hero().entity(), 1), (boss(), 1)]).await.into_iter().for_each(|one| drop(one.unwrap()));
    let verdicts = commit(&ledger, vec![hit(1, 60), hit(2, 60)]).await;
    assert!(matches!(verdicts[..], [Verdict::Stored(_), Verdict::Applied(_)]), "{verdicts:?}");
    let facts = ledger::tables(&url).await.unwrap().facts;
    assert_eq!(facts.iter().map(|fact| fact.sequence.0).collect::<Vec<_>>(), [1], "its news begin with the first now");
}

#[tokio::test]
async fn a_schema_of_another_version_says_both_versions_and_what_to_run() {
    let url = database().await;
    let problem = ledger::check(&url).await.unwrap_err();
    assert!(matches!(problem, Problem::SchemaMissing(_)) && problem.is_schema(), "{problem:?}");
    assert!(problem.to_string().contains("worldlined migrate"), "{problem}");

    let Report { version: ours, .. } = ledger::migrate(&url).await.unwrap();
    sql(&url, &format!("delete from worldline.migrations where version = {ours}")).await;
    let problem = ledger::check(&url).await.unwrap_err();
    assert!(matches!(problem, Problem::SchemaOlder { found, expected, .. } if found == ours - 1 && expected == ours));

    let newer = "insert into worldline.migrations select 999, description, installed_on, success, checksum, execution_time \
                 from worldline.migrations where version = 1; update worldline.migrations set version = 3 where false";
    sql(&url, newer).await;
    for problem in [ledger::check(&url).await.unwrap_err(), ledger::migrate(&url).await.unwrap_err()] {
        assert!(
            matches!(problem, Problem::SchemaNewer { found: 999, expected, .. } if expected == ours),
            "{problem:?}"
        );
        assert!(problem.is_schema());
    }
}

#[tokio::test]
async fn a_foreign_schema_is_named_and_left_alone() {
    let url = database().await;
    sql(&url, "create schema worldline; create table worldline.entities (id integer); insert into worldline.entities values (7)")
        .await;
    for problem in [ledger::check(&url).await.unwrap_err(), ledger::migrate(&url).await.unwrap_err()] {
        assert!(matches!(problem, Problem::SchemaForeign(..)) && problem.is_schema(), "{problem:?}");
    }
    let tables = "select count(*) from pg_class where relnamespace = 'worldline'::regnamespace and relkind = 'r'";
    assert_eq!(number(&url, tables).await, 1, "nothing was created beside it");
}

#[tokio::test]
async fn a_schema_that_somebody_has_changed_says_what_is_different() {
    for (change, told) in [
        ("alter table worldline.entities alter balance type numeric", "`entities`"),
        ("drop table worldline.results", "`results`"),
        ("alter table worldline.outbox drop column published cascade", "`outbox`"),
        ("alter table worldline.journal add note text", "`journal`"),
        ("drop function worldline.commit(jsonb)", "`commit(jsonb)`"),
        ("update worldline.migrations set checksum = '\\x00' where version = 2", "migration 2"),
    ] {
        let url = database().await;
        ledger::migrate(&url).await.unwrap();
        sql(&url, "drop view if exists worldline.money").await;
        ledger::check(&url).await.unwrap();
        sql(&url, change).await;
        let problem = ledger::check(&url).await.unwrap_err();
        assert!(matches!(problem, Problem::SchemaForeign(..)), "{problem:?}");
        assert!(problem.to_string().contains(told), "{problem}");
    }
}
