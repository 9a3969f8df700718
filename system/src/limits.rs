//! Every bound and default period, in one place, with its unit in the type. Defaults are the specification's figures.

use crate::time::Duration;

/// The largest datagram, in bytes: below the smallest QUIC packet that every path carries.
pub const DATAGRAM_BYTES: usize = 1_150;
/// The largest stream message, in bytes.
pub const FRAME_BYTES: usize = 64 * 1024;
/// The largest unary call or reply, in bytes.
pub const CALL_BYTES: usize = 1024 * 1024;
/// Stream messages of one class that wait for the peer; one more closes the connection with `Overflow`.
pub const STREAM_BACKLOG: usize = 1_024;
/// Connections of one node.
pub const CONNECTIONS: usize = 4_096;
/// How long a connection may hear nothing of its peer before it is lost. A client whose gateway has died is at another one
/// within 10 s.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(6);
/// How often a connection that has nothing to say lets its peer hear something.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Operations of one node that wait for their answer, over all doors; one more is `Refused(Busy)` at once.
pub const OPERATIONS_IN_FLIGHT: usize = 4_096;
/// Unsolicited events that wait for a busy node; one more is dropped and counted.
pub const INBOX: usize = 4_096;
/// Watch news that wait for a busy node; one more ends the watch with a gap.
pub const WATCH_CREDITS: usize = 1_024;

/// Operations in one directory transaction (etcd's `--max-txn-ops`), compares and writes counted each.
pub const DIRECTORY_OPERATIONS: usize = 128;
/// Records in one takeover transaction: each takes a compare and a write, and four compares are the orchestrator's own.
pub const TAKEOVER_RECORDS: usize = 124;
/// Records in one page of the directory.
pub const DIRECTORY_PAGE: u16 = 500;
/// Entities in one claim.
pub const CLAIM_ENTITIES: usize = 256;
/// Entries in one page of the roster.
pub const ROSTER_PAGE: u16 = 500;
/// Operations in one batch.
pub const BATCH_OPERATIONS: usize = 256;
/// Checkpoints in one batch.
pub const BATCH_CHECKPOINTS: usize = 256;
/// Flags of published facts in one batch.
pub const BATCH_FLAGS: usize = 256;
/// Facts in one page, and flags in one call.
pub const FACTS_PAGE: u16 = 500;
/// Entities in one snapshot.
pub const SNAPSHOT_ENTITIES: usize = 256;
/// Publishes of a worker that wait for their answer; what is beyond them is left to the relay.
pub const PUBLISHES_IN_FLIGHT: usize = 1_024;
/// Flags of published facts that wait for a worker's next batch; what is beyond them is left to the relay.
pub const FLAGS_WAITING: usize = 4_096;
/// Facts that the relay publishes and flags at a time.
pub const RELAY_PAGE: u16 = 256;
/// Operations that wait for a worker's next batch; one more is refused with `Busy`.
pub const WORKER_QUEUE: usize = 4_096;
/// Characters in one question about how their sessions stand.
pub const STANDING_CHARACTERS: usize = 256;
/// Results that the ledger and the owner keep for each character.
pub const RESULTS_KEPT: usize = 64;
/// Operations that a client sends before the first of them is acknowledged. Below [`RESULTS_KEPT`], so that no resend is
/// ever forgotten.
pub const CLIENT_WINDOW: usize = 8;
/// Sessions of one gateway.
pub const GATEWAY_SESSIONS: usize = 2_048;

/// The largest payload of a message on the bus, in bytes.
pub const BUS_PAYLOAD_BYTES: usize = 64 * 1024;
/// Messages that the bus's stream keeps; one more and the oldest goes.
pub const BUS_MESSAGES: u64 = 5_000_000;
/// Bytes that the bus's stream keeps, headers and framing counted; more and the oldest messages go.
pub const BUS_BYTES: u64 = 1024 * 1024 * 1024;
/// Messages of one consumer that are delivered and not acknowledged (JetStream's `max_ack_pending`).
pub const BUS_CREDITS: usize = 256;
/// Consumers of one node; one more is refused as `Busy`. All their credits are within [`WATCH_CREDITS`].
pub const BUS_CONSUMERS: usize = 2;
/// Fields of one hash in the cache.
pub const CACHE_FIELDS: usize = 64;
/// Names and values of one entry in the cache, in bytes.
pub const CACHE_ENTRY_BYTES: usize = 64 * 1024;
/// The widest search among those present, in millimetres: the farthest ring of an area of interest.
pub const CACHE_RADIUS_MM: u64 = 1_000_000;
/// Neighbours in one answer: twice the largest mesh, and some.
pub const CACHE_NEIGHBOURS: u16 = 128;
/// Workers whose load one answer tells.
pub const CACHE_LOADS: usize = 1_024;

