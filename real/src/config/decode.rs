//! From what was given to what it means: one function a kind of value. Each reports what would have been right.

use super::{
    given::{Given, Value, read},
    problem::{Problem, Sink, quoted},
};
use crate::{bus, cache, directory::Endpoint, ledger, server::Redaction};
use hyper::Uri;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, ToSocketAddrs as _},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};
use worldline_proto::{CharacterId, EntityId, NodeId, token};
use worldline_system::time::Duration;

/// The largest certificate, key or token file, in bytes.
const SMALL_FILE_BYTES: usize = 1024 * 1024;
/// The largest id of a node. The one above stands for a client without a certificate: nobody's.
pub const NODE_MAX: u32 = u32::MAX - 1;

const UNITS: [(&str, u64); 6] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
/// The longest duration of a setting: a hundred years.
const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

/// A duration: `250ms`, `1.5s`, `2m`, `1h`.
pub fn duration(given: &Given, sink: &mut Sink) -> Option<Duration> {
    const EXPECTED: &str = "a duration such as `250ms`, `5s`, `2m` or `1h`";
    let Some(text) = given.text() else {
        let nearest = if let Value::Whole(n @ 0..) = given.value { Some(format!("{n}s")) } else { None };
        return sink.report(Problem { nearest, ..given.problem(EXPECTED) });
    };
    duration_of(text).or_else(|| {
        let bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let nearest = if bare { Some(format!("{text}s")) } else { None };
        sink.report(Problem { nearest, ..given.problem(EXPECTED) })
    })
}

/// The duration that a text says.
#[must_use]
pub fn duration_of(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.contains('.') || fraction.len() > 9 {
        return None;
    }
    let mut nanos = whole.parse::<u64>().ok()?.checked_mul(*scale)?;
    let mut place = *scale;
    for digit in fraction.bytes() {
        place /= 10;
        nanos = nanos.checked_add(u64::from(digit - b'0') * place)?;
    }
    Some(Duration::from_nanos(nanos)).filter(|duration| *duration <= DURATION_MAX)
}

/// A duration in a range.
pub fn duration_in(range: RangeInclusive<Duration>) -> impl FnOnce(&Given, &mut Sink) -> Option<Duration> {
    move |given, sink| {
        let duration = duration(given, sink)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        sink.report(given.problem(format!("a duration from `{}` to `{}`", range.start(), range.end())))
    }
}

/// A whole number in a range.
pub fn whole<N>(range: RangeInclusive<N>, of: &'static str) -> impl Fn(&Given, &mut Sink) -> Option<N>
where
    N: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
{
    move |given, sink| {
        let number = match &given.value {
            Value::Whole(number) => Some(*number),
            Value::Text(text) if !given.in_file() => text.parse().ok(),
            _ => None,
        };
        let number = number.and_then(|number| N::try_from(number).ok()).filter(|number| range.contains(number));
        number.or_else(|| sink.report(given.problem(format!("{of} from {} to {}", range.start(), range.end()))))
    }
}

/// The id of a node.
pub fn node(given: &Given, sink: &mut Sink) -> Option<NodeId> {
    whole(0..=NODE_MAX, "a node's id, a whole number")(given, sink).map(NodeId)
}

/// A list, of whatever each is.
pub fn list<T>(
    each: impl Fn(&Given, &mut Sink) -> Option<T>,
    of: &'static str,
) -> impl Fn(&Given, &mut Sink) -> Option<Vec<T>> {
    move |given, sink| {
        let Value::List(values) = &given.value else { return sink.report(given.problem(format!("a list of {of}"))) };
        let decoded: Vec<_> = values.iter().map(|value| each(value, sink)).collect();
        decoded.into_iter().collect()
    }
}

/// The first of these nodes that is there twice.
pub fn again(nodes: &[NodeId]) -> Option<NodeId> {
    let mut before = BTreeSet::new();
    nodes.iter().copied().find(|node| !before.insert(*node))
}

/// Any text that is not empty.
pub fn text(given: &Given, sink: &mut Sink) -> Option<String> {
    match given.text() {
        Some(text) if !text.trim().is_empty() => Some(text.to_owned()),
        _ => sink.report(given.problem("a text that is not empty, in quotes")),
    }
}

/// One of some words.
pub fn word<T: Copy>(words: &'static [(&'static str, T)], of: &'static str) -> impl Fn(&Given, &mut Sink) -> Option<T> {
    move |given, sink| {
        let all = || words.iter().map(|(word, _)| *word);
        let text = given.text().unwrap_or_default();
        let known = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        known.or_else(|| {
            let expected = format!("{of}: {}", all().collect::<Vec<_>>().join(", "));
            sink.report(given.problem(expected).near(text, all()))
        })
    }
}

