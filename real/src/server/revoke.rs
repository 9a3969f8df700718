//! `worldlined revoke`: the tokens of a character do not count any more, and its session ends.

use super::{Exit, operator};
use crate::{
    config::{Layers, Problem, Problems, Sink, decode, problem::Origin},
    ledger::{self, Unrevoked},
};
use clap::{Arg, ArgMatches};
use serde_json::json;
use worldline_proto::{CharacterId, EntityId, token};
use worldline_system::{doors::ledger::Revoked, limits, time::Duration};

/// What the command takes beside its settings.
pub(super) fn arguments() -> [Arg; 3] {
    [
        Arg::new("character").required(true).value_name("CHARACTER").help("Such as character-7, or its number"),
        Arg::new("issued_before").long("issued-before").value_name("UNIX_MS").value_parser(clap::value_parser!(u64)).help(
            "Revoke only what was issued before this, in milliseconds since 1970 [default, and the latest that is taken: now by the \
             ledger's clock, and 5 s more, since clocks may be so far apart]",
        ),
        Arg::new("wait")
            .long("wait")
            .value_name("DURATION")
            .default_value("0s")
            .value_parser(|text: &str| decode::duration_of(text).ok_or("expected a duration such as `30s`"))
            .help("How long to try again where the ledger cannot be reached"),
    ]
}

pub(super) fn revoke(layers: &Layers, matches: &ArgMatches, mut sink: Sink) -> Result<Exit, Problems> {
    let text = matches.get_one::<String>("character").expect("clap requires it");
    let number = text.strip_prefix("character-").unwrap_or(text).parse().ok();
    let character = number.and_then(CharacterId::new).or_else(|| {
        let expected = format!("a character, such as `character-7`, or its number up to {}", EntityId::NUMBER_MAX);
        sink.report(Problem::new(&Origin::Flag("CHARACTER".into()), format!("`{text}`"), expected))
    });
    let url = layers.required("ledger", &mut sink, decode::ledger);
    let (character, url) = sink.into_result(character.zip(url))?;
    let wait = *matches.get_one::<Duration>("wait").expect("it has a default");
    let (before, json) = (matches.get_one::<u64>("issued_before").copied(), matches.get_flag("json"));
    Ok(operator::within(
        1,
        Box::pin(async move {
            match ledger::revoke(&url, character, before, wait).await {
                Ok(revoked) => {
                    if json {
                        print_json(&revoked);
                    } else {
                        print(&revoked);
                    }
                    Exit::Done
                }
                Err(Unrevoked::Problem(problem)) => operator::refused(&problem),
                Err(why @ (Unrevoked::Nobody(_) | Unrevoked::Refused(_))) => {
                    eprintln!("{why}");
                    Exit::No
                }
                Err(Unrevoked::Ahead { latest_unix_ms }) => {
                    eprint!("{}", Problems::from(ahead(before.unwrap_or_default(), latest_unix_ms)));
                    Exit::Usage
                }
                Err(why @ Unrevoked::Unknown(_)) => {
                    eprintln!("{why}");
                    Exit::Unavailable
                }
            }
        }),
    ))
}

/// What is wrong with a moment that nobody can have a token of.
fn ahead(before: u64, latest_unix_ms: u64) -> Problem {
    let expected = format!(
        "milliseconds since 1970, at most {latest_unix_ms}: {} s from now by the ledger's clock, which is what is taken without it",
        token::SKEW_MS / 1_000
    );
    // Micro- or nanoseconds of something within the last thousandth of that time: of no other moment a unit could be guessed.
    let meant = [1_000, 1_000_000].map(|finer| before / finer);
    let near = |meant: &u64| (latest_unix_ms - latest_unix_ms / 1_000..=latest_unix_ms).contains(meant);
    let nearest = meant.into_iter().find(near).map(|meant| meant.to_string());
    let problem = Problem::new(&Origin::Flag("--issued-before".into()), before.to_string(), expected);
    Problem { nearest, ..problem }
}

fn print(revoked: &Revoked) {
    let Revoked { standing, news } = revoked;
    let (character, from) = (standing.character, standing.tokens_valid_from_unix_ms);
    if *news {
        tell!(
            "{character}: every token that was issued before {from} (ms since 1970) is revoked, and its session has ended"
        );
        tell!(
            "  its gateway closes it within {} s, and lets nothing of it pass behind {} s whatever fails; a new token must be issued \
             at {from} or later",
            (limits::STANDING_PERIOD + limits::LEDGER_PATIENCE).as_millis() / 1_000,
            limits::SESSION_TRUST.as_millis() / 1_000
        );
    } else {
        tell!(
            "{character}: nothing to do; every token that was issued before {from} (ms since 1970) was revoked already"
        );
    }
}

fn print_json(revoked: &Revoked) {
    let Revoked { standing, news } = revoked;
    tell!(
        "{}",
        json!({
            "character": standing.character.to_string(),
            "revoked_now": news,
            "tokens_valid_from_unix_ms": standing.tokens_valid_from_unix_ms,
            "generation": standing.generation.0,
        })
    );
}
