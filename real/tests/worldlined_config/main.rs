//! Whatever is wrong with how `worldlined` is called is told at once, with its place, and never shows a secret.

#[path = "../common/mod.rs"]
mod common;
mod players;

use common::{Daemon, Folder, NOBODY, PASSWORD, World, free_address, get, is_private, run, slices};
use std::path::Path;
use worldline_proto::{
    CharacterId, NodeId,
    token::{BadToken, Key},
};
use worldline_real::{
    clock,
    network::tls::{Authority, Holder},
};
use worldline_system::time::{Duration, UnixTime};

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let folder = Folder::new("wrong");
    let world =
        "[[region]]\nname = 'frankfurt'\n[[boss]]\nname = 'boss-1'\nregion = 'franfurt'\nhit_points = 1\npurse = 0\n";
    folder.write("world.toml", world);
    let config = folder.write(
        "worker.toml",
        "node = -1\nregoin = 'frankfurt'\nworld = 'world.toml'\ndirectory = ['127.0.0.1:2379']\n\
         ledger = 'mysql://me:hunter2hunter2@host/db'\n[lease]\nttl = '2500ms'\nmargins = '1s'\n",
    );
    let arguments = ["worker", "--config", &config, "--listen", "localhost:70000"];
    let variables = [("WORLDLINE_HTTP", "8080"), ("WORLDLINE_PEERS", "7:127.0.0.1"), ("WORLDLINE_LISTN", "x")];
    let caches = ("WORLDLINE_CACHE", "127.0.0.1:6379,rediss://me:hunter2hunter2@cache:6379");
    let variables = [&variables[..], &[caches]].concat();
    let ended = run(&arguments, &variables).await;
    let at = |place: &str| format!("{}:{place}", config);
    ended.says(
        64,
        &[
            &format!("{}: found the number -1, expected a node's id", at("1:8")),
            &format!("{}: found the unknown key `regoin`", at("2:1")),
            "did you mean `region`?",
            &format!("{}: found `127.0.0.1:2379` is no address", at("4:14")),
            "did you mean `http://127.0.0.1:2379`?",
            &format!("{}: found a text that is no PostgreSQL URL (not shown)", at("5:10")),
            &format!("{}: found `2500ms`, expected whole seconds", at("7:7")),
            &format!("{}: found the unknown key `lease.margins`", at("8:1")),
            "did you mean `margin`?",
            "flag --listen: found `localhost:70000`, expected an IP address and a port",
            "variable WORLDLINE_HTTP: found `8080`",
            "variable WORLDLINE_PEERS: found `7:127.0.0.1`",
            "variable WORLDLINE_LISTN: found an unknown variable",
            "variable WORLDLINE_CACHE: found `127.0.0.1:6379` is no address of a cache: it does not begin with redis://",
            "did you mean `redis://127.0.0.1:6379`?",
            "variable WORLDLINE_CACHE: found `rediss://…@cache:6379` is no address of a cache: TLS to the cache is not supported",
            "did you mean `WORLDLINE_LISTEN`?",
            "world.toml:5:10: found `franfurt`, expected one of this world's regions: frankfurt; did you mean `frankfurt`?",
            "configuration: found no `tls.ca`",
        ],
    );
    assert!(!ended.stderr.contains(PASSWORD), "{}", ended.stderr);
}

