//! The kinds of faults: their words, their keys, how they end.

use super::{
    forms::{self, Drift, Moments, Named, OneOrMore, Share, SignedSpan, Span, Truth, Whole, Word},
    scenario::Outbox,
    select,
    services::{BusRequests, Moment, Requests},
    shape::{Ends::AtOnce, Ends::Later, Key, Table, Variant, Variants, table},
};

/// `[[fault]]`.
pub(super) static FAULT: Table =
    table!("`[[fault]]`", [&AT, &KIND, &FOR, &UNTIL], variants: &[&KINDS], rules: not_both_ends);
/// Every kind of fault, those of the services too.
pub(super) static KINDS: Variants = Variants(&[PROCESSES, OPERATOR, LEDGER, DIRECTORY, BUS, CACHE]);

pub(super) static AT: Key<Moments> = Key::required(
    "at",
    Moments,
    "When it comes: a moment such as `10s`, or a window such as `10s..14s` out of which each seed draws one. Before the end \
     of the fault phase.",
);
pub(super) static KIND: Key<Named> =
    Key::required("kind", Named { pattern: || "^[a-z-]+$".into() }, "What goes wrong.");
pub(super) static FOR: Key<Span> = Key::optional(
    "for",
    Span::ANY,
    "How long it lasts; without it, or `until`, to the end of the fault phase, and a dead node stays dead.",
);
pub(super) static UNTIL: Key<Span> = Key::optional("until", Span::ANY, "When it ends, by the run's clock.");

fn not_both_ends() -> Vec<serde_json::Value> {
    vec![serde_json::json!({ "not": { "required": ["for", "until"] } })]
}

const NODES: OneOrMore = OneOrMore(Named { pattern: select::pattern });
const ONE_NODE: Named = Named { pattern: select::pattern_of_one };

pub(super) static NODE: Key<OneOrMore> =
    Key::required("node", NODES, "Which nodes, such as `worker:frankfurt:0` or `owner-of:boss-1`: one, or a list.");
pub(super) static THE_NODE: Key<Named> = Key::required("node", ONE_NODE, "Which node.");
pub(super) static FROM: Key<OneOrMore> =
    Key::required("from", NODES, "One side of the links: a node, a group, or a list.");
pub(super) static TO: Key<OneOrMore> = Key::required("to", NODES, "The other side.");
pub(super) static ONE_WAY: Key<Truth> = Key::or("one_way", Truth, false, "Whether the way back stays as it was.");
pub(super) static CALLER: Key<Named> =
    Key::optional("from", ONE_NODE, "Whose requests; everybody's where it is left out.");
pub(super) static TIMES: Key<Whole<u32>> =
    Key::required("times", Whole { from: 2, to: 1_000, of: "a whole number" }, "How many times as slow everything is.");
pub(super) static DISK_TIMES: Key<Whole<u32>> = Key::required(
    "times",
    Whole { from: 2, to: 10_000, of: "a whole number" },
    "How many times as slow the disks are.",
);
pub(super) static AFTER: Key<Whole<u32>> = Key::required(
    "after",
    Whole { from: 0, to: 1_000_000, of: "a number of submissions" },
    "How many submissions still leave.",
);
/// Which submissions a fault waits for.
const SUBMISSIONS: &[(&str, Outbox)] = &[
    ("any", Outbox::Any),
    ("ledger-commit", Outbox::LedgerCommit),
    ("directory-transaction", Outbox::DirectoryTransaction),
];
pub(super) static WHICH_COUNT: Key<Word<Outbox>> =
    Key::or("which", Word { of: "submissions", words: SUBMISSIONS }, Outbox::Any, "Which submissions count.");
pub(super) static WHICH: Key<Word<Outbox>> =
    Key::required("which", Word { of: "an outbox", words: SUBMISSIONS }, "Which outbox is held.");
pub(super) static STEP: Key<Span> = Key::required("by", Span::ANY, "How far the clock jumps forward.");
pub(super) static WALL_STEP: Key<SignedSpan> =
    Key::required("by", SignedSpan, "How far the wall clock is set: `5s`, or back with `-5s`.");
pub(super) static RATE: Key<Drift> =
    Key::required("rate", Drift, "How fast the clock runs beside the true one, in parts a million.");
pub(super) static LOSS: Key<Share> = Key::or("loss", Share, 0, "The share of packets that are lost.");
pub(super) static DUPLICATE: Key<Share> = Key::or("duplicate", Share, 0, "The share of packets that come twice.");
pub(super) static DELAY: Key<Span> = Key::optional("delay", Span::ms(0, 60_000), "Added to every packet.");
pub(super) static JITTER: Key<Span> =
    Key::optional("jitter", Span::ms(0, 60_000), "Added to every packet, at most; drawn for each.");
