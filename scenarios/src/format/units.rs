//! Values with their units: `250ms`, `2%`, `200ppm`, whole numbers in a range, names.

use super::{
    fields::{Sink, Value, found},
    problem::{Problem, quoted},
    scenario::Window,
};
use std::ops::RangeInclusive;
use toml::de::DeValue;
use worldline_system::time::Duration;

/// Units of time: what is written, nanoseconds, and what people write instead.
const UNITS: [(&str, u64, &[&str]); 5] = [
    ("ms", 1_000_000, &["msec", "msecs", "milli", "millis", "millisecond", "milliseconds"]),
    ("s", 1_000_000_000, &["sec", "secs", "second", "seconds"]),
    ("m", 60_000_000_000, &["min", "mins", "minute", "minutes"]),
    ("us", 1_000, &["µs", "usec", "micro", "micros", "microsecond", "microseconds"]),
    ("ns", 1, &["nsec", "nano", "nanos", "nanosecond", "nanoseconds"]),
];
const A_DURATION: &str = "a duration such as `250ms`, `5s` or `2m`";

/// Why a text is no duration: what was expected, what was probably meant, and whether its shape is wrong.
struct NoDuration(String, Option<String>, bool);

/// The duration that `text` says.
fn duration_of(text: &str) -> Result<Duration, NoDuration> {
    let no = |nearest| NoDuration(A_DURATION.into(), nearest, true);
    if text.starts_with(['-', '−']) {
        return Err(NoDuration("a duration of `0s` or more".into(), None, true));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let well_formed = !whole.is_empty() && !fraction.contains('.') && (fraction.is_empty() != number.contains('.'));
    if !well_formed {
        let unit = UNITS.iter().find(|(unit, ..)| *unit == text);
        return Err(no(unit.map(|(unit, ..)| format!("1{unit}"))));
    }
    let Some(&(_, scale, _)) = UNITS.iter().find(|(name, ..)| *name == unit && text[digits..] == *unit) else {
        return Err(no(meant(unit).map(|unit| format!("{number}{unit}"))));
    };
    let too_long = || NoDuration("a duration of at most a day".into(), None, false);
    let mut nanos = whole.parse::<u64>().ok().and_then(|n| n.checked_mul(scale)).ok_or_else(too_long)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        if place % 10 != 0 {
            return Err(NoDuration("at most nanoseconds behind the point".into(), None, false));
        }
        place /= 10;
        nanos = nanos.checked_add(u64::from(digit - b'0') * place).ok_or_else(too_long)?;
    }
    if nanos > 86_400_000_000_000 { Err(too_long()) } else { Ok(Duration::from_nanos(nanos)) }
}

/// A moment outside a file: on the command line.
///
/// # Errors
/// What was expected, and what was probably meant.
pub fn moment(text: &str) -> Result<Duration, String> {
    duration_of(text).map_err(|NoDuration(expected, nearest, _)| match nearest {
        Some(nearest) => format!("expected {expected}; did you mean `{nearest}`?"),
        None => format!("expected {expected}"),
    })
}

/// The unit that was meant by another spelling; seconds where there is none at all.
fn meant(unit: &str) -> Option<&'static str> {
    let lower = unit.to_lowercase();
    if lower.is_empty() {
        return Some("s");
    }
    let spelled = UNITS.iter().find(|(name, _, aliases)| *name == lower || aliases.contains(&lower.as_str()));
    let near = || {
        let all = UNITS.iter().flat_map(|(name, _, aliases)| aliases.iter().map(move |alias| (*name, *alias)));
        all.filter(|(_, alias)| alias.len() > 3)
            .map(|(name, alias)| (strsim::damerau_levenshtein(&lower, alias), name))
            .filter(|&(distance, _)| distance <= 2)
            .min()
    };
    spelled.map(|(name, ..)| *name).or_else(|| near().map(|(_, name)| name))
}

/// A duration.
pub(super) fn duration(value: &Value<'_>, sink: &mut Sink) -> Option<Duration> {
    let problem = match value.get_ref() {
        DeValue::String(text) => match duration_of(text) {
            Ok(duration) => return Some(duration),
            Err(NoDuration(expected, nearest, shape)) => {
                Problem { nearest, shape, ..Problem::new(value.span(), quoted(text), expected) }
            }
        },
        DeValue::Integer(n) => Problem {
            nearest: (!n.as_str().starts_with('-')).then(|| format!("{}s", n.as_str())),
            ..Problem::new(value.span(), found(value), A_DURATION)
        },
        _ => Problem::new(value.span(), found(value), A_DURATION),
    };
    sink.report(problem)
}

