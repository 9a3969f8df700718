//! What an operator runs and reads: `migrate`, `token`, `who-owns`.

use super::Exit;
use crate::{
    clock,
    config::{self, Layers, Problem, Problems, Sink, decode, problem::Origin},
    directory::{self, Owner},
    ledger,
};
use clap::{Arg, ArgMatches};
use serde_json::json;
use std::{path::PathBuf, pin::Pin};
use worldline_proto::{CharacterId, EntityId, Epoch, LeaseId, token::Claims};

/// How long what is left of a runtime may take to end.
const RUNTIME_PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// Runs a future on a runtime of its own.
pub(super) fn within(threads: usize, future: Pin<Box<dyn Future<Output = Exit> + '_>>) -> Exit {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(future);
            runtime.shutdown_timeout(RUNTIME_PATIENCE);
            exit
        }
        Err(error) => {
            eprintln!("the system has no threads to give: {error}");
            Exit::Internal
        }
    }
}

/// `worldlined migrate`.
pub(super) fn migrate(layers: &Layers, matches: &ArgMatches, mut sink: Sink) -> Result<Exit, Problems> {
    let url = layers.required("ledger", &mut sink, decode::ledger);
    let world = match matches.get_flag("seed") {
        true => config::world_of(layers, &mut sink).map(Some),
        false => Some(None),
    };
    let (url, world) = sink.into_result(url.zip(world))?;
    let check = matches.get_flag("check");
    let work = async {
        if check {
            ledger::check(&url).await?;
            tell!("the ledger's schema is this program's");
            return Ok(());
        }
        let report = ledger::migrate(&url).await?;
        match report.applied.as_slice() {
            [] => tell!("the ledger's schema was version {} already", report.version),
            applied => tell!("the ledger's schema is version {} now; applied {applied:?}", report.version),
        }
        if let Some(world) = world {
            let created = ledger::seed(&url, &world.seeds).await?;
            tell!("of the world's {} entities, {created} are new in the ledger", world.seeds.len());
        }
        Ok(())
    };
    Ok(within(
        1,
        Box::pin(async {
            match work.await {
                Ok(()) => Exit::Done,
                Err(problem) => refused(&problem),
            }
        }),
    ))
}

pub(super) fn refused(problem: &ledger::Problem) -> Exit {
    eprintln!("{problem}");
    if problem.is_schema() { Exit::Schema } else { Exit::Unavailable }
}

pub(super) fn token_command() -> clap::Command {
    clap::Command::new("token")
        .about("Makes a session token: who bears it may play the character until it expires or is revoked")
        .after_help(
            "\
The key is a file with 64 hexadecimal digits, the same for every gateway (`token_key`). Whoever has it can play
everybody: keep it. One is made by `openssl rand -hex 32 > token.key`.

Example: worldlined token --character 1 --ttl 1h --key token.key",
        )
        .arg(
            Arg::new("character")
                .long("character")
                .value_name("N")
                .required(true)
                .help("The character's number")
                .value_parser(character),
        )
        .arg(
            Arg::new("ttl")
                .long("ttl")
                .value_name("DURATION")
                .default_value("1h")
                .help("How long it is valid, such as 30m, 1h")
                .value_parser(ttl),
        )
        .arg(
            Arg::new("key")
                .long("key")
                .value_name("FILE")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("The key that the gateways know"),
        )
}

fn character(text: &str) -> Result<CharacterId, String> {
    let number = text.strip_prefix("character-").unwrap_or(text).parse().ok();
    number.and_then(CharacterId::new).ok_or_else(|| format!("expected a number from 0 to {}", EntityId::NUMBER_MAX))
}

fn ttl(text: &str) -> Result<std::time::Duration, String> {
    decode::duration_of(text).map(clock::span).ok_or_else(|| "expected a duration such as `30m` or `1h`".into())
}