/// One of the names of something that the configuration itself lists.
pub fn one_of(given: &Given, names: &[&str], of: &str, sink: &mut Sink) -> Option<usize> {
    let text = given.text().unwrap_or_default();
    names.iter().position(|name| *name == text).or_else(|| {
        let named: Vec<_> = names.iter().copied().filter(|name| !name.is_empty()).collect();
        let expected = format!("{of}: {}", named.join(", "));
        sink.report(given.problem(expected).near(text, names.iter().copied()))
    })
}

/// An address of this machine to listen on: `127.0.0.1:7001`.
pub fn listen(given: &Given, sink: &mut Sink) -> Option<SocketAddr> {
    let address = given.text().and_then(|text| text.parse().ok());
    address.or_else(|| {
        sink.report(given.problem("an IP address and a port to listen on, such as `127.0.0.1:7001` or `[::]:7001`"))
    })
}

/// Where another process listens: `127.0.0.1:7001` or `gateway.example:7001`. A name is looked up now, once.
pub fn address(given: &Given, sink: &mut Sink) -> Option<SocketAddr> {
    const EXPECTED: &str = "a host and a port, such as `127.0.0.1:7001`";
    let Some(text) = given.text() else { return sink.report(given.problem(EXPECTED)) };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => sink.report(given.problem("a port from 1 to 65535")),
            _ => Some(address),
        };
    }
    let port = text.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok())?);
    if port.is_none_or(|port| port == 0) {
        return sink.report(given.problem(EXPECTED));
    }
    let found: Vec<_> = text.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().or_else(|| {
        let found = format!("{}, whose host has no address here", quoted(text));
        sink.report(Problem::new(&given.origin, found, "a host that the resolver knows, or an IP address"))
    })
}

/// Where each node listens: a table of ids and addresses.
pub fn peers(given: &Given, sink: &mut Sink) -> Option<BTreeMap<NodeId, SocketAddr>> {
    let Value::Table(entries) = &given.value else {
        let expected = "a table of node ids and addresses, such as `7 = \"127.0.0.1:7001\"`";
        return sink.report(given.problem(expected));
    };
    let mut peers = BTreeMap::<NodeId, SocketAddr>::new();
    let mut whole = true;
    for (key, origin, value) in entries {
        let id = key.parse::<u32>().ok().filter(|id| *id <= NODE_MAX && id.to_string() == *key);
        if id.is_none() {
            let expected = format!("a node's id, a whole number from 0 to {NODE_MAX}");
            sink.report::<()>(Problem::new(origin, quoted(key), expected));
        }
        match (id, address(value, sink)) {
            (Some(id), Some(address)) => {
                if let Some((other, _)) = peers.iter().find(|(node, known)| **known == address && node.0 != id) {
                    let found = format!("{}, which is {other}'s address already", value.found());
                    sink.report::<()>(Problem::new(&value.origin, found, "an address of its own for each node"));
                    whole = false;
                }
                if peers.insert(NodeId(id), address).is_some() {
                    let found = format!("{} again", NodeId(id));
                    sink.report::<()>(Problem::new(origin, found, "each node once"));
                    whole = false;
                }
            }
            _ => whole = false,
        }
    }
    whole.then_some(peers)
}

