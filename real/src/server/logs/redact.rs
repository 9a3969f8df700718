//! Personal data in lines of the log: which character somebody plays, and where somebody is.
//!
//! A character's id is replaced by a keyed digest: the same one is found again in the log and in the traces of every process with the
//! same key, and nobody without it can tell whose it is. The name of a trace follows from the same character and the number of what it
//! did, so it is replaced likewise, where all processes share a key. An address loses its last part and its port.
//!
//! What is redacted is the text, wherever it comes from: an error of a library says what it likes.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
};
use worldline_proto::EntityId;
use worldline_system::doors::telemetry::{SpanId, TraceId};

/// What every character's name begins with.
const CHARACTER: &str = "character-";

/// What replaces what must not be told.
#[derive(Clone)]
pub struct Redaction {
    key: [u8; 32],
    /// Whether other processes have the same key.
    shared: bool,
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redaction(..)")
    }
}

impl Redaction {
    /// With a key that all processes share.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self { key, shared: true }
    }

    /// With a key of this process alone: its own lines agree with each other and with nobody else's.
    #[must_use]
    pub fn drawn() -> Self {
        let mut key = [0; 32];
        // Without entropy nothing starts that says anything of anybody.
        let drawn = rustix::rand::getrandom(&mut key[..], rustix::rand::GetRandomFlags::empty());
        let _ = drawn;
        Self { key, shared: false }
    }

    /// An entity, for logs and traces: a character by its digest, anything else by its name.
    #[must_use]
    pub fn entity(&self, entity: EntityId) -> String {
        self.characters(&entity.to_string())
    }

    /// A trace, for logs and traces: under a shared key nobody can tell by its name whose it is. Without one it keeps the name on which
    /// all processes agree.
    #[must_use]
    pub fn trace(&self, trace: TraceId) -> TraceId {
        if !self.shared {
            return trace;
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.mac(&[b"trace", &trace.0.to_be_bytes()[..]])[..16]);
        TraceId(u128::from_be_bytes(bytes).max(1))
    }

    /// A span, likewise.
    #[must_use]
    pub fn span(&self, span: SpanId) -> SpanId {
        if !self.shared {
            return span;
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.mac(&[b"span", &span.0.to_be_bytes()[..]])[..8]);
        SpanId(u64::from_be_bytes(bytes).max(1))
    }

    /// What a line says under a name that may be a trace's or a span's.
    #[must_use]
    pub fn named(&self, name: &str, text: &str) -> Option<String> {
        let bits = |digits| (text.len() == digits).then(|| u128::from_str_radix(text, 16).ok()).flatten();
        match name {
            "trace_id" => Some(self.trace(TraceId(bits(32)?)).to_string()),
            "span_id" => Some(self.span(SpanId(u64::try_from(bits(16)?).ok()?)).to_string()),
            _ => None,
        }
    }

    /// A text of ours: no character is named in it.
    #[must_use]
    pub fn characters(&self, text: &str) -> String {
        let mut told = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(CHARACTER) {
            let (before, found) = rest.split_at(at + CHARACTER.len());
            let digits = found.bytes().take_while(u8::is_ascii_digit).count();
            told += before;
            if digits > 0 {
                told += &self.digest(&found[..digits]);
            }
            rest = &found[digits..];
        }
        told + rest
    }

    /// A text of which nobody here knows what it says: neither a character nor an address is whole in it.
    #[must_use]
    pub fn everything(&self, text: &str) -> String {
        addresses(&self.characters(text))
    }

    fn digest(&self, who: &str) -> String {
        self.mac(&[who.as_bytes()]).iter().take(8).fold("x".to_owned(), |mut digest, byte| {
            // A text takes all text.
            let _ = write!(digest, "{byte:02x}");
            digest
        })
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length is one");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }
}

