//! What the processes of a drill are told: one folder with certificates, the world, and a configuration for each.

use crate::{
    faults::{Members, Service},
    links::Links,
    processes::Failed,
};
use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use toml::{Table, Value};
use worldline_proto::NodeId;
use worldline_real::network::tls::{Authority, Holder};
use worldline_scenarios::{
    format::Scenario,
    nodes::{Kind, Node, Nodes, character},
    world::{self, TOKEN_KEY},
};
use worldline_system::{client::Conduct, time::Duration};

/// How long a player's process waits for answers after the last thing it has begun. It is stopped before.
const GRACE: &str = "600s";
/// How long an operator's command tries to reach the ledger: longer than it is ever away.
const OPERATOR_PATIENCE: &str = "120s";
/// How long a role may take for its orderly stop, before it gives up by itself.
const STOP_PATIENCE: &str = "15s";

/// A folder of a drill.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one. The services run as another user, who must be able to enter it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(scenario: &str, seed: u64) -> Result<Self, Failed> {
        let parent = std::env::temp_dir();
        let name = |n: u32| parent.join(format!("worldline-drill-{scenario}-{seed}-{}.{n}", std::process::id()));
        let path = (0..1_000).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0));
        let made = fs::create_dir(&path).and_then(|()| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            ["histories", "logs", "configurations", "certificates"]
                .iter()
                .try_for_each(|name| fs::create_dir(path.join(name)))
        });
        made.map_err(Failed::machine(format!("cannot make {}", path.display())))?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where processes write their histories.
    #[must_use]
    pub fn histories(&self) -> PathBuf {
        self.0.join("histories")
    }

    /// Where logs go.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// Where the log of a process goes.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{}.log", name.replace(':', "-")))
    }

    /// The services' own folder in it.
    #[must_use]
    pub fn services(&self) -> PathBuf {
        self.0.join("services")
    }

    /// Removes it with all that is in it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(self) -> Result<(), Failed> {
        fs::remove_dir_all(&self.0).map_err(Failed::machine(format!("cannot remove {}", self.0.display())))
    }
}

/// What a role's process is called on the command line. `None` for a member of a service.
#[must_use]
pub const fn command(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Directory(_) | Kind::Ledger(_) | Kind::Bus(_) | Kind::Cache(..) => None,
        Kind::Orchestrator(_) => Some("orchestrator"),
        Kind::Worker(..) => Some("worker"),
        Kind::Gateway(..) => Some("gateway"),
        Kind::Replica(_) => Some("replica"),
        Kind::Player(..) | Kind::Double(..) => Some("bot"),
        Kind::Operator(..) => Some("revoke"),
    }
}

/// Whether others call such a role: it listens, and has a certificate.
#[must_use]
pub const fn listens(kind: Kind) -> bool {
    matches!(kind, Kind::Gateway(..) | Kind::Worker(..) | Kind::Replica(_))
}

