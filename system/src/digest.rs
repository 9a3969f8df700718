//! The digest of an operation's payload.

use sha2::{Digest as _, Sha256};
use worldline_proto::Digest;

/// SHA-256 over exactly the bytes that the client sent, cut to 128 bits.
#[must_use]
pub fn digest(payload: &[u8]) -> Digest {
    let hash = Sha256::digest(payload);
    let mut cut = [0; 16];
    cut.copy_from_slice(&hash[..16]);
    Digest(cut)
}