/// The address of a member of the directory: `http://127.0.0.1:2379`. It may hold a password, which is not shown.
pub fn member(given: &Given, sink: &mut Sink) -> Option<Endpoint> {
    const EXPECTED: &str = "the address of an etcd member, such as `http://127.0.0.1:2379`";
    let Some(text) = given.text() else { return sink.report(given.problem(EXPECTED)) };
    match text.parse::<Endpoint>() {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            let said = error.to_string();
            let found = said.split("; expected").next().unwrap_or(EXPECTED);
            let meant = format!("http://{text}");
            let near = !text.contains(['/', '@']) && text.contains(':') && meant.parse::<Endpoint>().is_ok();
            sink.report(Problem { nearest: near.then_some(meant), ..Problem::new(&given.origin, found, EXPECTED) })
        }
    }
}

/// The address of a server of the bus: `nats://127.0.0.1:4222`. It may hold a password, which is not shown.
pub fn bus(given: &Given, sink: &mut Sink) -> Option<bus::Endpoint> {
    const EXPECTED: &str = "the address of a NATS server, such as `nats://127.0.0.1:4222`";
    let Some(text) = given.text() else { return sink.report(given.problem(EXPECTED)) };
    match text.parse::<bus::Endpoint>() {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            let said = error.to_string();
            let found = said.split("; expected").next().unwrap_or(EXPECTED);
            let meant = format!("nats://{text}");
            let near = !text.contains(['/', '@']) && text.contains(':') && meant.parse::<bus::Endpoint>().is_ok();
            sink.report(Problem { nearest: near.then_some(meant), ..Problem::new(&given.origin, found, EXPECTED) })
        }
    }
}

/// The address of a server of the cache: `redis://127.0.0.1:6379`. It may hold a password, which is not shown.
pub fn cache(given: &Given, sink: &mut Sink) -> Option<cache::Endpoint> {
    const EXPECTED: &str = "the address of a cache, such as `redis://127.0.0.1:6379`";
    let Some(text) = given.text() else { return sink.report(given.problem(EXPECTED)) };
    match text.parse::<cache::Endpoint>() {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            let said = error.to_string();
            let found = said.split("; expected").next().unwrap_or(EXPECTED);
            let meant = format!("redis://{text}");
            let near = !text.contains(['/', '@']) && text.contains(':') && meant.parse::<cache::Endpoint>().is_ok();
            sink.report(Problem { nearest: near.then_some(meant), ..Problem::new(&given.origin, found, EXPECTED) })
        }
    }
}

/// The URL of the ledger. It may hold a password: what is wrong with it is said without showing it.
pub fn ledger(given: &Given, sink: &mut Sink) -> Option<String> {
    const EXPECTED: &str = "the ledger's URL, such as `postgres://worldline@127.0.0.1:5432/worldline`";
    let Some(text) = given.text() else { return sink.report(given.problem(EXPECTED)) };
    let hidden = |found: &str| Problem::new(&given.origin, format!("{found} (not shown)"), EXPECTED);
    if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
        return sink.report(hidden("a text that is no PostgreSQL URL"));
    }
    for server in ledger::each(text) {
        match server.parse::<sqlx::postgres::PgConnectOptions>() {
            Ok(options) if options.get_database().is_none_or(str::is_empty) => {
                return sink.report(hidden("a URL that names no database"));
            }
            Ok(_) => {}
            Err(_) => return sink.report(hidden("a URL that does not read")),
        }
    }
    Some(text.to_owned())
}

/// A path. One of a file is taken from where that file stands.
pub fn path(given: &Given, sink: &mut Sink) -> Option<PathBuf> {
    let text = text(given, sink)?;
    let base = match &given.origin {
        super::problem::Origin::File { path, .. } => Path::new(path.as_ref()).parent().map(Path::to_owned),
        _ => None,
    };
    Some(base.unwrap_or_default().join(text))
}