/// Writes what all processes share: certificates, the world, the key of tokens.
///
/// # Errors
/// A certificate or a file cannot be made.
pub fn prepare(folder: &Folder, scenario: &Scenario, nodes: &Nodes) -> Result<(), Failed> {
    let certificates = folder.path().join("certificates");
    let failed = |error: String| Failed::Process(format!("cannot make the certificates: {error}"));
    let authority = Authority::create().map_err(|error| failed(error.to_string()))?;
    authority.save(&certificates).map_err(|error| failed(error.to_string()))?;
    for node in nodes.those(listens) {
        let issued = authority.issue(&Holder::Node(node), &["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let saved = issued.and_then(|issued| issued.save(&certificates));
        saved.map_err(|error| failed(error.to_string()))?;
    }
    write(&folder.path().join("world.toml"), &world_file(scenario).to_string())?;
    let key: String = TOKEN_KEY.0.iter().map(|byte| format!("{byte:02x}")).collect();
    write(&folder.path().join("token.key"), &(key + "\n"))
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    let written = || -> io::Result<()> {
        fs::write(path, text)?;
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    };
    written().map_err(Failed::machine(format!("cannot write {}", path.display())))
}

/// A table of these keys.
fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn text(text: impl ToString) -> Value {
    Value::String(text.to_string())
}

fn whole(number: impl Into<i64>) -> Value {
    Value::Integer(number.into())
}

/// The world as the server reads it: regions in order, and the bosses where the map has them.
fn world_file(scenario: &Scenario) -> Table {
    let region = |region: &worldline_scenarios::format::Region| Value::Table(table([("name", text(&region.name))]));
    let map = world::map(scenario);
    let boss = |boss: &worldline_scenarios::format::Boss| {
        let placed = map.boss(boss.entity).expect("the map has every boss");
        let position = table([("x_mm", whole(placed.position.x_mm)), ("y_mm", whole(placed.position.y_mm))]);
        Value::Table(table([
            ("name", text(boss.entity)),
            ("region", text(&scenario.regions[boss.region].name)),
            ("hit_points", whole(boss.hit_points)),
            ("purse", whole(boss.purse)),
            ("position", Value::Table(position)),
        ]))
    };
    table([
        ("region", Value::Array(scenario.regions.iter().map(region).collect())),
        ("boss", Value::Array(scenario.bosses.iter().map(boss).collect())),
    ])
}

/// What one process is told, besides what all share.
#[derive(Debug)]
pub struct Told<'a> {
    /// The scenario.
    pub scenario: &'a Scenario,
    /// How players are configured.
    pub stage: &'a world::Stage<'a>,
    /// The folder of the drill.
    pub folder: &'a Folder,
    /// Where a role finds others.
    pub links: &'a Links,
    /// Where roles listen.
    pub listen: &'a BTreeMap<NodeId, SocketAddr>,
    /// The nodes by whose names the services' links go.
    pub members: &'a Members,
}

impl Told<'_> {
    /// Writes the configuration of a node's process; the arguments that it is started with.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn arguments(&self, id: NodeId, node: &Node, http: SocketAddr) -> Result<Vec<String>, Failed> {
        let Some(command) = command(node.kind) else { return Ok(Vec::new()) };
        if let Kind::Operator(_, number) = node.kind {
            let ledger = format!("--ledger={}", self.ledger(id));
            let wait = format!("--wait={OPERATOR_PATIENCE}");
            return Ok(vec![command.to_owned(), ledger, wait, character(number).to_string()]);
        }
        let file = self.folder.path().join("configurations").join(format!("{}.toml", node.name.replace(':', "-")));
        write(&file, &self.configuration(id, node, http).to_string())?;
        Ok(vec![command.to_owned(), "--config".to_owned(), file.display().to_string()])
    }

    fn configuration(&self, id: NodeId, node: &Node, http: SocketAddr) -> Table {
        let file = |name: &str| text(self.folder.path().join(name).display());
        let mut settings = table([
            ("name", text(&node.name)),
            ("http", text(http)),
            ("history", text(self.folder.histories().display())),
            ("threads", whole(1)),
        ]);
        let peers = || {
            let peers = self.links.peers(id).filter(|(peer, _)| self.members.service(*peer).is_none());
            Value::Table(peers.map(|(peer, address)| (peer.0.to_string(), text(address))).collect())
        };
        settings.insert("knobs".to_owned(), Value::Table(self.knobs()));
        let mut set = |key: &str, value: Value| drop(settings.insert(key.to_owned(), value));
        let stem = |ending: &str| file(&format!("certificates/{id}.{ending}"));
        match node.kind {
            Kind::Player(..) | Kind::Double(..) => {
                set("peers", peers());
                set("tls", Value::Table(table([("ca", file("certificates/ca.pem"))])));
                set("grace", text(GRACE));
                set("player", Value::Array(self.player(id, node.kind).map(Value::Table).into_iter().collect()));
                return settings;
            }
            kind if listens(kind) => {
                set("peers", peers());
                let (ca, certificate, key) = (file("certificates/ca.pem"), stem("pem"), stem("key"));
                set("tls", Value::Table(table([("ca", ca), ("certificate", certificate), ("key", key)])));
                if let Some(listen) = self.listen.get(&id) {
                    set("listen", text(listen));
                }
            }
            _ => {}
        }
        set("node", whole(id.0));
        set("world", file("world.toml"));
        set("stop_patience", text(STOP_PATIENCE));
        for service in self.members.services() {
            // A role has a link to each service that it uses.
            let at = self.addresses(id, service);
            if at.is_empty() {
                continue;
            }
            let each = |scheme: &str| Value::Array(at.iter().map(|at| text(format!("{scheme}://{at}"))).collect());
            match service {
                Service::Directory => set("directory", each("http")),
                Service::Ledger => set("ledger", text(self.ledger(id))),
                Service::Bus => set("bus", each("nats")),
                Service::Cache(_) => set("cache", each("redis")),
            }
        }
        let lease = &self.scenario.lease;
        let lease = [("ttl", lease.ttl), ("margin", lease.margin), ("renewal", lease.renewal)];
        let lease = Value::Table(table(lease.map(|(key, span)| (key, duration(span)))));
        match node.kind {
            Kind::Gateway(region, n) => {
                set("region", text(&self.scenario.regions[region].name));
                set("token_key", file("token.key"));
                let alternates = self.stage.alternates(region, usize::from(n));
                set("alternates", Value::Array(alternates.into_iter().map(|node| whole(node.0)).collect()));
                set("replica", Value::Array(vec![whole(self.stage.replica(region).0)]));
            }
            Kind::Worker(region, _) => {
                set("region", text(&self.scenario.regions[region].name));
                set("lease", lease);
            }
            Kind::Orchestrator(_) => set("lease", lease),
            _ => {}
        }
        settings
    }

    /// Where a node finds the servers of a service.
    fn addresses(&self, id: NodeId, service: Service) -> Vec<String> {
        let servers = self.members.of_service(service).filter_map(|node| self.links.address(id, node));
        servers.map(|address| address.to_string()).collect()
    }

    /// Where a node finds the ledger.
    fn ledger(&self, id: NodeId) -> String {
        format!("postgres://postgres@{}/postgres", self.addresses(id, Service::Ledger).join(","))
    }

    fn knobs(&self) -> Table {
        let knobs = &self.scenario.knobs;
        table([
            ("scan_every", duration(knobs.scan_every)),
            ("checkpoint_every", duration(knobs.checkpoint_every)),
            ("renewal_patience", duration(knobs.renewal_patience)),
            ("retry_first", duration(knobs.retry.first)),
            ("retry_longest", duration(knobs.retry.longest)),
        ])
    }

    fn player(&self, id: NodeId, kind: Kind) -> Option<Table> {
        let client = self.stage.player(kind)?;
        let conduct = match client.conduct {
            Conduct::Honest => "honest",
            Conduct::SpeedHack => "speed-hack",
            Conduct::ReusesNumbers => "reuses-numbers",
        };
        let token: String = client.token.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut player = table([
            ("node", whole(id.0)),
            ("character", text(client.character)),
            ("token", text(token)),
            ("gateways", Value::Array(client.gateways.iter().map(|node| whole(node.0)).collect())),
            ("start", duration(client.start)),
            ("stop", duration(client.stop)),
            ("moves_every", duration(client.moves_every)),
            ("attacks_every", duration(client.attacks_every)),
            ("conduct", text(conduct)),
        ]);
        if let Some(target) = client.target {
            player.insert("target".to_owned(), text(target));
        }
        Some(player)
    }
}

