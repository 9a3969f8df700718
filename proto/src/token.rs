//! Session tokens: who may play which character until when, signed with a key that the issuer and the gateways share.
//!
//! A token is a version byte, the claims in network order, and HMAC-SHA256 over both: 57 bytes.
//!
//! Clocks differ. A token whose issue time lies ahead of its verifier's clock by at most [`SKEW_MS`] is good; one from farther
//! ahead is not valid *yet*. Its end is taken at its word.
//!
//! Deliberately absent: a clock (the verifier hands the time in), and revocation: a token says when it was issued, and the
//! ledger knows from when on a character's tokens count.

use crate::{CharacterId, EntityId};
use alloc::vec::Vec;
use core::fmt;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const VERSION: u8 = 2;
/// Version, character, issue, expiry.
const CLAIMS_BYTES: usize = 1 + 8 + 8 + 8;
const SIGNATURE_BYTES: usize = 32;

/// The length of every token, in bytes.
pub const TOKEN_BYTES: usize = CLAIMS_BYTES + SIGNATURE_BYTES;

/// By how much the clock of a token's issuer may be ahead of its verifier's, in milliseconds. Whoever revokes the tokens of a
/// character revokes those that were issued up to so much later: any of them may have been accepted before.
pub const SKEW_MS: u64 = 5_000;

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claims {
    /// The character that its bearer may play.
    pub character: CharacterId,
    /// When it was made, in milliseconds since 1970-01-01T00:00:00Z by the clock of its issuer.
    pub issued_unix_ms: u64,
    /// When it ends, in milliseconds since 1970-01-01T00:00:00Z; at that moment it is no longer valid.
    pub expires_unix_ms: u64,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadToken {
    /// It has not the form of a token.
    Malformed,
    /// It is, or pretends to be, of another version.
    OtherVersion(u8),
    /// Its signature is not by this key.
    Forged,
    /// Its time has passed.
    Expired,
    /// It was issued in the future, by more than [`SKEW_MS`].
    NotYetValid,
}

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("malformed token"),
            Self::OtherVersion(found) => write!(f, "a token of version {found}; this build reads version {VERSION}"),
            Self::Forged => f.write_str("the token's signature does not fit"),
            Self::Expired => f.write_str("the token has expired"),
            Self::NotYetValid => f.write_str("the token was issued in the future: somebody's clock is wrong"),
        }
    }
}

impl core::error::Error for BadToken {}

/// The key that signs and verifies. Its bytes are never printed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A token with these claims: [`TOKEN_BYTES`] bytes.
    #[must_use]
    pub fn sign(&self, claims: Claims) -> Vec<u8> {
        let mut token = Vec::with_capacity(TOKEN_BYTES);
        token.push(VERSION);
        token.extend_from_slice(&claims.character.entity().get().to_be_bytes());
        token.extend_from_slice(&claims.issued_unix_ms.to_be_bytes());
        token.extend_from_slice(&claims.expires_unix_ms.to_be_bytes());
        let signature = self.digest(&token).finalize().into_bytes();
        token.extend_from_slice(&signature);
        token
    }

    /// The claims of a token that this key has signed, and whose time `now_unix_ms` is. The signature is compared in constant
    /// time and before anything else is believed.
    ///
    /// # Errors
    /// See [`BadToken`].
    pub fn verify(&self, token: &[u8], now_unix_ms: u64) -> Result<Claims, BadToken> {
        let (signed, signature) = halves(token)?;
        self.digest(signed).verify_slice(signature).map_err(|_| BadToken::Forged)?;
        let claims = Claims::read(token)?;
        if now_unix_ms >= claims.expires_unix_ms {
            return Err(BadToken::Expired);
        }
        if claims.issued_unix_ms > now_unix_ms.saturating_add(SKEW_MS) {
            return Err(BadToken::NotYetValid);
        }
        Ok(claims)
    }

    fn digest(&self, claims: &[u8]) -> Hmac<Sha256> {
        let mut digest = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        digest.update(claims);
        digest
    }
}

