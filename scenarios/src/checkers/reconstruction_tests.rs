//! S5 on told histories.

use super::{
    super::{Services, WorkerState, story::*},
    *,
};
use std::sync::Arc;
use worldline_proto::OpId;
use worldline_system::{
    doors::{
        directory::RegionId,
        ledger::{Batch, Checkpointed},
    },
    time::UnixTime,
};

/// A worker brings a checkpoint to the ledger.
fn writes(counter: u64, authority: Authority, version: u64, x_mm: i64) -> What {
    let state = Checkpointed { position: east(x_mm), cooldown_end: UnixTime::default() };
    let checkpoints = vec![Checkpoint { authority, version: Version(version), state }];
    let batch = Batch { operations: Vec::new(), checkpoints, published: Vec::new() };
    let op: OpId = op(counter);
    What::Invoked(op, Invocation::Ledger(ledger::Submission::Commit(Arc::new(batch))))
}

fn serves(authority: Authority, x_mm: i64, through: u64) -> What {
    What::Noted(Note::Serving { authority, position: east(x_mm), applied_through: OpNumber(through) })
}

fn old() -> Authority {
    authority(hero(), 1, 1)
}

fn new() -> Authority {
    authority(hero(), 2, 2)
}

/// The old owner walks and writes two checkpoints, of which the ledger has the first; the new one claims.
fn before(last_step_ms: u64) -> Vec<(u64, u32, What)> {
    vec![
        (0, LEDGER, raised(old(), None)),
        (1, 1, serves(old(), 0, 0)),
        (1, 1, writes(1, old(), 1, 10)),
        (2, LEDGER, checkpointed(old(), 1)),
        (3, LEDGER, applied(1, attack(1, 1, 1))),
        (5_000, 1, writes(2, old(), 2, 20)),
        (last_step_ms, 1, moved(old(), 1, 9, east(20), east(30))),
        (last_step_ms + 1, LEDGER, raised(new(), Some(old()))),
    ]
}

/// Whether it holds that the new owner stands there; `away` are samples at which the ledger is not there.
fn holds(last_step_ms: u64, x_mm: i64, through: u64, away: &[u64]) -> bool {
    let mut checker = CacheDecidesNothing::new(&setup());
    let (up, down) = (true, false);
    for &ms in away {
        let services = Services { directory: up, ledger: down, orchestrator: up };
        assert_eq!(checker.on_sample(&View { services: Some(services), ..view(ms) }), Ok(()));
    }
    let mut lines = before(last_step_ms);
    lines.push((last_step_ms + 2, 2, serves(new(), x_mm, through)));
    let broken = tell(lines).iter().position(|entry| checker.on_entry(entry, &Facts::default()).is_err());
    assert!(broken.is_none_or(|place| place == 8), "only the last line can be wrong");
    assert!(broken.is_some() || checker.not_checked().is_none());
    broken.is_none()
}

#[test]
fn s5_who_takes_over_stands_where_a_checkpoint_has_it_that_is_new_enough() {
    assert!(holds(6_000, 20, 1, &[]), "by the cache's, which never came to the ledger");
    assert!(holds(5_900, 10, 1, &[]), "by the ledger's");
    assert!(!holds(5_900, 30, 1, &[]), "where it was when its owner died, and no checkpoint has it");
    assert!(!holds(5_900, 0, 1, &[]), "where it once was");
    assert!(!holds(5_900, 20, 0, &[]), "without a result that the ledger has");
}

#[test]
fn s5_an_older_checkpoint_is_none() {
    let mut lines = before(6_000);
    lines.insert(6, (5_001, LEDGER, checkpointed(old(), 2)));
    lines.push((6_002, 2, serves(new(), 10, 1)));
    assert_eq!(breaks_at::<CacheDecidesNothing>(&tell(lines)), Some(9), "the ledger has a newer one");

    let third = authority(hero(), 3, 3);
    let mut lines = before(6_000);
    lines.extend([
        (6_002, 2, serves(new(), 20, 1)),
        (6_003, 2, writes(1, new(), 1, 40)),
        (6_004, LEDGER, checkpointed(new(), 1)),
        (6_005, LEDGER, raised(third, Some(new()))),
    ]);
    let at = |x_mm| [lines.clone(), vec![(6_006, 3, serves(third, x_mm, 1))]].concat();
    assert_eq!(breaks_at::<CacheDecidesNothing>(&tell(at(40))), None);
    assert_eq!(
        breaks_at::<CacheDecidesNothing>(&tell(at(20))),
        Some(12),
        "of an owner before the one that is replaced"
    );
}

#[test]
fn s5_the_loss_is_bounded_where_the_ledger_could_take_checkpoints() {
    assert!(!holds(9_000, 10, 1, &[]), "the first checkpoint is nine seconds old");
    assert!(holds(9_000, 20, 1, &[]), "the second is not");
    assert!(holds(9_000, 10, 1, &[7_000]), "the ledger was away");
    assert!(!holds(9_000, 10, 1, &[9_500]), "only afterwards");

    let mut never = before(9_000);
    never.retain(|(.., what)| !matches!(what, What::Invoked(..) | What::Accepted(Acceptance::Checkpointed { .. })));
    never.push((9_002, 2, serves(new(), 0, 1)));
    assert_eq!(breaks_at::<CacheDecidesNothing>(&tell(never)), Some(5), "its owner has never written one");
}

#[test]
fn s5_who_cannot_reach_the_ledger_is_excused() {
    let mut checker = CacheDecidesNothing::new(&setup());
    let workers = [WorkerState { node: NodeId(1), region: RegionId(0), able: false }];
    let services = Some(Services { directory: true, ledger: true, orchestrator: true });
    assert_eq!(checker.on_sample(&View { workers: &workers, services, ..view(7_000) }), Ok(()));
    let mut lines = before(9_000);
    lines.push((9_002, 2, serves(new(), 10, 1)));
    assert!(tell(lines).iter().all(|entry| checker.on_entry(entry, &Facts::default()).is_ok()));
}

#[test]
fn s5_says_what_it_could_not_see() {
    assert_eq!(CacheDecidesNothing::new(&setup()).not_checked(), Some("nobody took an entity over from another epoch"));
}