pub(super) static SHARE: Key<Share> = Key::required("share", Share, "How often.");
pub(super) static COUNT: Key<Whole<u32>> =
    Key::optional("count", Whole { from: 1, to: 1_000_000, of: "a number of answers" }, "At most so many.");
pub(super) static WHEN: Key<Word<Moment>> = Key::required(
    "when",
    Word {
        of: "a moment of a commit",
        words: &[("before", Moment::Before), ("during", Moment::During), ("after", Moment::After)],
    },
    "When, seen from the commit, its connection breaks.",
);
pub(super) static BY: Key<Span> = Key::required("by", Span::ms(1, 600_000), "How much later.");
pub(super) static SERIALIZATION: Key<Share> =
    Key::or("serialization", Share, 0, "The share of transactions that fail as serialization failures.");
pub(super) static DEADLOCK: Key<Share> =
    Key::or("deadlock", Share, 0, "The share of transactions that fail as victims of a deadlock.");
pub(super) static OF: Key<Word<Requests>> = Key::or(
    "of",
    Word {
        of: "a kind of request",
        words: &[
            ("all", Requests::All),
            ("grants", Requests::Grants),
            ("renewals", Requests::Renewals),
            ("transactions", Requests::Transactions),
        ],
    },
    Requests::All,
    "To which requests.",
);
pub(super) static AGE: Key<Span> = Key::required("age", Span::ms(1, 600_000), "How old the backup is.");

pub(super) static OF_BUS: Key<Word<BusRequests>> = Key::or(
    "of",
    Word {
        of: "a kind of request",
        words: &[
            ("all", BusRequests::All),
            ("publishes", BusRequests::Publishes),
            ("acknowledgements", BusRequests::Acknowledgements),
        ],
    },
    BusRequests::All,
    "To which requests.",
);
pub(super) static BACK: Key<Whole<u32>> =
    Key::required("messages", Whole { from: 1, to: 1_000_000, of: "a number of messages" }, "By how many messages.");
const A_REGION: Named = Named { pattern: || format!("^{}$", forms::NAME) };
pub(super) static CACHE_OF: Key<Named> =
    Key::optional("region", A_REGION, "Which region's cache; those of all where it is left out.");
pub(super) static THE_CACHE_OF: Key<Named> = Key::required("region", A_REGION, "Which region's cache.");

/// The keys that say how a fault ends.
pub(super) const ENDS: [&str; 2] = ["for", "until"];

macro_rules! kind {
    ($name:literal, [$($key:expr),*], $ends:expr, $about:literal $(,)?) => {
        Variant { name: $name, keys: &[$($key),*], ends: $ends, about: $about }
    };
}

pub(super) static PLAYERS: Key<OneOrMore> = Key::required(
    "player",
    OneOrMore(Named { pattern: || "^player:[1-9][0-9]*$".into() }),
    "Whose, such as `player:3`: one, or a list.",
);

/// What an operator does, beside what goes wrong.
const OPERATOR: &[Variant] = &[kind!(
    "revoke-tokens",
    [&PLAYERS],
    AtOnce,
    "An operator revokes every token of these players' characters that was issued before."
)];

const PROCESSES: &[Variant] = &[
    kind!("crash", [&NODE], Later, "Power loss: the peers hear nothing. Restarted at its end."),
    kind!("kill", [&NODE], Later, "The process dies, and the peers are told at once. Restarted at its end."),
    kind!(
        "stop",
        [&NODE],
        Later,
        "SIGTERM: the process stops in order, when it is ready to. Started again at its end."
    ),
    kind!("restart", [&NODE], AtOnce, "The process is replaced by a new one at once."),
    kind!("pause", [&NODE], Later, "SIGSTOP; the clocks go on."),
    kind!("slow", [&NODE, &TIMES], Later, "Everything that the node does takes longer."),
    kind!("crash-between-submissions", [&NODE, &AFTER, &WHICH_COUNT], Later, "Dies in the middle of an event."),
    kind!("hold-outbox", [&NODE, &WHICH], Later, "Stops between outbox and socket, holding what it was about to send."),
    kind!("clock-step", [&NODE, &STEP], AtOnce, "The monotonic clock jumps forward."),
    kind!("clock-drift", [&NODE, &RATE], Later, "The monotonic clock runs fast or slow."),
    kind!("clock-freeze", [&NODE], Later, "The monotonic clock stands still."),
    kind!("wall-step", [&NODE, &WALL_STEP], AtOnce, "The wall clock is set."),
    kind!("cut", [&FROM, &TO, &ONE_WAY], Later, "Nothing gets from the one side to the other."),
    kind!(
        "degrade",
        [&FROM, &TO, &ONE_WAY, &LOSS, &DUPLICATE, &DELAY, &JITTER],
        Later,
        "Packets come late, twice, or not at all.",
    ),
];

