//! Personal data in lines of the log: which character somebody plays, and where somebody is.
//!
//! A character's id is replaced by a keyed digest: the same one is found again in the log and in the traces of every process with the
//! same key, and nobody without it can tell whose it is. An address loses its last part and its port.
//!
//! What is redacted is the text, wherever it comes from: an error of a library says what it likes.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
};
use worldline_proto::EntityId;

/// What every character's name begins with.
const CHARACTER: &str = "character-";

/// What replaces what must not be told.
#[derive(Clone)]
pub struct Redaction([u8; 32]);

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redaction(..)")
    }
}

impl Redaction {
    /// With this key.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// With a key of this process alone: its own lines agree with each other and with nobody else's.
    #[must_use]
    pub fn drawn() -> Self {
        let mut key = [0; 32];
        // Without entropy nothing starts that says anything of anybody.
        let drawn = rustix::rand::getrandom(&mut key[..], rustix::rand::GetRandomFlags::empty());
        let _ = drawn;
        Self(key)
    }

    /// An entity, for logs and traces: a character by its digest, anything else by its name.
    #[must_use]
    pub fn entity(&self, entity: EntityId) -> String {
        self.characters(&entity.to_string())
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
        // A key of any length is one.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return "x".to_owned() };
        mac.update(who.as_bytes());
        mac.finalize().into_bytes().iter().take(8).fold("x".to_owned(), |mut digest, byte| {
            // A text takes all text.
            let _ = write!(digest, "{byte:02x}");
            digest
        })
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
}