/// Cuts every address in a text.
fn addresses(text: &str) -> String {
    let of_address = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']');
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(of_address) {
        let (before, from) = rest.split_at(begin);
        let end = from.find(|c: char| !of_address(c)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        told += before;
        let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let within = letter(before.chars().next_back()) || letter(after.chars().next());
        told += &cut(word, within).unwrap_or_else(|| word.to_owned());
        rest = after;
    }
    told + rest
}

/// A word that is an address, cut; with what a sentence puts around it. `within`: letters stand beside it.
fn cut(word: &str, within: bool) -> Option<String> {
    let bare = word.trim_end_matches(['.', ':']);
    let bare = bare.trim_start_matches([':', '.']);
    let candidates = [word, bare, bare.trim_matches(['[', ']'])];
    let address = candidates.iter().find_map(|word| {
        let whole = word.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| word.parse::<IpAddr>());
        // `10.0.0.7:x` and the like: what stands in front of the last colon.
        whole.ok().or_else(|| word.rsplit_once(':')?.0.parse().ok())
    })?;
    Some(match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.x")
        }
        // Within `core::fmt` lies one; and what begins with nothing is nobody's: `::`, `::1`.
        IpAddr::V6(v6) if within || v6.segments()[0] == 0 => return None,
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:x")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::{CharacterId, OpNumber};
    use worldline_system::doors::telemetry::Stage;

    #[test]
    fn no_address_is_left_whole() {
        for (text, told) in [
            ("203.0.113.77:50123", "203.0.113.x"),
            ("connection to 203.0.113.77 refused.", "connection to 203.0.113.x refused."),
            ("from [2001:db8:7:9::1]:443: timed out", "from 2001:db8:7:x timed out"),
            ("2001:db8:7:9::1", "2001:db8:7:x"),
            ("peer=203.0.113.77:1,", "peer=203.0.113.x,"),
            ("ended by 203.0.113.77.", "ended by 203.0.113.x"),
            ("(203.0.113.77:9)", "(203.0.113.x)"),
            ("at 12:30:05.123 the face added 3.5 to core::fmt", "at 12:30:05.123 the face added 3.5 to core::fmt"),
            ("version 17.4.2", "version 17.4.2"),
        ] {
            assert_eq!(addresses(text), told);
        }
    }

    #[test]
    fn a_character_is_the_same_one_under_one_key_and_nobody_without_it() {
        let (one, other) = (Redaction::new([1; 32]), Redaction::new([2; 32]));
        let told = one.characters("character-7 and character-71, character-7; character-");
        assert!(!told.contains("-7"), "{told}");
        let names: Vec<_> = told.split(CHARACTER).map(|rest| rest.get(..17).unwrap_or_default()).collect();
        assert_eq!(names[1], names[3]);
        assert_ne!(names[1], names[2]);
        assert_ne!(told, other.characters("character-7 and character-71, character-7; character-"));
        assert_eq!(one.characters("boss-1 npc-3"), "boss-1 npc-3");
    }

    #[test]
    fn who_knows_what_somebody_has_done_cannot_find_its_trace_without_the_key() {
        let character = CharacterId::new(7).expect("small");
        let guessed = TraceId::of_operation(character, OpNumber(3));
        let span = SpanId::of(guessed, Stage::ClientAttackInput);
        let (one, other) = (Redaction::new([1; 32]), Redaction::new([2; 32]));
        assert!(one.trace(guessed) != guessed && one.span(span) != span);
        assert!(one.trace(guessed) != other.trace(guessed) && one.span(span) != other.span(span));
        let again = Redaction::new([1; 32]);
        assert_eq!((one.trace(guessed), one.span(span)), (again.trace(guessed), again.span(span)));
        assert_eq!(one.named("trace_id", &guessed.to_string()), Some(again.trace(guessed).to_string()));
        assert_eq!(one.named("span_id", &span.to_string()), Some(again.span(span).to_string()));
        assert_eq!(one.named("lease", &span.to_string()), None);
        assert_eq!(Redaction::drawn().trace(guessed), guessed, "no other process would find it");
    }
}