/// A span as a configuration writes it.
fn duration(span: Duration) -> Value {
    match span.as_nanos() {
        ns if ns % 1_000_000 == 0 => text(format!("{}ms", ns / 1_000_000)),
        ns => text(format!("{:.9}s", ns as f64 / 1e9)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_it_is_read() {
        assert_eq!(duration(Duration::from_millis(1_500)), text("1500ms"));
        assert_eq!(duration(Duration::from_nanos(1_234_567_890)), text("1.234567890s"));
    }

    #[tokio::test]
    async fn each_process_is_told_where_its_services_are_and_players_too_how_soon_to_try_again() {
        let mut scenario = worldline_scenarios::catalogue::find("swing").expect("in the catalogue").expect("reads");
        scenario.knobs.retry.first = Duration::from_millis(70);
        let nodes = Nodes::of(&scenario);
        let (members, stage) = (Members::of(&nodes, false), world::Stage::of(&scenario, &nodes, 1));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let listen: BTreeMap<_, _> = nodes.those(listens).into_iter().map(|node| (node, nowhere)).collect();
        let servers = members.servers().map(|server| (server.node, nowhere)).collect();
        let ends = crate::links::Ends { roles: listen.clone(), servers };
        let mut ports = worldline_ports::Ports::default();
        let links = Links::open(&nodes, &members, &ends, &mut ports, 1, |kind| stage.takes_part(kind)).expect("opens");
        let folder = Folder::create("stage-test", 1).expect("a folder");
        let (scenario, folder) = (&scenario, &folder);
        let told = Told { scenario, stage: &stage, folder, links: &links, listen: &listen, members: &members };
        let of = |name: &str| {
            let (id, node) = nodes.iter().find(|(_, node)| node.name == name).expect("in the scenario");
            told.configuration(id, node, nowhere)
        };
        for name in ["player:1", "gateway:frankfurt:0", "replica:frankfurt", "orchestrator:0"] {
            assert_eq!(of(name)["knobs"]["retry_first"].as_str(), Some("70ms"), "{name}");
        }
        let has = |name: &str| {
            let told = of(name);
            ["directory", "ledger", "bus", "cache", "replica"].map(|key| told.contains_key(key))
        };
        assert_eq!(has("player:1"), [false; 5]);
        assert_eq!(has("gateway:frankfurt:0"), [true, true, false, true, true]);
        assert_eq!(has("worker:frankfurt:0"), [true, true, true, true, false]);
        assert_eq!(has("orchestrator:0"), [true, true, true, true, false]);
        assert_eq!(has("replica:frankfurt"), [false, true, true, false, false]);
        fs::remove_dir_all(folder.path()).expect("removes");
    }

    #[test]
    fn the_world_of_a_scenario_is_written_for_the_server() {
        let scenario = worldline_scenarios::catalogue::find("swing").expect("in the catalogue").expect("reads");
        let written = world_file(&scenario);
        assert_eq!(written["region"].as_array().map(Vec::len), Some(3));
        assert_eq!(written["boss"][0]["region"].as_str(), Some("frankfurt"));
        assert_eq!(written["boss"][0]["purse"].as_integer(), Some(1_000_000));
        assert!(written["boss"][0]["position"]["y_mm"].is_integer());
    }
}
