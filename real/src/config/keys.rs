//! Every setting: its name, who takes it, what it is. The command line, the reading of files and variables, and the help
//! are made of this one table.

use std::fmt;

/// A subcommand that takes settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Where players come in.
    Gateway,
    /// Owns entities.
    Worker,
    /// Assigns owners.
    Orchestrator,
    /// Shows a region's gateways what the whole world shares.
    Replica,
    /// Plays.
    Bot,
    /// Makes the ledger's schema.
    Migrate,
    /// Tells who owns an entity.
    WhoOwns,
    /// Revokes the tokens of a character.
    Revoke,
    /// Tells who plays near a place.
    Near,
}

use Command::{Bot, Gateway, Migrate, Near, Orchestrator, Replica, Revoke, WhoOwns, Worker};

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Worker => "worker",
            Self::Orchestrator => "orchestrator",
            Self::Replica => "replica",
            Self::Bot => "bot",
            Self::Migrate => "migrate",
            Self::WhoOwns => "who-owns",
            Self::Revoke => "revoke",
            Self::Near => "near",
        })
    }
}

/// How the text of a flag or a variable is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Not at all.
    One,
    /// At commas.
    List,
    /// At commas, and each part at its `=`.
    Pairs,
}

/// A setting.
#[derive(Debug)]
pub struct Key {
    /// As a file writes it: `lease.ttl`.
    pub name: &'static str,
    /// How a flag or a variable says several.
    pub shape: Shape,
    /// What stands for its value in the help.
    pub value: &'static str,
    /// Who takes it.
    pub of: &'static [Command],
    /// What it is, in a line.
    pub help: &'static str,
}

impl Key {
    /// `--lease-ttl`, without the hyphens in front.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// `WORLDLINE_LEASE_TTL`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLES}{}", self.name.replace('.', "_").to_uppercase())
    }
}

/// What every variable of the configuration begins with.
pub const VARIABLES: &str = "WORLDLINE_";
/// Variables of the tests, which no process reads.
pub const TEST_VARIABLES: &str = "WORLDLINE_TEST_";
/// The variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "WORLDLINE_CONFIG";
/// The list of players in a bot's file. It has no flag: `players` and the settings of one player have.
pub const PLAYER_LIST: &str = "player";

const SERVERS: &[Command] = &[Gateway, Worker, Orchestrator, Replica];
const HOSTS: &[Command] = &[Gateway, Worker, Orchestrator, Replica, Bot];
const NETWORKED: &[Command] = &[Gateway, Worker, Replica];
const OF_A_REGION: &[Command] = &[Gateway, Worker, Near];
const CACHED: &[Command] = &[Gateway, Worker, Orchestrator, Near];

