//! A watch reports every change, in order, each once; or it says that it has a gap.

use super::{etcd::Etcd, proxy::Proxy, *};
use crate::directory::watch;

#[test]
fn a_watch_reports_from_its_revision_on_in_order_and_until_it_is_ended() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let first = caller.put(boss(1), 1);
    let watch = caller.watch(Family::Owners, first);
    let Outcome::Done(both) = caller.transact(vec![], vec![put(boss(2), owned(1)), Write::Delete(boss(1))]) else {
        panic!("it is written")
    };
    let registered = caller.transact(vec![], vec![put(Key::Worker(lease(1)), worker())]);
    assert!(matches!(registered, Outcome::Done(_)));
    let last = caller.put(boss(3), 1);
    let record = |key, mod_revision| Change::Put(Record { key, value: owned(1), mod_revision, lease: None });
    let mut told = vec![];
    while told.last() != Some(&record(boss(3), last)) {
        told.extend(caller.changes(watch).1.iter().copied());
    }
    let second = both.revision;
    assert_eq!(told[0], record(boss(1), first));
    assert!(told[1..3].contains(&record(boss(2), second)) && told[1..3].contains(&Change::Deleted(boss(1))));
    assert_eq!(told.len(), 4, "and nothing of other families");
    assert_eq!(caller.call(Submission::Unwatch(watch)), Answer::Unwatched(Outcome::Done(())));
    let other = caller.watch(Family::Owners, last.next());
    caller.put(boss(4), 1);
    caller.changes(other);
    assert!(caller.news.is_empty(), "the ended one reports no more");
}

#[test]
fn a_watch_goes_on_over_the_loss_of_its_connection_and_misses_nothing() {
    let etcd = Etcd::start(&[]);
    let mut writer = Caller::connected(&[etcd.url()]);
    let proxy = Proxy::new(&writer.runtime, &etcd.url());
    let mut caller = Caller::connected(&[proxy.url()]);
    let watch = caller.watch(Family::Owners, Revision(1));
    for round in 1..=3 {
        for n in 0..20 {
            writer.put(boss(n), round);
        }
        proxy.cut();
        caller.problem("etcd");
        for n in 0..20 {
            writer.put(boss(n), round);
        }
        proxy.heal();
        caller.until_ready();
    }
    let last = writer.put(boss(0), 9);
    let mut told = vec![];
    while told.last() != Some(&last) {
        told.extend(revisions(&caller.changes(watch).1));
    }
    let expected: Vec<Revision> = (last.0 - 120..=last.0).map(Revision).collect();
    assert_eq!(told, expected, "each once and in order");
}

#[test]
fn a_watch_over_a_restart_of_etcd_misses_nothing_or_has_a_gap() {
    let mut etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let mut watch = caller.watch(Family::Owners, Revision(1));
    for round in 1..=3 {
        for n in 0..20 {
            caller.put(boss(n), round);
        }
        etcd.kill();
        caller.problem("etcd");
        etcd.restart();
        caller.until_ready();
    }
    let last = caller.put(boss(0), 9);
    let mut told = vec![];
    while told.last() != Some(&last) {
        match caller.news() {
            Event::Changed { watch: of, changes, .. } if of == watch => told.extend(revisions(&changes)),
            // A slow machine starts etcd too late for the watch to go on.
            Event::Gap { watch: of, cause: GapCause::Cancelled } if of == watch => {
                watch = caller.watch(Family::Owners, told.last().map_or(Revision(1), |last| last.next()));
            }
            other => panic!("{other:?}"),
        }
    }
    let expected: Vec<Revision> = (last.0 - 60..=last.0).map(Revision).collect();
    assert_eq!(told, expected, "each once and in order");
}

/// The revisions of changes, none of which deletes.
fn revisions(changes: &[Change]) -> Vec<Revision> {
    let revision = |change: &Change| match change {
        Change::Put(record) => record.mod_revision,
        Change::Deleted(key) => panic!("{key} was not deleted"),
    };
    changes.iter().map(revision).collect()
}

#[test]
fn a_watch_that_nobody_serves_has_a_gap() {
    let mut etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let watch = caller.watch(Family::Owners, Revision(1));
    etcd.kill();
    assert_eq!(caller.gap(watch), GapCause::Cancelled);
    etcd.restart();
    caller.until_ready();
    let stopped = caller.watch(Family::Owners, Revision(1));
    etcd.stop();
    assert_eq!(caller.gap(stopped), GapCause::Cancelled, "also where the machine is silent");
    etcd.go_on();
}