/// A duration in a range.
pub(super) fn duration_in(range: RangeInclusive<Duration>) -> impl FnOnce(&Value<'_>, &mut Sink) -> Option<Duration> {
    move |value, sink| {
        let duration = duration(value, sink)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let expected = format!("a duration from `{}` to `{}`", range.start(), range.end());
        sink.report(Problem::new(value.span(), found(value), expected).beyond_shape())
    }
}

/// A duration that may be negative, in nanoseconds: how far a clock is set.
pub(super) fn signed_duration(value: &Value<'_>, sink: &mut Sink) -> Option<i64> {
    const EXPECTED: &str = "a span such as `5s` or `-250ms`";
    let DeValue::String(text) = value.get_ref() else {
        return sink.report(Problem::new(value.span(), found(value), EXPECTED));
    };
    let (sign, size) = match text.strip_prefix('-') {
        Some(size) => (-1, size),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    match duration_of(size) {
        Ok(duration) => i64::try_from(duration.as_nanos()).ok().map(|nanos| sign * nanos),
        Err(NoDuration(_, nearest, shape)) => {
            let nearest = nearest.map(|size| format!("{}{size}", if sign < 0 { "-" } else { "" }));
            sink.report(Problem { nearest, shape, ..Problem::new(value.span(), quoted(text), EXPECTED) })
        }
    }
}

/// A moment `"10s"`, or a window `"10s..14s"` out of which each seed draws one.
pub(super) fn window(value: &Value<'_>, sink: &mut Sink) -> Option<Window> {
    let DeValue::String(text) = value.get_ref() else {
        return duration(value, sink).map(|at| Window { from: at, to: at });
    };
    let Some((from, to)) = text.split_once("..") else {
        return duration(value, sink).map(|at| Window { from: at, to: at });
    };
    match (duration_of(from.trim()), duration_of(to.trim())) {
        (Ok(from), Ok(to)) if from <= to => Some(Window { from, to }),
        (Ok(from), Ok(to)) => sink.report(Problem {
            nearest: Some(format!("{to}..{from}")),
            shape: false,
            ..Problem::new(value.span(), quoted(text), "a window that ends after it begins")
        }),
        (from_or, to_or) => {
            let wrong = |read: &Result<Duration, NoDuration>| matches!(read, Err(NoDuration(.., true)));
            let shape = wrong(&from_or) || wrong(&to_or);
            let side = |read: Result<Duration, NoDuration>, text: &str| match read {
                Ok(_) => Some(text.to_owned()),
                Err(NoDuration(_, nearest, _)) => nearest,
            };
            let nearest = side(from_or, from).zip(side(to_or, to)).map(|(from, to)| format!("{from}..{to}"));
            sink.report(Problem {
                nearest,
                shape,
                ..Problem::new(value.span(), quoted(text), "a moment such as `10s` or a window such as `10s..14s`")
            })
        }
    }
}

/// A share, in permille: `"2%"`, `"0.5%"`, at most one digit behind the point.
pub(super) fn permille(value: &Value<'_>, sink: &mut Sink) -> Option<u16> {
    const EXPECTED: &str = "a share from `0%` to `100%`, such as `2%` or `0.5%`";
    let no = |nearest| Problem { nearest, ..Problem::new(value.span(), found(value), EXPECTED) };
    match value.get_ref() {
        DeValue::String(text) => {
            let number = text.strip_suffix('%').filter(|number| !number.ends_with(' '));
            let read = number.and_then(|number| {
                let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
                let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                (digits(whole) && digits(tenth) && tenth.len() == 1).then_some(())?;
                let permille = whole.parse::<u16>().ok()?.checked_mul(10)?.checked_add(tenth.parse().ok()?)?;
                (permille <= 1000).then_some(permille)
            });
            match read {
                Some(permille) => Some(permille),
                None => {
                    let bare = text.trim_end_matches(['%', ' ']);
                    let sane = bare.parse::<u16>().is_ok_and(|n| n <= 100) && !text.ends_with('%');
                    sink.report(no(sane.then(|| format!("{bare}%"))))
                }
            }
        }
        DeValue::Integer(n) if n.as_str().parse::<u16>().is_ok_and(|n| n <= 100) => {
            sink.report(no(Some(format!("{}%", n.as_str()))))
        }
        DeValue::Float(n) => {
            // `0.02` was meant as a share of one.
            let percent = n.as_str().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
            sink.report(no(percent.map(|share| format!("{}%", (share * 1000.0).round() / 10.0))))
        }
        _ => sink.report(no(None)),
    }
}

/// A share as it is written.
#[must_use]
pub fn permille_text(permille: u16) -> String {
    match permille % 10 {
        0 => format!("{}%", permille / 10),
        tenth => format!("{}.{tenth}%", permille / 10),
    }
}

/// A clock's drift in parts a million: `"200ppm"`, `"-50000ppm"`.
pub(super) fn ppm(value: &Value<'_>, sink: &mut Sink) -> Option<i32> {
    const EXPECTED: &str = "a drift from `-500000ppm` to `500000ppm`, such as `200ppm`";
    let read = match value.get_ref() {
        DeValue::String(text) => text.strip_suffix("ppm").and_then(|number| number.parse::<i32>().ok()),
        _ => None,
    };
    match read {
        Some(ppm) if ppm.abs() <= 500_000 => Some(ppm),
        _ => {
            let digits = match value.get_ref() {
                DeValue::Integer(n) => n.as_str().parse::<i32>().ok(),
                DeValue::String(text) => text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<i32>().ok(),
                _ => None,
            };
            let nearest = digits.filter(|ppm| ppm.abs() <= 500_000).map(|ppm| format!("{ppm}ppm"));
            sink.report(Problem { nearest, ..Problem::new(value.span(), found(value), EXPECTED) })
        }
    }
}

/// A whole number in a range.
pub(super) fn whole<N>(range: RangeInclusive<N>, of: &'static str) -> impl FnOnce(&Value<'_>, &mut Sink) -> Option<N>
where
    N: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    move |value, sink| {
        let read = match value.get_ref() {
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().and_then(|n| N::try_from(n).ok()),
            _ => None,
        };
        match read.filter(|n| range.contains(n)) {
            Some(n) => Some(n),
            None => {
                let expected = format!("{of} from {} to {}", range.start(), range.end());
                sink.report(Problem::new(value.span(), found(value), expected))
            }
        }
    }
}