/// Every setting, in the order of the help.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("node", "ID", HOSTS, "The node's id: a whole number, its own in the world [bot: its first player's; default: 1000000]"),
    key("name", "NAME", HOSTS, "How logs and /health call this process [default: role and id, as `worker-n7`]"),
    key("region", "NAME", OF_A_REGION, "The region that it serves or asks about: one of the world file's"),
    key("world", "FILE", &[Gateway, Worker, Orchestrator, Replica, Migrate, WhoOwns, Near], "The world file: regions in order, bosses. The same for every process of a world"),
    key("listen", "IP:PORT", NETWORKED, "Where it listens: QUIC on UDP and gRPC on TCP of the same port"),
    key("http", "IP:PORT", HOSTS, "Where /health, /ready and /metrics answer [default: nowhere]"),
    pairs("peers", "ID=HOST:PORT,..", &[Gateway, Worker, Bot], "Where each other node listens. In a file: a table `[peers]`"),
    list("alternates", "ID,..", &[Gateway], "Gateways that its players may turn to when it is gone, the last one in another region"),
    list("replica", "ID,..", &[Gateway], "The replicas of its region, one or several: its players see through them what the whole world shares [default: none]"),
    list("directory", "URL,..", &[Gateway, Worker, Orchestrator, WhoOwns], "The members of etcd, as `http://127.0.0.1:2379`"),
    key("ledger", "URL", &[Gateway, Worker, Orchestrator, Replica, Migrate, WhoOwns, Revoke], "PostgreSQL, as `postgres://worldline@127.0.0.1:5432/worldline`; a password is best left to PGPASSWORD"),
    list("bus", "URL,..", &[Worker, Orchestrator, Replica], "NATS 2.10 or newer with JetStream, as `nats://127.0.0.1:4222` [default: none: facts stay in the ledger, where replicas look every 5s]"),
    list("cache", "URL,..", CACHED, "The region's cache, any Redis-protocol server, as `redis://127.0.0.1:6379`; the primary of several is found; an orchestrator only measures its servers [default: none, which costs time only]"),
    key("tls.ca", "FILE", &[Gateway, Worker, Replica, Bot], "The certificate of the world's CA, PEM"),
    key("tls.certificate", "FILE", NETWORKED, "This node's certificate, PEM"),
    key("tls.key", "FILE", NETWORKED, "The private key of that certificate, PEM"),
    key("token_key", "FILE", &[Gateway, Bot], "The key of session tokens: 64 hexadecimal digits. With it a bot makes its own tokens"),
    key("lease.ttl", "DURATION", &[Worker, Orchestrator], "A lease's time to live, in whole seconds [default: 10s]"),
    key("lease.margin", "DURATION", &[Worker, Orchestrator], "What its holder keeps off it [default: 2s]"),
    key("lease.renewal", "DURATION", &[Worker, Orchestrator], "How often it is renewed; shorter than ttl less margin [default: 2s]"),
    key("knobs.scan_every", "DURATION", &[Orchestrator], "How often it looks for entities without a living owner [default: 1s]"),
    key("knobs.checkpoint_every", "DURATION", &[Worker], "How often every served entity is checkpointed [default: 5s]"),
    key("knobs.renewal_patience", "DURATION", &[Worker, Orchestrator], "How long a renewal of the lease may take before another is tried [default: 1500ms]"),
    key("knobs.retry_first", "DURATION", HOSTS, "The first wait before something is tried again; it doubles, with jitter [default: 100ms]"),
    key("knobs.retry_longest", "DURATION", HOSTS, "The longest such wait [default: 2s]"),
    key("history", "FOLDER", HOSTS, "Where the typed history is written, a file a life [default: nowhere]"),
    key("log", "LEVEL", HOSTS, "off, error, warn, info, debug, trace; or `info,worldline_real=debug` [default: info]"),
    key("telemetry.otlp", "URL", HOSTS, "A collector that takes traces by OTLP over HTTP, as `http://127.0.0.1:4318` [default: none]"),
    key("telemetry.file", "FILE", HOSTS, "A file that traces are appended to, a line of OTLP in JSON a batch [default: none]"),
    key("telemetry.key", "FILE", HOSTS, "The key by which logs and traces know characters and name traces: 64 hexadecimal digits, the same for every process [default: drawn at the start]"),
    key("stop_patience", "DURATION", SERVERS, "How long an orderly stop may take before the process gives up with exit code 70 [default: 15s]"),
    key("threads", "N", HOSTS, "Threads of the adapters [default: 2]"),
    list("gateways", "ID,..", &[Bot], "Gateways that a player turns to, nearest first [default: all peers]"),
    key("character", "N", &[Bot], "The character that the (first) player plays"),
    key("players", "N", &[Bot], "So many players, with characters that count up from `character` [default: 1]"),
    key("token", "HEX", &[Bot], "The player's session token, of `worldlined token`. Best in WORLDLINE_TOKEN: others can read flags"),
    key("start", "DURATION", &[Bot], "When a player comes [default: 0s]"),
    key("stop", "DURATION", &[Bot], "When a player begins nothing new any more; it finishes what it has begun [default: never]"),
    key("moves_every", "DURATION", &[Bot], "How often a player walks; `0s` is never [default: 50ms]"),
    key("attacks_every", "DURATION", &[Bot], "How often a player strikes; `0s` is never [default: 1s]"),
    key("target", "ENTITY", &[Bot], "Whom a player strikes [default: nobody]"),
    key("conduct", "WORD", &[Bot], "How a player behaves: honest, speed-hack, reuses-numbers [default: honest]"),
    key("grace", "DURATION", &[Bot], "How long after the last `stop` answers may still come [default: 30s]"),
];

/// Those that a `[[player]]` of a bot's file may have too.
pub const OF_PLAYERS: &[&str] =
    &["node", "character", "token", "gateways", "start", "stop", "moves_every", "attacks_every", "target", "conduct"];

const fn key(name: &'static str, value: &'static str, of: &'static [Command], help: &'static str) -> Key {
    Key { name, shape: Shape::One, value, of, help }
}

const fn list(name: &'static str, value: &'static str, of: &'static [Command], help: &'static str) -> Key {
    Key { name, shape: Shape::List, value, of, help }
}

const fn pairs(name: &'static str, value: &'static str, of: &'static [Command], help: &'static str) -> Key {
    Key { name, shape: Shape::Pairs, value, of, help }
}

/// The setting of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The settings that a command takes.
pub fn of(command: Command) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.of.contains(&command))
}
