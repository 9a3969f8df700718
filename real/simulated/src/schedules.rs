//! What the suites of schedules must come across; `real/scheduled/` says when they do.

/// The host's.
pub const HOST: &[&str] = &[
    "a datagram shed",
    "a second answer",
    "a stream that waited for the role's stop",
    "an answer found behind its deadline",
    "an answer that came too late",
    "an operation without a slot",
    "news shed",
    "stopped amid operations",
    "stopped when all was told",
];

/// The cache's.
pub const CACHE: &[&str] = &[
    "a connection ended before it was answered",
    "a connection ended before it was executed",
    "a connection that is silent",
    "a connection that nobody reads",
    "a script forgotten",
    "executed when it was given up",
    "nobody answers a connection",
    "nobody at an address",
    "refused before its deadline",
    "refused behind its deadline",
    "refused by a replica",
    "refused by the server",
    "unknown, and executed",
    "unknown, and not executed",
];