/// `worldlined token`.
pub(super) fn token(matches: &ArgMatches) -> Exit {
    let character = *matches.get_one::<CharacterId>("character").expect("clap requires it");
    let ttl = *matches.get_one::<std::time::Duration>("ttl").expect("it has a default");
    let path = matches.get_one::<PathBuf>("key").expect("clap requires it");
    match decode::token_key_file(path) {
        Ok(key) => {
            let now_ms = clock::unix_now().as_nanos() / 1_000_000;
            let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            let expires_unix_ms = now_ms.saturating_add(ttl_ms);
            let token = key.sign(Claims { character, issued_unix_ms: now_ms, expires_unix_ms });
            tell!("{}", token.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            Exit::Done
        }
        Err(found) => {
            let found = format!("{found} at `{}`", path.display());
            let expected = "a file with the token key: 64 hexadecimal digits (`openssl rand -hex 32` makes one)";
            eprintln!("{}", Problem::new(&Origin::Flag("--key".into()), found, expected));
            Exit::Usage
        }
    }
}

/// `worldlined who-owns`.
pub(super) fn who_owns(layers: &Layers, matches: &ArgMatches, mut sink: Sink) -> Result<Exit, Problems> {
    let text = matches.get_one::<String>("entity").expect("clap requires it");
    let entity = text.parse::<EntityId>().ok().or_else(|| {
        let expected = "an entity's name, such as `boss-1`, `character-7` or `npc-3`";
        sink.report(Problem::new(&Origin::Flag("ENTITY".into()), format!("`{text}`"), expected))
    });
    let directory = config::members(layers, &mut sink);
    let ledger = layers.optional("ledger", &mut sink, |given, sink| Some(decode::ledger(given, sink)));
    let world = layers.get("world").is_some().then(|| config::world_of(layers, &mut sink)).flatten();
    let (entity, directory) = sink.into_result(entity.zip(directory))?;
    let json = matches.get_flag("json");
    let asking = async move {
        let owner = match directory::who_owns(directory, entity).await {
            Ok(owner) => owner,
            Err(error) => {
                eprintln!("{error}");
                return Exit::Unavailable;
            }
        };
        let fence = match ledger.flatten() {
            Some(url) => match ledger::row(&url, entity).await {
                Ok(row) => Some(row.map(|row| row.fence)),
                Err(problem) => return refused(&problem),
            },
            None => None,
        };
        let told =
            Told { entity, owner, fence, region: |region| world.as_ref().map(|world| world.name(region).to_owned()) };
        if json {
            told.print_json()
        } else {
            told.print()
        }
        if told.owner.record.is_some() && told.owner.worker.is_some() { Exit::Done } else { Exit::No }
    };
    Ok(within(1, Box::pin(asking)))
}

/// The fence of an entity: its epoch and lease, if it was ever raised.
type Fence = Option<(Epoch, LeaseId)>;

struct Told<F> {
    entity: EntityId,
    owner: Owner,
    /// What the ledger has, if it was asked: nothing for an entity that it does not know.
    fence: Option<Option<Fence>>,
    /// The name of a region, where the world is known.
    region: F,
}

impl<F: Fn(worldline_system::doors::directory::RegionId) -> Option<String>> Told<F> {
    fn print(&self) {
        let Self { entity, owner, .. } = self;
        match owner.record {
            None => tell!("{entity}: nobody owns it (the directory has no record of it)"),
            Some((record, revision)) => {
                tell!("{entity}: lease {} since epoch {} (revision {revision})", record.lease, record.epoch);
                match owner.worker {
                    Some(worker) => {
                        let region =
                            (self.region)(worker.region).unwrap_or_else(|| format!("region {}", worker.region.0));
                        tell!("  owner: node {} in {region}; its lease stands", worker.node.0);
                    }
                    None => tell!("  owner: gone (its lease has ended); an orchestrator will assign another"),
                }
            }
        }
        match self.fence {
            None => {}
            Some(None) => tell!("  ledger: knows no such entity"),
            Some(Some(None)) => tell!("  ledger: its fence was never raised"),
            Some(Some(Some((epoch, lease)))) => {
                tell!("  ledger: fence at epoch {epoch} of lease {lease}: {}", self.agreement());
            }
        }
    }

    /// How the record and the fence stand to each other.
    fn agreement(&self) -> &'static str {
        let Some(Some(Some((epoch, lease)))) = self.fence else { return "unknown" };
        match self.owner.record {
            Some((record, _)) if (record.epoch, record.lease) == (epoch, lease) => "they agree",
            // A takeover keeps the epoch in the record until the new owner has claimed.
            Some((record, _)) if epoch <= record.epoch => "they differ: the owner has not passed the fence yet",
            Some(_) => "they differ: the record is older than the fence (was etcd restored?); a claim will go higher",
            None => "they differ: the directory has no record; an orchestrator will assign an owner",
        }
    }

    fn print_json(&self) {
        let record = self.owner.record.map(|(record, revision)| {
            json!({ "lease": record.lease.to_string(), "epoch": record.epoch.0, "revision": revision.0 })
        });
        let worker = self.owner.worker.map(|worker| {
            json!({ "node": worker.node.0, "region": worker.region.0, "region_name": (self.region)(worker.region) })
        });
        let fence = self.fence.map(|row| match row {
            None => json!("no such entity"),
            Some(None) => json!("never raised"),
            Some(Some((epoch, lease))) => json!({ "epoch": epoch.0, "lease": lease.to_string() }),
        });
        let agree = self.fence.map(|_| self.agreement() == "they agree");
        tell!(
            "{}",
            json!({ "entity": self.entity.to_string(), "record": record, "owner": worker, "fence": fence, "agree": agree })
        );
    }
}
