//! A whole small world as processes on real services: what players do is acknowledged, and stands where operators look.

mod common;

use common::{Daemon, World, database, drop_database, free_address, get, get_text, run, service, slices};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Duration, interval, timeout},
};
use worldline_system::history::{Note, What};

/// One world at a time: they share etcd.
static ETCD: Mutex<()> = Mutex::const_new(());

/// The processes of a world: an orchestrator, two workers, a gateway.
struct Cluster {
    _etcd: MutexGuard<'static, ()>,
    world: World,
    ledger: String,
    daemons: Vec<(&'static str, SocketAddr, Daemon)>,
}

/// Forgets what an earlier world has left in etcd.
async fn forget(etcd: &str) {
    let mut client = etcd_client::Client::connect([etcd], None).await.expect("etcd of ci/services answers");
    let options = etcd_client::DeleteOptions::new().with_prefix();
    client.delete("/worldline/", Some(options)).await.expect("deletes");
}

/// How many keys etcd has that begin so.
async fn count(etcd: &str, prefix: &str) -> i64 {
    let mut client = etcd_client::Client::connect([etcd], None).await.expect("etcd of ci/services answers");
    let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
    client.get(prefix, Some(options)).await.expect("reads").count()
}

impl Cluster {
    async fn start(name: &str) -> Self {
        let guard = ETCD.lock().await;
        let etcd = service("WORLDLINE_TEST_ETCD");
        forget(&etcd).await;
        let ledger = database(name).await;
        let peers = [(1, free_address()), (2, free_address()), (7, free_address())];
        let world = World::new(name, &etcd, &ledger, &peers).await;
        run(&["migrate", "--config", &world.config, "--seed"], &[]).await.says(0, &[]);
        let mut cluster = Self { _etcd: guard, world, ledger, daemons: Vec::new() };
        cluster.add("orchestrator", 3, free_address());
        for (node, listen) in peers {
            cluster.add(if node == 7 { "gateway" } else { "worker" }, node, listen);
        }
        for (_, http, daemon) in &cluster.daemons {
            until_ready(*http, daemon).await;
        }
        cluster
    }

    fn add(&mut self, command: &'static str, node: u32, listen: SocketAddr) {
        let http = free_address();
        let arguments = match command {
            "orchestrator" => self.world.process(command, node, http),
            _ => self.world.server(command, node, listen, http),
        };
        let cache = service("WORLDLINE_TEST_VALKEY");
        let daemon = Daemon::start(&slices(&arguments), &[("WORLDLINE_CACHE", &cache)]);
        self.daemons.push((command, http, daemon));
    }

    /// Lets a bot play with these further arguments; how it ended, and its summary.
    async fn play(&self, arguments: &[&str]) -> (common::Ended, Value) {
        let mut all = vec!["bot", "--config", &self.world.config, "--gateways", "7", "--json"];
        all.extend(arguments);
        let ended = run(&all, &[]).await;
        let summary = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("no summary: {ended:?}"));
        (ended, summary)
    }

    /// Stops everything in order, gateways first, and asserts that each has stopped as it should.
    async fn stop(mut self) {
        self.daemons.sort_by_key(|(command, ..)| {
            ["gateway", "worker", "replica", "orchestrator"].iter().position(|c| c == command)
        });
        for (_, _, daemon) in self.daemons {
            daemon.stop().await.says(0, &["the role has stopped", "ends"]);
        }
        for left in ["/worldline/workers/", "/worldline/leader/"] {
            assert_eq!(
                count(&service("WORLDLINE_TEST_ETCD"), left).await,
                0,
                "who stops in order gives its lease back"
            );
        }
        drop_database(&self.ledger).await;
    }
}

async fn until_ready(http: SocketAddr, daemon: &Daemon) {
    let mut looks = interval(Duration::from_millis(50));
    let ready = timeout(common::PATIENCE, async {
        while !matches!(get(http, "/ready").await, Ok((200, _))) {
            looks.tick().await;
        }
    });
    assert!(ready.await.is_ok(), "it was never ready:\n{}", daemon.logged());
}