/// A file that can be read.
pub fn readable(what: &'static str) -> impl Fn(&Given, &mut Sink) -> Option<PathBuf> {
    move |given, sink| {
        let path = path(given, sink)?;
        match read(&path, super::given::FILE_BYTES) {
            Ok(_) => Some(path),
            Err(found) => {
                let found = format!("{found} at {}", quoted(&path.display().to_string()));
                sink.report(Problem::new(&given.origin, found, what))
            }
        }
    }
}

/// A folder for this process to write to: it is there and takes files, or it can be made.
pub fn folder(given: &Given, sink: &mut Sink) -> Option<PathBuf> {
    let path = path(given, sink)?;
    match std::fs::create_dir_all(&path) {
        Ok(()) => Some(path),
        Err(error) => {
            let found = format!("{}, which cannot be made ({error})", quoted(&path.display().to_string()));
            sink.report(Problem::new(&given.origin, found, "a folder that this process may write to"))
        }
    }
}

/// The file of the key that tokens are signed with.
pub fn token_key(given: &Given, sink: &mut Sink) -> Option<token::Key> {
    let path = path(given, sink)?;
    token_key_file(&path)
        .or_else(|found| {
            let found = format!("{found} at {}", quoted(&path.display().to_string()));
            let expected = "a file with the token key, 64 hexadecimal digits (`openssl rand -hex 32` makes one)";
            sink.report(Problem::new(&given.origin, found, expected)).ok_or(())
        })
        .ok()
}

/// The key of personal data in a file.
pub fn redaction_key(given: &Given, sink: &mut Sink) -> Option<Redaction> {
    let path = path(given, sink)?;
    match token_key_file(&path) {
        Ok(token::Key(key)) => Some(Redaction::new(key)),
        Err(found) => {
            let found = format!("{found} at {}", quoted(&path.display().to_string()));
            let expected = "a file with a key, 64 hexadecimal digits (`openssl rand -hex 32` makes one)";
            sink.report(Problem::new(&given.origin, found, expected))
        }
    }
}

/// Where a collector takes traces: `http://127.0.0.1:4318`.
pub fn collector(given: &Given, sink: &mut Sink) -> Option<Uri> {
    let uri = given.text().and_then(|text| text.parse::<Uri>().ok());
    let fits = |uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
    match uri.filter(fits) {
        Some(uri) if uri.authority().is_some_and(|authority| !authority.as_str().contains('@')) => Some(uri),
        _ => {
            let expected = "the address of a collector as `http://127.0.0.1:4318`, without TLS and without a user";
            match given.text() {
                // There may be a password in it.
                Some(text) if text.contains('@') => {
                    sink.report(Problem::new(&given.origin, "an address with a user (not shown)", expected))
                }
                _ => sink.report(given.problem(expected)),
            }
        }
    }
}

/// The token key in a file.
///
/// # Errors
/// What was found instead. The content is never part of it.
pub fn token_key_file(path: &Path) -> Result<token::Key, String> {
    let bytes = read(path, SMALL_FILE_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|_| "a file that is no text".to_owned())?;
    let text = text.trim();
    let bytes = hex(text).ok_or_else(|| format!("a file with {} characters that are no such key", text.len()))?;
    let length = bytes.len();
    bytes.try_into().map(token::Key).map_err(|_| format!("a key of {length} bytes"))
}

/// A session token: hexadecimal digits. What is wrong with it is said without showing it.
pub fn token(given: &Given, sink: &mut Sink) -> Option<Vec<u8>> {
    let expected = format!("a token as `worldlined token` prints it: {} hexadecimal digits", 2 * token::TOKEN_BYTES);
    let bytes = given.text().and_then(|text| hex(text.trim()));
    bytes.filter(|bytes| bytes.len() == token::TOKEN_BYTES).or_else(|| {
        let found = "what is no token (not shown)";
        sink.report(Problem::new(&given.origin, found, expected))
    })
}