#[tokio::test]
async fn a_file_that_is_no_toml_keeps_its_secrets_and_hides_no_other_error() {
    let folder = Folder::new("no-toml");
    let config = folder.write("worker.toml", &format!("node = 3\nledger = postgres://me:{PASSWORD}@host/db\n"));
    let arguments = ["worker", "--config", &config, "--listen", "nowhere", "--peers", "garbage"];
    let ended = run(&arguments, &[("WORLDLINE_LEASE_TTLL", "1s")]).await;
    let place = format!("{config}:2:");
    ended.says(
        64,
        &[
            &place,
            "expected valid TOML",
            "flag --listen: found `nowhere`",
            "flag --peers: found `garbage`",
            "variable WORLDLINE_LEASE_TTLL",
        ],
    );
    assert!(!ended.stderr.contains(PASSWORD), "{}", ended.stderr);
    assert!(!ended.stderr.contains("no `node`"), "what the file says is not missing: {}", ended.stderr);
    run(&["worker", "--config", "/nowhere.toml", "--node", "x"], &[])
        .await
        .says(64, &["/nowhere.toml", "no such file", "flag --node: found `x`"]);
    let ended = run(&["worker", "--node", "x"], &[("WORLDLINE_CONFIG", "")]).await;
    ended.says(
        64,
        &["variable WORLDLINE_CONFIG: found nothing, expected the path of a configuration file", "found `x`"],
    );
    assert!(!ended.stderr.contains("no `listen`"), "what the file would say is not missing: {}", ended.stderr);
}

#[tokio::test]
async fn wrong_places_for_traces_and_a_wrong_key_are_told_and_show_no_secret() {
    let folder = Folder::new("telemetry");
    let short = folder.write("short.key", PASSWORD);
    let config = folder.write("worker.toml", "[telemetry]\notlp = 4318\nfile = 7\nkey = 'nowhere.key'\nkye = 'x'\n");
    let at = |place: &str| format!("{config}:{place}");
    let expected = "expected the address of a collector as `http://127.0.0.1:4318`, without TLS and without a user";
    run(&["gateway", "--config", &config], &[]).await.says(
        64,
        &[
            &format!("{}: found the number 4318, {expected}", at("2:8")),
            &format!("{}: found the number 7", at("3:8")),
            &at("4:7"),
            "nowhere.key",
            "64 hexadecimal digits",
            "found the unknown key `telemetry.kye`",
            "did you mean `key`?",
        ],
    );
    let wrong = |otlp: &'static str| [("WORLDLINE_TELEMETRY_OTLP", otlp), ("WORLDLINE_TELEMETRY_KEY", short.as_str())];
    for otlp in ["", "collector:4318", "https://collector:4318", "http://", "/v1/traces", "grpc://collector"] {
        let ended = run(&["bot"], &wrong(otlp)).await;
        ended.says(
            64,
            &["variable WORLDLINE_TELEMETRY_OTLP: found", expected, "variable WORLDLINE_TELEMETRY_KEY: found"],
        );
        assert!(!ended.stderr.contains(PASSWORD), "{}", ended.stderr);
    }
    let with_user = run(&["orchestrator"], &wrong("http://me:hunter2hunter2@collector:4318")).await;
    with_user.says(64, &["found an address with a user (not shown)", expected]);
    assert!(!with_user.stderr.contains(PASSWORD), "{}", with_user.stderr);
}

#[tokio::test]
async fn a_lease_that_its_holder_could_not_keep_is_refused() {
    let world = World::new("lease", &format!("http://{NOBODY}"), &format!("postgres://me@{NOBODY}/x"), &[]).await;
    let arguments = world.process("orchestrator", 3, free_address());
    let mut arguments = slices(&arguments);
    arguments.extend(["--lease-ttl", "3s", "--lease-margin", "2s", "--lease-renewal", "1s"]);
    run(&arguments, &[]).await.says(
        64,
        &["flag --lease-renewal: found a lease of `3s` with a margin of `2s`, renewed every `1s`", "shorter than"],
    );
}