/// `true` or `false`.
pub(super) fn truth(value: &Value<'_>, sink: &mut Sink) -> Option<bool> {
    match value.get_ref() {
        DeValue::Boolean(truth) => Some(*truth),
        DeValue::String(text) => sink.report(
            Problem::new(value.span(), quoted(text), "`true` or `false`, without quotes").near(text, ["true", "false"]),
        ),
        _ => sink.report(Problem::new(value.span(), found(value), "`true` or `false`")),
    }
}

/// Any text that is not empty.
pub(super) fn text(value: &Value<'_>, sink: &mut Sink) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        DeValue::String(_) => sink.report(Problem::new(value.span(), "an empty text", "a sentence")),
        _ => sink.report(Problem::new(value.span(), found(value), "a text in quotes")),
    }
}

/// A name: lower-case letters, digits and hyphens, so that it can stand in a selector, a path and a shell.
pub(super) fn name(value: &Value<'_>, sink: &mut Sink) -> Option<String> {
    const EXPECTED: &str = "a name of 1 to 40 lower-case letters a-z, digits and hyphens that begins with a letter";
    let DeValue::String(text) = value.get_ref() else {
        return sink.report(Problem::new(value.span(), found(value), EXPECTED));
    };
    let valid = |text: &str| {
        (1..=40).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if valid(text) {
        return Some(text.clone().into_owned());
    }
    let lower: String = text.trim().to_lowercase().replace(['_', ' '], "-");
    let nearest = valid(&lower).then_some(lower);
    sink.report(Problem { nearest, ..Problem::new(value.span(), quoted(text), EXPECTED) })
}

/// One of a list of words.
pub(super) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
    of: &'static str,
) -> impl Fn(&Value<'_>, &mut Sink) -> Option<T> {
    move |value, sink| {
        let all = || words.iter().map(|(word, _)| *word);
        let expected = || format!("{of}: {}", all().collect::<Vec<_>>().join(", "));
        let DeValue::String(text) = value.get_ref() else {
            return sink.report(Problem::new(value.span(), found(value), expected()));
        };
        match words.iter().find(|(word, _)| word == text) {
            Some((_, meaning)) => Some(*meaning),
            None => sink.report(Problem::new(value.span(), quoted(text), expected()).near(text, all())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_in_every_unit() {
        for (text, nanos) in [
            ("0s", 0),
            ("250ms", 250_000_000),
            ("1.5s", 1_500_000_000),
            ("2m", 120_000_000_000),
            ("7us", 7_000),
            ("9ns", 9),
        ] {
            assert_eq!(duration_of(text).ok(), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn a_wrong_unit_names_the_right_one() {
        for (text, meant) in [
            ("5sec", Some("5s")),
            ("5 s", Some("5s")),
            ("5", Some("5s")),
            ("5S", Some("5s")),
            ("3minuets", Some("3m")),
            ("5parsecs", None),
            ("-5s", None),
            ("", None),
            ("1.2.3s", None),
            ("1.s", None),
            ("99999999999999999999s", None),
            ("90000000s", None),
            ("1.0000000001s", None),
        ] {
            let NoDuration(_, nearest, _) =
                duration_of(text).err().unwrap_or_else(|| panic!("{text:?} is no duration"));
            assert_eq!(nearest.as_deref(), meant, "{text:?}");
        }
    }
}
