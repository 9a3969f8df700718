//! `[workload]`: what the players do.

use super::{
    fields::{Fields, Sink, Value, found},
    forms::{Named, Share, Span, Whole},
    problem::Problem,
    scenario::{Boss, Workload},
    shape::{Key, Table, table},
    units, world,
};
use toml::de::DeValue;
use worldline_system::time::Duration;

/// `[workload]`.
pub(super) static WORKLOAD: Table =
    table!("`[workload]`", [&MOVES, &ATTACKS, &TARGET, &SPEED_HACK, &REUSED_NUMBERS, &DOUBLE_LOGIN, &SHORT_TOKENS]);
static MOVES: Key<Whole<u16>> = Key::or(
    "moves_per_second",
    Whole { from: 0, to: 60, of: "movements a second" },
    20,
    "Movements a second of each player.",
);
static ATTACKS: Key<Span> =
    Key::or("attack_every", Span::ms(100, 600_000), Duration::from_secs(1), "How often each player attacks.");
static TARGET: Key<Named> = Key::optional(
    "target",
    Named { pattern: world::boss_pattern },
    "Whom: the name of one of `[[world.boss]]`. Nobody where it is left out.",
);
static SPEED_HACK: Key<Share> =
    Key::or("speed_hack", Share, 0, "The share of players that move faster than the rules allow.");
static REUSED_NUMBERS: Key<Share> =
    Key::or("reused_numbers", Share, 0, "The share of players that use a number again with another payload.");
static DOUBLE_LOGIN: Key<Share> = Key::or("double_login", Share, 0, "The share of players that are logged in twice.");

static SHORT_TOKENS: Key<Share> = Key::or(
    "short_tokens",
    Share,
    0,
    "The share of players, well or badly behaved, whose tokens end during the run: each at a moment drawn from the middle half of \
     `duration`.",
);

/// What the players do.
pub(super) fn workload(value: &Value<'_>, bosses: &[Boss], sink: &mut Sink) -> Option<Workload> {
    let mut fields = Fields::of(value, &WORKLOAD, sink);
    let moves_per_second = fields.read_or(&MOVES, sink);
    let attack_every = fields.read_or(&ATTACKS, sink);
    let target = fields.read_with(&TARGET, sink, |value, sink| {
        let name = match value.get_ref() {
            DeValue::String(name) => name.as_ref(),
            _ => "",
        };
        let names: Vec<String> = bosses.iter().map(|boss| boss.entity.to_string()).collect();
        names.iter().position(|known| known == name).or_else(|| {
            let expected = match names.is_empty() {
                true => "the name of a `[[world.boss]]` (this world has none)".into(),
                false => format!("one of this world's bosses: {}", names.join(", ")),
            };
            let problem = Problem::new(value.span(), found(value), expected);
            let problem = problem.near(name, names.iter().map(String::as_str));
            sink.report(Problem { shape: value.get_ref().as_str().is_none(), ..problem })
        })
    });
    let mut share = |key| fields.read_or(key, sink);
    let (speed_hack, reused_numbers, double_login) = (share(&SPEED_HACK), share(&REUSED_NUMBERS), share(&DOUBLE_LOGIN));
    if speed_hack + reused_numbers + double_login > 1000 {
        let found = format!("shares of {} in all", units::permille_text(speed_hack + reused_numbers + double_login));
        sink.problems.push(
            Problem::new(fields.span(), found, "shares of misbehaving players of at most `100%` in all").beyond_shape(),
        );
    }
    let short_tokens = fields.read_or(&SHORT_TOKENS, sink);
    fields.finish(sink, |_| None);
    Some(Workload { moves_per_second, attack_every, target, speed_hack, reused_numbers, double_login, short_tokens })
}

/// The workload of a file that says nothing of it.
pub(super) fn default_workload() -> Workload {
    let text = "the default of a key that has one";
    Workload {
        moves_per_second: MOVES.default.expect(text),
        attack_every: ATTACKS.default.expect(text),
        target: None,
        speed_hack: 0,
        reused_numbers: 0,
        double_login: 0,
        short_tokens: 0,
    }
}