#[tokio::test]
async fn five_players_play_and_everything_that_they_do_is_acknowledged_and_agreed_on() {
    let cluster = Cluster::start("world").await;
    let play = ["--character", "1", "--players", "5", "--target", "boss-1", "--attacks-every", "200ms", "--stop", "8s"];
    let (ended, summary) = cluster.play(&play).await;
    let why = || {
        format!(
            "{summary}\n{}\n{}",
            ended.stderr,
            cluster.daemons.iter().map(|(_, _, daemon)| daemon.logged()).collect::<String>()
        )
    };
    assert_eq!(ended.code, Some(0), "{}", why());
    assert_eq!((summary["joined"].as_u64(), summary["lost"].as_u64()), (Some(5), Some(0)), "{}", why());
    let count = |of: &str, what: &str| summary[of][what].as_u64().expect("a count");
    assert!(count("operations", "performed") >= 5 * 10, "{summary}");
    assert_eq!(count("operations", "performed"), count("operations", "acknowledged"), "{summary}");
    let taken_in = count("inputs", "echoed") + count("inputs", "overtaken");
    assert!(count("inputs", "sent") >= 5 * 40 && taken_in * 10 >= count("inputs", "sent") * 9, "{summary}");
    assert!(count("inputs", "echoed") > count("inputs", "overtaken"), "{summary}");
    assert!(summary["echo_us"]["p50"].as_u64() > Some(0), "{summary}");

    let asked = ["who-owns", "boss-1", "--config", &cluster.world.config];
    let owned = run(&asked, &[]).await;
    owned.says(0, &[]);
    for told in ["boss-1: lease ", "in frankfurt; its lease stands", "they agree"] {
        assert!(owned.stdout.contains(told), "{told} in {}", owned.stdout);
    }
    for (command, http, _) in &cluster.daemons {
        let (_, health) = get(*http, "/health").await.expect("it answers");
        assert_eq!((health["role"].as_str(), health["ready"].as_bool()), (Some(*command), Some(true)), "{health}");
        assert_eq!(health["inbox"]["shed"].as_u64(), Some(0), "{health}");
    }
    everything_is_measured(&cluster, taken_in).await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_operator_sees_who_plays_near_a_place_and_nobody_of_them_once_they_have_left() {
    let cluster = Cluster::start("near").await;
    let (config, cache) = (cluster.world.config.as_str(), service("WORLDLINE_TEST_VALKEY"));
    // The middle of Frankfurt's band, where characters begin.
    let asks = ["near", "-32000000", "0", "--config", config, "--region", "frankfurt", "--cache", &cache, "--json"];
    let mine = ["character-1", "character-2", "character-3"];
    let near = async || {
        let told = run(&asks, &[]).await;
        told.says(0, &[]);
        let all: Vec<Value> = serde_json::from_str(&told.stdout).expect("a list");
        let distances: Vec<u64> = all.iter().map(|one| one["distance_mm"].as_u64().expect("a distance")).collect();
        assert!(distances.is_sorted() && distances.iter().all(|&mm| mm <= 100_000), "{all:?}");
        let mut names: Vec<String> =
            all.iter().map(|one| one["character"].as_str().expect("a name").to_owned()).collect();
        names.retain(|name| mine.contains(&name.as_str()));
        names.sort();
        names
    };
    let plays = ["bot", "--config", config, "--gateways", "7", "--character", "1", "--players", "3"];
    let bot = Daemon::start(&plays, &[]);
    let until = async |whom: &[&str]| {
        let mut looks = interval(Duration::from_millis(200));
        let seen = timeout(common::PATIENCE, async {
            while near().await != whom {
                looks.tick().await;
            }
        });
        assert!(seen.await.is_ok(), "not {whom:?}, but {:?}", near().await);
    };
    until(&mine).await;
    let here = ["near", "-32000000", "0", "--config", config, "--region", "frankfurt", "--cache", &cache];
    let told = run(&here, &[]).await;
    assert!(told.stdout.contains("character-2: ") && told.stdout.contains(" m away, at -3"), "{}", told.stdout);
    bot.stop().await.says(0, &[]);
    until(&[]).await;
    cluster.stop().await;
}

/// What is read of every process of a world: with the process, name, labels and value.
async fn scraped(cluster: &Cluster) -> Vec<(&'static str, prometheus_parse::Sample)> {
    let mut all = Vec::new();
    for (command, http, _) in &cluster.daemons {
        let (status, text) = get_text(*http, "/metrics").await.expect("it answers");
        assert_eq!(status, 200, "{text}");
        let scrape = prometheus_parse::Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("it parses");
        let names: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert_eq!(names.len(), text.lines().filter(|line| line.starts_with("# HELP ")).count(), "{text}");
        all.extend(scrape.samples.into_iter().map(|sample| (*command, sample)));
    }
    all
}

/// Every name of the architecture that is covered shows up where it should, with figures that agree with what was done.
async fn everything_is_measured(cluster: &Cluster, inputs: u64) {
    use prometheus_parse::Value::{Counter, Gauge, Histogram};
    let covered = [
        ("gateway", "client_connections_total"),
        ("gateway", "client_latency_ms"),
        ("gateway", "client_packet_loss_ratio"),
        ("gateway", "client_bandwidth_bytes"),
        ("gateway", "db_transaction_duration_ms"),
        ("gateway", "gateway_sessions_opened_total"),
        ("worker", "worker_entity_count"),
        ("worker", "worker_tick_duration_ms"),
        ("worker", "worker_cpu_usage"),
        ("worker", "worker_memory_bytes"),
        ("worker", "db_transaction_duration_ms"),
        ("worker", "db_transaction_errors_total"),
        ("worker", "db_connection_pool_usage"),
        ("worker", "dragonfly_ops_per_sec"),
        ("worker", "dragonfly_memory_used_bytes"),
        ("worker", "dragonfly_hit_ratio"),
        ("worker", "dragonfly_eviction_count"),
        ("orchestrator", "ownership_migrations_total"),
        ("orchestrator", "worker_failures_total"),
    ];
    let mut samples = scraped(cluster).await;
    // Some are sampled every few seconds.
    let mut looks = interval(Duration::from_millis(500));
    let missing = |samples: &[(&str, prometheus_parse::Sample)]| {
        let there =
            |(command, name): &(&str, &str)| samples.iter().any(|(of, sample)| of == command && sample.metric == *name);
        covered.iter().filter(|one| !there(one)).copied().collect::<Vec<_>>()
    };
    // A gateway tells of its connections every second: all have left.
    let left = |samples: &[(&str, prometheus_parse::Sample)]| {
        let mut connections = samples.iter().filter(|(_, sample)| sample.metric == "client_connections_total");
        connections.all(|(_, sample)| matches!(sample.value, Gauge(0.0)))
    };
    let all = timeout(common::PATIENCE, async {
        while !missing(&samples).is_empty() || !left(&samples) {
            looks.tick().await;
            samples = scraped(cluster).await;
        }
    });
    let in_time = all.await.is_ok();
    assert!(in_time, "never seen: {:?}", missing(&samples));
    let sum = |name: &str, label: &str, value: &str| -> f64 {
        let of = samples
            .iter()
            .filter(|(_, s)| s.metric == name && (label.is_empty() || s.labels.get(label) == Some(value)));
        of.map(|(_, sample)| match &sample.value {
            Counter(n) | Gauge(n) => *n,
            Histogram(buckets) => buckets.last().map_or(0.0, |bucket| bucket.count),
            _ => 0.0,
        })
        .sum()
    };
    assert_eq!(sum("gateway_sessions_opened_total", "", ""), 5.0, "five players came");
    assert_eq!(sum("worker_entity_count", "entity_type", "character"), 5.0);
    assert_eq!(sum("worker_entity_count", "entity_type", "boss"), 1.0);
    assert_eq!(
        sum("ownership_migrations_total", "reason", "first_owner"),
        8.0,
        "five characters, a boss, two creatures"
    );
    assert_eq!(sum("worker_failures_total", "", ""), 0.0, "none has failed");
    let upstream = sum("client_bandwidth_bytes", "direction", "upstream");
    assert!(upstream > 10.0 * inputs as f64, "{upstream} bytes for {inputs} inputs, each of more than ten");
    assert!(sum("db_transaction_duration_ms", "operation_type", "commit") > 50.0, "fifty blows at least");
    let region = |name: &str| {
        samples.iter().find(|(_, s)| s.metric == name).and_then(|(_, s)| s.labels.get("region").map(str::to_owned))
    };
    assert_eq!(region("worker_tick_duration_ms").as_deref(), Some("frankfurt"));
}

#[tokio::test]
async fn a_player_with_a_forged_or_an_expired_token_is_turned_away_and_told_why() {
    let cluster = Cluster::start("tokens").await;
    let play = |token: String| {
        let cluster = &cluster;
        async move {
            let play = ["--character", "1", "--token", &token, "--stop", "20s"];
            cluster.play(&play).await
        }
    };
    let forged_key = cluster.world.folder.write("forged.key", &"66".repeat(32));
    let own_key = cluster.world.folder.text("token.key");
    let token = async |ttl: &str, key: &str| {
        let ended = run(&["token", "--character", "1", "--ttl", ttl, "--key", key], &[]).await;
        ended.stdout.trim().to_owned()
    };
    let (ended, summary) = play(token("1h", &forged_key).await).await;
    ended.says(1, &["turned away: the token is not one of this world"]);
    assert!(summary["troubled"][0]["why"].as_str().is_some_and(|why| why.contains("never played: the token is not")));
    let (ended, _) = play(token("0s", &own_key).await).await;
    ended.says(1, &["turned away: the token has expired"]);
    // Nobody else is harmed: whoever has a token plays, until it is asked to stop.
    let bot = [
        "bot",
        "--config",
        &cluster.world.config,
        "--gateways",
        "7",
        "--character",
        "1",
        "--target",
        "boss-1",
        "--log",
        "debug",
    ];
    let bot = Daemon::start(&bot, &[]);
    bot.logs(&["character-x", "\"event\":\"plays\""]).await;
    let ended = bot.stop().await;
    ended.says(0, &["\"signal\":\"SIGTERM\""]);
    assert!(ended.stdout.contains("lost                0"), "{}", ended.stdout);
    cluster.stop().await;
}

/// A world of two regions on the bus: a worker, a gateway and a replica in each, and who is in Virginia sees through its own.
async fn two_regions(name: &str) -> Cluster {
    let guard = ETCD.lock().await;
    let (etcd, bus) = (service("WORLDLINE_TEST_ETCD"), service("WORLDLINE_TEST_NATS"));
    forget(&etcd).await;
    // Facts of an earlier world's boss would be taken for this one's.
    let client = async_nats::connect(&bus).await.expect("NATS of ci/services answers");
    drop(async_nats::jetstream::new(client).delete_stream("WORLDLINE_FACTS").await);
    let ledger = database(name).await;
    let nodes = [("worker", 1), ("worker", 2), ("gateway", 7), ("gateway", 8), ("replica", 17), ("replica", 18)];
    let nodes = nodes.map(|(command, node)| (command, node, free_address()));
    let peers = nodes.map(|(_, node, listen)| (node, listen));
    let world = World::new(name, &etcd, &ledger, &peers).await;
    run(&["migrate", "--config", &world.config, "--seed"], &[]).await.says(0, &[]);
    let mut cluster = Cluster { _etcd: guard, world, ledger, daemons: Vec::new() };
    let traces = cluster.world.folder.text("traces.jsonl");
    let variables =
        [("WORLDLINE_BUS", bus.as_str()), ("WORLDLINE_TELEMETRY_FILE", traces.as_str()), ("WORLDLINE_LOG", "debug")];
    let mut start = |command, arguments: Vec<String>, http| {
        cluster.daemons.push((command, http, Daemon::start(&slices(&arguments), &variables)));
    };
    let http = free_address();
    start("orchestrator", cluster.world.process("orchestrator", 3, http), http);
    for (index, (command, node, listen)) in nodes.into_iter().enumerate() {
        let http = free_address();
        let mut arguments = cluster.world.listener(command, node, listen, http);
        if command != "replica" {
            arguments.extend(["--region".to_owned(), ["frankfurt", "virginia"][index % 2].to_owned()]);
        }
        if command == "gateway" {
            arguments.extend(["--replica".to_owned(), (node + 10).to_string()]);
        }
        start(command, arguments, http);
    }
    for (_, http, daemon) in &cluster.daemons {
        until_ready(*http, daemon).await;
    }
    cluster
}

/// Every span that the processes of a world have written, by the name of its trace: name, own id, and that of what it is under.
fn traces(file: &str) -> BTreeMap<String, Vec<(String, String, String)>> {
    let mut traces: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for line in std::fs::read_to_string(file).expect("its processes have made it").lines() {
        let request: Value = serde_json::from_str(line).expect("a request a line");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for span in request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("a list") {
            let told = (text(&span["name"]), text(&span["spanId"]), text(&span["parentSpanId"]));
            traces.entry(text(&span["traceId"])).or_default().push(told);
        }
    }
    traces
}

#[tokio::test]
async fn a_blow_across_regions_is_seven_spans_of_one_trace_each_under_the_right_one() {
    let cluster = two_regions("traces").await;
    let file = cluster.world.folder.text("traces.jsonl");
    // The player is attached in Virginia; its character and the boss are in Frankfurt.
    let play = ["bot", "--config", &cluster.world.config, "--gateways", "8", "--json", "--telemetry-file", &file];
    let blows = ["--character", "1", "--target", "boss-1", "--attacks-every", "1100ms", "--stop", "5s"];
    let ended = run(&[&play[..], &blows[..]].concat(), &[]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let parents = [
        ("client_attack_input", ""),
        ("gateway_routing", "client_attack_input"),
        ("cross_region_grpc", "gateway_routing"),
        ("worker_combat_simulation", "cross_region_grpc"),
        ("db_transaction", "worker_combat_simulation"),
        ("nats_broadcast", "worker_combat_simulation"),
        ("client_reconciliation", "nats_broadcast"),
    ];
    let whole = || {
        let whole = |spans: &Vec<(String, String, String)>| {
            let parent = |(_, _, above): &(String, String, String)| {
                let parent = spans.iter().find(|(_, id, _)| id == above);
                parent.map_or("", |(name, ..)| name.as_str()).to_owned()
            };
            let is = |(name, above): &(&str, &str)| spans.iter().any(|span| span.0 == *name && parent(span) == *above);
            spans.len() == 7 && parents.iter().all(is)
        };
        traces(&file).values().filter(|spans| whole(spans)).count()
    };
    let mut looks = interval(Duration::from_millis(200));
    let seen = timeout(common::PATIENCE, async {
        while whole() < 2 {
            looks.tick().await;
        }
    });
    assert!(seen.await.is_ok(), "{:#?}", traces(&file));
    let text = std::fs::read_to_string(&file).expect("reads");
    assert!(!text.contains("character-1\""), "nobody is told who played");
    the_log_names_the_traces(&cluster, &file);
    cluster.stop().await;
}

/// Who assigned the boss and who serves it say so under one trace, and it is that of the migration.
fn the_log_names_the_traces(cluster: &Cluster, file: &str) {
    let named = |event: &str| {
        let logs = cluster.daemons.iter().map(|(_, _, daemon)| daemon.logged()).collect::<Vec<_>>().join("\n");
        let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines = lines.filter(|line| line["event"] == event && line["attributes"]["entity"] == "boss-1");
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no id in a line: {value}")).to_owned();
        lines.map(|line| (text(&line["trace_id"]), text(&line["span_id"]))).collect::<BTreeSet<_>>()
    };
    let (assigned, serves) = (named("assigned"), named("serves"));
    assert!(!serves.is_empty() && serves.is_subset(&assigned), "{serves:?} of {assigned:?}");
    let traces = traces(file);
    for (trace, span) in &serves {
        let spans = traces.get(trace).unwrap_or_else(|| panic!("no trace {trace}"));
        assert!(spans.iter().any(|(name, id, _)| name == "ownership_migration" && id == span), "{spans:?}");
    }
}

/// What the player whose history this is was shown of the boss, in order: after which fact, and what was left of it.
fn shown(history: &str) -> Vec<(u64, u32)> {
    let files = std::fs::read_dir(history).expect("its process has made it");
    let paths = files.map(|file| file.expect("reads").path());
    let entries = paths.flat_map(|path| worldline_real::history::read(&path).expect("reads"));
    let seen = entries.filter_map(|entry| match entry.what {
        What::Noted(Note::GlobalSeen { sequence, hit_points, .. }) => Some((sequence.0, hit_points)),
        _ => None,
    });
    seen.collect()
}

#[tokio::test]
async fn a_hit_in_one_region_is_shown_to_a_player_who_is_attached_in_another() {
    use sqlx::Connection as _;
    let mut cluster = two_regions("globals").await;
    let history = cluster.world.folder.text("history");
    let config = cluster.world.config.as_str();
    let watches =
        ["bot", "--config", config, "--gateways", "8", "--character", "2", "--history", &history, "--log", "debug"];
    let watcher = Daemon::start(&watches, &[]);
    watcher.logs(&["character-x", "\"event\":\"plays\""]).await;
    let play = ["--character", "1", "--target", "boss-1", "--attacks-every", "1100ms", "--stop", "6s"];
    let (ended, summary) = cluster.play(&play).await;
    assert_eq!(ended.code, Some(0), "{summary}\n{}", ended.stderr);

    let mut connection = sqlx::PgConnection::connect(&cluster.ledger).await.expect("it is there");
    let stands =
        "select count(*), min((body #>> '{Hit,remaining}')::bigint) from worldline.facts where aggregate = 'boss-1'";
    let (facts, left): (i64, i64) = sqlx::query_as(stands).fetch_one(&mut connection).await.expect("reads");
    connection.close().await.expect("closes");
    assert!(facts >= 4, "{facts} blows");
    let (facts, left) = (u64::try_from(facts).expect("a count"), u32::try_from(left).expect("hit points"));
    let mut looks = interval(Duration::from_millis(50));
    let seen = timeout(common::PATIENCE, async {
        loop {
            looks.tick().await;
            let shown = shown(&history);
            if shown.last() == Some(&(facts, left)) {
                return shown;
            }
        }
    });
    let Ok(shown) = seen.await else {
        panic!("fact {facts} was never shown in Virginia, but {:?}:\n{}", shown(&history), watcher.logged());
    };
    assert!(shown.len() >= 3, "one after the other as they happened, and not all at the end: {shown:?}");
    assert!(shown.is_sorted_by_key(|(sequence, _)| *sequence), "{shown:?}");
    watcher.stop().await.says(0, &[]);

    // Players of Virginia go on without their replica; who runs the gateway is told.
    let (_, gateway, _) = cluster.daemons[4];
    let degraded = async || get(gateway, "/health").await.expect("it answers").1["degraded"]["replica"].clone();
    assert!(degraded().await.is_null());
    let (command, _, replica) = cluster.daemons.remove(6);
    assert_eq!(command, "replica");
    replica.stop().await.says(0, &["the role has stopped"]);
    let told = timeout(common::PATIENCE, async {
        while degraded().await.is_null() {
            looks.tick().await;
        }
    });
    assert!(told.await.is_ok(), "the gateway says that it has no replica");
    assert_eq!(get(gateway, "/ready").await.expect("it answers").0, 200);
    cluster.stop().await;
}