/// Time to live of a lease.
pub const LEASE_TTL: Duration = Duration::from_secs(10);
/// What a holder keeps off its lease: clock drift and whatever passes between looking at the clock and the sink.
pub const LEASE_MARGIN: Duration = Duration::from_secs(2);
/// How often a lease is renewed.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(2);
/// How long a renewal may take before another is tried.
pub const RENEWAL_PATIENCE: Duration = Duration::from_millis(1_500);
/// How often an orchestrator looks for orphans.
pub const SCAN_PERIOD: Duration = Duration::from_secs(1);
/// How long a region may be without any worker before its entities go to another region. Its workers' leases have ended by then.
pub const REGION_GRACE: Duration = Duration::from_secs(3);
/// The same for a region that no worker has ever served: it may be starting, and what goes elsewhere does not come back by itself.
pub const REGION_START: Duration = Duration::from_secs(15);
/// A worker's tick: 60 Hz.
pub const TICK: Duration = Duration::from_nanos(16_666_667);
/// How often every served entity is checkpointed, and so passes the fence.
pub const CHECKPOINT_PERIOD: Duration = Duration::from_secs(5);
/// How long the directory may take.
pub const DIRECTORY_PATIENCE: Duration = Duration::from_secs(2);
/// How long a commit, a claim or a login may take before it is `Unknown`.
pub const LEDGER_PATIENCE: Duration = Duration::from_secs(2);
/// How long the cache may take before it is taken for a miss.
pub const CACHE_PATIENCE: Duration = Duration::from_millis(50);
/// How often a gateway asks the ledger how its sessions stand: a session whose token is revoked, or expires, ends within this
/// and [`LEDGER_PATIENCE`] while the ledger answers.
pub const STANDING_PERIOD: Duration = Duration::from_secs(5);
/// How long a session may act after the ledger was last asked and has said that it stands. A revoked one so ends within this,
/// whatever fails; longer than a failover of the ledger takes.
pub const SESSION_TRUST: Duration = Duration::from_secs(60);
/// How long session data lives in the cache.
pub const SESSION_TTL: Duration = Duration::from_secs(3_600);
/// How long a checkpoint lives in the cache.
pub const CACHED_CHECKPOINT_TTL: Duration = Duration::from_secs(3_600);
/// How long a worker's load lives in the cache.
pub const LOAD_TTL: Duration = Duration::from_secs(5);
/// How often a worker tells its load.
pub const LOAD_PERIOD: Duration = Duration::from_secs(1);
/// How long a peer is present that does not say so again.
pub const PRESENCE_TTL: Duration = Duration::from_secs(30);
/// How often the cache is told where a player is. Below [`PRESENCE_TTL`].
pub const PRESENCE_PERIOD: Duration = Duration::from_secs(10);
/// Violations of one kind, none a day after the one before, at which a player's session is closed: seconds of moving as no honest
/// client does.
pub const VIOLATIONS_MAX: i64 = 30;
/// How long a counter of violations lives after the last of them.
pub const VIOLATIONS_TTL: Duration = Duration::from_secs(24 * 3_600);
/// How long a call between servers may take.
pub const CALL_PATIENCE: Duration = Duration::from_secs(2);
/// The first wait before something is tried again; it doubles up to [`RETRY_MAX`], with jitter.
pub const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest wait before something is tried again.
pub const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long a message is kept on the bus: a reader that stays away longer reads the ledger.
pub const BUS_AGE: Duration = Duration::from_secs(72 * 3_600);
/// How long the bus recognises a message id that it has stored (JetStream's default `duplicate_window`).
pub const BUS_DEDUPLICATION: Duration = Duration::from_secs(120);
/// How long a delivered message may stay unacknowledged before it is delivered again.
pub const BUS_ACK_WAIT: Duration = Duration::from_secs(5);
/// How often a member of the bus syncs what it has stored (JetStream's default `sync_interval`).
pub const BUS_SYNC_PERIOD: Duration = Duration::from_secs(120);
/// How long a publish may take before it is `Unknown`.
pub const BUS_PATIENCE: Duration = Duration::from_secs(2);
/// How long flags of published facts wait for a batch that goes anyway. Below [`RELAY_AGE`].
pub const FLAG_WAIT: Duration = Duration::from_secs(1);
/// How often the relay sweeps the outbox.
pub const RELAY_PERIOD: Duration = Duration::from_secs(1);
/// How long the relay waits at most before it probes a bus that stores nothing.
pub const RELAY_RETRY_MAX: Duration = Duration::from_secs(4);
/// How long a fact may be unflagged before the relay publishes it.
pub const RELAY_AGE: Duration = Duration::from_secs(2);
