//! Checkpoints in the cache: written beside the ledger's, and taken by a claim only where the epoch it replaces wrote them.

use super::*;
use worldline_proto::Version;
use worldline_system::{
    doors::{
        cache::{Fields, Hash, HashKey, Stamp, Submission as ToCache},
        ledger::Checkpointed,
    },
    rules::space::Position,
    time::UnixTime,
};

/// The epoch that the record names, so that the claim is one above it.
const REPLACED: u64 = 4;

fn place(x_mm: i64) -> Position {
    Position { x_mm, y_mm: 0 }
}

fn cached(epoch: u64, version: u64, x_mm: i64) -> Said {
    let fields: [(&str, i64); 3] = [("x_mm", x_mm), ("y_mm", 0), ("cooldown_end_unix_ns", 77)];
    let fields: Fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect();
    let stamp = Some(Stamp { epoch: Epoch(epoch), version: Version(version) });
    Said::Read(Outcome::Done(Some(Hash { stamp, fields })))
}

/// What the ledger has: a checkpoint at 1 m, of this epoch and version.
fn kept(epoch: u64, version: u64) -> Vec<Result<Box<Durable>, Refusal>> {
    let state = Checkpointed { position: place(1_000), cooldown_end: UnixTime::from_nanos(5) };
    vec![Ok(Box::new(Durable { checkpoint: Some((Epoch(epoch), Version(version), state)), ..durable(boss()) }))]
}

/// A worker whose claim of the boss is under way: the ledger's operation and the cache's.
fn claiming() -> (Bench<Worker>, OpId, OpId) {
    let mut bench = worker();
    bench.join(&[boss()]);
    let raise = bench.asked_directory().into_iter().find(|(_, s)| matches!(s, ToDirectory::Transact(_)));
    let done = Transacted { succeeded: true, revision: Revision(12), otherwise: Vec::new() };
    bench.directory(raise.expect("it claims").0, Told::Transacted(Outcome::Done(done)));
    let (claim, _) = bench.asked_ledger().remove(0);
    let asked = bench.asked_cache();
    let [(read, ToCache::Read(HashKey::Checkpoint(entity)))] = asked[..] else { panic!("one read: {asked:?}") };
    assert_eq!(entity, boss());
    (bench, claim, read)
}

fn stands(bench: &Bench<Worker>) -> Position {
    bench.role.served().next().expect("it serves").position()
}

#[test]
fn a_claim_takes_the_newer_checkpoint_of_the_epoch_that_it_replaces_and_no_other() {
    for (answer, expected) in [
        (cached(REPLACED, 9, 2_000), 2_000),
        // As old as the ledger's, or older.
        (cached(REPLACED, 8, 2_000), 1_000),
        (cached(REPLACED, 7, 2_000), 1_000),
        // Of another epoch: an earlier owner's, or one that nobody can have.
        (cached(REPLACED - 1, 99, 2_000), 1_000),
        (cached(REPLACED + 1, 99, 2_000), 1_000),
        // Nothing, nothing that reads, nowhere in the world, nobody who answers.
        (Said::Read(Outcome::Done(None)), 1_000),
        (Said::Read(Outcome::Done(Some(Hash::default()))), 1_000),
        (cached(REPLACED, 9, i64::MAX), 1_000),
        (Said::Read(Outcome::Refused(Refusal::Unreachable)), 1_000),
        (Said::Read(Outcome::Unknown), 1_000),
    ] {
        let (mut bench, claim, read) = claiming();
        bench.cache(read, answer.clone());
        bench.ledger(claim, Answer::Claimed(Outcome::Done(kept(REPLACED, 8))));
        assert_eq!(stands(&bench), place(expected), "{answer:?}");
        // The same, whoever answers first.
        let (mut bench, claim, read) = claiming();
        bench.ledger(claim, Answer::Claimed(Outcome::Done(kept(REPLACED, 8))));
        assert_eq!(bench.role.served().count(), 0, "the cache is still asked");
        bench.cache(read, answer.clone());
        assert_eq!(stands(&bench), place(expected), "{answer:?}");
    }
}

#[test]
fn a_claim_that_goes_higher_asks_again_and_replaces_the_epoch_of_the_fence() {
    let (mut bench, claim, read) = claiming();
    bench.cache(read, cached(REPLACED, 9, 2_000));
    bench.ledger(claim, Answer::Claimed(Outcome::Done(vec![Err(Refusal::Fenced { highest: Epoch(41) })])));
    let raise = bench.asked_directory().remove(0).0;
    let done = Transacted { succeeded: true, revision: Revision(13), otherwise: Vec::new() };
    bench.directory(raise, Told::Transacted(Outcome::Done(done)));
    let ((claim, _), (read, _)) = (bench.asked_ledger().remove(0), bench.asked_cache().remove(0));
    bench.cache(read, cached(41, 3, 3_000));
    bench.ledger(claim, Answer::Claimed(Outcome::Done(kept(REPLACED, 8))));
    assert_eq!(stands(&bench), place(3_000));
}

#[test]
fn a_checkpoint_goes_to_the_cache_with_the_batch_that_brings_it_to_the_ledger() {
    let mut bench = worker();
    bench.serve(&[boss()]);
    let (_, batch) = bench.tick_to_commit();
    let checkpoint = &batch.checkpoints[0];
    let kept = bench.asked_cache().into_iter().find_map(|(_, submission)| match submission {
        ToCache::Keep { key, stamp, fields } => Some((key, stamp, fields)),
        _ => None,
    });
    let (key, stamp, fields) = kept.expect("it keeps it");
    assert_eq!(key, HashKey::Checkpoint(boss()));
    assert_eq!(stamp, Stamp { epoch: checkpoint.authority.epoch, version: checkpoint.version });
    assert_eq!(fields["x_mm"], checkpoint.state.position.x_mm.to_string());
}

#[test]
fn the_load_is_told_once_a_second_with_how_late_ticks_come() {
    let mut bench = worker();
    bench.serve(&[boss()]);
    let mut told = Vec::new();
    for n in 0..130 {
        bench.now = bench.now + limits::TICK;
        if n == 90 {
            bench.now = bench.now + worldline_system::time::Duration::from_millis(7);
        }
        bench.timer(TICK);
        told.extend(bench.asked_cache().into_iter().filter_map(|(_, submission)| match submission {
            ToCache::Write { key: HashKey::Load { region, node }, fields } => Some((region, node, fields)),
            _ => None,
        }));
    }
    assert_eq!(told.len(), 3, "in 2.2 s, the first one at once: {told:?}");
    let (region, node, fields) = &told[2];
    assert_eq!((*region, *node, fields["entity_count"].as_str()), (RegionId(0), NodeId(1), "1"));
    assert_eq!((told[1].2["tick_late_us_max"].as_str(), fields["tick_late_us_max"].as_str()), ("0", "7000"));
}
