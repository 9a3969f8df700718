//! Presence: places as the grid has them, searches against a look at everybody.

use super::*;
use worldline_system::rules::{grid::Cell, space::WORLD_EDGE_MM};

const NOWHERE: Position = Position { x_mm: 0, y_mm: 0 };

fn found(answer: Answer) -> Vec<Neighbour> {
    match answer {
        Answer::Near(Outcome::Done(near)) => near,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_server_keeps_a_place_in_the_very_cell_of_the_grid() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    let edge = WORLD_EDGE_MM;
    let mut state = 48_271_u64;
    let mut draw = || {
        state = state * 48_271 % 0x7fff_ffff;
        state as i64 % (edge + 1) * if state & 1 == 0 { 1 } else { -1 }
    };
    let mut places = vec![(0, 0), (edge, edge), (-edge, -edge), (edge, -edge), (-1, -1)];
    places.extend((0..1_000).map(|_| (draw(), draw())));
    let asked: Vec<_> = (1..).zip(&places).map(|(n, &(x_mm, y_mm))| caller.ask(place(n, x_mm, y_mm))).collect();
    for op in asked {
        assert_eq!(caller.answer(op), Answer::Placed(Outcome::Done(())));
    }
    for (n, (x_mm, y_mm)) in (1..).zip(places) {
        let score: f64 = caller.other(&server, &["ZSCORE", "peer:0:geo", &hero(n).to_string()]);
        assert_eq!(score as u64, Cell::of(Position { x_mm, y_mm }).code(), "{x_mm} {y_mm}");
        if n > 50 {
            break;
        }
    }
    let scores: Vec<(String, u64)> = caller.other(&server, &["ZRANGE", "peer:0:geo", "0", "-1", "WITHSCORES"]);
    assert!(scores.len() > 1_000 && scores.iter().all(|&(_, score)| Cell::from_code(score).is_some()));
}

#[test]
fn a_search_finds_what_a_look_at_everybody_finds() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    let mut state = 1_u64;
    let mut draw = |bound: u64| {
        state = state * 48_271 % 0x7fff_ffff;
        state % bound
    };
    // A crowd in the middle of the world and one in its corner, where the sphere is farthest from the plane.
    for corner in [-1_000_000, WORLD_EDGE_MM - 2_000_000] {
        caller.other::<()>(&server, &["FLUSHALL"]);
        let mut at = || Position { x_mm: corner + draw(2_000_001) as i64, y_mm: corner + draw(2_000_001) as i64 };
        let places: Vec<(u64, Position)> = (1..=500).map(|n| (n, at())).collect();
        let searches: Vec<Position> = (0..60).map(|_| at()).collect();
        let asked: Vec<_> = places.iter().map(|&(n, at)| caller.ask(place(n, at.x_mm, at.y_mm))).collect();
        asked.into_iter().for_each(|op| assert_eq!(caller.answer(op), Answer::Placed(Outcome::Done(()))));
        for around in searches {
            let (radius_mm, limit) = (draw(limits::CACHE_RADIUS_MM + 1), 1 + draw(128) as u16);
            let near = found(caller.call(near(around, radius_mm, limit)));
            let mut all: Vec<_> = places
                .iter()
                .map(|&(n, at)| (Cell::of(at).middle().distance_mm(around), hero(n)))
                .filter(|&(distance_mm, _)| distance_mm <= radius_mm)
                .collect();
            all.sort_unstable();
            assert_eq!(near.len(), all.len().min(limit.into()), "{around:?} {radius_mm}");
            for (near, &(distance_mm, _)) in near.iter().zip(&all) {
                // Where the limit cuts, one may stand for another that is as far, but for a thousandth.
                assert!(near.distance_mm.abs_diff(distance_mm) <= distance_mm / 1_000 + 1, "{near:?} {distance_mm}");
                let (_, place) = places[near.member.entity().number() as usize - 1];
                assert_eq!(near.position, Cell::of(place).middle());
            }
        }
    }
}

#[test]
fn who_has_left_or_has_been_silent_too_long_is_not_found() {
    let server = Valkey::start(&[]);
    let mut caller = Caller::connected(&[server.url()]);
    for n in 1..=4 {
        caller.call(place(n, n as i64 * 1_000, 0));
    }
    let leave = || Submission::Delete(Key::Presence { region: RegionId(0), member: hero(1) });
    assert_eq!(caller.call(leave()), Answer::Deleted(Outcome::Done(true)));
    assert_eq!(caller.call(leave()), Answer::Deleted(Outcome::Done(false)));
    // As if hero 2 had not said for thirty seconds where it is.
    caller.other::<u64>(&server, &["ZADD", "peer:0:seen", "1", "character-2"]);
    let who = |near: Vec<Neighbour>| near.iter().map(|near| near.member.entity().number()).collect::<Vec<_>>();
    assert_eq!(who(found(caller.call(near(NOWHERE, 100_000, 10)))), [3, 4]);
    assert_eq!(who(found(caller.call(near(NOWHERE, 100_000, 1)))), [3]);
    assert_eq!(caller.other::<u64>(&server, &["ZCARD", "peer:0:geo"]), 2, "who is gone takes no memory");
    let ttl_ms: u64 = caller.other(&server, &["PTTL", "peer:0:geo"]);
    assert!(ttl_ms > 0 && ttl_ms <= 30_000, "{ttl_ms}");
    // Somebody else's members are no characters; one of the two sets may have been evicted.
    caller.other::<u64>(&server, &["GEOADD", "peer:0:geo", "0", "0", "somebody"]);
    assert_eq!(who(found(caller.call(near(NOWHERE, 100_000, 10)))), [3, 4]);
    caller.other::<u64>(&server, &["DEL", "peer:0:seen"]);
    assert_eq!(found(caller.call(near(NOWHERE, 100_000, 10))), []);
    caller.call(place(3, 0, 0));
    assert_eq!(who(found(caller.call(near(NOWHERE, 100_000, 10)))), [3]);
}