const LEDGER: &[Variant] = &[
    kind!(
        "ledger-lose-answers",
        [&SHARE, &CALLER, &COUNT],
        Later,
        "Statements commit, and their answers are swallowed."
    ),
    kind!("ledger-lose-connections", [&SHARE, &WHEN], Later, "Connections to the ledger break."),
    kind!("ledger-delay-commits", [&BY, &CALLER], Later, "Commits wait at the ledger and execute only later."),
    kind!("ledger-conflicts", [&SERIALIZATION, &DEADLOCK], Later, "Transactions are rolled back because of others."),
    kind!("ledger-slow-disk", [&DISK_TIMES], Later, "Every disk of the ledger is slow."),
    kind!("ledger-disks-lie", [], Later, "The ledger's disks say that they have synced and have not."),
    kind!("ledger-read-only", [], Later, "The primary refuses writes."),
    kind!("ledger-disk-full", [], Later, "The primary's disk is full."),
    kind!("ledger-switchover", [], AtOnce, "A planned change of the primary."),
];

const DIRECTORY: &[Variant] = &[
    kind!("directory-leader-change", [], AtOnce, "The directory's leader leads no longer; an election follows."),
    kind!(
        "directory-lose-answers",
        [&SHARE, &CALLER, &OF],
        Later,
        "Requests are executed, and their answers swallowed."
    ),
    kind!(
        "directory-delay-requests",
        [&BY, &CALLER],
        Later,
        "Requests are looked at later, even when their caller gave up."
    ),
    kind!("directory-delay-news", [&BY], Later, "News of watches arrive later."),
    kind!("directory-revoke-early", [&THE_NODE], AtOnce, "The node's lease is revoked although it has not expired."),
    kind!("directory-cancel-watches", [], AtOnce, "Every watch is cancelled."),
    kind!("directory-compact", [], AtOnce, "The past is compacted away."),
    kind!("directory-full", [], Later, "The database is over its quota."),
    kind!("directory-restore-backup", [&AGE], AtOnce, "The cluster is restored from a backup."),
    kind!("directory-slow-disk", [&DISK_TIMES], Later, "Every disk of the directory is slow."),
    kind!("directory-disks-lie", [], Later, "The directory's disks say that they have synced and have not."),
];

const BUS: &[Variant] = &[
    kind!("bus-leader-change", [], AtOnce, "The stream's leader leads no longer; an election follows."),
    kind!(
        "bus-lose-answers",
        [&SHARE, &CALLER, &OF_BUS],
        Later,
        "Requests are executed and their answers swallowed: a publish is stored, and its publisher told nothing."
    ),
    kind!("bus-lose-requests", [&SHARE, &CALLER, &OF_BUS], Later, "Requests are swallowed."),
    kind!("bus-delay-deliveries", [&BY], Later, "What consumers deliver arrives later."),
    kind!("bus-disconnect", [&CALLER], AtOnce, "Connections end, as of one who reads too slowly."),
    kind!("bus-rewind", [&BACK], AtOnce, "Every consumer is set back."),
    kind!("bus-end-consumers", [], AtOnce, "Every consumer is deleted, durable ones too."),
    kind!("bus-forget-ids", [], AtOnce, "No message id is recognised any more, as if the time of all had passed."),
    kind!("bus-purge", [], AtOnce, "Everything that is stored is discarded."),
    kind!("bus-full", [], Later, "The storage is full: nothing new is stored."),
];

const CACHE: &[Variant] = &[
    kind!("cache-flush", [&CACHE_OF], AtOnce, "Everything is gone, at the followers too."),
    kind!("cache-evict", [&SHARE, &CACHE_OF], AtOnce, "Entries are evicted, the least recently used first."),
    kind!("cache-wrong-types", [&SHARE, &CACHE_OF], AtOnce, "Entries are replaced by something of another type."),
    kind!("cache-failover", [&THE_CACHE_OF], AtOnce, "A follower is promoted, whatever it has not yet received."),
    kind!("cache-delay-replication", [&BY], Later, "Followers are told of changes only later."),
    kind!("cache-delay-requests", [&BY, &CALLER], Later, "Servers come to each request only later."),
    kind!("cache-lose-answers", [&SHARE, &CALLER], Later, "Requests are executed, and their answers swallowed."),
];
