//! `worldlined near`: who plays near a place, as the region's cache knows it.
//!
//! Workers place their players there when they come and every ten seconds, so an answer is as old as that; one who has left is taken
//! away, and one whose leaving nobody heard of is forgotten within thirty. A cache that was wiped knows nobody for as long. It is for
//! operators: no role decides by it.

use super::{Exit, operator};
use crate::{
    Inbox,
    cache::Cache,
    clock,
    config::{self, Layers, Problem, Problems, Sink, problem::Origin},
    ready::Readiness,
};
use clap::{Arg, ArgMatches};
use serde_json::json;
use tokio::time::timeout;
use worldline_proto::{Incarnation, OpId};
use worldline_system::{
    Outcome,
    doors::{
        Asked, Event,
        cache::{Answer, Neighbour, Submission},
    },
    limits,
    rules::space::{Position, WORLD_EDGE_MM},
    time::Duration,
};

/// How long the cache may take to be reached, and to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the command takes beside its settings.
pub(super) fn arguments() -> [Arg; 3] {
    let coordinate = |name: &'static str| {
        Arg::new(name).required(true).value_name(name).allow_negative_numbers(true).value_parser(millimetres)
    };
    [
        coordinate("X_MM").help("How far east of the middle of the world, in millimetres"),
        coordinate("Y_MM").help("How far north of it, in millimetres"),
        Arg::new("radius")
            .long("radius")
            .value_name("METRES")
            .default_value("100")
            .value_parser(metres)
            .help("How far from there"),
    ]
}

fn millimetres(text: &str) -> Result<i64, &'static str> {
    text.parse().map_err(|_| "expected whole millimetres, such as `-1500`")
}

fn metres(text: &str) -> Result<u64, String> {
    const MAX: u64 = limits::CACHE_RADIUS_MM / 1_000;
    let metres = text.parse().ok().filter(|metres| (1..=MAX).contains(metres));
    metres.ok_or_else(|| format!("expected whole metres from 1 to {MAX}"))
}

pub(super) fn near(layers: &Layers, matches: &ArgMatches, mut sink: Sink) -> Result<Exit, Problems> {
    let number = |name| *matches.get_one::<i64>(name).expect("clap requires it");
    let place = Position { x_mm: number("X_MM"), y_mm: number("Y_MM") };
    let around = Some(place).filter(|place| place.in_world()).or_else(|| {
        let found = format!("`{} {}`", place.x_mm, place.y_mm);
        let expected = format!("a place inside the world, which reaches {WORLD_EDGE_MM} mm each way");
        sink.report(Problem::new(&Origin::Flag("X_MM Y_MM".into()), found, expected))
    });
    let radius_mm = matches.get_one::<u64>("radius").expect("it has a default") * 1_000;
    let asked = config::region_cache(layers, &mut sink);
    let (around, (region, config)) = sink.into_result(around.zip(asked))?;
    let submission = Submission::Near { region, around, radius_mm, limit: limits::CACHE_NEIGHBOURS };
    let json = matches.get_flag("json");
    Ok(operator::within(
        1,
        Box::pin(async move {
            let (inbox, ready) = (Inbox::default(), Readiness::default());
            let cache = Cache::new(config, inbox.clone(), ready.clone());
            // What there is to say of a cache that cannot be reached, the readiness knows.
            let connected = timeout(clock::span(PATIENCE), ready.until_degraded(|lacks| lacks.is_empty())).await;
            if connected.is_err() {
                ready.degradations().values().for_each(|problem| eprintln!("{problem}"));
                cache.close().await;
                return Exit::Unavailable;
            }
            let asking = tokio::task::spawn_blocking({
                let cache = cache.clone();
                move || ask(&cache, &inbox, submission)
            });
            let answer = asking.await;
            cache.close().await;
            match answer {
                Ok(Outcome::Done(neighbours)) => {
                    if json {
                        print_json(&neighbours)
                    } else {
                        print(&neighbours)
                    }
                    Exit::Done
                }
                Ok(Outcome::Refused(why)) => {
                    eprintln!("the cache has not answered: {why}");
                    Exit::Unavailable
                }
                Ok(Outcome::Unknown) => {
                    eprintln!("the cache has not answered within {} s", PATIENCE.as_millis() / 1_000);
                    Exit::Unavailable
                }
                Err(_) => Exit::Internal,
            }
        }),
    ))
}

/// Asks once and waits for the answer.
fn ask(cache: &Cache, inbox: &Inbox, submission: Submission) -> Outcome<Vec<Neighbour>> {
    let (op, deadline) = (OpId { incarnation: Incarnation(1), counter: 1 }, clock::now() + PATIENCE);
    cache.submit(Asked { op, deadline, submission });
    match inbox.next_event(clock::until(deadline)) {
        Some(Event::Cache(event)) if event.op == op => match *event.answer {
            Answer::Near(outcome) => outcome,
            _ => Outcome::Unknown,
        },
        _ => Outcome::Unknown,
    }
}

fn print(neighbours: &[Neighbour]) {
    if neighbours.is_empty() {
        tell!("nobody, as far as the cache knows");
    }
    for Neighbour { member, position, distance_mm } in neighbours {
        let (metres, rest_mm) = (distance_mm / 1_000, distance_mm % 1_000);
        tell!("{member}: {metres}.{rest_mm:03} m away, at {} {} mm", position.x_mm, position.y_mm);
    }
    if neighbours.len() == usize::from(limits::CACHE_NEIGHBOURS) {
        tell!("and perhaps others: no more than {} are told", limits::CACHE_NEIGHBOURS);
    }
}

fn print_json(neighbours: &[Neighbour]) {
    let each = neighbours.iter().map(|Neighbour { member, position, distance_mm }| {
        json!({ "character": member.to_string(), "x_mm": position.x_mm, "y_mm": position.y_mm, "distance_mm": distance_mm })
    });
    tell!("{}", serde_json::Value::Array(each.collect()));
}
