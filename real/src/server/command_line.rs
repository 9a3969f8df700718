//! What may be said to `worldlined`, made of the table of settings.

use super::{Exit, authority, logs, near, operator, revoke, role};
use crate::{
    bot,
    config::{self, Command, Layers, Problems, Sink, keys},
};
use clap::{Arg, ArgAction, ArgMatches, error::ErrorKind};
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

const CONFIG: &str = "config";
const CONFIGURATION: &str = "\
Every option is a setting. It can stand in the file (--config), in a variable (WORLDLINE_LEASE_TTL for --lease-ttl) or
here; what stands here wins over a variable, and that over the file. In the file `--lease-ttl` is `ttl` of the table
`[lease]`, other hyphens are underscores, and paths are taken from where the file stands. One file may serve every
process of a world.";
const EXIT_CODES: &str = "\
Exit codes: 0 as it should; 1 the answer is no; 64 wrong usage or configuration; 69 an address cannot be had;
70 something broke inside; 78 the ledger has another schema.";

/// Runs `worldlined`.
pub fn main(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Exit {
    let matches = match root().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // Where the reader has gone there is nobody to tell.
            drop(error.print());
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { Exit::Done } else { Exit::Usage };
        }
    };
    let Some((name, matches)) = matches.subcommand() else { return Exit::Usage };
    let run = match name {
        "cert" => return authority::cert(matches),
        "token" => return operator::token(matches),
        "gateway" => Command::Gateway,
        "worker" => Command::Worker,
        "orchestrator" => Command::Orchestrator,
        "replica" => Command::Replica,
        "bot" => Command::Bot,
        "migrate" => Command::Migrate,
        "revoke" => Command::Revoke,
        "near" => Command::Near,
        _ => Command::WhoOwns,
    };
    match configured(run, matches, variables) {
        Ok(exit) => exit,
        Err(problems) => {
            eprint!("{problems}");
            Exit::Usage
        }
    }
}

fn configured(
    command: Command,
    matches: &ArgMatches,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Exit, Problems> {
    let config = matches.get_one::<PathBuf>(CONFIG).map(PathBuf::as_path);
    let flags: BTreeMap<_, _> =
        keys::of(command).filter_map(|key| Some((key.name, matches.get_one::<String>(key.name)?.clone()))).collect();
    let mut sink = Sink::default();
    let layers = Layers::read(command, config, &flags, variables, &mut sink);
    Ok(match command {
        Command::Gateway | Command::Worker | Command::Orchestrator | Command::Replica => {
            let config = config::server(command, &layers, sink)?;
            let region = config.region().map(|region| config.world.name(region).to_owned());
            let _log = logs::start(&config.process.log, schema(&config.process, region));
            operator::within(config.process.threads, Box::pin(role::run(command, config)))
        }
        Command::Bot => {
            let json = matches.get_flag("json");
            let config = config::bot(&layers, sink)?;
            let _log = logs::start(&config.process.log, schema(&config.process, None));
            operator::within(config.process.threads, Box::pin(bot::run(config, json)))
        }
        Command::Migrate => operator::migrate(&layers, matches, sink)?,
        Command::WhoOwns => operator::who_owns(&layers, matches, sink)?,
        Command::Revoke => revoke::revoke(&layers, matches, sink)?,
        Command::Near => near::near(&layers, matches, sink)?,
    })
}

/// How the lines of a process's log are written.
fn schema(process: &config::Process, region: Option<String>) -> logs::Schema {
    let (service, redaction) = (process.name.clone(), process.redaction.clone());
    logs::Schema { service, region, redaction, terminal: false }
}

fn root() -> clap::Command {
    clap::Command::new("worldlined")
        .version(super::REVISION)
        .about("Worldline on real services: one binary, a subcommand a role")
        .after_help(EXIT_CODES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            configurable(
                Command::Gateway,
                "Where players come in: checks tokens, finds owners, passes inputs and answers",
            ),
            configurable(Command::Worker, "Owns entities: validates what players do and commits it to the ledger"),
            configurable(Command::Orchestrator, "Assigns entities to workers; of several, one leads"),
            configurable(
                Command::Replica,
                "A region's copy of what the whole world shares: fed by the bus, shown to the gateways that name it",
            ),
            configurable(
                Command::Bot,
                "Plays: one player, or many from a file's [[player]] tables; prints what became of it",
            )
            .arg(flag("json", "Print the summary in JSON")),
            configurable(Command::Migrate, "Brings the ledger's schema to this program's version; may be repeated")
                .arg(flag("check", "Change nothing; say whether the schema is right (exit code 78: it is not)"))
                .arg(flag("seed", "Also create the world file's entities that the ledger does not have yet")),
            authority::command(),
            operator::token_command(),
            configurable(Command::Revoke, "Revokes the tokens of a character and ends its session; may be repeated")
                .args(revoke::arguments())
                .arg(flag("json", "Print it in JSON")),
            configurable(Command::Near, "Who plays near a place, as the region's cache knows it: at most 10 s old")
                .args(near::arguments())
                .arg(flag("json", "Print it in JSON")),
            configurable(
                Command::WhoOwns,
                "Who owns an entity: its record, its owner, and with --ledger whether its fence agrees",
            )
            .arg(Arg::new("entity").required(true).value_name("ENTITY").help("Such as boss-1, character-7 or npc-3"))
            .arg(flag("json", "Print it in JSON")),
        ])
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// A subcommand whose options are its settings.
fn configurable(command: Command, about: &'static str) -> clap::Command {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("The configuration file, TOML [variable: WORLDLINE_CONFIG]");
    let option = |key: &'static keys::Key| {
        let aliases: &[&str] = if key.name == "peers" && command == Command::Bot { &["gateway"] } else { &[] };
        let help = match aliases {
            [] => key.help.to_owned(),
            _ => "The gateways and where they listen: `7=127.0.0.1:7001` [also: --gateway]".to_owned(),
        };
        Arg::new(key.name)
            .long(key.flag())
            .aliases(aliases.iter().copied())
            .value_name(key.value)
            .allow_hyphen_values(true)
            .help(help)
    };
    clap::Command::new(super::name_of(command))
        .about(about)
        .after_help(CONFIGURATION)
        .arg(config)
        .args(keys::of(command).map(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_setting_has_one_flag_and_one_variable() {
        root().debug_assert();
        let mut variables: Vec<_> = keys::KEYS.iter().map(keys::Key::variable).collect();
        variables.sort();
        let count = variables.len();
        variables.dedup();
        assert_eq!(variables.len(), count);
        assert!(keys::OF_PLAYERS.iter().all(|name| keys::find(name).is_some_and(|key| key.of.contains(&Command::Bot))));
    }
}
