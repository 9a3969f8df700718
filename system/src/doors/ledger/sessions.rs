//! Sessions and the tokens that may begin one, as the ledger knows them.
//!
//! A token of a character counts if it was issued at or after the moment from which the character's tokens are valid. That
//! moment only ever rises. Raising it and ending the session that stands are one transaction.

use worldline_proto::{CharacterId, Generation, OpNumber};

/// What a login returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Login {
    /// The new session's generation: the highest.
    pub generation: Generation,
    /// The last operation number that has a result.
    pub applied_through: OpNumber,
}

/// What a revocation returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Revoked {
    /// How it stands now.
    pub standing: Standing,
    /// Whether this call has revoked anything: not where all these tokens had been revoked before.
    pub news: bool,
}

/// How the sessions of a character stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Standing {
    /// Whose.
    pub character: CharacterId,
    /// The highest generation. A session below it has ended.
    pub generation: Generation,
    /// Tokens that were issued before this are revoked, in milliseconds since 1970. Zero where none ever was.
    pub tokens_valid_from_unix_ms: u64,
}