#[test]
fn a_watch_whose_next_revision_was_compacted_while_it_was_away_has_a_gap() {
    let etcd = Etcd::start(&[]);
    let mut writer = Caller::connected(&[etcd.url()]);
    let proxy = Proxy::new(&writer.runtime, &etcd.url());
    let mut caller = Caller::connected(&[proxy.url()]);
    let watch = caller.watch(Family::Owners, Revision(1));
    let quiet = caller.watch(Family::Workers, Revision(1));
    writer.put(boss(1), 1);
    caller.changes(watch);
    proxy.cut();
    writer.put(boss(1), 2);
    let last = writer.put(boss(1), 3);
    let mut client = writer.etcd(&etcd.url());
    writer.runtime.block_on(client.compact(last.0 as i64, None)).expect("compacts");
    proxy.heal();
    let gaps = [caller.news(), caller.news()];
    for of in [watch, quiet] {
        let gap = Event::Gap { watch: of, cause: GapCause::Compacted };
        assert!(gaps.contains(&gap), "{gaps:?}");
    }
}

#[test]
fn a_watch_of_a_directory_that_was_restored_to_an_older_state_has_a_gap() {
    let mut etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    for n in 0..50 {
        caller.put(boss(n), 1);
    }
    let watch = caller.watch(Family::Owners, Revision(50));
    caller.changes(watch);
    etcd.kill();
    etcd.wipe();
    etcd.restart();
    caller.news.clear();
    caller.until_ready();
    let news = loop {
        match caller.news() {
            Event::Changed { .. } => {}
            other => break other,
        }
    };
    assert_eq!(news, Event::Gap { watch, cause: GapCause::Cancelled });
}

/// The cluster id is the same, and term and revision have passed what was seen.
#[test]
fn a_watch_does_not_go_on_in_a_backup_that_has_caught_up() {
    let mut etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    caller.put(boss(1), 1);
    let killed = |caller: &Caller, etcd: &mut Etcd| {
        etcd.kill();
        caller.problem("etcd");
    };
    let started = |caller: &Caller, etcd: &mut Etcd| {
        etcd.restart();
        caller.until_ready();
    };
    killed(&caller, &mut etcd);
    etcd.back_up();
    started(&caller, &mut etcd);
    caller.put(boss(1), 2);
    let lost = caller.put(boss(2), 1);
    // One that has seen the end of what it began behind, and one that was told of it.
    let shared = caller.directory.0.clone();
    let establish = |caller: &Caller, from| {
        caller.runtime.block_on(async {
            let by = tokio::time::Instant::now() + clock::span(SOON);
            let line = shared.link.line(0, by).await.expect("it is ready");
            watch::establish(line, Family::Owners, from, None).await.expect("it stands")
        })
    };
    let quiet = establish(&caller, lost.next());
    let mut told = establish(&caller, lost);
    caller.runtime.block_on(told.changed());
    let untouched = establish(&caller, lost.next());
    killed(&caller, &mut etcd);
    started(&caller, &mut etcd);
    let resumed = caller.runtime.block_on(watch::resume(&shared, untouched));
    assert!(resumed.is_ok(), "nothing is missed where it is the same directory");
    drop(resumed);
    killed(&caller, &mut etcd);
    etcd.restore();
    // The terms of both starts, and more.
    for _ in 0..2 {
        started(&caller, &mut etcd);
        killed(&caller, &mut etcd);
    }
    started(&caller, &mut etcd);
    while caller.put(boss(3), 1) <= lost {}
    for watch in [quiet, told] {
        let resumed = caller.runtime.block_on(watch::resume(&shared, watch));
        assert_eq!(resumed.err(), Some(GapCause::Cancelled), "what it knows was undone");
    }
}

#[test]
fn a_watcher_that_does_not_keep_up_has_a_gap_behind_what_it_was_told() {
    let etcd = Etcd::start(&[]);
    let mut writer = Caller::connected(&[etcd.url()]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let mut told: BTreeMap<OpId, Revision> =
        (0..8).map(|_| (caller.watch(Family::Owners, Revision(1)), Revision(0))).collect();
    for n in 0..(limits::WATCH_CREDITS / 4) as u64 {
        writer.put(boss(n % 3), n);
    }
    while caller.inbox.shed() < 8 {
        // Until the last news have come in.
        writer.get(boss(1));
    }
    for _ in 0..limits::WATCH_CREDITS {
        let Event::Changed { watch, revision, .. } = caller.news() else {
            panic!("a gap before the credits are used up")
        };
        assert!(told.insert(watch, revision) < Some(revision), "in order");
    }
    while !told.is_empty() {
        let Event::Gap { watch, cause: GapCause::Overflow } = caller.news() else { panic!("news behind a gap") };
        assert!(told.remove(&watch).is_some(), "one gap each");
    }
    writer.put(boss(1), 1);
    caller.get(boss(1));
    assert!(caller.news.is_empty(), "nothing comes behind a gap");
}

#[test]
fn a_node_has_so_many_watches_and_no_more() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let watches: Vec<OpId> = (0..watch::WATCHES).map(|_| caller.watch(Family::Leader, Revision(1))).collect();
    let busy = Answer::Watching(Outcome::Refused(worldline_system::Refusal::Busy));
    assert_eq!(caller.call(Submission::Watch { family: Family::Leader, from: Revision(1) }), busy);
    caller.call(Submission::Unwatch(watches[0]));
    caller.watch(Family::Leader, Revision(1));
}
