//! `worldlined cert`: a development CA and the certificates of its nodes, by one command.

use super::Exit;
use crate::config::decode::NODE_MAX;
use crate::network::tls::{Authority, AuthorityError, CERTIFICATE_DAYS, Holder};
use clap::{Arg, ArgAction, ArgMatches};
use std::path::{Path, PathBuf};
use worldline_proto::NodeId;

const ABOUT: &str = "Makes a development CA and certificates of nodes";
const HELP: &str = "\
Writes ca.pem and ca.key into the folder, unless they are there already, and then for each node n7.pem and n7.key.
Give every process ca.pem (`tls.ca`) and its own pair (`tls.certificate`, `tls.key`); a bot needs only ca.pem.
ca.key makes certificates: keep it.

Example: worldlined cert --out certs --node 1 --node 2 --node 7 --host localhost --host 127.0.0.1";

pub(super) fn command() -> clap::Command {
    clap::Command::new("cert")
        .about(ABOUT)
        .after_help(HELP)
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("FOLDER")
                .required(true)
                .value_parser(clap::value_parser!(PathBuf))
                .help("Where the files are written; its CA is used again"),
        )
        .arg(
            Arg::new("node")
                .long("node")
                .value_name("ID")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .value_parser(node)
                .help("A node that gets a certificate; may be repeated"),
        )
        .arg(
            Arg::new("host")
                .long("host")
                .value_name("NAME")
                .action(ArgAction::Append)
                .value_delimiter(',')
                .help("A host name or an address by which others reach the nodes; may be repeated"),
        )
        .arg(
            Arg::new("renew")
                .long("renew")
                .action(ArgAction::SetTrue)
                .help("Make a node's certificate anew where it has one"),
        )
}

fn node(text: &str) -> Result<u32, String> {
    let node = text.parse().ok().filter(|node| *node <= NODE_MAX);
    node.ok_or_else(|| format!("expected a node's id, a whole number from 0 to {NODE_MAX}"))
}

pub(super) fn cert(matches: &ArgMatches) -> Exit {
    let folder = matches.get_one::<PathBuf>("out").expect("clap requires it");
    let nodes: Vec<_> = matches.get_many::<u32>("node").into_iter().flatten().copied().map(NodeId).collect();
    let hosts: Vec<_> = matches.get_many::<String>("host").into_iter().flatten().cloned().collect();
    match make(folder, &nodes, &hosts, matches.get_flag("renew")) {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("{error}");
            Exit::Usage
        }
    }
}

fn make(folder: &Path, nodes: &[NodeId], hosts: &[String], renew: bool) -> Result<(), AuthorityError> {
    // Looked at before anything is written.
    Authority::may_certify(hosts)?;
    let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
    let authority = if certificate.exists() || key.exists() {
        let authority = Authority::load(&certificate, &key)?;
        tell!("{}: the CA that was there", certificate.display());
        authority
    } else {
        let authority = Authority::create()?;
        authority.save(folder)?;
        tell!("{}: a new CA", certificate.display());
        authority
    };
    for node in nodes {
        let pair = ["pem", "key"].map(|extension| folder.join(format!("{node}.{extension}")));
        if pair.iter().all(|path| path.exists()) && !renew {
            tell!("{}: was there already (--renew makes it anew)", pair[0].display());
            continue;
        }
        // Made before the old one is taken away: a name that cannot be certified must not cost a certificate.
        let issued = authority.issue(&Holder::Node(*node), hosts)?;
        for path in pair.iter().filter(|path| path.exists()) {
            std::fs::remove_file(path).map_err(|source| AuthorityError::Io { path: path.clone(), source })?;
        }
        issued.save(folder)?;
        tell!("{}: of node {}, valid for {CERTIFICATE_DAYS} days", pair[0].display(), node.0);
    }
    Ok(())
}