#[tokio::test]
async fn a_gateway_must_know_where_its_replicas_are_and_a_replica_needs_no_directory() {
    let world = World::new(
        "replicas",
        &format!("http://{NOBODY}"),
        &format!("postgres://me@{NOBODY}/x"),
        &[(7, free_address())],
    )
    .await;
    let arguments = world.server("gateway", 7, free_address(), free_address());
    for (replicas, told) in [
        ("9", "flag --replica: found n9, of which `peers` does not say where it listens"),
        ("7,7", "flag --replica: found n7 again, expected at most 4 replicas, each once"),
        ("1,2,3,4,5", "flag --replica: found 5 of them, expected at most 4 replicas, each once"),
    ] {
        let arguments = [&slices(&arguments)[..], &["--replica", replicas]].concat();
        run(&arguments, &[]).await.says(64, &[told]);
    }
    for (alternates, told) in [
        (
            "9,7",
            "flag --alternates: found n7, which is this gateway itself, expected at most 8 other gateways, each once",
        ),
        ("8,9,8", "flag --alternates: found n8 again"),
    ] {
        let arguments = [&slices(&arguments)[..], &["--alternates", alternates]].concat();
        run(&arguments, &[]).await.says(64, &[told]);
    }
    let twice = format!("7={NOBODY},8=127.0.0.1:2,7=127.0.0.1:3");
    let ended = run(&["gateway", "--peers", &twice], &[]).await;
    ended.says(64, &["flag --peers: found n7 again, expected each node once"]);
    let ended = run(&["replica"], &[]).await;
    ended.says(64, &["no `node`", "no `listen`", "no `tls.ca`", "no `tls.certificate`", "no `world`", "no `ledger`"]);
    for not_asked in ["`directory`", "`peers`", "`region`", "`token_key`"] {
        assert!(!ended.stderr.contains(&format!("no {not_asked}")), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_flag_wins_over_a_variable_and_that_over_the_file() {
    let ledger = format!("postgres://me:{PASSWORD}@{NOBODY}/x");
    let world = World::new("precedence", &format!("http://{NOBODY}"), &ledger, &[]).await;
    let text = std::fs::read_to_string(&world.config).expect("reads");
    world.folder.write("worldline.toml", &format!("name = 'of-the-file'\n{text}"));
    for (flag, variable, name) in [
        (Some("of-the-flag"), Some("of-the-variable"), "of-the-flag"),
        (None, Some("of-the-variable"), "of-the-variable"),
        (None, None, "of-the-file"),
    ] {
        let http = free_address();
        let mut arguments = world.process("orchestrator", 3, http);
        arguments.extend(flag.iter().flat_map(|name| ["--name".to_owned(), (*name).to_owned()]));
        let variables: Vec<_> =
            variable.iter().map(|name| ("WORLDLINE_NAME", *name)).chain([("WORLDLINE_LOG", "trace")]).collect();
        let daemon = Daemon::start(&slices(&arguments), &variables);
        daemon.logs(&["starts as orchestrator"]).await;
        let (status, health) = get(http, "/health").await.expect("it answers");
        assert_eq!((status, health["name"].as_str()), (200, Some(name)));
        let version = run(&["--version"], &[]).await;
        let revision = health["version"].as_str().expect("a text");
        assert_eq!(version.stdout, format!("worldlined {revision}\n"), "both tell which build it is");
        assert!(revision == "unknown" || revision.trim_end_matches("-dirty").len() == 12, "a commit: {revision}");
        let ended = daemon.stop().await;
        ended.says(0, &["the role has stopped"]);
        assert!(!ended.stderr.contains(PASSWORD), "a password was logged:\n{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_busy_port_is_named_with_who_holds_it() {
    let world =
        World::new("busy", &format!("http://{NOBODY}"), &format!("postgres://me@{NOBODY}/x"), &[(7, free_address())])
            .await;
    let holder = format!("(process {}) holds it", std::process::id());
    // Of the one that is held for datagrams nobody else may hold the other half.
    let tcp = std::net::TcpListener::bind(free_address()).expect("a free port");
    let udp = std::net::UdpSocket::bind(free_address()).expect("a free port");
    let (tcp_address, udp_address) = (tcp.local_addr().expect("bound"), udp.local_addr().expect("bound"));
    for (listen, http, told) in [
        (free_address(), tcp_address, format!("cannot listen on TCP {tcp_address} (`http`)")),
        (tcp_address, free_address(), format!("cannot listen on TCP {tcp_address} (`listen`)")),
        (udp_address, free_address(), format!("cannot listen on UDP {udp_address} (`listen`)")),
    ] {
        let arguments = world.server("worker", 7, listen, http);
        run(&slices(&arguments), &[]).await.says(69, &[&told, &holder]);
    }
}

/// Runs a worker as node 7 with this certificate.
async fn with_certificate(world: &World, certificate: &Path, key: &Path) -> common::Ended {
    let mut arguments = world.server("worker", 7, free_address(), free_address());
    for (flag, path) in [("--tls-certificate", certificate), ("--tls-key", key)] {
        let at = arguments.iter().position(|argument| argument == flag).expect("it is there");
        arguments[at + 1] = path.display().to_string();
    }
    run(&slices(&arguments), &[]).await
}

#[tokio::test]
async fn a_certificate_that_nobody_would_accept_is_refused_at_the_start_with_the_reason() {
    let peers = [(7, free_address()), (8, free_address())];
    let world =
        World::new("certificate", &format!("http://{NOBODY}"), &format!("postgres://me@{NOBODY}/x"), &peers).await;
    let certs = world.folder.path("certs");
    let authority = Authority::load(&certs.join("ca.pem"), &certs.join("ca.key")).expect("loads");
    let now = clock::unix_now();
    let (day, week) = (Duration::from_secs(86_400), Duration::from_secs(7 * 86_400));
    let issue = |authority: &Authority, folder: &str, from: UnixTime, until: UnixTime| {
        let issued = authority.issue_for(&Holder::Node(NodeId(7)), &[], from, until).expect("issues");
        let folder = world.folder.path(folder);
        issued.save(&folder).expect("writes");
        (folder.join("n7.pem"), folder.join("n7.key"))
    };
    let (pem, key) = issue(&authority, "expired", now - week, now - day);
    with_certificate(&world, &pem, &key).await.says(64, &["flag --tls-certificate", "has expired"]);
    let (pem, key) = issue(&authority, "early", now + day, now + week);
    with_certificate(&world, &pem, &key).await.says(64, &["not valid yet"]);
    let foreign = Authority::create().expect("creates");
    let (pem, key) = issue(&foreign, "foreign", now - day, now + week);
    with_certificate(&world, &pem, &key).await.says(64, &["was not signed by the authority in", "ca.pem"]);
    with_certificate(&world, &certs.join("n8.pem"), &certs.join("n8.key"))
        .await
        .says(64, &["found the certificate of n8, expected one of n7"]);
    with_certificate(&world, &certs.join("n7.pem"), &certs.join("n8.key"))
        .await
        .says(64, &["is not the private key of"]);
    let noise = world.folder.write("noise.pem", "noise");
    with_certificate(&world, Path::new(&noise), &certs.join("n7.key")).await.says(64, &["noise.pem"]);
}

#[tokio::test]
async fn one_command_makes_an_authority_and_certificates_and_another_run_keeps_them() {
    let folder = Folder::new("cert");
    let out = folder.text("certs");
    let first = run(&["cert", "--out", &out, "--node", "7", "--host", "localhost"], &[]).await;
    first.says(0, &[]);
    assert!(first.stdout.contains("a new CA") && first.stdout.contains("n7.pem: of node 7"), "{}", first.stdout);
    assert!(is_private(&folder.path("certs/n7.key")) && is_private(&folder.path("certs/ca.key")));
    let before = std::fs::read(folder.path("certs/ca.pem")).expect("reads");
    let kept = std::fs::read(folder.path("certs/n7.pem")).expect("reads");
    run(&["cert", "--out", &out, "--node", "7,8"], &[]).await.says(0, &[]);
    assert_eq!(std::fs::read(folder.path("certs/ca.pem")).expect("reads"), before);
    assert_eq!(std::fs::read(folder.path("certs/n7.pem")).expect("reads"), kept);
    assert!(folder.path("certs/n8.pem").exists());
    run(&["cert", "--out", &out, "--node", "7", "--renew"], &[]).await.says(0, &[]);
    assert_ne!(std::fs::read(folder.path("certs/n7.pem")).expect("reads"), kept);
    run(&["cert", "--out", &out, "--node", "9", "--host", "no host"], &[]).await.says(64, &["`no host` is neither"]);
    let other = folder.text("other");
    run(&["cert", "--out", &other, "--node", "9", "--host", "no host"], &[]).await.says(64, &["`no host` is neither"]);
    assert!(!folder.path("other").exists(), "nothing is written before all of it is right");
    for id in ["x", "4294967295"] {
        let ended = run(&["cert", "--out", &out, "--node", id], &[]).await;
        ended.says(64, &["'--node <ID>'", "expected a node's id, a whole number from 0 to 4294967294"]);
    }
}

#[tokio::test]
async fn a_token_is_for_its_character_until_it_expires() {
    let folder = Folder::new("token");
    let key = folder.write("token.key", &format!("{}\n", "a5".repeat(32)));
    let ended = run(&["token", "--character", "7", "--ttl", "1h", "--key", &key], &[]).await;
    ended.says(0, &[]);
    let hex = ended.stdout.trim();
    let token: Vec<_> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("digits")).collect();
    let now_ms = clock::unix_now().as_nanos() / 1_000_000;
    let claims = Key([0xa5; 32]).verify(&token, now_ms).expect("valid");
    assert_eq!(claims.character, CharacterId::new(7).expect("small"));
    assert!(
        claims.issued_unix_ms.abs_diff(now_ms) < 60_000 && claims.expires_unix_ms == claims.issued_unix_ms + 3_600_000
    );
    assert_eq!(Key([0xa5; 32]).verify(&token, now_ms + 3_601_000), Err(BadToken::Expired));
    let short = folder.write("short.key", PASSWORD);
    let refused = run(&["token", "--character", "7", "--key", &short], &[]).await;
    refused.says(64, &["flag --key", "64 hexadecimal digits"]);
    assert!(!refused.stderr.contains(PASSWORD));
    run(&["token", "--character", "x", "--ttl", "1", "--key", &key], &[]).await.says(64, &["--character"]);
}

#[tokio::test]
async fn wrong_usage_says_what_would_be_right() {
    run(&[], &[]).await.says(64, &["gateway", "who-owns", "Exit codes"]);
    run(&["worke"], &[]).await.says(64, &["'worke'", "worker"]);
    run(&["worker", "--listn", "x"], &[]).await.says(64, &["'--listn'", "--listen"]);
    let help = run(&["worker", "--help"], &[]).await;
    assert_eq!(help.code, Some(0));
    for told in ["--lease-ttl <DURATION>", "WORLDLINE_CONFIG", "Where it listens"] {
        assert!(help.stdout.contains(told), "{told} in {}", help.stdout);
    }
    let help = run(&["orchestrator", "--help"], &[]).await.stdout;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("an orchestrator only measures its servers"), "what its cache is for: {help}");
    let bot = run(&["bot", "--gateway", "127.0.0.1:7001", "--character", "1"], &[]).await;
    bot.says(
        64,
        &["flag --peers: found `127.0.0.1:7001`, expected ID=HOST:PORT", "found no `token`", "found no `tls.ca`"],
    );
    assert_eq!(bot.stderr.matches("peers").count(), 1, "once is enough: {}", bot.stderr);
    run(&["who-owns", "dragon-1"], &[("WORLDLINE_DIRECTORY", "http://127.0.0.1:1")])
        .await
        .says(64, &["`dragon-1`", "boss-1"]);
    run(&["near", "64000001", "0"], &[]).await.says(
        64,
        &[
            "flag X_MM Y_MM: found `64000001 0`, expected a place inside the world",
            "no `world`",
            "no `region`",
            "no `cache`",
        ],
    );
    for radius in ["2000", "x"] {
        let ended = run(&["near", "0", "-1", "--radius", radius], &[]).await;
        ended.says(64, &["expected whole metres from 1 to 1000"]);
    }
    run(&["near", "a", "b"], &[]).await.says(64, &["'a'", "expected whole millimetres, such as `-1500`"]);
}
