//! Session tokens: who may play which character until when, signed with a key that the issuer and the gateways share.
//!
//! A token is a version byte, the claims in network order, and HMAC-SHA256 over both: 49 bytes.
//!
//! Deliberately absent: a clock (the verifier hands the time in) and revocation.

use crate::{CharacterId, EntityId};
use alloc::vec::Vec;
use core::fmt;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const VERSION: u8 = 1;
/// Version, character, expiry.
const CLAIMS_BYTES: usize = 1 + 8 + 8;
const SIGNATURE_BYTES: usize = 32;

/// The length of every token, in bytes.
pub const TOKEN_BYTES: usize = CLAIMS_BYTES + SIGNATURE_BYTES;

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claims {
    /// The character that its bearer may play.
    pub character: CharacterId,
    /// When it ends, in milliseconds since 1970-01-01T00:00:00Z; at that moment it is no longer valid.
    pub expires_unix_ms: u64,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BadToken {
    /// It has not the form of a token of this version.
    Malformed,
    /// Its signature is not by this key.
    Forged,
    /// Its time has passed.
    Expired,
}

impl fmt::Display for BadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed token",
            Self::Forged => "the token's signature does not fit",
            Self::Expired => "the token has expired",
        })
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
        token.extend_from_slice(&claims.expires_unix_ms.to_be_bytes());
        let signature = self.digest(&token).finalize().into_bytes();
        token.extend_from_slice(&signature);
        token
    }

    /// The claims of a token that this key has signed and whose time has not come at `now_unix_ms`. The signature is
    /// compared in constant time and before anything else is believed.
    ///
    /// # Errors
    /// See [`BadToken`].
    pub fn verify(&self, token: &[u8], now_unix_ms: u64) -> Result<Claims, BadToken> {
        let (claims, signature) = token.split_at_checked(CLAIMS_BYTES).ok_or(BadToken::Malformed)?;
        let (&version, numbers) = claims.split_first().ok_or(BadToken::Malformed)?;
        let (numbers, []) = numbers.as_chunks::<8>() else { return Err(BadToken::Malformed) };
        let &[character, expires] = numbers else { return Err(BadToken::Malformed) };
        if version != VERSION || signature.len() != SIGNATURE_BYTES {
            return Err(BadToken::Malformed);
        }
        self.digest(claims).verify_slice(signature).map_err(|_| BadToken::Forged)?;
        let character = EntityId::from_raw(u64::from_be_bytes(character))
            .and_then(CharacterId::from_entity)
            .ok_or(BadToken::Malformed)?;
        let expires_unix_ms = u64::from_be_bytes(expires);
        if now_unix_ms >= expires_unix_ms {
            return Err(BadToken::Expired);
        }
        Ok(Claims { character, expires_unix_ms })
    }

    fn digest(&self, claims: &[u8]) -> Hmac<Sha256> {
        let mut digest = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        digest.update(claims);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    const KEY: Key = Key([7; 32]);

    fn claims() -> Claims {
        Claims { character: CharacterId::new(42).expect("in range"), expires_unix_ms: 1_800_000_000_000 }
    }

    #[test]
    fn a_token_is_good_until_the_moment_it_expires() {
        let token = KEY.sign(claims());
        assert_eq!(token.len(), TOKEN_BYTES);
        assert_eq!(KEY.verify(&token, 1_799_999_999_999), Ok(claims()));
        assert_eq!(KEY.verify(&token, 1_800_000_000_000), Err(BadToken::Expired));
    }

    #[test]
    fn no_changed_bit_and_no_other_key_passes() {
        let token = KEY.sign(claims());
        for bit in 0..token.len() * 8 {
            let mut changed = token.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let why = if bit < 8 { BadToken::Malformed } else { BadToken::Forged };
            assert_eq!(KEY.verify(&changed, 0), Err(why), "bit {bit}");
        }
        assert_eq!(Key([8; 32]).verify(&token, 0), Err(BadToken::Forged));
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