/// Bytes from hexadecimal digits.
#[must_use]
pub fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// A character: its number, or its name `character-7`.
pub fn character(given: &Given, sink: &mut Sink) -> Option<CharacterId> {
    let number = match &given.value {
        Value::Whole(number) => u64::try_from(*number).ok(),
        Value::Text(text) => text.strip_prefix("character-").unwrap_or(text).parse().ok(),
        _ => None,
    };
    number.and_then(CharacterId::new).or_else(|| {
        sink.report(given.problem(format!("a character's number from 0 to {}, or `character-7`", EntityId::NUMBER_MAX)))
    })
}

/// An entity's name: `boss-1`.
pub fn entity(given: &Given, sink: &mut Sink) -> Option<EntityId> {
    let entity = given.text().and_then(|text| text.parse().ok());
    entity.or_else(|| sink.report(given.problem("an entity's name, such as `boss-1`, `character-7` or `npc-3`")))
}

/// What is logged: `info`, or `info,worldline_real=debug`.
pub fn log(given: &Given, sink: &mut Sink) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let text = given.text().unwrap_or_default();
    let level = |part: &str| LEVELS.contains(&part.rsplit('=').next().unwrap_or(part).trim());
    let valid = !text.is_empty() && text.split(',').all(level);
    if valid && tracing_subscriber::EnvFilter::try_new(text).is_ok() {
        return Some(text.to_owned());
    }
    let expected = "a level (off, error, warn, info, debug, trace), or levels by module: `info,worldline_real=debug`";
    sink.report(given.problem(expected).near(text, LEVELS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::Origin;

    fn flag(text: &str) -> Given {
        Given { origin: Origin::Flag("--x".into()), value: Value::Text(text.into()) }
    }

    fn wrong<T>(decode: impl FnOnce(&Given, &mut Sink) -> Option<T>, text: &str) -> String {
        let mut sink = Sink::default();
        assert!(decode(&flag(text), &mut sink).is_none(), "{text} is refused");
        sink.into_result(None::<()>).expect_err("was reported").to_string()
    }

    #[test]
    fn durations_have_units() {
        for (text, nanos) in
            [("0s", 0), ("250ms", 250_000_000), ("1.5s", 1_500_000_000), ("1h", 3_600_000_000_000), ("9ns", 9)]
        {
            assert_eq!(duration_of(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "5", "-5s", "5 s", "1.s", ".s", "1.2.3s", "99999999999999999999s", "5parsecs"] {
            assert_eq!(duration_of(text), None, "{text}");
        }
        assert!(wrong(duration, "5").contains("did you mean `5s`?"));
    }

    #[test]
    fn addresses_are_addresses() {
        let mut sink = Sink::default();
        assert_eq!(address(&flag("127.0.0.1:7001"), &mut sink), Some(([127, 0, 0, 1], 7001).into()));
        assert_eq!(address(&flag("localhost:7001"), &mut sink).map(|address| address.port()), Some(7001));
        for text in ["127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", ":7001", ""] {
            wrong(address, text);
        }
        assert!(wrong(member, "127.0.0.1:2379").contains("did you mean `http://127.0.0.1:2379`?"));
        wrong(listen, "localhost:7001");
    }

    #[test]
    fn a_secret_is_never_shown() {
        for text in ["mysql://me:hunter2@host/db", "postgres://me:hunter2@host:port/db", "hunter2"] {
            assert!(!wrong(ledger, text).contains("hunter2"), "{text}");
        }
        assert!(!wrong(token, "deadbeef").contains("deadbeef"));
        let mut sink = Sink::default();
        assert!(ledger(&flag("postgres://me@127.0.0.1:5432/worldline"), &mut sink).is_some());
        assert!(ledger(&flag("postgres://me@127.0.0.1:5432,127.0.0.1:5433/worldline"), &mut sink).is_some());
    }

    #[test]
    fn a_level_is_a_level() {
        let mut sink = Sink::default();
        assert!(log(&flag("info,worldline_real=debug"), &mut sink).is_some());
        assert!(wrong(log, "inof").contains("did you mean `info`?"));
    }
}