impl Claims {
    /// What a token says, whoever has signed it: for its bearer, who has no key.
    ///
    /// # Errors
    /// It is no token, or one of another version.
    pub fn read(token: &[u8]) -> Result<Self, BadToken> {
        let (signed, _) = halves(token)?;
        let (numbers, []) = signed[1..].as_chunks::<8>() else { return Err(BadToken::Malformed) };
        let &[character, issued, expires] = numbers else { return Err(BadToken::Malformed) };
        let character = EntityId::from_raw(u64::from_be_bytes(character))
            .and_then(CharacterId::from_entity)
            .ok_or(BadToken::Malformed)?;
        let (issued_unix_ms, expires_unix_ms) = (u64::from_be_bytes(issued), u64::from_be_bytes(expires));
        Ok(Self { character, issued_unix_ms, expires_unix_ms })
    }
}

/// What is signed, and the signature.
fn halves(token: &[u8]) -> Result<(&[u8], &[u8]), BadToken> {
    match token.first() {
        None => Err(BadToken::Malformed),
        Some(&other) if other != VERSION => Err(BadToken::OtherVersion(other)),
        Some(_) if token.len() != TOKEN_BYTES => Err(BadToken::Malformed),
        Some(_) => Ok(token.split_at(CLAIMS_BYTES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    const KEY: Key = Key([7; 32]);

    fn claims() -> Claims {
        let character = CharacterId::new(42).expect("in range");
        Claims { character, issued_unix_ms: 1_700_000_000_000, expires_unix_ms: 1_800_000_000_000 }
    }

    #[test]
    fn a_token_is_good_until_the_moment_it_expires() {
        let token = KEY.sign(claims());
        assert_eq!(token.len(), TOKEN_BYTES);
        assert_eq!(KEY.verify(&token, 1_799_999_999_999), Ok(claims()));
        assert_eq!(KEY.verify(&token, 1_800_000_000_000), Err(BadToken::Expired));
        assert_eq!(Claims::read(&token), Ok(claims()), "its bearer may read it without the key");
    }

    #[test]
    fn a_clock_that_is_a_little_behind_does_not_matter_and_one_that_is_far_behind_is_told_so() {
        let token = KEY.sign(claims());
        let issued = claims().issued_unix_ms;
        assert_eq!(KEY.verify(&token, issued - SKEW_MS), Ok(claims()));
        assert_eq!(KEY.verify(&token, issued - SKEW_MS - 1), Err(BadToken::NotYetValid));
        assert_eq!(KEY.verify(&token, 0), Err(BadToken::NotYetValid));
        let for_ever = Claims { issued_unix_ms: u64::MAX, expires_unix_ms: u64::MAX, ..claims() };
        assert_eq!(KEY.verify(&KEY.sign(for_ever), u64::MAX - 1), Ok(for_ever), "nothing wraps around");
    }

    #[test]
    fn another_version_is_called_by_its_number() {
        let mut first = KEY.sign(claims());
        first.truncate(49);
        first[0] = 1;
        assert_eq!(KEY.verify(&first, 0), Err(BadToken::OtherVersion(1)));
        assert_eq!(KEY.verify(&[9; 200], 0), Err(BadToken::OtherVersion(9)));
        assert_eq!(Claims::read(&first), Err(BadToken::OtherVersion(1)));
    }

    #[test]
    fn no_changed_bit_and_no_other_key_passes() {
        let token = KEY.sign(claims());
        for bit in 0..token.len() * 8 {
            let mut changed = token.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let why = if bit < 8 { BadToken::OtherVersion(changed[0]) } else { BadToken::Forged };
            assert_eq!(KEY.verify(&changed, claims().issued_unix_ms), Err(why), "bit {bit}");
        }
        assert_eq!(Key([8; 32]).verify(&token, claims().issued_unix_ms), Err(BadToken::Forged));
    }

    #[test]
    fn another_length_is_malformed() {
        let mut token = KEY.sign(claims());
        for len in 0..TOKEN_BYTES {
            assert_eq!(KEY.verify(&token[..len], 0), Err(BadToken::Malformed), "{len} bytes");
        }
        token.push(0);
        assert_eq!(KEY.verify(&token, 0), Err(BadToken::Malformed));
    }

    #[test]
    fn a_key_does_not_print_itself() {
        assert_eq!(format!("{KEY:?}"), "Key(..)");
    }
}
