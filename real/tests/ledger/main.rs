//! The ledger's adapter against a real PostgreSQL 17, as `ci/services start` gives one. Each test has a database of its own.

#![allow(clippy::unwrap_used, reason = "a test")]

mod alone;
mod calls;
mod concurrency;
mod facts;
mod failures;
mod impostor;
mod readiness;
mod revocation;
mod schema;
mod support;
