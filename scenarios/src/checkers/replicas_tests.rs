//! G2 and R3 on told histories.

use super::{super::story::*, *};
use worldline_proto::OpNumber;
use worldline_system::doors::ledger::{FactBody, FactRow};

const REPLICA: u32 = 20;
const PLAYER: u32 = 9;

/// The hero's `n`-th blow, with its fact.
fn struck(n: u64) -> What {
    let What::Accepted(Acceptance::OperationApplied { operation, verdict, rows, .. }) =
        applied(n as u32, attack(n, 1, n as u8))
    else {
        unreachable!("it is one")
    };
    let body = FactBody::Hit { dealt: 100, remaining: 1_000 - 100 * n as u32, experience: 50, bounty: 3 };
    let sequence = FactSequence(n);
    let fact = FactRow { aggregate: boss(), sequence, character: hero(), number: OpNumber(n), body };
    What::Accepted(Acceptance::OperationApplied { operation, verdict, rows, fact: Some(Box::new(fact)) })
}

fn took(sequence: u64) -> What {
    What::Noted(Note::FactApplied { aggregate: boss(), sequence: FactSequence(sequence) })
}

fn began(sequence: u64) -> What {
    What::Noted(Note::FactSnapshot { aggregate: boss(), sequence: FactSequence(sequence) })
}

fn shown(sequence: u64, hit_points: u32) -> What {
    let sequence = FactSequence(sequence);
    What::Noted(Note::GlobalSeen { character: hero(), entity: boss(), sequence, hit_points })
}

fn joined(generation: u64) -> What {
    What::Noted(Note::Joined { character: hero(), generation: Generation(generation), issued_unix_ms: 0 })
}

fn confirmed(epoch: u64, sequence: u32, x_mm: i64) -> What {
    let (epoch, position) = (Epoch(epoch), east(x_mm));
    What::Noted(Note::Confirmed { character: hero(), epoch, sequence, position })
}

#[test]
fn g2_nobody_is_ahead_of_the_ledger_and_nobody_goes_back() {
    let good = [
        (0, REPLICA, began(0)),
        (1, PLAYER, shown(0, 1_000)),
        (2, LEDGER, struck(1)),
        (3, REPLICA, took(1)),
        (4, PLAYER, shown(1, 900)),
        (5, LEDGER, struck(2)),
        // Another player may be behind.
        (6, 8, shown(1, 900)),
        (7, PLAYER, shown(2, 800)),
    ];
    assert_eq!(breaks_at::<NeverAhead>(&tell(good.clone())), None);
    for (node, what, why) in [
        (REPLICA, took(3), "a replica ahead of the ledger"),
        (REPLICA, began(3), "a replica that begins ahead of it"),
        (REPLICA, began(0), "a replica that goes back"),
        (PLAYER, shown(3, 700), "a player ahead of the ledger"),
        (PLAYER, shown(1, 900), "a player goes back"),
        (8, shown(2, 900), "a state that the boss never had there"),
        (7, shown(0, 999), "nor at the beginning"),
    ] {
        let mut bad = good.to_vec();
        bad.push((8, node, what));
        assert_eq!(breaks_at::<NeverAhead>(&tell(bad)), Some(8), "{why}");
    }
    let mut entries = tell([(0, LEDGER, struck(1)), (1, PLAYER, shown(1, 900)), (2, PLAYER, shown(0, 1_000))]);
    entries[2].incarnation = Incarnation(2);
    assert_eq!(breaks_at::<NeverAhead>(&entries), None, "a new life knows nothing of the one before");
}

/// The hero walks a step and strikes once; its player is shown both. Then `more`, and the end after 30 s.
fn agree(more: &[(u64, u32, What)]) -> bool {
    let own = authority(hero(), 1, 1);
    let mut lines = vec![
        (0, 1, serving(own, east(0))),
        (0, PLAYER, joined(1)),
        (1, 1, moved(own, 1, 1, east(0), east(5))),
        (2, PLAYER, confirmed(1, 1, 5)),
        (3, LEDGER, struck(1)),
        (4, PLAYER, shown(1, 900)),
    ];
    lines.extend_from_slice(more);
    let mut checker = AllAgree::new(&setup());
    for entry in tell(lines) {
        assert_eq!(checker.on_entry(&entry, &Facts::default()), Ok(()));
    }
    let verdict = checker.at_end(&View { settled: true, ..view(30_000) });
    assert_eq!(checker.not_checked(), None);
    verdict.is_ok()
}

#[test]
fn r3_who_was_there_long_enough_has_seen_what_was_decided() {
    assert!(agree(&[]));
    assert!(!agree(&[(5, LEDGER, struck(2))]), "a blow that a player was never shown");
    assert!(agree(&[(25_000, LEDGER, struck(2))]), "not yet");
    assert!(!agree(&[(5, LEDGER, struck(2)), (6, 8, joined(2))]), "whoever came last was shown nothing");
    assert!(agree(&[(5, LEDGER, struck(2)), (25_000, 8, joined(2))]), "it has only just come, and displaced the other");
    assert!(agree(&[(5, LEDGER, struck(2)), (6, PLAYER, What::Crashed)]), "the dead are shown nothing");
}

#[test]
fn r3_a_player_stands_where_its_owner_says() {
    let own = authority(hero(), 1, 1);
    let step = || (5, 1, moved(own, 1, 2, east(5), east(9)));
    assert!(!agree(&[step()]), "never confirmed");
    assert!(agree(&[step(), (6, PLAYER, confirmed(1, 2, 9))]));
    assert!(agree(&[step(), (6, PLAYER, confirmed(1, 3, 9))]), "a later input was refused");
    assert!(!agree(&[step(), (6, PLAYER, confirmed(1, 2, 8))]), "elsewhere");
    assert!(!agree(&[step(), (6, PLAYER, confirmed(2, 2, 9))]), "by an owner that did not accept it");
    assert!(agree(&[(28_000, 1, moved(own, 1, 2, east(5), east(9)))]), "not yet");
    let dropped = What::Noted(Note::Dropped { authority: own });
    assert!(agree(&[step(), (6, 1, dropped)]), "nobody serves it any more");
}

#[test]
fn r3_says_what_it_could_not_see() {
    let mut checker = AllAgree::new(&setup());
    assert_eq!(checker.not_checked(), Some("the run did not end healed and settled"));
    assert_eq!(checker.at_end(&View { settled: true, ..view(30_000) }), Ok(()));
    let why = "players agree with their owners, and nobody was shown what the world shares";
    assert_eq!(checker.not_checked(), Some(why));
    assert_eq!(NeverAhead::new(&setup()).not_checked(), Some("there was no replica, and no client was shown anything"));
}
